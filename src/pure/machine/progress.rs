//! One boot of a machine, from its power-on as far as it was seen.
//!
//! Its parts arrive over three protocols; what belongs to one machine is put together by its MAC (or the
//! address that it leased) before it comes here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::orders::Orders;
use super::time::Time;
use crate::pure::catalog::settings::{BootPolicy, LocalBoot, Option43};
use crate::pure::client::{Mac, Stage};
use crate::pure::event::boot::{Boot, Event, File, Offer, Starts, Step};
use crate::pure::event::diagnosis::Reached;

/// How long after the last DISCOVER another one, with another transaction, may still be of the same attempt:
/// firmware doubles its pause up to 32 seconds (PXE 2.1 section 2.2.1; EDK2 does the same), and some count each
/// of them as a transaction of its own.
pub(super) const ONE_ATTEMPT: Duration = Duration::from_secs(35);
/// How long a repeated DISCOVER, with the same transaction, is of the same attempt. Some firmware makes its
/// transaction of its MAC, and has the same after each power-on.
const SAME_TRANSACTION: Duration = Duration::from_mins(2);
/// How soon after a fetch no machine can have been started anew: an offer that is told of then went out before
/// the fetch, by a thread that had to wait.
const LATE: Duration = Duration::from_secs(2);
/// How long iPXE, once loaded, may take to ask DHCP for its script.
const LOADED: Duration = Duration::from_mins(10);
/// How soon who fetches its script anew, and was never seen at DHCP, only tries again.
const ONE_FETCH: Duration = Duration::from_secs(20);

/// By what a machine was seen to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Its card.
    pub mac: Mac,
    /// What asked: its firmware, or an iPXE in its ROM.
    pub stage: Stage,
    /// The DHCP transaction.
    pub xid: u32,
}

/// How much of a file came before it was broken off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub file: String,
    /// Bytes that came.
    pub bytes: u64,
    /// Bytes that it has.
    pub of: u64,
}

impl Part {
    /// How much that is, in per cent.
    pub fn percent(&self) -> u64 {
        self.bytes.saturating_mul(100).checked_div(self.of).unwrap_or(0)
    }
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journey {
    /// When it began.
    pub began: Time,
    /// When something was heard of it the last time.
    pub last: Time,
    /// When it came further the last time.
    pub further: Time,
    /// By what it was seen to begin; nothing where DHCP was not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// How far it has come.
    pub reached: Reached,
    /// The NBP that it was offered, or has fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbp: Option<String>,
    /// What option 43 said with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub option_43: Option<Option43>,
    /// Whether it was seen to take an address.
    pub has_lease: bool,
    /// What was broken off last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken_off: Option<Part>,
    /// Why it was refused something, the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What its script boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// What it has fetched whole of its image.
    pub fetched: BTreeSet<String>,
    /// How it was sent to its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_disk: Option<LocalBoot>,
    /// What was ordered when it got its script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) orders: Option<Orders>,
    /// Whether nothing more is to be told of its end: that it has stopped, or that it comes back.
    pub is_told: bool,
}

impl Journey {
    fn new(start: Option<Start>, at: Time) -> Self {
        Self {
            began: at,
            last: at,
            further: at,
            start,
            reached: Reached::default(),
            nbp: None,
            option_43: None,
            has_lease: false,
            broken_off: None,
            refused: None,
            boot: None,
            fetched: BTreeSet::new(),
            to_disk: None,
            orders: None,
            is_told: false,
        }
    }

    /// That of a machine of which nothing else is known but that it was sent to its disk.
    pub(super) fn at_disk(at: Time) -> Self {
        Self { reached: Reached::Disk, ..Self::new(None, at) }
    }

    /// What begins with this event, after `before`: a new power-on, or the first that is seen of one.
    pub(super) fn begun(before: Option<&Self>, event: &Event, at: Time) -> Option<Self> {
        let asked = |stage, xid| event.subject.mac.map(|mac| Start { mac, stage, xid });
        match &event.step {
            Step::Offered { stage, xid, .. }
            | Step::LeftToItsDisk { at: Some((stage, xid)), .. } => {
                let start = asked(*stage, *xid)?;
                let is_new = before.is_none_or(|before| before.is_over_by(start, at));
                is_new.then(|| Self::new(Some(start), at))
            }
            // DHCP is not seen.
            Step::NbpSent { .. } | Step::Probed { .. } => {
                let is_new = before.is_none_or(|before| before.reached.is_scripted());
                is_new.then(|| Self::new(None, at))
            }
            Step::BrokenOff { kind: File::Nbp, .. } | Step::AutoexecSent { .. } => {
                before.is_none().then(|| Self::new(None, at))
            }
            Step::ScriptServed { .. } | Step::WaitServed { .. } | Step::LeftToItsDisk { .. } => {
                let is_new = before.is_none_or(|before| before.is_over_unseen(at));
                is_new.then(|| Self::new(None, at))
            }
            Step::Acknowledged { .. }
            | Step::Advised { .. }
            | Step::Leased { .. }
            | Step::CompanionSent { .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. }
            | Step::Stopped { .. }
            | Step::Armed { .. }
            | Step::Disarmed {}
            | Step::KeptOnDisk {}
            | Step::BootIdMisused { .. }
            | Step::Confirmed { .. }
            | Step::ConfirmationWithdrawn { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. } => None,
        }
    }

