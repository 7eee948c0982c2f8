//! Where the file says what later checks report on: entries are linked by then, and know their places no more.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;

use super::boots::of_machine;
use crate::config::file::{File, Said};
use crate::config::yaml::Place;

/// A key, and its place in the file.
pub(super) type At = (String, Place);

/// The places of one profile, group or machine.
#[derive(Debug)]
pub(super) struct OfEntry {
    /// Its key and its name's place.
    pub(super) own: At,
    /// `script`, of a profile.
    pub(super) script: Option<At>,
    /// `boot`
    pub(super) boot: Option<At>,
    /// `wipes`
    pub(super) wipes: Option<At>,
}

/// The places of one file.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Of each profile, by name.
    pub(super) profiles: HashMap<String, OfEntry>,
    /// Of each group, by name.
    pub(super) groups: HashMap<String, OfEntry>,
    /// Of those machines that say `boot` or `wipes`, by name.
    pub(super) machines: HashMap<String, OfEntry>,
    /// `unknown`
    pub(super) unknown: Option<At>,
    /// `menu.default`
    pub(super) menu_default: Option<At>,
    /// The items of `menu.profiles`, by name.
    pub(super) offered: HashMap<String, At>,
}

impl Places {
    pub(super) fn of(file: &File) -> Self {
        let entry = |own: At, said: &Said| OfEntry {
            own,
            script: None,
            boot: said.boot_at.clone(),
            wipes: said.wipes_at.clone(),
        };
        let mut places = Self::default();
        for (name, profile) in &file.profiles {
            let script = profile.script.as_ref().map(|at| (at.key.clone(), at.place));
            let entry = entry((name.key.clone(), name.place), &profile.said);
            places.profiles.insert(name.value.clone(), OfEntry { script, ..entry });
        }
        for group in &file.groups {
            let Some(name) = &group.name else {
                continue;
            };
            let key = name.key.strip_suffix(".name").unwrap_or(&name.key);
            let entry = entry((key.to_owned(), name.place), &group.said);
            places.groups.entry(name.value.clone()).or_insert(entry);
        }
        for (name, machine) in &file.machines {
            let said = &machine.said;
            if said.boot_at.is_some() || said.wipes_at.is_some() {
                let entry = entry((of_machine(&name.value), name.place), said);
                places.machines.insert(name.value.clone(), entry);
            }
        }
        places.unknown = file.unknown.as_ref().map(|at| (at.key.clone(), at.place));
        places.menu_default = file.menu.default.as_ref().map(|at| (at.key.clone(), at.place));
        for at in file.menu.profiles.iter().flatten() {
            places.offered.insert(at.value.clone(), (at.key.clone(), at.place));
        }
        places
    }
}
