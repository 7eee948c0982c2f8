//! `reveille arm`, `disarm`, `boot` and `disk`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use tokio::sync::watch;

use super::ConfigFile;
use super::consent::{Asked, has_terminal, listed};
use super::output::{print, tell};
use super::running::{Remembered, ask_running, claim, own_state, read_remembered};
use crate::admin::control::Request;
use crate::admin::machine_view::What;
use crate::admin::machine_view::targets::Targets;
use crate::admin::operations::machines::{self, Give, Given, Order, Plan};
use crate::config::loader::Source;
use crate::state::journal::Journal;
use crate::state::registry::store::Store;
use crate::state::registry::{Registry, loss};

#[derive(Debug, Args)]
struct Machines {
    /// The machines: names, MACs, serial numbers or addresses; patterns of names, as 'blade0*'; group:NAME
    #[arg(value_name = "MACHINE", required_unless_present = "all", conflicts_with = "all")]
    machines: Vec<String>,
    /// All machines of the config
    #[arg(long)]
    all: bool,
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct Arm {
    #[command(flatten)]
    machines: Machines,
    /// Boot this profile instead of the one that the config says
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// For so many completed boots
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
}

#[derive(Debug, Args)]
pub(super) struct Disarm {
    #[command(flatten)]
    machines: Machines,
}

#[derive(Debug, Args)]
pub(super) struct Boot {
    #[command(flatten)]
    machines: Machines,
    /// The profile
    #[arg(long, value_name = "NAME")]
    profile: String,
}

#[derive(Debug, Args)]
pub(super) struct Disk {
    #[command(flatten)]
    machines: Machines,
}

pub(super) fn arm(Arm { machines, profile, times }: Arm) -> Result<ExitCode> {
    machines.give(Order::Arm { profile, times })
}

pub(super) fn disarm(Disarm { machines }: Disarm) -> Result<ExitCode> {
    machines.give(Order::Disarm {})
}

pub(super) fn boot(Boot { machines, profile }: Boot) -> Result<ExitCode> {
    machines.give(Order::Arm { profile: Some(profile), times: 1 })
}

pub(super) fn disk(Disk { machines }: Disk) -> Result<ExitCode> {
    machines.give(Order::Disk {})
}

impl Machines {
    fn give(self, order: Order) -> Result<ExitCode> {
        let source = Source::find(self.file.config)?;
        let targets = Targets { names: self.machines, all: self.all };
        let is_one_by_name = targets.is_one_by_name();
        let asked = Asked { has_terminal: has_terminal(), is_one_by_name, verb: "order" };
        let mut agreed = None;
        if !self.yes && !asked.is_agreed() {
            let plan = plan(&source, &targets, &order)?;
            asked.ask(&plan)?;
            agreed = Some(plan.id);
        }
        let withdraws = order == Order::Disarm {};
        let given = give(&source, Give { targets, order, agreed })?;
        let code = told(&given, is_one_by_name)?;
        if withdraws && given.machines.iter().any(|one| one.next.boots == What::Profile) {
            tell(
                "reveille: `disarm` withdraws orders only; `reveille disk` keeps a machine on its disk",
            );
        }
        Ok(code)
    }
}

/// What the order would do: the running daemon knows; where none runs, its registry does.
fn plan(source: &Source, targets: &Targets, order: &Order) -> Result<Plan> {
    let request = Request::Plan { targets: targets.clone(), order: order.clone() };
    if let Some((plan, _)) = ask_running(source, &request)? {
        return Ok(plan);
    }
    let Remembered { config, known, ring: _ } = read_remembered(source)?;
    machines::plan(&config, &known, targets, order).map_err(|reason| anyhow!(reason))
}

/// The running daemon does it; where none runs, it is written down for the next one.
fn give(source: &Source, give: Give) -> Result<Given> {
    let request = Request::Order { give: give.clone() };
    if let Some((given, _)) = ask_running(source, &request)? {
        return Ok(given);
    }
    let is_usable = |state: &Path| {
        let files = [Store::path(state), Store::previous(state), loss::marker(state)];
        files.iter().any(|file| file.exists())
    };
    let state = &own_state(source, is_usable)?;
    // A damaged registry is the daemon's to put aside, and to tell of.
    let Remembered { config, .. } = read_remembered(source)?;
    let config = Arc::new(config);
    let _claim = claim(state)?;
    let was_unwritten = loss::unwritten_since(state).is_some();
    let journal = Arc::new(Journal::open(state));
    let registry = Registry::open(state, Arc::clone(&journal))?;
    registry.follow(watch::channel(Arc::clone(&config)).1);
    let given = machines::order(&config, &registry, &give);
    registry.close();
    journal.close();
    let given = given.map_err(|reason| anyhow!(reason))?;
    if let Some(reason) = given.not_kept {
        // The operator sees that it failed: nobody takes it for given.
        if !was_unwritten {
            loss::mark_written(state).ok();
        }
        bail!("it is not written down: {reason}");
    }
    tell(format_args!(
        "reveille: no reveille runs; it is written down in {} for the next one",
        state.display()
    ));
    Ok(given)
}

pub(super) fn told(
    Given { done, machines, left_out, not_kept }: &Given,
    is_one_by_name: bool,
) -> Result<ExitCode> {
    match machines.as_slice() {
        [one] if is_one_by_name => {
            print(&format!("{}: {done}\nnext boot: {}\n", one.machine, one.next))?;
        }
        many => print(&format!("{done}\n{}", listed(many, left_out)))?,
    }
    if let Some(reason) = not_kept {
        tell(format_args!(
            "reveille: it is not on the disk, and holds only until the daemon ends: {reason}"
        ));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
