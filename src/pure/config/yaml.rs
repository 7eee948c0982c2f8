//! YAML text as a tree in which every value knows its line and column.
//!
//! The YAML library is behind this one module. It is serde-saphyr: it finds duplicate keys, knows
//! merge keys, and bounds alias bombs. Scalars are kept as they are written, so that `1.10` stays
//! a version and `no` a name; whoever reads a field says what it must be.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

mod syntax;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where its first character is; of a mapping that stands under a key, where that key is.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// A YAML value.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, a number, a boolean: as it is written.
    Scalar(Box<str>),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in its own order.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub text: Box<str>,
    /// Where it stands.
    pub place: Place,
}

/// Text that is no YAML.
#[derive(Debug)]
pub struct SyntaxError {
    /// Where.
    pub place: Place,
    /// What is wrong. It quotes no line: the next one may hold a secret.
    pub message: String,
}

impl Node {
    /// What this is, for a message.
    pub fn describe(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads one document. An empty one is [`Value::Null`].
///
/// # Errors
/// The first place where the text is no YAML, or asks for more than a config of 100,000 machines
/// needs (an alias bomb).
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_nodes: 10_000_000,
            max_events: 20_000_000,
            max_total_scalar_bytes: 1 << 28,
            // Each machine may begin with what all have, `<<: *base`.
            max_aliases: 1_000_000,
            max_merge_keys: 1_000_000,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 5_000_000 },
        with_snippet: false,
        // Who reads a mapping tells of them, together with all else that is wrong.
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
    };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        let place = Place { line: 1, column: 1 };
        return Ok(Node { place, value: Value::Null });
    }
    serde_saphyr::from_str_with_options::<Unsettled>(text, options)
        .map(|node| settle(node, text))
        .map_err(|error| syntax::in_plain_words(&error, text))
}

/// A node as it comes from the library. A scalar that the YAML schema takes for a number or a boolean has
/// lost its spelling, which [`settle`] reads from the source again.
struct Unsettled {
    place: Place,
    raw: Raw,
}

enum Raw {
    Null,
    Text(Box<str>),
    /// Where the source has it: the first byte, and how many.
    Typed(u32, u32),
    List(Vec<Unsettled>),
    Map(Vec<(Key, Unsettled)>),
}

