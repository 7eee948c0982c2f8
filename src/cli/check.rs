//! `reveille check`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;

use super::ConfigFile;
use super::output::{self, print};
use crate::config::loader::Source;
use crate::pure::config::problem::{Problem, Severity, at_length};
use crate::pure::config::reload::LoadError;
use crate::pure::config::snapshot::Config;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The config file; the same as --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    path: Option<PathBuf>,
    /// Tell every problem, however many there are, and not the first 20 only
    #[arg(long)]
    all: bool,
    /// Print JSON: every problem
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Reads the config with all that it names, as the daemon would, and tells everything that is wrong.
pub(super) fn run(Arguments { path, all, json, file }: Arguments) -> Result<ExitCode> {
    let source = path.or(file.config).map_or_else(Source::usual, Source::File);
    let (problems, config) = match source.load() {
        Ok(mut config) => (std::mem::take(&mut config.problems), Some(config)),
        Err(LoadError::Invalid(problems)) => (problems, None),
        Err(error @ LoadError::Unreadable { .. }) if !json => return Err(anyhow!(error)),
        Err(error @ LoadError::Unreadable { .. }) => (vec![unreadable(&error)], None),
    };
    if json {
        print(&output::json(&as_value(&source, &problems, config.as_ref())))?;
    } else {
        let told = match all {
            true => problems.iter().map(Problem::at_length).collect::<Vec<_>>().join("\n"),
            false => at_length(&problems),
        };
        if !told.is_empty() {
            print(&format!("{told}\n"))?;
        }
        for (name, described) in instances(config.as_ref()) {
            print(&format!("omni {name}: {described}\n"))?;
        }
        print(&format!("{source}: {}\n", conclusion(&problems, config.as_ref())))?;
    }
    let is_good = !problems.iter().any(|problem| problem.severity.is_error());
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An error that stands nowhere in the file.
fn unreadable(error: &LoadError) -> Problem {
    let severity = Severity::Error;
    let key = String::new();
    Problem { severity, at: None, key, message: error.to_string(), quote: None, spoils: Vec::new() }
}

/// What the Omni instances are: which kind of token was pasted shows a mistake before a machine does.
fn instances(config: Option<&Config>) -> impl Iterator<Item = (&str, String)> {
    let all = config.into_iter().flat_map(|config| &config.catalog.omni);
    all.filter_map(|(name, omni)| Some((name.as_str(), omni.described()?)))
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

fn conclusion(problems: &[Problem], config: Option<&Config>) -> String {
    let errors = problems.iter().filter(|problem| problem.severity.is_error()).count();
    let warnings = problems.len() - errors;
    let found = match (errors, warnings) {
        (0, 0) => "nothing is wrong".to_owned(),
        (0, warnings) => count(warnings, "warning"),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    let Some(Config { catalog, .. }) = config else {
        return format!("{found}; a daemon would not take it up");
    };
    let there = [
        count(catalog.machines().len(), "machine"),
        count(catalog.groups.len(), "group"),
        count(catalog.profiles.len(), "profile"),
        count(catalog.images.len(), "image"),
    ];
    let there = there.join(", ");
    if errors == 0 {
        return format!("{found}; {there}");
    }
    format!(
        "{found}; a running daemon would not take it up, one that starts would refuse the boots that need what is broken; {there}"
    )
}

fn as_value(source: &Source, problems: &[Problem], config: Option<&Config>) -> serde_json::Value {
    let file = match source {
        Source::File(path) => Some(path.display().to_string()),
        Source::Defaults => None,
    };
    let problem = |problem: &Problem| {
        let at = problem.at.as_ref();
        json!({
            "severity": problem.severity.to_string(),
            "fault": problem.severity == Severity::Fault,
            "file": at.map(|(file, _)| file.display().to_string()),
            "line": at.map(|(_, place)| place.line),
            "column": at.map(|(_, place)| place.column),
            "key": problem.key,
            "message": problem.message,
            "quote": problem.quote.as_ref().map(|quote| &quote.line),
        })
    };
    json!({
        "file": file,
        "ok": !problems.iter().any(|problem| problem.severity.is_error()),
        "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        "omni": instances(config).collect::<BTreeMap<&str, String>>(),
    })
}
