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
/// How many steps of machines that are not in the config are told each second: whoever invents MACs
/// shall fill no disk, and what reads the log must not hold up the answers.
const STRANGERS: u32 = 100;

/// The one place where events become visible.
#[derive(Debug, Default)]
pub struct Journal {
    told: Mutex<HashMap<(Subject, String), Instant>>,
    strangers: Mutex<Pace>,
}

impl Journal {
    /// Writes an event down.
    pub fn publish(&self, Event { subject, step }: &Event) {
        match step {
            Step::Offered { .. }
            | Step::Leased { .. }
            | Step::Acknowledged { .. }
            | Step::Ignored { .. }
            | Step::Refused { .. }
                if subject.name.is_none() && !self.is_time_for_a_stranger() =>
            {
                debug!("{subject}: {step}");
            }
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

    /// Counts a line about a machine that is not in the config; whether it may be written.
    fn is_time_for_a_stranger(&self) -> bool {
        let mut pace = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let left_out = pace.take(Instant::now());
        drop(pace);
        if let Some(count @ 1..) = left_out {
            warn!("left out {count} lines about machines that are not in the config");
        }
        left_out.is_some()
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

/// At most [`STRANGERS`] lines a second.
#[derive(Debug, Default)]
struct Pace {
    since: Option<Instant>,
    told: u32,
    left_out: u64,
}

impl Pace {
    /// Takes one line, where there may be one: then how many were left out that nobody was told of.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let is_over = |since| now.duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told == STRANGERS {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.left_out))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_strangers_is_told_of_at_a_pace_and_what_is_left_out_is_counted() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let told = (0..1000).filter(|_| pace.take(start) == Some(0)).count();
        assert_eq!(told, 100);
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.take(later), Some(900));
        assert_eq!(pace.take(later), Some(0));
    }
}
