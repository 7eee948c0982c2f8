//! The course of one transfer, without a socket, a file or a clock.
//!
//! The shell calls [`Transfer::poll`] until it says `Wait`, sends what it says, and hands in packets
//! and time-outs. Before it sends blocks it calls [`Transfer::mark_sent`], or [`Transfer::await_data`] if it
//! must read them first: the time that the disk takes is not the client's. Blocks are numbered from 1 as `u64`; `packet` alone knows the 16 bits of the wire.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};

use super::options::Granted;
use super::packet::{Packet, acknowledged};

/// How long to wait for an ACK before anything was measured (RFC 6298 section 2.1).
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// The shortest wait once it was: firmware polls its card, some of it every few milliseconds.
const MIN_TIMEOUT: Duration = Duration::from_millis(50);
/// The longest wait: UEFI asks again every 4 s, and a lost window should not cost more.
const MAX_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a client may be silent that has acknowledged something.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may be where only its last ACK is missing: what decides its next step should know soon.
const PATIENCE_AT_THE_END: Duration = Duration::from_secs(5);
/// How long reading a piece of the file may take: firmware gives up sooner.
const DATA_PATIENCE: Duration = Duration::from_secs(30);

/// What the shell should do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the OACK.
    SendOack,
    /// Send these blocks, and call [`Transfer::mark_sent`].
    Send(RangeInclusive<u64>),
    /// Nothing until a packet comes, or this moment.
    Wait(Instant),
    /// It is over.
    Done(Outcome),
}

/// How a transfer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client has the whole file; or was sent all of it, acknowledged some, and left without its
    /// last ACK, which iPXE sends once only.
    Complete,
    /// The client wanted to know the size.
    Probed,
    /// The client ended it.
    Aborted {
        /// The error code.
        code: u16,
        /// Its text.
        text: String,
    },
    /// The client has asked anew, or for something else, from the same port.
    Replaced,
    /// The client had acknowledged nothing yet, and another one needed the room.
    MadeRoom,
    /// The file could not be read to its end, for this reason.
    Unreadable(String),
    /// The client fell silent.
    GaveUp {
        /// The first block that it did not acknowledge; 0 is the OACK.
        block: u64,
    },
}

/// A transfer that was accepted.
#[derive(Clone, Debug)]
pub struct Transfer {
    granted: Granted,
    len: u64,
    last: u64,
    /// All blocks up to this one are acknowledged.
    acked: u64,
    /// The next block to send.
    next: u64,
    phase: Phase,
    /// Whether the client has ever acknowledged anything.
    proven: bool,
    /// How often something more is sent without an ACK.
    unproven_sends: u32,
    heard: Instant,
    /// Since when the next blocks are awaited from the disk.
    starved: Option<Instant>,
    deadline: Instant,
    timeout: Duration,
    round_trip: Option<Duration>,
    /// The lowest block that never went out; 0 is the OACK.
    unsent: u64,
    /// The block whose first sending is being timed; none after a retransmission (Karn).
    timed: Option<(u64, Instant)>,
    resent: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The OACK is to be sent.
    Oack,
    /// ACK 0 is awaited.
    Agreeing,
    /// Blocks go out.
    Sending,
    /// It is over.
    Ended(Outcome),
}

/// The bytes of a block within a file of `len` bytes.
pub fn extent(block: u64, blksize: u64, len: u64) -> Range<u64> {
    let start = (block - 1) * blksize;
    start.min(len)..(start + blksize).min(len)
}

impl Transfer {
    /// Begins a transfer of `len` bytes to a client that is sent something this often, and no more,
    /// before it has acknowledged: its address may be forged.
    pub fn accept(granted: Granted, len: u64, unproven_sends: u32, now: Instant) -> Self {
        let phase = if granted.oack.is_empty() { Phase::Sending } else { Phase::Oack };
        Self {
            // A file of whole blocks ends with an empty one.
            last: len / granted.blksize + 1,
            granted,
            len,
            acked: 0,
            next: 1,
            phase,
            proven: false,
            unproven_sends,
            heard: now,
            starved: None,
            deadline: now,
            timeout: FIRST_TIMEOUT,
            round_trip: None,
            unsent: 0,
            timed: None,
            resent: 0,
        }
    }

    /// What to do now.
    pub fn poll(&mut self, now: Instant) -> Action {
        match &self.phase {
            Phase::Ended(outcome) => Action::Done(outcome.clone()),
            Phase::Agreeing => Action::Wait(self.deadline),
            Phase::Oack => {
                self.phase = Phase::Agreeing;
                self.sent(0, now);
                Action::SendOack
            }
            Phase::Sending => {
                let until = self.window_end();
                if self.next > until {
                    return Action::Wait(self.deadline);
                }
                Action::Send(self.next..=until)
            }
        }
    }

    /// The blocks that [`Action::Send`] named go out now.
    pub fn mark_sent(&mut self, blocks: &RangeInclusive<u64>, now: Instant) {
        if let Some(since) = self.starved.take() {
            // The client was not silent meanwhile: it had nothing to acknowledge.
            self.heard += now.duration_since(since);
        }
        self.next = blocks.end() + 1;
        self.sent(*blocks.end(), now);
    }

    /// The blocks that [`Action::Send`] named are yet to be read; until when to wait for them.
    pub fn await_data(&mut self, now: Instant) -> Instant {
        *self.starved.get_or_insert(now) + DATA_PATIENCE
    }

