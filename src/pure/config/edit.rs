//! A machine that was discovered, entered into the config file as it stands.
//!
//! A file that is written anew from its tree has lost its comments, its blank lines and its indentation. So the
//! entry's lines are put between the file's own, of which none is changed but a `machines: {}` or `~`. Where they
//! go is guessed, by the places of the tree's keys and by how the lines are indented. That the guess is right is
//! not argued but read: the new text must say what the old one said, and this machine, and nothing else.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use self::draft::Page;
use super::yaml::{self, Key, Node, Place, Value};
use crate::pure::client::Mac;

mod draft;
mod spell;
#[cfg(test)]
mod tests;

const MACHINES: &str = "machines";

/// What a text begins with that an editor of Windows has marked as UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What is known of a machine that is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name. Whether it can be one is not looked at here.
    pub name: String,
    /// The address that it boots from.
    pub mac: Mac,
    /// Its profile, unless a group says it.
    pub profile: Option<String>,
    /// What a person wants to know of it: a line below the name. What firmware calls itself may hold anything.
    pub comment: Option<String>,
}

/// Why a machine was not entered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdopted {
    /// The text is no YAML.
    #[error("the config is no YAML: line {}, column {}: {message}", place.line, place.column)]
    NoYaml {
        /// Where.
        place: Place,
        /// What is wrong.
        message: String,
    },
    /// What must be a mapping is something else.
    #[error("{what} is {instead}, on line {line}; a mapping belongs there")]
    NoMapping {
        /// What: the config, or `machines`.
        what: &'static str,
        /// Where it begins.
        line: u32,
        /// What it is.
        instead: &'static str,
    },
    /// There is a machine of that name.
    #[error("there is a machine {name} already, on line {line}; give this one another name")]
    NameTaken {
        /// The name.
        name: String,
        /// Where it stands.
        line: u32,
    },
    /// There is a machine with that MAC address.
    #[error("machine {name} has the MAC address {mac} already, on line {line}")]
    MacTaken {
        /// Which machine.
        name: String,
        /// The address.
        mac: Mac,
        /// Where it stands.
        line: u32,
    },
    /// Only somebody who knows what the file means can extend it.
    #[error("{0}; put the entry in by hand")]
    ByHand(Obstacle),
}

/// What keeps a file from being extended line by line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// `machines: { … }`
    #[error("`machines` is written in braces, on line {0}")]
    Braces(u32),
    /// `machines: *name`
    #[error("`machines` is an alias of what stands elsewhere, on line {0}")]
    Alias(u32),
    /// `machines` is there twice.
    #[error("`machines` stands there twice, the second time on line {0}")]
    Twice(u32),
    /// However it was tried, the new text is no YAML, or says something else than the old one.
    #[error(
        "the file cannot be extended safely: wherever the entry was put, the rest changed its meaning"
    )]
    Unclear,
}

/// The entry alone, as it would stand under `machines:`.
pub fn entry(entry: &Entry) -> String {
    draft::written(entry, 2, 2).into_iter().map(|line| line + "\n").collect()
}

/// The config's text with the entry at the end of its `machines`.
///
/// # Errors
/// The text is no YAML, has the machine already, or cannot be extended so that it says the same otherwise.
pub fn with_machine(text: &str, entry: &Entry) -> Result<String, NotAdopted> {
    if let Some(rest) = text.strip_prefix(BYTE_ORDER_MARK) {
        // No column counts it.
        return with_machine(rest, entry).map(|text| format!("{BYTE_ORDER_MARK}{text}"));
    }
    let old = yaml::parse(text).map_err(|error| {
        let yaml::SyntaxError { place, message } = error;
        NotAdopted::NoYaml { place, message }
    })?;
    let root = entries("the config", &old)?;
    let mut sections = root.iter().filter(|(key, _)| *key.text == *MACHINES);
    let section = sections.next();
    if let Some((again, _)) = sections.next() {
        return Err(NotAdopted::ByHand(Obstacle::Twice(again.place.line)));
    }
    let page = Page::new(text, root);
    let drafts = match section {
        None => page.appended(entry),
        Some((key, node)) => {
            let machines = entries("`machines`", node)?;
            refuse_twin(machines, entry)?;
            page.extended(key, machines, entry).map_err(NotAdopted::ByHand)?
        }
    };
    let is_right = |draft: &String| adds_only(draft, root, entry);
    drafts.into_iter().find(is_right).ok_or(NotAdopted::ByHand(Obstacle::Unclear))
}

