//! Single values: texts, and what they are read as.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

use super::Located;
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::{Node, Value};
use crate::pure::nearest::nearest;

/// Whether this can be the name of an entry.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.chars().all(plain) && !name.starts_with('.')
}

/// One word of a few.
pub fn one_of<T: Copy>(
    text: &Located<String>,
    words: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(*meaning);
    }
    let message = unknown("value", &text.value, words.iter().map(|(word, _)| *word));
    problems.error(&text.key, text.place, message);
    None
}

/// A subnet, as `10.20.0.0/16`.
pub fn subnet(at: Located<String>, problems: &mut Problems) -> Option<Ipv4Net> {
    let subnet = at.value.parse().ok();
    if subnet.is_none() {
        let message = format!("`{}` is no IPv4 subnet, as 10.20.0.0/16 is one", at.value);
        problems.error(&at.key, at.place, message);
    }
    subnet
}

/// An address, as `192.168.1.2`.
pub fn address(at: Located<String>, problems: &mut Problems) -> Option<Located<Ipv4Addr>> {
    let address = at.value.parse().ok();
    if address.is_none() {
        let message = format!("`{}` is no IPv4 address, as 192.168.1.2 is one", at.value);
        problems.error(&at.key, at.place, message);
    }
    Some(Located { value: address?, key: at.key, place: at.place })
}

/// Reads a text, or notes why it is none.
pub fn parse<T>(text: Located<String>, problems: &mut Problems) -> Option<Located<T>>
where
    T: FromStr,
    T::Err: Display,
{
    match text.value.parse() {
        Ok(value) => Some(text.map(|_| value)),
        Err(error) => {
            let error = error.to_string();
            let told = if error.contains(&text.value) {
                error
            } else {
                format!("`{}`: {error}", text.value)
            };
            problems.error(&text.key, text.place, told);
            None
        }
    }
}

/// A node that must be one text.
pub fn scalar(node: &Node, key: &str, problems: &mut Problems) -> Option<Located<String>> {
    match &node.value {
        Value::Scalar(text) => {
            Some(Located { value: text.to_string(), key: key.to_owned(), place: node.place })
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            let message = format!("a single value belongs here, not {}", node.describe());
            problems.error(key, node.place, message);
            None
        }
    }
}

/// "no key `x`; did you mean `y`?", or what there is to choose from.
pub fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(nearest) => format!("there is no {what} `{name}`; did you mean `{nearest}`?"),
        None if known.is_empty() => format!("there is no {what} `{name}`, nor any other"),
        None => format!("there is no {what} `{name}`; there is: {}", known.join(", ")),
    }
}

/// "no profile named `x`", with the nearest name.
pub fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    unknown(&format!("{what} named"), name, known)
}
