//! `reveille confirm`

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use super::ConfigFile;
use super::output::print;
use super::running::{ask_running, none_runs};
use crate::boot::Mac;
use crate::config::load::Source;
use crate::control::Request;
use crate::operations::machines::Confirmation;

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
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { machine, card, another, withdraw, file } = arguments;
    let source = Source::find(file.config)?;
    let confirmation = match (another, withdraw) {
        (_, true) => Confirmation::Withdrawn,
        (true, false) => Confirmation::Another,
        (false, false) => Confirmation::First,
    };
    let request = Request::Confirm { machine, card, confirmation };
    let Some((done, _)) = ask_running::<String>(&source, &request)? else {
        bail!("{}", none_runs(&source));
    };
    print(&format!("{done}\n"))?;
    Ok(ExitCode::SUCCESS)
}
