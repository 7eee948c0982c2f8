//! From names to the things that they name: the catalog of one snapshot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Surroundings, within};
use crate::boot::catalog::{Catalog, Image, Machine, Menu, Profile, Settings, Unknown};
use crate::boot::cmdline;
use crate::boot::omni::Omni;
use crate::boot::script::Templates;
use crate::boot::{Arch, Mac};
use crate::config::fields::{Located, Problems, no_such};
use crate::config::file::{self, File};
use crate::config::yaml::Place;

/// What `unknown` and `menu.default` mean by these words is no profile.
const RESERVED: [&str; 3] = ["menu", "local", "ignore"];

/// Looks names up, each kind of thing in those that were linked before it.
pub(super) struct Linker<'a> {
    pub(super) found: &'a Surroundings,
    pub(super) templates: &'a Templates,
    pub(super) problems: &'a mut Problems,
}

impl Linker<'_> {
    pub(super) fn link(mut self, file: File) -> Catalog {
        let omni = by_name(file.omni, |name, omni| self.omni(name, omni));
        let images = by_name(file.images, |name, image| self.image(name, image));
        let profiles =
            by_name(file.profiles, |name, profile| self.profile(name, profile, &images, &omni));
        let mut catalog = Catalog::default();
        catalog.unknown = self.unknown(file.unknown, &profiles);
        catalog.menu = self.menu(file.menu, &profiles);
        catalog.images = images;
        catalog.nbps = self.found.nbps.clone();
        let mut taken = BTreeMap::new();
        for (name, machine) in file.machines {
            if let Some(machine) = self.machine(&name, machine, &profiles, &mut taken) {
                catalog.add(machine);
            }
        }
        catalog
    }

    fn image(&mut self, name: &Located<String>, image: file::Image) -> Option<Image> {
        for at in image.kernel.iter().chain(&image.initrds) {
            let path = within(&self.found.base, &at.value);
            if let Some(reason) = self.found.unreadable.get(&path) {
                let message = format!(
                    "{}: {reason}; boots of image {} are refused until it is there",
                    path.display(),
                    name.value
                );
                self.problems.warning(&at.key, at.place, message);
            }
        }
        let path = |at: Located<String>| within(&self.found.base, &at.value);
        Some(Image {
            name: name.value.clone(),
            kernel: path(image.kernel?),
            initrds: image.initrds.into_iter().map(path).collect(),
            cmdline: image.cmdline,
            talos: image.talos,
        })
    }

    fn profile(
        &mut self,
        name: &Located<String>,
        profile: file::Profile,
        images: &BTreeMap<String, Arc<Image>>,
        omni: &BTreeMap<String, Arc<Omni>>,
    ) -> Option<Profile> {
        let script = profile.script?;
        if !self.templates.knows(&script.value) {
            let names = self.templates.names();
            let known = no_such("boot script", &script.value, names.iter().map(String::as_str));
            let message = format!(
                "{known}; boots of profile {} are refused until it is there and the config is reloaded (SIGHUP)",
                name.value
            );
            self.problems.warning(&script.key, script.place, message);
        }
        let image = profile.image.as_ref().and_then(|at| self.named("image", at, images));
        if let Some(reason) = self.templates.broken().get(&script.value) {
            let message = format!("boots of profile {} are refused: {reason}", name.value);
            self.problems.warning(&script.key, script.place, message);
        }
        if RESERVED.contains(&name.value.as_str()) {
            let message = format!(
                "`{}` is a word of `unknown` and `menu`: no profile can have it for a name",
                name.value
            );
            self.problems.error(&name.key, name.place, message);
        }
        let without_image = profile.image.is_none();
        let profile = Profile {
            name: name.value.clone(),
            script: script.value,
            image,
            omni: profile.omni.as_ref().and_then(|at| self.named("omni", at, omni)),
            settings: Settings { nbp: self.nbps(profile.nbps), ..profile.settings },
        };
        if without_image && profile.needs_image() {
            let message = format!("script `{}` needs an `image`", profile.script);
            self.problems.error(&name.key, name.place, message);
        }
        self.try_kernel_line(name, &profile, None);
        Some(profile)
    }

    fn machine(
        &mut self,
        name: &Located<String>,
        machine: file::Machine,
        profiles: &BTreeMap<String, Arc<Profile>>,
        taken: &mut BTreeMap<Identity, String>,
    ) -> Option<Machine> {
        for (identity, key, place) in identities(&machine) {
            if let Some(other) = taken.get(&identity) {
                self.problems.error(
                    key,
                    place,
                    format!("machine {other} has this {identity} already"),
                );
            } else {
                taken.insert(identity, name.value.clone());
            }
        }
        let profile = self.named("profile", &machine.profile?, profiles)?;
        let machine = Machine {
            name: name.value.clone(),
            macs: machine.macs.into_iter().map(|at| at.value).collect(),
            uuid: machine.uuid.map(|at| at.value),
            serial: machine.serial.map(|at| at.value.trim().to_owned()),
            profile,
            settings: Settings { nbp: self.nbps(machine.nbps), ..machine.settings },
        };
        if !machine.settings.cmdline.is_empty() {
            self.try_kernel_line(name, &Arc::clone(&machine.profile), Some(&machine));
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
                    let message = format!(
                        "{known}; boots that need it are refused until it is there and the config is reloaded (SIGHUP)"
                    );
                    self.problems.warning(&at.key, at.place, message);
                }
            }
        }
        named.into_iter().map(|(arch, at)| (arch, at.value)).collect()
    }

    /// Says now what would be refused at the boot. A missing token has been told already.
    fn try_kernel_line(
        &mut self,
        name: &Located<String>,
        profile: &Profile,
        machine: Option<&Machine>,
    ) {
        let tokenless = profile.omni.as_ref().is_some_and(|omni| omni.join_token.is_err());
        let Some(image) = profile.image.as_ref().filter(|_| !tokenless) else {
            return;
        };
        if let Err(error) = cmdline::kernel_line(profile, image, machine) {
            let message = format!("{error}; its boots are refused until that is mended");
            self.problems.warning(&name.key, name.place, message);
        }
    }

    fn unknown(
        &mut self,
        at: Option<Located<String>>,
        profiles: &BTreeMap<String, Arc<Profile>>,
    ) -> Unknown {
        let Some(at) = at else {
            return Unknown::default();
        };
        match at.value.as_str() {
            "menu" => Unknown::Menu,
            "local" => Unknown::Local,
            "ignore" => Unknown::Ignore,
            name => {
                if let Some(profile) = profiles.get(name) {
                    return Unknown::Profile(Arc::clone(profile));
                }
                let known = profiles.keys().map(String::as_str).chain(RESERVED);
                self.problems.error(&at.key, at.place, no_such("profile", name, known));
                Unknown::default()
            }
        }
    }

    fn menu(&mut self, menu: file::Menu, profiles: &BTreeMap<String, Arc<Profile>>) -> Menu {
        let offered: Vec<Arc<Profile>> = match menu.profiles {
            Some(names) => {
                names.iter().filter_map(|at| self.named("profile", at, profiles)).collect()
            }
            None => profiles.values().cloned().collect(),
        };
        let default = menu.default.filter(|at| at.value != "local").and_then(|at| {
            let profile = self.named("profile", &at, profiles)?;
            if !offered.iter().any(|offered| offered.name == profile.name) {
                let message = format!("`menu.profiles` does not offer `{}`", profile.name);
                self.problems.error(&at.key, at.place, message);
            }
            Some(profile)
        });
        Menu {
            default,
            timeout: menu.timeout.unwrap_or(Menu::default().timeout),
            profiles: offered,
        }
    }

    fn named<T>(
        &mut self,
        what: &str,
        at: &Located<String>,
        all: &BTreeMap<String, Arc<T>>,
    ) -> Option<Arc<T>> {
        let found = all.get(&at.value).cloned();
        if found.is_none() {
            let message = no_such(what, &at.value, all.keys().map(String::as_str));
            self.problems.error(&at.key, at.place, message);
        }
        found
    }
}

fn by_name<F, T>(
    entries: Vec<(Located<String>, F)>,
    mut link: impl FnMut(&Located<String>, F) -> Option<T>,
) -> BTreeMap<String, Arc<T>> {
    entries
        .into_iter()
        .filter_map(|(name, entry)| Some((name.value.clone(), Arc::new(link(&name, entry)?))))
        .collect()
}

/// What tells a machine from others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    let uuid = machine.uuid.iter().map(|at| (Identity::Uuid(at.value), at.key.as_str(), at.place));
    let serial = machine
        .serial
        .iter()
        .map(|at| (Identity::Serial(at.value.trim().to_owned()), at.key.as_str(), at.place));
    macs.chain(uuid).chain(serial).collect()
}
