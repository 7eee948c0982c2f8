//! Machines: who there is, what becomes of one, what is ordered for one.

use serde::{Deserialize, Serialize};

use crate::boot::{Event, Step};
use crate::config::Config;
use crate::journal::Journal;
use crate::journal::ring::Told;
use crate::registry::Registry;
use crate::registry::machines::Entry;
use crate::roster::{self, Found, Machine};

/// How much of what was told is told of one machine.
const MOST_EVENTS: usize = 300;

/// A machine, and what was told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The machine.
    pub machine: Machine,
    /// What was told of it, the last last.
    pub events: Vec<Told>,
}

/// What was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// After which number to go on.
    pub last: u64,
    /// All of it, the last last.
    pub events: Vec<Told>,
}

/// What is ordered for a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// The network boots it.
    Arm {
        /// What, where it is not what the config says.
        profile: Option<String>,
        /// How often.
        times: u32,
    },
    /// Nothing any more.
    Disarm,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// In words.
    pub done: String,
    /// What the machine boots next, and why.
    pub next: String,
    /// Why it holds only until the daemon ends.
    pub not_kept: Option<String>,
}

/// All machines.
pub fn list(config: &Config, entries: &[Entry]) -> Vec<Machine> {
    roster::list(config, entries).iter().map(|found| found.told(config)).collect()
}

/// One machine, with what was told of it by `after`.
///
/// # Errors
/// There is none of this name.
pub fn story(
    config: &Config,
    entries: &[Entry],
    who: &str,
    told_of: impl FnOnce(&Found<'_>) -> Vec<Told>,
) -> Result<Story, String> {
    let found = roster::find(config, entries, who).map_err(|error| error.to_string())?;
    Ok(Story { machine: found.told(config), events: told_of(&found) })
}

/// What was told of a machine.
pub fn told_of(journal: &Journal, found: &Found<'_>) -> Vec<Told> {
    let told = journal.after(0, Some(&found.macs), MOST_EVENTS);
    told.into_iter().map(|told| (*told).clone()).collect()
}

/// Gives an order, and waits until it is on the disk.
///
/// # Errors
/// There is no such machine, or it cannot be ordered.
pub fn order(
    config: &Config,
    registry: &Registry,
    who: &str,
    order: Order,
) -> Result<Ordered, String> {
    let entries = registry.machines();
    let found = roster::find(config, &entries, who).map_err(|error| error.to_string())?;
    let step = match order {
        Order::Arm { profile, times } => {
            found.may_be_armed(config, profile.as_deref())?;
            Step::Armed { profile, times: times.max(1) }
        }
        Order::Disarm => {
            found.may_be_disarmed(config)?;
            Step::Disarmed {}
        }
    };
    let done = format!("{}: {step}", found.subject);
    registry.record(Event { subject: found.subject.clone(), step });
    let not_kept = registry.flush().err();
    let after = Found { state: &registry.state(&found.subject), ..found };
    let next = after.told(config).next.to_string();
    Ok(Ordered { done, next, not_kept })
}
