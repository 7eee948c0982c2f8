//! Which entries of the config match a client, and what they make it boot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::entries::{Group, Machine, Profile};
use super::settings::{LocalBoot, Settings};

/// The entries that are for a client.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// Its own.
    pub machine: Option<Arc<Machine>>,
    /// Its group's.
    pub group: Option<Arc<Group>>,
}

/// What a client boots.
#[derive(Clone, Debug)]
pub enum Boots {
    /// This profile.
    Profile(Arc<Profile>),
    /// The menu.
    Menu,
    /// Its local disk, instead of this profile where it has one.
    Local(Option<Arc<Profile>>),
    /// Nothing until its disk is offered again or the operator decides, instead of this profile.
    Hold(Arc<Profile>),
    /// Nothing: it is not answered.
    Ignore,
}

impl Who {
    /// All that is said for who boots `profile`, the first to be asked first.
    pub fn settings<'a>(
        &'a self,
        profile: Option<&'a Profile>,
    ) -> impl DoubleEndedIterator<Item = &'a Settings> {
        let machine = self.machine.iter().map(|machine| &machine.settings);
        let group = self.group.iter().map(|group| &group.settings);
        machine.chain(group).chain(profile.map(|profile| &profile.settings))
    }

    /// How who boots `profile` reaches its disk.
    pub fn local_boot(&self, profile: Option<&Profile>) -> LocalBoot {
        self.settings(profile).find_map(|said| said.local_boot).unwrap_or_default()
    }

    /// The machine's name, where it has one.
    pub fn name(&self) -> Option<&str> {
        self.machine.as_ref().map(|machine| machine.name.as_str())
    }
}
