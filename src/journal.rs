//! Events as people see them: each is one line of the log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::boot::event::Subject;
use crate::boot::{Event, Step};

/// How long a machine that is refused for one reason is not told of again: firmware asks every few
/// seconds, for ever.
const QUIET: Duration = Duration::from_mins(10);
/// How many of them are remembered at once.
const MOST: usize = 1000;

/// The one place where events become visible.
#[derive(Debug, Default)]
pub struct Journal {
    told: Mutex<HashMap<(Subject, String), Instant>>,
}

impl Journal {
    /// Writes an event down.
    pub fn publish(&self, Event { subject, step }: &Event) {
        match step {
            Step::Ignored { .. } | Step::Refused { .. } if self.was_told(subject, step) => {
                debug!("{subject}: {step}");
            }
            Step::Ignored { .. } | Step::Refused { .. } | Step::BrokenOff { .. } => {
                warn!("{subject}: {step}");
            }
            Step::Probed { .. } => debug!("{subject}: {step}"),
            Step::Offered { .. }
            | Step::Leased { .. }
            | Step::Acknowledged { .. }
            | Step::AutoexecSent => info!("{subject}: {step}"),
            Step::NbpSent { .. } | Step::ScriptServed { .. } | Step::ImageSent { .. } => {
                info!("{subject}: {step}");
                self.forget(subject);
            }
        }
    }

    /// It got something: what goes wrong next is worth a line again.
    fn forget(&self, subject: &Subject) {
        self.told().retain(|(told, _), _| told != subject);
    }

    fn told(&self) -> MutexGuard<'_, HashMap<(Subject, String), Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_told(&self, subject: &Subject, step: &Step) -> bool {
        let now = Instant::now();
        let mut told = self.told();
        let key = (subject.clone(), step.to_string());
        if told.get(&key).is_some_and(|at| now.duration_since(*at) < QUIET) {
            return true;
        }
        if told.len() >= MOST {
            told.clear();
        }
        told.insert(key, now);
        false
    }
}

/// Counts what is worth a line in the log, but at most one a minute.
#[derive(Debug, Default)]
pub struct Tally {
    count: u64,
    told: Option<Instant>,
}

impl Tally {
    /// Counts one more; how many there were, when it is time to say so.
    pub fn tell(&mut self) -> Option<u64> {
        self.count += 1;
        let now = Instant::now();
        let quiet = |told| now.duration_since(told) < Duration::from_mins(1);
        if self.told.is_some_and(quiet) {
            return None;
        }
        self.told = Some(now);
        Some(self.count)
    }
}
