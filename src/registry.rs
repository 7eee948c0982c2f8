//! What is remembered about each machine: its [`MachineState`], and which address it has.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::boot::event::Subject;
use crate::boot::{Arch, Event, Mac, MachineState};
use crate::journal::Journal;

/// How long something is remembered: an address is taken for the machine that leased it last, and a
/// boot is long over.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How many machines of the config are remembered at once, and how many addresses of theirs.
const MOST_KNOWN: usize = 100_000;
/// How many of the others, whom anybody can invent.
const MOST_STRANGERS: usize = 10_000;

/// The one handle to it. An event is applied first and published then.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    remembered: Arc<Mutex<Remembered>>,
    journal: Arc<Journal>,
    closed: Arc<AtomicBool>,
    of: Of,
}

/// Whose steps are recorded.
#[derive(Clone, Copy, Debug, Default)]
enum Of {
    #[default]
    Machines,
    /// `reveille simulate` walks as a machine: what it does is told, and decides no boot.
    ASimulation,
}

#[derive(Debug, Default)]
struct Remembered {
    states: Bounded<Key, MachineState>,
    addresses: Bounded<Ipv4Addr, Subject>,
}

/// What a state is remembered under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Mac(Mac),
    /// Where no MAC is known: a machine whose DHCP was not seen.
    Address(Ipv4Addr),
}

impl Key {
    fn of(mac: Option<Mac>, address: Option<Ipv4Addr>) -> Option<Self> {
        mac.map(Self::Mac).or(address.map(Self::Address))
    }
}

impl Registry {
    /// One that publishes to this journal.
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal, ..Self::default() }
    }

    /// Takes up an event, and publishes it.
    pub fn record(&self, event: Event) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        match self.of {
            Of::Machines => {
                self.remembered().apply(&event, SystemTime::now());
                self.journal.publish(&event);
            }
            Of::ASimulation => self.journal.publish_of_a_simulation(&event),
        }
    }

    /// A handle for what `reveille simulate` does as a machine: it is told as such, and nothing of it
    /// is remembered of the machine.
    pub fn of_a_simulation(&self) -> Self {
        Self { of: Of::ASimulation, ..self.clone() }
    }

    /// Takes up nothing more: what breaks off while the daemon stops is no client's doing.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// What is remembered of a machine: by its MAC, or by its address where no MAC is known.
    pub fn state(&self, mac: Option<Mac>, address: Option<Ipv4Addr>) -> MachineState {
        let remembered = self.remembered();
        let key = Key::of(mac, address);
        let known = key.and_then(|key| remembered.states.get(&key, SystemTime::now()));
        known.cloned().unwrap_or_default()
    }

    /// What its firmware is, as far as DHCP told.
    pub fn arch(&self, mac: Mac) -> Option<Arch> {
        let remembered = self.remembered();
        remembered.states.get(&Key::Mac(mac), SystemTime::now())?.arch()
    }

    /// Who has this address, as far as was seen.
    pub fn subject_at(&self, address: Ipv4Addr) -> Subject {
        let remembered = self.remembered();
        let known = remembered.addresses.get(&address, SystemTime::now());
        known.cloned().unwrap_or_else(|| Subject { address: Some(address), ..Subject::default() })
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        // Every change below is whole before the lock is given back.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn apply(&mut self, event: &Event, now: SystemTime) {
        let Subject { mac, address, .. } = event.subject;
        if let (Some(_), Some(address)) = (mac, address) {
            self.addresses.keep(address, event.subject.clone(), (&event.subject, now));
        }
        let Some(key) = Key::of(mac, address) else {
            return;
        };
        let known = self.states.get(&key, now);
        let mut state = known.cloned().unwrap_or_default();
        state.apply(event, now);
        if known.is_some() || state != MachineState::default() {
            self.states.keep(key, state, (&event.subject, now));
        }
    }
}

