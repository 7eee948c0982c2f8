//! What was told, as far as it is kept: so much of each machine, and so much of all.
//!
//! A machine that is told of much pushes out its own, and strangers, whom anybody can invent, push out strangers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Level;
use crate::pure::client::Mac;
use crate::pure::machine::time::Time;

/// How much is kept of one machine.
const MOST_OF_ONE: usize = 300;
/// How much is kept of machines of the config, and of what is no machine's.
const MOST_KNOWN: usize = 20_000;
/// How much is kept of all others.
const MOST_STRANGERS: usize = 5_000;
/// How many bytes of that, in memory and about as many on the disk: twice what usual events have.
const KNOWN_BYTES: usize = 16 << 20;
/// See [`KNOWN_BYTES`].
const STRANGER_BYTES: usize = 4 << 20;
/// What an event takes beside its texts: its numbers, its row, its places in the indexes.
const OVERHEAD: usize = 300;

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

    fn bytes(&self) -> usize {
        let name = self.name.as_ref().map_or(0, String::len);
        OVERHEAD + self.text.len() + self.kind.len() + name
    }

    fn is_a_strangers(&self) -> bool {
        self.name.is_none() && (self.mac.is_some() || self.address.is_some())
    }
}

/// Events of one kind of subjects, the oldest first.
#[derive(Debug, Default)]
struct Lane {
    told: BTreeMap<u64, Arc<Told>>,
    bytes: usize,
}

