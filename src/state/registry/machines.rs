//! The machines that are remembered, each with its state: found by any of its cards, or by its name.
//!
//! Who is in the config stays; who is not, and anybody can invent such, is one of so many, and the one that was
//! not seen for the longest time is the first to go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hashlink::LinkedHashSet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::pure::client::Mac;
use crate::pure::config::snapshot::Config;
use crate::pure::event::boot::Subject;
use crate::pure::machine::orders::RegistryFault;
use crate::pure::machine::state::MachineState;

/// How many of the machines that are not in the config are remembered at once.
pub(super) const MOST_STRANGERS: usize = 10_000;
/// The lanes of the machines, none of which pushes anybody out of another one.
const KNOWN: usize = 0;
/// Machines that are not in the config and have booted, or are to: one that has installed would install again if it
/// were forgotten in a flood of invented machines.
const BOOTED: usize = 1;
/// The others.
const STRANGERS: usize = 2;
/// How many machines there are in each lane.
const MOST: [usize; 3] = [100_000, 10_000, MOST_STRANGERS];
/// How many MACs are kept of one machine. One datagram with its UUID is enough to add one.
pub const MOST_MACS: usize = 16;

/// What tells a remembered machine from the others, as long as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub i64);

/// A remembered machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// See [`Id`].
    pub id: Id,
    /// Its name in the config, when it was seen last.
    pub name: Option<String>,
    /// The cards that it was seen with, the last one last.
    pub macs: Vec<Mac>,
    /// What decides its next boot. Who is answered holds it as it was, and copies nothing.
    pub state: Arc<MachineState>,
}

impl Entry {
    /// Who it is, as far as is known.
    pub fn subject(&self) -> Subject {
        Subject {
            mac: self.macs.last().copied(),
            name: self.name.clone(),
            address: self.state.address,
        }
    }
}

/// What is remembered of machines, as it counts for their next boots.
#[derive(Clone, Debug, Default)]
pub struct KnownMachines {
    /// Those that are remembered.
    pub entries: Vec<Entry>,
    /// The state of every other machine: it was never seen, or is forgotten.
    pub unseen: MachineState,
}

impl KnownMachines {
    /// With this fault of the registry, if it has one.
    pub fn new(mut entries: Vec<Entry>, fault: Option<&RegistryFault>) -> Self {
        let mut unseen = MachineState::default();
        if let Some(fault) = fault {
            unseen.orders.registry_fault = Some(fault.clone());
            for entry in &mut entries {
                Arc::make_mut(&mut entry.state).orders.registry_fault = Some(fault.clone());
            }
        }
        Self { entries, unseen }
    }
}

/// Whom else it concerns that a machine was seen.
#[derive(Debug, Default)]
pub struct Others {
    /// Who had to go for it.
    pub gone: Vec<Id>,
    /// Who has lost a card to it.
    pub changed: Vec<Id>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Machines {
    /// Boxed: the table moves them where it grows, and whoever asks then waits.
    entries: HashMap<Id, Box<Entry>>,
    by_mac: HashMap<Mac, Id>,
    by_name: HashMap<String, Id>,
    /// See [`KNOWN`]; in each lane the one that was seen last is at the end.
    lanes: [LinkedHashSet<Id>; 3],
    last_id: i64,
    /// The running config, in a daemon.
    config: Option<watch::Receiver<Arc<Config>>>,
}

impl Machines {
    /// Has the MACs of the config, as it changes, go before those that were only seen. Returns the machines that had
    /// more MACs than are kept, as an earlier version left them.
    pub fn follow(&mut self, config: watch::Receiver<Arc<Config>>) -> Vec<Id> {
        self.config = Some(config);
        let is_over = |entry: &&Entry| entry.macs.len() > MOST_MACS;
        let over: Vec<Id> = self.iter().filter(is_over).map(|entry| entry.id).collect();
        over.iter().for_each(|id| self.prune(*id));
        over
    }

