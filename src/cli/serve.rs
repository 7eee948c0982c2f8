//! `reveille serve`

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::load::Source;
use crate::daemon;

/// Runs the daemon in the foreground, its log on standard error.
pub(super) fn run(config: Option<PathBuf>) -> Result<()> {
    let filter = EnvFilter::try_from_env("REVEILLE_LOG").unwrap_or_else(|_| "info".into());
    let stderr = std::io::stderr;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(stderr().is_terminal())
        .with_writer(stderr)
        .init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(daemon::serve(Source::find(config)))
}
