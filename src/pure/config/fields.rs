//! Reading typed fields from a YAML tree, noting every problem instead of stopping at the first.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::problem::Problems;
use super::yaml::{Key, Node, Place, Value};
use crate::pure::nearest::nearest;

mod scalar;

// Who reads fields notes what is wrong with them.
pub use self::scalar::{address, is_name, no_such, one_of, parse, scalar, subnet, unknown};

/// A value with its key and its place, for the messages of later checks.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its key, as `profiles.talos.image`.
    pub key: String,
    /// Where it stands.
    pub place: Place,
}

impl<T> Located<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Located<U> {
        let Self { value, key, place } = self;
        Located { value: change(value), key, place }
    }
}

/// The keys of one mapping of the language.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Its own.
    pub known: &'static [&'static str],
    /// Those that it shares with other mappings.
    pub also: &'static [&'static str],
}

/// A mapping whose fields are being read.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Its own key, as `profiles.talos`.
    pub key: String,
    entries: &'a [(Key, Node)],
    /// Its keys, unless they are names.
    keys: Option<Keys>,
    /// Whether it is a mapping; if not, that has been told.
    is_mapping: bool,
}

impl Keys {
    fn all(self) -> impl Iterator<Item = &'static str> {
        self.known.iter().chain(self.also).copied()
    }
}

impl<'a> Fields<'a> {
    /// The fields of `node`, after each key has been looked at. Nothing (`machines:` with all of its
    /// entries commented out) is an empty mapping.
    pub fn of(node: &'a Node, key: &str, keys: Keys, problems: &mut Problems) -> Self {
        let fields = Self { keys: Some(keys), ..Self::any(node, key, problems) };
        for (field, _) in fields.entries {
            let name = &*field.text;
            if !keys.all().any(|known| known == name) {
                let path = fields.path(name);
                problems.error(&path, field.place, unknown("key", name, keys.all()));
            }
        }
        fields
    }

