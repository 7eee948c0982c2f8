//! What is wrong with a config, and where.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::{Path, PathBuf};

use super::snippet::{self, Quote};
use super::yaml::Place;
use crate::pure::catalog::omni::redacted;
use crate::pure::printable;

/// How much a problem spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The config cannot be served: the last good one stays, and no daemon starts with it.
    Error,
    /// The config can be served, but boots that need what is broken are refused. So the last good one
    /// stays where it is not broken; a daemon that starts has none, and serves the rest.
    Fault,
    /// The config is taken up. What is missing may come and go by itself, as an image on a share does; the
    /// boots that need it are refused meanwhile, with this reason.
    Warning,
}

impl Severity {
    /// Whether it keeps what was changed from being taken up.
    pub fn is_error(self) -> bool {
        match self {
            Self::Error | Self::Fault => true,
            Self::Warning => false,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_error() { "error" } else { "warning" })
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it spoils.
    pub severity: Severity,
    /// The file and the place in it; none for what no file says.
    pub at: Option<(PathBuf, Place)>,
    /// The key, as `profiles.talos.image`.
    pub key: String,
    /// What is wrong, with what, and what would mend it.
    pub message: String,
    /// The line that it stands on.
    pub quote: Option<Quote>,
    /// What is broken by it, by key or by path, where that is not `key` alone.
    pub spoils: Vec<String>,
}

/// In one line, for a log: `config.yaml:12:5: profiles.talos.image: there is no …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((file, place)) = &self.at {
            write!(f, "{}:{}:{}: ", file.display(), place.line, place.column)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl Problem {
    /// What is broken by it, by key or by path: the same however it is broken, and wherever it stands.
    pub fn spoiled(&self) -> impl Iterator<Item = &str> {
        let own = self.spoils.is_empty().then_some(self.key.as_str());
        own.into_iter().chain(self.spoils.iter().map(String::as_str))
    }

    /// With its severity, and the line quoted and marked.
    pub fn at_length(&self) -> String {
        let Self { severity, at, key, message, quote, spoils: _ } = self;
        let mut text = match at {
            Some((file, place)) => {
                format!("{}:{}:{}: ", file.display(), place.line, place.column)
            }
            None => String::new(),
        };
        text += &format!("{severity}: ");
        if !key.is_empty() {
            text += &format!("{key}: ");
        }
        text += message;
        if let (Some(quote), Some((_, place))) = (quote, at) {
            text += &quote.marked(place.line);
        }
        text
    }
}

/// How many problems are told at once where somebody reads them: the first ones tell what to mend.
pub const MOST_TOLD: usize = 20;

/// The problems that are told first, what keeps a config from serving before the rest, and how many more
/// there are.
pub fn first(problems: &[Problem]) -> (Vec<&Problem>, usize) {
    let mut first: Vec<&Problem> = problems.iter().collect();
    if first.len() > MOST_TOLD {
        first.sort_by_key(|problem| problem.severity);
        first.truncate(MOST_TOLD);
    }
    let more = problems.len() - first.len();
    (first, more)
}

/// The first of them at length.
pub fn at_length(problems: &[Problem]) -> String {
    let (first, more) = first(problems);
    let mut told: Vec<String> = first.into_iter().map(Problem::at_length).collect();
    told.extend(more_told(more));
    told.join("\n")
}

/// That there are more, where there are.
pub fn more_told(more: usize) -> Option<String> {
    (more > 0).then(|| format!("and {more} more; `reveille check --all` tells them"))
}

/// The problems of one config, as they are found.
#[derive(Debug, Default)]
pub struct Problems {
    file: PathBuf,
    /// Its text, to quote from.
    text: String,
    /// Where each of its lines begins.
    lines: Vec<usize>,
    found: Vec<Problem>,
    errors: usize,
}

impl Problems {
    /// For the file of this name, with this text.
    pub fn new(file: &Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { file: file.to_owned(), text: text.to_owned(), lines, ..Self::default() }
    }

