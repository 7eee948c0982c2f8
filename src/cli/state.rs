//! `reveille state`, `reveille state new` and `reveille state accept`

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};

use super::ConfigFile;
use super::output::{print, tell};
use super::running::{ask_running, claim, none_runs, state_of_daemon};
use super::status::{counted, duration, now};
use crate::admin::control::Request;
use crate::admin::operations::Status;
use crate::admin::operations::lost::LostState;
use crate::config::loader::Source;
use crate::config::state_folder::{Places, word};
use crate::pure::event::boot::{Event, Step};
use crate::state::registry::loss::{self, Loss};
use crate::state::registry::machines::{Entry, Machines};
use crate::state::registry::store::{Content, Store};
use crate::state::registry::{open_store, peek};
use crate::state::sqlite::DatabaseError;

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
    /// init` permits it too. A folder that has a registry, or a copy of one that can be used, is refused: installed
    /// machines would count as first boots.
    New(New),
    /// Accept that the registry, or a part of it, is lost: machines whose profile wipes hold no longer.
    ///
    /// A machine whose completed boot was forgotten then boots as if for the first time, and installs once more.
    /// `reveille disk NAME` keeps an installed machine on its disk. A registry that is missing or damaged is replaced by
    /// its copy first, as the daemon does. To bring back a backup, use `reveille restore`.
    Accept,
}

#[derive(Debug, Args)]
struct New {
    /// Begin anew although there is a registry, or a copy: both are put aside, and installed machines install once more
    #[arg(long)]
    forget_machines: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    match arguments.command {
        None => show(&source),
        Some(StateCommand::New(arguments)) => new(&source, arguments),
        Some(StateCommand::Accept) => accept(&source),
    }
}

/// Exits with 1 if something was lost, or cannot be read or written.
fn show(source: &Source) -> Result<ExitCode> {
    let places = source.places();
    let running = state_of_daemon(&places)?;
    let state = match &running {
        Some(state) => state,
        None => only(&places)?,
    };
    require_readable(state)?;
    let status = match &running {
        Some(_) => ask_running::<Status>(source, &Request::Status {})?.map(|(status, _)| status),
        None => None,
    };
    let mut text = String::new();
    let mut row = |word: &str, what: String| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{word:<14}{what}");
    };
    let found = places.all().find(|place| place.folder == state);
    row("state folder", found.map_or(state.display().to_string(), ToString::to_string));
    row("daemon", if running.is_some() { "runs" } else { "does not run" }.to_owned());
    let (found, unreadable) = registry(state);
    row("registry", found);
    row("copy", copy(state));
    let (lost, not_kept) = match status {
        Some(Status { lost, not_kept, .. }) => (Ok(lost.map(|lost| lost.loss)), not_kept),
        None => (peek(state).map(|content| content.loss), None),
    };
    row(
        "lost",
        match &lost {
            Ok(Some(loss)) => loss.what.clone(),
            Ok(None) => "nothing".to_owned(),
            Err(_) => "unknown, because the registry cannot be read".to_owned(),
        },
    );
    match (&lost, &unreadable) {
        (Ok(Some(loss)), _) => row("next", next_step(source, (state, running.is_some()), loss)),
        (Ok(None), Some(DatabaseError::Damaged { path, .. })) if running.is_some() => {
            row("next", rewritten_from_memory(path));
        }
        (Ok(None) | Err(_), _) => {}
    }
    if let Some(reason) = &not_kept {
        row("not written", format!("{reason}; the daemon retries every 5 s"));
    }
    print(&text)?;
    for warning in &places.warnings {
        tell(format_args!("reveille: state folder: {warning}"));
    }
    if let Some(conflict) = &places.conflict {
        tell(format_args!("reveille: {conflict}"));
    }
    let is_sound = matches!(lost, Ok(None)) && unreadable.is_none() && not_kept.is_none();
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// That this user may read the registry of a state folder: otherwise it looks as if there were none.
///
/// # Errors
/// This user may not.
fn require_readable(state: &Path) -> Result<()> {
    let path = Store::path(state);
    match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
            "cannot read the registry {}: user {} may not; run this as root (sudo), or as the daemon's user",
            path.display(),
            nix::unistd::geteuid()
        ),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What the registry of a state folder is, and why it cannot be read if it exists.
fn registry(state: &Path) -> (String, Option<DatabaseError>) {
    let path = Store::path(state);
    match Store::inspect(state) {
        Ok(Content { machines, .. }) => (format!("{}, {}", path.display(), count(&machines)), None),
        Err(_) if !path.exists() && loss::marker(state).exists() => {
            ("none yet; the next start begins one".to_owned(), None)
        }
        Err(_) if !path.exists() => ("none".to_owned(), None),
        Err(error) => (format!("cannot be read: {error}"), Some(error)),
    }
}

/// What the operator does about a file that was damaged under the running daemon.
fn rewritten_from_memory(path: &Path) -> String {
    let [from, to] = ["", ".damaged"].map(|end| word(&format!("{}{end}", path.display())));
    format!(
        "the daemon holds all machines in memory: `mv {from} {to}` makes it write a new registry within seconds; do not stop it before"
    )
}

/// What its verified copy is.
fn copy(state: &Path) -> String {
    let Some(age) = Store::age_of_previous(state) else { return "none yet".to_owned() };
    let old = format!("{}, {} old", Store::previous(state).display(), duration(age.as_secs()));
    match Store::read_previous(state) {
        Ok(machines) => format!("{old}, {}", count(&machines)),
        Err(error) => format!("{old}, cannot be used: {error}"),
    }
}

