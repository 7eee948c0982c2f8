//! Templates, tried before a machine comes for them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use super::affected::{Counts, Hit, named, whose};
use super::combinations::{Boot, Sure, of_machine, spoilt};
use super::rendering::{Key, Wrong, try_out};
use crate::pure::catalog::{Catalog, Profile};
use crate::pure::config::fields::Located;
use crate::pure::config::problem::Problems;
use crate::pure::config::snippet::Quote;
use crate::pure::config::surroundings::Surroundings;
use crate::pure::config::yaml::Place;
use crate::pure::script::templates::{Mistake, Templates};

/// A profile whose template is tried.
#[derive(Debug)]
pub(crate) struct Trial {
    /// The profile.
    pub(crate) name: Located<String>,
    /// Where it names the template.
    pub(crate) script: Place,
}

/// Says now what would be refused at the boot by a profile's template or answer files: one mistake once,
/// however many have it.
pub(crate) fn at_scripts(
    trials: &[Trial],
    boots: &[Boot<'_>],
    catalog: &Catalog,
    (found, templates): (&Surroundings, &Templates),
    problems: &mut Problems,
) {
    // What such a template would say comes of another mistake.
    let is_flawed = |profile: &Profile| {
        let image = profile.image.as_ref().map(|image| format!("images.{}", image.name));
        problems.has_error_below(&format!("profiles.{}", profile.name))
            || image.is_some_and(|image| problems.has_error_below(&image))
    };
    let flawed: BTreeSet<&str> = catalog
        .profiles
        .values()
        .filter(|profile| is_flawed(profile))
        .map(|profile| profile.name.as_str())
        .collect();
    let tried = || boots.iter().filter(|boot| !flawed.contains(&*boot.profile.name));
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut mistakes: Vec<(Wrong, Vec<Hit<'_>>)> = Vec::new();
    for boot in tried() {
        for (wrong, machines) in try_out(templates, boot, catalog, &found.shelf) {
            let at = *places.entry(wrong.key()).or_insert_with(|| {
                mistakes.push((wrong, Vec::new()));
                mistakes.len() - 1
            });
            // A file may have two names.
            let hits = &mut mistakes[at].1;
            let is_told = |last: &Hit<'_>| std::ptr::eq(last.boot, boot) && last.machines.is_none();
            if !hits.last().is_some_and(is_told) {
                hits.push(Hit { boot, machines });
            }
        }
    }
    let counts = Counts::of(tried());
    for (wrong, hits) in mistakes {
        tell(wrong.into_mistake(), (&hits, &counts), trials, found, problems);
    }
}

fn tell<'a>(
    mistake: Mistake,
    (hits, counts): (&[Hit<'a>], &Counts<'a>),
    trials: &[Trial],
    found: &Surroundings,
    problems: &mut Problems,
) {
    let of_kin = hits.iter().filter(|hit| hit.machines.is_none()).map(|hit| hit.boot);
    let whole = Counts::of(of_kin);
    let is_whole = |hit: &Hit<'_>| whole.are_all(counts, (&hit.boot.profile.name, None));
    // Of what has no other way to be booted the menu is a sure one.
    let least = hits.iter().map(|hit| hit.boot.sure).min().unwrap_or(Sure::Yes);
    let is_sure = least == Sure::Yes || hits.iter().any(is_whole);
    let meant: Vec<&Hit<'a>> =
        hits.iter().filter(|hit| hit.boot.sure == least || is_sure && is_whole(hit)).collect();
    let whose = whose(&meant, counts);
    let names = |hit: &&&Hit<'_>| whose.profiles.contains(&*hit.boot.profile.name);
    let Some(first) = meant.iter().find(names).or_else(|| meant.first()) else {
        return;
    };
    let trial = trials.iter().find(|trial| trial.name.value == first.boot.profile.name);
    let Some(Trial { name, script }) = trial else {
        return;
    };
    let key = match (whose.profiles.is_empty(), whose.machines.first()) {
        (true, Some(machine)) => of_machine(machine),
        (true, None) | (false, _) => format!("{}.script", name.key),
    };
    let spoils = spoilt(meant.iter().map(|hit| (hit.boot, hit.machines.as_deref())));
    let script_name = mistake.file.as_deref().and_then(|file| file.strip_suffix(".ipxe"));
    let template = script_name.and_then(|name| {
        Some((found.boot_scripts.join(format!("{name}.ipxe")), found.templates.get(name)?))
    });
    let answer = || {
        let path = Path::new(mistake.file.as_deref()?);
        Some((path.to_owned(), found.answers.get(path)?))
    };
    let is_answer = template.is_none() && answer().is_some();
    let refused = match is_answer {
        true => format!("it is not served for {}", whose.in_words()),
        false => format!("boots of {} are refused", whose.in_words()),
    };
    let refused = match (is_sure, least) {
        (true, _) | (false, Sure::Yes) => refused,
        (false, Sure::InGroup) => {
            let groups: BTreeSet<&str> =
                meant.iter().filter_map(|hit| Some(hit.boot.group?.name.as_str())).collect();
            let groups: Vec<&str> = groups.into_iter().collect();
            format!("{refused} where it is in {}", named("group", &groups).unwrap_or_default())
        }
        (false, Sure::FromMenu) => {
            let profiles: BTreeSet<&str> =
                meant.iter().map(|hit| hit.boot.profile.name.as_str()).collect();
            let profiles: Vec<&str> = profiles.into_iter().collect();
            let profiles = named("profile", &profiles).unwrap_or_default();
            format!("{refused} that choose {profiles} from the menu")
        }
    };
    match (template.or_else(answer), mistake.line) {
        (Some((path, Ok(source))), Some(_)) => {
            let at = (path, place_of(&mistake), quote_of(&mistake, Some(source)));
            let message = with_consequence(&mistake.message, &refused);
            match is_sure {
                true => problems.fault_elsewhere(&key, at, &message).spoils = spoils,
                false => problems.warning_elsewhere(&key, at, &message),
            }
        }
        (Some(_) | None, _) => {
            let message = format!("{refused}: {mistake}");
            match is_sure {
                true => problems.fault(&key, *script, message).spoils = spoils,
                false => problems.warning(&key, *script, message),
            }
        }
    }
}

/// What is wrong, and what comes of it. Behind a question nothing else can stand.
pub(crate) fn with_consequence(message: &str, consequence: &str) -> String {
    if message.ends_with('?') {
        format!("{consequence}: {message}")
    } else {
        format!("{message}; {consequence}")
    }
}

/// Tells of a template that does not compile, at its own line where that is known.
pub(crate) fn tell_template(
    problems: &mut Problems,
    (name, mistake): (&str, &Mistake),
    (folder, said): (&Path, Place),
    source: Option<&String>,
) {
    let until = format!("boots that need `{name}` are refused until that is mended");
    let path = folder.join(format!("{name}.ipxe"));
    let spoils = vec![path.display().to_string()];
    let told = if mistake.line.is_some() {
        let at = (path, place_of(mistake), quote_of(mistake, source.map(String::as_str)));
        problems.fault_elsewhere("", at, &with_consequence(&mistake.message, &until))
    } else {
        problems.fault("server.boot_scripts", said, with_consequence(&mistake.to_string(), &until))
    };
    told.spoils = spoils;
}

pub(crate) fn place_of(mistake: &Mistake) -> Place {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: number(mistake.line.unwrap_or(1)),
        column: number(mistake.columns.map_or(1, |(column, _)| column)),
    }
}

pub(crate) fn quote_of(mistake: &Mistake, source: Option<&str>) -> Option<Quote> {
    let line = source?.lines().nth(mistake.line?.checked_sub(1)?)?;
    let (column, wide) = mistake.columns.unwrap_or((1, line.chars().count()));
    Some(Quote::marking(line, column - 1, wide))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pure::config::problem::{Problem, Severity};
    use crate::pure::config::resolve::resolve;
    use crate::pure::config::schema::File;
    use crate::pure::config::surroundings::Surroundings;

    /// What is wrong with these machines of a profile whose template prints their bay.
    fn tried(rest: &str) -> Vec<Problem> {
        let yaml = format!(
            "server: {{ nbps: [] }}\nprofiles: {{ own: {{ script: own, wipes: false }} }}\n{rest}"
        );
        let mut problems = Problems::new(Path::new("config.yaml"), &yaml);
        let file = File::parse(&yaml, &mut problems).unwrap();
        let source = "#!ipxe\necho {{ machine.vars.bay }}\n".to_owned();
        let found = Surroundings {
            templates: [("own".to_owned(), Ok(source))].into(),
            ..Surroundings::default()
        };
        let told =
            resolve(file, found, problems).map_or_else(|told| told, |config| config.problems);
        told.into_iter().filter(|problem| problem.key != "server.nbps").collect()
    }

    fn told(rest: &str) -> Vec<(Severity, String)> {
        let told = tried(rest).into_iter();
        let what = "`machine.vars.bay` is not known; ";
        told.map(|told| (told.severity, told.message.replace(what, ""))).collect()
    }

    fn one(severity: Severity, message: &str) -> Vec<(Severity, String)> {
        vec![(severity, message.to_owned())]
    }

    #[test]
    fn a_machine_that_is_surely_in_a_group_is_tried_with_it() {
        let group = "groups: [{ name: g, match: { mac: '00:*' }, profile: own, vars: { bay: 1 } }]\n\
                     unknown: ignore\n";
        assert_eq!(told(&format!("{group}machines: {{ a: {{ mac: 00:00:00:00:00:01 }} }}")), []);
        // What a variable is decides too: a mapping is not printed.
        let own = "machines: { a: { mac: 00:00:00:00:00:01, vars: { bay: { x: 1 } } } }";
        let told = told(&format!("{group}{own}"));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, Severity::Fault);
        assert!(told[0].1.ends_with("boots of machine a are refused"), "{told:?}");
    }

    #[test]
    fn what_a_machine_lacks_that_may_be_in_a_group_is_a_warning() {
        let groups = "groups:\n\
            - { name: g, match: { product: P }, profile: own, vars: { bay: 1 } }\n\
            - { name: h, match: { vendor: V }, profile: own, vars: { bay: 1 } }\n\
            unknown: ignore\n";
        let machines = "machines: { a: { mac: 00:00:00:00:00:01, vars: { bay: { x: 1 } } } }";
        let told = told(&format!("{groups}{machines}"));
        assert_eq!(told.len(), 1, "{told:?}");
        let (severity, message) = &told[0];
        assert_eq!(*severity, Severity::Warning);
        let end = "boots of machine a are refused where it is in groups g, h";
        assert!(message.ends_with(end), "{message}");
    }

    #[test]
    fn strangers_of_the_menu_and_of_unknown_are_tried() {
        let machines =
            "machines: { a: { mac: 00:00:00:00:00:01, profile: own, vars: { bay: 1 } } }\n";
        let chosen =
            "boots of machines without an entry are refused that choose profile own from the menu";
        assert_eq!(told(machines), one(Severity::Warning, chosen));
        assert_eq!(told(&format!("{machines}unknown: ignore\n")), []);
        let refused = "boots of machines without an entry are refused";
        assert_eq!(told(&format!("{machines}unknown: own\n")), one(Severity::Fault, refused));
        // Where there is no other way to boot it, all of it is broken.
        assert_eq!(told(""), one(Severity::Fault, "boots of profile own are refused"));
    }

    #[test]
    fn a_value_that_cannot_be_printed_is_found_whosoever_it_is() {
        let machines: String = (0..200)
            .map(|n| {
                let bay = if n == 150 { "two words".to_owned() } else { format!("b{n}") };
                format!("  m{n}: {{ mac: 00:00:00:00:00:{n:02x}, profile: own, vars: {{ bay: {bay} }} }}\n")
            })
            .collect();
        let told = told(&format!("unknown: ignore\nmachines:\n{machines}"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].1.ends_with("boots of machine m150 are refused"), "{told:?}");
    }

    /// The one that says most takes the most off again; a template that adds something is too much for the other.
    #[test]
    fn a_line_too_long_is_found_also_where_another_machine_has_more_words_of_its_own() {
        let yaml = format!(
            "server: {{ nbps: [] }}\nunknown: ignore\nimages: {{ i: {{ kernel: /k }} }}\n\
             profiles: {{ own: {{ script: own, wipes: false, image: i, cmdline: ['a={}'] }} }}\n\
             machines:\n  most: {{ mac: 00:00:00:00:00:01, profile: own, cmdline: ['a={}'] }}\n  \
             less: {{ mac: 00:00:00:00:00:02, profile: own, cmdline: ['b={}'] }}\n",
            "x".repeat(1000),
            "x".repeat(1000),
            "x".repeat(900),
        );
        let mut problems = Problems::new(Path::new("config.yaml"), &yaml);
        let file = File::parse(&yaml, &mut problems).unwrap();
        let kernel = "kernel {{ kernel.url }} {{ cmdline }} more=";
        let source = format!("#!ipxe\n{kernel}{}\n", "x".repeat(500));
        let found = Surroundings {
            templates: [("own".to_owned(), Ok(source))].into(),
            ..Surroundings::default()
        };
        let told =
            resolve(file, found, problems).map_or_else(|told| told, |config| config.problems);
        let told: Vec<&str> = told
            .iter()
            .map(|problem| problem.message.as_str())
            .filter(|message| message.contains("kernel line"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("boots of machine less are refused"), "{told:?}");
    }

    #[test]
    fn a_mistake_of_all_is_told_of_the_profile_and_of_some_by_their_names() {
        let machines = |lacking: usize| -> String {
            let entry = |n: usize| {
                let bay = if n < lacking { "" } else { ", vars: { bay: 1 }" };
                format!("  m{n}: {{ mac: 00:00:00:00:00:{n:02x}, profile: own{bay} }}\n")
            };
            format!("unknown: ignore\nmachines:\n{}", (0..9).map(entry).collect::<String>())
        };
        let refused = |whose: &str| one(Severity::Fault, &format!("boots of {whose} are refused"));
        assert_eq!(told(&machines(0)), []);
        assert_eq!(told(&machines(1)), refused("machine m0"));
        assert_eq!(told(&machines(7)), refused("machines m0, m1, m2, m3, m4 and 2 more"));
        assert_eq!(told(&machines(9)), refused("profile own"));
    }

    #[test]
    fn what_is_half_mended_breaks_nothing_new() {
        let machines = |bay: &str| {
            format!(
                "unknown: ignore\nmachines:\n  \
                 a: {{ mac: 00:00:00:00:00:01, profile: own{bay} }}\n  \
                 b: {{ mac: 00:00:00:00:00:02, profile: own }}\n"
            )
        };
        let spoilt = |yaml: &str| {
            let told = tried(yaml);
            told.iter().flat_map(Problem::spoiled).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let whole = spoilt(&machines(""));
        let half = spoilt(&machines(", vars: { bay: 1 }"));
        assert_eq!(half, ["machines.b".to_owned()].into());
        assert!(half.is_subset(&whole), "{whole:?}");
    }
}
