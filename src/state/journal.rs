//! Events as people see them: each step of a machine is one line of the log, and so is each thing that a
//! new config changes. The last of them are kept, and go on after a restart; they decide nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use self::ring::{Put, Ring, Told};
use self::store::Store;
use self::writer::Writer;
use crate::pure::client::Mac;
use crate::pure::config::problem::{self, Problem, Severity};
use crate::pure::config::reload::Reload;
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::event::doubt::Doubt;
use crate::pure::event::image::ImageEvent;
use crate::pure::printable;
use crate::pure::rate_limit::Budget;
use crate::sys::tally::Tally;

pub mod ring;
pub mod store;
mod writer;

/// How long a machine that is refused for one reason is not told of again: firmware asks every few
/// seconds, for ever.
const QUIET: Duration = Duration::from_mins(10);
/// How many of them are remembered at once.
const MOST: usize = 1000;

/// How many lines are written at once, and a second after that, of what a single datagram brings
/// about: for machines of the config, and for strangers, whom anybody can invent.
const KNOWN: (u32, u32) = (2000, 100);
const STRANGERS: (u32, u32) = (300, 10);

/// What is not told of a machine again for a while.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Quieted {
    whom: Subject,
    what: String,
    is_advice: bool,
}

/// The one place where events become visible.
#[derive(Debug)]
pub struct Journal {
    told: Mutex<HashMap<Quieted, Instant>>,
    known: Mutex<Budget>,
    strangers: Mutex<Budget>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    ring: Arc<Mutex<Ring>>,
    /// None where nothing is kept after the end.
    writer: Option<Arc<Writer>>,
    /// The number of what was told last.
    last: watch::Sender<u64>,
    /// Those that went although there were not too many.
    early: Mutex<Tally>,
}

impl Default for Journal {
    fn default() -> Self {
        let [known, strangers] = [KNOWN, STRANGERS].map(|rate| Mutex::new(Budget::new(rate)));
        Self {
            told: Mutex::default(),
            known,
            strangers,
            counts: Mutex::default(),
            ring: Arc::default(),
            writer: None,
            last: watch::Sender::default(),
            early: Mutex::default(),
        }
    }
}

impl Journal {
    /// One that goes on with what is kept in a state folder. Where that cannot be written, it is told, and tried
    /// again.
    pub fn open(state: &Path) -> Self {
        let (store, ring) = match Store::open(state) {
            Ok((store, ring)) => (Some(store), ring),
            Err(error) => {
                warn!(
                    "journal: {error}; what is told is in the log, and kept once that can be written"
                );
                let is_new = !Store::path(state).exists();
                match Store::read(state) {
                    Ok(ring) => (None, ring),
                    Err(_) if is_new => (None, Ring::default()),
                    // What would be written next may stand there already.
                    Err(_) => return Self::default(),
                }
            }
        };
        let last = watch::Sender::new(ring.last());
        let ring = Arc::new(Mutex::new(ring));
        let writer = Writer::start(store, state.to_owned(), Arc::clone(&ring));
        let writer = writer.map_err(|error| warn!("journal: cannot start a thread: {error}"));
        Self { ring, writer: writer.ok(), last, ..Self::default() }
    }

    /// Writes what waits to be written; nothing is kept after that.
    pub fn close(&self) {
        if let Some(writer) = &self.writer {
            writer.close();
        }
    }

    /// What was told after this number, of these cards or of all: the last so many.
    pub fn after(&self, id: u64, macs: Option<&[Mac]>, most: usize) -> Vec<Arc<Told>> {
        self.ring().after(id, macs, most)
    }