fn count(machines: &Machines) -> String {
    counted(machines.iter().count() as u64, "machine")
}

/// What the operator does about a loss.
fn next_step(source: &Source, (state, runs): (&Path, bool), loss: &Loss) -> String {
    let with = source.arguments();
    let accept = format!("`reveille state accept{with}`");
    let restore = format!("`reveille restore FILE{with}`");
    if runs {
        return format!(
            "{accept} accepts the loss; or stop reveille, and {restore} brings a backup back"
        );
    }
    if Store::inspect(state).is_ok() {
        return format!("{accept} accepts the loss, or {restore} brings a backup back");
    }
    let previous = Store::previous(state);
    let new = format!("`reveille state new{with}`");
    if Store::read_previous(state).is_ok() {
        return format!(
            "`reveille serve{with}` or `reveille restore {}{with}` brings the copy back; then {accept}",
            word(&previous.display().to_string())
        );
    }
    if Store::path(state).exists() {
        return format!(
            "{restore} brings a backup back, or {accept} begins a registry without the machines of this one"
        );
    }
    if loss.is_new_folder {
        return format!("{new} permits the first registry of this folder");
    }
    format!(
        "{restore} brings a backup back; without one {new} begins anew, and installed machines install once more"
    )
}

fn new(source: &Source, New { forget_machines }: New) -> Result<ExitCode> {
    let places = source.places();
    if let Some(state) = state_of_daemon(&places)? {
        bail!(
            "a reveille runs with the state folder {}, and has its registry; `reveille state accept` accepts what was lost",
            state.display()
        );
    }
    let state = only(&places)?;
    require_readable(state)?;
    let path = Store::path(state);
    if !forget_machines {
        may_be_new(source, state)?;
    }
    // With a marker alone there is nothing that somebody else could use.
    let _claim = path.exists().then(|| claim(state)).transpose()?;
    loss::permit(state)
        .with_context(|| format!("cannot write {}", loss::marker(state).display()))?;
    if path.exists() {
        let aside = Store::move_aside(state, "old")?;
        tell(format_args!("reveille: the registry before is kept as {}", aside.display()));
    }
    if Store::previous(state).exists() {
        let aside = Store::move_previous_aside(state)?;
        tell(format_args!(
            "reveille: the copy of an earlier registry is kept as {}",
            aside.display()
        ));
    }
    print(&format!("the next start begins a new registry in {}\n", state.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// That a new registry forgets no machine.
///
/// # Errors
/// There is a registry, or a copy that can be used.
fn may_be_new(source: &Source, state: &Path) -> Result<()> {
    let with = source.arguments();
    let path = Store::path(state);
    let anew = format!(
        "`reveille state new --forget-machines{with}` begins anew all the same, and installed machines install once more"
    );
    if path.exists() {
        bail!(
            "{} exists; `reveille state accept{with}` accepts what was lost of it; {anew}",
            path.display()
        );
    }
    if Store::read_previous(state).is_ok() {
        let loss = Loss::of_all(state);
        bail!(
            "{} is missing, and there is a copy of it: {}; {}; {anew}",
            path.display(),
            copy(state),
            next_step(source, (state, false), &loss)
        );
    }
    Ok(())
}

fn accept(source: &Source) -> Result<ExitCode> {
    let accepted = match ask_running::<Option<LostState>>(source, &Request::AcceptLoss {})? {
        Some((lost, _)) => lost.map(|lost| lost.loss),
        None => {
            let places = source.places();
            let state = only(&places)?;
            require_readable(state)?;
            let is_there = Store::path(state).exists() || Store::previous(state).exists();
            match is_there {
                true => accept_without_daemon(state)?,
                false if loss::marker(state).exists() => None,
                false => bail!(
                    "{}; there is neither a registry nor a copy of one in {}: {}",
                    none_runs(source),
                    state.display(),
                    next_step(source, (state, false), &Loss::of_all(state))
                ),
            }
        }
    };
    print(&match accepted {
        Some(Loss { at, what, .. }) => format!(
            "accepted what was lost {} ago: {what}\nmachines whose profile wipes hold no longer; orders from before are withdrawn; one whose boot was forgotten installs once more, and `reveille disk NAME` keeps it on its disk\n",
            duration(now().saturating_sub(at))
        ),
        None => "nothing is lost\n".to_owned(),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn accept_without_daemon(state: &Path) -> Result<Option<Loss>> {
    let _claim = claim(state)?;
    let (mut store, content) = open_store(state).map_err(|error| anyhow!(error))?;
    if let Some(loss) = &content.loss {
        let stale = content.machines.iter().filter(|entry| loss.outdates(entry));
        let withdrawn = stale.map(|entry| {
            let mut entry = entry.clone();
            let event = Event { subject: entry.subject(), step: Step::Disarmed {} };
            Arc::make_mut(&mut entry.state).apply(&event, None, SystemTime::now());
            entry
        });
        store.write(&withdrawn.collect::<Vec<Entry>>(), &[])?;
    }
    store.set_loss(None)?;
    store.close()?;
    Ok(content.loss)
}

fn only(places: &Places) -> Result<&Path> {
    match &places.conflict {
        Some(conflict) => bail!("{conflict}"),
        None => Ok(&places.chosen.folder),
    }
}
