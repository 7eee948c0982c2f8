//! The running config: one snapshot at a time, the last good one on bad input.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Config;
use super::load::Source;

/// Holds the source, and swaps the snapshot.
#[derive(Debug)]
pub struct Reloader {
    source: Source,
    /// One reload at a time: an older reading must not come after a newer one.
    reloading: Mutex<()>,
    snapshot: watch::Sender<Arc<Config>>,
}

impl Reloader {
    /// Starts with a config that was loaded from `source`.
    pub fn new(source: Source, config: Config) -> Self {
        tell_warnings(&config);
        let (snapshot, _) = watch::channel(Arc::new(config));
        Self { source, reloading: Mutex::default(), snapshot }
    }

    /// A view of the running config; take the `Arc` once for each request.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.snapshot.subscribe()
    }

    /// Reads the source again. What is bad changes nothing.
    pub fn reload(&self) {
        let _alone = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        match self.source.load() {
            Ok(mut config) => {
                let bound = self.snapshot.borrow().server.clone();
                if config.server != bound {
                    warn!(
                        "config: `server` has changed in what is bound at the start (interfaces, addresses, ports, limits); that is taken up at the next start"
                    );
                    // What machines are told must be what is served.
                    config.server = bound;
                }
                tell_warnings(&config);
                self.snapshot.send_replace(Arc::new(config));
                info!("config: reloaded from {}", self.source);
            }
            Err(reason) => {
                error!("config: not reloaded, the last good one serves on:\n{reason}");
            }
        }
    }
}

fn tell_warnings(config: &Config) {
    for problem in &config.warnings {
        warn!("config: {problem}");
    }
}
