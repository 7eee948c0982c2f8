//! How far downloads are: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::cli::output::tell;
use crate::state::images::job::Job;

/// After how many more percent a line is written.
const STEP: u64 = 10;

/// All that are shown.
pub(super) struct Bars {
    all: MultiProgress,
    on_a_terminal: bool,
    bars: BTreeMap<String, ProgressBar>,
    /// How far each was when a line was written.
    written: BTreeMap<String, u64>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            all: MultiProgress::new(),
            on_a_terminal: std::io::stderr().is_terminal(),
            bars: BTreeMap::new(),
            written: BTreeMap::new(),
        }
    }

    /// Shows how far one is.
    pub(super) fn show(&mut self, set: &str, job: &Job) {
        if !self.on_a_terminal {
            return self.write(set, job);
        }
        let bar = self.bars.entry(set.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            let style = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(ProgressStyle::with_template(style).expect("it is a template"));
            bar.set_prefix(job.image.clone());
            bar
        });
        if let Some(total) = job.total {
            bar.set_length(total);
        }
        bar.set_position(job.received);
    }

    fn write(&mut self, set: &str, Job { image, received, total, .. }: &Job) {
        // Where the whole is not known, a line for each so many MiB.
        let so_far = match total.filter(|total| *total > 0) {
            Some(total) => received * 100 / total,
            None => received >> 20,
        };
        let last = self.written.get(set);
        if last.is_some_and(|last| so_far < last + STEP) {
            return;
        }
        match (last, total) {
            (None, _) => tell(format_args!("{image}: fetching")),
            (Some(_), Some(total)) => tell(format_args!(
                "{image}: {so_far} %, {} of {}",
                HumanBytes(*received),
                HumanBytes(*total)
            )),
            (Some(_), None) => tell(format_args!("{image}: {}", HumanBytes(*received))),
        }
        self.written.insert(set.to_owned(), so_far);
    }

    /// Takes one away that has ended.
    pub(super) fn end(&mut self, set: &str) {
        if let Some(bar) = self.bars.remove(set) {
            bar.finish_and_clear();
        }
    }
}
