//! Templates, tried before a machine comes for them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Surroundings;
use crate::boot::catalog::{Catalog, Network, Profile};
use crate::boot::client::{Cpu, Facts};
use crate::boot::cmdline::{self, CmdlineError};
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

/// Machines that name one profile and say the same kinds of things: what a template makes of one of them, it
/// makes of all.
struct Alike<'a> {
    who: Who,
    names: Vec<&'a str>,
}

/// What machines say that a template may need: their variables, their own files, and what they tell of their
/// network.
type Shape<'a> = (&'a str, Vec<&'a String>, Vec<(&'a String, &'a PathBuf)>, [bool; 5]);

/// A mistake, and who has it.
struct Found<'a> {
    mistake: Mistake,
    profiles: Vec<&'a Trial>,
    machines: Vec<&'a str>,
}

/// Says now what would be refused at the boot by a profile's template or answer files: one mistake once,
/// however many have it.
pub(super) fn at_scripts(
    trials: &[Trial],
    catalog: &Catalog,
    (found, templates): (&Surroundings, &Templates),
    problems: &mut Problems,
) {
    let alike = alike(catalog);
    let mut mistakes: Vec<Found<'_>> = Vec::new();
    for trial in trials {
        // What such a template would say comes of another mistake.
        let is_flawed = |profile: &&Arc<Profile>| {
            let image = profile.image.as_ref().map(|image| format!("images.{}", image.name));
            problems.has_error_below(&trial.name.key)
                || image.is_some_and(|image| problems.has_error_below(&image))
        };
        let Some(profile) = catalog.profiles.get(&trial.name.value).filter(|p| !is_flawed(p))
        else {
            continue;
        };
        let group = catalog.groups.iter().find(|group| Arc::ptr_eq(&group.profile, profile));
        let nobody = [Alike { who: Who { machine: None, group: group.cloned() }, names: vec![] }];
        let all = alike.get(trial.name.value.as_str()).map_or(&nobody[..], Vec::as_slice);
        let made: Vec<Vec<Mistake>> =
            all.iter().map(|alike| try_out(templates, profile, &alike.who, catalog)).collect();
        let mut told: Vec<&Mistake> = Vec::new();
        for mistake in made.iter().flatten() {
            if told.contains(&mistake) {
                continue;
            }
            told.push(mistake);
            let having = || all.iter().zip(&made).filter(|(_, made)| made.contains(mistake));
            let at = match mistakes.iter().position(|found| found.mistake == *mistake) {
                Some(at) => at,
                None => {
                    let mistake = mistake.clone();
                    mistakes.push(Found { mistake, profiles: Vec::new(), machines: Vec::new() });
                    mistakes.len() - 1
                }
            };
            if having().count() == all.len() {
                mistakes[at].profiles.push(trial);
            } else {
                mistakes[at].machines.extend(having().flat_map(|(alike, _)| &alike.names));
            }
        }
    }
    for mistake in mistakes {
        tell(mistake, trials, found, problems);
    }
}

fn alike(catalog: &Catalog) -> BTreeMap<&str, Vec<Alike<'_>>> {
    let mut places: HashMap<Shape<'_>, usize> = HashMap::new();
    let mut alike: BTreeMap<&str, Vec<Alike<'_>>> = BTreeMap::new();
    for machine in catalog.machines().values() {
        let Some(profile) = &machine.profile else {
            continue;
        };
        let Network { ip, gateway, nic, hostname, dns } = &machine.network;
        let network =
            [ip.is_some(), gateway.is_some(), nic.is_some(), hostname.is_some(), !dns.is_empty()];
        let said = &machine.settings;
        let shape: Shape<'_> =
            (&profile.name, said.vars.keys().collect(), said.files.iter().collect(), network);
        let of_profile = alike.entry(&profile.name).or_default();
        let at = *places.entry(shape).or_insert_with(|| {
            let who = Who { machine: Some(Arc::clone(machine)), group: None };
            of_profile.push(Alike { who, names: Vec::new() });
            of_profile.len() - 1
        });
        of_profile[at].names.push(&machine.name);
    }
    alike
}

fn tell(
    Found { mistake, profiles, machines }: Found<'_>,
    trials: &[Trial],
    found: &Surroundings,
    problems: &mut Problems,
) {
    let profile_names: Vec<&str> = profiles.iter().map(|trial| trial.name.value.as_str()).collect();
    let whose: Vec<String> = [named("profile", &profile_names), named("machine", &machines)]
        .into_iter()
        .flatten()
        .collect();
    let whose = whose.join(" and ");
    let spoils = profiles.iter().map(|trial| format!("{}.script", trial.name.key));
    let spoils = spoils.chain(machines.iter().map(|name| format!("machines.{name}"))).collect();
    // Where it is a machine's own, its template is its profile's.
    let Some(Trial { name: first, script }) = profiles.first().copied().or(trials.first()) else {
        return;
    };
    let key = match (profiles.is_empty(), machines.first()) {
        (true, Some(machine)) => format!("machines.{machine}"),
        (true, None) | (false, _) => format!("{}.script", first.key),
    };
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
        true => format!("it is not served for {whose}"),
        false => format!("boots of {whose} are refused"),
    };
    match (template.or_else(answer), mistake.line) {
        (Some((path, Ok(source))), Some(_)) => {
            let at = (path, place_of(&mistake), quote_of(&mistake, Some(source)));
            let message = format!("{}; {refused}", mistake.message);
            problems.fault_elsewhere(&key, at, &message).spoils = spoils;
        }
        (Some(_) | None, _) => {
            let message = format!("{refused}: {mistake}");
            problems.fault(&key, *script, message).spoils = spoils;
        }
    }
}

/// `profiles a, b`, or `machines a, b, c and 997 more`.
fn named(what: &str, names: &[&str]) -> Option<String> {
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
        problems.fault_elsewhere("", at, &format!("{}; {until}", mistake.message))
    } else {
        problems.fault("server.boot_scripts", said, format!("{mistake}; {until}"))
    };
    told.spoils = spoils;
}

/// Renders a profile's script and its answer files for who may boot it, to see whether that can be done at
/// all. What is wrong beyond that has been told at its own place.
fn try_out(
    templates: &Templates,
    profile: &Arc<Profile>,
    who: &Who,
    catalog: &Catalog,
) -> Vec<Mistake> {
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
    let script = Script { kind: Kind::of(profile, who), who: who.clone() };
    let mut mistakes = Vec::new();
    match script::render(templates, &script, catalog, scene) {
        Err(Refusal::Template(mistake)) => mistakes.push(mistake),
        // The line alone is short enough: its template adds too much.
        Err(Refusal::Cmdline(error @ CmdlineError::TooLong { .. }))
            if profile
                .image
                .as_ref()
                .is_some_and(|image| cmdline::kernel_line(profile, image, who).is_ok()) =>
        {
            let message = error.to_string();
            mistakes.push(Mistake { file: None, line: None, columns: None, message });
        }
        Ok(_)
        | Err(
            Refusal::Image(_) | Refusal::Cmdline(_) | Refusal::NoTemplate(_) | Refusal::NoFile(_),
        ) => {}
    }
    let files: BTreeMap<&String, &PathBuf> =
        who.settings(Some(profile)).rev().flat_map(|said| &said.files).collect();
    for (name, path) in files {
        let is_broken = templates.answers().get(path).is_some_and(Result::is_err);
        if let Err(Refusal::Template(mistake)) =
            script::render_file(templates, (&script, name), scene)
            && !is_broken
        {
            mistakes.push(mistake);
        }
    }
    mistakes
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
