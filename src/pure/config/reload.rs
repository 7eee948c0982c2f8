//! What becomes of a config that is read again, told once.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::PathBuf;

use super::problem::{self, Problem};

/// A config was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reload {
    /// It serves from now on.
    TakenUp {
        /// Where it comes from.
        source: String,
        /// How many have been taken up since the start, this one included.
        generation: u64,
        /// What has changed for who is served, a line each.
        changes: Vec<String>,
        /// What has changed and waits for the next start, a line each, where that was not told before.
        at_next_start: Vec<String>,
        /// The installed machines for which it says another profile than before and which boot their disks all the
        /// same, a line each.
        outdated: Vec<String>,
        /// The faults and warnings that were not told before.
        problems: Vec<Problem>,
    },
    /// The one before it serves on.
    Refused {
        /// Why.
        error: LoadError,
        /// Whether that was so the last time as well.
        again: bool,
    },
}

impl Reload {
    /// What kind of event it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TakenUp { .. } => "config taken up",
            Self::Refused { .. } => "config refused",
        }
    }
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TakenUp { source, changes, .. } => {
                write!(f, "reloaded from {source}: ")?;
                match changes.as_slice() {
                    [] => f.write_str("nothing that is served has changed"),
                    [change] => f.write_str(change),
                    changes => write!(f, "{}", changes.join("; ")),
                }
            }
            Self::Refused { error: _, again: true } => f.write_str(
                "not reloaded: what was wrong is still so, and the last good one serves on",
            ),
            Self::Refused { error, again: false } => {
                write!(f, "not reloaded, the last good one serves on:\n{error}")
            }
        }
    }
}

/// Why a config is not taken up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the config file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What it says or names is wrong: each problem with its line quoted, warnings included.
    #[error("{}", problem::at_length(.0))]
    Invalid(Vec<Problem>),
}
