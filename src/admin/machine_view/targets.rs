//! Which machines a command is about: by any name of theirs, by patterns, by groups, or all of the config.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Found, find_among, list};
use crate::pure::boot::plan::select;
use crate::pure::catalog::pattern::Wildcard;
use crate::pure::config::snapshot::Config;
use crate::pure::nearest::nearest;
use crate::state::registry::machines::KnownMachines;

/// What begins the name of a group, where a machine could be meant.
const GROUP: &str = "group:";
/// How many mistakes are reported at once.
const MOST: usize = 20;

/// The machines of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Names, MACs, serial numbers and addresses of machines; patterns of names, with `*` and `?`; groups, as
    /// `group:NAME`.
    pub names: Vec<String>,
    /// Instead of them all machines of the config.
    pub all: bool,
}

impl Targets {
    /// Whether one machine is named, and no pattern or group that stands for however many.
    pub fn is_one_by_name(&self) -> bool {
        matches!(self.names.as_slice(), [one] if !self.all && !stands_for_many(one))
    }

    /// The machines, each once, in the order in which they are named.
    ///
    /// # Errors
    /// A name, a pattern or a group stands for no machine: then all of them are rejected.
    pub fn find<'a>(
        &self,
        config: &Config,
        known: &'a KnownMachines,
    ) -> Result<Vec<Found<'a>>, String> {
        let known = list(config, known);
        let mut chosen = Vec::new();
        let mut mistakes = Vec::new();
        if self.all {
            chosen.extend(known.iter().filter(|found| found.subject.name.is_some()).cloned());
            if chosen.is_empty() {
                mistakes.push(
                    "the config has no machine; name those that were seen by MAC, or by `group:NAME`"
                        .to_owned(),
                );
            }
        }
        for name in &self.names {
            match named(name, config, &known) {
                Ok(found) => chosen.extend(found),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        if !mistakes.is_empty() {
            return Err(bounded(mistakes).join("\n"));
        }
        let mut seen = HashSet::new();
        chosen.retain(|found| seen.insert((found.subject.name.clone(), found.subject.mac)));
        Ok(chosen)
    }

    /// Those of the machines that are named one by one, and not only by a pattern, a group or `all`.
    pub fn named_singly<'a>(&self, config: &Config, known: &'a KnownMachines) -> Vec<Found<'a>> {
        let known = list(config, known);
        let single = self.names.iter().filter(|name| !stands_for_many(name));
        single.filter_map(|name| find_among(config, &known, name).ok()).collect()
    }
}

/// Of many lines the first, and how many more there are.
pub(crate) fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST);
    if more > 0 {
        lines.truncate(MOST);
        lines.push(format!("and {more} more"));
    }
    lines
}

fn stands_for_many(name: &str) -> bool {
    name.starts_with(GROUP) || name.contains(['*', '?'])
}

fn named<'a>(name: &str, config: &Config, known: &[Found<'a>]) -> Result<Vec<Found<'a>>, String> {
    if let Some(group) = name.strip_prefix(GROUP) {
        return members(group, config, known);
    }
    if !stands_for_many(name) {
        let found = find_among(config, known, name).map_err(|error| error.to_string())?;
        return Ok(vec![found]);
    }
    let pattern = Wildcard::new(name);
    let fits =
        |found: &&Found<'_>| found.subject.name.as_ref().is_some_and(|name| pattern.matches(name));
    let found: Vec<_> = known.iter().filter(fits).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let plain: String = name.chars().filter(|c| !"*?".contains(*c)).collect();
    let hint = hint(&plain, config.catalog.machines().keys().map(String::as_str));
    let is_mac = name.contains(':');
    let why = if is_mac { "; a pattern is one of names, not of MAC addresses" } else { "" };
    Err(format!("no machine of the config has a name like `{name}`{why}{hint}"))
}

/// The machines that boot by a group: those of the config that name no profile, and strangers, as far as they have
/// reported what the group asks for.
fn members<'a>(
    group: &str,
    config: &Config,
    known: &[Found<'a>],
) -> Result<Vec<Found<'a>>, String> {
    let catalog = &config.catalog;
    if !catalog.groups.iter().any(|own| own.name == group) {
        let hint = hint(group, catalog.groups.iter().map(|own| own.name.as_str()));
        return Err(format!("the config has no group `{group}`{hint}"));
    }
    let is_member = |found: &&Found<'_>| {
        let who = select(&found.client(catalog), catalog).who;
        who.group.is_some_and(|own| own.name == group)
    };
    let found: Vec<_> = known.iter().filter(is_member).cloned().collect();
    if found.is_empty() {
        return Err(format!(
            "no machine of the config and none that was seen boots by group `{group}`; a machine that names its own profile is in no group"
        ));
    }
    Ok(found)
}

fn hint<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> String {
    nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
