//! So many at once, and so many a second after that.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, Instant};

/// What may be spent.
#[derive(Debug)]
pub struct Budget {
    most: f64,
    a_second: f64,
    left: f64,
    at: Option<Instant>,
    left_out: u64,
}

impl Budget {
    /// This many at once, and this many a second.
    pub fn new((most, a_second): (u32, u32)) -> Self {
        let (most, a_second) = (f64::from(most), f64::from(a_second));
        Self { most, a_second, left: most, at: None, left_out: 0 }
    }

    /// One more: if it may be, how many might not since the last that might.
    pub fn spend(&mut self, now: Instant) -> Option<u64> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        self.at = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.a_second).min(self.most);
        if self.left < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts at some moment, no matter which")]
mod tests {
    use super::*;

    #[test]
    fn a_budget_says_how_much_it_left_out() {
        let mut budget = Budget::new((2, 10));
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let spent = [0, 0, 0, 50, 99, 101, 150, 5000].map(|millis| budget.spend(after(millis)));
        assert_eq!(spent, [Some(0), Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