fn settle(node: Unsettled, source: &str) -> Node {
    let value = match node.raw {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Typed(start, len) => Value::Scalar(spelling(start, len, source).into()),
        Raw::List(items) => {
            Value::List(items.into_iter().map(|item| settle(item, source)).collect())
        }
        Raw::Map(entries) => {
            let entry = |(key, value): (Key, Unsettled)| {
                let mut value = settle(value, source);
                // What a mapping lacks is told where its name stands, not at whatever it happens to begin with.
                if let Value::Map(_) | Value::Null = value.value {
                    value.place = key.place;
                }
                (key, value)
            };
            Value::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { place: node.place, value }
}

fn spelling(start: u32, len: u32, source: &str) -> &str {
    source.get(start as usize..start as usize + len as usize).unwrap_or_default().trim()
}

fn place(location: Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    Place { line: number(location.line()), column: number(location.column()) }
}

impl<'de> Deserialize<'de> for Unsettled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Only one node at a time has the library's own, much larger locations.
        let Spanned { value: mut raw, referenced, defined } = Spanned::deserialize(deserializer)?;
        if let Raw::Typed(start, len) = &mut raw {
            let span = defined.span();
            let offset = |offset: Option<u64>| u32::try_from(offset?).ok();
            (*start, *len) =
                offset(span.byte_offset()).zip(offset(span.byte_len())).unwrap_or_default();
        }
        Ok(Self { place: place(referenced), raw })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { text: value.into(), place: place(referenced) })
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(0, 0))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.into()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        entries.shrink_to_fit();
        Ok(Raw::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> Vec<(&str, u32, u32, &Node)> {
        match &node.value {
            Value::Map(entries) => {
                entries.iter().map(|(k, v)| (&*k.text, k.place.line, k.place.column, v)).collect()
            }
            other => panic!("no mapping: {other:?}"),
        }
    }

    fn scalar(node: &Node) -> (&str, u32, u32) {
        match &node.value {
            Value::Scalar(text) => (text, node.place.line, node.place.column),
            other => panic!("no scalar: {other:?}"),
        }
    }

    #[test]
    fn every_scalar_stays_as_it_is_written_and_knows_its_place() {
        let text = "a: 1.10\nb: no\nc: 10:20:30:40:50:50\nd: true\ne: 0x10\nf: \"1.10\"\ng: 007\n\
                    h: 1e3 # so\ni: -5\n";
        let node = parse(text).unwrap();
        let read: Vec<_> = map(&node).iter().map(|(_, _, _, v)| scalar(v)).collect();
        assert_eq!(
            read,
            [
                ("1.10", 1, 4),
                ("no", 2, 4),
                ("10:20:30:40:50:50", 3, 4),
                ("true", 4, 4),
                ("0x10", 5, 4),
                ("1.10", 6, 4),
                ("007", 7, 4),
                ("1e3", 8, 4),
                ("-5", 9, 4),
            ]
        );
    }

    #[test]
    fn nested_values_and_nulls_keep_their_order() {
        let node = parse("b:\n  - x\n  - y: 1\na:\nc: [z, ~]\n").unwrap();
        let entries = map(&node);
        assert_eq!(
            entries.iter().map(|e| (e.0, e.1, e.2)).collect::<Vec<_>>(),
            [("b", 1, 1), ("a", 4, 1), ("c", 5, 1)]
        );
        assert!(matches!(entries[1].3.value, Value::Null));
        let Value::List(items) = &entries[2].3.value else { panic!() };
        assert_eq!(scalar(&items[0]), ("z", 5, 5));
        assert!(matches!(items[1].value, Value::Null));
    }

    #[test]
    fn an_alias_and_a_merge_are_what_they_stand_for() {
        let node = parse("base: &b {n: 1.10}\nx: *b\ny:\n  <<: *b\n  m: 2\n").unwrap();
        let entries = map(&node);
        assert_eq!(scalar(map(entries[1].3)[0].3).0, "1.10");
        let merged: Vec<_> =
            map(entries[2].3).iter().map(|(k, _, _, v)| (*k, scalar(v).0)).collect();
        assert!(merged.contains(&("n", "1.10")) && merged.contains(&("m", "2")), "{merged:?}");
    }

    #[test]
    fn an_empty_file_is_an_empty_config() {
        for text in ["", "\n", "# nothing yet\n\n  # at all\n", "---\n"] {
            let node = parse(text).unwrap();
            assert!(matches!(node.value, Value::Null), "{text:?}: {node:?}");
        }
    }

    #[test]
    fn broken_yaml_is_told_with_its_place_and_quotes_no_line() {
        let table = [
            ("a:\n\tb: 2\n", 2, "tab"),
            ("a: 1\nb: \"x\nc: 2\n", 2, "quote"),
            ("a: [1, 2\nb: 3\n", 1, "`[`"),
            ("a: 1\nb\nc: 2\n", 2, "`:`"),
            ("a: 1\n  b: 2\n", 2, "deeper"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
        ];
        for (text, line, word) in table {
            let error = parse(text).unwrap_err();
            assert_eq!(error.place.line, line, "{text:?}: {error:?}");
            assert!(error.message.contains(word), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn every_machine_of_many_may_begin_with_what_all_have() {
        let mut text = "a: &base { x: 1, y: [2, 3] }\n".to_owned();
        for n in 0..20_000 {
            text += &format!("n{n}: {{ <<: *base, z: {n} }}\n");
        }
        let node = parse(&text).unwrap();
        assert_eq!(map(map(&node)[20_000].3).len(), 3);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let list = vec![format!("*a{}", n - 1); 10].join(", ");
            text += &format!("a{n}: &a{n} [{list}]\n");
        }
        assert!(parse(&text).is_err());
    }
}
