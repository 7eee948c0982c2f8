//! The running config: one snapshot at a time, the last good one on bad input.
//!
//! Bad is what cannot be served at all, and what breaks something that is not broken in the running one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use super::followed::{Followed, Marks, touched};
use super::loader::Source;
use crate::pure::config::diff::{at_next_start, changes};
use crate::pure::config::problem::Problem;
use crate::pure::config::reload::{LoadError, Reload};
use crate::pure::config::snapshot::Config;

/// How long a look at the files, or a reading of them, takes at most while their file system is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// Holds the source, and swaps the snapshot.
#[derive(Debug)]
pub struct Reloader {
    /// How everything stood when the running config was read. And one reload at a time: an older reading
    /// must not come after a newer one.
    reloading: Mutex<Marks>,
    snapshot: watch::Sender<Arc<Config>>,
    /// Apart from the lock above: a reading that hangs must not hide how things stand.
    standing: watch::Sender<Arc<Standing>>,
    /// When the files were looked at the last time, to the end.
    looked: Mutex<Instant>,
}

/// How the config stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Where it comes from.
    pub source: Source,
    /// How many configs have been taken up, that of the start included.
    pub generation: u64,
    /// When the running one was.
    pub since: SystemTime,
    /// Why a later one was not, and when.
    pub refused: Option<(Arc<LoadError>, SystemTime)>,
    /// What waits for the next start, a line each.
    pub at_next_start: Vec<String>,
    /// How often it was read.
    pub readings: u64,
    /// When it was read the last time, taken up or not.
    pub read: SystemTime,
    /// What it was made of when it was read the last time.
    pub followed: Arc<Followed>,
}

impl Reloader {
    /// Starts with a config that was loaded from `source`.
    pub fn new(source: Source, (config, followed): (Config, Followed)) -> Self {
        let taken = followed.marks.clone();
        let now = SystemTime::now();
        let standing = Standing {
            source,
            generation: 1,
            since: now,
            refused: None,
            at_next_start: Vec::new(),
            readings: 1,
            read: now,
            followed: Arc::new(followed),
        };
        Self {
            reloading: Mutex::new(taken),
            snapshot: watch::channel(Arc::new(config)).0,
            standing: watch::channel(Arc::new(standing)).0,
            looked: Mutex::new(Instant::now()),
        }
    }

    /// A view of the running config; take the `Arc` once for each request.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.snapshot.subscribe()
    }

    /// How the config stands.
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing.borrow())
    }

    /// Notes that the files were looked at, or read, to the end.
    pub fn has_looked(&self) {
        *self.looked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// For how long their file system has not answered, where it hangs: what changes is not seen meanwhile.
    pub fn hangs(&self) -> Option<Duration> {
        let since = self.looked.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        (since > PATIENCE).then_some(since)
    }

    /// Reads the source again, and says what became of that. What is bad changes nothing. `outdated` finds the
    /// machines on whose disks there is something else than the second config says, and the first one said.
    pub fn reload(&self, outdated: impl FnOnce(&Config, &Config) -> Vec<String>) -> Reload {
        let mut taken = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut standing = Standing::clone(&self.standing());
        // One may have come that is found where none was.
        if standing.source == Source::Defaults {
            standing.source = Source::usual();
        }
        let (loaded, followed) = standing.source.load_followed();
        standing.followed = Arc::new(followed);
        standing.readings += 1;
        standing.read = SystemTime::now();
        let reload = match loaded {
            Ok(config) if breaks(&self.snapshot.borrow(), &config) => {
                refuse(LoadError::Invalid(config.problems), &mut standing)
            }
            Ok(config) => self.take_up(config, (&mut taken, &mut standing), outdated),
            Err(error) => refuse(error, &mut standing),
        };
        self.standing.send_replace(Arc::new(standing));
        reload
    }

    fn take_up(
        &self,
        mut config: Config,
        (taken, standing): (&mut Marks, &mut Standing),
        outdated: impl FnOnce(&Config, &Config) -> Vec<String>,
    ) -> Reload {
        let old = Arc::clone(&self.snapshot.borrow());
        let waiting = at_next_start(&old.server, &config.server);
        let waited = std::mem::replace(&mut standing.at_next_start, waiting.clone());
        // What machines are told must be what is served.
        config.server = config.server.with_bound_of(&old.server);
        let marks = standing.followed.marks.clone();
        let touched = touched(taken, &marks);
        *taken = marks;
        standing.generation += 1;
        standing.since = SystemTime::now();
        standing.refused = None;
        let reload = Reload::TakenUp {
            source: standing.source.to_string(),
            generation: standing.generation,
            changes: changes(&old, &config, &touched),
            at_next_start: waiting.into_iter().filter(|line| !waited.contains(line)).collect(),
            outdated: outdated(&old, &config),
            problems: new_problems(&old, &config),
        };
        self.snapshot.send_replace(Arc::new(config));
        reload
    }
}

fn refuse(error: LoadError, standing: &mut Standing) -> Reload {
    let again = standing.refused.as_ref().is_some_and(|(before, _)| **before == error);
    standing.refused = Some((Arc::new(error.clone()), SystemTime::now()));
    Reload::Refused { error, again }
}

/// Whether something is broken by the new one that is not broken in the old one. How it is broken does not
/// count: what is half mended, or told in other words since there is one template more, is nothing new.
fn breaks(old: &Config, new: &Config) -> bool {
    let before: BTreeSet<&str> = old.faults().flat_map(Problem::spoiled).collect();
    new.faults().flat_map(Problem::spoiled).any(|spoiled| !before.contains(spoiled))
}

/// A line that was added above moves a warning, and makes no other of it.
fn new_problems(old: &Config, new: &Config) -> Vec<Problem> {
    let is_told = |problem: &&Problem| {
        let same = |old: &Problem| old.key == problem.key && old.message == problem.message;
        !old.problems.iter().any(same)
    };
    new.problems.iter().filter(is_told).cloned().collect()
}
