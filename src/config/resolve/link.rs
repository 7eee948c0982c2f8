//! From names to the things that they name: the catalog of one snapshot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::look::{self, place_of, quote_of};
use super::{Surroundings, within};
use crate::boot::catalog::{
    Catalog, Files, Group, Image, Machine, Menu, Profile, Unknown, swapped,
};
use crate::boot::cmdline::{self, CmdlineError};
use crate::boot::names::nearest;
use crate::boot::omni::Omni;
use crate::boot::pattern::Fit;
use crate::boot::select::Who;
use crate::boot::settings::{LocalBoot, Settings};
use crate::boot::templates::Templates;
use crate::boot::{Arch, Client, Mac, Stage};
use crate::config::fields::{Located, Problems, is_name, no_such};
use crate::config::file::{self, File, Part};
use crate::config::yaml::Place;

/// Templates that no profile boots by.
const OF_OURS: [&str; 3] = ["ask-facts", "autoexec", "refused"];

/// What `unknown` and `menu.default` mean by these words is no profile.
const RESERVED: [&str; 3] = ["menu", "local", "ignore"];

/// Looks names up, each kind of thing in those that were linked before it.
pub(super) struct Linker<'a> {
    pub(super) found: &'a Surroundings,
    templates: &'a Templates,
    pub(super) problems: &'a mut Problems,
    /// The profiles that something names, also those that are likely to be meant by a misspelt name.
    used: HashSet<String>,
    /// The profiles whose own kernel line is too long: nothing more is said of it for their machines.
    too_long: HashSet<String>,
}

/// What there is of a kind, by name; none where it has an error, so that who names it is not at fault.
struct Named<T>(BTreeMap<String, Option<Arc<T>>>);

impl<T> Named<T> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Those without an error.
    fn sound(self) -> BTreeMap<String, Arc<T>> {
        self.0.into_iter().filter_map(|(name, entry)| Some((name, entry?))).collect()
    }
}

impl<'a> Linker<'a> {
    pub(super) fn new(
        found: &'a Surroundings,
        templates: &'a Templates,
        problems: &'a mut Problems,
    ) -> Self {
        Self { found, templates, problems, used: HashSet::new(), too_long: HashSet::new() }
    }

