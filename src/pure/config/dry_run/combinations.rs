//! Who may boot what: every machine, group and profile that can come together, of machines that are alike
//! all at once.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::pure::boot::decide::Kind;
use crate::pure::catalog::pattern::Fit;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::Var;
use crate::pure::catalog::{Catalog, Group, Machine, Network, Profile, Unknown};
use crate::pure::client::{Client, Stage};
use crate::pure::config::yaml::Place;

/// A machine, and where its entry stands.
pub(crate) type Entry = (Arc<Machine>, Place);

/// Machines that boot by the same entries and say the same kinds of things: what a template makes of one of
/// them, it makes of all.
#[derive(Debug)]
pub(crate) struct Kin<'a> {
    /// In the order of the file.
    pub(crate) entries: Vec<&'a Entry>,
    /// That whose kernel line is the longest, as far as its own words tell.
    pub(crate) longest: &'a Arc<Machine>,
    /// What that one adds to any kernel line, at most.
    pub(crate) most_bytes: usize,
    /// Their own answer files by name and path, each with those that have it.
    pub(crate) files: BTreeMap<&'a str, BTreeMap<&'a PathBuf, Vec<&'a Arc<Machine>>>>,
}

/// How it comes that somebody boots something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sure {
    /// The config says so.
    Yes,
    /// Should the machine be in that group, which its entry does not tell.
    InGroup,
    /// Should somebody choose it from the menu.
    FromMenu,
}

/// A profile with who may boot it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot<'a> {
    pub(crate) profile: &'a Arc<Profile>,
    pub(crate) group: Option<&'a Arc<Group>>,
    /// None: machines that have no entry.
    pub(crate) kin: Option<&'a Kin<'a>>,
    pub(crate) sure: Sure,
}

impl Boot<'_> {
    /// As this machine of its kin boots it, or one without an entry.
    pub(crate) fn who(&self, machine: Option<&Arc<Machine>>) -> Who {
        Who { machine: machine.cloned(), group: self.group.cloned() }
    }
}

/// What of the config is broken where these boots are, of some only these machines': each machine, each
/// group for those without an entry, each profile for all others. So what is half mended breaks nothing new.
pub(crate) fn spoilt<'a>(
    boots: impl Iterator<Item = (&'a Boot<'a>, Option<&'a [&'a str]>)>,
) -> Vec<String> {
    let mut spoilt = BTreeSet::new();
    for (boot, machines) in boots {
        match (boot.kin, machines, boot.group) {
            (_, Some(names), _) => spoilt.extend(names.iter().map(|name| of_machine(name))),
            (Some(kin), None, _) => {
                spoilt.extend(kin.entries.iter().map(|(machine, _)| of_machine(&machine.name)));
            }
            (None, None, Some(group)) => {
                spoilt.insert(format!("groups.{}", group.name));
            }
            (None, None, None) => {
                spoilt.insert(format!("profiles.{}.script", boot.profile.name));
            }
        }
    }
    spoilt.into_iter().collect()
}

/// The key of a machine's entry.
pub(crate) fn of_machine(name: &str) -> String {
    format!("machines.{name}")
}

/// How many bytes a machine adds to any kernel line, at most. It may well add less, or take some away, where
/// its arguments come in place of others.
pub(crate) fn most_bytes(machine: &Machine) -> usize {
    let said = &machine.settings;
    let arguments: usize = said.cmdline.iter().map(|argument| argument.len() + 1).sum();
    // `ip=` has five addresses at most, and what separates them.
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let network = &machine.network;
    let ip = network.ip.map_or(0, |_| 100 + text(&network.hostname) + text(&network.nic));
    // In base64, where each label has blanks and quotes around it.
    let labels: usize = said.labels.iter().map(|(name, label)| name.len() + label.len() + 12).sum();
    let labels = if labels == 0 { 0 } else { 120 + labels * 4 / 3 };
    let halts = if said.halt_if_installed.is_some() { 30 } else { 0 };
    arguments + ip + labels + halts
}

/// What decides which profiles a machine may boot.
#[derive(PartialEq, Eq, Hash)]
enum Root<'a> {
    Profile(&'a str),
    Groups(Vec<(usize, bool)>),
}

/// What of a machine a template may trip over.
#[derive(PartialEq, Eq, Hash)]
struct Shape<'a> {
    root: Root<'a>,
    vars: Vec<(&'a str, Form<'a>)>,
    files: Vec<&'a str>,
    network: [bool; 5],
}

/// A variable without what differs from machine to machine.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form<'a> {
    Flag(bool),
    Number,
    /// The characters that could be too much for a script, of which there may be none.
    Text {
        is_empty: bool,
        odd: BTreeSet<char>,
    },
    List(BTreeSet<Form<'a>>),
    Map(Vec<(&'a str, Form<'a>)>),
}

impl<'a> Form<'a> {
    fn of(var: &'a Var) -> Self {
        match var {
            Var::Flag(flag) => Self::Flag(*flag),
            Var::Number(_) => Self::Number,
            Var::Text(text) => Self::Text {
                is_empty: text.is_empty(),
                odd: text.chars().filter(|c| !c.is_ascii_alphanumeric()).collect(),
            },
            Var::List(list) => Self::List(list.iter().map(Self::of).collect()),
            Var::Map(map) => {
                Self::Map(map.iter().map(|(k, v)| (k.as_str(), Self::of(v))).collect())
            }
        }
    }
}

