//! The seeds.

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use super::server::Bug;
use super::watch::Mode;
use super::world::{Outcome, Plan, run};
use crate::pure::machine::evidence::Effect;

/// How many seeds `make test` runs.
const SEEDS: u64 = 1000;

fn plan(seed: u64) -> Plan {
    let mode = if seed % 4 == 3 { Mode::Spoofing } else { Mode::Limited };
    Plan { seed, mode, bug: None }
}

/// What has come of many seeds.
#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    covered: [u64; Effect::ALL.len()],
    failed: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        for (sum, count) in self.covered.iter_mut().zip(outcome.covered) {
            *sum += count;
        }
        self.failed.extend(outcome.failure.map(|failure| (seed, failure)));
    }

    fn join(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        for (sum, count) in self.covered.iter_mut().zip(other.covered) {
            *sum += count;
        }
        self.failed.extend(other.failed);
    }

    /// A table for people.
    fn table(&self, seconds: f64) -> String {
        let Self { seeds, events, .. } = self;
        let (rate, each) = (*seeds as f64 / seconds, events / seeds.max(&1));
        let mut table = format!("rack: {seeds} seeds, {rate:.0} a second, {each} events each\n");
        for (effect, count) in Effect::ALL.iter().zip(self.covered) {
            let name = format!("{effect:?}");
            writeln!(table, "  {name:18} {count:9}").expect("a text can be written to");
        }
        table
    }
}

/// The seeds that the environment names, or the first ones.
fn seeds() -> Range<u64> {
    let named = std::env::var("REVEILLE_SEEDS").ok();
    let range = named.map(|named| {
        let (first, end) = named.split_once("..").expect("it is written as 0..100000");
        let number = |text: &str| text.parse().expect("it is written as 0..100000");
        number(first)..number(end)
    });
    range.unwrap_or(0..SEEDS)
}

fn run_all(seeds: Range<u64>) -> Sum {
    let next = AtomicU64::new(seeds.start);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = || {
            let mut sum = Sum::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || sum.failed.len() > 20 {
                    return sum;
                }
                sum.add(seed, run(plan(seed), false));
            }
        };
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().fold(Sum::default(), |mut sum, worker| {
            sum.join(worker.join().expect("no run panics"));
            sum
        })
    })
}

#[test]
fn a_rack_keeps_its_invariants_whatever_the_seed() {
    let began = Instant::now();
    let mut sum = run_all(seeds());
    let table = sum.table(began.elapsed().as_secs_f64());
    std::io::stdout().write_all(table.as_bytes()).expect("a test may write");
    sum.failed.sort();
    if let Some((seed, failure)) = sum.failed.first() {
        let again = run(Plan { ..plan(*seed) }, true);
        let failed: Vec<_> =
            sum.failed.iter().map(|(seed, why)| format!("{seed}: {why}")).collect();
        panic!(
            "{}\nseed {seed}, {:?}: {failure}\n{}",
            again.trace,
            plan(*seed).mode,
            failed.join("\n")
        );
    }
    if sum.seeds >= SEEDS {
        for (effect, count) in Effect::ALL.iter().zip(sum.covered) {
            assert!(count > 0, "{effect:?} was never seen:\n{table}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_trace_each_time() {
    for seed in 0..4 {
        let [one, other] = [(); 2].map(|()| run(plan(seed), true));
        assert_eq!(one.trace.to_string(), other.trace.to_string(), "seed {seed}");
        assert_eq!((one.covered, one.events), (other.covered, other.events), "seed {seed}");
    }
    assert_ne!(run(plan(0), true).trace, run(plan(1), true).trace);
}

/// The first seed that finds a planted fault, and what it finds.
fn found(bug: Bug) -> Option<(u64, String)> {
    let planted = |seed| Plan { seed, mode: Mode::Limited, bug: Some(bug) };
    (0..SEEDS).find_map(|seed| Some((seed, run(planted(seed), false).failure?)))
}

#[test]
fn finds_a_server_that_does_not_ask_the_neighbour_table() {
    assert!(found(Bug::SkipsTheNeighbourTable).is_some());
}

#[test]
fn finds_a_server_that_needs_no_boot_id() {
    assert!(found(Bug::DropsTheId).is_some());
}

#[test]
fn finds_a_server_that_arms_at_a_discover() {
    assert!(found(Bug::ArmsAtDiscover).is_some());
}

#[test]
fn finds_a_server_that_puts_a_used_order_back() {
    assert!(found(Bug::PutsTheOrderBack).is_some());
}
