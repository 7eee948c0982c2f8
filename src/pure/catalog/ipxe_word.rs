//! What iPXE would do to a word of a kernel line.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::pure::printable::is_hidden;

/// What iPXE would do to a word.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing stands there.
    #[error("is empty")]
    Empty,
    /// iPXE splits at blanks.
    #[error("has a blank in it, where iPXE would split it; make it two arguments")]
    Blank,
    /// A line break would end the command; others make it read as another one.
    #[error("has a control character in it")]
    Control,
    /// An operator.
    #[error("is an operator to iPXE, which would end the command there")]
    Operator,
    /// A comment.
    #[error("starts with `#`, where iPXE would end the command")]
    Comment,
    /// A setting.
    #[error("has `${{` in it, which iPXE would expand")]
    Expansion,
    /// A continued line.
    #[error("ends with `\\`, with which iPXE would join the next line")]
    Continuation,
}

impl Flaw {
    /// What iPXE would do to `word` as a word of its own, if it does not take it literally.
    pub fn of(word: &str) -> Option<Self> {
        // Most words are: nothing that follows can be said of them.
        let is_plain = |byte: u8| {
            byte.is_ascii_graphic() && !matches!(byte, b'|' | b'&' | b';' | b'#' | b'$' | b'\\')
        };
        if !word.is_empty() && word.bytes().all(is_plain) {
            return None;
        }
        if word.is_empty() {
            Some(Self::Empty)
        } else if word.contains(is_hidden) {
            Some(Self::Control)
        } else if word.chars().any(char::is_whitespace) {
            Some(Self::Blank)
        } else if ["||", "&&", ";"].contains(&word) {
            Some(Self::Operator)
        } else if word.starts_with('#') {
            Some(Self::Comment)
        } else if word.contains("${") {
            Some(Self::Expansion)
        } else if word.ends_with('\\') {
            Some(Self::Continuation)
        } else {
            None
        }
    }
}