    /// Whether the config has this MAC, or the operator has confirmed that it is this machine's.
    fn is_own(&self, entry: &Entry, mac: Mac) -> bool {
        let is_configured = || Some(self.config.as_ref()?.borrow().catalog.machine(mac).is_some());
        entry.state.confirmed.contains(&mac) || is_configured() == Some(true)
    }

    /// Drops the MACs beyond [`MOST_MACS`]: of those that are not its own by the config or the operator's word, the ones
    /// that were not seen for the longest time; then of those that are.
    fn prune(&mut self, id: Id) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let mut excess = entry.macs.len().saturating_sub(MOST_MACS);
        if excess == 0 {
            return;
        }
        let (own, learned): (Vec<Mac>, Vec<Mac>) =
            entry.macs.iter().partition(|mac| self.is_own(entry, **mac));
        let mut dropped = HashSet::new();
        for mac in learned.into_iter().chain(own) {
            if excess > 0 && dropped.insert(mac) {
                excess -= 1;
            }
        }
        for mac in &dropped {
            if self.by_mac.get(mac) == Some(&id) {
                self.by_mac.remove(mac);
            }
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.macs.retain(|mac| !dropped.contains(mac));
        }
    }

    /// Takes up what was remembered of a machine; those that were seen last come last.
    pub fn load(&mut self, id: Id, name: Option<String>, macs: Vec<Mac>, state: MachineState) {
        self.last_id = self.last_id.max(id.0);
        for mac in &macs {
            self.by_mac.insert(*mac, id);
        }
        if let Some(name) = &name {
            self.by_name.insert(name.clone(), id);
        }
        let state = Arc::new(state);
        self.entries.insert(id, Box::new(Entry { id, name, macs, state }));
        self.touch(id);
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(AsRef::as_ref)
    }

    /// Keeps the age of what is only so for a while, when the clock is set by so many milliseconds.
    pub fn shift(&mut self, by: i64) {
        for entry in self.entries.values_mut().filter(|entry| entry.state.has_timers()) {
            Arc::make_mut(&mut entry.state).shift(by);
        }
    }

    /// This one.
    pub fn get(&self, id: Id) -> Option<&Entry> {
        self.entries.get(&id).map(AsRef::as_ref)
    }

    /// What is remembered of who an event would be about.
    pub fn find(&self, subject: &Subject) -> Option<&Entry> {
        let by_mac = subject.mac.and_then(|mac| self.by_mac.get(&mac));
        let by_name = || subject.name.as_ref().and_then(|name| self.by_name.get(name));
        self.get(*by_mac.or_else(by_name)?)
    }

    /// The machine that an event is about; a new one where it is not remembered. `others` is told whom else that
    /// concerns.
    pub fn of(&mut self, subject: &Subject, others: &mut Others) -> Option<&mut Entry> {
        let id = match (subject.mac, &subject.name) {
            (Some(mac), None) => match self.by_mac.get(&mac) {
                Some(id) => {
                    let id = *id;
                    self.forget_name(id);
                    id
                }
                None => self.add(None),
            },
            (mac, Some(name)) => self.named(mac, name, others),
            (None, None) => return None,
        };
        if let Some(mac) = subject.mac {
            self.give(mac, id, others);
        }
        self.touch(id);
        self.bound(id, others);
        self.entries.get_mut(&id).map(AsMut::as_mut)
    }

    /// The machine of this name, with this card.
    fn named(&mut self, mac: Option<Mac>, name: &str, others: &mut Others) -> Id {
        let by_mac = mac.and_then(|mac| self.by_mac.get(&mac).copied());
        let by_name = self.by_name.get(name).copied();
        match (by_mac, by_name) {
            (Some(id), None) => {
                let entry = &self.entries[&id];
                if entry.name.is_none() || entry.macs.len() == 1 {
                    self.rename(id, name);
                    return id;
                }
                // The other cards may be of a machine that keeps its name. What is remembered is of both; what was ordered
                // is for one.
                let state = Arc::new(entry.state.of_another_card());
                let new = self.add(Some(name));
                if let Some(entry) = self.entries.get_mut(&new) {
                    entry.state = state;
                }
                new
            }
            (Some(id), Some(other)) if id != other => {
                self.keep_completion(id, other);
                // Another card of a machine that is remembered: what it was by itself is over, unless it was
                // known for longer.
                if self.entries[&id].macs.len() == 1 {
                    self.remove(id, others);
                }
                other
            }
            (_, Some(id)) => id,
            (None, None) => self.add(Some(name)),
        }
    }

