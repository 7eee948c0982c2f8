//! Has what changed written to the disk, and then told: one thread, one transaction for all that waits.
//!
//! Nobody who answers a machine waits for the disk: what is remembered changes at once, and whoever asks next is
//! answered by it. The event is told (log, journal) when the change is on the disk, so that what was told is
//! never forgotten, whatever ends the daemon.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::loss::{self, Standing};
use super::machines::{Entry, Id};
use super::queue::{Batch, Change, Queue};
use super::store::{Content, Store};
use super::{Remembered, STOPPING, locked};
use crate::state::journal::Journal;
use crate::state::sqlite::{self, DatabaseError, Displaced};
use crate::sys::files::unwritable;

/// How long it is gathered what is told of: a transaction more costs the disk far more than an event more.
const GATHER: Duration = Duration::from_millis(5);
/// How often a disk that cannot be written is tried again, and told of.
const AGAIN: Duration = Duration::from_secs(5);
/// See [`AGAIN`].
const TOLD: Duration = Duration::from_mins(10);
/// How long whoever gave an order waits until it is on the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the files are inspected: whether they are still at their places.
const INSPECTED: Duration = Duration::from_secs(2);
/// How old the verified copy may become.
const COPIED: Duration = Duration::from_hours(24);

/// What the writer shares with the registry.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) remembered: Arc<Mutex<Remembered>>,
    pub(super) journal: Arc<Journal>,
    pub(super) standing: Arc<Standing>,
}

/// The way to it.
#[derive(Debug, Default)]
pub(super) struct Writer {
    queue: Mutex<Queue>,
    put: Condvar,
    done: Condvar,
}

impl Writer {
    /// Begins to write to a store.
    pub(super) fn start(
        store: Result<Store, DatabaseError>,
        state: PathBuf,
        shared: Shared,
    ) -> std::io::Result<Arc<Self>> {
        let failed = store.as_ref().err().map(ToString::to_string);
        shared.standing.set_unwritable(failed.as_deref());
        let told = failed.is_some().then(Instant::now);
        let store = store.ok();
        let rows = locked(&shared.remembered).machines.iter().map(|entry| entry.id).collect();
        let queue = Mutex::new(Queue::new(rows, failed));
        let writer = Arc::new(Self { queue, ..Self::default() });
        // A file that did not exist at the start may come with a disk that is mounted late.
        let is_read = store.is_some() || Store::path(&state).exists();
        let unopened = match store {
            Some(_) => None,
            None => sqlite::identity(&Store::path(&state)).ok().flatten(),
        };
        let now = Instant::now();
        let age = Store::age_of_previous(&state).unwrap_or(COPIED);
        let pen = Pen {
            store,
            state,
            shared,
            told,
            is_read,
            unopened,
            is_changed: false,
            is_marked: false,
            inspects_at: now,
            copies_at: now + COPIED.saturating_sub(age),
        };
        let own = Arc::clone(&writer);
        thread::Builder::new().name("registry".to_owned()).spawn(move || own.run(pen))?;
        Ok(writer)
    }

    /// Puts in what changed. What is told of nobody is written when there is time.
    pub(super) fn put(&self, change: Change) {
        if self.queue().put(change) {
            self.put.notify_one();
        }
    }

    /// Waits until what was put in is on the disk.
    ///
    /// # Errors
    /// It is not, and why; it holds as long as the daemon runs.
    pub(super) fn flush(&self) -> Result<(), String> {
        self.wait_for_all(self.queue())
    }

    /// Waits until it is on the disk that the operator accepts what was lost.
    ///
    /// # Errors
    /// It is not, and why.
    pub(super) fn accept_loss(&self) -> Result<(), String> {
        let mut queue = self.queue();
        queue.accepts_loss = true;
        self.wait_for_all(queue)
    }

