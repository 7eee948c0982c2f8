//! `reveille events`

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::ConfigFile;
use super::output::print_on;
use super::running::{Remembered, ask_running, remembered};
use crate::admin::control::Request;
use crate::admin::machine_view;
use crate::admin::operations::machines::Events;
use crate::config::loader::Source;
use crate::pure::machine::time::Time;
use crate::pure::printable;
use crate::state::journal::Level;
use crate::state::journal::ring::Told;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Only this machine's: its name, MAC, serial number or address
    machine: Option<String>,
    /// Go on with what comes, until stopped
    #[arg(long, short)]
    follow: bool,
    /// The last so many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Print a line of JSON each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { machine, follow, lines, json, file } = arguments;
    let source = Source::find(file.config)?;
    let mut request = Request::Events { after: 0, who: machine.clone(), most: lines, wait: false };
    let asked = ask_running::<Events>(&source, &request)?;
    let Some((Events { mut last, events }, _)) = asked else {
        if follow {
            bail!("no reveille runs: there is nothing to follow");
        }
        let Remembered { config, known, ring } = remembered(&source)?;
        let macs = match &machine {
            Some(who) => Some(machine_view::find(&config, &known, who)?.macs),
            None => None,
        };
        let told = ring.after(0, macs.as_deref(), lines);
        return show(told.iter().map(AsRef::as_ref), json).map(|_| ExitCode::SUCCESS);
    };
    let mut is_read = show(events.iter(), json)?;
    while follow && is_read {
        request =
            Request::Events { after: last, who: machine.clone(), most: usize::MAX, wait: true };
        let asked = ask_running::<Events>(&source, &request)?;
        let (events, _) = asked.ok_or_else(|| anyhow!("the daemon has ended"))?;
        last = events.last;
        is_read = show(events.events.iter(), json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints them; whether somebody still reads.
fn show<'a>(events: impl Iterator<Item = &'a Told>, json: bool) -> Result<bool> {
    let mut text = String::new();
    for told in events {
        text += &if json {
            printable::json(&serde_json::to_string(told)?).into_owned()
        } else {
            line(told)
        };
        text.push('\n');
    }
    print_on(&text)
}

/// One event as people read it.
pub(super) fn line(told: &Told) -> String {
    let mark = match told.level {
        Level::Warn => "! ",
        Level::Info | Level::Debug => "",
    };
    let whose = told.whose();
    let whose = if whose.is_empty() { whose } else { format!("{whose}  ") };
    format!("{}  {whose}{mark}{}", moment(told.at), told.text)
}

/// When, on this host's clock.
pub(super) fn moment(at: Time) -> String {
    let millis = i64::try_from(at.millis()).unwrap_or_default();
    let at = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH);
    at.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}
