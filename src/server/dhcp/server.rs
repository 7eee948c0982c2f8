//! The sockets of proxyDHCP, on ports 67 and 4011.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hashlink::LinkedHashMap;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::lan::Sighting;
use crate::pure::config::snapshot::Config;
use crate::pure::dhcp::arrival::{Arrival, Port};
use crate::pure::dhcp::destination::{NoReply, RELAY_REPLIES};
use crate::pure::dhcp::packet::Request;
use crate::pure::dhcp::proxy::{Ignored, Outcome, Query, respond};
use crate::pure::dhcp::survey::{self, Prober};
use crate::pure::event::boot::{Event, Step};
use crate::pure::machine::evidence::Neighbour;
use crate::pure::machine::state::MachineState;
use crate::state::registry::Registry;
use crate::sys::interfaces::Served;
use crate::sys::neighbours::Neighbours;
use crate::sys::tally::Tally;
use crate::sys::udp::{Received, Udp};

/// One of our two ports, bound.
#[derive(Debug)]
pub struct Server {
    port: Port,
    socket: Udp,
    config: watch::Receiver<Arc<Config>>,
    served: watch::Receiver<Arc<Served>>,
    registry: Registry,
    neighbours: Neighbours,
    sightings: mpsc::Sender<Sighting>,
    malformed: Tally,
    strangers: VecDeque<(Query, Received, Option<Prober>)>,
    dropped: Tally,
    unsent: Tally,
    /// Replies that may go nowhere, by the reason.
    misdirected: BTreeMap<NoReply, Tally>,
    relays: Relays,
}

/// How many datagrams are taken from the kernel before strangers have their turn.
const AT_ONCE: usize = 256;
/// How long strangers have their turn.
const A_MOMENT: Duration = Duration::from_millis(1);
/// How many strangers wait at most: what a moment's work is to 10 ms.
const MOST_STRANGERS: usize = 1024;

impl Server {
    /// Takes a bound socket. Which DHCP servers machines choose is told to `sightings`.
    pub fn new(
        (port, socket): (Port, Udp),
        (config, served): (watch::Receiver<Arc<Config>>, watch::Receiver<Arc<Served>>),
        (registry, neighbours): (Registry, Neighbours),
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        Self {
            port,
            socket,
            config,
            served,
            registry,
            neighbours,
            sightings,
            malformed: Tally::default(),
            strangers: VecDeque::new(),
            dropped: Tally::default(),
            unsent: Tally::default(),
            misdirected: BTreeMap::new(),
            relays: Relays::default(),
        }
    }

