//! What is wrong with a config, and where.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::PathBuf;

use super::yaml::Place;

/// How much a problem spoils.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The config is not taken up: the last good one stays.
    Error,
    /// The config is taken up; the boots that need what is missing are refused, with this reason.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How much it spoils.
    pub severity: Severity,
    /// The config file and the place in it; none for what no file says.
    pub at: Option<(PathBuf, Place)>,
    /// The key, as `profiles.talos.image`.
    pub key: String,
    /// What is wrong, with what, and what would mend it.
    pub message: String,
}

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
