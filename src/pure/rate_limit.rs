//! So many at once, and so many a second after that.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often it is said how much was left out.
const REPORTED: Duration = Duration::from_secs(1);

/// What may be spent.
#[derive(Debug)]
pub struct Budget {
    most: f64,
    a_second: f64,
    left: f64,
    at: Option<Instant>,
    left_out: u64,
    reported: Option<Instant>,
}

impl Budget {
    /// This many at once, and this many a second.
    pub fn new((most, a_second): (u32, u32)) -> Self {
        let (most, a_second) = (f64::from(most), f64::from(a_second));
        Self { most, a_second, left: most, at: None, left_out: 0, reported: None }
    }

    /// One more: if it may be, how many might not since that was last said, which is once a second at most.
    pub fn spend(&mut self, now: Instant) -> Option<u64> {
        if !self.has_one(now) {
            self.left_out += 1;
            return None;
        }
        self.left -= 1.0;
        let is_due = self.reported.is_none_or(|at| now.duration_since(at) >= REPORTED);
        if self.left_out == 0 || !is_due {
            return Some(0);
        }
        self.reported = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Whether one more may be spent.
    pub fn has_one(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= 1.0
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= self.most
    }

    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        self.at = Some(now);
        self.left = (self.left + passed.as_secs_f64() * self.a_second).min(self.most);
    }
}

/// A budget for each of many, of whom a bounded number is kept: the budget of one that has spent nothing for
/// a while is full again, and need not be kept.
#[derive(Debug)]
pub struct Budgets<K> {
    rate: (u32, u32),
    capacity: usize,
    kept: HashMap<K, Budget>,
}

impl<K: Eq + Hash> Budgets<K> {
    /// For each this many at once, and this many a second; up to `capacity` are kept.
    pub fn new(rate: (u32, u32), capacity: usize) -> Self {
        Self { rate, capacity, kept: HashMap::new() }
    }

    /// One more for this one: whether it may be. If more than are kept spend at once, the others may not.
    pub fn spend(&mut self, key: K, now: Instant) -> bool {
        if self.kept.len() >= self.capacity && !self.kept.contains_key(&key) {
            self.kept.retain(|_, budget| !budget.is_full(now));
            if self.kept.len() >= self.capacity {
                return false;
            }
        }
        let budget = self.kept.entry(key).or_insert_with(|| Budget::new(self.rate));
        budget.spend(now).is_some()
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
        let spent =
            [0, 0, 0, 50, 99, 101, 150, 202, 5000].map(|millis| budget.spend(after(millis)));
        let said = [Some(0), Some(0), None, None, None, Some(3), None, Some(0), Some(1)];
        assert_eq!(spent, said, "the line that says so has no budget of its own");
    }

    #[test]
    fn each_has_a_budget_of_its_own() {
        let mut budgets = Budgets::new((2, 1), 10);
        let now = Instant::now();
        let spent = ["a", "a", "a", "b", "b", "b"].map(|key| budgets.spend(key, now));
        assert_eq!(spent, [true, true, false, true, true, false]);
        let later = now + Duration::from_secs(1);
        assert_eq!(["a", "a", "b"].map(|key| budgets.spend(key, later)), [true, false, true]);
    }

    /// Anybody can invent addresses.
    #[test]
    fn no_more_are_kept_than_there_is_room_for_and_an_idle_one_makes_room() {
        let mut budgets = Budgets::new((5, 1), 10);
        let start = Instant::now();
        let spent = (0..1000).filter(|key| budgets.spend(*key, start)).count();
        assert_eq!((spent, budgets.kept.len()), (10, 10));
        assert!(budgets.spend(3, start), "that it is known is enough");
        assert!(
            budgets.spend(1000, start + Duration::from_secs(1)),
            "those that are full again went"
        );
        assert_eq!(budgets.kept.len(), 2, "3 has spent two, and 1000 has come");
    }
}
