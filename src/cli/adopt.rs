//! `reveille adopt`

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use super::ConfigFile;
use super::output::{print, tell};
use super::put::{Existing, Piece, put};
use super::running::{Remembered, ask_running, remembered};
use crate::admin::control::Request;
use crate::admin::machine_view::Machine;
use crate::admin::operations::Reloaded;
use crate::admin::operations::machines::{self, Story};
use crate::config::loader::Source;
use crate::pure::client::Mac;
use crate::pure::config::edit::{Entry, entry, with_machine};
use crate::sys::files::{Bound, read_text};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The machine: its MAC, serial number or address
    machine: String,
    /// The name that it gets
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it boots; where this is left out, what its group or `unknown` says
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Only print the entry
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { machine: who, name, profile, print: is_printed, file } = arguments;
    let source = Source::find(file.config)?;
    let machine = seen(&source, &who)?;
    let mac = match (&machine, who.parse::<Mac>()) {
        (Some(machine), _) => {
            if let Some(known) = &machine.name {
                bail!("{who} is in the config already, as machine {known}");
            }
            *machine.macs.last().with_context(|| format!("{who} has told no MAC address"))?
        }
        (None, Ok(mac)) => {
            tell(format_args!("reveille: {mac} was never seen; it is entered all the same"));
            mac
        }
        (None, Err(_)) => bail!(
            "no machine was seen that has `{who}` for its serial number or address; `reveille machines --unknown` lists those that were"
        ),
    };
    let new = Entry { name, mac, profile, comment: machine.as_ref().and_then(comment) };
    let text = entry(&new);
    if is_printed {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Source::File(path) = &source else {
        bail!("there is no config file to enter it into; `reveille init` writes one");
    };
    enter(path, &new).map_err(|why| {
        anyhow!("{} is not changed: {why:#}\nThe entry would be\n\n{text}", path.display())
    })?;
    print(&format!("{}: entered\n{text}", path.display()))?;
    // Whoever orders something for it next means the name.
    match ask_running::<Reloaded>(&source, &Request::Reload {})? {
        Some((Reloaded { refused: Some(refused), .. }, _)) => {
            tell(format_args!("reveille: the daemon does not take it up:\n{refused}"));
            Ok(ExitCode::FAILURE)
        }
        Some(_) | None => Ok(ExitCode::SUCCESS),
    }
}

/// What is known of it, where it was seen.
fn seen(source: &Source, who: &str) -> Result<Option<Machine>> {
    let request = Request::Machine { who: who.to_owned() };
    let story = match ask_running::<Story>(source, &request) {
        Ok(Some((story, _))) => Some(story),
        Ok(None) => {
            let Remembered { config, known, .. } = remembered(source)?;
            machines::story(&config, &known, who, |_| Vec::new()).ok()
        }
        Err(error) => match error.downcast_ref() {
            Some(crate::admin::control::AskError::Refused(_)) => None,
            _ => return Err(error),
        },
    };
    Ok(story.map(|story| story.machine))
}

/// What somebody may want to know of it later.
fn comment(machine: &Machine) -> Option<String> {
    let told = [&machine.vendor, &machine.product].into_iter().flatten();
    let mut told: Vec<String> = told.cloned().collect();
    if told.is_empty() {
        told.extend(machine.firmware.clone());
    }
    let serial = machine.serial.as_ref().map(|serial| format!("serial {serial}"));
    let what = told.join(" ");
    let all: Vec<String> =
        [what].into_iter().filter(|what| !what.is_empty()).chain(serial).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Writes it into the file, unless that would be worse for it.
fn enter(path: &Path, new: &Entry) -> Result<()> {
    let old =
        read_text(path, Bound::CONFIG).map_err(|reason| anyhow!("{}: {reason}", path.display()))?;
    let text = with_machine(&old, new)?;
    let mode = path.metadata().map_or(0o644, |metadata| metadata.permissions().mode() & 0o7777);
    let piece = Piece { path, content: &text, mode, folder_mode: 0o755 };
    put(&[piece], Existing::IsReplaced, |written| {
        // Beside the old one, so that what it names is found.
        let errors = |path: &Path| Source::File(path.to_owned()).load().err();
        match (errors(path), errors(written)) {
            // What was wrong before is no reason.
            (Some(_), _) | (_, None) => Ok(()),
            (None, Some(error)) => {
                // What was looked at goes by another name until it is in its place.
                let name =
                    |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
                let [written, name] = [written, path].map(|path| name(path).unwrap_or_default());
                let error = error.to_string().replace(&written, &name);
                bail!("the config would have errors with it:\n{error}")
            }
        }
    })
}