    /// Whether who asks DHCP so now has been started anew.
    fn is_over_by(&self, by: Start, at: Time) -> bool {
        let is_its = self.start.is_none_or(|start| start.mac == by.mac);
        let is_fetching = self.reached.is_scripted() && self.reached < Reached::All;
        if is_its && is_fetching && at.is_within(LATE, self.last) {
            return false;
        }
        let has_loaded = match self.reached {
            Reached::PartOfNbp | Reached::Nbp | Reached::Led => true,
            Reached::Offered
            | Reached::Asked
            | Reached::Ipxe
            | Reached::Question
            | Reached::Waiting
            | Reached::Menu
            | Reached::Held
            | Reached::Script
            | Reached::Kernel
            | Reached::All
            | Reached::Disk => self.start.is_none_or(|start| start.stage != Stage::Ipxe),
        };
        if by.stage == Stage::Ipxe && has_loaded {
            // The NBP that was loaded. From its script on it asks DHCP no more.
            return self.reached.is_scripted() || !at.is_within(LOADED, self.last);
        }
        let Some(start) = self.start else {
            return true;
        };
        let is_same = (start.mac, start.stage) == (by.mac, by.stage);
        let repeats = start.xid == by.xid;
        let is_asking = self.reached != Reached::Disk;
        let pause = if repeats && is_asking { SAME_TRANSACTION } else { ONE_ATTEMPT };
        let paused = !at.is_within(pause, self.last);
        let has_only_asked = match self.reached {
            Reached::Offered => true,
            // It is left to its disk by silence: its firmware asks on for a while.
            Reached::Disk => self.to_disk == Some(LocalBoot::Silent),
            // The last DISCOVER of a slow server may come late.
            Reached::Asked => repeats,
            Reached::Ipxe => start.stage == Stage::Ipxe,
            Reached::PartOfNbp
            | Reached::Nbp
            | Reached::Led
            | Reached::Question
            | Reached::Waiting
            | Reached::Menu
            | Reached::Held
            | Reached::Script
            | Reached::Kernel
            | Reached::All => false,
        };
        // It asks on and on, and comes no further: what it asks now is to be another attempt.
        !is_same || paused || !has_only_asked || self.is_told
    }

    /// Whether who fetches a script now, without having been seen at DHCP, has been started anew.
    fn is_over_unseen(&self, at: Time) -> bool {
        let is_at_its_end = match self.reached {
            Reached::All | Reached::Disk => true,
            Reached::Offered
            | Reached::Asked
            | Reached::PartOfNbp
            | Reached::Nbp
            | Reached::Led
            | Reached::Ipxe
            | Reached::Question
            | Reached::Waiting
            | Reached::Menu
            | Reached::Held
            | Reached::Script
            | Reached::Kernel => false,
        };
        is_at_its_end && !at.is_within(ONE_FETCH, self.last)
    }

