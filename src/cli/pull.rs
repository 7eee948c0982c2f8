//! `reveille pull`

mod bars;

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use self::bars::Bars;
use super::ConfigFile;
use super::output::{print, tell};
use super::running::{ask_running, own_state};
use crate::admin::control::Request;
use crate::admin::operations::Jobs;
use crate::config::loader::Source;
use crate::http_client::download::{Patience, Progress};
use crate::pure::config::snapshot::Config;
use crate::state::images::image_fetcher::{Errand, asked_for};
use crate::state::images::job::{Job, State};
use crate::state::images::pull::{Ask, pull};
use crate::state::images::store::Store;

/// How often the daemon is asked how far it is.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The images, by their names in the config [default: all that a profile names]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Ask which release of Talos is the newest, where an image's version is `latest`
    #[arg(long)]
    update: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Has images fetched: by the running daemon, or where none runs by itself. Exit code 1 where one is not to
/// be had.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    let Arguments { images, update, .. } = arguments;
    let request = Request::Pull { images: images.clone(), update };
    let is_well = match ask_running::<Jobs>(&source, &request)? {
        Some((jobs, _)) => watch(&source, jobs)?,
        None => {
            let ask = if update { Ask::Newest } else { Ask::Missing };
            let config =
                source.load().with_context(|| format!("config: {source} cannot be used"))?;
            own_state(&source, Path::exists)?;
            fetch(&config, &images, ask)?
        }
    };
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows how far the daemon is, until all that was asked for has ended.
fn watch(source: &Source, asked: Jobs) -> Result<bool> {
    let mut bars = Bars::new();
    for line in &asked.here {
        print(&format!("{line}\n"))?;
    }
    if asked.jobs.is_empty() && asked.here.is_empty() {
        print("no profile names an image that is fetched\n")?;
    }
    let mut is_well = true;
    let mut left = asked.jobs;
    while !left.is_empty() {
        for (set, job) in &left {
            bars.show(set, job);
        }
        let ended = left.iter().filter(|(_, job)| job.state != State::Running);
        let ended: Vec<String> = ended.map(|(set, _)| set.clone()).collect();
        for set in ended {
            if let Some(job) = left.remove(&set) {
                is_well &= told(&mut bars, &set, &job)?;
            }
        }
        if left.is_empty() {
            break;
        }
        sleep(LOOK);
        let now = ask_running::<Jobs>(source, &Request::Jobs {})?;
        let Some((Jobs { jobs, .. }, _)) = now else {
            bail!(
                "the daemon has stopped; what has come is kept, and `reveille pull` goes on with it"
            );
        };
        for (set, job) in &mut left {
            let now =
                jobs.get(set).ok_or_else(|| anyhow!("the daemon knows nothing of it any more"))?;
            *job = now.clone();
        }
    }
    Ok(is_well)
}

/// Fetches them itself, one after the other.
fn fetch(config: &Config, images: &[String], ask: Ask) -> Result<bool> {
    let errands = asked_for(config, images)?;
    if errands.is_empty() {
        print("no profile names an image that is fetched\n")?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let store = Store::new(&config.server.state);
    let (mut bars, mut is_well) = (Bars::new(), true);
    for Errand { wanted, images, .. } in errands {
        let set = wanted.set.to_string();
        let mut job = Job::begun(&images.join(", "));
        let mut report = |Progress { received, total }: Progress| {
            (job.received, job.total) = (received, total);
            bars.show(&set, &job);
        };
        let asked = (ask, Patience::default());
        let pulled = runtime.block_on(pull(&store, &wanted, asked, &mut report));
        job.state = match pulled {
            Ok(pulled) => {
                for doubt in &pulled.doubts {
                    tell(format_args!("warning: image {}: {doubt}", job.image));
                }
                let what = pulled.stored.manifest.what();
                State::Here(if pulled.is_new { what } else { format!("{what}, already") })
            }
            Err(error) => State::Failed(error.to_string()),
        };
        is_well &= told(&mut bars, &set, &job)?;
    }
    Ok(is_well)
}

/// Says how a job has ended, and whether that is well.
fn told(bars: &mut Bars, set: &str, job: &Job) -> Result<bool> {
    bars.end(set);
    match &job.state {
        State::Here(what) => print(&format!("{} is here: {what}\n", job.image)).map(|()| true),
        State::Failed(reason) => {
            tell(format_args!("reveille: image {}: {reason}", job.image));
            Ok(false)
        }
        State::Running => Ok(true),
    }
}
