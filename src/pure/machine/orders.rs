//! Whether the network boots a machine, or its disk: by its policy, by what was ordered, and by what has become
//! of it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Time;
use crate::pure::catalog::settings::{BootPolicy, OnDiskFailure};
use crate::pure::event::boot::Boot;

/// How long a return from the disk counts.
const RECENT: Duration = Duration::from_mins(10);
/// At which return within [`RECENT`] a machine with `on_disk_failure: hold` is offered its disk no more.
const MOST_RETURNS: usize = 3;

/// An order to have the network boot a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arming {
    /// When it was given, which tells it from others.
    pub since: Time,
    /// What is to be booted, where it is not what the config says.
    pub profile: Option<String>,
    /// For how many boots more.
    pub times: u32,
}

/// A boot that fetched all that its script boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// When.
    pub at: Time,
    /// Of this profile.
    pub profile: String,
    /// Whether the machine was to boot so once.
    pub was_once: bool,
    /// Whether it erased a disk, or one before it: the machine is installed then, by whatever entry of the config it
    /// booted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_wiped: bool,
}

/// What was ordered for a machine, and what has become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// The order to boot it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub armed: Option<Arming>,
    /// Whether what was ordered last was withdrawn: a boot that fails later does not bring that order back.
    #[serde(skip_serializing_if = "is_false")]
    pub is_withdrawn: bool,
    /// Whether its disk boots it, whatever the config says, until it is armed.
    #[serde(skip_serializing_if = "is_false")]
    pub is_kept_on_disk: bool,
    /// In a registry of an earlier version: it was disarmed, which kept a machine with `boot: once` on its disk and
    /// meant nothing for other machines.
    #[serde(skip_serializing_if = "is_false")]
    pub is_disarmed: bool,
    /// The last boot that was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Completed>,
    /// When its disk turned out not to boot, since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_failed: Option<Time>,
    /// When it came back from its disk, as far as that is recent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub returns: Vec<Time>,
    /// Since when it waits for the operator, because its disk does not boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Time>,
    /// Whether its firmware asks DHCP again though `local_boot: silent` left it to its disk.
    #[serde(skip)]
    pub asks_again: bool,
    /// Why machines whose profile wipes hold.
    #[serde(skip)]
    pub registry_fault: Option<RegistryFault>,
}

/// Why it is uncertain what a machine has completed, or will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryFault {
    /// The registry was lost, which was noticed at this time: a boot may be forgotten, and an older order used up.
    Lost(Time),
    /// The registry cannot be written, and why: a boot may be forgotten when the daemon ends.
    Unwritable(Arc<str>),
}

/// What is at stake for a machine that boots a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stakes {
    /// Whether the profile erases a disk.
    pub wipes: bool,
    /// What follows if the disk does not boot.
    pub on_disk_failure: OnDiskFailure,
}

/// Why the network boots a machine, or its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// It boots by the network whenever it asks.
    Always,
    /// It was armed.
    Armed,
    /// It has not booted yet.
    First,
    /// Its disk does not boot.
    DiskFailed,
    /// Its disk does not boot, and it shows the menu.
    DiskMenu,
    /// It came back from its disk, which it is offered again.
    DiskAgain,
    /// Its disk does not boot, and it waits for the operator.
    Held,
    /// The registry was lost, and its profile erases a disk.
    StateLost,
    /// The registry cannot be written, and its profile erases a disk.
    RegistryUnwritable,
    /// Its profile erases a disk, and would do so at every boot.
    WipesAlways,
    /// It has booted once.
    Done,
    /// It was sent to its disk for good.
    #[serde(alias = "disarmed")]
    KeptOnDisk,
    /// `boot: local`.
    Local,
}

impl Because {
    /// Whether the machine neither boots by the network nor simply goes to its disk.
    pub fn is_hold(self) -> bool {
        match self {
            Self::DiskAgain
            | Self::Held
            | Self::StateLost
            | Self::RegistryUnwritable
            | Self::WipesAlways => true,
            Self::Always
            | Self::Armed
            | Self::First
            | Self::DiskFailed
            | Self::DiskMenu
            | Self::Done
            | Self::KeptOnDisk
            | Self::Local => false,
        }
    }

