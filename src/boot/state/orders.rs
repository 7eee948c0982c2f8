//! Whether the network boots a machine, or its disk: by its policy, by what was ordered, and by what has become
//! of it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::boot::event::Boot;
use crate::boot::settings::BootPolicy;
use crate::boot::time::Time;

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
}

/// What was ordered for a machine, and what has become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// The order to boot it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub armed: Option<Arming>,
    /// Whether it was disarmed: its disk boots it, come what may.
    pub is_disarmed: bool,
    /// The last boot that was completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Completed>,
    /// When its disk turned out not to boot, since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_failed: Option<Time>,
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
    /// It has booted once.
    Done,
    /// It was disarmed.
    Disarmed,
    /// `boot: local`.
    Local,
}

impl Because {
    /// Whether it is the network that boots.
    pub fn is_network(self) -> bool {
        match self {
            Self::Always | Self::Armed | Self::First | Self::DiskFailed => true,
            Self::Done | Self::Disarmed | Self::Local => false,
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
            Self::Done => "it has completed its boot; `reveille arm` has the network boot it again",
            Self::Disarmed => "it is disarmed",
            Self::Local => "`boot: local`, and it is not armed",
        })
    }
}

impl Orders {
    /// What boots a machine of this policy and profile.
    pub fn because(&self, policy: BootPolicy, profile: &str) -> Because {
        if self.armed.is_some() {
            return Because::Armed;
        }
        match policy {
            BootPolicy::Always => Because::Always,
            BootPolicy::Local => Because::Local,
            BootPolicy::Once if self.is_disarmed => Because::Disarmed,
            BootPolicy::Once => match &self.completed {
                // Who has booted something else whenever it asked has not had its one boot.
                Some(done) if done.was_once || done.profile == profile => {
                    if self.disk_failed.is_some() { Because::DiskFailed } else { Because::Done }
                }
                Some(_) | None => Because::First,
            },
        }
    }

    /// As they were `before` a boot was completed that has not booted after all; what was ordered since holds.
    pub(super) fn resumed(&self, before: &Self) -> Self {
        let is_its = |armed: &&Arming| {
            before.armed.as_ref().is_some_and(|before| before.since == armed.since)
        };
        let newer = self.armed.as_ref().filter(|armed| !is_its(armed)).cloned();
        // Whoever disarmed it since has taken back that order too.
        let its = before.armed.clone().filter(|_| !self.is_disarmed);
        Self { armed: newer.or(its), is_disarmed: self.is_disarmed, ..before.clone() }
    }

    /// Takes up that a boot has all that it needs, which began under `before`.
    pub(super) fn complete(&mut self, boot: &Boot, before: &Self, at: Time) {
        let was_once = boot.policy == BootPolicy::Once;
        let is_ordered = |armed: &Arming| armed.profile.as_ref() == Some(&boot.profile);
        // A rescue system, say, that was ordered by its name is no boot that a machine was to have once.
        if was_once || !before.armed.as_ref().is_some_and(is_ordered) {
            self.completed = Some(Completed { at, profile: boot.profile.clone(), was_once });
        }
        self.disk_failed = None;
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
