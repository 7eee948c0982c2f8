//! Port 69, where requests come in; each transfer then has a socket of its own, in `course`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::course::{self, Course, Ended};
use super::options::negotiate;
use super::packet::{self, ErrorCode, Packet, Rrq};
use super::transfer::{Outcome, Transfer};
use crate::boot::event::{Sent, Subject, Transport};
use crate::boot::{Event, Step, links, script};
use crate::config::{Config, Tftp};
use crate::files::{self, Asked, Shared};
use crate::interfaces::Served;
use crate::journal::Tally;
use crate::registry::Registry;
use crate::scripts;
use crate::udp::{Received, Udp};

/// Port 69, bound.
#[derive(Debug)]
pub struct Server {
    socket: Udp,
    limits: Tftp,
    config: watch::Receiver<Arc<Config>>,
    served: watch::Receiver<Arc<Served>>,
    registry: Registry,
    sessions: HashMap<SocketAddrV4, Session>,
    transfers: JoinSet<(SocketAddrV4, u64)>,
    count: u64,
    malformed: Tally,
    files: Shared,
}

/// A running transfer, as the request port knows it.
#[derive(Debug)]
struct Session {
    number: u64,
    /// As it came: with other options it is another one.
    request: Rrq,
    proven: Arc<AtomicBool>,
    repeated: mpsc::Sender<()>,
}

impl Server {
    /// Takes the bound socket.
    pub fn new(
        socket: Udp,
        limits: Tftp,
        (config, served): (watch::Receiver<Arc<Config>>, watch::Receiver<Arc<Served>>),
        registry: Registry,
    ) -> Self {
        Self {
            socket,
            limits,
            config,
            served,
            registry,
            sessions: HashMap::new(),
            transfers: JoinSet::new(),
            count: 0,
            malformed: Tally::default(),
            files: Shared::default(),
        }
    }