impl Lane {
    fn insert(&mut self, told: &Arc<Told>) {
        self.bytes += told.bytes();
        if let Some(before) = self.told.insert(told.id, Arc::clone(told)) {
            self.bytes -= before.bytes();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Told>> {
        let told = self.told.remove(&id)?;
        self.bytes -= told.bytes();
        Some(told)
    }

    fn oldest(&self) -> Option<u64> {
        self.told.keys().next().copied()
    }
}

/// What became of an event that is kept.
#[derive(Debug)]
pub struct Put {
    /// It, with its number.
    pub told: Arc<Told>,
    /// The numbers of those that had to go.
    pub gone: Vec<u64>,
    /// How many of them went although there were not too many: they, or those that came, were long.
    pub early: usize,
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct Ring {
    known: Lane,
    strangers: Lane,
    of: HashMap<Option<Mac>, VecDeque<u64>>,
    /// Of machines of the config, whatever MAC each event has.
    named: HashMap<String, VecDeque<u64>>,
    last: u64,
}

impl Ring {
    /// The number of what was told last.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Keeps one more, which gets the next number where it has none.
    pub fn keep(&mut self, mut told: Told) -> Put {
        if told.id == 0 {
            told.id = self.last + 1;
        }
        self.last = self.last.max(told.id);
        let told = Arc::new(told);
        let lane = if told.is_a_strangers() { &mut self.strangers } else { &mut self.known };
        lane.insert(&told);
        let own = self.of.entry(told.mac).or_default();
        own.push_back(told.id);
        // A machine of the config is one by whatever MACs its UUID comes with.
        let own = match &told.name {
            Some(name) => {
                let named = self.named.entry(name.clone()).or_default();
                named.push_back(told.id);
                named
            }
            None => own,
        };
        let is_a_machines = told.mac.is_some() || told.name.is_some();
        let mut gone = Vec::new();
        if own.len() > MOST_OF_ONE && is_a_machines {
            gone.extend(own.pop_front());
        }
        gone.iter().for_each(|id| self.remove(*id));
        let mut early = 0;
        for (is_known, most, most_bytes) in
            [(true, MOST_KNOWN, KNOWN_BYTES), (false, MOST_STRANGERS, STRANGER_BYTES)]
        {
            loop {
                let lane = if is_known { &self.known } else { &self.strangers };
                let (is_many, is_long) = (lane.told.len() > most, lane.bytes > most_bytes);
                let Some(oldest) = lane.oldest().filter(|_| is_many || is_long) else {
                    break;
                };
                early += usize::from(!is_many);
                gone.push(oldest);
                self.remove(oldest);
            }
        }
        Put { told, gone, early }
    }

    fn remove(&mut self, id: u64) {
        let Some(told) = self.known.remove(id).or_else(|| self.strangers.remove(id)) else {
            return;
        };
        if let Some(own) = self.of.get_mut(&told.mac) {
            own.retain(|own| *own != id);
            if own.is_empty() {
                self.of.remove(&told.mac);
            }
        }
        if let Some(name) = &told.name
            && let Some(own) = self.named.get_mut(name)
        {
            own.retain(|own| *own != id);
            if own.is_empty() {
                self.named.remove(name);
            }
        }
    }

    /// What was told after this number, of these cards or of all; the last so many, in their order.
    pub fn after(&self, id: u64, macs: Option<&[Mac]>, most: usize) -> Vec<Arc<Told>> {
        let mut found: Vec<Arc<Told>> = match macs {
            Some(macs) => {
                let ids = macs.iter().filter_map(|mac| self.of.get(&Some(*mac))).flatten();
                let lanes = [&self.known, &self.strangers];
                let told = |id| lanes.into_iter().find_map(|lane| lane.told.get(id)).cloned();
                ids.filter(|own| **own > id).filter_map(told).collect()
            }
            None => {
                let lanes = [&self.known, &self.strangers];
                let newest = |lane: &Lane| {
                    lane.told
                        .range(id + 1..)
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
        assert_eq!(ring.known.told.len(), MOST_OF_ONE + 1);
    }

    #[test]
    fn invented_machines_push_out_each_other_only() {
        let mut ring = Ring::default();
        ring.keep(told(Some(1), Some("oden")));
        ring.keep(told(None, None));
        for n in 2..100_000 {
            ring.keep(told(Some(n), None));
        }
        assert_eq!(ring.strangers.told.len(), MOST_STRANGERS);
        assert_eq!(ring.of.len(), MOST_STRANGERS + 2);
        assert_eq!(ring.after(0, None, usize::MAX).len(), MOST_STRANGERS + 2);
        let newest = ring.after(0, None, 3);
        assert_eq!(
            newest.iter().map(|told| told.id).collect::<Vec<_>>(),
            [99_998, 99_999, 100_000]
        );
        assert_eq!(ring.after(99_999, None, 3).len(), 1);
    }

    #[test]
    fn a_machine_pushes_out_its_own_also_if_each_event_has_another_mac() {
        let mut ring = Ring::default();
        ring.keep(told(Some(0), Some("oden")));
        for n in 1..100_000 {
            ring.keep(told(Some(n), Some("balder")));
        }
        assert_eq!(ring.known.told.len(), MOST_OF_ONE + 1);
        assert_eq!((ring.of.len(), ring.named.len()), (MOST_OF_ONE + 1, 2));
    }

    #[test]
    fn long_texts_push_out_older_events_before_there_are_too_many() {
        let mut ring = Ring::default();
        let long = |n| Told { text: "x".repeat(4096), ..told(Some(n), None) };
        let oden = ring.keep(told(Some(0), Some("oden"))).told;
        let mut early = 0;
        for n in 1..=5000 {
            let put = ring.keep(long(n));
            assert_eq!(put.early, put.gone.len());
            early += put.early;
            assert!(ring.strangers.bytes <= STRANGER_BYTES);
        }
        assert_eq!(early, 5000 - ring.strangers.told.len());
        assert!((900..1000).contains(&ring.strangers.told.len()));
        let sum: usize = ring.strangers.told.values().map(|told| told.bytes()).sum();
        assert_eq!(ring.strangers.bytes, sum);
        assert_eq!(ring.after(0, None, usize::MAX)[0], oden);
        for n in 0..5000_u32 {
            let name = format!("m{}", n % 100);
            ring.keep(Told { text: "x".repeat(4096), ..told(Some(n % 100), Some(&name)) });
            assert!(ring.known.bytes <= KNOWN_BYTES);
        }
        assert!((3500..4000).contains(&ring.known.told.len()), "{}", ring.known.told.len());
    }
}
