//! The boot that a machine has open: what its requests prove, and what they have fetched.
//!
//! A [`crate::pure::machine::progress::Journey`] shows how far a boot has come, from all that is heard of the machine. What
//! decides the next boot stands here instead, and only requests with the boot's id change it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::evidence::BOOTING;
use super::orders::Orders;
use super::time::Time;
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Mac, Stage};
use crate::pure::event::boot::Boot;

/// After how long without a request a boot closes.
pub const SILENCE: Duration = Duration::from_mins(15);
/// How long an installer may fetch answer files, from the opening of its boot on.
const FILES: Duration = Duration::from_hours(2);
/// How many boots' answer files can be fetched at once: machines that are reset halfway open one after the other.
const MOST_GRANTS: usize = 4;
/// How many scripts with a secret one boot is given. A question, a choice from the menu and a few retries need
/// one each.
pub const MOST_SECRETS: u32 = 10;

/// A boot that a machine has opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenBoot {
    /// What its requests carry.
    pub id: BootId,
    /// What the URLs of its answer files carry: the kernel line shows them, so it is another id.
    pub file_id: BootId,
    /// When it was opened.
    pub opened: Time,
    /// Its last request.
    pub last: Time,
    /// The card that it was opened from.
    pub card: Mac,
    /// The stage of the start before it, if DHCP was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// The address that it was opened from.
    pub address: Ipv4Addr,
    /// How many scripts with a secret it was given.
    pub secrets: u32,
    /// What its script boots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
    /// What was ordered when it received that script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) orders: Option<Orders>,
    /// The parts of its image that it has fetched whole.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) fetched: BTreeSet<String>,
    /// Whether it has fetched all that it boots.
    pub is_complete: bool,
}

impl OpenBoot {
    /// Whether it is still open.
    pub fn is_open(&self, now: Time) -> bool {
        // A clock that was set back closes no boot.
        now.since(self.last).is_none_or(|silence| silence < SILENCE)
    }

    /// Notes the script that it received, and what was ordered then. The same script, fetched once more in
    /// parallel, leaves what was fetched meanwhile.
    pub(super) fn start(&mut self, boot: &Boot, orders: &Orders) {
        if self.is_complete || self.boot.as_ref() != Some(boot) {
            self.fetched.clear();
            self.is_complete = false;
        }
        self.boot = Some(boot.clone());
        self.orders = Some(orders.clone());
    }

    /// Notes a part that was fetched whole, as `talos/kernel`; whether the boot is complete by it.
    pub(super) fn fetch(&mut self, file: &str) -> bool {
        let (Some(boot), Some((image, part))) = (&self.boot, file.rsplit_once('/')) else {
            return false;
        };
        if boot.image.as_deref() != Some(image) || !boot.parts().any(|needed| needed == part) {
            return false;
        }
        self.fetched.insert(part.to_owned());
        let has_all = boot.parts().all(|needed| self.fetched.contains(&needed));
        let was_complete = std::mem::replace(&mut self.is_complete, has_all);
        has_all && !was_complete
    }

    /// Keeps its age when the clock is set by so many milliseconds.
    pub(super) fn shift(&mut self, by: i64) {
        self.opened = self.opened.shifted(by);
        self.last = self.last.shifted(by);
    }

    /// Takes the completion back: the kernel did not start.
    pub(super) fn undo(&mut self) {
        self.fetched.clear();
        self.is_complete = false;
    }
}

/// A boot that a request over TFTP asked for. Anybody can forge the source of a datagram, so the boot opens
/// when its id comes back from the address that it was sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The id of the boot.
    pub id: BootId,
    /// The id of its answer files.
    pub file_id: BootId,
    card: Mac,
    address: Ipv4Addr,
    at: Time,
}

impl Invitation {
    pub(super) fn new(
        (id, file_id): (BootId, BootId),
        (card, address): (Mac, Ipv4Addr),
        at: Time,
    ) -> Self {
        Self { id, file_id, card, address, at }
    }

    /// Whether it is for this card at this address, and still valid.
    pub(super) fn is_for(&self, (card, address): (Mac, Ipv4Addr), now: Time) -> bool {
        (self.card, self.address) == (card, address) && now.is_within(BOOTING, self.at)
    }

    /// Keeps its age when the clock is set by so many milliseconds.
    pub(super) fn shift(&mut self, by: i64) {
        self.at = self.at.shifted(by);
    }
}

/// The right of a boot's machine to fetch its answer files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileGrant {
    file_id: BootId,
    opened: Time,
    /// The orders that the boot was begun under.
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<Orders>,
}

/// The answer files that can be fetched, of the boots that were opened last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FileGrants(Vec<FileGrant>);

impl FileGrants {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of a boot.
    pub(super) fn add(&mut self, boot: &OpenBoot) {
        self.0.retain(|grant| grant.file_id != boot.file_id);
        if self.0.len() == MOST_GRANTS {
            self.0.remove(0);
        }
        let OpenBoot { file_id, opened, orders, .. } = boot;
        self.0.push(FileGrant { file_id: *file_id, opened: *opened, orders: orders.clone() });
    }

    /// Keeps their age when the clock is set by so many milliseconds.
    pub(super) fn shift(&mut self, by: i64) {
        self.0.iter_mut().for_each(|grant| grant.opened = grant.opened.shifted(by));
    }

    /// The orders under which the boot with this file id was begun, while its files can be fetched.
    pub fn orders(&self, file_id: BootId, now: Time) -> Option<Orders> {
        let grant = self.0.iter().find(|grant| grant.file_id == file_id)?;
        let is_fresh = now.since(grant.opened).is_none_or(|age| age < FILES);
        is_fresh.then(|| grant.orders.clone().unwrap_or_default())
    }
}