    /// Why, with commands that name this machine.
    pub fn of(self, machine: &str) -> String {
        let mut text = self.to_string();
        for command in ["disk", "arm"] {
            let named = format!("`reveille {command} {machine}`");
            text = text.replace(&format!("`reveille {command}`"), &named);
        }
        text
    }

    /// Whether it is the network that boots.
    pub fn is_network(self) -> bool {
        match self {
            Self::Always | Self::Armed | Self::First | Self::DiskFailed => true,
            Self::Done
            | Self::KeptOnDisk
            | Self::Local
            | Self::DiskMenu
            | Self::DiskAgain
            | Self::Held
            | Self::StateLost
            | Self::RegistryUnwritable
            | Self::WipesAlways => false,
        }
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "it boots by the network whenever it asks",
            Self::Armed => "it is armed",
            Self::First => "it has not completed a boot yet",
            Self::DiskFailed => "its disk did not boot",
            Self::DiskMenu => "its disk did not boot, and `on_disk_failure: menu` shows the menu",
            Self::DiskAgain => "it came back from its disk, which is offered again after a minute",
            Self::Held => {
                "its disk does not boot; `reveille disk` boots its disk all the same, `reveille arm` installs it anew"
            }
            Self::StateLost => {
                "the registry was lost, so it may be installed already; `reveille disk` boots its disk, `reveille arm` installs it, `reveille state accept` installs all such machines"
            }
            Self::RegistryUnwritable => {
                "the registry cannot be written, so its boot could be forgotten, and its disk erased once more; it boots as soon as the registry is written, see `reveille status`"
            }
            Self::WipesAlways => {
                "its profile erases a disk and has `boot: always`; write `boot: once`, or `wipes: false`"
            }
            Self::Done => "it has completed its boot; `reveille arm` has the network boot it again",
            Self::KeptOnDisk => {
                "it is kept on its disk; `reveille arm` has the network boot it again"
            }
            Self::Local => "`boot: local`, and it is not armed",
        })
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl Orders {
    /// Whether its disk boots a machine of this policy, whatever the config says.
    pub fn keeps_to_disk(&self, policy: BootPolicy) -> bool {
        self.is_kept_on_disk || self.is_disarmed && policy == BootPolicy::Once
    }

    /// Whether the next boot of a machine would be another one without what is remembered here.
    pub fn decides_next_boot(&self) -> bool {
        self.completed.is_some() || self.armed.is_some() || self.is_kept_on_disk
    }

    /// Orders that the network boots it, which ends that it is kept on its disk. A profile that is ordered by
    /// its name, as a rescue system is, is an exception from that for its own boots only.
    pub(super) fn arm(&mut self, order: Arming) {
        self.is_withdrawn = false;
        if order.profile.is_none() {
            (self.is_kept_on_disk, self.is_disarmed) = (false, false);
        }
        self.armed = Some(order);
    }

    /// Withdraws what was ordered: what the config says holds again.
    pub(super) fn withdraw(&mut self) {
        self.armed = None;
        self.is_withdrawn = true;
    }

    /// Withdraws what was ordered, and has its disk boot it for good.
    pub fn keep_on_disk(&mut self) {
        self.withdraw();
        self.is_kept_on_disk = true;
    }

    /// Whether an order boots a profile now, and whether that holds. None without an order.
    pub fn by_order(&self, wipes: bool) -> Option<Because> {
        let armed = self.armed.as_ref()?;
        Some(match &self.registry_fault {
            // It may have been used up after the registry that is left was written.
            Some(RegistryFault::Lost(at)) if wipes && armed.since < *at => Because::StateLost,
            // That it is used up could be forgotten.
            Some(RegistryFault::Unwritable(_)) if wipes => Because::RegistryUnwritable,
            Some(_) | None => Because::Armed,
        })
    }

    /// What boots a machine of this policy and profile.
    pub fn because(&self, policy: BootPolicy, profile: &str, stakes: Stakes) -> Because {
        if let Some(because) = self.by_order(stakes.wipes) {
            return because;
        }
        if self.keeps_to_disk(policy) {
            return Because::KeptOnDisk;
        }
        match policy {
            BootPolicy::Always if stakes.wipes => Because::WipesAlways,
            BootPolicy::Always => Because::Always,
            BootPolicy::Local => Because::Local,
            BootPolicy::Once => match &self.completed {
                // Who has booted something else whenever it asked has not had its one boot.
                Some(done) if done.was_once || done.has_wiped || done.profile == profile => {
                    self.after_disk_failure(stakes)
                }
                Some(_) | None => match &self.registry_fault {
                    Some(RegistryFault::Lost(_)) if stakes.wipes => Because::StateLost,
                    Some(RegistryFault::Unwritable(_)) if stakes.wipes => {
                        Because::RegistryUnwritable
                    }
                    Some(_) | None => Because::First,
                },
            },
        }
    }

    /// What boots a machine that has completed its boot.
    fn after_disk_failure(&self, Stakes { wipes, on_disk_failure }: Stakes) -> Because {
        let has_returned = !self.returns.is_empty();
        match on_disk_failure {
            // Nothing but an order leads back to a profile that wipes.
            OnDiskFailure::Boot if !wipes && self.disk_failed.is_some() => Because::DiskFailed,
            OnDiskFailure::Boot if !wipes => Because::Done,
            OnDiskFailure::Menu if has_returned => Because::DiskMenu,
            OnDiskFailure::Menu => Because::Done,
            OnDiskFailure::Boot | OnDiskFailure::Hold if self.held.is_some() => Because::Held,
            OnDiskFailure::Boot | OnDiskFailure::Hold if has_returned => Because::DiskAgain,
            OnDiskFailure::Boot | OnDiskFailure::Hold => Because::Done,
        }
    }

    /// Notes that the disk of the machine did not boot; `is_certain` if its iPXE has tried that.
    pub(super) fn fail_disk(&mut self, is_certain: bool, at: Time) {
        self.disk_failed = Some(at);
        self.forget_old_returns(at);
        self.returns.push(at);
        if is_certain || self.returns.len() >= MOST_RETURNS {
            self.held = Some(at);
        }
    }

    /// Forgets returns that are no longer recent.
    pub(super) fn forget_old_returns(&mut self, now: Time) {
        // A clock that was set back makes none of them older.
        self.returns.retain(|at| now.since(*at).is_none_or(|age| age < RECENT));
    }

    /// Forgets that the disk did not boot: the operator decides anew, or another boot is complete.
    pub(super) fn forgive_disk(&mut self) {
        self.disk_failed = None;
        self.returns.clear();
        self.held = None;
    }

    /// As they were `before` a boot was completed that has not booted after all; what was ordered since holds.
    pub(super) fn resumed(&self, before: &Self) -> Self {
        let is_its = |armed: &&Arming| {
            before.armed.as_ref().is_some_and(|before| before.since == armed.since)
        };
        let newer = self.armed.as_ref().filter(|armed| !is_its(armed)).cloned();
        let its = before.armed.clone().filter(|_| !self.is_withdrawn);
        Self {
            armed: newer.or(its),
            is_withdrawn: self.is_withdrawn,
            is_kept_on_disk: self.is_kept_on_disk,
            is_disarmed: self.is_disarmed,
            ..before.clone()
        }
    }

    /// Takes up that a boot has all that it needs, which began under `before`.
    pub(super) fn complete(&mut self, boot: &Boot, before: &Self, at: Time) {
        let was_once = boot.policy == BootPolicy::Once;
        let is_ordered = |armed: &Arming| armed.profile.as_ref() == Some(&boot.profile);
        // A rescue system, say, that was ordered by its name is no boot that a machine was to have once.
        let counts = was_once || boot.wipes || !before.armed.as_ref().is_some_and(is_ordered);
        match &mut self.completed {
            _ if !counts => {}
            // What it boots whenever it asks, as a rescue system, leaves on the disk what was installed there.
            Some(done) if done.has_wiped && !was_once && !boot.wipes => done.at = at,
            done => {
                let has_wiped = boot.wipes || done.as_ref().is_some_and(|done| done.has_wiped);
                let profile = boot.profile.clone();
                *done = Some(Completed { at, profile, was_once, has_wiped });
            }
        }
        self.forgive_disk();
        // What was ordered while it was under way is for the next one.
        let is_its = |armed: &Arming| {
            let is_for = armed.profile.is_none() || is_ordered(armed);
            is_for && before.armed.as_ref().is_some_and(|before| before.since == armed.since)
        };
        if let Some(armed) = self.armed.as_mut().filter(|armed| is_its(armed)) {
            armed.times = armed.times.saturating_sub(1);
            if armed.times == 0 {
                self.armed = None;
            }
        }
    }
}
