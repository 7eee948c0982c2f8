//! Port 69, where requests come in, and the transfers that come of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::history::History;
use super::options::{Most, negotiate};
use super::packet::{self, ErrorCode, Packet, Rrq};
use super::ports::{Inbox, Outgoing, PortId, Ports};
use super::sessions::{Kind, Running, Session, Sessions};
use super::transfer::{Action, Outcome, Transfer};
use crate::boot::boot_id::BootId;
use crate::boot::decide::Ignored;
use crate::boot::event::Subject;
use crate::boot::{Event, Step, links, script};
use crate::budget::Budget;
use crate::config::{Config, Snapshot, Tftp};
use crate::files::{self, Asked, Content, Shared};
use crate::images::Images;
use crate::interfaces::Served;
use crate::journal::Tally;
use crate::neighbours::Neighbours;
use crate::registry::{BootRequest, Registry};
use crate::scripts::{self, Answer, Links, ScriptRequest};
use crate::udp::{Received, Udp, path_mtu};

/// How often what has come is read before time-outs are looked at: a flood must not keep them off.
const MOST_ROUNDS: u32 = 8;
/// What an Ethernet frame carries.
const ETHERNET: u64 = 1500;

/// Port 69, bound, and all transfers.
#[derive(Debug)]
pub struct Server {
    socket: Udp,
    limits: Tftp,
    config: watch::Receiver<Arc<Config>>,
    served: watch::Receiver<Arc<Served>>,
    registry: Registry,
    neighbours: Neighbours,
    images: Images,
    sessions: Sessions,
    ports: Ports,
    history: History,
    reading: JoinSet<Read>,
    count: u64,
    errors: Budget,
    malformed: Tally,
    files: Shared,
    /// How many transfers there are, for who wants to know.
    running: Arc<AtomicUsize>,
}

/// A file that was read for a session.
struct Read {
    peer: SocketAddrV4,
    /// The session's.
    number: u64,
    /// Its name.
    file: String,
    read: Result<Ready, Unserved>,
}

/// What is sent.
struct Ready {
    content: Content,
    kind: Kind,
    /// Whose script it is, and the boot that it is of.
    whose: Option<(Subject, Option<BootId>)>,
}

impl Ready {
    fn of(content: Content, kind: Kind) -> Self {
        Self { content, kind, whose: None }
    }
}

/// Why a file is not sent.
#[derive(Debug)]
enum Unserved {
    /// It cannot be read.
    Unreadable(String),
    /// The machine gets no script.
    Decided(Ignored),
}

impl Unserved {
    /// The step that it is to have asked for the file.
    fn step(self, what: String) -> Step {
        match self {
            Self::Unreadable(reason) => Step::Refused { what, reason },
            Self::Decided(reason) => reason.step(),
        }
    }
}

impl From<String> for Unserved {
    fn from(reason: String) -> Self {
        Self::Unreadable(reason)
    }
}

impl Server {
    /// Takes the bound socket.
    pub fn new(
        socket: Udp,
        limits: Tftp,
        (config, served): (watch::Receiver<Arc<Config>>, watch::Receiver<Arc<Served>>),
        ((registry, neighbours), images): ((Registry, Neighbours), Images),
    ) -> Self {
        Self {
            socket,
            errors: Budget::new((limits.max_errors, limits.max_errors)),
            limits,
            config,
            served,
            registry,
            neighbours,
            images,
            sessions: Sessions::default(),
            ports: Ports::default(),
            history: History::default(),
            reading: JoinSet::new(),
            count: 0,
            malformed: Tally::default(),
            files: Shared::default(),
            running: Arc::default(),
        }
    }

