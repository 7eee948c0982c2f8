//! The running daemon, where there is one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::tell;
use crate::admin::control::{self, AskError, Claim, Request, ask, is_live};
use crate::config::loader::Source;
use crate::config::state_folder::{Places, word};
use crate::pure::catalog::server::OnLostState;
use crate::pure::config::snapshot::Config;
use crate::pure::machine::orders::RegistryFault;
use crate::state::journal::ring::Ring;
use crate::state::journal::store;
use crate::state::registry::machines::KnownMachines;
use crate::state::registry::peek;
use crate::state::registry::store::Store;
use crate::state::sqlite::DatabaseError;

/// Asks the daemon of this config. None if there is none.
///
/// # Errors
/// There is one, and it does not answer, or refuses. There are two.
pub(super) fn ask_running<T: DeserializeOwned>(
    source: &Source,
    request: &Request,
) -> Result<Option<(T, Value)>> {
    let Some(folder) = state_of_daemon(&source.places())? else { return Ok(None) };
    match ask(&folder, request) {
        Ok(answer) => Ok(Some(answer)),
        // It has stopped in the meantime.
        Err(AskError::Nobody(_)) => Ok(None),
        Err(error) => bail!(error),
    }
}

/// The state folder of the running daemon. None if none of the places has a live control socket.
///
/// # Errors
/// Two daemons run. A place cannot be asked, and no other has a daemon.
pub(super) fn state_of_daemon(places: &Places) -> Result<Option<PathBuf>> {
    let mut live: Vec<&Path> = Vec::new();
    let mut closed = None;
    for place in places.all() {
        match is_live(&place.folder) {
            Ok(true) => live.push(&place.folder),
            Ok(false) => {}
            Err(error) => closed = closed.or(Some(error)),
        }
    }
    match (live.as_slice(), closed) {
        ([folder], _) => Ok(Some((*folder).to_owned())),
        ([], None) => Ok(None),
        ([], Some(error)) => Err(error).context("a reveille may run there"),
        (several, _) => {
            let folders: Vec<String> =
                several.iter().map(|folder| word(&folder.display().to_string())).collect();
            bail!(
                "{} daemons run, with the state folders {}: name the one that is meant, as `STATE_DIRECTORY={} reveille …`, or in `server.state` of its config",
                several.len(),
                folders.join(" and "),
                folders[0]
            )
        }
    }
}

/// That no daemon runs, and which places were tried.
pub(super) fn none_runs(source: &Source) -> String {
    format!(
        "no reveille runs with the state folder {}; start it with `reveille serve{}`, or name the config that it was started with by --config",
        source.places().listed(),
        source.arguments()
    )
}

/// The state folder that a command may write to if no daemon runs: it exists already.
///
/// # Errors
/// It does not, or which one it is cannot be known.
pub(super) fn own_state(source: &Source, is_usable: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let places = source.places();
    if let Some(conflict) = places.conflict {
        bail!("{conflict}");
    }
    if !is_usable(&places.chosen.folder) {
        bail!(
            "{}; without a daemon nothing is written to a state folder that is not in use yet: `reveille state new{}` begins one",
            none_runs(source),
            source.arguments()
        );
    }
    Ok(places.chosen.folder)
}

/// That this command alone uses a state folder.
///
/// # Errors
/// A daemon uses it.
pub(super) fn claim(state: &Path) -> Result<Claim> {
    Claim::take(state).map_err(|_| {
        let socket = state.join(control::NAME);
        anyhow!("a reveille runs, and does not answer at {}; restart it", socket.display())
    })
}

/// What the last daemon of this config left behind.
pub(super) struct Remembered {
    /// The config as it is now.
    pub(super) config: Config,
    /// The machines, as they count for their next boots.
    pub(super) known: KnownMachines,
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
    let content = match Store::inspect(state) {
        Ok(content) => content,
        // If this user may not read the folder, the error stays: the registry may exist.
        Err(DatabaseError::Unusable { .. })
            if matches!(Store::path(state).try_exists(), Ok(false)) =>
        {
            peek(state)?
        }
        Err(error @ DatabaseError::Damaged { .. }) => {
            bail!(
                "{error}; `reveille serve` puts it aside when it starts, and uses its verified copy"
            )
        }
        Err(error) => bail!(error),
    };
    let entries = content.machines.iter().cloned().collect();
    let fault = content.loss.map(|loss| RegistryFault::Lost(loss.noticed()));
    let fault = fault.filter(|_| config.server.on_lost_state == OnLostState::Hold);
    let known = KnownMachines::new(entries, fault.as_ref());
    let ring = match store::Store::read(state) {
        Ok(ring) => ring,
        Err(DatabaseError::Unusable { .. }) if !store::Store::path(state).exists() => {
            Ring::default()
        }
        // The machines are what matters.
        Err(error) => {
            tell(format_args!("reveille: what was told of them cannot be read: {error}"));
            Ring::default()
        }
    };
    Ok(Remembered { config, known, ring })
}
