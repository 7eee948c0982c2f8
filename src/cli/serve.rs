//! `reveille serve`

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::config::loader::Source;
use crate::daemon;
use crate::sys::log_writer::Log;

/// Runs the daemon in the foreground, its log on standard error.
pub(super) fn run(config: Option<PathBuf>) -> Result<()> {
    let source = Source::find(config)?;
    let asked = std::env::var("REVEILLE_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&asked).with_context(|| {
        format!("REVEILLE_LOG is `{asked}`; it takes error, warn, info, debug or trace")
    })?;
    // Until the end: then the rest is written.
    let (writer, _rest) = Log::start(std::io::stderr()).context("cannot start the log's thread")?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(writer)
        // Whoever reads the log may go away: that is no reason to stop, nor to complain to nobody.
        .log_internal_errors(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(daemon::serve(source));
    // A read that hangs (a dead NFS server) must not keep the daemon from its end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}
