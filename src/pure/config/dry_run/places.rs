//! Where the file says what later checks report on: entries are linked by then, and know their places no more.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;

use super::combinations::of_machine;
use crate::pure::catalog::Profile;
use crate::pure::catalog::select::Who;
use crate::pure::config::schema::{File, Said};
use crate::pure::config::yaml::Place;

/// A key, and its place in the file.
pub(crate) type At = (String, Place);

/// The places of one profile, group or machine.
#[derive(Debug)]
pub(crate) struct OfEntry {
    /// Its key and its name's place.
    pub(crate) own: At,
    /// `script`, of a profile.
    pub(crate) script: Option<At>,
    /// `boot`
    pub(crate) boot: Option<At>,
    /// `wipes`
    pub(crate) wipes: Option<At>,
    /// `on_disk_failure`
    pub(crate) on_disk_failure: Option<At>,
    /// `release`
    pub(crate) release: Option<At>,
}

impl OfEntry {
    fn says_any(&self) -> bool {
        let Self { own: _, script: _, boot, wipes, on_disk_failure, release } = self;
        [boot, wipes, on_disk_failure, release].into_iter().any(Option::is_some)
    }
}

/// The places of one file.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Of each profile, by name.
    pub(crate) profiles: HashMap<String, OfEntry>,
    /// Of each group, by name.
    pub(crate) groups: HashMap<String, OfEntry>,
    /// Of those machines that say one of these, by name.
    pub(crate) machines: HashMap<String, OfEntry>,
    /// `unknown`
    pub(crate) unknown: Option<At>,
    /// `menu.default`
    pub(crate) menu_default: Option<At>,
    /// The items of `menu.profiles`, by name.
    pub(crate) offered: HashMap<String, At>,
}

impl Places {
    pub(crate) fn of(file: &File) -> Self {
        let entry = |own: At, said: &Said| OfEntry {
            own,
            script: None,
            boot: said.boot_at.clone(),
            wipes: said.wipes_at.clone(),
            on_disk_failure: said.on_disk_failure_at.clone(),
            release: said.release_at.clone(),
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
            let entry = entry((of_machine(&name.value), name.place), &machine.said);
            if entry.says_any() {
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

    /// Where the first of a machine, its group and its profile says this.
    pub(crate) fn first(
        &self,
        (profile, who): (&Profile, &Who),
        said: impl Fn(&OfEntry) -> Option<&At>,
    ) -> Option<&At> {
        let machine = who.machine.as_ref().and_then(|machine| self.machines.get(&machine.name));
        let group = who.group.as_ref().and_then(|group| self.groups.get(&group.name));
        let layers = [machine, group, self.profiles.get(&profile.name)];
        layers.into_iter().flatten().find_map(said)
    }
}
