//! Has the journal written each second, by a thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tracing::warn;

use super::ring::{Ring, Told};
use super::store::Store;
use crate::state::sqlite::{DatabaseError, Displaced};

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
    pub(super) fn start(
        store: Option<Store>,
        state: PathBuf,
        ring: Arc<Mutex<Ring>>,
    ) -> io::Result<Arc<Self>> {
        let writer = Arc::new(Self::default());
        let own = Arc::clone(&writer);
        let pen = Pen { store, state, ring, displaced: None };
        thread::Builder::new().name("journal".to_owned()).spawn(move || own.run(pen))?;
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

    fn run(&self, mut pen: Pen) {
        let mut is_told = pen.store.is_none();
        loop {
            let waited =
                self.changed.wait_timeout_while(self.waiting(), GATHER, |all| !all.is_closed);
            let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
            let new = std::mem::take(&mut waiting.new);
            let gone: Vec<u64> = std::mem::take(&mut waiting.gone).into_iter().collect();
            let is_closed = waiting.is_closed;
            drop(waiting);
            if !new.is_empty() || !gone.is_empty() || pen.is_displaced() {
                match pen.write(&new, &gone) {
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

/// What the thread has for itself.
struct Pen {
    /// None as long as it cannot be opened.
    store: Option<Store>,
    state: PathBuf,
    /// What the file holds, and what waits.
    ring: Arc<Mutex<Ring>>,
    /// What became of the file, until another one holds all.
    displaced: Option<String>,
}

impl Pen {
    fn is_displaced(&self) -> bool {
        self.displaced.is_some()
            || self.store.as_ref().is_some_and(|store| store.displaced().is_some())
    }

    /// Writes these, and removes those. If the file was deleted or replaced, a new one gets all that is in memory.
    fn write(&mut self, new: &BTreeMap<u64, Arc<Told>>, gone: &[u64]) -> Result<(), DatabaseError> {
        if let Some(Displaced { what, .. }) = self.store.as_ref().and_then(Store::displaced) {
            // It is not written to any more. SQLite leaves what it finds in the place of its own.
            self.store = None;
            self.displaced = Some(what);
            let aside = Store::move_aside(&self.state)?;
            if aside.exists() {
                warn!(
                    "journal: the file that was found in its place is kept as {}",
                    aside.display()
                );
            }
        }
        let store = match self.store.take() {
            Some(store) => store,
            None => Store::open(&self.state)?.0,
        };
        let store = self.store.insert(store);
        if self.displaced.is_none() {
            return store.write(new.values().map(AsRef::as_ref), gone);
        }
        let all =
            self.ring.lock().unwrap_or_else(PoisonError::into_inner).after(0, None, usize::MAX);
        store.write(all.iter().map(AsRef::as_ref), gone)?;
        if let Some(what) = self.displaced.take() {
            warn!(
                "journal: {what} while the daemon runs: all of it was written again from memory; find out what removes files from {}",
                self.state.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::state::journal::Level;

    fn told(text: &str) -> Told {
        Told {
            id: 0,
            at: SystemTime::now().into(),
            mac: None,
            name: None,
            address: None,
            kind: "reloaded".into(),
            level: Level::Info,
            text: text.into(),
        }
    }

    #[test]
    fn a_deleted_or_replaced_file_is_written_again_whole() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let ring = Arc::new(Mutex::new(Ring::default()));
        let (store, _) = Store::open(state).unwrap();
        let mut pen = Pen {
            store: Some(store),
            state: state.to_owned(),
            ring: Arc::clone(&ring),
            displaced: None,
        };
        let mut write = |text: &str| {
            let put = ring.lock().unwrap().keep(told(text));
            assert!(put.gone.is_empty());
            pen.write(&BTreeMap::from([(put.told.id, put.told)]), &[]).unwrap();
            assert!(!pen.is_displaced());
        };
        let on_disk = || {
            let all = Store::read(state).unwrap().after(0, None, usize::MAX);
            all.iter().map(|told| told.text.clone()).collect::<Vec<String>>()
        };
        write("one");
        assert_eq!(on_disk(), ["one"]);
        fs::remove_dir_all(state.join("db")).unwrap();
        write("two");
        assert_eq!(on_disk(), ["one", "two"]);

        let path = Store::path(state);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another file").unwrap();
        write("three");
        assert_eq!(on_disk(), ["one", "two", "three"]);
        let names = fs::read_dir(state.join("db")).unwrap().flatten();
        let kept = names.filter(|entry| {
            entry.file_name().to_string_lossy().starts_with("journal.db.replaced-")
                && fs::read(entry.path()).is_ok_and(|content| content == b"another file")
        });
        assert_eq!(kept.count(), 1);
    }
}
