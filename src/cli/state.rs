//! `reveille state`, `reveille state new` and `reveille state accept`

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};

use super::ConfigFile;
use super::output::{print, tell};
use super::running::{ask_running, claim, none_runs, state_of_daemon};
use super::status::{counted, duration, now};
use crate::config::load::Source;
use crate::config::places::Places;
use crate::control::Request;
use crate::operations::lost::LostState;
use crate::registry::loss::{self, Loss};
use crate::registry::store::{Content, Store};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(subcommand)]
    command: Option<StateCommand>,
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Make the state folder if need be, and permit a new registry in it, as before the first start.
    ///
    /// Without that permission a missing registry counts as lost, and machines whose profile wipes hold. `reveille
    /// init` permits it too.
    New,
    /// Accept that the registry, or a part of it, is lost: machines whose profile wipes hold no longer.
    ///
    /// A machine whose completed boot was forgotten then boots as if for the first time, and installs once more.
    /// `reveille disk NAME` keeps an installed machine on its disk. To bring the registry back, use `reveille
    /// restore`.
    Accept,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    match arguments.command {
        None => show(&source),
        Some(StateCommand::New) => new(&source),
        Some(StateCommand::Accept) => accept(&source),
    }
}

/// Exits with 1 if something was lost.
fn show(source: &Source) -> Result<ExitCode> {
    let places = source.places();
    let running = state_of_daemon(&places)?;
    let state = running.as_deref().unwrap_or(&places.chosen.folder);
    let mut text = String::new();
    let mut row = |word: &str, what: String| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{word:<14}{what}");
    };
    let found = places.all().find(|place| place.folder == state);
    row("state folder", found.map_or(state.display().to_string(), ToString::to_string));
    row("daemon", if running.is_some() { "runs" } else { "does not run" }.to_owned());
    let loss = match inspect(state) {
        Ok((what, loss)) => {
            row("registry", what);
            loss
        }
        Err(error) => {
            row("registry", format!("cannot be read: {error:#}"));
            None
        }
    };
    row(
        "copy",
        match Store::age_of_previous(state) {
            Some(age) => {
                format!("{}, {} old", Store::previous(state).display(), duration(age.as_secs()))
            }
            None => "none yet".to_owned(),
        },
    );
    row(
        "lost",
        match &loss {
            Some(loss) => format!(
                "{}; `reveille restore FILE` brings it back, `reveille state accept` accepts the loss",
                loss.what
            ),
            None => "nothing".to_owned(),
        },
    );
    print(&text)?;
    for warning in places.warnings.iter().chain(&places.conflict) {
        tell(format_args!("reveille: state folder: {warning}"));
    }
    Ok(if loss.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the registry of a state folder is, and what is lost of it.
fn inspect(state: &Path) -> Result<(String, Option<Loss>)> {
    let path = Store::path(state);
    if !path.exists() {
        if loss::marker(state).exists() {
            return Ok(("none yet; the next start begins one".to_owned(), None));
        }
        return Ok(("none".to_owned(), Some(Loss::of_all(state))));
    }
    let Content { machines, loss } = Store::inspect(state)?;
    Ok((
        format!("{}, {}", path.display(), counted(machines.iter().count() as u64, "machine")),
        loss,
    ))
}

fn new(source: &Source) -> Result<ExitCode> {
    let places = source.places();
    if let Some(state) = state_of_daemon(&places)? {
        bail!(
            "a reveille runs with the state folder {}, and has its registry; `reveille state accept` accepts what was lost",
            state.display()
        );
    }
    let state = only(&places)?;
    let path = Store::path(state);
    if path.exists() {
        bail!(
            "{} exists; `reveille state accept` accepts what was lost of it; to begin anew, move it away first",
            path.display()
        );
    }
    loss::permit(state)
        .with_context(|| format!("cannot write {}", loss::marker(state).display()))?;
    let previous = Store::previous(state);
    if previous.exists() {
        let aside = Store::move_previous_aside(state)?;
        tell(format_args!(
            "reveille: the copy of an earlier registry is kept as {}",
            aside.display()
        ));
    }
    print(&format!("the next start begins a new registry in {}\n", state.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn accept(source: &Source) -> Result<ExitCode> {
    let accepted = match ask_running::<Option<LostState>>(source, &Request::AcceptLoss {})? {
        Some((lost, _)) => lost.map(|lost| lost.loss),
        None => {
            let places = source.places();
            let state = only(&places)?;
            if !Store::path(state).exists() {
                bail!(
                    "{}; there is no registry in {}: `reveille state new` permits a new one",
                    none_runs(source),
                    state.display()
                );
            }
            let _claim = claim(state)?;
            let (mut store, content) = Store::open(state).map_err(|error| anyhow!(error))?;
            store.set_loss(None)?;
            store.close()?;
            content.loss
        }
    };
    print(&match accepted {
        Some(Loss { at, what, .. }) => format!(
            "accepted what was lost {} ago: {what}\nmachines whose profile wipes hold no longer; one whose boot was forgotten installs once more, and `reveille disk NAME` keeps it on its disk\n",
            duration(now().saturating_sub(at))
        ),
        None => "nothing is lost\n".to_owned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn only(places: &Places) -> Result<&Path> {
    match &places.conflict {
        Some(conflict) => bail!("{conflict}"),
        None => Ok(&places.chosen.folder),
    }
}
