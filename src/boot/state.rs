//! What is remembered about a machine because it decides the machine's next boot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, SystemTime};

use super::client::Stage;
use super::event::{Event, Offer, Step};

/// How long after an NBP was fetched the next iPXE to ask is taken for that NBP and not for the
/// card's own. A real one needs a few seconds; 2 minutes allow for a slow option ROM and a link
/// that spanning tree keeps shut for 50 seconds.
const NBP_IS_STARTING: Duration = Duration::from_mins(2);

/// In how many DHCP transactions an iPXE is offered an NBP before it gets its script all the same.
/// Which machine fetched a file over TFTP is known from the lease that it was seen to take; where that
/// is not seen (a relay, a switch that snoops), this ends the loop. One transaction may well have many
/// DISCOVERs, where router and rack start together; each turn of a loop begins a new one.
const MOST_TRANSACTIONS: u32 = 3;

/// The facts that decide a machine's next boot. Only [`MachineState::apply`] changes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    nbp_fetched: Option<SystemTime>,
    nbp_offered: Option<SystemTime>,
    last_xid: Option<u32>,
    transactions: u32,
}

impl MachineState {
    /// Takes up what happened at `at`.
    pub fn apply(&mut self, event: &Event, at: SystemTime) {
        match &event.step {
            Step::NbpSent { .. } => self.nbp_fetched = Some(at),
            // The NBP has done its work; the next iPXE to ask comes from a new power-on.
            Step::ScriptServed { .. } => *self = Self::default(),
            Step::Offered { stage: Stage::Ipxe, what: Offer::Nbp, xid, .. } => {
                let before = if is_recent(self.nbp_offered, at) { self.transactions } else { 0 };
                let is_new = before == 0 || self.last_xid != Some(*xid);
                self.transactions = before + u32::from(is_new);
                self.last_xid = Some(*xid);
                self.nbp_offered = Some(at);
            }
            Step::Offered { .. }
            | Step::Acknowledged { .. }
            | Step::Leased { .. }
            | Step::Probed { .. }
            | Step::AutoexecSent
            | Step::ImageSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. } => {}
        }
    }

    /// Whether the iPXE that asks now must be the NBP that was fetched a moment ago.
    pub fn runs_our_nbp(&self, now: SystemTime) -> bool {
        let in_vain = self.transactions >= MOST_TRANSACTIONS && is_recent(self.nbp_offered, now);
        is_recent(self.nbp_fetched, now) || in_vain
    }
}

fn is_recent(at: Option<SystemTime>, now: SystemTime) -> bool {
    at.is_some_and(|at| now.duration_since(at).is_ok_and(|passed| passed < NBP_IS_STARTING))
}
