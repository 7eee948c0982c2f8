//! Profiles that would erase a disk unasked: at every boot, or by the menu's own choice.
//!
//! Every machine, group and profile that can come together is judged, but for choices from the menu, which
//! asks at the console before it starts what wipes. A profile that is only chosen or ordered is judged alone.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use super::affected::{Counts, Finding, Findings, Hit, judge, whose};
use super::combinations::{Boot, Sure};
use super::places::{At, OfEntry, Places};
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::{BootPolicy, OnDiskFailure, Settings};
use crate::pure::catalog::wipes::wipes;
use crate::pure::catalog::{Catalog, Profile};
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::Place;
use crate::pure::script::templates::Templates;

/// How a disk would be erased at every boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// `boot: always`.
    Always,
    /// `boot: once`, with a boot that never counts as completed.
    NeverDone,
}

/// What of the file causes the harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// A written `boot`.
    Boot,
    /// A written `wipes`, with `boot` left to its default.
    Wipes,
    /// Neither is written: the script wipes, and `boot` is its default.
    Script,
}

/// Whose word that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Layer<'a> {
    Profile,
    Group(&'a str),
    /// Of machines that say the same, the report is one.
    Machine,
}

/// What is reported once. The profile's name tells apart what machines and groups make of several profiles.
type Key<'a> = (Harm, Cause, Layer<'a>, &'a str);

