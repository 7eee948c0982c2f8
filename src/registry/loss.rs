//! Whether the registry was lost, and whether the operator has accepted that: stored in the registry itself.
//!
//! A machine whose completed boot is forgotten looks as if its first boot were due. So a registry that begins
//! without the marker file of `reveille init` or `reveille state new`, or lacks its latest changes, counts as lost
//! until the operator accepts it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// The file in the state folder that permits a new registry.
const MARKER: &str = "new";

const TEXT: &str = "This file permits reveille to begin a new registry in this folder. It is removed once that exists.\n";

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// When that was noticed, in seconds since 1970.
    pub at: u64,
    /// What is missing, and why.
    pub what: String,
    /// Whether nothing in the state folder was older than the registry: it may be the first start.
    pub is_new_folder: bool,
}

impl Loss {
    /// Noticed now.
    pub fn now(what: String) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { at, what, is_new_folder: false }
    }

    /// There is no registry, and nothing permits a new one.
    pub fn of_all(state: &Path) -> Self {
        let what =
            format!("{} held neither a registry nor the marker of a new one", state.display());
        let names = fs::read_dir(state.join("db")).into_iter().flatten().flatten();
        // Copies, and what was put aside. The journal was opened just now.
        let is_used = names
            .into_iter()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("registry.db"));
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

/// The loss as the running daemon knows it.
#[derive(Debug, Default)]
pub(super) struct Standing {
    is_lost: AtomicBool,
    loss: Mutex<Option<Loss>>,
}

impl Standing {
    pub(super) fn new(loss: Option<Loss>) -> Self {
        Self { is_lost: AtomicBool::new(loss.is_some()), loss: Mutex::new(loss) }
    }

    /// Whether something was lost, and the operator has not accepted it.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    pub(super) fn loss(&self) -> Option<Loss> {
        self.loss.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The operator has accepted it, and that is on the disk.
    pub(super) fn accept(&self) {
        *self.loss.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.is_lost.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
