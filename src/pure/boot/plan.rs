//! Which entries of the config are for a client: its machine, its group, and what that makes it boot.
//!
//! A machine's own entry comes first: found by MAC, else by UUID (in both byte orders), else by serial
//! number. Where there is none, or it names no profile, the first group counts whose pattern fits; where
//! none does, `unknown`. What DHCP does not tell fits no pattern at DHCP: a group by product name has no
//! say in which NBP is offered, only in which script is rendered.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use crate::pure::catalog::pattern::Fit;
use crate::pure::catalog::release::needs_order;
use crate::pure::catalog::select::{Boots, Who};
use crate::pure::catalog::settings::{BootPolicy, Release, Settings};
use crate::pure::catalog::wipes::{on_disk_failure, wipes};
use crate::pure::catalog::{Catalog, Profile, Unknown};
use crate::pure::client::Client;
use crate::pure::machine::orders::{Because, Orders, Stakes};

/// What a client boots, and by which entries.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The entries.
    pub who: Who,
    /// What it boots.
    pub boots: Boots,
    /// Whether that may be otherwise once iPXE has told the machine's facts.
    pub is_open: bool,
    /// When the network boots it, and when its disk.
    pub policy: BootPolicy,
    /// Why it is the network, or the disk, where that is no matter of the config alone.
    pub because: Option<Because>,
    /// Whether its firmware asks DHCP again though silence left it to its disk.
    pub asks_again: bool,
}

impl Selection {
    /// The profile, where it boots one.
    pub fn profile(&self) -> Option<&Profile> {
        match &self.boots {
            Boots::Profile(profile) | Boots::Local(Some(profile)) | Boots::Hold(profile) => {
                Some(profile)
            }
            Boots::Menu | Boots::Local(None) | Boots::Ignore => None,
        }
    }

    /// All that is said for the client, the first to be asked first.
    pub fn settings(&self) -> impl DoubleEndedIterator<Item = &Settings> {
        self.who.settings(self.profile())
    }

    /// Whether an order of the operator starts this boot, or it is the first boot of a machine with an entry, which is
    /// due. Anybody can invent a machine without an entry, and its first boot would always be due.
    pub fn is_ordered_or_due(&self) -> bool {
        let is_due = self.because == Some(Because::First) && self.who.machine.is_some();
        self.because == Some(Because::Armed) || is_due
    }

    /// The first word that is said, if any.
    pub fn first<T>(&self, said: impl Fn(&Settings) -> Option<T>) -> Option<T> {
        self.settings().find_map(said)
    }
}

/// Selects the entries for a client.
pub fn select(client: &Client, catalog: &Catalog) -> Selection {
    let machine = catalog.identify(client).cloned();
    let may_be_another = machine.is_none() && catalog.needs_smbios() && client.facts.is_none();
    if let Some(profile) = machine.as_ref().and_then(|machine| machine.profile.clone()) {
        let who = Who { machine, group: None };
        return Selection::of_the_config(who, Boots::Profile(profile), false);
    }
    let mut is_open = may_be_another;
    let mut group = None;
    for candidate in &catalog.groups {
        match candidate.pattern.fits(client) {
            Fit::Yes => {
                group = Some(Arc::clone(candidate));
                break;
            }
            Fit::Open => is_open = true,
            Fit::No => {}
        }
    }
    let boots = match (&group, &catalog.unknown) {
        (Some(group), _) => Boots::Profile(Arc::clone(&group.profile)),
        (None, Unknown::Profile(profile)) => Boots::Profile(Arc::clone(profile)),
        (None, Unknown::Menu) => Boots::Menu,
        (None, Unknown::Local) => Boots::Local(None),
        (None, Unknown::Ignore) => Boots::Ignore,
    };
    Selection::of_the_config(Who { machine, group }, boots, is_open)
}

impl Selection {
    fn of_the_config(who: Who, boots: Boots, is_open: bool) -> Self {
        Self {
            who,
            boots,
            is_open,
            policy: BootPolicy::default(),
            because: None,
            asks_again: false,
        }
    }

    /// What the client boots now, given what was ordered for it and has become of it.
    pub fn now(mut self, catalog: &Catalog, orders: &Orders) -> Self {
        self.policy = self.first(|said| said.boot).unwrap_or_default();
        self.asks_again = orders.asks_again;
        let own = self.profile().map(|profile| profile.name.as_str());
        let ordered = orders.armed.as_ref().and_then(|armed| armed.profile.as_deref());
        let Some(other) = ordered.filter(|name| own != Some(*name)) else {
            return self.by(orders);
        };
        let Some(profile) = catalog.profiles.get(other) else {
            // The config has it no more: that order waits, and has nothing else booted.
            return self.by(&Orders { armed: None, ..orders.clone() });
        };
        // How often its own profile is booted is no matter of this one.
        self.policy = profile.settings.boot.unwrap_or_default();
        self.because = orders.by_order(wipes(profile, &self.who));
        let is_held = self.because.is_some_and(Because::is_hold);
        let boots = if is_held { Boots::Hold } else { Boots::Profile };
        self.boots = boots(Arc::clone(profile));
        self.is_open = false;
        self
    }

    fn by(mut self, orders: &Orders) -> Self {
        match &self.boots {
            Boots::Profile(profile) => {
                let profile = Arc::clone(profile);
                let stakes = Stakes {
                    wipes: wipes(&profile, &self.who),
                    on_disk_failure: on_disk_failure(&profile, &self.who),
                };
                let because = orders.because(self.policy, &profile.name, stakes);
                self.because = Some(because);
                if because == Because::DiskMenu {
                    self.boots = Boots::Menu;
                } else if because.is_hold() {
                    self.boots = Boots::Hold(profile);
                } else if !because.is_network() {
                    self.boots = Boots::Local(Some(profile));
                }
            }
            Boots::Menu | Boots::Local(_) if orders.keeps_to_disk(self.policy) => {
                self.because = Some(Because::KeptOnDisk);
                self.boots = Boots::Local(None);
            }
            // A machine that is not answered goes to its disk by itself.
            Boots::Menu | Boots::Local(_) | Boots::Hold(_) | Boots::Ignore => {}
        }
        self
    }
}

/// Whether `release: armed` withholds the script of this boot, because it holds a secret and is neither ordered nor
/// due.
pub fn is_withheld(selection: &Selection, server_default: Release) -> bool {
    let Boots::Profile(profile) = &selection.boots else {
        return false;
    };
    needs_order(profile, &selection.who, server_default) && !selection.is_ordered_or_due()
}
