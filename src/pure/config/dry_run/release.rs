//! Secrets that the config gives to machines without an entry, and secrets that `release: armed` gives to none.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::affected::{Counts, Finding, Findings, Hit, judge, named, whose};
use super::combinations::{Boot, Sure, of_machine};
use super::places::{At, Places};
use crate::pure::catalog::release::{Secrets, needs_order, release, secrets};
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::{BootPolicy, Release};
use crate::pure::catalog::wipes::wipes;
use crate::pure::catalog::{Catalog, Profile};
use crate::pure::config::problem::Problems;

/// What there is to do about strangers who receive a secret.
const ARMED: &str = "`release: armed` and `boot: once`, by which such a machine receives it only after `reveille arm`";

/// Warns of each secret that `unknown`, a group or the menu gives to strangers, of machines that receive theirs only
/// after a confirmation, and of those that receive it at no boot without an order.
pub(crate) fn check<'a>(
    boots: &'a [Boot<'a>],
    (catalog, server): (&Catalog, Release),
    places: &Places,
    problems: &mut Problems,
) {
    let mut offered: Vec<(&Profile, String, Release)> = Vec::new();
    for boot in boots.iter().filter(|boot| boot.kin.is_none() && is_reached(boot, catalog)) {
        let who = boot.who(None);
        let Some((what, to)) = to_strangers(boot.profile, &who, server) else {
            continue;
        };
        let name = &boot.profile.name;
        match (boot.sure, boot.group) {
            (Sure::FromMenu, _) => {
                if !offered.iter().any(|(known, ..)| known.name == *name) {
                    offered.push((boot.profile, what, to));
                }
            }
            (Sure::Yes | Sure::InGroup, Some(group)) => {
                let whom = whom(to, &format!("machine of group {}", group.name));
                let message = format!(
                    "{whom} receives {what}; write {ARMED}, or give these machines entries with their `mac`"
                );
                if let Some(of) = places.groups.get(&group.name) {
                    problems.warning(&of.own.0, of.own.1, message);
                }
            }
            (Sure::Yes | Sure::InGroup, None) => {
                let whom = whom(to, "machine without an entry");
                let message = format!(
                    "{whom} receives {what}; write in profile {name} {ARMED}, or give the machines entries with their `mac` and take the profile out of `unknown`"
                );
                if let Some((key, place)) = &places.unknown {
                    problems.warning(key, *place, message);
                }
            }
        }
    }
    of_menu(&offered, places, problems);
    of_unconfirmed(boots, server, problems);
    of_no_first_boot(boots, (catalog, server), places, problems);
}

/// Whether a machine without an entry comes to this: a profile that nobody boots has a warning of its own.
fn is_reached(boot: &Boot<'_>, catalog: &Catalog) -> bool {
    use crate::pure::catalog::Unknown;
    let is_unknown = match &catalog.unknown {
        Unknown::Profile(profile) => profile.name == boot.profile.name,
        Unknown::Menu | Unknown::Local | Unknown::Ignore => false,
    };
    boot.group.is_some() || boot.sure == Sure::FromMenu || is_unknown
}

/// The secrets of a profile in words, and to whom they are given, where that is worth a warning.
fn to_strangers(profile: &Profile, who: &Who, server: Release) -> Option<(String, Release)> {
    let what = in_words(&secrets(profile, who)?);
    match release(profile, who, server) {
        Release::Armed => None,
        to @ (Release::Anyone | Release::Seen) => Some((what, to)),
    }
}

fn in_words(Secrets { omni, files }: &Secrets<'_>) -> String {
    let token = omni.map(|name| format!("the join token of Omni instance {name}"));
    let files: Vec<&str> = files.iter().copied().collect();
    let files = named("answer file", &files);
    token.into_iter().chain(files).collect::<Vec<_>>().join(" and ")
}

fn whom(release: Release, machine: &str) -> String {
    match release {
        Release::Anyone => format!("every host on the network, as {machine},"),
        Release::Seen | Release::Armed => format!("every {machine} that boots"),
    }
}

/// One warning for the whole menu, at the first profile that it names.
fn of_menu(offered: &[(&Profile, String, Release)], places: &Places, problems: &mut Problems) {
    let of_item = |profile: &Profile| places.offered.get(&profile.name);
    let of_profile = |profile: &Profile| Some(&places.profiles.get(&profile.name)?.own);
    let at = |(profile, ..): &(&Profile, String, Release)| -> Option<At> {
        of_item(profile).or_else(|| of_profile(profile)).cloned()
    };
    let Some((key, place)) = offered.iter().filter_map(at).min_by_key(|(_, place)| *place) else {
        return;
    };
    let what: Vec<&str> = offered.iter().map(|(_, what, _)| what.as_str()).collect();
    let mut distinct = what.clone();
    distinct.dedup();
    let names: Vec<&str> = offered.iter().map(|(profile, ..)| profile.name.as_str()).collect();
    let names = named("profile", &names).unwrap_or_default();
    let message = format!(
        "a machine without an entry that chooses {names} from the menu receives {}; write in the profile `release: armed`, by which such a machine receives it only after `reveille boot`, or name in `menu.profiles` only what has no secret",
        distinct.join(", ")
    );
    problems.warning(&key, place, message);
}

