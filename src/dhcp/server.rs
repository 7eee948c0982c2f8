//! The sockets of proxyDHCP, on ports 67 and 4011.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tracing::{debug, error, warn};

use super::lan::Sighting;
use super::packet::Request;
use super::proxy::{Arrival, Ignored, Outcome, Port, Query, respond};
use super::survey::{self, Prober};
use crate::boot::{Event, Step};
use crate::config::Config;
use crate::interfaces::Served;
use crate::journal::Tally;
use crate::registry::Registry;
use crate::udp::{Received, Udp};

/// One of our two ports, bound.
#[derive(Debug)]
pub struct Server {
    port: Port,
    socket: Udp,
    config: watch::Receiver<Arc<Config>>,
    served: watch::Receiver<Arc<Served>>,
    registry: Registry,
    sightings: mpsc::Sender<Sighting>,
    malformed: Tally,
}

impl Server {
    /// Takes a bound socket. Which DHCP servers machines choose is told to `sightings`.
    pub fn new(
        (port, socket): (Port, Udp),
        (config, served): (watch::Receiver<Arc<Config>>, watch::Receiver<Arc<Served>>),
        registry: Registry,
        sightings: mpsc::Sender<Sighting>,
    ) -> Self {
        Self { port, socket, config, served, registry, sightings, malformed: Tally::default() }
    }

    /// Answers, for ever. What goes wrong with one datagram ends with that datagram.
    pub async fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            match self.socket.receive(&mut buffer).await {
                Ok(received) => self.answer(&buffer[..received.len], received).await,
                Err(error) => {
                    // An ICMP error of an earlier reply, or a passing shortage.
                    debug!("dhcp: receiving: {error}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    async fn answer(&mut self, datagram: &[u8], received: Received) {
        let config = Arc::clone(&self.config.borrow());
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
        let arrival = Arrival {
            from: received.from,
            port: self.port,
            interface: interface.name.clone(),
            asked: received.local,
            local: interface.advertised,
        };
        let state = self.registry.state(query.mac());
        match respond(&query, &arrival, &config, (&state, SystemTime::now())) {
            Outcome::Reply { to, datagram, event } => {
                let from = (received.local, received.interface);
                match self.socket.send(&datagram, to, from).await {
                    Ok(()) if prober.is_some() => debug!("dhcp: answered a probe from {to}"),
                    Ok(()) => self.registry.record(event),
                    Err(error) => error!(
                        "dhcp: cannot send the answer for {} to {to} on {}: {}",
                        event.subject,
                        interface.name,
                        explained(&error)
                    ),
                }
            }
            Outcome::Seen(event) => self.registry.record(event),
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
            Ignored::Decided { subject, reason } => {
                let step = Step::Ignored { reason: reason.to_string() };
                self.registry.record(Event { subject, step });
            }
            Ignored::NotOurs(_)
            | Ignored::NotForThisPort
            | Ignored::OtherServer(_)
            | Ignored::Credentials => {
                debug!("dhcp: not answered: {} on {interface}: {reason}", received.from);
            }
        }
    }
}

fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}; a firewall on this host drops it: allow UDP to port 68")
        }
        _ => error.to_string(),
    }
}