    /// The number of what was told last, and each that comes.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, whose: &Subject, (kind, level): (&str, Level), text: &str) {
        let told = Told {
            id: 0,
            at: SystemTime::now().into(),
            mac: whose.mac,
            name: whose.name.clone(),
            address: whose.address,
            kind: kind.to_owned(),
            level,
            text: kept_text(text),
        };
        let mut ring = self.ring();
        let Put { told, gone, early } = ring.keep(told);
        self.last.send_replace(told.id);
        if let Some(writer) = &self.writer {
            writer.put(told, gone);
        }
        drop(ring);
        if early > 0
            && let Some(count) =
                self.early.lock().unwrap_or_else(PoisonError::into_inner).add(early)
        {
            warn!(
                "journal: events are dropped sooner than usual, since long ones came: {count} since the start; the log has them all"
            );
        }
    }

    fn keep_of_ours(&self, (kind, level): (&str, Level), text: &str) {
        self.keep(&Subject::default(), (kind, level), text);
    }

    /// How many events of each kind there were since the start, in the log or not.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, kind: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(kind).or_default() += 1;
    }

    /// Writes down what became of a config that was read again.
    pub fn publish_reload(&self, reload: &Reload) {
        self.count(reload.kind());
        let level = match reload {
            Reload::TakenUp { .. } => Level::Info,
            Reload::Refused { .. } => Level::Warn,
        };
        self.keep_of_ours((reload.kind(), level), &format!("config: {reload}"));
        match reload {
            Reload::TakenUp { source, changes, at_next_start, outdated, problems, .. } => {
                match changes.as_slice() {
                    [] | [_] => info!("config: {reload}"),
                    many => {
                        info!("config: reloaded from {source}, with these changes");
                        many.iter().for_each(|change| info!("config: {change}"));
                    }
                }
                for change in at_next_start {
                    warn!("config: {change} is taken up at the next start");
                }
                outdated.iter().for_each(|machine| info!("config: {machine}"));
                self.publish_problems(problems);
            }
            Reload::Refused { again: false, .. } => error!("config: {reload}"),
            Reload::Refused { again: true, .. } => warn!("config: {reload}"),
        }
    }

    /// Writes down what is wrong with a config that serves.
    pub fn publish_problems(&self, problems: &[Problem]) {
        let (first, more) = problem::first(problems);
        for problem in first {
            match problem.severity {
                Severity::Error | Severity::Fault => error!("config: {problem}"),
                Severity::Warning => warn!("config: {problem}"),
            }
        }
        if let Some(more) = problem::more_told(more) {
            warn!("config: {more}");
        }
    }

    /// Writes down what became of an image.
    pub fn publish_image(&self, event: &ImageEvent) {
        self.count(event.kind());
        let level = match event {
            ImageEvent::Begun { .. } | ImageEvent::Here { .. } => Level::Info,
            ImageEvent::Doubted { .. } | ImageEvent::Failed { .. } | ImageEvent::Damaged { .. } => {
                Level::Warn
            }
        };
        self.keep_of_ours((event.kind(), level), &format!("image {event}"));
        match event {
            ImageEvent::Begun { .. } | ImageEvent::Here { .. } => info!("image {event}"),
            ImageEvent::Doubted { .. } | ImageEvent::Failed { .. } => warn!("image {event}"),
            ImageEvent::Damaged { .. } => error!("image: {event}"),
        }
    }

    /// Writes an event down, unless too many came.
    pub fn publish(&self, event: &Event) {
        if self.admits(event) {
            self.write(event);
        }
    }

    /// Counts an event; whether it is to be written down, and not one too many.
    pub fn admits(&self, Event { subject, step }: &Event) -> bool {
        self.count(step.kind());
        // What waits asks every few seconds.
        let is_reason = matches!(
            step,
            Step::Ignored { .. }
                | Step::Refused { .. }
                | Step::WaitServed { .. }
                | Step::LeftToItsDisk { .. }
                | Step::ScriptShown { .. }
                | Step::Stopped { .. }
                | Step::Advised { .. }
        );
        if is_reason && self.was_told(subject, step) {
            debug!("{subject}: {step}");
            return false;
        }
        if takes_one_datagram(step) && !self.affords(subject) {
            return false;
        }
        if matches!(
            step,
            Step::NbpSent { .. }
                | Step::ScriptServed { .. }
                | Step::ImageSent { .. }
                | Step::FileSent { .. }
        ) {
            self.forget(subject);
        }
        true
    }

    /// Writes down an event that was admitted.
    pub fn write(&self, Event { subject, step }: &Event) {
        let text = step.to_string();
        // A reason may repeat what anybody sent.
        let text = printable::line(&text);
        self.keep(subject, (step.kind(), level(step)), &text);
        match level(step) {
            Level::Warn => warn!("{subject}: {text}"),
            Level::Info => info!("{subject}: {text}"),
            Level::Debug => debug!("{subject}: {text}"),
        }
    }

    /// Writes down what `reveille simulate` did as this machine, unless too much came.
    pub fn publish_of_a_simulation(&self, Event { subject, step }: &Event) {
        if !takes_one_datagram(step) || self.affords(subject) {
            info!("simulation of {subject}: {step}");
        }
    }

    fn affords(&self, subject: &Subject) -> bool {
        let (budget, who) = match subject.name {
            Some(_) => (&self.known, "machines of the config"),
            None => (&self.strangers, "machines that are not in the config"),
        };
        let spent = budget.lock().unwrap_or_else(PoisonError::into_inner).spend(Instant::now());
        if let Some(left_out @ 1..) = spent {
            warn!("{left_out} lines about {who} were left out: they came too fast");
        }
        spent.is_some()
    }

    /// It got something: what goes wrong next is worth a line again. Advice is not: it does not go wrong anew.
    fn forget(&self, subject: &Subject) {
        self.told().retain(|told, _| told.whom != *subject || told.is_advice);
    }

    fn told(&self) -> MutexGuard<'_, HashMap<Quieted, Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_told(&self, subject: &Subject, step: &Step) -> bool {
        let now = Instant::now();
        let mut told = self.told();
        let is_advice = matches!(step, Step::Advised { .. });
        let key = Quieted { whom: subject.clone(), what: step.to_string(), is_advice };
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

