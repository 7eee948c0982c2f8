//! What is wrong with a config, and where.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::PathBuf;

use super::quote::Quote;
use super::yaml::Place;

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
