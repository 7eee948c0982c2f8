//! `reveille confirm`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde::de::DeserializeOwned;

use super::ConfigFile;
use super::consent::{Asked, has_terminal};
use super::orders::told;
use super::running::{ask_running, none_runs};
use crate::admin::control::Request;
use crate::admin::operations::machines::{CardOrder, Confirmation, Given, Plan};
use crate::config::loader::Source;
use crate::pure::client::Mac;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The machine's name in the config
    machine: String,
    /// The hardware address of its card, in any spelling
    card: Mac,
    /// The machine has other cards, and this is one more
    #[arg(long, conflicts_with = "withdraw")]
    another: bool,
    /// Take back that the card is the machine's
    #[arg(long)]
    withdraw: bool,
    /// Ask nothing
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { machine, card, another, withdraw, yes, file } = arguments;
    let source = Source::find(file.config)?;
    let confirmation = match (another, withdraw) {
        (_, true) => Confirmation::Withdrawn,
        (true, false) => Confirmation::Another,
        (false, false) => Confirmation::First,
    };
    let order = CardOrder { machine, card, confirmation };
    let asked = Asked { has_terminal: has_terminal(), is_one_by_name: true, verb: "confirm" };
    let mut agreed = None;
    if !yes && !asked.is_agreed() {
        let plan: Plan = running(&source, &Request::PlanConfirm { order: order.clone() })?;
        asked.ask(&plan)?;
        agreed = Some(plan.id);
    }
    let given: Given = running(&source, &Request::Confirm { order, agreed })?;
    told(&given, true)
}

/// What the running daemon answers.
fn running<T: DeserializeOwned>(source: &Source, request: &Request) -> Result<T> {
    match ask_running(source, request)? {
        Some((answer, _)) => Ok(answer),
        None => bail!("{}", none_runs(source)),
    }
}
