//! How an NBP is told from the iPXE that it is, and when one leads back to itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;
use crate::pure::catalog::server::Naming;
use crate::pure::client::Stage;
use crate::pure::event::boot::{Event, Offer, Step};

/// How long after an NBP was fetched the next iPXE to ask is taken for that NBP and not for the
/// card's own. A real one needs a few seconds; 2 minutes allow for a slow option ROM and a link
/// that spanning tree keeps shut for 50 seconds.
const NBP_IS_STARTING: Duration = Duration::from_mins(2);

/// In how many DHCP transactions an iPXE is offered an NBP before it gets its script all the same.
/// Behind a relay it is known only from the lease that a machine was seen to take that it has fetched a file
/// over TFTP; where that is not seen, this ends the loop. One transaction may well have many
/// DISCOVERs, where router and rack start together; each turn of a loop begins a new one.
const MOST_TRANSACTIONS: u32 = 3;

/// How often a machine may fetch an NBP within [`LOOPING`] without its script. An NBP that leads back
/// to itself takes 2.5 to 3 seconds a turn (seen with iPXE); no server gets through its self-test
/// three times in a minute.
const MOST_FETCHES: usize = 3;
/// See [`MOST_FETCHES`]. It is also how long a machine that loops is not served.
const LOOPING: Duration = Duration::from_mins(1);

/// What a machine has fetched since its last script.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Chain {
    /// The NBP that was fetched last.
    nbp: String,
    /// When it was fetched without a script after it, the last time last, no more than [`MOST_FETCHES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fetched: Vec<Time>,
    /// Whether it was shown the way to its script.
    was_led: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbp_offered: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_xid: Option<u32>,
    transactions: u32,
    /// Which of these fetches followed an offer: without one, a fetch is no turn of a loop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<Time>,
    /// Whether an offer went out since the last fetch.
    is_offered: bool,
}

impl Chain {
    /// Takes up what happened at `at`.
    pub(super) fn apply(&mut self, event: &Event, at: Time) {
        self.forget_the_future(at);
        match &event.step {
            Step::NbpSent { file, .. } => {
                // An address alone is no machine, somebody may try TFTP from there by hand; unless it
                // comes back from where it was led to.
                let is_machine = event.subject.mac.is_some() || self.was_led;
                if self.nbp != *file || !is_machine {
                    self.nbp.clone_from(file);
                    self.fetched.clear();
                    self.turns.clear();
                }
                if self.is_offered {
                    note(&mut self.turns, at);
                }
                note(&mut self.fetched, at);
                self.is_offered = false;
                self.was_led = false;
            }
            Step::AutoexecSent { .. } => self.was_led = true,
            // The NBP has done its work; the next iPXE to ask comes from a new power-on.
            Step::ScriptServed { .. } | Step::WaitServed { .. } => *self = Self::default(),
            // On a served LAN it is seen who fetches an NBP, and nothing more need be guessed.
            Step::Offered { stage: Stage::Ipxe, what: Offer::Nbp, xid, relay: Some(_), .. } => {
                self.is_offered = true;
                let before = if self.was_offered_an_nbp(at) { self.transactions } else { 0 };
                let is_new = before == 0 || self.last_xid != Some(*xid);
                self.transactions = before + u32::from(is_new);
                self.last_xid = Some(*xid);
                self.nbp_offered = Some(at);
            }
            Step::Offered { .. } => self.is_offered = true,
            Step::Acknowledged { .. }
            | Step::Advised { .. }
            | Step::Leased { .. }
            | Step::Probed { .. }
            | Step::CompanionSent { .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. }
            | Step::LeftToItsDisk { .. }
            | Step::Stopped { .. }
            | Step::Armed { .. }
            | Step::Disarmed {}
            | Step::KeptOnDisk {}
            | Step::BootIdMisused { .. }
            | Step::Confirmed { .. }
            | Step::ConfirmationWithdrawn { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. } => {}
        }
    }

    /// Forgets what lies in the future, since the clock was set back: a later offer would count as the earlier one.
    fn forget_the_future(&mut self, now: Time) {
        let is_past = |at: &Time| *at <= now;
        self.fetched.retain(is_past);
        self.turns.retain(|at| is_past(at));
        self.nbp_offered = self.nbp_offered.filter(is_past);
    }

    /// Keeps its age when the clock is set by so many milliseconds.
    pub(super) fn shift(&mut self, by: i64) {
        let offered = self.turns.iter_mut().chain(&mut self.nbp_offered);
        self.fetched.iter_mut().chain(offered).for_each(|at| *at = at.shifted(by));
    }

    /// Of a machine that has just fetched an NBP, of whatever name.
    pub(super) fn of_a_running_nbp(now: Time) -> Self {
        Self { fetched: vec![now], ..Self::default() }
    }

    /// Whether the iPXE that asks now must be the NBP that was fetched a moment ago.
    pub(super) fn runs_our_nbp(&self, now: Time) -> bool {
        let in_vain = self.transactions >= MOST_TRANSACTIONS && self.was_offered_an_nbp(now);
        self.starting(now).is_some() || in_vain
    }

    /// Whether who asks for the NBP `name` now must be that NBP itself: it was fetched a moment ago,
    /// and was not yet shown the way to its script.
    pub(super) fn is_run_by(&self, name: &str, now: Time) -> bool {
        self.starting(now) == Some(name) && !self.was_led
    }

    /// The NBP that is fetched again and again, without a script.
    ///
    /// Where DHCP is ours, a turn of the loop has a DISCOVER; where it is the router's, only fetches are seen.
    pub(super) fn loops_with(&self, naming: Naming, now: Time) -> Option<&str> {
        let fetches = match naming {
            Naming::ByUs => &self.turns,
            Naming::ByTheRouter => &self.fetched,
        };
        let [first, .., last] = fetches.as_slice() else {
            return None;
        };
        let many = fetches.len() == MOST_FETCHES && last.is_within(LOOPING, *first);
        (many && now.is_within(LOOPING, *last)).then_some(&self.nbp)
    }

    fn starting(&self, now: Time) -> Option<&str> {
        let at = self.fetched.last()?;
        now.is_within(NBP_IS_STARTING, *at).then_some(&self.nbp)
    }

    fn was_offered_an_nbp(&self, now: Time) -> bool {
        self.nbp_offered.is_some_and(|at| now.is_within(NBP_IS_STARTING, at))
    }
}

/// Adds a fetch to the last ones.
fn note(fetches: &mut Vec<Time>, at: Time) {
    if fetches.len() == MOST_FETCHES {
        fetches.remove(0);
    }
    fetches.push(at);
}