impl Entry {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let profile = self.profile.clone().map(|profile| ("profile", profile));
        std::iter::once(("mac", self.mac.to_string())).chain(profile).collect()
    }
}

/// What stands in a mapping, or in nothing.
fn entries<'a>(what: &'static str, node: &'a Node) -> Result<&'a [(Key, Node)], NotAdopted> {
    match &node.value {
        Value::Null => Ok(&[]),
        Value::Map(entries) => Ok(entries),
        Value::Scalar(_) | Value::List(_) => {
            let (line, instead) = (node.place.line, node.describe());
            Err(NotAdopted::NoMapping { what, line, instead })
        }
    }
}

/// The address comes first: who has it is entered already, and another name would not help.
fn refuse_twin(machines: &[(Key, Node)], entry: &Entry) -> Result<(), NotAdopted> {
    for (key, node) in machines {
        if let Some((mac, line)) = macs(node).find(|(mac, _)| *mac == entry.mac) {
            return Err(NotAdopted::MacTaken { name: key.text.to_string(), mac, line });
        }
    }
    match machines.iter().find(|(key, _)| *key.text == *entry.name) {
        Some((key, _)) => {
            Err(NotAdopted::NameTaken { name: entry.name.clone(), line: key.place.line })
        }
        None => Ok(()),
    }
}

/// A machine's addresses, each with its line.
fn macs(machine: &Node) -> impl Iterator<Item = (Mac, u32)> {
    let fields = match &machine.value {
        Value::Map(fields) => fields.as_slice(),
        Value::Null | Value::Scalar(_) | Value::List(_) => &[],
    };
    let told = fields.iter().filter(|(key, _)| *key.text == *"mac");
    let each = told.flat_map(|(_, node)| match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null | Value::Scalar(_) | Value::Map(_) => std::slice::from_ref(node),
    });
    each.filter_map(|node| match &node.value {
        Value::Scalar(text) => Some((text.trim().parse().ok()?, node.place.line)),
        Value::Null | Value::List(_) | Value::Map(_) => None,
    })
}

/// Whether a text says what the old one said, and that there is this machine.
fn adds_only(draft: &str, old: &[(Key, Node)], entry: &Entry) -> bool {
    let position = |entries: &[(Key, Node)], name: &str| {
        entries.iter().position(|(key, _)| *key.text == *name)
    };
    let Ok(Node { value: Value::Map(mut new), .. }) = yaml::parse(draft) else {
        return false;
    };
    let Some(at) = position(&new, MACHINES) else {
        return false;
    };
    let Value::Map(machines) = &mut new[at].1.value else {
        return false;
    };
    let Some(own) = position(machines, &entry.name) else {
        return false;
    };
    let (_, added) = machines.remove(own);
    if !is_entry(&added, entry) {
        return false;
    }
    let is_first = machines.is_empty();
    match position(old, MACHINES).map(|at| &old[at].1.value) {
        None if is_first => {
            new.remove(at);
        }
        Some(Value::Null) if is_first => new[at].1.value = Value::Null,
        None | Some(_) => {}
    }
    are_same(&new, old)
}

fn is_entry(node: &Node, entry: &Entry) -> bool {
    let Value::Map(read) = &node.value else {
        return false;
    };
    let is_field = |((key, node), (field, meant)): (&(Key, Node), &(&str, String))| {
        *key.text == **field && matches!(&node.value, Value::Scalar(text) if **text == **meant)
    };
    let meant = entry.fields();
    read.len() == meant.len() && read.iter().zip(&meant).all(is_field)
}

/// Whether two mappings are the same, wherever they stand.
fn are_same(some: &[(Key, Node)], others: &[(Key, Node)]) -> bool {
    let is_same = |((key, node), (other_key, other)): (&(Key, Node), &(Key, Node))| {
        key.text == other_key.text && says_the_same(node, other)
    };
    some.len() == others.len() && some.iter().zip(others).all(is_same)
}

fn says_the_same(node: &Node, other: &Node) -> bool {
    match (&node.value, &other.value) {
        (Value::Null, Value::Null) => true,
        (Value::Scalar(text), Value::Scalar(other)) => text == other,
        (Value::List(items), Value::List(others)) => {
            items.len() == others.len()
                && items.iter().zip(others).all(|(item, other)| says_the_same(item, other))
        }
        (Value::Map(entries), Value::Map(others)) => are_same(entries, others),
        (Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_), _) => false,
    }
}
