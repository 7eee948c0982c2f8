//! The running transfers: each is a client's port that has asked for a file, from then to its end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::ports::PortId;
use crate::pure::client::Arch;
use crate::pure::client::boot_id::BootId;
use crate::pure::event::boot::{Break, Event, File, Sent, Step, Subject, Tftp, Transport};
use crate::pure::tftp::packet::Rrq;
use crate::pure::tftp::places::Place;
use crate::pure::tftp::transfer::{Outcome, Transfer};
use crate::server::machine_script::Does;
use crate::server::shared_files::Content;

/// How long after the last ACK a request that comes once more is a stray copy: switches and links that
/// flap deliver some twice, the second a moment later.
const STRAY: Duration = Duration::from_secs(1);
/// How long after its end a transfer's packets are known for what they are.
const LATE: Duration = Duration::from_secs(5);
/// How many transfers that have ended are remembered at once.
const MOST_LATE: usize = 4096;

/// A client's port that has asked for a file.
#[derive(Debug)]
pub(crate) struct Session {
    /// Tells it from others of the same client.
    pub(crate) number: u64,
    /// The port that it is answered from.
    pub(crate) port: PortId,
    /// As it came: with other options it is another one.
    pub(crate) request: Rrq,
    pub(crate) subject: Subject,
    /// The boot that it belongs to.
    pub(crate) id: Option<BootId>,
    /// Whether its address is that of a machine of the config.
    pub(crate) is_known: bool,
    pub(crate) started: Instant,
    /// What reads the file.
    pub(crate) reading: AbortHandle,
    /// None while the file is being read.
    pub(crate) running: Option<Running>,
    /// When it is looked at again, if nothing comes before.
    alarm: Option<Instant>,
}

/// A transfer with what it transfers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) transfer: Transfer,
    pub(crate) content: Content,
    /// Its name.
    pub(crate) file: String,
    pub(crate) kind: Kind,
}

/// What it is to have fetched it.
#[derive(Debug)]
pub(crate) enum Kind {
    Nbp(Arch),
    Image,
    Companion,
    Autoexec,
    Script(Does),
    /// A script that is of no boot, and what it is to have fetched it.
    Apart(Step),
}

impl Session {
    pub(crate) fn new(
        (number, started): (u64, Instant),
        port: PortId,
        (request, subject, is_known): (Rrq, Subject, bool),
        (id, reading): (Option<BootId>, AbortHandle),
    ) -> Self {
        let (running, alarm) = (None, None);
        Self { number, port, request, subject, is_known, id, started, reading, running, alarm }
    }

    fn is_proven(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.transfer.is_proven())
    }

    /// Whether this is the request of it, come once more: before the first ACK, or so soon after one that
    /// it was on its way twice or for long. Who really asks anew will do so once more.
    pub(crate) fn is_repeated_by(&self, request: &Rrq, now: Instant) -> bool {
        let was_heard = |running: &Running| now.duration_since(running.transfer.heard()) < STRAY;
        let has_just_gone_on = self.running.as_ref().is_some_and(was_heard);
        self.request == *request && (!self.is_proven() || has_just_gone_on)
    }

    /// What its end is to the log, and to whoever decides the next boot.
    pub(crate) fn ended(self, outcome: Outcome, now: Instant) -> Event {
        let Self { subject, request, started, running, .. } = self;
        match running {
            Some(running) => running.ended(subject, outcome, (started, now)),
            None => {
                let over = Transport::Tftp(Tftp::default());
                let sent = Sent { bytes: 0, took: now.duration_since(started), over };
                let why =
                    if outcome == Outcome::MadeRoom { Break::MadeRoom } else { Break::Replaced };
                let file = request.shown();
                Event {
                    subject,
                    step: Step::BrokenOff { kind: File::Other, file, sent, of: 0, why },
                }
            }
        }
    }
}