    /// Takes up what happened at `at`.
    pub(super) fn apply(&mut self, event: &Event, at: Time) {
        let before = self.reached;
        let mut reached = |step: Reached| self.reached = self.reached.max(step);
        match &event.step {
            Step::Offered { stage, what, boot_file, option_43, xid, .. } => {
                match what {
                    Offer::Script => reached(Reached::Ipxe),
                    Offer::Nbp => {
                        self.nbp =
                            Some(boot_file.rsplit("/nbp/").next().unwrap_or_default().into());
                        self.option_43 = *option_43;
                    }
                }
                match (&mut self.start, event.subject.mac) {
                    (Some(start), _) if start.stage == *stage => start.xid = *xid,
                    (None, Some(mac)) if *stage != Stage::Ipxe => {
                        self.start = Some(Start { mac, stage: *stage, xid: *xid });
                    }
                    (Some(_) | None, _) => {}
                }
            }
            Step::Acknowledged { .. } | Step::Probed { .. } => reached(Reached::Asked),
            Step::BrokenOff { kind, file, sent, of, .. } => {
                if *kind == File::Nbp {
                    reached(Reached::PartOfNbp);
                }
                let part = Part { file: file.clone(), bytes: sent.bytes, of: *of };
                self.broken_off = Some(part);
            }
            Step::NbpSent { file, .. } => {
                reached(Reached::Nbp);
                self.nbp = Some(file.clone());
                self.broken_off = None;
                // It has gone on without what it was refused.
                self.refused = None;
            }
            Step::AutoexecSent { .. } => {
                reached(Reached::Led);
                self.refused = None;
            }
            Step::WaitServed { .. } => self.reached = Reached::Waiting,
            Step::ScriptServed { starts, .. } => {
                self.fetched.clear();
                self.boot = None;
                self.refused = None;
                self.reached = match starts {
                    Starts::Boot(boot) => {
                        self.boot = Some((**boot).clone());
                        Reached::Script
                    }
                    Starts::Menu => Reached::Menu,
                    Starts::Question => Reached::Question,
                    Starts::Disk(method) | Starts::DiskAgain(method) => {
                        self.to_disk = Some(*method);
                        Reached::Disk
                    }
                    Starts::Hold => Reached::Held,
                };
            }
            Step::LeftToItsDisk { method, at: asked, .. } => {
                self.to_disk = Some(*method);
                self.reached = Reached::Disk;
                if let (Some(start), Some((_, xid))) = (&mut self.start, asked) {
                    start.xid = *xid;
                }
            }
            Step::ImageSent { file, .. } => self.fetch(file),
            Step::Refused { reason, .. } | Step::Ignored { reason } => {
                self.refused = Some(reason.clone());
            }
            Step::Stopped { .. } => self.is_told = true,
            Step::Leased { .. } => self.has_lease = true,
            Step::CompanionSent { .. }
            | Step::FileSent { .. }
            | Step::Advised { .. }
            | Step::Armed { .. }
            | Step::Disarmed {}
            | Step::KeptOnDisk {}
            | Step::BootIdMisused { .. }
            | Step::Confirmed { .. }
            | Step::ConfirmationWithdrawn { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. } => {}
        }
        match &event.step {
            Step::Stopped { .. }
            | Step::Armed { .. }
            | Step::Disarmed {}
            | Step::KeptOnDisk {}
            | Step::BootIdMisused { .. }
            | Step::Confirmed { .. }
            | Step::ConfirmationWithdrawn { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. }
            | Step::Advised { .. } => {}
            Step::Offered { .. }
            | Step::Acknowledged { .. }
            | Step::Probed { .. }
            | Step::BrokenOff { .. }
            | Step::NbpSent { .. }
            | Step::AutoexecSent { .. }
            | Step::WaitServed { .. }
            | Step::ScriptServed { .. }
            | Step::LeftToItsDisk { .. }
            | Step::ImageSent { .. }
            | Step::Leased { .. }
            | Step::CompanionSent { .. }
            | Step::FileSent { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. } => {
                self.last = at;
                self.is_told = false;
            }
        }
        let has_got_something = matches!(
            event.step,
            Step::WaitServed { .. } | Step::ScriptServed { .. } | Step::ImageSent { .. }
        );
        if self.reached != before || has_got_something {
            self.further = at;
        }
    }

    /// Whether it is no wonder that it comes back soon after it had all that it boots: it was to boot so once, or
    /// as often as was ordered.
    pub fn is_expected_back(&self) -> bool {
        let is_ordered = self.orders.as_ref().is_some_and(|orders| orders.armed.is_some());
        is_ordered || self.boot.as_ref().is_some_and(|boot| boot.policy != BootPolicy::Always)
    }

    /// Takes up that its kernel did not start.
    pub(super) fn undo(&mut self) {
        self.reached = Reached::Script;
        self.fetched.clear();
    }

    /// Takes up a kernel or an initrd that was fetched whole, as `talos/kernel`.
    fn fetch(&mut self, file: &str) {
        let (Some(boot), Some((image, part))) = (&self.boot, file.rsplit_once('/')) else {
            return;
        };
        if boot.image.as_deref() != Some(image) || !boot.parts().any(|needed| needed == part) {
            return;
        }
        self.fetched.insert(part.to_owned());
        (self.broken_off, self.refused) = (None, None);
        if boot.parts().all(|needed| self.fetched.contains(&needed)) {
            self.reached = Reached::All;
        } else if self.reached == Reached::Script && boot.parts().next().as_deref() == Some(part) {
            self.reached = Reached::Kernel;
        }
    }
}