    /// Answers, for ever. What goes wrong with one datagram ends with that datagram.
    ///
    /// What waits in the kernel is taken at once: machines of the config are answered as they come, and
    /// strangers, whom anybody can invent by the thousand, after them. So a flood fills our short queue
    /// and not the kernel's, which knows no difference.
    pub async fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            match self.socket.receive(&mut buffer).await {
                Ok(received) => self.take(&buffer[..received.len], received).await,
                Err(error) => {
                    // An ICMP error of an earlier reply, or a passing shortage.
                    debug!("dhcp: receiving: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            loop {
                let turn = self.take_what_waits(&mut buffer).await;
                self.answer_strangers(turn).await;
                if self.strangers.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what waits in the kernel, and says how long strangers may have their turn then.
    async fn take_what_waits(&mut self, buffer: &mut [u8]) -> Duration {
        for _ in 0..AT_ONCE {
            // An error is told by the next receive that waits.
            let Ok(received) = self.socket.receive_now(buffer) else {
                return A_MOMENT;
            };
            self.take(&buffer[..received.len], received).await;
        }
        // More waits, and what the kernel has no room for is lost, whoever sent it.
        A_MOMENT / 8
    }

    async fn answer_strangers(&mut self, turn: Duration) {
        let until = Instant::now() + turn;
        while Instant::now() < until
            && let Some((query, received, prober)) = self.strangers.pop_front()
        {
            self.answer(query, received, prober).await;
        }
    }

    /// Reads a datagram, and answers it or lets it wait.
    async fn take(&mut self, datagram: &[u8], received: Received) {
        let served = Arc::clone(&self.served.borrow());
        let Some(interface) = served.at(received.interface) else {
            return;
        };
        let request = match Request::decode(datagram) {
            Ok(request) => request,
            Err(reason) => return self.ignore(reason.into(), received, &interface.name),
        };
        if let Some(server) = survey::chosen(&request) {
            // Who falls behind learns of it from the next machine.
            self.sightings.try_send(Sighting { interface: received.interface, server }).ok();
        }
        let prober = Prober::of(&request);
        let query = match Query::new(request) {
            Ok(query) => query,
            Err(reason) => return self.ignore(reason, received, &interface.name),
        };
        if prober == Some(Prober::Daemon) && query.mac() == interface.mac {
            return;
        }
        if self.is_known(&query) {
            self.answer(query, received, prober).await;
        } else if self.strangers.len() < MOST_STRANGERS {
            self.strangers.push_back((query, received, prober));
        } else if let Some(count) = self.dropped.tell() {
            warn!(
                "dhcp: too many requests at once; left {count} of machines that are not in the config unanswered since the start"
            );
        }
    }

    /// Whether a query has a MAC that the config has, or that the operator has confirmed. Anybody can send a machine's
    /// UUID with a thousand MACs: a request that only the UUID ties to a machine waits with those of strangers.
    fn is_known(&self, query: &Query) -> bool {
        let config = self.config.borrow();
        query.mac().is_some_and(|mac| self.registry.whose(mac, &config.catalog).name.is_some())
    }

    async fn answer(&mut self, query: Query, received: Received, prober: Option<Prober>) {
        let config = Arc::clone(&self.config.borrow());
        let served = Arc::clone(&self.served.borrow());
        let Some(interface) = served.at(received.interface) else {
            return;
        };
        let arrival = Arrival {
            from: received.from,
            port: self.port,
            interface: interface.name.clone(),
            asked: received.local,
            local: interface.advertised,
            // Whoever asks the boot server has an address; elsewhere the message itself says who asks.
            neighbour: match self.port {
                Port::BootServer => self.neighbours.at(*received.from.ip()),
                Port::Dhcp => Neighbour::Unknown,
            },
            own: served.own(),
        };
        let now = SystemTime::now();
        let simulated;
        let (registry, is_survey) = match prober {
            Some(Prober::Simulation | Prober::SimulatedIpxe) => {
                simulated = self.registry.of_a_simulation();
                (&simulated, false)
            }
            Some(Prober::Daemon | Prober::Doctor) => (&self.registry, true),
            None => (&self.registry, false),
        };
        let known = query.mac().map(|mac| registry.whose(mac, &config.catalog)).unwrap_or_default();
        let state = match prober {
            // That it has fetched its NBP is not remembered of the machine.
            Some(Prober::SimulatedIpxe) => MachineState::of_a_running_nbp(now).into(),
            Some(Prober::Daemon | Prober::Doctor | Prober::Simulation) | None => {
                registry.state_at_boot(&known, &config.server)
            }
        };
        let query = query.confirmed_as(known.name);
        let outcome = respond(&query, &arrival, config.serving(), (&state, now));
        // Were it held while it changes, it would have to be copied.
        drop(state);
        let outcome = match (outcome, query.relay(self.port)) {
            (reply @ Outcome::Reply { .. }, Some(relay)) => {
                match self.relays.admit(relay, Instant::now()) {
                    Ok(()) => reply,
                    Err(why) => Outcome::Ignored(Ignored::NoReply { to: relay, why }),
                }
            }
            (outcome, _) => outcome,
        };
        match outcome {
            Outcome::Reply { to, datagram, event } => {
                let from = (received.local, received.interface);
                match self.socket.send(&datagram, to, from).await {
                    Ok(()) if is_survey => debug!("dhcp: answered a probe from {to}"),
                    Ok(()) => registry.record(event),
                    Err(error) => {
                        if let Some(count) = self.unsent.tell() {
                            error!(
                                "dhcp: cannot send the answer for {} to {to} on {}: {} ({count} since the start)",
                                event.subject,
                                interface.name,
                                explained(&error, to)
                            );
                        }
                    }
                }
            }
            Outcome::Seen(event) if is_survey => {
                debug!("dhcp: a probe from {} is not answered: {}", received.from, event.step);
            }
            Outcome::Seen(event) => registry.record(event),
            Outcome::Ignored(reason) if is_survey => {
                debug!("dhcp: a probe from {} is not answered: {reason}", received.from);
            }
            Outcome::Ignored(Ignored::Decided { subject, reason }) => {
                let step = Step::Ignored { reason: reason.to_string() };
                registry.record(Event { subject, step });
            }
            Outcome::Ignored(reason) => self.ignore(reason, received, &interface.name),
        }
    }

    fn ignore(&mut self, reason: Ignored, received: Received, interface: &str) {
        match reason {
            Ignored::Malformed(malformed) => {
                if let Some(count) = self.malformed.tell() {
                    warn!(
                        "dhcp: dropped a malformed datagram from {} on {interface}: {malformed} ({count} since the start)",
                        received.from
                    );
                }
            }
            Ignored::NoReply { why, .. } => {
                if let Some(count) = self.misdirected.entry(why).or_default().tell() {
                    warn!(
                        "dhcp: not answered: {} on {interface}: {reason} ({count} since the start)",
                        received.from
                    );
                }
            }
            Ignored::Decided { .. }
            | Ignored::NotOurs(_)
            | Ignored::NotForThisPort
            | Ignored::OtherServer(_)
            | Ignored::Credentials => {
                debug!("dhcp: not answered: {} on {interface}: {reason}", received.from);
            }
        }
    }
}

/// How many relays are remembered.
const MOST_RELAYS: usize = 4096;

/// When each relay got its last replies. Who sends a datagram may name any host as its relay.
#[derive(Debug, Default)]
struct Relays(LinkedHashMap<Ipv4Addr, VecDeque<Instant>>);

impl Relays {
    /// Counts one reply more to a relay, if it may get one.
    fn admit(&mut self, relay: Ipv4Addr, now: Instant) -> Result<(), NoReply> {
        // A relay that is pushed out may get as many again. That takes more requests than it gets replies.
        let mut replies = self.0.remove(&relay).unwrap_or_default();
        while replies.front().is_some_and(|at| now.duration_since(*at) >= Duration::from_secs(1)) {
            replies.pop_front();
        }
        let is_too_many = replies.len() >= RELAY_REPLIES;
        if !is_too_many {
            replies.push_back(now);
        }
        self.0.insert(relay, replies);
        if self.0.len() > MOST_RELAYS {
            self.0.pop_front();
        }
        match is_too_many {
            true => Err(NoReply::TooMany),
            false if has_route(relay) => Ok(()),
            false => Err(NoReply::NoRoute),
        }
    }
}

/// Connecting a UDP socket sends nothing: it asks the kernel for the route.
fn has_route(to: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    socket.and_then(|socket| socket.connect(SocketAddrV4::new(to, 67))).is_ok()
}

fn explained(error: &io::Error, to: SocketAddrV4) -> String {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            format!("{error}; this host has no route to {}, give it one", to.ip())
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; a firewall on this host drops it: allow UDP to port 68")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_gets_20_replies_a_second_and_what_is_remembered_of_relays_is_bounded() {
        let mut relays = Relays::default();
        let [relay, other] = [7, 8].map(|last| Ipv4Addr::new(127, 0, 0, last));
        let start = Instant::now();
        let mut admitted = |relay, millis| {
            let now = start + Duration::from_millis(millis);
            (0..50).filter(|_| relays.admit(relay, now).is_ok()).count()
        };
        assert_eq!(
            [0, 500, 999, 1000, 1999, 5000].map(|at| admitted(relay, at)),
            [20, 0, 0, 20, 0, 20]
        );
        assert_eq!(admitted(other, 5000), 20);
        for n in 0..u32::try_from(2 * MOST_RELAYS).unwrap() {
            relays.admit(Ipv4Addr::from(n), start).ok();
        }
        assert_eq!(relays.0.len(), MOST_RELAYS);
        // Connecting to a broadcast address is refused to a socket that may not send there.
        assert_eq!(relays.admit(Ipv4Addr::BROADCAST, start), Err(NoReply::NoRoute));
    }
}