    /// The blocks that [`Action::Send`] named cannot be read.
    pub fn fail(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Ended(_)) {
            self.phase = Phase::Ended(Outcome::Unreadable(reason));
        }
    }

    /// Takes up a packet from the client.
    pub fn handle(&mut self, packet: &Packet, now: Instant) {
        match (packet, &self.phase) {
            (_, Phase::Ended(_)) => {}
            (Packet::Error(code, text), phase) => {
                // UEFI ends its probe with code 8, BIOS ROMs and iPXE with 0.
                let probe = *phase != Phase::Sending && matches!(code, 0 | 8);
                self.phase = Phase::Ended(if probe {
                    Outcome::Probed
                } else {
                    Outcome::Aborted { code: *code, text: text.clone() }
                });
            }
            (Packet::Ack(0), Phase::Agreeing) => {
                self.phase = Phase::Sending;
                self.progressed(0, now);
            }
            (Packet::Ack(wire), Phase::Sending) => self.acknowledge(*wire, now),
            (Packet::Ack(_), Phase::Oack | Phase::Agreeing) => {}
            // The server takes requests on its own port, not on a transfer's.
            (Packet::Rrq(_) | Packet::Wrq, _) => {}
        }
    }

    fn acknowledge(&mut self, wire: u16, now: Instant) {
        // A duplicate never makes us send: two copies of one ACK would double every block from there
        // to the end (RFC 1123 section 4.2.3.1).
        let Some(block) = acknowledged(wire, self.acked + 1, self.next - 1) else {
            return;
        };
        self.acked = block;
        self.progressed(block, now);
        if block == self.last {
            self.phase = Phase::Ended(Outcome::Complete);
        } else if block + 1 < self.next {
            // What came after it in the window is lost (RFC 7440 section 4).
            self.resent += self.next - block - 1;
            self.next = block + 1;
            self.timed = None;
        }
    }

    /// The time that [`Action::Wait`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(since) = self.starved {
            if now.duration_since(since) >= DATA_PATIENCE {
                let seconds = DATA_PATIENCE.as_secs();
                self.fail(format!(
                    "reading the file takes longer than {seconds} s; check the disk or the network share that it is on"
                ));
            }
            return;
        }
        if now < self.deadline || matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let all_sent = self.lacks_its_last_ack();
        let patience = if all_sent { PATIENCE_AT_THE_END } else { PATIENCE };
        let silent = now.duration_since(self.heard) >= patience;
        if silent || (!self.proven && self.unproven_sends == 0) {
            self.phase = Phase::Ended(match self.phase {
                _ if all_sent => Outcome::Complete,
                Phase::Oack | Phase::Agreeing => Outcome::GaveUp { block: 0 },
                Phase::Sending | Phase::Ended(_) => Outcome::GaveUp { block: self.acked + 1 },
            });
            return;
        }
        self.timeout = (self.timeout * 2).min(MAX_TIMEOUT);
        self.resend();
    }

    /// The client has repeated its request: what it waits for was lost. Only before its first ACK;
    /// after that the request is a new one. Who only repeats it gets no more than who is silent.
    pub fn handle_repeated_request(&mut self) {
        if !self.proven && self.unproven_sends > 0 {
            self.resend();
        }
    }

    /// What it is that the client asks for another file from the same port: a ROM that has all of this
    /// one does so, though its last ACK was lost.
    pub fn left_for_another(&self) -> Outcome {
        if self.lacks_its_last_ack() { Outcome::Complete } else { Outcome::Replaced }
    }

    /// Whether all was sent, and some of it acknowledged: where nothing was, nobody knows whether it
    /// arrives at all.
    fn lacks_its_last_ack(&self) -> bool {
        self.next > self.last && self.acked > 0
    }

    /// Whether the client has acknowledged the last block.
    pub fn is_acknowledged_whole(&self) -> bool {
        self.acked == self.last
    }

    fn resend(&mut self) {
        self.timed = None;
        match self.phase {
            Phase::Agreeing => {
                self.phase = Phase::Oack;
                self.resent += 1;
            }
            Phase::Sending => {
                self.resent += self.next - self.acked - 1;
                self.next = self.acked + 1;
            }
            Phase::Oack | Phase::Ended(_) => {}
        }
    }

    fn sent(&mut self, up_to: u64, now: Instant) {
        self.deadline = now + self.timeout;
        if !self.proven {
            self.unproven_sends = self.unproven_sends.saturating_sub(1);
        }
        if up_to >= self.unsent {
            self.unsent = up_to + 1;
            self.timed.get_or_insert((up_to, now));
        }
    }

    fn progressed(&mut self, block: u64, now: Instant) {
        self.proven = true;
        self.heard = now;
        if let Some((_, at)) = self.timed.take_if(|(timed, _)| *timed <= block) {
            let sample = now.duration_since(at);
            let smoothed = self.round_trip.map_or(sample, |old| (old * 7 + sample) / 8);
            self.round_trip = Some(smoothed);
            self.timeout = (smoothed * 4).clamp(MIN_TIMEOUT, MAX_TIMEOUT);
        } else if self.round_trip.is_none() {
            self.timeout = FIRST_TIMEOUT;
        }
        // Else the longer wait of a retransmission stays until something was measured again (RFC 6298
        // section 5.7): a client that has become slow would be sent every block several times.
    }

    /// Whether the client has ever acknowledged anything.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// The last block that may go out before another ACK.
    fn window_end(&self) -> u64 {
        (self.acked + self.granted.windowsize).min(self.last)
    }

    /// When the client last acknowledged something; the start, where it never has.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// What was agreed.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// How many bytes the file has.
    pub fn file_size(&self) -> u64 {
        self.len
    }

    /// How many bytes of the file the client has.
    pub fn delivered(&self) -> u64 {
        match &self.phase {
            Phase::Ended(Outcome::Complete) => self.len,
            _ => (self.acked * self.granted.blksize).min(self.len),
        }
    }

    /// How many packets were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }
}
