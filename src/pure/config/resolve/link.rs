//! From names to the things that they name: the catalog of one snapshot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::pure::catalog::{Catalog, Profile};
use crate::pure::config::dry_run::combinations::{self, Entry};
use crate::pure::config::dry_run::kernel_lines::{KernelLines, TooLong};
use crate::pure::config::dry_run::places::Places;
use crate::pure::config::dry_run::{release, templates, wipes};
use crate::pure::config::fields::{Located, is_name, no_such};
use crate::pure::config::problem::Problems;
use crate::pure::config::schema::File;
use crate::pure::config::surroundings::Surroundings;
use crate::pure::image_source::Wanted;
use crate::pure::nearest::nearest;
use crate::pure::script::templates::Templates;

/// What `unknown` and `menu.default` mean by these words is no profile.
pub(crate) const RESERVED: [&str; 3] = ["menu", "local", "ignore"];

/// Looks names up, each kind of thing in those that were linked before it.
pub(crate) struct Linker<'a> {
    pub(crate) found: &'a Surroundings,
    pub(crate) templates: &'a Templates,
    pub(crate) problems: &'a mut Problems,
    /// The profiles that something names, also those that are likely to be meant by a misspelt name.
    pub(crate) used: HashSet<String>,
    /// The profiles and groups whose own kernel line is too long: nothing more is said of their machines'.
    pub(crate) too_long: Vec<TooLong>,
    /// What each image is made of that is to be fetched.
    pub(crate) wanted: BTreeMap<String, Vec<Wanted>>,
}

/// What there is of a kind, by name; none where it has an error, so that who names it is not at fault.
pub(crate) struct Named<T>(pub(crate) BTreeMap<String, Option<Arc<T>>>);

impl<T> Named<T> {
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Those without an error.
    fn sound(self) -> BTreeMap<String, Arc<T>> {
        self.0.into_iter().filter_map(|(name, entry)| Some((name, entry?))).collect()
    }
}

impl<'a> Linker<'a> {
    pub(crate) fn new(
        found: &'a Surroundings,
        templates: &'a Templates,
        problems: &'a mut Problems,
    ) -> Self {
        let (used, too_long, wanted) = (HashSet::new(), Vec::new(), BTreeMap::new());
        Self { found, templates, problems, used, too_long, wanted }
    }

    /// The catalog, and by image what of it is to be fetched.
    pub(crate) fn link(mut self, file: File) -> (Catalog, BTreeMap<String, Vec<Wanted>>) {
        let places = Places::of(&file);
        let released = file.server.release.unwrap_or_default();
        let omni = by_name(file.omni, |name, omni| self.omni(name, omni));
        let images = by_name(file.images, |name, image| self.image(name, image));
        let trials: Vec<templates::Trial> = file
            .profiles
            .iter()
            .map(|(name, profile)| {
                let script = profile.script.as_ref().map_or(name.place, |script| script.place);
                templates::Trial { name: name.clone(), script }
            })
            .collect();
        let profiles =
            by_name(file.profiles, |name, profile| self.profile(name, profile, &images, &omni));
        let has_groups = !file.groups.is_empty();
        let mut catalog = Catalog::default();
        catalog.unknown = self.unknown(file.unknown, &profiles);
        catalog.menu = self.menu(file.menu, &profiles);
        catalog.omni = omni.sound();
        catalog.images = images.sound();
        catalog.nbps = self.found.nbps.clone();
        catalog.groups = self.groups(file.groups, &profiles);
        let mut taken = HashMap::with_capacity(file.machines.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(file.machines.len());
        for (name, machine) in file.machines {
            let machine = self.machine(&name, machine, (&profiles, has_groups), &mut taken);
            if let Some(machine) = machine {
                let machine = Arc::new(machine);
                catalog.add(Arc::clone(&machine));
                entries.push((machine, name.place));
            }
        }
        catalog.profiles = profiles.sound();
        for templates::Trial { name, .. } in &trials {
            if !self.used.contains(&name.value) {
                let message =
                    "no machine, no group, not `unknown` and not `menu` names this profile";
                self.problems.warning(&name.key, name.place, message);
            }
        }
        let kin = combinations::kin(&entries, &catalog);
        let boots = combinations::boots(&kin, &catalog);
        self.kernel_lines().report(&boots, &trials);
        let from = (self.found, self.templates);
        templates::at_scripts(&trials, &boots, &catalog, from, self.problems);
        wipes::check(&boots, (&catalog, self.templates), &places, self.problems);
        release::check(&boots, (&catalog, released), &places, self.problems);
        (catalog, self.wanted)
    }

    pub(crate) fn kernel_lines(&mut self) -> KernelLines<'_> {
        let Self { found, problems, too_long, .. } = self;
        KernelLines { shelf: &found.shelf, problems, too_long }
    }

    pub(crate) fn profile_named(
        &mut self,
        at: &Located<String>,
        profiles: &Named<Profile>,
    ) -> Option<Arc<Profile>> {
        let meant = match profiles.has(&at.value) {
            true => Some(at.value.as_str()),
            false => nearest(&at.value, profiles.names()),
        };
        if let Some(meant) = meant.filter(|meant| !self.used.contains(*meant)) {
            self.used.insert(meant.to_owned());
        }
        self.named("profile", at, profiles)
    }

    pub(crate) fn named<T>(
        &mut self,
        what: &str,
        at: &Located<String>,
        all: &Named<T>,
    ) -> Option<Arc<T>> {
        let found = all.0.get(&at.value);
        if found.is_none() {
            let message = no_such(what, &at.value, all.names());
            self.problems.error(&at.key, at.place, message);
        }
        found.cloned().flatten()
    }
}

fn by_name<F, T>(
    entries: Vec<(Located<String>, F)>,
    mut link: impl FnMut(&Located<String>, F) -> Option<T>,
) -> Named<T> {
    let linked = entries.into_iter().map(|(name, entry)| {
        let linked = link(&name, entry).filter(|_| is_name(&name.value));
        (name.value, linked.map(Arc::new))
    });
    Named(linked.collect())
}