    /// The fields of a mapping whose keys are names. A key that stands twice is told at its second place.
    pub fn any(node: &'a Node, key: &str, problems: &mut Problems) -> Self {
        let entries: &[(Key, Node)] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            Value::Scalar(_) | Value::List(_) => {
                let message = format!("a mapping belongs here, not {}", node.describe());
                problems.error(key, node.place, message);
                &[]
            }
        };
        let is_mapping = matches!(node.value, Value::Map(_) | Value::Null);
        let fields = Self { key: key.to_owned(), entries, keys: None, is_mapping };
        for (field, line) in repeated(entries) {
            let message = format!("this key stands here twice; the first is on line {line}");
            problems.error(&fields.path(&field.text), field.place, message);
        }
        fields
    }

    /// Whether a field is missing, and nothing that has been told is likely to be meant for it.
    pub fn lacks(&self, field: &str) -> bool {
        let is_meant = |name: &str| {
            let known = || self.keys.into_iter().flat_map(Keys::all);
            !known().any(|known| known == name) && nearest(name, known()) == Some(field)
        };
        self.is_mapping
            && self.node(field).is_none()
            && !self.entries.iter().any(|(key, _)| is_meant(&key.text))
    }

    /// All keys and what stands under them.
    pub fn entries(&self) -> &'a [(Key, Node)] {
        self.entries
    }

    /// Every name and what stands under it. A name may go into URLs and scripts, so it is checked.
    pub fn named(&self, problems: &mut Problems) -> Vec<(Located<String>, &'a Node)> {
        self.entries
            .iter()
            .map(|(key, node)| {
                let path = self.path(&key.text);
                let name = &key.text;
                if !is_name(name) {
                    let message =
                        format!("`{name}` is not a name: letters, digits, `-`, `_` and `.`");
                    problems.error(&path, key.place, message);
                }
                let located = Located { value: name.to_string(), key: path, place: key.place };
                (located, node)
            })
            .collect()
    }

    /// The full key of a field.
    pub fn path(&self, field: &str) -> String {
        if self.key.is_empty() { field.to_owned() } else { format!("{}.{field}", self.key) }
    }

    /// The field's value, unless it is absent or nothing.
    pub fn node(&self, field: &str) -> Option<&'a Node> {
        let (_, node) = self.entries.iter().find(|(key, _)| *key.text == *field)?;
        (!matches!(node.value, Value::Null)).then_some(node)
    }

    /// A field that is one text.
    pub fn text(&self, field: &str, problems: &mut Problems) -> Option<Located<String>> {
        scalar(self.node(field)?, &self.path(field), problems)
    }

    /// A field that is a text or a list of them.
    pub fn texts(&self, field: &str, problems: &mut Problems) -> Option<Vec<Located<String>>> {
        let node = self.node(field)?;
        let path = self.path(field);
        let Value::List(items) = &node.value else {
            return Some(scalar(node, &path, problems).into_iter().collect());
        };
        let read = |(index, item)| scalar(item, &format!("{path}[{index}]"), problems);
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// A field that `T` reads.
    pub fn parsed<T>(&self, field: &str, problems: &mut Problems) -> Option<Located<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = self.text(field, problems)?;
        parse(text, problems)
    }

    /// A field that is an IPv4 address.
    pub fn address(&self, field: &str, problems: &mut Problems) -> Option<Located<Ipv4Addr>> {
        address(self.text(field, problems)?, problems)
    }

    /// A field that is a whole number in `range`.
    pub fn number(
        &self,
        field: &str,
        range: RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let text = self.text(field, problems)?;
        match text.value.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let (from, to) = (range.start(), range.end());
                let message = format!("`{}` is not a whole number from {from} to {to}", text.value);
                problems.error(&text.key, text.place, message);
                None
            }
        }
    }

    /// A field that is a UDP or TCP port.
    pub fn port(&self, field: &str, problems: &mut Problems) -> Option<Located<u16>> {
        let port = self.number(field, 1..=65535, problems)?;
        let place = self.node(field)?.place;
        Some(Located { value: u16::try_from(port).ok()?, key: self.path(field), place })
    }

    /// A field that is `true` or `false`.
    pub fn flag(&self, field: &str, problems: &mut Problems) -> Option<bool> {
        let text = self.text(field, problems)?;
        // YAML had these once, and many files still do.
        let meant = match text.value.to_lowercase().as_str() {
            "yes" | "on" | "1" => "true",
            "no" | "off" | "0" => "false",
            _ => return one_of(&text, &[("true", true), ("false", false)], problems),
        };
        let message =
            format!("`{}` is neither `true` nor `false`; did you mean `{meant}`?", text.value);
        problems.error(&text.key, text.place, message);
        None
    }

    /// A field that is one of a few words.
    pub fn one_of<T: Copy>(
        &self,
        field: &str,
        words: &[(&str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(field, problems)?;
        one_of(&text, words, problems)
    }

    /// A field that is an IPv4 subnet.
    pub fn subnet(&self, field: &str, problems: &mut Problems) -> Option<Ipv4Net> {
        subnet(self.text(field, problems)?, problems)
    }

    /// A field that is a time, as `30s`, `5m` or `2h`.
    pub fn duration(&self, field: &str, problems: &mut Problems) -> Option<Duration> {
        let text = self.text(field, problems)?;
        let digits = text.value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let seconds = match &text.value[digits.len()..] {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            _ => None,
        };
        let time = seconds
            .zip(digits.parse::<u32>().ok())
            .map(|(unit, count)| Duration::from_secs(unit * u64::from(count)));
        if time.is_none() {
            let message = format!("`{}` is not a time; write it like 30s, 5m or 2h", text.value);
            problems.error(&text.key, text.place, message);
        }
        time
    }
}

/// The keys that stand twice, each with the line of the one before it.
fn repeated(entries: &[(Key, Node)]) -> Vec<(&Key, u32)> {
    // Most mappings have a few keys: there a set would cost more than it saves.
    if entries.len() < 16 {
        let before = |at: usize| {
            let same = |(key, _): &&(Key, Node)| key.text == entries[at].0.text;
            entries[..at].iter().rfind(same).map(|(key, _)| (&entries[at].0, key.place.line))
        };
        return (0..entries.len()).filter_map(before).collect();
    }
    let mut first = HashMap::with_capacity(entries.len());
    let mut repeated = Vec::new();
    for (key, _) in entries {
        if let Some(line) = first.insert(&*key.text, key.place.line) {
            repeated.push((key, line));
        }
    }
    repeated
}
