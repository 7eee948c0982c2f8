//! From names to the things that they name: the catalog of one snapshot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Surroundings, within};
use crate::boot::catalog::{
    Catalog, Files, Group, Image, Machine, Menu, Profile, Unknown, swapped,
};
use crate::boot::client::{Cpu, Facts};
use crate::boot::cmdline;
use crate::boot::decide::{Kind, Script};
use crate::boot::omni::Omni;
use crate::boot::script::{self, Refusal, Scene};
use crate::boot::select::Who;
use crate::boot::settings::Settings;
use crate::boot::templates::{Mistake, Templates};
use crate::boot::{Arch, Client, Mac, Stage};
use crate::config::fields::{Located, Problems, no_such};
use crate::config::file::{self, File, Part};
use crate::config::quote::Quote;
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
        let places: Vec<(Located<String>, Place)> = file
            .profiles
            .iter()
            .map(|(name, profile)| {
                let script = profile.script.as_ref().map_or(name.place, |script| script.place);
                (name.clone(), script)
            })
            .collect();
        let profiles =
            by_name(file.profiles, |name, profile| self.profile(name, profile, &images, &omni));
        let mut catalog = Catalog::default();
        catalog.unknown = self.unknown(file.unknown, &profiles);
        catalog.menu = self.menu(file.menu, &profiles);
        catalog.omni = omni;
        catalog.images = images;
        catalog.nbps = self.found.nbps.clone();
        catalog.groups = self.groups(file.groups, &profiles);
        let mut taken = HashMap::new();
        for (name, machine) in file.machines {
            let has_groups = !catalog.groups.is_empty();
            let machine = self.machine(&name, machine, (&profiles, has_groups), &mut taken);
            if let Some(machine) = machine {
                catalog.add(machine);
            }
        }
        catalog.profiles = profiles;
        for (name, place) in places {
            self.look_at_profile(&name, place, &catalog);
        }
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
        } else if image.kernel.is_none() {
            let why = "this version of reveille does not make Talos images itself yet; name their files with `kernel` and `initrd`";
            Some((name, why.to_owned()))
        } else {
            None
        };
        let files = match why {
            Some((at, why)) => {
                let refused = format!("{why}; boots of image {} are refused", name.value);
                self.problems.warning(&at.key, at.place, refused);
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
        images: &BTreeMap<String, Arc<Image>>,
        omni: &BTreeMap<String, Arc<Omni>>,
    ) -> Option<Profile> {
        let script = profile.script?;
        if !self.templates.knows(&script.value) {
            let names = self.templates.names();
            let known = no_such("boot script", &script.value, names.iter().map(String::as_str));
            let message =
                format!("{known}; boots of profile {} are refused until it is there", name.value);
            self.problems.warning(&script.key, script.place, message);
        }
        let image = profile.image.as_ref().and_then(|at| self.named("image", at, images));
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
            settings: self.settings(profile.said),
        };
        if without_image && profile.needs_image() {
            let message = format!("script `{}` needs an `image`", profile.script);
            self.problems.error(&name.key, name.place, message);
        }
        self.try_kernel_line(name, &profile, &Who::default());
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
                self.problems.warning_elsewhere(&at.key, (path.clone(), place, quote), &message);
            } else {
                self.problems.warning(&at.key, at.place, message);
            }
        }
        path
    }

    fn groups(
        &mut self,
        groups: Vec<file::Group>,
        profiles: &BTreeMap<String, Arc<Profile>>,
    ) -> Vec<Arc<Group>> {
        let mut linked: Vec<Arc<Group>> = Vec::new();
        for group in groups {
            if linked.iter().any(|other| other.name == group.name.value) {
                let message = format!("there is a group `{}` already", group.name.value);
                self.problems.error(&group.name.key, group.name.place, message);
            }
            if let Some(first) = linked.iter().find(|other| other.pattern == group.pattern) {
                let message = format!(
                    "it asks for the same as group {}, which comes before it: nobody is ever in it",
                    first.name
                );
                self.problems.warning(&group.name.key, group.name.place, message);
            }
            let profile = group.profile.and_then(|at| self.named("profile", &at, profiles));
            let settings = self.settings(group.said);
            let Some(profile) = profile else {
                continue;
            };
            let name = group.name.value.clone();
            let group_of = |profile: &Arc<Profile>| Group {
                name: name.clone(),
                pattern: group.pattern.clone(),
                profile: Arc::clone(profile),
                settings: settings.clone(),
            };
            let made = Arc::new(group_of(&profile));
            if !made.settings.cmdline.is_empty() {
                let who = Who { machine: None, group: Some(Arc::clone(&made)) };
                self.try_kernel_line(&group.name, &profile, &who);
            }
            linked.push(made);
        }
        linked
    }

    fn machine(
        &mut self,
        name: &Located<String>,
        machine: file::Machine,
        (profiles, has_groups): (&BTreeMap<String, Arc<Profile>>, bool),
        taken: &mut HashMap<Identity, String>,
    ) -> Option<Machine> {
        for (identity, key, place) in identities(&machine) {
            if let Some(other) = taken.get(&identity).filter(|other| **other != name.value) {
                let message = format!("machine {other} has this {identity} already");
                self.problems.error(key, place, message);
            } else {
                taken.insert(identity, name.value.clone());
            }
        }
        if machine.profile.is_none() && !has_groups {
            let message = "`profile` is missing, and there are no `groups` that it could be in";
            self.problems.error(&name.key, name.place, message);
        }
        let profile = match &machine.profile {
            Some(at) => Some(self.named("profile", at, profiles)?),
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
            self.try_kernel_line(name, &profile, &who);
            return who.machine.and_then(Arc::into_inner);
        }
        Some(machine)
    }

    /// Says now what would be refused at the boot by the template of a profile, and whether anybody boots it.
    fn look_at_profile(&mut self, name: &Located<String>, script: Place, catalog: &Catalog) {
        let Some(profile) = catalog.profiles.get(&name.value) else {
            return;
        };
        let is_it = |other: &Arc<Profile>| Arc::ptr_eq(other, profile);
        let is_used = catalog.machines().values().any(|m| m.profile.as_ref().is_some_and(is_it))
            || catalog.groups.iter().any(|group| is_it(&group.profile))
            || catalog.menu.profiles.iter().any(is_it)
            || matches!(&catalog.unknown, Unknown::Profile(unknown) if is_it(unknown));
        if !is_used {
            let message = "no machine, no group, not `unknown` and not `menu` names this profile";
            self.problems.warning(&name.key, name.place, message);
        }
        let Err(mistake) = try_script(self.templates, profile, catalog) else {
            return;
        };
        let key = format!("{}.script", name.key);
        let file = mistake.file.as_deref().and_then(|file| file.strip_suffix(".ipxe"));
        let source = file.and_then(|name| Some((name, self.found.templates.get(name)?)));
        match (source, mistake.line) {
            (Some((file, Ok(source))), Some(_)) => {
                let path = self.found.boot_scripts.join(format!("{file}.ipxe"));
                let at = (path, place_of(&mistake), quote_of(&mistake, Some(source)));
                let message =
                    format!("{}; boots of profile {} are refused", mistake.message, name.value);
                self.problems.warning_elsewhere(&key, at, &message);
            }
            (Some(_) | None, _) => {
                let message = format!("boots of profile {} are refused: {mistake}", name.value);
                self.problems.warning(&key, script, message);
            }
        }
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
                    let message =
                        format!("{known}; boots that need it are refused until it is there");
                    self.problems.warning(&at.key, at.place, message);
                }
            }
        }
        named.into_iter().map(|(arch, at)| (arch, at.value)).collect()
    }

    /// Says now what would be refused at the boot. A missing token has been told already.
    fn try_kernel_line(&mut self, name: &Located<String>, profile: &Profile, who: &Who) {
        let tokenless = profile.omni.as_ref().is_some_and(|omni| omni.join_token.is_err());
        let Some(image) = profile.image.as_ref().filter(|_| !tokenless) else {
            return;
        };
        if let Err(error) = cmdline::kernel_line(profile, image, who) {
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

/// Tells of a template that does not compile, at its own line where that is known.
pub(super) fn tell_template(
    problems: &mut Problems,
    (name, mistake): (&str, &Mistake),
    (folder, said): (&Path, Place),
    source: Option<&String>,
) {
    let until = format!("boots that need `{name}` are refused until that is mended");
    if mistake.line.is_some() {
        let path = folder.join(format!("{name}.ipxe"));
        let at = (path, place_of(mistake), quote_of(mistake, source.map(String::as_str)));
        problems.warning_elsewhere("", at, &format!("{}; {until}", mistake.message));
    } else {
        problems.warning("server.boot_scripts", said, format!("{mistake}; {until}"));
    }
}

/// Renders a profile's script for a machine that is none, to see whether it can be rendered at all.
fn try_script(
    templates: &Templates,
    profile: &Arc<Profile>,
    catalog: &Catalog,
) -> Result<(), Mistake> {
    // That is told already.
    if !templates.knows(&profile.script) || profile.needs_image() && profile.image.is_none() {
        return Ok(());
    }
    let mac = Mac::new([2, 0, 0, 0, 0, 0]);
    let some = || Some("x".to_owned());
    let client = Client {
        mac: Some(mac),
        arch: Some(Arch::Bios),
        uuid: Some(uuid::Uuid::max()),
        address: Some([192, 0, 2, 1].into()),
        facts: Some(Facts { serial: some(), product: some(), vendor: some(), cpu: Some(Cpu::X64) }),
        ..Client::at(Stage::Ipxe)
    };
    let scene = Scene { client: &client, mac, base: "http://192.0.2.2:8080" };
    // Some machine, or group, may say what the template needs.
    let is_it = |other: &Arc<Profile>| Arc::ptr_eq(other, profile);
    let machine = catalog
        .machines()
        .values()
        .find(|machine| machine.profile.as_ref().is_some_and(is_it))
        .cloned();
    let group = catalog.groups.iter().find(|group| is_it(&group.profile)).cloned();
    let who = Who { machine, group };
    let script = Script { kind: Kind::of(profile, &who), who };
    match script::render(templates, &script, catalog, scene) {
        Err(Refusal::Template(mistake)) => Err(mistake),
        // These have been told, each at its own place.
        Ok(_)
        | Err(
            Refusal::Image(_) | Refusal::Cmdline(_) | Refusal::NoTemplate(_) | Refusal::NoFile(_),
        ) => Ok(()),
    }
}

fn place_of(mistake: &Mistake) -> Place {
    Place {
        line: mistake.line.unwrap_or(1) as u64,
        column: mistake.columns.map_or(1, |(column, _)| column) as u64,
    }
}

fn quote_of(mistake: &Mistake, source: Option<&str>) -> Option<Quote> {
    let line = source?.lines().nth(mistake.line?.checked_sub(1)?)?;
    let (column, wide) = mistake.columns.unwrap_or((1, line.chars().count()));
    Some(Quote::marking(line, column - 1, wide))
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