/// Puts machines together that are alike.
pub(crate) fn kin<'a>(entries: &'a [Entry], catalog: &Catalog) -> Vec<(Kin<'a>, Vec<usize>)> {
    let mut places: HashMap<Shape<'a>, usize> = HashMap::new();
    let mut all: Vec<(Kin<'a>, Vec<usize>)> = Vec::new();
    for entry in entries {
        let (machine, _) = entry;
        let root = match &machine.profile {
            Some(profile) => Root::Profile(&profile.name),
            None => Root::Groups(groups_of(machine, catalog)),
        };
        let groups = match &root {
            Root::Profile(_) => Vec::new(),
            Root::Groups(groups) => groups.iter().map(|(at, _)| *at).collect(),
        };
        let Network { ip, gateway, nic, hostname, dns } = &machine.network;
        let said = &machine.settings;
        let shape = Shape {
            root,
            vars: said.vars.iter().map(|(name, var)| (name.as_str(), Form::of(var))).collect(),
            files: said.files.keys().map(String::as_str).collect(),
            network: [
                ip.is_some(),
                gateway.is_some(),
                nic.is_some(),
                hostname.is_some(),
                !dns.is_empty(),
            ],
        };
        let bytes = most_bytes(machine);
        let at = *places.entry(shape).or_insert_with(|| {
            let kin = Kin {
                entries: Vec::new(),
                longest: machine,
                most_bytes: bytes,
                files: BTreeMap::new(),
            };
            all.push((kin, groups));
            all.len() - 1
        });
        let kin = &mut all[at].0;
        kin.entries.push(entry);
        if bytes > kin.most_bytes {
            (kin.longest, kin.most_bytes) = (machine, bytes);
        }
        for (name, path) in &said.files {
            kin.files.entry(name).or_default().entry(path).or_default().push(machine);
        }
    }
    all
}

/// The groups that a machine may be in, by their places, and whether it surely is in the last of them.
fn groups_of(machine: &Machine, catalog: &Catalog) -> Vec<(usize, bool)> {
    let mut groups = Vec::new();
    for (at, group) in catalog.groups.iter().enumerate() {
        match may_fit(machine, group) {
            Fit::No => {}
            Fit::Open => groups.push((at, false)),
            Fit::Yes => {
                groups.push((at, true));
                break;
            }
        }
    }
    groups
}

/// It may boot from each of its network cards.
fn may_fit(machine: &Machine, group: &Group) -> Fit {
    let client = |mac| Client { mac, uuid: machine.uuid, ..Client::at(Stage::Ipxe) };
    let mut fits = machine.macs.iter().map(|mac| group.pattern.may_fit(&client(Some(*mac))));
    let Some(first) = fits.next() else {
        return group.pattern.may_fit(&client(None));
    };
    if fits.all(|fit| fit == first) { first } else { Fit::Open }
}

/// All that may be booted, and by whom.
pub(crate) fn boots<'a>(kin: &'a [(Kin<'a>, Vec<usize>)], catalog: &'a Catalog) -> Vec<Boot<'a>> {
    let mut boots = Vec::new();
    for (kin, groups) in kin {
        let Some((machine, _)) = kin.entries.first() else {
            continue;
        };
        if let Some(profile) = &machine.profile {
            push(
                &mut boots,
                catalog,
                Boot { profile, group: None, kin: Some(kin), sure: Sure::Yes },
            );
            continue;
        }
        let mut is_in_one = false;
        for at in groups {
            let group = &catalog.groups[*at];
            is_in_one = may_fit(machine, group) == Fit::Yes;
            let sure = if is_in_one { Sure::Yes } else { Sure::InGroup };
            let profile = &group.profile;
            push(&mut boots, catalog, Boot { profile, group: Some(group), kin: Some(kin), sure });
        }
        if !is_in_one {
            of_unknown(&mut boots, catalog, Some(kin));
        }
    }
    for group in &catalog.groups {
        let (profile, group) = (&group.profile, Some(group));
        push(&mut boots, catalog, Boot { profile, group, kin: None, sure: Sure::Yes });
    }
    of_unknown(&mut boots, catalog, None);
    let booted: BTreeSet<&str> = boots.iter().map(|boot| boot.profile.name.as_str()).collect();
    let nobodys = catalog.profiles.values().filter(|profile| !booted.contains(&*profile.name));
    let nobodys: Vec<_> =
        nobodys.map(|profile| Boot { profile, group: None, kin: None, sure: Sure::Yes }).collect();
    boots.extend(nobodys);
    boots
}

/// A profile, and where its script is the menu what may be chosen there.
fn push<'a>(boots: &mut Vec<Boot<'a>>, catalog: &'a Catalog, boot: Boot<'a>) {
    let Boot { profile, group, kin, .. } = boot;
    if matches!(Kind::of(profile, &boot.who(None)), Kind::Menu(_)) {
        of_menu(boots, catalog, (group, kin));
    }
    boots.push(boot);
}

fn of_menu<'a>(
    boots: &mut Vec<Boot<'a>>,
    catalog: &'a Catalog,
    (group, kin): (Option<&'a Arc<Group>>, Option<&'a Kin<'a>>),
) {
    let chosen = catalog.menu.profiles.iter();
    boots.extend(chosen.map(|profile| Boot { profile, group, kin, sure: Sure::FromMenu }));
}

fn of_unknown<'a>(boots: &mut Vec<Boot<'a>>, catalog: &'a Catalog, kin: Option<&'a Kin<'a>>) {
    match &catalog.unknown {
        Unknown::Profile(profile) => {
            push(boots, catalog, Boot { profile, group: None, kin, sure: Sure::Yes });
        }
        Unknown::Menu => of_menu(boots, catalog, (None, kin)),
        Unknown::Local | Unknown::Ignore => {}
    }
}
