//! Which connection is closed for another: the decision, without sockets or a clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How many connections one address may have.
pub(in crate::server::http) const PER_ADDRESS: usize = 64;

/// How many connections one machine needs: firmware, iPXE and installers open one or two. No response is
/// interrupted at an address that has no more than these.
const OF_A_MACHINE: usize = 4;

/// How long a connection may be idle while more than three quarters of all are in use.
pub(super) const IDLE_TIMEOUT_NEARLY_FULL: Duration = Duration::from_secs(3);

/// A connection that was closed for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::http) struct Evicted {
    pub(in crate::server::http) address: Ipv4Addr,
    /// Whether it had no request under way.
    pub(in crate::server::http) is_idle: bool,
    pub(super) id: u64,
}

#[derive(Debug)]
pub(super) struct Table {
    most: usize,
    pub(super) count: usize,
    next: u64,
    /// No address without a connection is in it.
    pub(super) by_address: HashMap<Ipv4Addr, BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) is_idle: bool,
    /// Since it is idle, or has a request under way.
    pub(super) since: Instant,
    /// Dropped with the entry, which closes the connection.
    _open: oneshot::Sender<Infallible>,
}

impl Entry {
    pub(super) fn idle(since: Instant, open: oneshot::Sender<Infallible>) -> Self {
        Self { is_idle: true, since, _open: open }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admitted { id: u64, evicted: Option<Evicted> },
    Refused,
    Full,
}

impl Table {
    pub(super) fn new(most: usize) -> Self {
        Self { most, count: 0, next: 0, by_address: HashMap::new() }
    }

    pub(super) fn admit(&mut self, from: Ipv4Addr, entry: Entry) -> Decision {
        let own = self.by_address.get(&from).map_or(0, BTreeMap::len);
        let mut evicted = None;
        if own >= PER_ADDRESS {
            evicted = self.oldest_of(from, |entry| entry.is_idle).map(|(_, oldest)| oldest);
            if evicted.is_none() {
                return Decision::Refused;
            }
        } else if self.count >= self.most {
            evicted = self.victim(own);
            if evicted.is_none() {
                return if own > OF_A_MACHINE { Decision::Refused } else { Decision::Full };
            }
        }
        if let Some(evicted) = evicted {
            self.remove(evicted.address, evicted.id);
        }
        let id = self.next;
        self.next += 1;
        self.count += 1;
        self.by_address.entry(from).or_default().insert(id, entry);
        Decision::Admitted { id, evicted }
    }

    /// The connection that makes room for one of an address that has `own`: an idle one of an address that
    /// has more than a machine needs; else one of such an address with a request under way, if that has more
    /// than the newcomer's will have; else any idle one. Of those, the oldest one of the address with the most.
    fn victim(&self, own: usize) -> Option<Evicted> {
        let of_largest = |least: usize, is_meant: fn(&Entry) -> bool| {
            let large = self.by_address.iter().filter(|(_, entries)| entries.len() >= least);
            let oldest = large.filter_map(|(address, entries)| {
                let (since, evicted) = self.oldest_of(*address, is_meant)?;
                Some(((entries.len(), Reverse(since)), evicted))
            });
            oldest.max_by_key(|(rank, _)| *rank).map(|(_, evicted)| evicted)
        };
        of_largest(OF_A_MACHINE + 1, |entry| entry.is_idle)
            .or_else(|| of_largest((OF_A_MACHINE + 1).max(own + 2), |_| true))
            .or_else(|| of_largest(1, |entry| entry.is_idle))
    }

    fn oldest_of(
        &self,
        address: Ipv4Addr,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Option<(Instant, Evicted)> {
        let meant = self.by_address.get(&address)?.iter().filter(|(_, entry)| is_meant(entry));
        let (id, entry) = meant.min_by_key(|(id, entry)| (entry.since, **id))?;
        Some((entry.since, Evicted { address, is_idle: entry.is_idle, id: *id }))
    }

    pub(super) fn close_idle(&mut self, now: Instant) {
        if self.count * 4 <= self.most * 3 {
            return;
        }
        let is_over = |entry: &Entry| {
            entry.is_idle && now.duration_since(entry.since) >= IDLE_TIMEOUT_NEARLY_FULL
        };
        for entries in self.by_address.values_mut() {
            entries.retain(|_, entry| !is_over(entry));
        }
        self.by_address.retain(|_, entries| !entries.is_empty());
        self.count = self.by_address.values().map(BTreeMap::len).sum();
    }

    pub(super) fn entry(&mut self, address: Ipv4Addr, id: u64) -> Option<&mut Entry> {
        self.by_address.get_mut(&address)?.get_mut(&id)
    }

    /// Closes it, unless it is gone already.
    pub(super) fn remove(&mut self, address: Ipv4Addr, id: u64) {
        let Some(entries) = self.by_address.get_mut(&address) else {
            return;
        };
        if entries.remove(&id).is_some() {
            self.count -= 1;
        }
        if entries.is_empty() {
            self.by_address.remove(&address);
        }
    }
}
