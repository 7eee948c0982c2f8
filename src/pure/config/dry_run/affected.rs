//! Who has a mistake, in a few words however many they are.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::combinations::{Boot, Sure};
use super::places::At;
use crate::pure::catalog::Profile;
use crate::pure::catalog::select::Who;
use crate::pure::config::yaml::Place;

/// A boot that has a mistake; of its kin perhaps only these machines.
pub(crate) struct Hit<'a> {
    pub(crate) boot: &'a Boot<'a>,
    pub(crate) machines: Option<Vec<&'a str>>,
}

/// What is reported once, with all boots that have it.
pub(crate) struct Finding<'a> {
    /// The first place in the file.
    pub(crate) at: At,
    pub(crate) profile: &'a Profile,
    pub(crate) hits: Vec<Hit<'a>>,
}

/// What is reported, by what is told apart.
pub(crate) type Findings<'a, Key> = BTreeMap<Key, Finding<'a>>;

/// Judges a boot for each machine of its kin, or for one without an entry, and enters what `flaw` finds.
pub(crate) fn judge<'a, Key: Ord>(
    findings: &mut Findings<'a, Key>,
    boot: &'a Boot<'a>,
    flaw: impl Fn(&Who, Option<(&'a str, Place)>) -> Option<(Key, At)>,
) {
    let mut enter = |who: &Who, machine: Option<(&'a str, Place)>| {
        let Some((key, at)) = flaw(who, machine) else {
            return;
        };
        let profile: &Profile = boot.profile;
        let finding = findings.entry(key).or_insert_with(|| Finding {
            at: at.clone(),
            profile,
            hits: Vec::new(),
        });
        if at.1 < finding.at.1 {
            finding.at = at;
        }
        match finding.hits.last_mut() {
            Some(Hit { boot: last, machines: Some(names) }) if std::ptr::eq(*last, boot) => {
                names.extend(machine.map(|(name, _)| name));
            }
            Some(_) | None => {
                let machines = machine.map(|(name, _)| vec![name]);
                finding.hits.push(Hit { boot, machines });
            }
        }
    };
    match boot.kin {
        None => enter(&boot.who(None), None),
        Some(kin) => {
            for (machine, place) in &kin.entries {
                enter(&boot.who(Some(machine)), Some((&machine.name, *place)));
            }
        }
    }
    // Machines that are alike and all have it need not be named one by one.
    for finding in findings.values_mut() {
        if let Some(Hit { boot: last, machines }) = finding.hits.last_mut()
            && std::ptr::eq(*last, boot)
            && machines.as_ref().map(Vec::len) == boot.kin.map(|kin| kin.entries.len())
        {
            *machines = None;
        }
    }
}

/// How many boots there are of each profile and of each group with it: those that are sure, and all.
#[derive(Default)]
pub(crate) struct Counts<'a>(BTreeMap<(&'a str, Option<&'a str>), [usize; 2]>);

impl<'a> Counts<'a> {
    pub(crate) fn of(boots: impl Iterator<Item = &'a Boot<'a>>) -> Self {
        let mut counts = Self::default();
        for boot in boots {
            let [sure, all] = counts.0.entry((&boot.profile.name, None)).or_default();
            *all += 1;
            *sure += usize::from(boot.sure == Sure::Yes);
            if let Some(group) = boot.group {
                let [sure, all] =
                    counts.0.entry((&boot.profile.name, Some(&group.name))).or_default();
                *all += 1;
                *sure += usize::from(boot.sure == Sure::Yes);
            }
        }
        counts
    }

    /// Whether these are all there are, of those that are sure where some are.
    pub(crate) fn are_all(&self, of: &Self, key: (&str, Option<&str>)) -> bool {
        match (self.0.get(&key), of.0.get(&key)) {
            (Some([sure, all]), Some([sure_of_all, all_of_all])) => match sure_of_all {
                0 => all == all_of_all,
                some => sure == some,
            },
            (Some(_) | None, _) => false,
        }
    }
}

/// Who has a mistake.
#[derive(Default)]
pub(crate) struct Whose<'a> {
    pub(crate) profiles: BTreeSet<&'a str>,
    pub(crate) groups: BTreeSet<&'a str>,
    pub(crate) machines: Vec<&'a str>,
    has_strangers: bool,
}

impl Whose<'_> {
    pub(crate) fn in_words(&self) -> String {
        let [profiles, groups] = [&self.profiles, &self.groups]
            .map(|names| names.iter().copied().collect::<Vec<&str>>());
        let strangers = self.has_strangers.then(|| "machines without an entry".to_owned());
        [
            named("profile", &profiles),
            named("group", &groups),
            named("machine", &self.machines),
            strangers,
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ")
    }
}

/// Who of these has it: a profile or a group where all of it has it, else each machine.
pub(crate) fn whose<'a>(hits: &[&Hit<'a>], counts: &Counts<'a>) -> Whose<'a> {
    let whole = hits.iter().filter(|hit| hit.machines.is_none()).map(|hit| hit.boot);
    let whole = Counts::of(whole);
    let mut whose = Whose::default();
    let mut told = HashSet::new();
    for Hit { boot, machines } in hits {
        let (profile, group) = (boot.profile.name.as_str(), boot.group.map(|g| g.name.as_str()));
        if whole.are_all(counts, (profile, None)) {
            whose.profiles.insert(profile);
        } else if let Some(group) = group.filter(|_| whole.are_all(counts, (profile, group))) {
            whose.groups.insert(group);
        } else if let Some(kin) = boot.kin {
            let names: Vec<&str> = match machines {
                Some(machines) => machines.clone(),
                None => kin.entries.iter().map(|(machine, _)| machine.name.as_str()).collect(),
            };
            whose.machines.extend(names.into_iter().filter(|name| told.insert(*name)));
        } else {
            whose.has_strangers = true;
        }
    }
    whose
}

/// `profiles a, b`, or `machines a, b, c and 997 more`.
pub(crate) fn named(what: &str, names: &[&str]) -> Option<String> {
    const MOST: usize = 5;
    let plural = if names.len() == 1 { "" } else { "s" };
    let listed = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        len if len <= MOST => Some(format!("{what}{plural} {listed}")),
        len => Some(format!("{what}{plural} {listed} and {} more", len - MOST)),
    }
}