/// Warns of machines that are known only by what any machine can say of itself.
fn of_unconfirmed(boots: &[Boot<'_>], server: Release, problems: &mut Problems) {
    let mut found: BTreeMap<&str, Vec<(At, &str, String)>> = BTreeMap::new();
    for boot in boots.iter().filter(|boot| boot.sure == Sure::Yes) {
        for (machine, place) in boot.kin.iter().flat_map(|kin| &kin.entries) {
            if !machine.macs.is_empty() {
                continue;
            }
            let who = boot.who(Some(machine));
            let Some(secrets) = secrets(boot.profile, &who) else {
                continue;
            };
            match release(boot.profile, &who, server) {
                Release::Anyone => {}
                Release::Seen | Release::Armed => {
                    let at = (of_machine(&machine.name), *place);
                    let what = in_words(&secrets);
                    found.entry(&boot.profile.name).or_default().push((at, &machine.name, what));
                }
            }
        }
    }
    for machines in found.values_mut() {
        machines.sort_by_key(|((_, place), ..)| *place);
        let Some(((key, place), _, what)) = machines.first() else {
            continue;
        };
        let names: Vec<&str> = machines.iter().map(|(_, name, _)| *name).collect();
        let (who, has) = match names.len() {
            1 => ("it", "has"),
            _ => ("each of them", "have"),
        };
        let names = named("machine", &names).unwrap_or_default();
        let message = format!(
            "{names} {has} no `mac`: {who} receives {what} only after an operator confirms the MAC address that it boots from; write its `mac`"
        );
        problems.warning(key, *place, message);
    }
}

/// Warns of boots whose secrets `release: armed` withholds each time, because with `boot: always` none of them is a
/// first one.
fn of_no_first_boot<'a>(
    boots: &'a [Boot<'a>],
    (catalog, server): (&Catalog, Release),
    places: &Places,
    problems: &mut Problems,
) {
    let reached = boots.iter().filter(|boot| match boot.sure {
        Sure::Yes | Sure::InGroup => boot.kin.is_some() || is_reached(boot, catalog),
        Sure::FromMenu => false,
    });
    let reached: Vec<&Boot<'_>> = reached.collect();
    let mut findings: Findings<'_, &str> = Findings::new();
    for boot in &reached {
        let profile: &Profile = boot.profile;
        judge(&mut findings, boot, |who, _| {
            let policy = who.settings(Some(profile)).find_map(|said| said.boot);
            let is_always = policy.unwrap_or_default() == BootPolicy::Always;
            // That is an error, whose remedy is `boot: once`.
            if !is_always || !needs_order(profile, who, server) || wipes(profile, who) {
                return None;
            }
            let written = places.first((profile, who), |of| of.boot.as_ref());
            let at = written.or_else(|| places.first((profile, who), |of| of.release.as_ref()));
            let own = || Some(&places.profiles.get(&profile.name)?.own);
            Some((profile.name.as_str(), at.or_else(own)?.clone()))
        });
    }
    let counts = Counts::of(reached.iter().copied());
    for Finding { at: (key, place), profile, hits } in findings.into_values() {
        let hits: Vec<&Hit<'_>> = hits.iter().collect();
        let are_known = hits.iter().any(|hit| hit.boot.kin.is_some());
        let first = if are_known { ", by which a first boot needs no order" } else { "" };
        let message = format!(
            "with `boot: always` each boot of {} needs an order of `reveille arm`, because profile {} has a secret and `release: armed`; write `boot: once`{first}",
            whose(&hits, &counts).in_words(),
            profile.name
        );
        problems.warning(&key, place, message);
    }
}

#[cfg(test)]
mod tests {
    use crate::pure::config::resolve::tests::resolved;

    /// Keys and messages of the warnings that speak of secrets.
    fn warnings(server: &str, profile: &str, rest: &str) -> Vec<(String, String)> {
        let yaml = format!(
            "server: {{ {server} }}\n\
             omni: {{ home: {{ api: 'https://x.omni.siderolabs.io', join_token: {{ file: t }} }} }}\n\
             images: {{ i: {{ kernel: /k, initrd: /r, talos: {{ version: v1.11.2 }} }} }}\n\
             profiles:\n  t: {{ script: talos, image: i, omni: home{profile} }}\n  r: {{ script: linux, image: i }}\n\
             {rest}\n"
        );
        let problems = resolved(&yaml).unwrap().problems.into_iter();
        let is_of_secrets =
            |message: &str| message.contains(" receives ") || message.contains(" has a secret ");
        let of_secrets = problems.filter(|problem| is_of_secrets(&problem.message));
        of_secrets.map(|problem| (problem.key, problem.message)).collect()
    }

    const ODEN: &str = "machines: { oden: { mac: 02:00:00:00:00:01, profile: t } }";

