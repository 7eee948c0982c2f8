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

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The machine's name in the config
    machine: String,
    /// The hardware address of its card, in any spelling
    card: Mac,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(Arguments { machine, card, file }: Arguments) -> Result<ExitCode> {
    let source = Source::find(file.config)?;
    let request = Request::Confirm { machine, card };
    let Some((done, _)) = ask_running::<String>(&source, &request)? else {
        bail!("{}", none_runs(&source));
    };
    print(&format!("{done}\n"))?;
    Ok(ExitCode::SUCCESS)
}
