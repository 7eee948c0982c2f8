//! What has happened in a run, for who has to find out why it failed.

use std::collections::VecDeque;
use std::fmt;

/// How many lines are kept: the last ones.
const MOST: usize = 600;

/// The last lines of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trace {
    is_kept: bool,
    lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(is_kept: bool) -> Self {
        Self { is_kept, lines: VecDeque::new() }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Adds a line at this time, in milliseconds.
    pub(super) fn note(&mut self, now: u64, line: impl FnOnce() -> String) {
        if !self.is_kept {
            return;
        }
        if self.lines.len() == MOST {
            self.lines.pop_front();
        }
        let (minutes, seconds) = (now / 60_000, (now % 60_000) as f64 / 1000.0);
        self.lines.push_back(format!("{minutes:3}:{seconds:06.3} {}", line()));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