    /// How many transfers there are at any time.
    pub fn running(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.running)
    }

    /// Serves, for ever.
    pub async fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        let mut inbox = Inbox::default();
        // Set anew only when it has gone off, or must sooner: each packet puts the time-out off, and to
        // tell the timer each time costs more than to hear of it early now and then.
        let mut alarm = pin!(sleep_until(Instant::now().into()));
        loop {
            let next = self.sessions.next_alarm();
            if let Some(next) = next
                && (alarm.is_elapsed() || next < alarm.deadline().into_std())
            {
                alarm.as_mut().reset(next.into());
            }
            tokio::select! {
                received = self.socket.receive(&mut buffer) => match received {
                    Ok(received) => self.take(&buffer[..received.len], received),
                    Err(error) => {
                        debug!("tftp: receiving: {error}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                () = self.ports.wait() => {
                    self.take_packets(&mut inbox);
                }
                Some(read) = self.reading.join_next() => match read {
                    Ok(read) => self.begin(read),
                    // Nobody waits for it any more.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => warn!("tftp: reading a file: {error}"),
                },
                () = &mut alarm, if next.is_some() => {
                    // What has come in time is no time-out, though it is only read now.
                    let mut rounds = 0..MOST_ROUNDS;
                    while rounds.next().is_some() && self.take_packets(&mut inbox) {
                        self.ports.flush();
                    }
                    self.time_out();
                }
            }
            self.ports.flush();
            self.running.store(self.sessions.count(), Ordering::Relaxed);
        }
    }

    /// Takes up limits that have changed in the config. What runs goes on.
    fn take_up_limits(&mut self) {
        if !self.config.has_changed().unwrap_or(false) {
            return;
        }
        let limits = self.config.borrow_and_update().server.tftp.clone();
        if let Some(limits) = limits.filter(|limits| *limits != self.limits) {
            if limits.max_errors != self.limits.max_errors {
                self.errors = Budget::new((limits.max_errors, limits.max_errors));
            }
            self.limits = limits;
        }
    }

    /// Takes up what came to port 69.
    fn take(&mut self, datagram: &[u8], received: Received) {
        self.take_up_limits();
        let served = Arc::clone(&self.served.borrow());
        let from = received.from;
        if let Some(reason) = self.why_not(received, &served) {
            if let Some(reason) = reason {
                let subject = self.subject_at(*from.ip());
                self.registry.record(Event { subject, step: Step::Ignored { reason } });
            }
            return;
        }
        match Packet::decode(datagram) {
            Ok(Packet::Rrq(rrq)) => self.request(rrq, received, &served),
            Ok(Packet::Wrq) => {
                let text = "this server only reads";
                let subject = self.subject_at(*from.ip());
                self.record_refusal(subject, "a write request".to_owned(), text.to_owned());
                self.refuse(received, ErrorCode::IllegalOperation, text);
            }
            Ok(Packet::Ack(_) | Packet::Error(..)) => {
                debug!("tftp: dropped a packet from {from} that belongs to no transfer");
            }
            Err(packet::Malformed) => {
                if let Some(count) = self.malformed.tell() {
                    warn!(
                        "tftp: dropped a malformed datagram from {from} ({count} since the start)"
                    );
                }
            }
        }
    }

    /// Why nobody is answered there; and the reason, where somebody may look for one.
    fn why_not(&self, received: Received, served: &Served) -> Option<Option<String>> {
        let from = *received.from.ip();
        let is_from_here =
            |address: Ipv4Addr| address.is_loopback() || served.with_address(address).is_some();
        let is_nobody = from.is_unspecified() || from.is_multicast() || from.is_broadcast();
        if received.from.port() == 0 || is_nobody {
            return Some(None);
        }
        let Some(interface) = served.at(received.interface) else {
            let by_loopback = is_from_here(from) && is_from_here(received.local);
            return (!by_loopback).then_some(None);
        };
        // A machine behind a DHCP relay was seen by DHCP.
        let is_known = self.registry.leased_by(from).is_some();
        let is_near =
            interface.is_on_lan(from) || self.limits.subnets.iter().any(|net| net.contains(&from));
        (!is_known && !is_near).then(|| {
            Some(format!(
                "its TFTP request came from no subnet of {}; if machines boot from there, name theirs in `server.tftp.subnets`",
                interface.name
            ))
        })
    }

    fn request(&mut self, rrq: Rrq, received: Received, served: &Arc<Served>) {
        let (peer, now) = (received.from, Instant::now());
        if let Some(session) = self.sessions.get_mut(peer)
            && session.is_repeated_by(&rrq, now)
        {
            if let Some(running) = &mut session.running {
                running.transfer.handle_repeated_request();
                self.advance(peer, now);
            }
            return;
        }
        let mut subject = self.subject_at(*peer.ip());
        let asked = rrq.shown();
        if rrq.mode != "octet" {
            let text = "only mode octet is served";
            self.record_refusal(subject, asked, text.to_owned());
            return self.refuse(received, ErrorCode::IllegalOperation, text);
        }
        let config = Arc::clone(&self.config.borrow());
        let shelf = self.images.shelf();
        let snapshot = Snapshot { config: &config, shelf: &shelf };
        let state = self.registry.state(&subject);
        let wanted = match files::asked(&rrq.file, snapshot, (&state, SystemTime::now())) {
            Ok(found) => found,
            Err(refusal) => {
                let text = refusal.to_string();
                self.record_refusal(subject, asked, text.clone());
                let (code, text) = match refusal {
                    files::Refusal::Unknown => (ErrorCode::NotFound, text),
                    files::Refusal::NoName => (ErrorCode::AccessViolation, text),
                    // Firmware shows a line at most.
                    files::Refusal::Decided(_) | files::Refusal::Coming(..) => {
                        let text =
                            "it is not served to this machine now; the server's log says why";
                        (ErrorCode::AccessViolation, text.to_owned())
                    }
                };
                return self.refuse(received, code, &text);
            }
        };
        // A request from the same port for something else ends what was running there.
        let outcome = match self.sessions.get_mut(peer) {
            Some(Session { request, running: Some(running), .. }) if *request != rrq => {
                running.transfer.left_for_another()
            }
            Some(_) | None => Outcome::Replaced,
        };
        self.end(peer, outcome, now);
        if let Some(full) = self.is_full(*peer.ip(), now) {
            self.record_refusal(subject, asked, full.to_owned());
            return self.refuse(received, ErrorCode::Undefined, full);
        }
        let local = received.local;
        let is_ours = |address| served.with_address(address).is_some();
        let was_there = |port| self.sessions.was_at(peer, port);
        let port = match self.ports.take(local, is_ours, was_there) {
            Ok(port) => port,
            Err(error) => {
                self.record_refusal(subject, asked, format!("no port for the transfer: {error}"));
                let text = "the server has no port for the transfer";
                return self.refuse(received, ErrorCode::Undefined, text);
            }
        };
        self.count += 1;
        let number = self.count;
        let files = self.files.clone();
        let at = SocketAddrV4::new(base_address(served, local), self.limits.port);
        let images = self.images.clone();
        let (registry, neighbours) = (self.registry.clone(), self.neighbours.clone());
        let mut id = files::boot_of(&rrq.file);
        if let Asked::Image(..) = &wanted {
            let sender = (*peer.ip(), neighbours.at(*peer.ip()));
            (subject, id) = scripts::image_fetch(&registry, &config, (subject.mac, id), sender);
        }
        let reading = self.reading.spawn(async move {
            let now = Snapshot { config: &config, shelf: &shelf };
            let machines = (&registry, &neighbours);
            let from = (*peer.ip(), id);
            let read = read(&wanted, (&files, &images), (now, machines), (at, from)).await;
            Read { peer, number, file: name(wanted), read }
        });
        let session = Session::new((number, now), port, (rrq, subject, id), reading);
        self.sessions.insert(peer, session);
    }

    /// Begins the transfer of a file that was read.
    fn begin(&mut self, Read { peer, number, file, read }: Read) {
        let now = Instant::now();
        let is_its = |session: &&mut Session| session.number == number;
        let Some(session) = self.sessions.get_mut(peer).filter(is_its) else {
            return;
        };
        let Ready { content, kind, whose } = match read {
            Ok(read) => read,
            Err(reason) => {
                let (port, subject) = (session.port, session.subject.clone());
                self.sessions.remove(peer, now);
                self.ports.give_back(port);
                self.registry.record(Event { subject, step: reason.step(file) });
                let text = "the file cannot be read; the server's log says why";
                self.send_error((port, peer), ErrorCode::AccessViolation, text, now);
                return;
            }
        };
        if let Some(whose) = whose {
            (session.subject, session.id) = whose;
        }
        let mtu = self.ports.address(session.port).map_or(Ok(ETHERNET), |at| path_mtu(at, peer));
        let carries = Most::over(mtu.unwrap_or(ETHERNET));
        let most = self.history.most(*peer.ip(), carries, now);
        let granted = negotiate(&session.request, content.len() as u64, most);
        let sends = self.limits.max_unanswered;
        let transfer = Transfer::accept(granted, content.len() as u64, sends, now);
        session.running = Some(Running { transfer, content, file, kind });
        self.advance(peer, now);
    }

    /// Takes up what came to the transfers' ports, a part from each; whether there was anything.
    fn take_packets(&mut self, inbox: &mut Inbox) -> bool {
        let now = Instant::now();
        let mut any = false;
        for port in self.ports.ids() {
            any |= self.ports.receive(port, inbox);
            for (from, datagram) in inbox.iter() {
                self.take_packet((port, from), datagram, now);
            }
        }
        any
    }

    fn take_packet(&mut self, (port, from): (PortId, SocketAddrV4), datagram: &[u8], now: Instant) {
        let packet = Packet::decode(datagram);
        let is_its = |session: &&mut Session| session.port == port;
        if let Some(session) = self.sessions.get_mut(from).filter(is_its) {
            if let (Some(running), Ok(packet)) = (&mut session.running, packet) {
                running.transfer.handle(&packet, now);
                self.advance(from, now);
            }
            return;
        }
        // An ERROR is never answered: two servers would go on for ever.
        let is_error = matches!(packet, Ok(Packet::Error(..)));
        if !is_error && !self.sessions.is_late(from, port, now) {
            // RFC 1350 section 4: tell the stranger, and go on.
            let (code, text) = (ErrorCode::UnknownTransferId, "this transfer is not yours");
            self.send_error((port, from), code, text, now);
        }
    }

    fn time_out(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.sessions.alarmed(now) {
            if let Some(Session { running: Some(running), .. }) = self.sessions.get_mut(peer) {
                running.transfer.handle_timeout(now);
                self.advance(peer, now);
            }
        }
    }

    /// Does what a transfer wants to have done.
    fn advance(&mut self, peer: SocketAddrV4, now: Instant) {
        while let Some(Session { running: Some(running), port, .. }) = self.sessions.get_mut(peer) {
            let Running { transfer, content, .. } = running;
            let what = match transfer.poll(now) {
                Action::SendOack => Outgoing::Packet(packet::oack(&transfer.granted().oack)),
                Action::Send(blocks) => {
                    let (content, blksize) = (Arc::clone(content), transfer.granted().blksize);
                    Outgoing::Blocks { content, blksize, blocks }
                }
                Action::Wait(until) => return self.sessions.wake(peer, until),
                Action::Done(outcome) => return self.end(peer, outcome, now),
            };
            self.ports.send(*port, peer, what);
        }
    }

    /// Ends a session, if there is one.
    fn end(&mut self, peer: SocketAddrV4, outcome: Outcome, now: Instant) {
        let Some(session) = self.sessions.remove(peer, now) else {
            return;
        };
        self.ports.give_back(session.port);
        if let Some(Running { transfer, .. }) = &session.running {
            self.history.learn(*peer.ip(), (session.started, now), (transfer, &outcome));
        }
        let id = session.id;
        self.registry.record_in(session.ended(outcome, now), id);
    }

    /// Why there is no room for one more to this address, where none can be made.
    fn is_full(&mut self, address: Ipv4Addr, now: Instant) -> Option<&'static str> {
        const BUSY: &str = "the server is busy: `server.tftp.max_transfers` are running";
        let (in_all, to_address) = (self.sessions.count(), self.sessions.count_to(address));
        // A client that asks anew and anew leaves a file behind that is still being read, each time.
        if self.reading.len() >= self.limits.max_transfers {
            return Some(BUSY);
        }
        let (of, full) = if to_address >= self.limits.max_per_address {
            let text =
                "too many transfers to this address: `server.tftp.max_per_address` are running";
            (Some(address), text)
        } else if in_all >= self.limits.max_transfers {
            (None, BUSY)
        } else {
            return None;
        };
        let Some(expendable) = self.sessions.expendable(of, now) else {
            return Some(full);
        };
        self.end(expendable, Outcome::MadeRoom, now);
        None
    }

    fn subject_at(&self, address: Ipv4Addr) -> Subject {
        let config = Arc::clone(&self.config.borrow());
        self.registry.subject_at(address, self.neighbours.at(address), &config.catalog)
    }

    fn record_refusal(&self, subject: Subject, what: String, reason: String) {
        self.registry.record(Event { subject, step: Step::Refused { what, reason } });
    }

    /// Answers a request by an ERROR, from the port that it came to.
    fn refuse(&mut self, received: Received, code: ErrorCode, text: &str) {
        if self.errors.spend(Instant::now()).is_none() {
            return;
        }
        let from = (received.local, received.interface);
        if let Err(error) = self.socket.send_now(&packet::error(code, text), received.from, from) {
            debug!("tftp: cannot refuse {}: {error}", received.from);
        }
    }

    /// Sends an ERROR from a transfer's port.
    fn send_error(
        &mut self,
        (port, to): (PortId, SocketAddrV4),
        code: ErrorCode,
        text: &str,
        now: Instant,
    ) {
        if self.errors.spend(now).is_some() {
            self.ports.send(port, to, Outgoing::Packet(packet::error(code, text)));
        }
    }
}

