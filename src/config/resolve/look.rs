//! Templates, tried before a machine comes for them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::Path;
use std::sync::Arc;

use super::Surroundings;
use crate::boot::catalog::{Catalog, Profile};
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

/// Says now what would be refused at the boot by a profile's template: one mistake once, however many
/// profiles have it.
pub(super) fn at_scripts(
    trials: &[Trial],
    catalog: &Catalog,
    (found, templates): (&Surroundings, &Templates),
    problems: &mut Problems,
) {
    let mut mistakes: Vec<(Mistake, Vec<&Trial>)> = Vec::new();
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
        if let Err(mistake) = try_script(templates, profile, catalog) {
            match mistakes.iter_mut().find(|(other, _)| *other == mistake) {
                Some((_, having)) => having.push(trial),
                None => mistakes.push((mistake, vec![trial])),
            }
        }
    }
    for (mistake, having) in mistakes {
        let Trial { name: first, script } = having[0];
        let names: Vec<&str> = having.iter().map(|trial| trial.name.value.as_str()).collect();
        let plural = if names.len() == 1 { "" } else { "s" };
        let refused = format!("boots of profile{plural} {} are refused", names.join(", "));
        let key = format!("{}.script", first.key);
        let spoils = having.iter().map(|trial| format!("{}.script", trial.name.key)).collect();
        let file = mistake.file.as_deref().and_then(|file| file.strip_suffix(".ipxe"));
        let source = file.and_then(|name| Some((name, found.templates.get(name)?)));
        match (source, mistake.line) {
            (Some((file, Ok(source))), Some(_)) => {
                let path = found.boot_scripts.join(format!("{file}.ipxe"));
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

/// Renders a profile's script for a machine that is none, to see whether it can be rendered at all.
fn try_script(
    templates: &Templates,
    profile: &Arc<Profile>,
    catalog: &Catalog,
) -> Result<(), Mistake> {
    // That is told already.
    if !templates.knows(&profile.script)
        || templates.broken().contains_key(&profile.script)
        || profile.needs_image() && profile.image.is_none()
    {
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
    let base = "http://192.0.2.2:8080";
    let scene = Scene { client: &client, mac, base, http: base };
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
    let own_line =
        profile.image.as_ref().map(|image| cmdline::kernel_line(profile, image, &script.who));
    match script::render(templates, &script, catalog, scene) {
        Err(Refusal::Template(mistake)) => Err(mistake),
        // The line alone is short enough: its template adds too much.
        Err(Refusal::Cmdline(error @ CmdlineError::TooLong { .. }))
            if matches!(own_line, Some(Ok(_))) =>
        {
            let message = error.to_string();
            Err(Mistake { file: None, line: None, columns: None, message })
        }
        // These have been told, each at its own place.
        Ok(_)
        | Err(
            Refusal::Image(_) | Refusal::Cmdline(_) | Refusal::NoTemplate(_) | Refusal::NoFile(_),
        ) => Ok(()),
    }
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