/// The longest text that is kept of an event, in bytes. The log has all of it.
const LONGEST_TEXT: usize = 4096;

fn kept_text(text: &str) -> String {
    let text = printable::lines(text);
    if text.len() <= LONGEST_TEXT {
        return text.into_owned();
    }
    let end = text.floor_char_boundary(LONGEST_TEXT - "…".len());
    format!("{}…", &text[..end])
}

/// How much an event matters to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It needs somebody.
    Warn,
    /// It is as it should be.
    #[default]
    Info,
    /// It matters to who looks closely.
    Debug,
}

impl Level {
    const WORDS: [(&str, Self); 3] =
        [("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug)];

    /// The word for it.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, level)| *level == self).map_or("", |(word, _)| word)
    }

    /// From its word.
    pub fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(own, _)| *own == word).map(|(_, level)| *level)
    }
}

fn level(step: &Step) -> Level {
    match step {
        // Each boot over TFTP begins so.
        Step::ScriptShown { doubt: Doubt::Forgeable(_), .. } => Level::Debug,
        Step::Ignored { .. }
        | Step::Refused { .. }
        | Step::ScriptWithheld { .. }
        | Step::Advised { .. }
        | Step::Stopped { .. }
        | Step::BootIdMisused { .. }
        | Step::BrokenOff { .. } => Level::Warn,
        Step::Probed { .. } => Level::Debug,
        Step::WaitServed { .. }
        | Step::Offered { .. }
        | Step::Leased { .. }
        | Step::Acknowledged { .. }
        | Step::AutoexecSent { .. }
        | Step::CompanionSent { .. }
        | Step::NbpSent { .. }
        | Step::ScriptServed { .. }
        | Step::ImageSent { .. }
        | Step::FileSent { .. }
        | Step::LeftToItsDisk { .. }
        | Step::ScriptShown { .. }
        | Step::Confirmed { .. }
        | Step::ConfirmationWithdrawn { .. }
        | Step::Armed { .. }
        | Step::Disarmed {}
        | Step::KeptOnDisk {} => Level::Info,
    }
}