/// The bytes that were asked for, or why they are not to be had.
async fn read(
    wanted: &Asked,
    (files, images): (&Shared, &Images),
    (now, (registry, neighbours)): (Snapshot<'_>, (&Registry, &Neighbours)),
    (at, (from, id)): (SocketAddrV4, (Ipv4Addr, Option<BootId>)),
) -> Result<Ready, Unserved> {
    let read = async |path: &Path| {
        files.read(path).await.map_err(|why| format!("{}: {why}", path.display()))
    };
    Ok(match wanted {
        Asked::Nbp(_, path) => Ready::of(read(path).await?, Kind::Nbp),
        Asked::Image(_, path) => {
            images.serves(path).await?;
            Ready::of(read(path).await?, Kind::Image)
        }
        Asked::Companion(_, path) => Ready::of(read(path).await?, Kind::Companion),
        Asked::Script(mac) => {
            let sender = (from, neighbours.settled(from).await);
            let client = scripts::client_without_http(*mac, from);
            let request = ScriptRequest {
                boot: BootRequest { id, ..BootRequest::new(*mac, sender, now.config) },
                client: &client,
                report: None,
                is_ipxe: true,
                is_head: false,
                links: Links::Tftp(at),
            };
            let (subject, answer) = scripts::answer(registry, now, &request);
            let (text, kind, id) = match answer {
                Answer::Given(text, does, id) => (text, Kind::Script(does), Some(id)),
                Answer::Apart(text, step) => (text, Kind::Apart(step), None),
                Answer::Nothing(reason, _) => return Err(Unserved::Decided(reason)),
            };
            let whose = Some((subject, id));
            Ready { content: Arc::new(text.into_bytes()), kind, whose }
        }
        Asked::Autoexec(_) => {
            let base = links::base(*at.ip(), now.config.server.http_port);
            let text = script::render_autoexec(&now.config.templates, &base);
            let text = text.map_err(|refusal| refusal.to_string())?;
            Ready::of(Arc::new(text.into_bytes()), Kind::Autoexec)
        }
    })
}

fn name(wanted: Asked) -> String {
    match wanted {
        Asked::Nbp(name, _)
        | Asked::Image(name, _)
        | Asked::Companion(name, _)
        | Asked::Autoexec(name) => name,
        Asked::Script(mac) => format!("{}.ipxe", mac.hyphenated()),
    }
}

/// What a client that asked at `local` is told for us.
fn base_address(served: &Served, local: Ipv4Addr) -> Ipv4Addr {
    served.with_address(local).map_or(local, |interface| interface.advertised)
}
