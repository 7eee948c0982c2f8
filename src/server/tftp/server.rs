//! Port 69, where requests come in, and the transfers that come of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::sleep_until;
use tracing::{debug, warn};

use super::access::{Access, access};
use super::ports::{Inbox, Ports};
use super::sessions::{Kind, Session, Sessions};
use super::strangers::Strangers;
use crate::pure::boot::decide::Ignored;
use crate::pure::boot::served_names::{self, Asked};
use crate::pure::boot::urls;
use crate::pure::catalog::server::Tftp;
use crate::pure::client::boot_id::BootId;
use crate::pure::config::snapshot::{Config, Snapshot};
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::script::render;
use crate::pure::tftp::errors::Errors;
use crate::pure::tftp::history::History;
use crate::pure::tftp::packet::{self, ErrorCode, Packet, Rrq};
use crate::pure::tftp::pieces::{Done, Pieces};
use crate::pure::tftp::places::{Room, may_read, room};
use crate::pure::tftp::transfer::Outcome;
use crate::server::machine_script::{self, Answer, Links, ScriptRequest};
use crate::server::shared_files::{Content, OpenFile, Shared};
use crate::state::images::Images;
use crate::state::registry::{BootRequest, Registry};
use crate::sys::interfaces::{Interface, Served};
use crate::sys::neighbours::Neighbours;
use crate::sys::tally::Tally;
use crate::sys::udp::{Received, Udp};

mod transfers;

