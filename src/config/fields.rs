//! Reading typed fields from a YAML tree, noting every problem instead of stopping at the first.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::problem::{Problem, Severity};
use super::yaml::{Key, Node, Place, Value};
use crate::boot::omni::redacted;

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

/// The problems of one file, as they are found.
#[derive(Debug)]
pub struct Problems {
    file: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    /// For the file of this name.
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_owned(), found: Vec::new() }
    }

    /// Notes what spoils the config.
    pub fn error(&mut self, key: &str, place: Place, message: impl Into<String>) {
        self.note(Severity::Error, key, place, message.into());
    }

    /// Notes what spoils some boots.
    pub fn warning(&mut self, key: &str, place: Place, message: impl Into<String>) {
        self.note(Severity::Warning, key, place, message.into());
    }

    fn note(&mut self, severity: Severity, key: &str, place: Place, message: String) {
        let at = (place != Place::default()).then(|| (self.file.clone(), place));
        let message = redacted(&message).into_owned();
        self.found.push(Problem { severity, at, key: key.to_owned(), message });
    }

    /// All of them, in the order of the file.
    pub fn sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| problem.at.as_ref().map(|(_, place)| *place));
        self.found
    }
}

/// The keys of one mapping of the language.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Those that this version reads.
    pub known: &'static [&'static str],
    /// Those that the language has and this version does not read yet.
    pub later: &'static [&'static str],
}

/// A mapping whose fields are being read.
#[derive(Debug)]
pub struct Fields<'a> {
    /// Its own key, as `profiles.talos`.
    pub key: String,
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// The fields of `node`, after each key has been looked at. Nothing (`machines:` with all of its
    /// entries commented out) is an empty mapping.
    pub fn of(node: &'a Node, key: &str, keys: Keys, problems: &mut Problems) -> Self {
        let fields = Self::any(node, key, problems);
        for (field, _) in fields.entries {
            let path = fields.path(&field.text);
            let name = field.text.as_str();
            if keys.later.contains(&name) {
                problems.error(
                    &path,
                    field.place,
                    "this version of reveille does not have this key yet",
                );
            } else if !keys.known.contains(&name) {
                let known = || keys.known.iter().copied();
                problems.error(&path, field.place, unknown("key", name, known()));
            }
        }
        fields
    }

    /// The fields of a mapping whose keys are names.
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
        Self { key: key.to_owned(), entries }
    }

    /// Every name and what stands under it. A name may go into URLs and scripts, so it is checked.
    pub fn named(&self, problems: &mut Problems) -> Vec<(Located<String>, &'a Node)> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        self.entries
            .iter()
            .map(|(key, node)| {
                let path = self.path(&key.text);
                let name = &key.text;
                if name.is_empty() || !name.chars().all(plain) || name.starts_with('.') {
                    let message =
                        format!("`{name}` is not a name: letters, digits, `-`, `_` and `.`");
                    problems.error(&path, key.place, message);
                }
                let located = Located { value: name.clone(), key: path, place: key.place };
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
        let (_, node) = self.entries.iter().find(|(key, _)| key.text == field)?;
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
    pub fn port(&self, field: &str, problems: &mut Problems) -> Option<u16> {
        self.number(field, 1..=65535, problems).and_then(|port| u16::try_from(port).ok())
    }

    /// A field that is `true` or `false`.
    pub fn flag(&self, field: &str, problems: &mut Problems) -> Option<bool> {
        self.one_of(field, &[("true", true), ("false", false)], &[], problems)
    }

    /// A field that is one of a few words; `later` are words that this version cannot do yet.
    pub fn one_of<T: Copy>(
        &self,
        field: &str,
        words: &[(&str, T)],
        later: &[&str],
        problems: &mut Problems,
    ) -> Option<T> {
        let text = self.text(field, problems)?;
        one_of(&text, words, later, problems)
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

/// One word of a few.
pub fn one_of<T: Copy>(
    text: &Located<String>,
    words: &[(&str, T)],
    later: &[&str],
    problems: &mut Problems,
) -> Option<T> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text.value) {
        return Some(*meaning);
    }
    let message = if later.contains(&text.value.as_str()) {
        format!("this version of reveille cannot do `{}` yet", text.value)
    } else {
        unknown("value", &text.value, words.iter().map(|(word, _)| *word))
    };
    problems.error(&text.key, text.place, message);
    None
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
            Some(Located { value: text.clone(), key: key.to_owned(), place: node.place })
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
    let nearest = known
        .iter()
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4);
    match nearest {
        Some((_, nearest)) => format!("there is no {what} `{name}`; did you mean `{nearest}`?"),
        None if known.is_empty() => format!("there is no {what} `{name}`"),
        None => format!("there is no {what} `{name}`; there is: {}", known.join(", ")),
    }
}

/// "no profile named `x`", with the nearest name.
pub fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    unknown(&format!("{what} named"), name, known)
}
