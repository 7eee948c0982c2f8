//! Events as people see them: each is one line of the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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
            Step::Ignored { reason } | Step::Refused { reason, .. }
                if self.was_told(subject, reason) =>
            {
                debug!("{subject}: {step}");
            }
            Step::Ignored { .. } | Step::Refused { .. } | Step::BrokenOff { .. } => {
                warn!("{subject}: {step}");
            }
            Step::Probed { .. } => debug!("{subject}: {step}"),
            Step::Offered { .. }
            | Step::Leased { .. }
            | Step::Acknowledged { .. }
            | Step::NbpSent { .. }
            | Step::AutoexecSent
            | Step::ScriptServed { .. }
            | Step::ImageSent { .. } => info!("{subject}: {step}"),
        }
    }

    fn was_told(&self, subject: &Subject, reason: &str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (subject.clone(), reason.to_owned());
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
