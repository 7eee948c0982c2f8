//! The running daemon, where there is one.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::tell;
use crate::config::Config;
use crate::config::load::Source;
use crate::control::{AskError, Request, ask};
use crate::database::DatabaseError;
use crate::journal;
use crate::journal::ring::Ring;
use crate::registry::machines::Entry;
use crate::registry::store::Store;

/// Asks the daemon of this config. None where there is none.
///
/// # Errors
/// There is one, and it does not answer, or refuses.
pub(super) fn ask_running<T: DeserializeOwned>(
    source: &Source,
    request: &Request,
) -> Result<Option<(T, Value)>> {
    for folder in source.state_folders() {
        match ask(&folder, request) {
            Ok(answer) => return Ok(Some(answer)),
            Err(AskError::Nobody(_)) => {}
            Err(error) => bail!(error),
        }
    }
    Ok(None)
}

/// What the last daemon of this config left behind.
pub(super) struct Remembered {
    /// The config as it is now.
    pub(super) config: Config,
    /// The machines.
    pub(super) entries: Vec<Entry>,
    /// What was told.
    pub(super) ring: Ring,
}

/// Reads it where no daemon runs, and says so.
///
/// # Errors
/// It cannot be read.
pub(super) fn remembered(source: &Source) -> Result<Remembered> {
    let remembered = read_remembered(source)?;
    let state = remembered.config.server.state.display();
    tell(format_args!("reveille: no reveille runs; this is what is remembered in {state}"));
    Ok(remembered)
}

/// Reads it.
///
/// # Errors
/// It cannot be read.
pub(super) fn read_remembered(source: &Source) -> Result<Remembered> {
    let config = source.load().with_context(|| format!("config: {source} cannot be used"))?;
    let state = &config.server.state;
    let entries = match Store::read(state) {
        Ok(machines) => machines.iter().cloned().collect(),
        Err(DatabaseError::Unusable { .. }) if !Store::path(state).exists() => Vec::new(),
        Err(error @ DatabaseError::Damaged { .. }) => {
            bail!("{error}; `reveille serve` puts it aside when it starts, and begins a new one")
        }
        Err(error) => bail!(error),
    };
    let ring = match journal::store::Store::read(state) {
        Ok(ring) => ring,
        Err(DatabaseError::Unusable { .. }) if !journal::store::Store::path(state).exists() => {
            Ring::default()
        }
        // The machines are what matters.
        Err(error) => {
            tell(format_args!("reveille: what was told of them cannot be read: {error}"));
            Ring::default()
        }
    };
    Ok(Remembered { config, entries, ring })
}
