//! Templates, tried before a machine comes for them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Surroundings;
use super::boots::{Boot, Kin, Sure};
use crate::boot::catalog::{Catalog, Machine, Profile};
use crate::boot::client::{Cpu, Facts};
use crate::boot::cmdline::{self, CmdlineError, MAX_LEN};
use crate::boot::decide::{Kind, Script};
use crate::boot::script::{self, Refusal, Scene};
use crate::boot::select::Who;
use crate::boot::templates::{Mistake, Templates};
use crate::boot::{Arch, Client, Mac, Stage};
use crate::config::fields::{Located, Problems};
use crate::config::quote::Quote;
use crate::config::yaml::Place;

/// A profile whose template is tried.
#[derive(Debug)]
pub(super) struct Trial {
    /// The profile.
    pub(super) name: Located<String>,
    /// Where it names the template.
    pub(super) script: Place,
}

/// What a trial showed to be wrong.
#[derive(Debug)]
enum Wrong {
    /// With a template or an answer file.
    Template(Mistake),
    /// A template adds so much to a kernel line that it is too long.
    Line(CmdlineError),
}

/// What of it tells it from others: file, line, column and words; of a line too long what is longest in it.
type Key = (Option<String>, Option<usize>, Option<(usize, usize)>, String);

/// A boot that has a mistake; of its kin perhaps only these machines.
struct Hit<'a> {
    boot: &'a Boot<'a>,
    machines: Option<Vec<&'a str>>,
}

/// How many boots there are of each profile and of each group with it: those that are sure, and all.
#[derive(Default)]
struct Counts<'a>(BTreeMap<(&'a str, Option<&'a str>), [usize; 2]>);

impl<'a> Counts<'a> {
    fn of(boots: impl Iterator<Item = &'a Boot<'a>>) -> Self {
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
    fn are_all(&self, of: &Self, key: (&str, Option<&str>)) -> bool {
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
struct Whose<'a> {
    profiles: BTreeSet<&'a str>,
    groups: BTreeSet<&'a str>,
    machines: Vec<&'a str>,
    has_strangers: bool,
}

impl Whose<'_> {
    fn in_words(&self) -> String {
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

/// Says now what would be refused at the boot by a profile's template or answer files: one mistake once,
/// however many have it.
pub(super) fn at_scripts(
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
        for (wrong, machines) in try_out(templates, boot, catalog) {
            let at = *places.entry(wrong.key()).or_insert_with(|| {
                mistakes.push((wrong, Vec::new()));
                mistakes.len() - 1
            });
            mistakes[at].1.push(Hit { boot, machines });
        }
    }
    let counts = Counts::of(tried());
    for (wrong, hits) in mistakes {
        tell(wrong.into_mistake(), (&hits, &counts), trials, found, problems);
    }
}

impl Wrong {
    fn key(&self) -> Key {
        match self {
            Self::Template(Mistake { file, line, columns, message }) => {
                (file.clone(), *line, *columns, message.clone())
            }
            Self::Line(CmdlineError::TooLong { longest, .. }) => {
                (None, None, None, longest.clone())
            }
            Self::Line(error) => (None, None, None, error.to_string()),
        }
    }

    fn into_mistake(self) -> Mistake {
        match self {
            Self::Template(mistake) => mistake,
            Self::Line(error) => {
                Mistake { file: None, line: None, columns: None, message: error.to_string() }
            }
        }
    }
}

/// Who of these has it: a profile or a group where all of it has it, else each machine.
fn whose<'a>(hits: &[&Hit<'a>], counts: &Counts<'a>) -> Whose<'a> {
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

fn tell<'a>(
    mistake: Mistake,
    (hits, counts): (&[Hit<'a>], &Counts<'a>),
    trials: &[Trial],
    found: &Surroundings,
    problems: &mut Problems,
) {
    let is_whole = |hit: &&Hit<'_>| {
        let of_profile = hits.iter().filter(|other| other.machines.is_none()).map(|hit| hit.boot);
        Counts::of(of_profile).are_all(counts, (&hit.boot.profile.name, None))
    };
    // Of what has no other way to be booted the menu is a sure one.
    let least = hits.iter().map(|hit| hit.boot.sure).min().unwrap_or(Sure::Yes);
    let is_sure = least == Sure::Yes || hits.iter().any(|hit| is_whole(&hit));
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
        (true, Some(machine)) => format!("machines.{machine}"),
        (true, None) | (false, _) => format!("{}.script", name.key),
    };
    let spoils = spoilt(&whose, trials);
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

/// What of the config is broken by a mistake of theirs.
fn spoilt(whose: &Whose<'_>, trials: &[Trial]) -> Vec<String> {
    let of_profile = |trial: &&Trial| whose.profiles.contains(&*trial.name.value);
    let profiles =
        trials.iter().filter(of_profile).map(|trial| format!("{}.script", trial.name.key));
    let groups = whose.groups.iter().map(|name| format!("groups.{name}"));
    let machines = whose.machines.iter().map(|name| format!("machines.{name}"));
    let strangers = whose.has_strangers.then(|| "unknown".to_owned());
    profiles.chain(groups).chain(machines).chain(strangers).collect()
}

/// What is wrong, and what comes of it. Behind a question nothing else can stand.
pub(super) fn with_consequence(message: &str, consequence: &str) -> String {
    if message.ends_with('?') {
        format!("{consequence}: {message}")
    } else {
        format!("{message}; {consequence}")
    }
}

/// `profiles a, b`, or `machines a, b, c and 997 more`.
pub(super) fn named(what: &str, names: &[&str]) -> Option<String> {
    const MOST: usize = 5;
    let plural = if names.len() == 1 { "" } else { "s" };
    let listed = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => None,
        len if len <= MOST => Some(format!("{what}{plural} {listed}")),
        len => Some(format!("{what}{plural} {listed} and {} more", len - MOST)),
    }
}