/// Reports what would erase a disk at every boot, `on_disk_failure: boot` for what wipes, and a `menu.default` that
/// wipes.
pub(crate) fn check(
    boots: &[Boot<'_>],
    (catalog, templates): (&Catalog, &Templates),
    places: &Places,
    problems: &mut Problems,
) {
    let judged = judged(boots, (catalog, templates), problems);
    let mut findings: Findings<'_, Key<'_>> = Findings::new();
    let mut returns: Findings<'_, (Place, &str)> = Findings::new();
    for boot in &judged {
        judge(&mut findings, boot, |who, machine| judged_harm(boot, who, machine, places));
        judge(&mut returns, boot, |who, _| judged_return(boot, who, places));
    }
    let counts = Counts::of(judged.iter());
    for ((harm, cause, _, _), Finding { at: (key, place), profile, hits }) in findings {
        let hits: Vec<&Hit<'_>> = hits.iter().collect();
        let whose = whose(&hits, &counts).in_words();
        problems.error(&key, place, message(harm, cause, profile, &whose));
    }
    for Finding { at: (key, place), profile, hits } in returns.into_values() {
        let hits: Vec<&Hit<'_>> = hits.iter().collect();
        let message = format!(
            "`boot` acts as `hold` for {}, because profile {} erases a disk: only an order starts it again; write `hold` or `menu`, or `wipes: false` if it erases nothing",
            whose(&hits, &counts).in_words(),
            profile.name
        );
        problems.warning(&key, place, message);
    }
    check_default(boots, catalog, places, problems);
}

/// The boots that are judged: those by the config's own word, and each profile alone that has none.
fn judged<'a>(
    boots: &[Boot<'a>],
    (catalog, templates): (&'a Catalog, &Templates),
    problems: &Problems,
) -> Vec<Boot<'a>> {
    // What is wrong with a profile may change whether it wipes; a script that does not exist erases nothing.
    let is_right = |profile: &Profile| {
        templates.knows(&profile.script)
            && !problems.has_error_below(&format!("profiles.{}", profile.name))
    };
    let sound: BTreeSet<&str> = catalog
        .profiles
        .values()
        .filter(|profile| is_right(profile))
        .map(|profile| profile.name.as_str())
        .collect();
    let is_sound = |profile: &Profile| sound.contains(profile.name.as_str());
    let unasked = boots.iter().filter(|boot| match boot.sure {
        Sure::Yes | Sure::InGroup => is_sound(boot.profile),
        Sure::FromMenu => false,
    });
    let mut judged: Vec<Boot<'a>> = unasked.copied().collect();
    let booted: BTreeSet<&str> = judged.iter().map(|boot| boot.profile.name.as_str()).collect();
    let rest = catalog.profiles.values().filter(|profile| !booted.contains(&*profile.name));
    let alone = |profile| Boot { profile, group: None, kin: None, sure: Sure::Yes };
    let alone: Vec<Boot<'a>> = rest.filter(|profile| is_sound(profile)).map(alone).collect();
    judged.extend(alone);
    judged
}

/// What harm a boot does, and where the file says so.
fn judged_harm<'a>(
    boot: &'a Boot<'a>,
    who: &Who,
    machine: Option<(&'a str, Place)>,
    places: &Places,
) -> Option<(Key<'a>, At)> {
    let harm = harm(boot.profile, who, places)?;
    let (cause, layer) = cause(boot, who);
    let at = place(boot, (cause, layer), machine, places)?;
    Some(((harm, cause, layer, &boot.profile.name), at))
}

/// Where `on_disk_failure: boot` is written for a boot that wipes, for which it means `hold`.
fn judged_return<'a>(
    boot: &'a Boot<'a>,
    who: &Who,
    places: &Places,
) -> Option<((Place, &'a str), At)> {
    let profile = boot.profile;
    let said = who.settings(Some(profile)).find_map(|said| said.on_disk_failure);
    let is_meant = said == Some(OnDiskFailure::Boot) && wipes(profile, who);
    if !is_meant || is_misread(profile, who, places) || harm(profile, who, places).is_some() {
        return None;
    }
    let at = places.first((profile, who), |of| of.on_disk_failure.as_ref())?;
    let is_own = who.machine.as_ref().is_some_and(|machine| {
        places.machines.get(&machine.name).is_some_and(|of| of.on_disk_failure.is_some())
    });
    // Of machines that say the same, the report is one.
    let layer = if is_own { Place::default() } else { at.1 };
    Some(((layer, &profile.name), at.clone()))
}

fn harm(profile: &Profile, who: &Who, places: &Places) -> Option<Harm> {
    if !wipes(profile, who) || is_misread(profile, who, places) {
        return None;
    }
    match who.settings(Some(profile)).find_map(|said| said.boot).unwrap_or_default() {
        BootPolicy::Always => Some(Harm::Always),
        BootPolicy::Once => profile.image.is_none().then_some(Harm::NeverDone),
        BootPolicy::Local => None,
    }
}

/// Whether `boot` or `wipes` is written somewhere with a value that is none: that is an error already.
fn is_misread(profile: &Profile, who: &Who, places: &Places) -> bool {
    let is_none = |of: Option<&OfEntry>, said: &Settings| {
        of.is_some_and(|of| {
            of.boot.is_some() && said.boot.is_none() || of.wipes.is_some() && said.wipes.is_none()
        })
    };
    let machine = who.machine.as_ref();
    is_none(places.profiles.get(&profile.name), &profile.settings)
        || who.group.as_ref().is_some_and(|g| is_none(places.groups.get(&g.name), &g.settings))
        || machine.is_some_and(|m| is_none(places.machines.get(&m.name), &m.settings))
}

/// Whose word makes the disk be erased.
fn cause<'a>(boot: &Boot<'a>, who: &Who) -> (Cause, Layer<'a>) {
    let group = boot.group.map_or(Layer::Profile, |group| Layer::Group(&group.name));
    let first = |is_said: &dyn Fn(&Settings) -> bool| {
        if who.machine.as_ref().is_some_and(|machine| is_said(&machine.settings)) {
            return Some(Layer::Machine);
        }
        if who.group.as_ref().is_some_and(|of| is_said(&of.settings)) {
            return Some(group);
        }
        is_said(&boot.profile.settings).then_some(Layer::Profile)
    };
    if let Some(layer) = first(&|said| said.boot.is_some()) {
        return (Cause::Boot, layer);
    }
    if let Some(layer) = first(&|said| said.wipes.is_some()) {
        return (Cause::Wipes, layer);
    }
    if wipes(boot.profile, &Who::default()) {
        return (Cause::Script, Layer::Profile);
    }
    match boot.group {
        Some(_) if wipes(boot.profile, &boot.who(None)) => (Cause::Script, group),
        Some(_) | None => (Cause::Script, Layer::Machine),
    }
}