/// Whether one datagram, from whatever address, is all that it takes: that can come as a flood. What
/// is fetched takes a conversation.
fn takes_one_datagram(step: &Step) -> bool {
    match step {
        Step::Offered { .. }
        | Step::Leased { .. }
        | Step::Acknowledged { .. }
        | Step::Ignored { .. }
        | Step::LeftToItsDisk { .. }
        | Step::Stopped { .. }
        | Step::ScriptWithheld { .. }
        | Step::Refused { .. } => true,
        // Nothing of it was acknowledged.
        Step::BrokenOff { sent, .. } => sent.bytes == 0,
        Step::Probed { .. }
        | Step::NbpSent { .. }
        | Step::AutoexecSent { .. }
        | Step::CompanionSent { .. }
        | Step::ScriptServed { .. }
        | Step::WaitServed { .. }
        | Step::Advised { .. }
        | Step::ImageSent { .. }
        | Step::FileSent { .. }
        | Step::ScriptShown { .. }
        | Step::BootIdMisused { .. }
        | Step::Confirmed { .. }
        | Step::ConfirmationWithdrawn { .. }
        | Step::Armed { .. }
        | Step::Disarmed {}
        | Step::KeptOnDisk {} => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;
    use crate::pure::client::{Arch, Mac};
    use crate::pure::event::advice::Advice;
    use crate::pure::event::boot::{Sent, Starts, Transport};

    #[derive(Clone, Debug, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that a journal writes about these.
    fn written(events: &[Event]) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .finish();
        crate::sys::log_writer::with_subscriber(subscriber, || {
            let journal = Journal::default();
            events.iter().for_each(|event| journal.publish(event));
        });
        let lines = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        lines.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn subject(last: u8) -> Subject {
        Subject { mac: Some(Mac::new([2, 0, 0, 0, 0, last])), ..Subject::default() }
    }

    fn ignored(last: u8, reason: &str) -> Event {
        Event { subject: subject(last), step: Step::Ignored { reason: reason.into() } }
    }

    #[test]
    fn a_machine_that_asks_on_and_on_is_told_of_once_for_each_reason() {
        let events = [
            ignored(1, "denied"),
            ignored(1, "denied"),
            ignored(2, "denied"),
            ignored(1, "no NBP"),
            ignored(1, "denied"),
        ];
        assert_eq!(
            written(&events),
            [
                "WARN 02:00:00:00:00:01: not answered: denied",
                "DEBUG 02:00:00:00:00:01: not answered: denied",
                "WARN 02:00:00:00:00:02: not answered: denied",
                "WARN 02:00:00:00:00:01: not answered: no NBP",
                "DEBUG 02:00:00:00:00:01: not answered: denied",
            ]
        );
    }

    #[test]
    fn after_it_got_something_a_reason_is_worth_a_line_again() {
        let fetched = |last| {
            let sent = Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http };
            Event {
                subject: subject(last),
                step: Step::NbpSent { file: "x".into(), arch: Arch::Bios, sent },
            }
        };
        let events = [
            ignored(1, "denied"),
            fetched(2),
            ignored(1, "denied"),
            fetched(1),
            ignored(1, "denied"),
        ];
        let levels: Vec<String> = written(&events)
            .iter()
            .filter(|line| line.contains("denied"))
            .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
            .collect();
        assert_eq!(levels, ["WARN", "DEBUG", "WARN"]);
    }

    #[test]
    fn advice_is_told_once_however_often_the_machine_fetches_its_script() {
        let client = Box::new(crate::pure::client::Client::at(crate::pure::client::Stage::Ipxe));
        let sent = Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http };
        let script = Step::ScriptServed { starts: Starts::Menu, does: "boot".into(), client, sent };
        let advice = Advice { words: "it is old", source: "https://x", is_sure: true };
        let boot = |last| {
            [script.clone(), Step::Advised { advice: advice.clone() }]
                .map(|step| Event { subject: subject(last), step })
        };
        let log = written(&[boot(1), boot(1), boot(2)].concat());
        let told: Vec<&String> = log.iter().filter(|line| line.contains("advice")).collect();
        assert_eq!(
            told,
            [
                "WARN 02:00:00:00:00:01: advice: it is old (https://x)",
                "DEBUG 02:00:00:00:00:01: advice: it is old (https://x)",
                "WARN 02:00:00:00:00:02: advice: it is old (https://x)",
            ]
        );
    }

    #[test]
    fn a_flood_of_strangers_is_told_in_part_and_hides_no_machine_of_the_config() {
        let oden = Event {
            subject: Subject { name: Some("oden".into()), ..subject(1) },
            step: Step::Leased { server: None, relay: None },
        };
        let mut events =
            vec![
                Event { subject: subject(2), step: Step::Leased { server: None, relay: None } };
                5000
            ];
        events.push(oden);
        let lines = written(&events);
        // The refill of a test that takes seconds is in it.
        assert!((301..1000).contains(&lines.len()), "{} lines", lines.len());
        assert_eq!(lines.last().unwrap(), "INFO oden (02:00:00:00:00:01): takes its lease");
    }

    #[test]
    fn no_more_reasons_are_remembered_than_there_is_room_for() {
        let journal = Journal::default();
        for n in 0..3 * MOST {
            journal.publish(&ignored(1, &n.to_string()));
        }
        assert!(journal.told().len() <= MOST);
    }

    #[test]
    fn a_long_name_is_cut_and_what_is_hidden_in_it_is_escaped_in_the_log_and_in_what_is_kept() {
        let what = format!("x\u{202e}\n{}", "\u{1b}".repeat(4900));
        let event = Event {
            subject: subject(1),
            step: Step::Refused { what, reason: "no\nsuch\u{2029} file".into() },
        };
        let shown = format!("x\\u{{202e}}\\n{}…", "\\u{1b}".repeat(117));
        let text = format!("refused {shown}: no\\nsuch\\u{{2029}} file");
        assert_eq!(
            written(std::slice::from_ref(&event)),
            [format!("WARN 02:00:00:00:00:01: {text}")]
        );
        let journal = Journal::default();
        journal.publish(&event);
        assert_eq!(journal.after(0, None, 9)[0].text, text);
        let reason = "é".repeat(10_000);
        journal.publish(&ignored(1, &reason));
        let kept = &journal.after(0, None, 9)[1].text;
        assert!(kept.ends_with("é…") && (4000..=4096).contains(&kept.len()), "{}", kept.len());
    }
}
