//! Text as YAML has it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::pure::printable::{blank, is_hidden};

/// Words that are no text to one version of YAML or another.
const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

/// A text as a key or a value that every reader of YAML takes for this text: in quotes where it needs them.
pub fn scalar(text: &str) -> String {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_letter)
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
        && !looks_like_a_number(text);
    if is_plain { text.to_owned() } else { quoted(text) }
}

/// A number in YAML 1.1 or 1.2: also a date, and what counts to sixty, as `10:20:30` does in YAML 1.1.
fn looks_like_a_number(text: &str) -> bool {
    let is_of = |also: &str| text.chars().all(|c| c.is_ascii_digit() || also.contains(c));
    let has_base = ["0x", "0X", "0o", "0O", "0b", "0B"].iter().any(|base| text.starts_with(base));
    text.starts_with(|c: char| c.is_ascii_digit()) && (has_base || is_of("._:") || is_of("._-+eE"))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if !is_hidden(c) => quoted.push(c),
            c => quoted += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    quoted + "\""
}

/// A text as a comment: in one line, whatever it holds.
pub fn comment(text: &str) -> String {
    let shown: String = text.chars().map(blank).collect();
    shown.trim().to_owned()
}