/// Tells of a template that does not compile, at its own line where that is known.
pub(super) fn tell_template(
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

/// Renders a profile's script and its answer files for who may boot it, to see whether that can be done at
/// all. What is wrong beyond that has been told at its own place. With each mistake the machines that have
/// it, where those are not all of its kin.
fn try_out<'a>(
    templates: &Templates,
    boot: &Boot<'a>,
    catalog: &Catalog,
) -> Vec<(Wrong, Option<Vec<&'a str>>)> {
    let profile = boot.profile;
    // That is told already.
    if !templates.knows(&profile.script)
        || templates.broken().contains_key(&profile.script)
        || profile.needs_image() && profile.image.is_none()
    {
        return Vec::new();
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
    let base = "http://192.0.2.2:8080";
    let scene = Scene { client: &client, mac, base, http: base };
    let script_of = |machine: Option<&Arc<Machine>>| {
        let who = boot.who(machine);
        Script { kind: Kind::of(profile, &who), who }
    };
    let script = script_of(boot.kin.map(|kin| kin.longest));
    let mut wrong = Vec::new();
    match script::render(templates, &script, catalog, scene) {
        Err(Refusal::Template(mistake)) => wrong.push((Wrong::Template(mistake), None)),
        Err(Refusal::Cmdline(error @ CmdlineError::TooLong { len, .. })) => {
            // Where the line alone is short enough, its template adds too much.
            if let Some(line) = line_of(profile, &script.who) {
                let excess = len - MAX_LEN;
                let machines = boot.kin.map(|kin| too_long_too(kin, boot, line, excess));
                let is_whole = boot.kin.zip(machines.as_ref());
                let is_whole = is_whole.is_none_or(|(kin, some)| kin.entries.len() == some.len());
                wrong.push((Wrong::Line(error), machines.filter(|_| !is_whole)));
            }
        }
        Ok(_)
        | Err(
            Refusal::Image(_) | Refusal::Cmdline(_) | Refusal::NoTemplate(_) | Refusal::NoFile(_),
        ) => {}
    }
    let mut try_file = |script: &Script, (name, path): (&str, &PathBuf), whose| {
        let is_broken = templates.answers().get(path).is_some_and(Result::is_err);
        if let Err(Refusal::Template(mistake)) =
            script::render_file(templates, (script, name), scene)
            && !is_broken
        {
            wrong.push((Wrong::Template(mistake), whose));
        }
    };
    let files: BTreeMap<&String, &PathBuf> =
        script.who.settings(Some(profile)).rev().flat_map(|said| &said.files).collect();
    let own = boot.kin.map(|kin| &kin.files);
    for (name, path) in files {
        if !own.is_some_and(|own| own.contains_key(name.as_str())) {
            try_file(&script, (name, path), None);
        }
    }
    // Machines that are alike otherwise may have a file each.
    for (name, paths) in own.into_iter().flatten() {
        for (path, machines) in paths {
            let some = || machines.iter().map(|machine| machine.name.as_str()).collect();
            let script = script_of(machines.first().copied());
            try_file(&script, (name, path), (paths.len() > 1).then(some));
        }
    }
    wrong
}

/// How long a kernel line is by itself, where it can be had.
fn line_of(profile: &Profile, who: &Who) -> Option<usize> {
    let image = profile.image.as_ref()?;
    Some(cmdline::kernel_line(profile, image, who).ok()?.len())
}

/// The machines among kin whose lines are too long too, where that of this length is by so much.
fn too_long_too<'a>(kin: &'a Kin<'a>, boot: &Boot<'_>, line: usize, excess: usize) -> Vec<&'a str> {
    let is_too_long = |machine: &Arc<Machine>| {
        let own = line_of(boot.profile, &boot.who(Some(machine)));
        own.is_some_and(|own| own + excess > line)
    };
    let entries = kin.entries.iter().filter(|(machine, _)| is_too_long(machine));
    entries.map(|(machine, _)| machine.name.as_str()).collect()
}

pub(super) fn place_of(mistake: &Mistake) -> Place {
    let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Place {
        line: number(mistake.line.unwrap_or(1)),
        column: number(mistake.columns.map_or(1, |(column, _)| column)),
    }
}

pub(super) fn quote_of(mistake: &Mistake, source: Option<&str>) -> Option<Quote> {
    let line = source?.lines().nth(mistake.line?.checked_sub(1)?)?;
    let (column, wide) = mistake.columns.unwrap_or((1, line.chars().count()));
    Some(Quote::marking(line, column - 1, wide))
}
