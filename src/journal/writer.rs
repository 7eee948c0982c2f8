//! Has the journal written each second, by a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
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

impl Waiting {
    fn forget(&mut self, gone: impl IntoIterator<Item = u64>) {
        for id in gone {
            // It need not be written first.
            if self.new.remove(&id).is_none() {
                self.gone.insert(id);
            }
        }
    }
}

impl Writer {
    /// Begins to write to a store; one that cannot be opened yet is tried again.
    pub(super) fn start(store: Option<Store>, state: PathBuf) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self::default());
        let own = Arc::clone(&writer);
        thread::Builder::new().name("journal".to_owned()).spawn(move || own.run(store, &state))?;
        Ok(writer)
    }

    /// Puts in what was told, and what had to go for it.
    pub(super) fn put(&self, told: Arc<Told>, gone: Vec<u64>) {
        let mut waiting = self.waiting();
        waiting.new.insert(told.id, told);
        waiting.forget(gone);
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

    fn run(&self, mut store: Option<Store>, state: &Path) {
        let mut is_told = store.is_none();
        loop {
            let waited =
                self.changed.wait_timeout_while(self.waiting(), GATHER, |all| !all.is_closed);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            let new = std::mem::take(&mut waiting.new);
            let gone: Vec<u64> = std::mem::take(&mut waiting.gone).into_iter().collect();
            let is_closed = waiting.is_closed;
            drop(waiting);
            if !new.is_empty() || !gone.is_empty() {
                let written = match &mut store {
                    Some(store) => store.write(new.values().map(AsRef::as_ref), &gone),
                    None => Store::open(state).and_then(|(opened, _)| {
                        let opened = store.insert(opened);
                        opened.write(new.values().map(AsRef::as_ref), &gone)
                    }),
                };
                match written {
                    Ok(()) => is_told = false,
                    Err(error) => {
                        if !std::mem::replace(&mut is_told, true) {
                            warn!(
                                "journal: cannot be written: {error}; the log has it all the same"
                            );
                        }
                        let mut waiting = self.waiting();
                        let since = std::mem::replace(&mut waiting.new, new);
                        waiting.new.extend(since);
                        let since = std::mem::take(&mut waiting.gone);
                        waiting.forget(since);
                        waiting.gone.extend(gone);
                    }
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
