//! What waits to be written, and when it is its turn.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::machines::Id;
use crate::pure::event::boot::Event;

/// How long a change waits that is not told of, as one of a flood: what changes again meanwhile is written once.
const LAZY: Duration = Duration::from_secs(5);
/// How many that have waited so are written at once.
const MOST_LAZY: usize = 2000;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) events: Vec<Event>,
    changed: HashSet<Id>,
    /// Who changed, and is not told of.
    lazy: HashSet<Id>,
    /// Who of them has waited for long enough.
    due: HashSet<Id>,
    /// When it is looked again who has.
    lazy_until: Option<Instant>,
    gone: HashSet<Id>,
    /// Who has a row in the file, or is about to get one: only that needs to be removed.
    rows: HashSet<Id>,
    /// How much has been put in.
    pub(super) put: u64,
    /// How much of it is done.
    pub(super) done: u64,
    /// Whether somebody waits for all of it.
    pub(super) is_urgent: bool,
    /// Whether the operator accepts what was lost.
    pub(super) accepts_loss: bool,
    /// Why the last attempt to write failed.
    pub(super) failed: Option<String>,
    /// Whether nothing more is taken up.
    pub(super) is_closed: bool,
    /// Whether nobody writes any more.
    pub(super) is_over: bool,
}

/// What changed, and how it is to be told.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// To be told once it is on the disk.
    pub(super) events: Vec<Event>,
    /// Whom it is about, and who is another one by it.
    pub(super) changed: Vec<Id>,
    /// Who had to go for it.
    pub(super) gone: Vec<Id>,
}

/// What is written at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) changed: HashSet<Id>,
    /// Who of them has no row yet.
    new: Vec<Id>,
    pub(super) gone: HashSet<Id>,
    /// Whether the operator accepts what was lost. An attempt that fails is not repeated.
    pub(super) accepts_loss: bool,
}

impl Queue {
    /// One before a file that has these rows, or cannot be written.
    pub(super) fn new(rows: HashSet<Id>, failed: Option<String>) -> Self {
        Self { rows, failed, ..Self::default() }
    }

    /// Takes up what changed, if anything still is; whether it is the first that is told of.
    pub(super) fn put(&mut self, Change { events, changed, gone }: Change) -> bool {
        if self.is_closed {
            return false;
        }
        let is_first = !events.is_empty() && self.events.is_empty();
        let waits = if events.is_empty() { &mut self.lazy } else { &mut self.changed };
        waits.extend(changed);
        self.events.extend(events);
        for id in gone {
            self.forget(id);
        }
        self.put += 1;
        is_first
    }

    /// Whether something waits to be told of.
    pub(super) fn is_told(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether somebody waits to be written now.
    pub(super) fn is_to_be_written(&self) -> bool {
        !self.changed.is_empty() || !self.due.is_empty()
    }

    /// Has its row removed, if it has one.
    fn forget(&mut self, id: Id) {
        self.changed.remove(&id);
        self.lazy.remove(&id);
        self.due.remove(&id);
        if self.rows.remove(&id) {
            self.gone.insert(id);
        }
    }

    /// Has all of them written now.
    pub(super) fn hurry(&mut self) {
        for lazy in [std::mem::take(&mut self.lazy), std::mem::take(&mut self.due)] {
            self.changed.extend(lazy);
        }
    }

    /// Has those written now that have waited for long enough; when it is to be looked again.
    pub(super) fn fall_due(&mut self, now: Instant) -> Instant {
        let until = *self.lazy_until.get_or_insert(now + LAZY);
        if now < until || !self.due.is_empty() {
            return until;
        }
        self.due = std::mem::take(&mut self.lazy);
        *self.lazy_until.insert(now + LAZY)
    }

    /// These have a row now, whoever had to go meanwhile.
    pub(super) fn has_rows(&mut self, ids: Vec<Id>, is_there: impl Fn(Id) -> bool) {
        for id in ids {
            if is_there(id) {
                self.rows.insert(id);
            } else {
                self.gone.insert(id);
            }
        }
    }

    /// Who is to be written now, and whose row is to be removed.
    pub(super) fn take(&mut self) -> Batch {
        let mut changed = std::mem::take(&mut self.changed);
        changed.extend(self.due.iter().take(MOST_LAZY));
        for id in &changed {
            self.lazy.remove(id);
            self.due.remove(id);
        }
        let new = changed.iter().copied().filter(|id| self.rows.insert(*id)).collect();
        let accepts_loss = std::mem::take(&mut self.accepts_loss);
        Batch { changed, new, gone: std::mem::take(&mut self.gone), accepts_loss }
    }

    /// Has it written another time. Who had to go meanwhile and has no row is forgotten.
    pub(super) fn put_back(&mut self, Batch { changed, new, gone, accepts_loss: _ }: Batch) {
        let is_there = |id: &Id| !self.gone.contains(id);
        self.changed.extend(changed.into_iter().filter(is_there));
        for id in new {
            self.rows.remove(&id);
            self.gone.remove(&id);
        }
        self.gone.extend(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_invented_machines_nothing_piles_up_where_the_disk_cannot_be_written() {
        let mut queue = Queue { rows: (0..10).map(Id).collect(), ..Queue::default() };
        for n in 0..100_000 {
            queue.lazy.insert(Id(n));
            if n % 1000 == 0 {
                queue.due.extend(std::mem::take(&mut queue.lazy));
                let batch = queue.take();
                // One of them has to go while it is written in vain.
                queue.forget(Id(n));
                queue.put_back(batch);
            }
            queue.forget(Id(n - 100));
        }
        assert!(queue.changed.len() + queue.lazy.len() + queue.due.len() <= 200, "{queue:?}");
        assert_eq!(queue.gone, (0..10).map(Id).collect(), "those that the file has");
        assert!(queue.rows.is_empty());
    }

    #[test]
    fn what_changes_again_and_again_untold_is_written_with_what_is_told_or_when_its_time_has_come()
    {
        let mut queue = Queue { lazy: HashSet::from([Id(1), Id(2)]), ..Queue::default() };
        queue.changed.insert(Id(1));
        assert_eq!(queue.take().changed, HashSet::from([Id(1)]));
        assert_eq!(queue.lazy, HashSet::from([Id(2)]), "the other one waits on");
        let now = Instant::now();
        let until = queue.fall_due(now);
        assert!(until > now && queue.take().changed.is_empty());
        assert!(queue.fall_due(until) > until);
        assert_eq!(queue.take().changed, HashSet::from([Id(2)]));
    }

    #[test]
    fn a_row_that_was_written_with_all_goes_when_its_machine_had_to_go_meanwhile() {
        let mut queue = Queue::default();
        queue.has_rows(vec![Id(1), Id(2)], |id| id == Id(1));
        queue.forget(Id(1));
        assert_eq!(queue.take().gone, HashSet::from([Id(1), Id(2)]));
    }

    #[test]
    fn a_row_goes_that_was_written_while_its_machine_had_to_go() {
        let mut queue = Queue::default();
        queue.changed.insert(Id(1));
        queue.take();
        queue.forget(Id(1));
        assert_eq!(queue.take().gone, HashSet::from([Id(1)]));
    }
}
