//! What is remembered of each client, so that the transfer after a bad one is granted what gets through.
//!
//! Options make a transfer quick, and are what it fails by: a card that loses long bursts, a way that
//! drops large frames, a ROM that takes no OACK. Who fails twice in a row gets the plain transfer of
//! RFC 1350, in blocks of 512 bytes; who loses much gets half of the window the next time.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::options::{Granted, MAX_WINDOWSIZE, Most};
use super::transfer::{Outcome, Transfer};

/// How long after its last transfer a client is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);
/// How many clients at once; the one that was seen first is forgotten for the next.
const MOST_CLIENTS: usize = 4096;
/// How many failures in a row are no accident: a machine that is switched off is one.
const FAILURES: u32 = 2;
/// A window is halved where more than one block of this many was sent twice.
const BLOCKS_TO_A_LOSS: u64 = 10;

/// The clients of the last hour.
#[derive(Debug, Default)]
pub struct History(HashMap<Ipv4Addr, Client>);

#[derive(Debug)]
struct Client {
    seen: Instant,
    completed: Option<Instant>,
    /// How many OACKs in a row it has not acknowledged.
    unanswered: u32,
    /// How many transfers in a row broke off in their data.
    broken: u32,
    windowsize: u64,
}

impl History {
    /// The most to grant a client, of what its way can carry.
    pub fn most(&self, address: Ipv4Addr, carries: Most, now: Instant) -> Most {
        let known = self.0.get(&address);
        let Some(client) = known.filter(|client| client.is_remembered(now)) else {
            return carries;
        };
        Most {
            takes_oack: client.unanswered < FAILURES,
            is_plain: client.broken >= FAILURES,
            windowsize: carries.windowsize.min(client.windowsize),
            ..carries
        }
    }

    /// Takes up how a transfer ended that had begun at `started`.
    pub fn learn(
        &mut self,
        address: Ipv4Addr,
        (started, now): (Instant, Instant),
        (transfer, outcome): (&Transfer, &Outcome),
    ) {
        // Nothing is kept of those that anybody can invent by the thousand.
        if matches!(outcome, Outcome::MadeRoom | Outcome::Unreadable(_)) {
            return;
        }
        let Granted { oack, blksize, windowsize, is_held_back } = transfer.granted();
        let is_plain = oack.is_empty() && !is_held_back;
        let is_complete = *outcome == Outcome::Complete;
        if is_plain && !is_complete {
            return;
        }
        let client = self.client(address, now);
        if oack.is_empty() && !is_complete {
            // UEFI takes the lack of an OACK for an error: who gets no further without one either was not
            // silent because of it.
            client.unanswered = 0;
            return;
        }
        match outcome {
            Outcome::Complete => {
                client.completed = Some(now);
                // Who was only taken to have the rest has taught nothing.
                if is_plain || !transfer.is_acknowledged_whole() {
                    return;
                }
                if oack.iter().any(|(name, _)| *name == "windowsize") {
                    let blocks = transfer.delivered() / blksize + 1;
                    let is_lossy = transfer.resent() * BLOCKS_TO_A_LOSS > blocks;
                    client.windowsize = if is_lossy {
                        (windowsize / 2).max(1)
                    } else {
                        (client.windowsize * 2).min(MAX_WINDOWSIZE)
                    };
                }
                // Where less was granted, that is why it went well, and it stays so.
                if !is_held_back {
                    (client.unanswered, client.broken) = (0, 0);
                }
            }
            // Some ROMs ask for the size, and leave without a word. What they fetch then is complete.
            Outcome::GaveUp { block: 0 } => {
                let has_left = client.completed.is_some_and(|at| at >= started);
                client.unanswered += u32::from(!has_left);
            }
            Outcome::GaveUp { .. } => client.broken += 1,
            // Who ends it before the first block has only asked for the size.
            Outcome::Aborted { code, .. } => {
                client.broken += u32::from(transfer.delivered() > 0 || !matches!(code, 0 | 8));
            }
            Outcome::Replaced => client.broken += u32::from(transfer.delivered() > 0),
            Outcome::Probed | Outcome::MadeRoom | Outcome::Unreadable(_) => {}
        }
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(crate) fn clients(&self) -> usize {
        self.0.len()
    }

    fn client(&mut self, address: Ipv4Addr, now: Instant) -> &mut Client {
        if self.0.len() >= MOST_CLIENTS && !self.0.contains_key(&address) {
            self.0.retain(|_, client| client.is_remembered(now));
            let first = self.0.iter().min_by_key(|(_, client)| client.seen);
            if let Some(first) = first.map(|(address, _)| *address)
                && self.0.len() >= MOST_CLIENTS
            {
                self.0.remove(&first);
            }
        }
        let client = self.0.entry(address).or_insert_with(|| Client::new(now));
        if !client.is_remembered(now) {
            *client = Client::new(now);
        }
        client.seen = now;
        client
    }
}

impl Client {
    fn new(now: Instant) -> Self {
        Self { seen: now, completed: None, unanswered: 0, broken: 0, windowsize: MAX_WINDOWSIZE }
    }

    fn is_remembered(&self, now: Instant) -> bool {
        now.duration_since(self.seen) < REMEMBERED
    }
}