    /// Serves, for ever.
    pub async fn run(mut self) {
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            tokio::select! {
                received = self.socket.receive(&mut buffer) => match received {
                    Ok(received) => self.take(&buffer[..received.len], received).await,
                    Err(error) => {
                        debug!("tftp: receiving: {error}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                Some(ended) = self.transfers.join_next() => {
                    if let Ok((peer, number)) = ended
                        && self.sessions.get(&peer).is_some_and(|session| session.number == number)
                    {
                        self.sessions.remove(&peer);
                    }
                }
            }
        }
    }

    async fn take(&mut self, datagram: &[u8], received: Received) {
        let served = Arc::clone(&self.served.borrow());
        if served.at(received.interface).is_none() && !received.local.is_loopback() {
            return;
        }
        let from = received.from;
        match Packet::decode(datagram) {
            Ok(Packet::Rrq(rrq)) => self.request(rrq, received, served).await,
            Ok(Packet::Wrq) => {
                self.refuse(received, ErrorCode::IllegalOperation, "this server only reads").await;
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

    async fn request(&mut self, rrq: Rrq, received: Received, served: Arc<Served>) {
        let peer = received.from;
        if let Some(session) = self.sessions.get(&peer)
            && session.request == rrq
            && !session.proven.load(Ordering::Relaxed)
        {
            // One that is full has a repetition to send already.
            session.repeated.try_send(()).ok();
            return;
        }
        if rrq.mode != "octet" {
            let text = "only mode octet is served";
            return self.refuse(received, ErrorCode::IllegalOperation, text).await;
        }
        let config = Arc::clone(&self.config.borrow());
        let mut subject = self.registry.subject_at(*peer.ip());
        let asked: String = String::from_utf8_lossy(&rrq.file)
            .chars()
            .take(100)
            .flat_map(char::escape_debug)
            .collect();
        let state = self.registry.state(subject.mac, subject.address);
        let wanted = match files::asked(&rrq.file, &config, (&state, SystemTime::now())) {
            Ok(found) => found,
            Err(refusal) => {
                let text = refusal.to_string();
                self.record_refusal(subject, asked, text.clone());
                let (code, text) = match refusal {
                    files::Refusal::Unknown => (ErrorCode::NotFound, text),
                    files::Refusal::NoName => (ErrorCode::AccessViolation, text),
                    // Firmware shows a line at most.
                    files::Refusal::Decided(_) => {
                        let text =
                            "it is not served to this machine now; the server's log says why";
                        (ErrorCode::AccessViolation, text.to_owned())
                    }
                };
                return self.refuse(received, code, &text).await;
            }
        };
        if let Asked::Script(mac) = wanted {
            let name = config.catalog.machine(mac).map(|machine| machine.name.clone());
            subject = Subject { mac: Some(mac), name, address: Some(*peer.ip()) };
        }
        if let Some(full) = self.is_full(*peer.ip()) {
            self.record_refusal(subject, asked, full.to_owned());
            return self.refuse(received, ErrorCode::Undefined, full).await;
        }
        let socket = match course::bind(received.local) {
            Ok(socket) => socket,
            Err(error) => {
                self.record_refusal(subject, asked, format!("no port for the transfer: {error}"));
                let text = "the server has no port for the transfer";
                return self.refuse(received, ErrorCode::Undefined, text).await;
            }
        };
        self.count += 1;
        let number = self.count;
        let (repeated, repetitions) = mpsc::channel(1);
        let proven: Arc<AtomicBool> = Arc::default();
        let session =
            Session { number, request: rrq.clone(), proven: Arc::clone(&proven), repeated };
        // A request from the same port for something else ends what was running there.
        self.sessions.insert(peer, session);
        let (registry, files) = (self.registry.clone(), self.files.clone());
        let local = received.local;
        let at = SocketAddrV4::new(base_address(&served, local), self.limits.port);
        self.transfers.spawn(async move {
            let started = Instant::now();
            let step = match content(&wanted, &files, &config, at).await {
                Ok((content, whole)) => {
                    let granted = negotiate(&rrq, content.len() as u64);
                    let transfer = Transfer::accept(granted, content.len() as u64, Instant::now());
                    let course = Course { transfer, socket, peer, content, proven, repetitions };
                    step((wanted, whole), &course.run().await, started.elapsed())
                }
                Err(reason) => {
                    let text = "the file cannot be read; the server's log says why";
                    let error = packet::error(ErrorCode::AccessViolation, text);
                    socket.get_ref().send_to(&error, peer).ok();
                    Step::Refused { what: asked, reason }
                }
            };
            registry.record(Event { subject, step });
            (peer, number)
        });
    }

    fn is_full(&self, address: Ipv4Addr) -> Option<&'static str> {
        let to_address = self.sessions.keys().filter(|peer| *peer.ip() == address).count();
        if self.sessions.len() >= self.limits.max_transfers {
            Some("the server is busy: `server.tftp.max_transfers` are running")
        } else if to_address >= self.limits.max_per_address {
            Some("too many transfers to this address: `server.tftp.max_per_address` are running")
        } else {
            None
        }
    }

    fn record_refusal(&self, subject: Subject, what: String, reason: String) {
        self.registry.record(Event { subject, step: Step::Refused { what, reason } });
    }

    async fn refuse(&self, received: Received, code: ErrorCode, text: &str) {
        let from = (received.local, received.interface);
        let error = packet::error(code, text);
        if let Err(error) = self.socket.send(&error, received.from, from).await {
            debug!("tftp: cannot refuse {}: {error}", received.from);
        }
    }
}

/// The bytes that were asked for, or why they are not to be had; and of a script, the step that it is to
/// have it.
async fn content(
    wanted: &Asked,
    files: &Shared,
    config: &Config,
    at: SocketAddrV4,
) -> Result<(Arc<[u8]>, Option<Step>), String> {
    match wanted {
        Asked::Nbp(_, path) | Asked::Image(_, path) => {
            let read = files.read(path).await;
            Ok((read.map_err(|why| format!("{}: {why}", path.display()))?, None))
        }
        Asked::Script(mac) => {
            let (text, step) = scripts::render_for_tftp(config, *mac, at).await?;
            Ok((text.into_bytes().into(), Some(step)))
        }
        Asked::Autoexec(name) => {
            let base = links::base(*at.ip(), config.server.http_port);
            let text = script::render_autoexec(&config.templates, &base);
            let text = text.map_err(|refusal| refusal.to_string())?;
            let step = Step::AutoexecSent { file: name.clone() };
            Ok((text.into_bytes().into(), Some(step)))
        }
    }
}

/// What a client that asked at `local` is told for us.
fn base_address(served: &Served, local: Ipv4Addr) -> Ipv4Addr {
    served.with_address(local).map_or(local, |interface| interface.advertised)
}

fn step((wanted, whole): (Asked, Option<Step>), ended: &Ended, took: Duration) -> Step {
    let file = match &wanted {
        Asked::Nbp(name, _) | Asked::Image(name, _) | Asked::Autoexec(name) => name.clone(),
        Asked::Script(mac) => format!("{}.ipxe", mac.hyphenated()),
    };
    let sent = Sent { bytes: ended.delivered, took };
    let broken_off = |reason: String| Step::BrokenOff {
        file: file.clone(),
        over: Transport::Tftp,
        at: sent,
        of: ended.len,
        reason,
    };
    match &ended.outcome {
        Outcome::Complete => match (whole, wanted) {
            (Some(step), _) => step,
            (None, Asked::Image(..)) => Step::ImageSent { file, sent },
            (None, Asked::Nbp(..) | Asked::Script(_) | Asked::Autoexec(_)) => {
                Step::NbpSent { file, over: Transport::Tftp, sent }
            }
        },
        Outcome::Probed => Step::Probed { file },
        Outcome::Aborted { code, text } => {
            broken_off(format!("the client ended it with error {code} `{}`", text.escape_debug()))
        }
        Outcome::Replaced => broken_off("the client asked anew from the same port".to_owned()),
        Outcome::GaveUp { block } => {
            broken_off(format!("the client did not acknowledge block {block}"))
        }
    }
}
