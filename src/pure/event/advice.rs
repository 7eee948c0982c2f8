//! A note about a machine's hardware.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

/// One thing worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// In words.
    pub words: &'static str,
    /// Where it is known from.
    pub source: &'static str,
    /// Whether it holds for sure, and not only where the image is not what it should be.
    pub is_sure: bool,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words, self.source)
    }
}
