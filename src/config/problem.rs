//! What is wrong with a config, and where.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::PathBuf;

use super::quote::Quote;
use super::yaml::Place;

/// How much a problem spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The config is not taken up: the last good one stays.
    Error,
    /// The config is taken up; the boots that need what is missing are refused, with this reason.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
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
    /// With its severity, and the line quoted and marked.
    pub fn at_length(&self) -> String {
        let Self { severity, at, key, message, quote } = self;
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