/// A map that forgets what is older than [`REMEMBERED`]. Strangers cannot push machines of the config
/// out of it, only each other.
#[derive(Debug)]
struct Bounded<K, V> {
    known: Lane<K, V>,
    strangers: Lane<K, V>,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { known: Lane::new(MOST_KNOWN), strangers: Lane::new(MOST_STRANGERS) }
    }
}

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    fn get(&self, key: &K, now: SystemTime) -> Option<&V> {
        let entries = [&self.known.entries, &self.strangers.entries];
        let (value, seen) = entries.into_iter().find_map(|entries| entries.get(key))?;
        is_fresh(*seen, now).then_some(value)
    }

    fn keep(&mut self, key: K, value: V, (subject, now): (&Subject, SystemTime)) {
        let (lane, other) = match subject.name {
            Some(_) => (&mut self.known, &mut self.strangers),
            None => (&mut self.strangers, &mut self.known),
        };
        other.entries.remove(&key);
        lane.keep(key, (value, now));
    }
}

/// So many at most: the first to come is the first to go.
#[derive(Debug)]
struct Lane<K, V> {
    most: usize,
    entries: HashMap<K, (V, SystemTime)>,
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, V> Lane<K, V> {
    fn keep(&mut self, key: K, entry: (V, SystemTime)) {
        if self.entries.insert(key, entry).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            // What has gone to the other lane stands here still.
            if let Some(first) = self.order.pop_front() {
                self.entries.remove(&first);
            }
        }
    }
}

impl<K, V> Lane<K, V> {
    fn new(most: usize) -> Self {
        Self { most, entries: HashMap::new(), order: VecDeque::new() }
    }
}

fn is_fresh(seen: SystemTime, now: SystemTime) -> bool {
    now.duration_since(seen).map_or(true, |age| age < REMEMBERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Step;

    fn leased(mac: Mac, address: Ipv4Addr) -> Event {
        Event {
            subject: Subject { mac: Some(mac), name: None, address: Some(address) },
            step: Step::Leased { server: None },
        }
    }

    #[test]
    fn an_address_is_the_machine_that_leased_it_last() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let [old, new] = [1, 2].map(|n| Mac::new([2, 0, 0, 0, 0, n]));
        assert_eq!(registry.subject_at(address).mac, None);
        registry.record(leased(old, address));
        registry.record(leased(new, address));
        assert_eq!(registry.subject_at(address).mac, Some(new));
    }

    #[test]
    fn a_simulation_is_not_remembered_of_the_machine() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        registry.of_a_simulation().record(leased(Mac::new([2, 0, 0, 0, 0, 1]), address));
        assert_eq!(registry.subject_at(address).mac, None);
        registry.record(leased(Mac::new([2, 0, 0, 0, 0, 1]), address));
        assert!(registry.of_a_simulation().subject_at(address).mac.is_some(), "it sees all");
    }

    #[test]
    fn a_pairing_of_yesterday_names_nobody() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let event = leased(Mac::new([2, 0, 0, 0, 0, 1]), address);
        let yesterday = SystemTime::now() - Duration::from_hours(24);
        registry.remembered().apply(&event, yesterday);
        assert_eq!(registry.subject_at(address).mac, None);
    }

    #[test]
    fn a_flood_of_invented_machines_is_bounded_and_makes_no_machine_of_the_config_forgotten() {
        let registry = Registry::default();
        let now = SystemTime::now();
        let oden = Mac::new([2, 0xff, 0, 0, 0, 1]);
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let mut known = leased(oden, address);
        known.subject.name = Some("oden".into());
        registry.remembered().apply(&known, now);
        let strangers = u32::try_from(MOST_STRANGERS).unwrap() + 10;
        for n in 0..strangers {
            let [a, b, c, d] = n.to_be_bytes();
            let event = leased(Mac::new([2, 0, a, b, c, d]), Ipv4Addr::from(n));
            registry.remembered().apply(&event, now);
        }
        assert_eq!(registry.remembered().addresses.strangers.entries.len(), MOST_STRANGERS);
        assert_eq!(registry.subject_at(address).mac, Some(oden));
        assert_eq!(registry.subject_at(Ipv4Addr::from(0)).mac, None, "the oldest went");
        assert!(registry.subject_at(Ipv4Addr::from(strangers - 1)).mac.is_some());
        // Who is in the config from now on is no stranger any more.
        let mut later = leased(Mac::new([2; 6]), Ipv4Addr::from(strangers - 1));
        later.subject.name = Some("balder".into());
        registry.remembered().apply(&later, now);
        assert_eq!(registry.subject_at(Ipv4Addr::from(strangers - 1)).mac, Some(Mac::new([2; 6])));
    }
}