    pub(super) fn link(mut self, file: File) -> Catalog {
        let omni = by_name(file.omni, |name, omni| self.omni(name, omni));
        let images = by_name(file.images, |name, image| self.image(name, image));
        let trials: Vec<look::Trial> = file
            .profiles
            .iter()
            .map(|(name, profile)| {
                let script = profile.script.as_ref().map_or(name.place, |script| script.place);
                look::Trial { name: name.clone(), script }
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
        for (name, machine) in file.machines {
            let machine = self.machine(&name, machine, (&profiles, has_groups), &mut taken);
            if let Some(machine) = machine {
                let machine = Arc::new(machine);
                self.tells_of_a_line_by_group(&name, &machine, &catalog);
                catalog.add(machine);
            }
        }
        catalog.profiles = profiles.sound();
        for look::Trial { name, .. } in &trials {
            if !self.used.contains(&name.value) {
                let message =
                    "no machine, no group, not `unknown` and not `menu` names this profile";
                self.problems.warning(&name.key, name.place, message);
            }
        }
        look::at_scripts(&trials, &catalog, (self.found, self.templates), self.problems);
        catalog
    }

    fn image(&mut self, name: &Located<String>, image: file::Image) -> Option<Image> {
        let mut elsewhere = None;
        let mut missing = None;
        let mut paths = Vec::new();
        for part in image.kernel.iter().chain(&image.initrds) {
            match part {
                Part::File(at) => {
                    let path = within(&self.found.base, &at.value);
                    if let Some(reason) = self.found.unreadable.get(&path) {
                        let message = format!(
                            "{}: {reason}; boots of image {} are refused until it is there",
                            path.display(),
                            name.value
                        );
                        self.problems.warning(&at.key, at.place, message);
                        let (image, path) = (&name.value, path.display());
                        missing.get_or_insert(format!("image {image} has no {path}: {reason}"));
                    }
                    paths.push(path);
                }
                Part::Url(at) => elsewhere = elsewhere.or(Some(at)),
            }
        }
        let why = if let Some(at) = elsewhere {
            let why = format!(
                "this version of reveille does not fetch `{}` itself yet; download it and name the file",
                at.value
            );
            Some((at, why))
        } else if image.is_made {
            let why = "this version of reveille does not make Talos images itself yet; name their files with `kernel` and `initrd`";
            Some((name, why.to_owned()))
        } else {
            None
        };
        let files = match why {
            Some((at, why)) => {
                let refused = format!("{why}; boots of image {} are refused", name.value);
                self.problems.fault(&at.key, at.place, refused).spoils = vec![name.key.clone()];
                Err(format!("image {}: {why}", name.value))
            }
            None => {
                let mut paths = paths.into_iter();
                Ok(Files { kernel: paths.next()?, initrds: paths.collect() })
            }
        };
        let name = name.value.clone();
        Some(Image { name, files, missing, cmdline: image.cmdline, talos: image.talos })
    }

    fn profile(
        &mut self,
        name: &Located<String>,
        profile: file::Profile,
        images: &Named<Image>,
        omni: &Named<Omni>,
    ) -> Option<Profile> {
        let script = profile.script?;
        if OF_OURS.contains(&script.value.as_str()) {
            let message = format!(
                "`{}` boots nothing: reveille runs it by itself where it is needed; name talos, linux, menu or another of those that boot something, or a template of your own",
                script.value
            );
            self.problems.error(&script.key, script.place, message);
        } else if !self.templates.knows(&script.value) {
            let names = self.templates.names();
            let names = names.iter().map(String::as_str).filter(|name| !OF_OURS.contains(name));
            let known = no_such("boot script", &script.value, names);
            let message = format!("boots of profile {} are refused: {known}", name.value);
            self.problems.fault(&script.key, script.place, message);
        }
        let image = profile.image.as_ref().and_then(|at| self.named("image", at, images));
        if RESERVED.contains(&name.value.as_str()) {
            let message = format!(
                "`{}` is a word of `unknown` and `menu`: no profile can have it for a name",
                name.value
            );
            self.problems.error(&name.key, name.place, message);
        }
        let without_image = profile.lacks_image;
        let profile = Profile {
            name: name.value.clone(),
            script: script.value,
            image,
            omni: profile.omni.as_ref().and_then(|at| self.named("Omni instance", at, omni)),
            settings: self.settings(profile.said),
        };
        if without_image && profile.needs_image() {
            let message = format!("script `{}` needs an `image`", profile.script);
            self.problems.error(&name.key, name.place, message);
        }
        if self.tells_of_kernel_line(name, &profile, &Who::default()) {
            self.too_long.insert(name.value.clone());
        }
        Some(profile)
    }

    fn settings(&mut self, said: file::Said) -> Settings {
        let nbp = self.nbps(said.nbps);
        let files = said.files.into_iter().map(|(name, at)| (name, self.answer(&at))).collect();
        Settings { nbp, files, ..said.settings }
    }

    /// The path of an answer file, after a look whether it can be used.
    fn answer(&mut self, at: &Located<String>) -> PathBuf {
        let path = within(&self.found.base, &at.value);
        if let Some(Err(mistake)) = self.templates.answers().get(&path) {
            let message = format!("{mistake}; it is not served until that is mended");
            if mistake.line.is_some() {
                let source = self.found.answers.get(&path).and_then(|source| source.as_ref().ok());
                let source = source.map(String::as_str);
                let (place, quote) = (place_of(mistake), quote_of(mistake, source));
                let message = format!("{}; it is not served until that is mended", mistake.message);
                self.problems.fault_elsewhere(&at.key, (path.clone(), place, quote), &message);
            } else {
                self.problems.fault(&at.key, at.place, message);
            }
        }
        path
    }

    fn groups(&mut self, groups: Vec<file::Group>, profiles: &Named<Profile>) -> Vec<Arc<Group>> {
        let mut linked: Vec<Arc<Group>> = Vec::new();
        for file::Group { name, pattern, profile, said } in groups {
            let profile = profile.and_then(|at| self.profile_named(&at, profiles));
            let settings = self.settings(said);
            let (Some(name), Some(pattern)) = (name, pattern) else {
                continue;
            };
            if linked.iter().any(|other| other.name == name.value) {
                let message = format!("there is a group `{}` already", name.value);
                self.problems.error(&name.key, name.place, message);
            }
            if let Some(first) = linked.iter().find(|other| other.pattern == pattern) {
                let message = format!(
                    "it asks for the same as group {}, which comes before it: nobody is ever in it",
                    first.name
                );
                self.problems.warning(&name.key, name.place, message);
            }
            let Some(profile) = profile else {
                continue;
            };
            if pattern.needs_smbios() {
                let acting = at_dhcp(&settings, &profile.settings);
                if !acting.is_empty() {
                    let message = format!(
                        "{} of this group, or of its profile, never acts: DHCP does not tell the vendor, product or serial number that it asks for; match by mac, arch, firmware or subnet, or give these machines entries of their own",
                        acting.join(", ")
                    );
                    self.problems.warning(&name.key, name.place, message);
                }
            }
            let has_arguments = !settings.cmdline.is_empty();
            let group = Group {
                name: name.value.clone(),
                pattern,
                profile: Arc::clone(&profile),
                settings,
            };
            let group = Arc::new(group);
            if has_arguments {
                let who = Who { machine: None, group: Some(Arc::clone(&group)) };
                self.tells_of_kernel_line(&name, &profile, &who);
            }
            linked.push(group);
        }
        linked
    }

    fn machine(
        &mut self,
        name: &Located<String>,
        machine: file::Machine,
        (profiles, has_groups): (&Named<Profile>, bool),
        taken: &mut HashMap<Identity, (Arc<str>, u32)>,
    ) -> Option<Machine> {
        let own: Arc<str> = name.value.as_str().into();
        for (identity, key, place) in identities(&machine) {
            match taken.entry(identity) {
                Entry::Occupied(first) if first.get().0 != own => {
                    let (other, line) = first.get();
                    let identity = first.key();
                    let message =
                        format!("machine {other} has this {identity} already, on line {line}");
                    self.problems.error(key, place, message);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert((Arc::clone(&own), place.line));
                }
            }
        }
        if machine.lacks_profile && !has_groups {
            let message = "`profile` is missing, and there are no `groups` that it could be in";
            self.problems.error(&name.key, name.place, message);
        }
        let profile = match &machine.profile {
            Some(at) => Some(self.profile_named(at, profiles)?),
            None => None,
        };
        let machine = Machine {
            name: name.value.clone(),
            macs: machine.macs.into_iter().map(|at| at.value).collect(),
            uuid: machine.uuid.map(|at| at.value),
            serial: machine.serial.map(|at| at.value.trim().to_owned()),
            profile,
            network: machine.network,
            settings: self.settings(machine.said),
        };
        let has_arguments = !machine.settings.cmdline.is_empty() || machine.network.ip.is_some();
        if let Some(profile) = machine.profile.clone().filter(|_| has_arguments) {
            let who = Who { machine: Some(Arc::new(machine)), group: None };
            self.tells_of_kernel_line(name, &profile, &who);
            return who.machine.and_then(Arc::into_inner);
        }
        Some(machine)
    }

    /// The NBPs that are named, after a look whether each is there and for whom.
    fn nbps(&mut self, named: Vec<(Arch, Located<String>)>) -> BTreeMap<Arch, String> {
        for (arch, at) in &named {
            match self.found.nbps.named(&at.value) {
                Some(nbp) if nbp.arch == *arch => {}
                Some(nbp) => {
                    let message = format!("`{}` is for {}, not for {arch}", at.value, nbp.arch);
                    self.problems.error(&at.key, at.place, message);
                }
                None => {
                    let names: Vec<&str> =
                        self.found.nbps.iter().map(|n| n.name.as_str()).collect();
                    let known = no_such("NBP", &at.value, names.into_iter());
                    let message = format!("boots that need it are refused: {known}");
                    self.problems.warning(&at.key, at.place, message);
                }
            }
        }
        named.into_iter().map(|(arch, at)| (arch, at.value)).collect()
    }

    /// Tells of a kernel line that is too long to be served. What else can be wrong with one has been told
    /// where it stands.
    fn tells_of_kernel_line(
        &mut self,
        name: &Located<String>,
        profile: &Profile,
        who: &Who,
    ) -> bool {
        let Some(image) = &profile.image else {
            return false;
        };
        match cmdline::kernel_line(profile, image, who) {
            Err(error @ CmdlineError::TooLong { .. }) if !self.too_long.contains(&profile.name) => {
                let message = format!("{error}; its boots are refused until that is mended");
                self.problems.fault(&name.key, name.place, message);
                true
            }
            Err(
                CmdlineError::TooLong { .. }
                | CmdlineError::Argument { .. }
                | CmdlineError::Omni(_),
            )
            | Ok(_) => false,
        }
    }

    /// Warns of a kernel line that is too long if a machine should be in a group, which its entry does not
    /// tell.
    fn doubts_a_kernel_line(&mut self, name: &Located<String>, group: &Group, who: &Who) -> bool {
        let Some(image) = &group.profile.image else {
            return false;
        };
        let line = cmdline::kernel_line(&group.profile, image, who);
        let is_told = self.too_long.contains(&group.profile.name);
        if let (Err(error @ CmdlineError::TooLong { .. }), false) = (line, is_told) {
            let message =
                format!("should it be in group {}, its boots are refused: {error}", group.name);
            self.problems.warning(&name.key, name.place, message);
            return true;
        }
        false
    }

    /// The same, of a machine that names no profile: of each that a group which it may be in, `unknown` or
    /// the menu may give it.
    fn tells_of_a_line_by_group(
        &mut self,
        name: &Located<String>,
        machine: &Arc<Machine>,
        catalog: &Catalog,
    ) {
        let has_arguments = !machine.settings.cmdline.is_empty() || machine.network.ip.is_some();
        if machine.profile.is_some() || !has_arguments {
            return;
        }
        let client = Client {
            mac: machine.macs.first().copied(),
            uuid: machine.uuid,
            ..Client::at(Stage::Ipxe)
        };
        let who = |group: Option<&Arc<Group>>| Who {
            machine: Some(Arc::clone(machine)),
            group: group.cloned(),
        };
        for group in &catalog.groups {
            let fits = group.pattern.may_fit(&client);
            if fits == Fit::No {
                continue;
            }
            let is_sure = fits == Fit::Yes;
            let told = match is_sure {
                true => self.tells_of_kernel_line(name, &group.profile, &who(Some(group))),
                false => self.doubts_a_kernel_line(name, group, &who(Some(group))),
            };
            if told || is_sure {
                return;
            }
        }
        let others: &[Arc<Profile>] = match &catalog.unknown {
            Unknown::Profile(profile) => std::slice::from_ref(profile),
            Unknown::Menu => &catalog.menu.profiles,
            Unknown::Local | Unknown::Ignore => &[],
        };
        for profile in others {
            if self.tells_of_kernel_line(name, profile, &who(None)) {
                return;
            }
        }
    }

    fn unknown(&mut self, at: Option<Located<String>>, profiles: &Named<Profile>) -> Unknown {
        let Some(at) = at else {
            return Unknown::default();
        };
        match at.value.as_str() {
            "menu" => Unknown::Menu,
            "local" => Unknown::Local,
            "ignore" => Unknown::Ignore,
            name if profiles.has(name) => {
                self.profile_named(&at, profiles).map(Unknown::Profile).unwrap_or_default()
            }
            name => {
                let known = || profiles.names().chain(RESERVED);
                self.used.extend(nearest(name, known()).map(str::to_owned));
                self.problems.error(&at.key, at.place, no_such("profile", name, known()));
                Unknown::default()
            }
        }
    }

    fn menu(&mut self, menu: file::Menu, profiles: &Named<Profile>) -> Menu {
        let offers = |name: &str| {
            menu.profiles.as_ref().is_none_or(|offered| offered.iter().any(|at| at.value == name))
        };
        let default = menu.default.filter(|at| at.value != "local").and_then(|at| {
            if profiles.has(&at.value) && !offers(&at.value) {
                let message = format!("`menu.profiles` does not offer `{}`", at.value);
                self.problems.error(&at.key, at.place, message);
            }
            if !profiles.has(&at.value) && nearest(&at.value, ["local"].into_iter()).is_some() {
                let known = no_such("profile", &at.value, profiles.names().chain(["local"]));
                self.problems.error(&at.key, at.place, known);
                return None;
            }
            self.profile_named(&at, profiles)
        });
        let offered: Vec<Arc<Profile>> = match &menu.profiles {
            Some(names) => names.iter().filter_map(|at| self.profile_named(at, profiles)).collect(),
            None => {
                self.used.extend(profiles.names().map(str::to_owned));
                profiles.0.values().flatten().cloned().collect()
            }
        };
        Menu {
            default,
            timeout: menu.timeout.unwrap_or(Menu::default().timeout),
            profiles: offered,
        }
    }

    fn profile_named(
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

    fn named<T>(&mut self, what: &str, at: &Located<String>, all: &Named<T>) -> Option<Arc<T>> {
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

/// The settings among these that say how DHCP answers.
fn at_dhcp(group: &Settings, profile: &Settings) -> Vec<&'static str> {
    let says = |is_said: fn(&Settings) -> bool| is_said(group) || is_said(profile);
    [
        ("`nbp`", says(|said| !said.nbp.is_empty())),
        ("`option_43`", says(|said| said.option_43.is_some())),
        ("`answer_request_67`", says(|said| said.answer_request_67.is_some())),
        ("`replace_ipxe`", says(|said| said.replace_ipxe.is_some())),
        ("`local_boot: silent`", says(|said| said.local_boot == Some(LocalBoot::Silent))),
    ]
    .into_iter()
    .filter_map(|(name, is_said)| is_said.then_some(name))
    .collect()
}

/// What tells a machine from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Mac(Mac),
    Uuid(uuid::Uuid),
    Serial(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mac(_) => "MAC address",
            Self::Uuid(_) => "UUID",
            Self::Serial(_) => "serial number",
        })
    }
}

fn identities(machine: &file::Machine) -> Vec<(Identity, &str, Place)> {
    let macs = machine.macs.iter().map(|at| (Identity::Mac(at.value), at.key.as_str(), at.place));
    // In either byte order it is the same machine.
    let uuid = machine.uuid.iter().map(|at| {
        let either = at.value.min(swapped(at.value));
        (Identity::Uuid(either), at.key.as_str(), at.place)
    });
    let serial = machine
        .serial
        .iter()
        .map(|at| (Identity::Serial(at.value.trim().to_lowercase()), at.key.as_str(), at.place));
    macs.chain(uuid).chain(serial).collect()
}
