//! The running daemon, where there is one.

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::load::Source;
use crate::control::{AskError, Request, ask};

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