    /// Notes what spoils the whole config.
    pub fn error(&mut self, key: &str, place: Place, message: impl Into<String>) {
        self.note(Severity::Error, key, place, message.into());
    }

    /// Notes what spoils some boots, and is written or kept by the operator as text. Returns it, for what
    /// else it spoils.
    pub fn fault(&mut self, key: &str, place: Place, message: impl Into<String>) -> &mut Problem {
        self.note(Severity::Fault, key, place, message.into())
    }

    /// The same, of what stands in another file.
    pub fn fault_elsewhere(
        &mut self,
        key: &str,
        (file, place, quote): (PathBuf, Place, Option<Quote>),
        message: &str,
    ) -> &mut Problem {
        self.note_elsewhere(Severity::Fault, key, (file, place, quote), message)
    }

    fn note_elsewhere(
        &mut self,
        severity: Severity,
        key: &str,
        (file, place, quote): (PathBuf, Place, Option<Quote>),
        message: &str,
    ) -> &mut Problem {
        self.push(Problem {
            severity,
            at: Some((file, place)),
            key: key.to_owned(),
            message: in_one_line(message),
            quote,
            spoils: Vec::new(),
        })
    }

    /// Notes what stands in another file, and spoils something only where more comes together.
    pub fn warning_elsewhere(
        &mut self,
        key: &str,
        at: (PathBuf, Place, Option<Quote>),
        message: &str,
    ) {
        self.note_elsewhere(Severity::Warning, key, at, message);
    }

    /// Notes what spoils nothing, or what may come and go by itself.
    pub fn warning(&mut self, key: &str, place: Place, message: impl Into<String>) {
        self.note(Severity::Warning, key, place, message.into());
    }

    fn note(
        &mut self,
        severity: Severity,
        key: &str,
        place: Place,
        message: String,
    ) -> &mut Problem {
        let is_there = place != Place::default();
        let message = in_one_line(&message);
        self.errors += usize::from(severity == Severity::Error);
        self.push(Problem {
            severity,
            at: is_there.then(|| (self.file.clone(), place)),
            key: key.to_owned(),
            message,
            quote: is_there.then(|| self.quote(place)).flatten(),
            spoils: Vec::new(),
        })
    }

    fn push(&mut self, problem: Problem) -> &mut Problem {
        self.found.push(problem);
        self.found.last_mut().expect("it was pushed now")
    }

    /// How many errors there are so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether there is an error at this key or below it.
    pub fn has_error_below(&self, key: &str) -> bool {
        let is_below = |other: &str| {
            let rest = other.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.found.iter().any(|told| told.severity == Severity::Error && is_below(&told.key))
    }

    fn quote(&self, place: Place) -> Option<Quote> {
        let at = |number: usize| self.text.get(*self.lines.get(number)?..)?.lines().next();
        let number = (place.line as usize).checked_sub(1)?;
        let line = at(number)?;
        if line.trim().is_empty() {
            return None;
        }
        // No secret has more lines; a list of machines may have many more.
        let before = (0..number).rev().take(500).map_while(at);
        let is_secret = snippet::continues_a_secret(line, before);
        Some(if is_secret { Quote::hidden(line) } else { Quote::of(line, place.column) })
    }

    /// All of them, in the order of the file; what other files say comes last.
    pub fn sorted(mut self) -> Vec<Problem> {
        let is_elsewhere = |file: &PathBuf| *file != self.file;
        let order = |problem: &Problem| {
            let at = problem.at.as_ref();
            at.map(|(file, place)| (is_elsewhere(file).then(|| file.clone()), *place))
        };
        self.found.sort_by_cached_key(order);
        self.found
    }
}

/// A message is a line of the log; what it repeats may hold any character, or a secret.
fn in_one_line(message: &str) -> String {
    printable::line(&redacted(message)).into_owned()
}
