//! `reveille machines` and `reveille machine`

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::Value;

use super::ConfigFile;
use super::events::{line, moment};
use super::output::{columns, json, print};
use super::running::{Remembered, ask_running, remembered};
use super::status::{duration, now};
use crate::admin::control::Request;
use crate::admin::machine_view::{Machine, Next};
use crate::admin::operations::machines::{self, Story};
use crate::config::loader::Source;
use crate::pure::machine::time::Time;
use crate::pure::printable;

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those that were seen and are not in the config
    #[arg(long, conflicts_with = "known")]
    unknown: bool,
    /// Only those of the config
    #[arg(long)]
    known: bool,
    /// Only those whose last boot came to nothing
    #[arg(long)]
    failed: bool,
    /// Only those that are armed
    #[arg(long)]
    armed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Debug, Args)]
pub(super) struct One {
    /// The machine: its name, MAC, serial number or address
    machine: String,
    /// How much of what was told of it
    #[arg(long, short = 'n', value_name = "N", default_value_t = 30)]
    lines: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn list(arguments: List) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config.clone())?;
    let asked = ask_running::<Vec<Machine>>(&source, &Request::Machines {})?;
    let mut all = match asked {
        Some((machines, _)) => machines,
        None => {
            let Remembered { config, known, ring: _ } = remembered(&source)?;
            machines::list(&config, &known)
        }
    };
    all.retain(|machine| arguments.takes(machine));
    let text = if arguments.json { json(&serde_json::to_value(&all)?) } else { table(&all, now()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

impl List {
    fn takes(&self, machine: &Machine) -> bool {
        (!self.unknown || machine.name.is_none())
            && (!self.known || machine.name.is_some())
            && (!self.failed || machine.failures > 0)
            && (!self.armed || machine.armed > 0)
    }
}

pub(super) fn one(arguments: One) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    let who = arguments.machine;
    let asked = ask_running::<Story>(&source, &Request::Machine { who: who.clone() })?;
    let (mut story, _): (Story, Value) = match asked {
        Some(answer) => answer,
        None => {
            let Remembered { config, known, ring } = remembered(&source)?;
            let story = machines::story(&config, &known, &who, |found| {
                let told = ring.after(0, Some(&found.macs), usize::MAX);
                told.into_iter().map(|told| (*told).clone()).collect()
            });
            (story.map_err(|reason| anyhow!(reason))?, Value::Null)
        }
    };
    let first = story.events.len().saturating_sub(arguments.lines);
    story.events.drain(..first);
    let text =
        if arguments.json { json(&serde_json::to_value(&story)?) } else { told(&story, now()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The machines as people read them, a line each.
fn table(machines: &[Machine], now: u64) -> String {
    if machines.is_empty() {
        return "no machine\n".to_owned();
    }
    let heads = ["MACHINE", "MAC", "ADDRESS", "PRODUCT", "SEEN", "LAST BOOT", "BOOTS NEXT"];
    let mut lines = vec![heads.map(str::to_owned)];
    for machine in machines {
        let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let reached = machine.reached.map(|reached| reached.words().to_owned());
        let last = match machine.failures {
            0 => or(reached),
            many if machine.has_stopped => format!("failed {}: {}", times(many), or(reached)),
            many => format!("{}, failed {} before", or(reached), times(many)),
        };
        lines.push([
            or(machine.name.clone()),
            or(machine.macs.last().map(ToString::to_string)),
            or(machine.address.map(|address| address.to_string())),
            or(machine.product.clone()),
            or(machine.last_seen.map(|at| format!("{} ago", duration(now.saturating_sub(at))))),
            last,
            match &machine.next {
                Next { unconfirmed: Some(card), .. } => {
                    format!("{}, withheld until `{}`", machine.next.what(), card.command())
                }
                Next { is_withheld: true, .. } => {
                    format!("{}, withheld until `reveille arm`", machine.next.what())
                }
                Next { .. } => machine.next.what(),
            },
        ]);
    }
    columns(&lines).concat()
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// All of one machine.
fn told(Story { machine, events }: &Story, now: u64) -> String {
    let mut rows: Vec<(&str, String)> = Vec::new();
    let name = machine.name.clone().unwrap_or_else(|| "not in the config".to_owned());
    rows.push(("machine", name));
    let macs: Vec<String> = machine.macs.iter().map(ToString::to_string).collect();
    rows.push(("mac", macs.join(", ")));
    let confirmed: Vec<String> = machine.confirmed.iter().map(ToString::to_string).collect();
    if !confirmed.is_empty() {
        rows.push(("confirmed", confirmed.join(", ")));
    }
    if machine.is_unconfirmed {
        let name = machine.name.clone().unwrap_or_default();
        let what = format!(
            "no card yet, so it receives no secret and nothing erases its disk: `reveille confirm {name} MAC`"
        );
        rows.push(("confirmed", what));
    }
    let facts = [
        ("address", machine.address.map(|address| address.to_string())),
        ("firmware", machine.firmware.clone()),
        ("vendor", machine.vendor.clone()),
        ("product", machine.product.clone()),
        ("serial", machine.serial.clone()),
        ("uuid", machine.uuid.clone()),
        ("nic", machine.nic.clone()),
    ];
    rows.extend(facts.into_iter().filter_map(|(word, fact)| Some((word, fact?))));
    let ago = |at: u64| {
        format!(
            "{} ({} ago)",
            moment(Time::from_millis(at * 1000)),
            duration(now.saturating_sub(at))
        )
    };
    if let (Some(first), Some(last)) = (machine.first_seen, machine.last_seen) {
        rows.push(("first seen", ago(first)));
        rows.push(("last seen", ago(last)));
    }
    rows.extend(machine.why.iter().map(|(word, what)| match word.as_str() {
        "machine" => ("entry", what.clone()),
        "group" => ("group", what.clone()),
        _ => ("config", what.clone()),
    }));
    rows.push(("boots next", machine.next.to_string()));
    rows.extend(machine.outdated.as_ref().map(|outdated| ("on disk", outdated.to_string())));
    if machine.armed > 0 {
        let times = if machine.armed == 1 { "" } else { "s" };
        rows.push(("armed", format!("for {} boot{times}", machine.armed)));
    }
    rows.extend(machine.nbp.clone().map(|nbp| ("nbp", nbp)));
    rows.push((
        "boots",
        match (machine.boots, machine.last_boot) {
            (0, _) => "none completed".to_owned(),
            (count, None) => format!("{count} completed"),
            (count, Some(at)) => format!("{count} completed, the last {}", ago(at)),
        },
    ));
    if let Some(reached) = machine.reached {
        rows.push(("last boot", reached.words().to_owned()));
    }
    if machine.failures > 0 {
        let before = if machine.has_stopped { "" } else { " before that" };
        rows.push(("failed", format!("{}{before}", times(machine.failures))));
    }
    rows.extend(machine.alarm.iter().map(|alarm| ("alarm", alarm.clone())));
    rows.extend(machine.verdict.iter().map(|verdict| ("verdict", verdict.to_string())));
    let mut text = String::new();
    for (word, what) in rows {
        let _ = writeln!(text, "{word:<12}{}", printable::line(&what));
    }
    if !events.is_empty() {
        text.push('\n');
        for told in events {
            let _ = writeln!(text, "{}", line(told));
        }
    }
    text
}