    /// Has a machine that receives a card of another one keep what that one has completed: the card may bring an
    /// installed disk with it, as when two machines change names in the config.
    fn keep_completion(&mut self, from: Id, to: Id) {
        let Some(before) = self.entries.get(&from).map(|entry| Arc::clone(&entry.state)) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&to) {
            let orders = &mut Arc::make_mut(&mut entry.state).orders;
            if orders.completed.is_none() {
                orders.completed.clone_from(&before.orders.completed);
            }
            orders.is_kept_on_disk |= before.orders.is_kept_on_disk;
        }
    }

    fn add(&mut self, name: Option<&str>) -> Id {
        self.last_id += 1;
        let id = Id(self.last_id);
        let entry = Box::new(Entry {
            id,
            name: name.map(str::to_owned),
            macs: Vec::new(),
            state: Arc::default(),
        });
        self.entries.insert(id, entry);
        if let Some(name) = name {
            self.by_name.insert(name.to_owned(), id);
        }
        id
    }

    fn rename(&mut self, id: Id, name: &str) {
        self.forget_name(id);
        self.by_name.insert(name.to_owned(), id);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.name = Some(name.to_owned());
            self.lanes[BOOTED].remove(&id);
            self.lanes[STRANGERS].remove(&id);
        }
    }

    fn forget_name(&mut self, id: Id) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(name) = entry.name.take() {
            self.lanes[KNOWN].remove(&id);
            if self.by_name.get(&name) == Some(&id) {
                self.by_name.remove(&name);
            }
        }
    }

    /// Takes a card from this machine. What the machine has completed stays with both: the card may have the disk. The
    /// entry that the card has then, if it needs one.
    pub fn take(&mut self, mac: Mac, id: Id) -> Option<Id> {
        let entry = self.entries.get_mut(&id)?;
        entry.macs.retain(|own| *own != mac);
        let is_installed =
            entry.state.orders.completed.is_some() || entry.state.orders.is_kept_on_disk;
        if self.by_mac.get(&mac) == Some(&id) {
            self.by_mac.remove(&mac);
        }
        is_installed.then(|| {
            let own = self.add(None);
            self.keep_completion(id, own);
            self.give(mac, own, &mut Others::default());
            self.touch(own);
            own
        })
    }

    /// Has the card be this machine's, and no other's.
    fn give(&mut self, mac: Mac, id: Id, others: &mut Others) {
        let before = self.by_mac.insert(mac, id);
        if let Some(before) = before.filter(|before| *before != id)
            && let Some(entry) = self.entries.get_mut(&before)
        {
            entry.macs.retain(|own| *own != mac);
            if entry.macs.is_empty() && entry.name.is_none() {
                self.remove(before, others);
            } else {
                others.changed.push(before);
            }
        }
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.macs.last() != Some(&mac)
        {
            entry.macs.retain(|own| *own != mac);
            entry.macs.push(mac);
        }
        self.prune(id);
    }

    /// Puts a machine at the end of the lane that is its own now.
    pub fn touch(&mut self, id: Id) {
        if let Some(entry) = self.entries.get(&id) {
            let own = match entry.name {
                Some(_) => KNOWN,
                None if entry.state.orders.decides_next_boot() => BOOTED,
                None => STRANGERS,
            };
            for lane in &mut self.lanes {
                lane.remove(&id);
            }
            self.lanes[own].insert(id);
        }
    }

    fn bound(&mut self, kept: Id, others: &mut Others) {
        for (lane, most) in MOST.into_iter().enumerate() {
            while let Some(first) = self.lanes[lane].front().copied()
                && self.lanes[lane].len() > most
                && first != kept
            {
                self.remove(first, others);
            }
        }
    }

    fn remove(&mut self, id: Id, others: &mut Others) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        for mac in &entry.macs {
            if self.by_mac.get(mac) == Some(&id) {
                self.by_mac.remove(mac);
            }
        }
        if let Some(name) = &entry.name
            && self.by_name.get(name) == Some(&id)
        {
            self.by_name.remove(name);
        }
        for lane in &mut self.lanes {
            lane.remove(&id);
        }
        others.gone.push(id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::pure::event::boot::{Event, Step};
    use crate::pure::machine::orders::Completed;
    use crate::pure::machine::time::Time;

    fn subject(mac: u8, name: Option<&str>) -> Subject {
        let mac = Some(Mac::new([2, 0, 0, 0, 0, mac]));
        Subject { mac, name: name.map(str::to_owned), address: None }
    }

    fn boots(machines: &mut Machines, mac: u8, name: Option<&str>) -> u64 {
        machines.of(&subject(mac, name), &mut Others::default()).unwrap().state.boots
    }

    fn boot(machines: &mut Machines, mac: u8, name: Option<&str>) {
        let entry = machines.of(&subject(mac, name), &mut Others::default()).unwrap();
        Arc::make_mut(&mut entry.state).boots += 1;
    }

    #[test]
    fn two_cards_of_a_machine_are_one_machine() {
        let mut machines = Machines::default();
        boot(&mut machines, 1, Some("oden"));
        assert_eq!(boots(&mut machines, 2, Some("oden")), 1);
        assert_eq!(machines.iter().count(), 1);
        assert_eq!(machines.find(&subject(2, None)).unwrap().macs.len(), 2);
    }

    #[test]
    fn a_stranger_that_is_entered_into_the_config_keeps_what_is_remembered_of_it() {
        let mut machines = Machines::default();
        boot(&mut machines, 1, None);
        boot(&mut machines, 2, None);
        assert_eq!(boots(&mut machines, 1, Some("oden")), 1);
        assert_eq!(boots(&mut machines, 2, Some("oden")), 1, "its second card is it");
        assert_eq!(machines.iter().count(), 1);
        assert_eq!(boots(&mut machines, 1, None), 1, "and taken out again");
        assert_eq!(machines.lanes[STRANGERS].len(), 1);
        assert_eq!(machines.lanes[KNOWN].len(), 0);
    }

    #[test]
    fn a_machine_that_is_named_otherwise_keeps_what_is_remembered_of_it_with_each_of_its_cards() {
        let mut machines = Machines::default();
        boot(&mut machines, 1, Some("oden"));
        boot(&mut machines, 2, Some("oden"));
        assert_eq!(boots(&mut machines, 1, Some("wotan")), 2);
        assert_eq!(boots(&mut machines, 2, Some("wotan")), 2);
        assert_eq!(machines.iter().count(), 1);
        // A card that another machine has by now.
        boot(&mut machines, 3, Some("balder"));
        let mut others = Others::default();
        let balder = machines.of(&subject(1, Some("balder")), &mut others).unwrap();
        assert_eq!(balder.state.boots, 1);
        let wotan = machines.find(&subject(2, Some("wotan"))).unwrap().id;
        assert_eq!(others.changed, [wotan], "it is written without that card");
        assert_eq!(boots(&mut machines, 2, Some("wotan")), 2);
        assert_eq!(machines.iter().count(), 2);
    }

    #[test]
    fn machines_that_change_names_keep_what_they_have_completed() {
        let mut machines = Machines::default();
        let others = &mut Others::default();
        let profile = "install".into();
        let done = Completed { at: Time::default(), profile, was_once: true, has_wiped: true };
        let oden = machines.of(&subject(1, Some("oden")), others).unwrap();
        Arc::make_mut(&mut oden.state).orders.completed = Some(done);
        boot(&mut machines, 2, Some("loke"));
        for (mac, name) in [(1, "loke"), (2, "oden")] {
            let entry = machines.of(&subject(mac, Some(name)), others).unwrap();
            // Which of the two has the disk is not known any more: both count as installed.
            assert!(entry.state.orders.completed.is_some(), "{name}");
        }
    }

    #[test]
    fn an_order_for_a_machine_is_not_doubled_when_a_card_of_it_gets_another_name() {
        let mut machines = Machines::default();
        let others = &mut Others::default();
        boot(&mut machines, 1, Some("oden"));
        boot(&mut machines, 2, Some("oden"));
        let oden = machines.of(&subject(1, Some("oden")), others).unwrap();
        let step = Step::Armed { profile: None, times: 1 };
        let armed = Event { subject: oden.subject(), step };
        Arc::make_mut(&mut oden.state).apply(&armed, None, SystemTime::UNIX_EPOCH);
        let loke = machines.of(&subject(2, Some("loke")), others).unwrap();
        assert_eq!((loke.state.boots, &loke.state.orders.armed), (2, &None));
        let oden = machines.of(&subject(1, Some("oden")), others).unwrap();
        assert!(oden.state.orders.armed.is_some());
    }

    #[test]
    fn a_stranger_that_has_installed_is_not_forgotten_in_a_flood() {
        let mut machines = Machines::default();
        let mut others = Others::default();
        let mut see = |machines: &mut Machines, n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            let mac = Some(Mac::new([2, 0, a, b, c, d]));
            machines.of(&Subject { mac, name: None, address: None }, &mut others).unwrap().id
        };
        let installed = see(&mut machines, 1);
        let entry = machines.entries.get_mut(&installed).unwrap();
        Arc::make_mut(&mut entry.state).orders.keep_on_disk();
        machines.touch(installed);
        for n in 2..u32::try_from(MOST_STRANGERS).unwrap() + 100 {
            see(&mut machines, n);
        }
        assert!(machines.get(installed).is_some());
        assert_eq!(machines.lanes[STRANGERS].len(), MOST_STRANGERS);
        // Nor does a flood of those that have installed push out a machine of the config.
        let oden = machines.of(&subject(1, Some("oden")), &mut Others::default()).unwrap().id;
        for n in 100_000..100_000 + u32::try_from(MOST[BOOTED]).unwrap() + 100 {
            let id = see(&mut machines, n);
            let entry = machines.entries.get_mut(&id).unwrap();
            Arc::make_mut(&mut entry.state).orders.keep_on_disk();
            see(&mut machines, n);
        }
        assert_eq!(machines.lanes[BOOTED].len(), MOST[BOOTED]);
        assert!(machines.get(oden).is_some());
    }

    #[test]
    fn of_strangers_the_one_that_was_not_seen_for_the_longest_time_goes_first() {
        let mut machines = Machines::default();
        let mut others = Others::default();
        let mut see = |machines: &mut Machines, n: u32, name: Option<&str>| {
            let [a, b, c, d] = n.to_be_bytes();
            let mac = Some(Mac::new([2, 0, a, b, c, d]));
            let name = name.map(str::to_owned);
            machines.of(&Subject { mac, name, address: None }, &mut others).unwrap().id
        };
        let oden = see(&mut machines, 1, Some("oden"));
        let first = see(&mut machines, 2, None);
        let second = see(&mut machines, 3, None);
        for n in 4..u32::try_from(MOST_STRANGERS).unwrap() + 2 {
            see(&mut machines, n, None);
        }
        see(&mut machines, 2, None);
        see(&mut machines, 1_000_000, None);
        assert_eq!(machines.lanes[STRANGERS].len(), MOST_STRANGERS);
        assert!(machines.get(oden).is_some() && machines.get(first).is_some());
        assert_eq!(others.gone, [second]);
    }

    /// A config with machine oden, which has these MACs.
    fn config(macs: impl Iterator<Item = u8>) -> watch::Receiver<Arc<Config>> {
        use crate::pure::config::problem::Problems;
        use crate::pure::config::resolve::resolve;
        use crate::pure::config::schema::File;
        use crate::pure::config::surroundings::Surroundings;
        let macs: Vec<String> = macs.map(|mac| format!("'02:00:00:00:00:{mac:02x}'")).collect();
        let yaml = format!(
            "profiles: {{ p: {{ script: menu }} }}\nmachines: {{ oden: {{ mac: [{}], profile: p }} }}\n",
            macs.join(", ")
        );
        let mut problems = Problems::new(std::path::Path::new("config.yaml"), &yaml);
        let file = File::parse(&yaml, &mut problems).unwrap();
        let config = resolve(file, Surroundings::default(), problems).unwrap();
        watch::channel(Arc::new(config)).1
    }

    #[test]
    fn a_flood_of_macs_with_one_uuid_leaves_16_and_pushes_out_no_mac_of_the_config() {
        let mut machines = Machines::default();
        machines.follow(config(1..=2));
        boot(&mut machines, 1, Some("oden"));
        boot(&mut machines, 2, Some("oden"));
        let mut others = Others::default();
        for n in 0..300_000_u32 {
            let [_, b, c, d] = n.to_be_bytes();
            let mac = Some(Mac::new([6, 0, 0, b, c, d]));
            let subject = Subject { mac, name: Some("oden".into()), address: None };
            let entry = machines.of(&subject, &mut others).unwrap();
            assert!(entry.macs.len() <= MOST_MACS);
        }
        assert!(others.gone.is_empty() && others.changed.is_empty());
        assert_eq!(machines.by_mac.len(), MOST_MACS);
        let entry = machines.find(&subject(1, None)).unwrap();
        assert_eq!(entry.state.boots, 2, "it is found by its MACs");
        assert_eq!(entry.macs[..2], [1, 2].map(|n| Mac::new([2, 0, 0, 0, 0, n])));
        assert_eq!(entry.macs[15], Mac::new([6, 0, 0, 4, 0x93, 0xdf]), "the last one is the last");
        // One that was dropped and comes again is the same machine's.
        let again = Mac::new([6, 0, 0, 0, 0, 0]);
        let subject = Subject { mac: Some(again), name: Some("oden".into()), address: None };
        assert_eq!(machines.of(&subject, &mut others).unwrap().state.boots, 2);
    }

    #[test]
    fn a_machine_with_more_macs_in_the_config_than_are_kept_learns_none() {
        let mut machines = Machines::default();
        machines.follow(config(1..=20));
        for mac in 1..=21 {
            boot(&mut machines, mac, Some("oden"));
        }
        let entry = machines.find(&subject(20, None)).unwrap();
        let kept: Vec<Mac> = (5..=20).map(|n| Mac::new([2, 0, 0, 0, 0, n])).collect();
        assert_eq!((&entry.macs, entry.state.boots), (&kept, 21));
    }

    #[test]
    fn what_an_earlier_version_kept_of_macs_is_pruned_the_ones_of_the_config_stay() {
        let mut machines = Machines::default();
        let mac = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            Mac::new([2, 0, a, b, c, d])
        };
        let macs: Vec<Mac> = (1..=300_000).map(mac).collect();
        machines.load(Id(7), Some("oden".into()), macs, MachineState::default());
        machines.load(Id(8), None, vec![Mac::new([2; 6])], MachineState::default());
        assert_eq!(machines.follow(config([1, 9].into_iter())), [Id(7)]);
        let kept: Vec<Mac> = [1, 9].into_iter().chain(299_987..=300_000).map(mac).collect();
        assert_eq!(machines.get(Id(7)).unwrap().macs, kept);
        assert_eq!(machines.by_mac.len(), MOST_MACS + 1);
        assert_eq!(machines.follow(config(1..=2)), []);
    }
}
