//! `reveille arm`, `reveille disarm` and `reveille boot`

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::Args;

use super::ConfigFile;
use super::output::{print, tell};
use super::running::{Remembered, ask_running, read_remembered};
use crate::config::load::Source;
use crate::control::{self, Claim, Request};
use crate::journal::Journal;
use crate::operations::machines::{Order, Ordered, order};
use crate::registry::Registry;

#[derive(Debug, Args)]
pub(super) struct Arm {
    /// The machine: its name, MAC, serial number or address
    machine: String,
    /// Boot this profile instead of the one that the config says
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// For so many completed boots
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct Disarm {
    /// The machine: its name, MAC, serial number or address
    machine: String,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct Boot {
    /// The machine: its name, MAC, serial number or address
    machine: String,
    /// The profile
    #[arg(long, value_name = "NAME")]
    profile: String,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn arm(Arm { machine, profile, times, file }: Arm) -> Result<ExitCode> {
    let request = Request::Arm { who: machine.clone(), profile: profile.clone(), times };
    give(&Source::find(file.config), &request, &machine, Order::Arm { profile, times })
}

pub(super) fn disarm(Disarm { machine, file }: Disarm) -> Result<ExitCode> {
    let request = Request::Disarm { who: machine.clone() };
    give(&Source::find(file.config), &request, &machine, Order::Disarm)
}

pub(super) fn boot(Boot { machine, profile, file }: Boot) -> Result<ExitCode> {
    let profile = Some(profile);
    let request = Request::Arm { who: machine.clone(), profile: profile.clone(), times: 1 };
    give(&Source::find(file.config), &request, &machine, Order::Arm { profile, times: 1 })
}

/// The running daemon does it; where none runs, it is written down for the next one.
fn give(source: &Source, request: &Request, who: &str, ordered: Order) -> Result<ExitCode> {
    let Ordered { done, next, not_kept } = match ask_running::<Ordered>(source, request)? {
        Some((ordered, _)) => ordered,
        None => {
            // A damaged registry is the daemon's to put aside, and to tell of.
            let Remembered { config, .. } = read_remembered(source)?;
            let state = &config.server.state;
            let _claim = Claim::take(state).map_err(|_| {
                let socket = state.join(control::NAME);
                anyhow!("a reveille runs, and does not answer at {}; restart it", socket.display())
            })?;
            let journal = Arc::new(Journal::open(state));
            let registry = Registry::open(state, Arc::clone(&journal))?;
            let ordered = order(&config, &registry, who, ordered);
            registry.close();
            journal.close();
            let ordered = ordered.map_err(|reason| anyhow!(reason))?;
            if let Some(reason) = ordered.not_kept {
                bail!("it is not written down: {reason}");
            }
            tell(format_args!(
                "reveille: no reveille runs; it is written down in {} for the next one",
                state.display()
            ));
            ordered
        }
    };
    print(&format!("{done}\nnext boot: {next}\n"))?;
    if let Some(reason) = not_kept {
        tell(format_args!(
            "reveille: it is not on the disk, and holds only until the daemon ends: {reason}"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
