//! Machines whose disk has another profile than the config says.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Deserialize, Serialize};

use super::targets::bounded;
use super::{Found, list};
use crate::pure::boot::plan::{Selection, select};
use crate::pure::catalog::select::Boots;
use crate::pure::catalog::wipes::wipes;
use crate::pure::config::diff::boots_otherwise;
use crate::pure::config::snapshot::Config;
use crate::state::registry::machines::KnownMachines;

/// What such a machine has on its disk, and what the config says. The profile may have the same name, and boot something
/// else than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outdated {
    /// The machine's name, or its MAC where it has none.
    pub machine: String,
    /// The profile of its one boot.
    pub installed: String,
    /// The profile that the config says.
    pub wanted: String,
    /// Whether that erases a disk.
    pub wipes: bool,
    /// Whether it waits for the operator, since its disk does not boot.
    #[serde(default)]
    pub is_held: bool,
}

impl fmt::Display for Outdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, installed, wanted, wipes, is_held } = self;
        match installed == wanted {
            true => write!(f, "profile {wanted} has changed")?,
            false => write!(f, "profile {installed} -> {wanted}")?,
        }
        let disk =
            if *is_held { "its disk did not boot, and it waits" } else { "its disk still boots" };
        let does = if *wipes { "installs" } else { "boots" };
        write!(f, "; {disk}; `reveille arm {machine}` {does} {wanted} at its next network boot")
    }
}

impl Found<'_> {
    /// Whether its disk has another profile than its `selection` says, as that is now.
    pub(super) fn outdated(&self, selection: &Selection) -> Option<Outdated> {
        self.on_disk(selection).filter(|outdated| outdated.installed != outdated.wanted)
    }

    /// What its disk has, and what its `selection` says; nothing if it does not boot its disk.
    fn on_disk(&self, selection: &Selection) -> Option<Outdated> {
        let done =
            self.state.orders.completed.as_ref().filter(|done| done.was_once || done.has_wiped)?;
        let profile = match &selection.boots {
            Boots::Local(Some(profile)) | Boots::Hold(profile) => profile,
            // It does not boot its disk.
            Boots::Profile(_) | Boots::Local(None) | Boots::Menu | Boots::Ignore => return None,
        };
        Some(Outdated {
            machine: self.label(),
            installed: done.profile.clone(),
            wanted: profile.name.clone(),
            wipes: wipes(profile, &selection.who),
            is_held: matches!(selection.boots, Boots::Hold(_)),
        })
    }
}

/// The installed machines for which `new` says another profile than `old`, or whose profile boots something else, and
/// which boot their disks all the same, a line each; of many the first, and how many more there are.
pub fn outdated_by(old: &Config, new: &Config, known: &KnownMachines) -> Vec<String> {
    let known = list(new, known);
    let installed = known.iter().filter(|found| found.state.orders.completed.is_some());
    let lines = installed.filter_map(|found| {
        let client = found.client(&new.catalog);
        let now = select(&client, &new.catalog).now(&new.catalog, &found.state.orders);
        let outdated = found.on_disk(&now)?;
        let before = select(&client, &old.catalog);
        let is_new = match (before.profile(), new.catalog.profiles.get(&outdated.wanted)) {
            (Some(before), Some(after)) if before.name == after.name => {
                outdated.installed == outdated.wanted && boots_otherwise(before, after)
            }
            _ => outdated.installed != outdated.wanted,
        };
        is_new.then(|| format!("{}: {outdated}", outdated.machine))
    });
    bounded(lines.collect())
}