/// How often what has come is read before time-outs are looked at: a flood must not keep them off.
const MOST_ROUNDS: u32 = 8;
/// How many requests are taken from the kernel before strangers have their turn, and how long that is. So a
/// flood fills the short queue of strangers, and not the kernel's, which drops requests of machines too.
const AT_ONCE: usize = 256;
const TURN: Duration = Duration::from_millis(1);
/// A longer request is none: RFC 2347 has 512 bytes, and some ROMs send garbage behind the name.
const LONGEST_REQUEST: usize = 2048;
/// What the pieces of large files take in memory together, in bytes.
const MEMORY: u64 = 64 << 20;

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
    pieces: Pieces<OpenFile>,
    reading_pieces: JoinSet<Done<OpenFile>>,
    strangers: Strangers,
    count: u64,
    errors: Errors,
    malformed: Tally,
    dropped: Tally,
    unsent_errors: Tally,
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
            errors: Errors::new(limits.max_errors),
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
            pieces: Pieces::new(MEMORY),
            reading_pieces: JoinSet::new(),
            strangers: Strangers::default(),
            count: 0,
            malformed: Tally::default(),
            dropped: Tally::default(),
            unsent_errors: Tally::default(),
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
                    Ok(received) => {
                        self.take(&buffer[..received.len], received);
                        let turn = self.take_what_waits(&mut buffer);
                        self.serve_strangers(turn);
                    }
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
                Some(read) = self.reading_pieces.join_next() => match read {
                    Ok(done) => self.take_piece(done),
                    Err(error) => warn!("tftp: reading a piece of a file: {error}"),
                },
                // Whatever else is ready has its turn first.
                () = yield_now(), if !self.strangers.is_empty() => self.serve_strangers(TURN),
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
            self.read_pieces();
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
                self.errors = Errors::new(limits.max_errors);
            }
            self.limits = limits;
        }
    }

    /// Takes what waits in the kernel; how long strangers may have their turn then.
    fn take_what_waits(&mut self, buffer: &mut [u8]) -> Duration {
        for _ in 0..AT_ONCE {
            // The next receive that waits returns an error once more.
            let Ok(received) = self.socket.receive_now(buffer) else {
                return TURN;
            };
            self.take(&buffer[..received.len], received);
        }
        // More waits, and if the kernel has no room for the rest, it drops requests of machines too.
        TURN / 8
    }

    /// Takes a datagram that came to port 69. Machines of the config are answered as they come, strangers
    /// after them.
    fn take(&mut self, datagram: &[u8], received: Received) {
        self.take_up_limits();
        let served = Arc::clone(&self.served.borrow());
        let interfaces: Vec<&Interface> = served.iter().collect();
        let from = received.from;
        let subject = self.subject_at(*from.ip());
        match access(received, &interfaces, &self.limits, || {
            self.registry.leased_by(*from.ip()).is_some()
        }) {
            Access::Granted => {}
            Access::Impossible | Access::NotServed => return,
            Access::Far(reason) => {
                return self.registry.record(Event { subject, step: Step::Ignored { reason } });
            }
        }
        let is_too_long = datagram.len() > LONGEST_REQUEST;
        match if is_too_long { Err(packet::Malformed) } else { Packet::decode(datagram) } {
            Ok(packet @ (Packet::Rrq(_) | Packet::Wrq)) => {
                if subject.name.is_some() {
                    self.answer(packet, received);
                } else if let Some(dropped) = self.strangers.push(packet, received)
                    && let Some(count) = self.dropped.tell()
                {
                    warn!(
                        "tftp: too many requests at once; {count} requests of machines that are not in the config dropped since the start, the last from {dropped}"
                    );
                }
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

    fn serve_strangers(&mut self, turn: Duration) {
        let until = Instant::now() + turn;
        while Instant::now() < until
            && let Some((packet, received)) = self.strangers.pop()
        {
            self.answer(packet, received);
        }
    }

    fn answer(&mut self, packet: Packet, received: Received) {
        match packet {
            Packet::Rrq(rrq) => {
                let served = Arc::clone(&self.served.borrow());
                self.request(rrq, received, &served);
            }
            Packet::Wrq => {
                let text = "this server only reads";
                let subject = self.subject_at(*received.from.ip());
                self.record_refusal(subject, "a write request".to_owned(), text.to_owned());
                self.refuse(received, ErrorCode::IllegalOperation, text);
            }
            // They are no requests.
            Packet::Ack(_) | Packet::Error(..) => {}
        }
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
        let is_known = subject.name.is_some();
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
        let wanted =
            match served_names::asked(&rrq.file, snapshot.served(), (&state, SystemTime::now())) {
                Ok(found) => found,
                Err(refusal) => {
                    let text = refusal.to_string();
                    self.record_refusal(subject, asked, text.clone());
                    let (code, text) = match refusal {
                        served_names::Refusal::Unknown => (ErrorCode::NotFound, text),
                        served_names::Refusal::NoName => (ErrorCode::AccessViolation, text),
                        // Firmware shows a line at most.
                        served_names::Refusal::Decided(_) | served_names::Refusal::Coming(..) => {
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
        if let Some(full) = self.is_full((*peer.ip(), is_known), now) {
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
        let mut id = served_names::boot_of(&rrq.file);
        if let Asked::Image(..) = &wanted {
            let sender = (*peer.ip(), neighbours.at(*peer.ip()));
            (subject, id) =
                machine_script::image_fetch(&registry, &config, (subject.mac, id), sender);
        }
        let reading = self.reading.spawn(async move {
            let now = Snapshot { config: &config, shelf: &shelf };
            let machines = (&registry, &neighbours);
            let from = (*peer.ip(), id);
            let read = read(&wanted, (&files, &images), (now, machines), (at, from)).await;
            Read { peer, number, file: name(wanted), read }
        });
        let session = Session::new((number, now), port, (rrq, subject, is_known), (id, reading));
        self.sessions.insert(peer, session);
    }

    /// Why there is no room for one more to this address, where none can be made.
    fn is_full(&mut self, to: (Ipv4Addr, bool), now: Instant) -> Option<&'static str> {
        let (_, is_known) = to;
        // A client that asks anew and anew leaves a file behind that is still being read, each time.
        if let Err(why) = may_read(self.reading.len(), is_known, &self.limits) {
            return Some(why);
        }
        match room(self.sessions.places(), to, &self.limits, now) {
            Room::Free => None,
            Room::Full(why) => Some(why),
            Room::After(expendable) => {
                self.end(expendable, Outcome::MadeRoom, now);
                None
            }
        }
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
        if !self.may_send_error(*received.from.ip(), Instant::now()) {
            return;
        }
        let from = (received.local, received.interface);
        if let Err(error) = self.socket.send_now(&packet::error(code, text), received.from, from) {
            debug!("tftp: cannot refuse {}: {error}", received.from);
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
    Ok(match wanted {
        Asked::Nbp(nbp) => Ready::of(files.read(&nbp.path).await?, Kind::Nbp(nbp.arch)),
        Asked::Image(_, path) => {
            let (images, of) = (images.clone(), path.clone());
            let check = async move { images.serves(&of).await };
            Ready::of(files.read_checked(path, check).await?, Kind::Image)
        }
        Asked::Companion(_, path) => Ready::of(files.read(path).await?, Kind::Companion),
        Asked::Script(mac) => {
            let sender = (from, neighbours.settled(from).await);
            let client = machine_script::client_without_http(*mac, from);
            let request = ScriptRequest {
                boot: BootRequest {
                    id,
                    is_forgeable: true,
                    ..BootRequest::new(*mac, sender, now.config)
                },
                client: &client,
                report: None,
                is_ipxe: true,
                links: Links::Tftp(at),
            };
            let (subject, answer) = machine_script::answer(registry, now, &request);
            let (text, kind, id) = match answer {
                Answer::Given(text, does, id) => (text, Kind::Script(does), Some(id)),
                Answer::Apart(text, step) => (text, Kind::Apart(step), None),
                Answer::Nothing(reason, _) => return Err(Unserved::Decided(reason)),
            };
            let whose = Some((subject, id));
            Ready { content: text.into_bytes().into(), kind, whose }
        }
        Asked::Autoexec(_) => {
            let base = urls::base(*at.ip(), now.config.server.http_port);
            let text = render::render_autoexec(&now.config.templates, &base);
            let text = text.map_err(|refusal| refusal.to_string())?;
            Ready::of(text.into_bytes().into(), Kind::Autoexec)
        }
    })
}

fn name(wanted: Asked) -> String {
    match wanted {
        Asked::Nbp(nbp) => nbp.name,
        Asked::Image(name, _) | Asked::Companion(name, _) | Asked::Autoexec(name) => name,
        Asked::Script(mac) => format!("{}.ipxe", mac.hyphenated()),
    }
}

/// What a client that asked at `local` is told for us.
fn base_address(served: &Served, local: Ipv4Addr) -> Ipv4Addr {
    served.with_address(local).map_or(local, |interface| interface.advertised)
}