    /// Takes up nothing more, writes what waits, and ends.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.is_closed = true;
        // Why it cannot be written has been told.
        self.wait_for_all(queue).ok();
    }

    fn wait_for_all(&self, mut queue: MutexGuard<'_, Queue>) -> Result<(), String> {
        queue.hurry();
        // What is being written at the moment is not all of it.
        queue.put += 1;
        let mine = queue.put;
        queue.is_urgent = true;
        self.put.notify_one();
        let until = Instant::now() + PATIENCE;
        while queue.done < mine {
            if queue.is_over {
                return Err(STOPPING.to_owned());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("the disk does not answer".to_owned());
            }
            let waited = self.done.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.failed.clone().map_or(Ok(()), Err)
    }

    /// Why the last attempt to write failed.
    pub(super) fn failed(&self) -> Option<String> {
        self.queue().failed.clone()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut pen: Pen) {
        // Where the disk cannot be written: when it is tried again.
        let mut again = pen.store.is_none().then(|| Instant::now() + AGAIN);
        loop {
            let mut queue = self.queue();
            loop {
                let now = Instant::now();
                let lazy_until = queue.fall_due(now);
                let is_time = match again {
                    Some(again) => queue.is_told() || now >= again,
                    None => queue.is_told() || queue.is_to_be_written() || now >= pen.inspects_at,
                };
                if is_time || queue.is_urgent {
                    break;
                }
                let until = again.unwrap_or(lazy_until.min(pen.inspects_at));
                let waited = self.put.wait_timeout(queue, until.saturating_duration_since(now));
                queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            let is_calm = |queue: &mut Queue| !queue.is_urgent;
            let waited = self.put.wait_timeout_while(queue, GATHER, is_calm);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
            let is_last = queue.is_closed;
            let is_tried = queue.is_urgent || again.is_none_or(|again| Instant::now() >= again);
            let is_waiting = queue.is_to_be_written();
            let batch = is_tried.then(|| queue.take());
            let events = std::mem::take(&mut queue.events);
            let put = queue.put;
            queue.is_urgent = false;
            drop(queue);

            let mut written = batch.map(|batch| (pen.write(&batch), batch));
            // Before it is told, as it may be forgotten by the next start.
            if matches!(written, Some((Ok(_), _))) {
                pen.mark_written();
            } else if is_waiting {
                pen.mark_unwritten();
            }
            if is_last && let Some((Ok(_), _)) = &written {
                let closed = pen.close();
                if let (Err(error), Some((result, _))) = (closed, &mut written) {
                    *result = Err(error);
                }
            }
            // Also where it could not be written: it holds as long as the daemon runs.
            events.iter().for_each(|event| pen.shared.journal.write(event));
            // Both, and in the order in which who puts in has them.
            let shared = pen.shared.clone();
            let remembered = locked(&shared.remembered);
            let mut queue = self.queue();
            queue.done = put;
            queue.is_over = is_last;
            match written {
                Some((Ok(all), _)) => {
                    queue.has_rows(all, |id| remembered.machines.get(id).is_some());
                    if again.take().is_some() {
                        info!("registry: what is remembered is written again");
                    }
                    queue.failed = None;
                    shared.standing.set_unwritable(None);
                }
                Some((Err(error), batch)) => {
                    queue.put_back(batch);
                    let reason = error.to_string();
                    shared.standing.set_unwritable(Some(&reason));
                    queue.failed = Some(reason);
                    again = Some(Instant::now() + AGAIN);
                    drop(remembered);
                    pen.tell(&error);
                }
                None => {}
            }
            self.done.notify_all();
            if is_last {
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
    shared: Shared,
    told: Option<Instant>,
    /// Whether the memory holds all that the file held at the start.
    is_read: bool,
    /// The file that was there at the start, was read, and could not be opened to be written.
    unopened: Option<(u64, u64)>,
    /// Whether something was written since the last verified copy.
    is_changed: bool,
    /// Whether the trace was left that something is not written.
    is_marked: bool,
    inspects_at: Instant,
    copies_at: Instant,
}

impl Pen {
    /// Writes what waits; who has a row by that, where it is more than what waits.
    fn write(&mut self, batch: &Batch) -> Result<Vec<Id>, DatabaseError> {
        let rows = self.write_machines(batch)?;
        if batch.accepts_loss
            && self.shared.standing.is_lost()
            && let Some(store) = &mut self.store
        {
            store.set_loss(None)?;
            self.shared.standing.accept();
            self.copies_at = Instant::now();
            info!(
                "registry: the operator has accepted the loss; machines boot as the config and the registry say"
            );
        }
        self.copy_if_due();
        Ok(rows)
    }

    fn write_machines(&mut self, batch: &Batch) -> Result<Vec<Id>, DatabaseError> {
        let Batch { changed, gone, .. } = batch;
        self.inspects_at = Instant::now() + INSPECTED;
        let Some(store) = &mut self.store else { return self.open() };
        if let Some(displaced) = store.displaced() {
            return self.write_again(&displaced);
        }
        if changed.is_empty() && gone.is_empty() {
            return Ok(Vec::new());
        }
        let entries: Vec<Entry> = {
            let remembered = locked(&self.shared.remembered);
            changed.iter().filter_map(|id| remembered.machines.get(*id).cloned()).collect()
        };
        let gone: Vec<Id> = gone.iter().copied().collect();
        self.is_changed = true;
        match store.write(&entries, &gone) {
            Err(error @ DatabaseError::Damaged { .. }) => {
                error!("registry: {error}");
                self.begin_anew("damaged")
            }
            written => written.map(|()| Vec::new()),
        }
    }

    /// Opens the file that could not be opened before.
    fn open(&mut self) -> Result<Vec<Id>, DatabaseError> {
        self.refuse_another()?;
        match Store::open(&self.state) {
            Err(DatabaseError::Damaged { .. }) => self.begin_anew("damaged"),
            opened => self.begin(opened?.0),
        }
    }

    /// A file was deleted or replaced while it was open: it is not written to any more.
    fn write_again(&mut self, displaced: &Displaced) -> Result<Vec<Id>, DatabaseError> {
        let Displaced { what, is_main } = displaced;
        // SQLite leaves what it finds in the place of its own.
        self.store = None;
        if *is_main {
            self.refuse_another()?;
        }
        let all = self.begin_anew("replaced")?;
        error!(
            "registry: {what} while the daemon runs: all of it was written again from memory, and nothing is lost; find out what removes files from {}, and stop the daemon before you move or restore them (`reveille restore FILE`)",
            self.state.display()
        );
        Ok(all)
    }

    /// A registry that has come with a disk that was mounted late is not written over by a memory that lacks what it
    /// holds.
    fn refuse_another(&self) -> Result<(), DatabaseError> {
        if self.is_read && !self.shared.standing.is_lost() {
            return Ok(());
        }
        let found = sqlite::identity(&Store::path(&self.state)).ok().flatten();
        if found.is_some() && found == self.unopened {
            return Ok(());
        }
        match Store::inspect(&self.state) {
            Ok(Content { machines, .. }) if machines.iter().next().is_some() => {
                Err(DatabaseError::Unusable {
                    path: Store::path(&self.state),
                    reason: "it has appeared since the start, and holds machines: restart the daemon to use it, or move it away"
                        .to_owned(),
                })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The file is unusable, or another one, and the memory holds all: it is written into a new one.
    fn begin_anew(&mut self, word: &str) -> Result<Vec<Id>, DatabaseError> {
        self.store = None;
        let aside = Store::move_aside(&self.state, word)?;
        let (store, _) = Store::open(&self.state)?;
        let all = self.begin(store)?;
        if aside.exists() {
            warn!(
                "registry: the file that was found in its place is kept as {}, and all was written anew",
                aside.display()
            );
        }
        Ok(all)
    }

    /// Continues with this one, which has nothing of what is remembered, or what was there at the start.
    fn begin(&mut self, mut store: Store) -> Result<Vec<Id>, DatabaseError> {
        let all: Vec<Entry> = locked(&self.shared.remembered).machines.iter().cloned().collect();
        store.replace(&all, self.shared.standing.loss().as_ref())?;
        (self.store, self.is_read, self.is_changed) = (Some(store), true, true);
        Ok(all.iter().map(|entry| entry.id).collect())
    }

    /// A copy that cannot be made holds up nothing: the one before is kept.
    fn copy_if_due(&mut self) {
        if Instant::now() >= self.copies_at {
            self.copies_at = Instant::now() + COPIED;
            self.copy();
        }
    }

    /// After a loss the copy may hold what the registry lacks.
    fn copy(&mut self) {
        let Some(store) = &self.store else { return };
        if self.shared.standing.is_lost() {
            return;
        }
        match store.keep_previous(&self.state) {
            Ok(()) => self.is_changed = false,
            Err(error) => {
                warn!("registry: no verified copy was made: {error}; the one before is kept")
            }
        }
    }

    fn close(&mut self) -> Result<(), DatabaseError> {
        if self.is_changed {
            self.copy();
        }
        self.store.take().map_or(Ok(()), Store::close)
    }

    /// Leaves the trace that something is not written, at every attempt: the folder may have come back.
    fn mark_unwritten(&mut self) {
        match loss::mark_unwritten(&self.state) {
            Ok(()) => self.is_marked = true,
            Err(error) if !self.is_marked => {
                self.is_marked = true;
                error!(
                    "registry: that changes are not written cannot be noted in {}: {}; if reveille is stopped before they are, machines may install once more",
                    self.state.display(),
                    unwritable(&error)
                );
            }
            Err(_) => {}
        }
    }

    /// Removes the trace.
    fn mark_written(&mut self) {
        if !std::mem::take(&mut self.is_marked) {
            return;
        }
        if let Err(error) = loss::mark_written(&self.state) {
            warn!(
                "registry: all changes are written, but the marker registry.unwritten remains in {}: {}; the next start reports a loss",
                self.state.display(),
                unwritable(&error)
            );
        }
    }

    fn tell(&mut self, error: &DatabaseError) {
        if self.told.is_none_or(|told| told.elapsed() > TOLD) {
            self.told = Some(Instant::now());
            error!(
                "registry: what is remembered cannot be written: {error}; it holds until the daemon ends; machines boot on, and those whose profile wipes hold until it is written, unless `server.on_lost_state` is `boot`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn who_waits_for_all_waits_for_what_was_not_being_written_yet() {
        let writer = Arc::new(Writer::default());
        let [first, second] =
            [1, 2].map(|id| Change { changed: vec![Id(id)], ..Change::default() });
        writer.put(first);
        writer.queue().hurry();
        let batch = writer.queue().take();
        writer.put(second);
        let put = writer.queue().put;
        let own = Arc::clone(&writer);
        let flushed = thread::spawn(move || own.flush());
        while !writer.queue().is_urgent {
            thread::yield_now();
        }
        writer.queue().done = put;
        writer.done.notify_all();
        assert_eq!(batch.changed, HashSet::from([Id(1)]));
        assert_eq!(writer.queue().take().changed, HashSet::from([Id(2)]));
        assert!(writer.queue().put > put, "it waits for another one");
        writer.queue().is_over = true;
        writer.done.notify_all();
        assert!(flushed.join().unwrap().is_err(), "nobody writes any more");
    }
}
