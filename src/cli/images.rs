//! `reveille images` and `reveille images prune`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde_json::Value;

use super::ConfigFile;
use super::output::{self, columns, print, tell};
use super::running::ask_running;
use super::status::{duration, now};
use crate::admin::control::Request;
use crate::config::loader::Source;
use crate::pure::config::snapshot::Config;
use crate::state::images::inventory::{self, IsMeant, Pruned, Row, Standing};
use crate::state::images::store::Store;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<ImagesCommand>,
}

#[derive(Debug, Subcommand)]
enum ImagesCommand {
    /// Remove what no profile of the config names, and what is left of broken and damaged downloads.
    Prune(Prune),
}

#[derive(Debug, Args)]
struct Prune {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Lists them, or removes what nobody needs. The running daemon is asked; where none runs, the disk.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    match arguments.command {
        None => list(&source, arguments.json),
        Some(ImagesCommand::Prune(Prune { dry_run })) => prune(&source, dry_run, arguments.json),
    }
}

fn list(source: &Source, json: bool) -> Result<ExitCode> {
    let (rows, value): (Vec<Row>, Value) = match ask_running(source, &Request::Images {})? {
        Some(answer) => answer,
        None => {
            let config = load(source)?;
            let store = Store::new(&config.server.state);
            let rows = inventory::list(&config, &store, &BTreeMap::new());
            let value = serde_json::to_value(&rows)?;
            (rows, value)
        }
    };
    print(&if json { output::json(&value) } else { table(&rows, now()) })?;
    Ok(ExitCode::SUCCESS)
}

fn prune(source: &Source, dry_run: bool, json: bool) -> Result<ExitCode> {
    let (pruned, value): (Pruned, Value) = match ask_running(source, &Request::Prune { dry_run })? {
        Some(answer) => answer,
        None => {
            let config = load(source)?;
            if config.faults().next().is_some() {
                bail!(
                    "the config has errors, see `reveille check`: nothing is removed until it says again which images it needs"
                );
            }
            let is_meant = if dry_run { IsMeant::No } else { IsMeant::Yes };
            let pruned = inventory::prune(&config, &Store::new(&config.server.state), is_meant);
            let value = serde_json::to_value(&pruned)?;
            (pruned, value)
        }
    };
    if json {
        print(&output::json(&value))?;
    } else {
        let would = if dry_run { "would be removed" } else { "removed" };
        let mut text = String::new();
        for (what, bytes) in &pruned.removed {
            text += &format!("{would}: {what}, {}\n", HumanBytes(*bytes));
        }
        let bytes: u64 = pruned.removed.iter().map(|(_, bytes)| bytes).sum();
        match pruned.removed.len() {
            0 => text += "every image here is named by a profile\n",
            count => text += &format!("{would}: {count} in all, {}\n", HumanBytes(bytes)),
        }
        print(&text)?;
        for failed in &pruned.failed {
            tell(format_args!("reveille: {failed}"));
        }
    }
    Ok(if pruned.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load(source: &Source) -> Result<Config> {
    source.load().with_context(|| format!("config: {source} cannot be used"))
}

/// The images as people read them: a line each, and below it what is in it and what is wrong.
fn table(rows: &[Row], now: u64) -> String {
    if rows.is_empty() {
        return "the config has no image\n".to_owned();
    }
    let ago = |at: Option<u64>| match at {
        Some(at) => format!("{} ago", duration(now.saturating_sub(at))),
        None => "-".to_owned(),
    };
    let heads = ["IMAGE", "WHAT", "SIZE", "FETCHED", "LAST SERVED", "PROFILES"].map(str::to_owned);
    let (mut lines, mut all_below) = (vec![heads], vec![Vec::new()]);
    for row in rows {
        let mut below = Vec::new();
        if !row.extensions.is_empty() {
            below.push(format!("with {}", row.extensions.join(", ")));
        }
        match &row.state {
            Standing::Here => {}
            Standing::Coming(Some(total)) if *total > 0 => {
                let (here, whole) = (HumanBytes(row.bytes), HumanBytes(*total));
                below.push(format!("on its way: {} %, {here} of {whole}", row.bytes * 100 / total));
            }
            Standing::Coming(_) => below.push("on its way".to_owned()),
            Standing::Missing(reason) => below.push(format!("not here: {reason}")),
            Standing::Unused => {
                below.push("no profile names it: `reveille images prune` removes it".to_owned());
            }
        }
        let profiles = row.profiles.join(", ");
        let size = if row.bytes == 0 { "-".to_owned() } else { HumanBytes(row.bytes).to_string() };
        let cells = [
            row.image.clone().unwrap_or_else(|| "-".to_owned()),
            row.what.clone(),
            size,
            ago(row.fetched_at),
            ago(row.served_at),
            if profiles.is_empty() { "-".to_owned() } else { profiles },
        ];
        lines.push(cells);
        all_below.push(below);
    }
    let mut text = String::new();
    for (line, below) in columns(&lines).into_iter().zip(all_below) {
        text += &line;
        for more in below {
            text += &format!("  {more}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_a_table_and_what_is_in_them_stands_below() {
        let row = Row {
            image: Some("talos".into()),
            what: "Talos v1.11.2 amd64".into(),
            extensions: vec!["siderolabs/bnx2-bnx2x".into()],
            state: Standing::Here,
            bytes: 100 << 20,
            fetched_at: Some(1000),
            served_at: None,
            profiles: vec!["blade".into(), "rack".into()],
            schematic: None,
            folders: vec![],
        };
        let coming = Row {
            image: Some("x".into()),
            what: "Talos latest".into(),
            extensions: vec![],
            state: Standing::Coming(Some(200 << 20)),
            profiles: vec![],
            fetched_at: None,
            ..row.clone()
        };
        let unused = Row { image: None, state: Standing::Unused, ..row.clone() };
        assert_eq!(
            table(&[row, coming, unused], 1060),
            "\
IMAGE  WHAT                 SIZE        FETCHED        LAST SERVED  PROFILES
talos  Talos v1.11.2 amd64  100.00 MiB  1 min 0 s ago  -            blade, rack
  with siderolabs/bnx2-bnx2x
x      Talos latest         100.00 MiB  -              -            -
  on its way: 50 %, 100.00 MiB of 200.00 MiB
-      Talos v1.11.2 amd64  100.00 MiB  1 min 0 s ago  -            blade, rack
  with siderolabs/bnx2-bnx2x
  no profile names it: `reveille images prune` removes it
"
        );
    }
}
