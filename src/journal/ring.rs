//! What was told, as far as it is kept: so much of each machine, and so much of all.
//!
//! A machine that is told of much pushes out its own, and strangers, whom anybody can invent, push out strangers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Level;
use crate::boot::Mac;
use crate::boot::time::Time;

/// How much is kept of one machine.
const MOST_OF_ONE: usize = 300;
/// How much is kept of machines of the config, and of what is no machine's.
const MOST_KNOWN: usize = 20_000;
/// How much is kept of all others.
const MOST_STRANGERS: usize = 5_000;

/// What was told once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its number: what is told later has a greater one.
    pub id: u64,
    /// When.
    pub at: Time,
    /// The machine's card, if it is of one.
    pub mac: Option<Mac>,
    /// Its name in the config.
    pub name: Option<String>,
    /// The address that it had.
    pub address: Option<Ipv4Addr>,
    /// What kind of event it is.
    pub kind: String,
    /// How much it matters.
    pub level: Level,
    /// The event in words.
    pub text: String,
}

impl Told {
    /// Whose it is, for a line.
    pub fn whose(&self) -> String {
        match (&self.name, self.mac, self.address) {
            (Some(name), _, _) => name.clone(),
            (None, Some(mac), _) => mac.to_string(),
            (None, None, Some(address)) => address.to_string(),
            (None, None, None) => String::new(),
        }
    }

    fn is_a_strangers(&self) -> bool {
        self.name.is_none() && (self.mac.is_some() || self.address.is_some())
    }
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct Ring {
    known: BTreeMap<u64, Arc<Told>>,
    strangers: BTreeMap<u64, Arc<Told>>,
    of: HashMap<Option<Mac>, VecDeque<u64>>,
    last: u64,
}

impl Ring {
    /// The number of what was told last.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Keeps one more, which gets the next number where it has none; returns it, and the numbers of those that
    /// had to go.
    pub fn keep(&mut self, mut told: Told) -> (Arc<Told>, Vec<u64>) {
        if told.id == 0 {
            told.id = self.last + 1;
        }
        self.last = self.last.max(told.id);
        let told = Arc::new(told);
        let lane = if told.is_a_strangers() { &mut self.strangers } else { &mut self.known };
        lane.insert(told.id, Arc::clone(&told));
        let own = self.of.entry(told.mac).or_default();
        own.push_back(told.id);
        let mut gone = Vec::new();
        if own.len() > MOST_OF_ONE && told.mac.is_some() {
            gone.extend(own.front().copied());
        }
        for (lane, most) in [(&self.known, MOST_KNOWN), (&self.strangers, MOST_STRANGERS)] {
            if lane.len() > most {
                gone.extend(lane.keys().next().copied());
            }
        }
        for id in &gone {
            self.remove(*id);
        }
        (told, gone)
    }

    fn remove(&mut self, id: u64) {
        let Some(told) = self.known.remove(&id).or_else(|| self.strangers.remove(&id)) else {
            return;
        };
        if let Some(own) = self.of.get_mut(&told.mac) {
            own.retain(|own| *own != id);
            if own.is_empty() {
                self.of.remove(&told.mac);
            }
        }
    }

    /// What was told after this number, of these cards or of all; the last so many, in their order.
    pub fn after(&self, id: u64, macs: Option<&[Mac]>, most: usize) -> Vec<Arc<Told>> {
        let mut found: Vec<Arc<Told>> = match macs {
            Some(macs) => {
                let ids = macs.iter().filter_map(|mac| self.of.get(&Some(*mac))).flatten();
                let told = |id| self.known.get(id).or_else(|| self.strangers.get(id)).cloned();
                ids.filter(|own| **own > id).filter_map(told).collect()
            }
            None => {
                let lanes = [&self.known, &self.strangers];
                let newest = |lane: &BTreeMap<u64, Arc<Told>>| {
                    lane.range(id + 1..)
                        .rev()
                        .take(most)
                        .map(|(_, told)| Arc::clone(told))
                        .collect::<Vec<_>>()
                };
                lanes.into_iter().flat_map(newest).collect()
            }
        };
        found.sort_by_key(|told| told.id);
        found.split_off(found.len().saturating_sub(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mac: Option<u32>, name: Option<&str>) -> Told {
        let mac = mac.map(|n| {
            let [a, b, c, d] = n.to_be_bytes();
            Mac::new([2, 0, a, b, c, d])
        });
        Told {
            id: 0,
            at: Time::default(),
            mac,
            name: name.map(str::to_owned),
            address: None,
            kind: "offered".into(),
            level: Level::Info,
            text: "x".into(),
        }
    }

    #[test]
    fn a_machine_that_is_told_of_much_pushes_out_its_own() {
        let mut ring = Ring::default();
        ring.keep(told(Some(1), Some("oden")));
        for _ in 0..2 * MOST_OF_ONE {
            ring.keep(told(Some(2), Some("balder")));
        }
        let [one, two] = [1, 2].map(|n| told(Some(n), None).mac.unwrap());
        assert_eq!(ring.after(0, Some(&[one]), 1000).len(), 1);
        assert_eq!(ring.after(0, Some(&[two]), 1000).len(), MOST_OF_ONE);
        assert_eq!(ring.after(0, Some(&[one, two]), 1000).len(), MOST_OF_ONE + 1);
        assert_eq!(ring.known.len(), MOST_OF_ONE + 1);
    }

    #[test]
    fn invented_machines_push_out_each_other_only() {
        let mut ring = Ring::default();
        ring.keep(told(Some(1), Some("oden")));
        ring.keep(told(None, None));
        for n in 2..100_000 {
            ring.keep(told(Some(n), None));
        }
        assert_eq!(ring.strangers.len(), MOST_STRANGERS);
        assert_eq!(ring.of.len(), MOST_STRANGERS + 2);
        assert_eq!(ring.after(0, None, usize::MAX).len(), MOST_STRANGERS + 2);
        let newest = ring.after(0, None, 3);
        assert_eq!(
            newest.iter().map(|told| told.id).collect::<Vec<_>>(),
            [99_998, 99_999, 100_000]
        );
        assert_eq!(ring.after(99_999, None, 3).len(), 1);
    }
}
