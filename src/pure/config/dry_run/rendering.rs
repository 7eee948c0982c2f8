//! Templates and answer files, filled in for who may boot with them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::combinations::{Boot, Kin};
use crate::pure::boot::decide::{Kind, Script};
use crate::pure::catalog::image_set::KERNEL_NAME;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::{Catalog, Machine, Profile};
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Arch, Client, Cpu, Facts, Mac, Stage};
use crate::pure::script::cmdline::{self, CmdlineError, MAX_LEN};
use crate::pure::script::render::{self, Refusal, Rendered, Scene};
use crate::pure::script::templates::{Mistake, Templates};

/// What a trial showed to be wrong.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// With a template or an answer file.
    Template(Mistake),
    /// A template adds so much to a kernel line that it is too long.
    Line(CmdlineError),
}

/// What of it tells it from others: file, line, column and words; of a line too long what is longest in it.
pub(crate) type Key = (Option<String>, Option<usize>, Option<(usize, usize)>, String);

impl Wrong {
    pub(crate) fn key(&self) -> Key {
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

    pub(crate) fn into_mistake(self) -> Mistake {
        match self {
            Self::Template(mistake) => mistake,
            Self::Line(error) => {
                Mistake { file: None, line: None, columns: None, message: error.to_string() }
            }
        }
    }
}

/// Renders a profile's script and its answer files for who may boot it, to see whether that can be done at
/// all. What is wrong beyond that has been told at its own place. With each mistake the machines that have
/// it, where those are not all of its kin.
pub(crate) fn try_out<'a>(
    templates: &Templates,
    boot: &Boot<'a>,
    catalog: &Catalog,
    shelf: &Shelf,
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
        facts: Some(Facts {
            serial: some(),
            product: some(),
            vendor: some(),
            cpu: Some(Cpu::X64),
            ..Facts::default()
        }),
        ..Client::at(Stage::Ipxe)
    };
    let base = "http://192.0.2.2:8080";
    // A boot has them, and the kernel line is as much longer.
    let id = Some(BootId::new([0; 16]));
    let scene = Scene { client: &client, mac, base, http: base, id, file_id: id, shelf };
    let script_of = |machine: Option<&Arc<Machine>>| {
        let who = boot.who(machine);
        Script::new(Kind::of(profile, &who), who)
    };
    let mut script = script_of(boot.kin.map(|kin| kin.longest));
    let mut rendered = render::render(templates, &script, catalog, scene);
    if let (Some(kin), Ok(Rendered { text, .. })) = (boot.kin, &rendered)
        && let Some(longest) = with_longest_line((kin, boot), text, shelf)
    {
        script = script_of(Some(longest));
        rendered = render::render(templates, &script, catalog, scene);
    }
    let mut wrong = Vec::new();
    match rendered {
        Err(Refusal::Template(mistake)) => wrong.push((Wrong::Template(mistake), None)),
        Err(Refusal::Cmdline(error @ CmdlineError::TooLong { len, .. })) => {
            // Where the line alone is short enough, its template adds too much.
            if let Some(line) = line_of(profile, &script.who, shelf) {
                let excess = len - MAX_LEN;
                let machines = boot.kin.map(|kin| too_long_too((kin, boot), (line, excess), shelf));
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
            render::render_file(templates, (script, name), scene)
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
fn line_of(profile: &Profile, who: &Who, shelf: &Shelf) -> Option<usize> {
    let image = profile.image.as_ref()?;
    Some(cmdline::kernel_line(profile, image, who, shelf).ok()?.len())
}

/// The machine among kin whose line really is the longest, where this matters: what a machine says may come in
/// place of something else, so that the one that says most need not be it. `text` is the script of that one.
fn with_longest_line<'a>(
    (kin, boot): (&'a Kin<'a>, &Boot<'_>),
    text: &str,
    shelf: &Shelf,
) -> Option<&'a Arc<Machine>> {
    let of = |machine| line_of(boot.profile, &boot.who(machine), shelf);
    let made = render::kernel_lines(text).map(str::len).max()?;
    let added = made.saturating_sub(of(Some(kin.longest))?);
    if KERNEL_NAME.len() + 1 + of(None)? + added + kin.most_bytes <= MAX_LEN {
        return None;
    }
    kin.entries.iter().map(|(machine, _)| machine).max_by_key(|machine| of(Some(machine)))
}

/// The machines among kin whose lines are too long too, where that of this length is by so much.
fn too_long_too<'a>(
    (kin, boot): (&'a Kin<'a>, &Boot<'_>),
    (line, excess): (usize, usize),
    shelf: &Shelf,
) -> Vec<&'a str> {
    let is_too_long = |machine: &Arc<Machine>| {
        let own = line_of(boot.profile, &boot.who(Some(machine)), shelf);
        own.is_some_and(|own| own + excess > line)
    };
    let entries = kin.entries.iter().filter(|(machine, _)| is_too_long(machine));
    entries.map(|(machine, _)| machine.name.as_str()).collect()
}
