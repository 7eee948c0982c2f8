//! Has the journal written each second, by a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::warn;

use super::ring::Told;
use super::store::Store;

/// How much is gathered before it is written.
const GATHER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Waiting {
    new: BTreeMap<u64, Arc<Told>>,
    gone: BTreeSet<u64>,
    is_closed: bool,
    is_over: bool,
}

/// The way to it.
#[derive(Debug, Default)]
pub(super) struct Writer {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Writer {
    /// Begins to write to a store.
    pub(super) fn start(store: Store) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self::default());
        let own = Arc::clone(&writer);
        thread::Builder::new().name("journal".to_owned()).spawn(move || own.run(store))?;
        Ok(writer)
    }

    /// Puts in what was told, and what had to go for it.
    pub(super) fn put(&self, told: Arc<Told>, gone: Vec<u64>) {
        let mut waiting = self.waiting();
        waiting.new.insert(told.id, told);
        for id in gone {
            // It need not be written first.
            if waiting.new.remove(&id).is_none() {
                waiting.gone.insert(id);
            }
        }
    }

    /// Writes what waits, and ends.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        self.changed.notify_all();
        let over = self.changed.wait_timeout_while(waiting, 2 * GATHER, |waiting| !waiting.is_over);
        drop(over);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut store: Store) {
        let mut is_told = false;
        loop {
            let waited =
                self.changed.wait_timeout_while(self.waiting(), GATHER, |all| !all.is_closed);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            let new = std::mem::take(&mut waiting.new);
            let gone: Vec<u64> = std::mem::take(&mut waiting.gone).into_iter().collect();
            let is_closed = waiting.is_closed;
            drop(waiting);
            if !new.is_empty() || !gone.is_empty() {
                match store.write(new.values().map(AsRef::as_ref), &gone) {
                    Ok(()) => is_told = false,
                    // It is in the log as well: there is nothing more to save.
                    Err(error) if !is_told => {
                        is_told = true;
                        warn!("journal: cannot be written: {error}; the log has it all the same");
                    }
                    Err(_) => {}
                }
            }
            if is_closed {
                self.waiting().is_over = true;
                self.changed.notify_all();
                return;
            }
        }
    }
}
