//! `reveille backup` and `reveille restore`

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::Value;

use super::ConfigFile;
use super::output::{print, tell};
use super::put::Existing;
use super::running::{ask_running, claim, own_state, state_of_daemon};
use super::status::{counted, duration, now};
use crate::admin::control::Request;
use crate::config::loader::Source;
use crate::state::registry::loss;
use crate::state::registry::store::{Content, Store};

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where the copy goes
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    /// What `reveille backup` wrote, or a copy that reveille put aside
    #[arg(value_name = "FILE")]
    from: PathBuf,
    #[command(flatten)]
    file: ConfigFile,
}

/// Copies the registry as it is at one moment, whether a daemon writes it or not.
pub(super) fn backup(Backup { to, force, file }: Backup) -> Result<ExitCode> {
    let source = Source::find(file.config)?;
    let existing = if force { Existing::IsReplaced } else { Existing::Stays };
    existing.look(&to)?;
    if to.is_dir() {
        bail!("{} is a folder; name a file in it", to.display());
    }
    let state = match state_of_daemon(&source.places())? {
        Some(state) => {
            // The disk may be behind the memory.
            ask_running::<Value>(&source, &Request::Flush {})
                .context("the registry on the disk lacks what is known of machines")?;
            state
        }
        None => own_state(&source, |state| Store::path(state).exists())?,
    };
    let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let cannot = || format!("cannot write {}", to.display());
    let copy = tempfile::Builder::new()
        .prefix(".reveille-new-")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .with_context(cannot)?;
    Store::copy(&state, copy.path())?;
    let Content { machines, .. } = Store::read_file(copy.path())?;
    match existing {
        Existing::Stays => copy.persist_noclobber(&to).map_err(|error| error.error),
        Existing::IsReplaced => copy.persist(&to).map_err(|error| error.error),
    }
    .with_context(cannot)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(cannot)?;
    let count = counted(machines.iter().count() as u64, "machine");
    print(&format!("saved {count} of {} to {}\n", state.display(), to.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Puts a copy in place of the registry.
pub(super) fn restore(Restore { from, file }: Restore) -> Result<ExitCode> {
    let source = Source::find(file.config)?;
    let places = source.places();
    if let Some(state) = state_of_daemon(&places)? {
        bail!(
            "a reveille runs with the state folder {}: stop it first (as a service: `systemctl stop reveille`)",
            state.display()
        );
    }
    if let Some(conflict) = &places.conflict {
        bail!("{conflict}");
    }
    let state = &places.chosen.folder;
    let from = from.canonicalize().with_context(|| format!("cannot read {}", from.display()))?;
    let content = Store::read_file(&from).map_err(|error| anyhow!(error)).with_context(|| {
        format!("{} cannot be restored, and nothing was changed", from.display())
    })?;
    let Content { machines, loss: lost } = content;
    fs::create_dir_all(state).with_context(|| format!("cannot make {}", state.display()))?;
    let _claim = claim(state)?;
    let aside = Store::move_aside(state, "before-restore")?;
    Store::put(state, &machines, lost.as_ref())?;
    loss::consume(state)?;
    if aside.exists() {
        tell(format_args!("reveille: the registry before is kept as {}", aside.display()));
    }
    let latest = machines.iter().filter_map(|entry| entry.state.last_seen).max();
    let latest = latest.map_or("never".to_owned(), |time| {
        format!("{} ago", duration(now().saturating_sub(time.millis() / 1000)))
    });
    print(&format!(
        "restored {} to {}; the last one in it was seen {latest}\nwhat machines did since then is not in it: one that was installed since then installs once more, and `reveille disk NAME` keeps it on its disk\n",
        counted(machines.iter().count() as u64, "machine"),
        state.display()
    ))?;
    let ordered = machines.iter().filter(|entry| entry.state.orders.armed.is_some());
    let ordered: Vec<String> = ordered.map(|entry| entry.subject().to_string()).collect();
    if !ordered.is_empty() {
        tell(format_args!(
            "reveille: orders in the backup count again, also if they were used up or withdrawn since: {}; `reveille disarm` withdraws them",
            ordered.join(", ")
        ));
    }
    if let Some(lost) = lost {
        tell(format_args!(
            "reveille: the backup was made after a loss that nobody has accepted ({}): machines whose profile wipes hold until `reveille state accept`",
            lost.what
        ));
    }
    Ok(ExitCode::SUCCESS)
}
