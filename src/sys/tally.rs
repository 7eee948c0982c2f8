//! Counts repeated log messages, to log each at most once a minute.

use std::time::{Duration, Instant};

/// Counts what is worth a line in the log, but at most one a minute.
#[derive(Debug, Default)]
pub struct Tally {
    count: u64,
    told: Option<Instant>,
}

impl Tally {
    /// Counts one more; how many there were, when it is time to say so.
    pub fn tell(&mut self) -> Option<u64> {
        self.add(1)
    }

    /// Counts so many more; see [`Tally::tell`].
    pub fn add(&mut self, more: usize) -> Option<u64> {
        self.count += more as u64;
        let now = Instant::now();
        let quiet = |told| now.duration_since(told) < Duration::from_mins(1);
        if self.told.is_some_and(quiet) {
            return None;
        }
        self.told = Some(now);
        Some(self.count)
    }
}
