//! Whether the registry was lost, and whether the operator has accepted that: stored in the registry itself.
//!
//! A machine whose completed boot is forgotten looks as if its first boot were due. So a registry that begins
//! without the marker file of `reveille init` or `reveille state new`, or lacks its latest changes, counts as lost
//! until the operator accepts it.
//!
//! A change that cannot be written leaves a trace that needs no space: a file beside the registry is renamed, and
//! renamed back when all is written.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::machines::Entry;
use crate::pure::machine::orders::RegistryFault;
use crate::pure::machine::time::Time;
use crate::state::sqlite::FOLDER;

/// The length in bytes beyond which a description of what was lost is not extended.
const LONG: usize = 600;
/// The file in the state folder that permits a new registry.
const MARKER: &str = "new";

const TEXT: &str = "This file permits reveille to begin a new registry in this folder. It is removed once that exists.\n";

/// A file beside the registry that says by its name that all is written.
const WRITTEN: &str = "registry.written";
/// The name of that file while a change is not written. It was modified when the first such change failed.
const UNWRITTEN: &str = "registry.unwritten";

const TRACE: &str = "reveille renames this file to registry.unwritten while a change of the registry is not written.\n";

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When that was noticed, in seconds since 1970.
    pub at: u64,
    /// Milliseconds after that: an order that was given before does not count.
    #[serde(default)]
    pub millis: u32,
    /// What is missing, and why.
    pub what: String,
    /// Whether nothing in the state folder was older than the registry: it may be the first start.
    pub is_new_folder: bool,
}

impl Loss {
    /// Noticed now.
    pub fn now(what: String) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { at: at.as_secs(), millis: at.subsec_millis(), what, is_new_folder: false }
    }

    /// When it was noticed.
    pub fn noticed(&self) -> Time {
        Time::from_millis(self.at.saturating_mul(1000).saturating_add(self.millis.into()))
    }

    /// Whether this machine has an order from before it.
    pub fn outdates(&self, entry: &Entry) -> bool {
        let armed = entry.state.orders.armed.as_ref();
        armed.is_some_and(|armed| armed.since < self.noticed())
    }

    /// The daemon before ended while changes were not written.
    pub fn unwritten(since: SystemTime) -> Self {
        let since = Timestamp::try_from(since).unwrap_or(Timestamp::UNIX_EPOCH);
        let since = since.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z");
        Self::now(format!(
            "from {since} on not all changes could be written before reveille ended: boots that machines completed since then, and orders that were used up, may be missing"
        ))
    }

    /// With what else was lost. Of very much the first is kept.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let is_long = self.what.len() > LONG;
        let what = if is_long { self.what } else { format!("{}; {}", self.what, other.what) };
        let (at, millis) = (self.at, self.millis).max((other.at, other.millis));
        Self { at, millis, what, is_new_folder: false }
    }

    /// There is no registry, and nothing permits a new one.
    pub fn of_all(state: &Path) -> Self {
        let what =
            format!("{} held neither a registry nor the marker of a new one", state.display());
        let names = fs::read_dir(state.join(FOLDER)).into_iter().flatten().flatten();
        // Copies, what was put aside, and the trace. The journal was opened just now.
        let is_used = names
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("registry."));
        Self { is_new_folder: !is_used, ..Self::now(what) }
    }
}

/// Where the marker of a state folder is.
pub fn marker(state: &Path) -> PathBuf {
    state.join(MARKER)
}

/// Permits a new registry in a state folder, which is made if need be.
///
/// # Errors
/// The marker cannot be written.
pub fn permit(state: &Path) -> io::Result<()> {
    fs::create_dir_all(state)?;
    fs::write(marker(state), TEXT)?;
    fs::File::open(marker(state))?.sync_all()?;
    fs::File::open(state)?.sync_all()
}

/// Since when a change is not written. None if all is.
pub fn unwritten_since(state: &Path) -> Option<SystemTime> {
    fs::metadata(trace(state, UNWRITTEN)).and_then(|metadata| metadata.modified()).ok()
}

/// Leaves the trace that a change is not written.
///
/// # Errors
/// It cannot be left.
pub fn mark_unwritten(state: &Path) -> io::Result<()> {
    let [written, unwritten] = [WRITTEN, UNWRITTEN].map(|name| trace(state, name));
    if unwritten.exists() {
        return Ok(());
    }
    // Else it is as old as the file.
    fs::File::open(&written).and_then(|file| file.set_modified(SystemTime::now())).ok();
    match fs::rename(&written, &unwritten) {
        // Somebody has removed it. An empty one may find a place.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::File::create(&unwritten).map(drop)?;
        }
        renamed => renamed?,
    }
    fs::File::open(state.join(FOLDER))?.sync_all()
}

/// Takes the trace back, and makes its file ahead if need be.
///
/// # Errors
/// The file cannot be renamed or made.
pub fn mark_written(state: &Path) -> io::Result<()> {
    let [written, unwritten] = [WRITTEN, UNWRITTEN].map(|name| trace(state, name));
    match fs::rename(unwritten, &written) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !written.exists() => {
            fs::write(written, TRACE)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::File::open(state.join(FOLDER))?.sync_all(),
    }
}

fn trace(state: &Path, name: &str) -> PathBuf {
    state.join(FOLDER).join(name)
}

/// Removes the marker: from now on a missing registry is a lost one.
///
/// # Errors
/// It exists, and cannot be removed.
pub fn consume(state: &Path) -> io::Result<()> {
    match fs::remove_file(marker(state)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// How the registry stands, as the running daemon knows it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_lost: AtomicBool,
    loss: Mutex<Option<Loss>>,
    is_unwritable: AtomicBool,
    unwritable: Mutex<Option<Arc<str>>>,
}

impl Standing {
    pub(super) fn new(loss: Option<Loss>) -> Self {
        Self { is_lost: AtomicBool::new(loss.is_some()), loss: Mutex::new(loss), ..Self::default() }
    }

    /// Whether something was lost, and the operator has not accepted it.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub(super) fn loss(&self) -> Option<Loss> {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why machines whose profile wipes hold.
    pub(super) fn fault(&self) -> Option<RegistryFault> {
        if self.is_unwritable.load(Ordering::Relaxed) {
            let reason = self.unwritable.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return reason.map(RegistryFault::Unwritable);
        }
        if !self.is_lost() {
            return None;
        }
        self.loss().map(|loss| RegistryFault::Lost(loss.noticed()))
    }

    /// Takes up whether the last attempt to write has failed, and why.
    pub(super) fn set_unwritable(&self, reason: Option<&str>) {
        let mut unwritable = self.unwritable.lock().unwrap_or_else(PoisonError::into_inner);
        *unwritable = reason.map(Arc::from);
        self.is_unwritable.store(reason.is_some(), Ordering::Relaxed);
    }

    /// The operator has accepted it, and that is on the disk.
    pub(super) fn accept(&self) {
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.is_lost.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