fn place(
    boot: &Boot<'_>,
    (cause, layer): (Cause, Layer<'_>),
    machine: Option<(&str, Place)>,
    places: &Places,
) -> Option<At> {
    let of = match layer {
        Layer::Profile => places.profiles.get(&boot.profile.name),
        Layer::Group(name) => places.groups.get(name),
        Layer::Machine => machine.and_then(|(name, _)| places.machines.get(name)),
    };
    let own = || match (layer, machine) {
        (Layer::Machine, Some((name, place))) => {
            Some((super::combinations::of_machine(name), place))
        }
        (Layer::Machine, None) => None,
        (Layer::Profile | Layer::Group(_), _) => of.map(|of| of.own.clone()),
    };
    let at = of.and_then(|of| match cause {
        Cause::Boot => of.boot.clone(),
        Cause::Wipes => of.wipes.clone(),
        Cause::Script => of.script.clone(),
    });
    at.or_else(own)
}

/// What makes a profile wipe that has no `wipes`.
fn by_default(profile: &Profile) -> String {
    match profile.script.as_str() {
        script if profile.has_own_script => {
            format!("`{script}.ipxe` of `server.boot_scripts` counts as erasing a disk")
        }
        "talos" => "with a machine config Talos installs to a disk".to_owned(),
        "linux" => "answer files and installer arguments start an installer".to_owned(),
        script => format!("script `{script}` counts as erasing a disk"),
    }
}

fn message(harm: Harm, cause: Cause, profile: &Profile, whose: &str) -> String {
    let spared = format!("`wipes: false` if profile {} erases nothing", profile.name);
    let erased = format!("the disk is erased at every boot of {whose}");
    match (harm, cause) {
        (Harm::Always, Cause::Boot) => {
            format!("with `boot: always` {erased}; write `boot: once`, or {spared}")
        }
        (Harm::Always, Cause::Wipes) => format!(
            "`boot` is not written, which means `always`, and {erased}; write `boot: once`, or {spared}"
        ),
        (Harm::Always, Cause::Script) => format!(
            "{}, and `boot` is not written, which means `always`: {erased}; write `boot: once`, or {spared}",
            by_default(profile)
        ),
        (Harm::NeverDone, Cause::Boot | Cause::Wipes | Cause::Script) => format!(
            "a boot counts as completed once the kernel and all initrds are fetched, and profile {} has no `image`: {erased}; give it an `image`, or write {spared}",
            profile.name
        ),
    }
}

/// The menu starts its default without asking anybody.
fn check_default(boots: &[Boot<'_>], catalog: &Catalog, places: &Places, problems: &mut Problems) {
    let (Some(default), Some((key, place))) = (&catalog.menu.default, &places.menu_default) else {
        return;
    };
    if problems.has_error_below(&format!("profiles.{}.wipes", default.name)) {
        return;
    }
    let chosen = boots.iter().filter(|boot| match boot.sure {
        Sure::FromMenu => boot.profile.name == default.name,
        Sure::Yes | Sure::InGroup => false,
    });
    let wipes_for = |boot: &Boot<'_>| match boot.kin {
        None => wipes(default, &boot.who(None)),
        Some(kin) => {
            kin.entries.iter().any(|(machine, _)| wipes(default, &boot.who(Some(machine))))
        }
    };
    let mut chosen = chosen;
    if wipes(default, &Who::default()) || chosen.any(wipes_for) {
        let message = format!(
            "profile {} erases a disk, and the menu starts its default when nobody presses a key; write `default: local`, or `wipes: false` if the profile erases nothing",
            default.name
        );
        problems.error(key, *place, message);
    }
}

#[cfg(test)]
mod tests {
    use crate::pure::config::resolve::tests::resolved;

    /// Keys and messages of all errors in a config of these profiles and this rest.
    fn errors(profiles: &str, rest: &str) -> Vec<(String, String)> {
        let yaml = format!(
            "images: {{ i: {{ kernel: /k }} }}\nprofiles:\n{profiles}\nunknown: ignore\n{rest}"
        );
        let problems = match resolved(&yaml) {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        let errors = problems.into_iter().filter(|problem| problem.severity.is_error());
        errors.map(|error| (error.key, error.message)).collect()
    }

    fn keys(profiles: &str, rest: &str) -> Vec<String> {
        errors(profiles, rest).into_iter().map(|(key, _)| key).collect()
    }

    const DEBIAN: &str = "  d: { script: debian, image: i }";

    fn machines(number: usize, own: &str) -> String {
        let entry =
            |n: usize| format!("  m{n}: {{ mac: 02:00:00:00:00:{n:02x}, profile: d{own} }}\n");
        format!("machines:\n{}", (0..number).map(entry).collect::<String>())
    }

    #[test]
    fn what_wipes_at_every_boot_is_one_error_however_many_machines_have_it() {
        let rest = machines(9, "");
        let [(key, message)] = &errors(DEBIAN, &rest)[..] else {
            panic!("{:?}", errors(DEBIAN, &rest));
        };
        assert_eq!(key, "profiles.d.script");
        assert_eq!(
            message,
            "script `debian` counts as erasing a disk, and `boot` is not written, which means `always`: the disk is erased at every boot of profile d; write `boot: once`, or `wipes: false` if profile d erases nothing"
        );
        for spared in ["boot: once", "boot: local", "wipes: false"] {
            let profile = format!("  d: {{ script: debian, image: i, {spared} }}");
            assert_eq!(keys(&profile, &rest), [""; 0], "{spared}");
            assert_eq!(keys(DEBIAN, &machines(9, &format!(", {spared}"))), [""; 0], "{spared}");
        }
    }

    #[test]
    fn the_word_at_fault_is_the_one_that_is_reported() {
        let once = "  d: { script: debian, image: i, boot: once }";
        let live = "  d: { script: linux, image: i }";
        let always = "  d: { script: debian, image: i, boot: always }";
        let table = [
            (DEBIAN, "", "profiles.d.script"),
            (always, "", "profiles.d.boot"),
            ("  d: { script: linux, image: i, wipes: true }", "", "profiles.d.wipes"),
            (once, ", boot: always", "machines.m0.boot"),
            (live, ", wipes: true", "machines.m0.wipes"),
            (live, ", cmdline: [autoinstall]", "machines.m0"),
        ];
        for (profile, own, expected) in table {
            let rest = machines(3, own);
            assert_eq!(keys(profile, &rest), [expected], "{profile} {own}");
        }
        let [(_, message)] = &errors(once, &machines(7, ", boot: always"))[..] else {
            panic!("one error");
        };
        let start = "with `boot: always` the disk is erased at every boot of profile d; ";
        assert!(message.starts_with(start), "{message}");
        let mixed = machines(2, "") + "  x: { mac: 02:00:00:00:01:00, profile: d, boot: always }\n";
        let [(key, message)] = &errors(once, &mixed)[..] else {
            panic!("one error");
        };
        assert_eq!(key, "machines.x.boot");
        assert!(message.contains("at every boot of machine x;"), "{message}");
    }

    #[test]
    fn a_group_and_unknown_may_wipe_only_once() {
        let group = |own: &str| {
            format!("groups: [{{ name: g, match: {{ mac: '02:*' }}, profile: d{own} }}]")
        };
        assert_eq!(keys(DEBIAN, &group("")), ["profiles.d.script"]);
        assert_eq!(keys(DEBIAN, &group(", boot: once")), [""; 0]);
        assert_eq!(keys(DEBIAN, &group(", boot: always")), ["groups[0].boot"]);
        let live = "  d: { script: linux, image: i }";
        assert_eq!(keys(live, &group(", wipes: true")), ["groups[0].wipes"]);
        assert_eq!(keys(live, &group(", cmdline: [inst.ks=x]")), ["groups[0]"]);
        // An entry of its own that leaves the profile to the group.
        let machine = "\nmachines: { a: { mac: 02:00:00:00:00:01, boot: always } }";
        let both = group(", boot: once") + machine;
        assert_eq!(keys(DEBIAN, &both), ["machines.a.boot"]);
        let unknown = |profile: &str| {
            let yaml =
                format!("images: {{ i: {{ kernel: /k }} }}\nprofiles:\n{profile}\nunknown: d\n");
            resolved(&yaml).is_ok()
        };
        assert!(!unknown(DEBIAN));
        assert!(unknown("  d: { script: debian, image: i, boot: once }"));
    }

    #[test]
    fn a_boot_that_never_counts_would_wipe_again_and_again() {
        let own = "  d: { script: netbootxyz, boot: once }";
        let [(key, message)] = &errors(own, "")[..] else {
            panic!("{:?}", errors(own, ""));
        };
        assert_eq!(key, "profiles.d.boot");
        assert!(message.contains("profile d has no `image`"), "{message}");
        assert_eq!(keys("  d: { script: netbootxyz, wipes: false }", ""), [""; 0]);
        assert_eq!(keys("  d: { script: netbootxyz, boot: local }", ""), [""; 0]);
    }

    #[test]
    fn a_default_of_the_menu_that_wipes_is_an_error_for_whomever_it_does() {
        let once = "  d: { script: debian, image: i, boot: once }\n  m: { script: menu }";
        let menu = "menu: { default: d, profiles: [d] }\n";
        assert_eq!(keys(once, menu), ["menu.default"]);
        let live = "  d: { script: linux, image: i }\n  m: { script: menu }";
        assert_eq!(keys(live, menu), [""; 0]);
        let files = "machines: { a: { mac: 02:00:00:00:00:01, profile: m, files: { k: /k } } }";
        assert_eq!(keys(live, &format!("{menu}{files}")), ["menu.default"]);
    }

    #[test]
    fn a_word_that_is_none_is_one_error() {
        assert_eq!(keys("  d: { script: debian, image: i, boot: onec }", ""), ["profiles.d.boot"]);
        assert_eq!(keys(DEBIAN, &machines(1, ", boot: onec")), ["machines.m0.boot"]);
        assert_eq!(keys("  d: { script: debian, image: j }", ""), ["profiles.d.image"]);
        let gone = errors("  d: { script: debain, image: i }", "");
        assert_eq!(gone, [], "it is a fault of its own boots, and keeps no daemon from its start");
    }
}