    #[test]
    fn each_place_that_gives_a_secret_to_strangers_is_one_warning() {
        let group = "groups: [{ name: g, match: { mac: '02:*' }, profile: t }]\nunknown: ignore";
        let table = [
            (
                "unknown: t",
                "unknown",
                "every machine without an entry that boots receives the join token of Omni instance home; write in profile t `release: armed` and `boot: once`, by which such a machine receives it only after `reveille arm`, or ",
            ),
            (
                group,
                "groups[0]",
                "every machine of group g that boots receives the join token of Omni instance home; write `release: armed` and `boot: once`, by which such a machine receives it only after `reveille arm`, or ",
            ),
            (
                "menu: { profiles: [r, t] }",
                "menu.profiles[1]",
                "a machine without an entry that chooses profile t from the menu receives the join token of Omni instance home; ",
            ),
            (
                "",
                "profiles.t",
                "a machine without an entry that chooses profile t from the menu receives ",
            ),
        ];
        for (rest, expected, start) in table {
            let told = warnings("", "", &format!("{rest}\n{ODEN}"));
            let [(key, message)] = &told[..] else {
                panic!("{rest}: {told:?}");
            };
            assert_eq!(key, expected, "{rest}");
            assert!(message.starts_with(start), "{message}");
            for written in ["anyone", "seen"] {
                for (server, own) in [(written, ""), ("armed", written)] {
                    let server = format!("release: {server}");
                    let own =
                        if own.is_empty() { own.to_owned() } else { format!(", release: {own}") };
                    let told = warnings(&server, &own, &format!("{rest}\n{ODEN}"));
                    let [(key, message)] = &told[..] else {
                        panic!("{rest}: {told:?}");
                    };
                    assert_eq!(key, expected, "{rest}: {written} is no less open if it is written");
                    let is_open = message.starts_with("every host on the network, as ");
                    assert_eq!(
                        is_open,
                        written == "anyone" && !expected.contains('.'),
                        "{message}"
                    );
                }
            }
            let once = ", release: armed, boot: once";
            assert_eq!(warnings("", once, &format!("{rest}\n{ODEN}")), [], "{rest}");
        }
    }

    #[test]
    fn what_reaches_only_machines_by_their_mac_is_no_warning() {
        for rest in ["unknown: ignore", "unknown: local", "menu: { profiles: [r] }", "unknown: r"] {
            assert_eq!(warnings("", "", &format!("{rest}\n{ODEN}")), [], "{rest}");
        }
    }

    #[test]
    fn answer_files_of_a_group_are_secrets_too() {
        let group = |own: &str| {
            format!(
                "groups: [{{ name: g, match: {{ mac: '02:*' }}, profile: r, boot: once, files: {{ a: /a, b: /b }}{own} }}]\nunknown: ignore\nmachines: {{ a: {{ mac: 03:00:00:00:00:01, profile: t }} }}"
            )
        };
        let told = warnings("", "", &group(""));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.contains(" receives answer files a, b; "), "{told:?}");
        assert_eq!(warnings("", "", &group(", release: seen")).len(), 1);
        assert_eq!(warnings("", "", &group(", release: armed")), []);
    }

    #[test]
    fn a_secret_that_each_boot_needs_an_order_for_is_one_warning() {
        let rest = |own: &str| {
            format!(
                "unknown: ignore\nmachines:\n  m1: {{ mac: 02:00:00:00:00:01, profile: t{own} }}\n  \
                 m2: {{ mac: 02:00:00:00:00:02, profile: t }}\n  m3: {{ mac: 02:00:00:00:00:03, profile: r }}\n"
            )
        };
        let armed = ", release: armed";
        let end = "needs an order of `reveille arm`, because profile t has a secret and `release: armed`; write `boot: once`, by which a first boot needs no order";
        for (server, profile, own, key, of) in [
            ("", armed, "", "profiles.t.release", "profile t"),
            ("release: armed", "", "", "profiles.t", "profile t"),
            ("", ", release: armed, boot: always", "", "profiles.t.boot", "profile t"),
            ("", "", armed, "machines.m1.release", "machine m1"),
            ("", armed, ", boot: once", "profiles.t.release", "machine m2"),
        ] {
            let told = warnings(server, profile, &rest(own));
            let message = format!("with `boot: always` each boot of {of} {end}");
            assert_eq!(told, [(key.to_owned(), message)]);
        }
        for once in ["once", "local"] {
            assert_eq!(warnings("", &format!("{armed}, boot: {once}"), &rest("")), []);
        }
        let told = warnings("", armed, "unknown: t");
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.ends_with("write `boot: once`"), "{told:?}");
        let told = warnings("", armed, "menu: { profiles: [t] }");
        assert_eq!(told, [], "an order by name is what a choice needs anyway");
    }

    #[test]
    fn machines_without_a_mac_wait_for_a_confirmation() {
        let rest = "unknown: ignore\nmachines:\n  \
            a: { serial: CZ1, profile: t }\n  b: { serial: CZ2, profile: t }\n  c: { serial: CZ3, profile: r }\n";
        let told = warnings("", "", rest);
        let [(key, message)] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!(key, "machines.a");
        let start = "machines a, b have no `mac`: each of them receives the join token of Omni instance home only after ";
        assert!(message.starts_with(start), "{message}");
        assert_eq!(warnings("", ", release: anyone", rest), []);
    }
}