impl Running {
    fn ended(
        self,
        subject: Subject,
        outcome: Outcome,
        (started, now): (Instant, Instant),
    ) -> Event {
        let Self { transfer, content: _, file, kind } = self;
        let granted = transfer.granted();
        let over = Transport::Tftp(Tftp {
            options: granted.oack.clone(),
            resent: transfer.resent(),
            is_held_back: granted.is_held_back,
        });
        // What was then waited for a last ACK is no part of it.
        let is_complete = outcome == Outcome::Complete;
        let until = if is_complete { transfer.heard() } else { now };
        let took = until.duration_since(started);
        let sent = Sent { bytes: transfer.delivered(), took, over };
        let asked_for_a_size = sent.bytes == 0 && !granted.oack.is_empty();
        let whole = |sent| match kind {
            Kind::Nbp(arch) => Step::NbpSent { file: file.clone(), arch, sent },
            Kind::Image => Step::ImageSent { file: file.clone(), sent },
            Kind::Companion => Step::CompanionSent { file: file.clone(), sent },
            Kind::Autoexec => Step::AutoexecSent { file: file.clone(), sent },
            Kind::Script(does) => does.step(sent),
            Kind::Apart(step) => step,
        };
        let why = match outcome {
            Outcome::Complete => return Event { subject, step: whole(sent) },
            Outcome::Probed => return Event { subject, step: Step::Probed { file, sent } },
            // Some ROMs ask for the size, and then for the file from the same port without another word.
            Outcome::Replaced if asked_for_a_size => {
                return Event { subject, step: Step::Probed { file, sent } };
            }
            Outcome::Aborted { code, text } => Break::Error { code, text },
            Outcome::Replaced => Break::Replaced,
            Outcome::MadeRoom => Break::MadeRoom,
            Outcome::Unreadable(reason) => Break::Failed(reason),
            Outcome::GaveUp { block } => Break::Silent { block },
        };
        let step = whole(sent).broken_off(transfer.file_size(), why);
        Event { subject, step }
    }
}

/// All of them, each by its client's address and port.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    running: HashMap<SocketAddrV4, Session>,
    /// When to look at whom. An entry whose session has another alarm by now is void.
    alarms: BinaryHeap<Reverse<(Instant, SocketAddrV4)>>,
    late: Late,
}

impl Sessions {
    pub(crate) fn get_mut(&mut self, peer: SocketAddrV4) -> Option<&mut Session> {
        self.running.get_mut(&peer)
    }

    pub(crate) fn insert(&mut self, peer: SocketAddrV4, session: Session) {
        self.running.insert(peer, session);
    }

    /// Ends one; what comes of it from now on is late.
    pub(crate) fn remove(&mut self, peer: SocketAddrV4, now: Instant) -> Option<Session> {
        let session = self.running.remove(&peer)?;
        session.reading.abort();
        self.late.add((peer, session.port), now);
        Some(session)
    }

    /// Whether who sends this to one of our ports had a transfer there a moment ago.
    pub(crate) fn is_late(&mut self, peer: SocketAddrV4, port: PortId, now: Instant) -> bool {
        self.late.forget(now);
        self.was_at(peer, port)
    }

    /// Whether a client had a transfer at one of our ports, as far as that is remembered.
    pub(crate) fn was_at(&self, peer: SocketAddrV4, port: PortId) -> bool {
        self.late.known.contains(&(peer, port))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.running.len()
    }

    /// The place of each.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.running.iter().map(|(peer, session)| Place {
            peer: *peer,
            is_known: session.is_known,
            is_proven: session.is_proven(),
            started: session.started,
        })
    }

    /// Has one looked at again at this moment, at the latest.
    pub(crate) fn wake(&mut self, peer: SocketAddrV4, at: Instant) {
        if let Some(session) = self.running.get_mut(&peer)
            && session.alarm.is_none_or(|alarm| at < alarm)
        {
            session.alarm = Some(at);
            self.alarms.push(Reverse((at, peer)));
        }
    }

    /// When the next is to be looked at.
    pub(crate) fn next_alarm(&self) -> Option<Instant> {
        self.alarms.peek().map(|Reverse((at, _))| *at)
    }

    /// One that is to be looked at now.
    pub(crate) fn alarmed(&mut self, now: Instant) -> Option<SocketAddrV4> {
        while let Some(Reverse((at, peer))) = self.alarms.peek().copied()
            && at <= now
        {
            self.alarms.pop();
            if let Some(session) = self.running.get_mut(&peer)
                && session.alarm == Some(at)
            {
                session.alarm = None;
                return Some(peer);
            }
        }
        None
    }
}

/// The transfers that have ended a moment ago. Their clients may send a last packet once more, and are
/// not told by an ERROR that it is nobody's: a ROM that asks from one port only might take that for an
/// answer to what it asked since.
#[derive(Debug, Default)]
struct Late {
    known: HashSet<(SocketAddrV4, PortId)>,
    in_order: VecDeque<(Instant, (SocketAddrV4, PortId))>,
}

impl Late {
    fn add(&mut self, ended: (SocketAddrV4, PortId), now: Instant) {
        self.forget(now);
        if self.known.insert(ended) {
            self.in_order.push_back((now, ended));
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, ended)) = self.in_order.front()
            && (now.duration_since(*at) > LATE || self.in_order.len() > MOST_LATE)
        {
            self.known.remove(ended);
            self.in_order.pop_front();
        }
    }
}
