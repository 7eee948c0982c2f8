//! What is remembered about each machine: its [`MachineState`], and which address it has.
//!
//! It changes by events only. What an event changes is on the disk before the event is told; see [`store`].

use std::collections::HashSet;
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hashlink::LinkedHashMap;
use ipnet::Ipv4Net;
use tokio::sync::watch;
use tracing::{error, warn};
use uuid::Uuid;

use self::loss::{Loss, Standing};
use self::machines::{Entry, Id, KnownMachines, MOST_MACS, Machines, Others};
use self::queue::Change;
use self::store::{Content, Store};
use self::writer::{Shared, Writer};
use super::journal::Journal;
use super::sqlite::DatabaseError;
use crate::pure::catalog::Catalog;
use crate::pure::catalog::server::{OnLostState, Server};
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Mac, Stage};
use crate::pure::config::snapshot::Config;
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::event::doubt::Doubt;
use crate::pure::machine::evidence::{Neighbour, Sender, locate};
use crate::pure::machine::orders::{Orders, RegistryFault};
use crate::pure::machine::state::{Asking, MachineState, Part};

pub mod loss;
pub mod machines;
mod queue;
pub mod store;
mod writer;

/// How long something is remembered that has no machine: an address is taken for the machine that leased it
/// last, and a boot is long over.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How many addresses of machines of the config are remembered at once.
const MOST_KNOWN: usize = 100_000;
/// How many of the others, whom anybody can invent.
const MOST_STRANGERS: usize = 10_000;

/// How often it is looked for boots that have come no further.
const LOOK: Duration = Duration::from_secs(5);
/// From how many milliseconds on a difference between the clocks is a clock that was set.
const JUMP_MILLIS: u64 = 30_000;
/// How many of them are told of at once: who asks meanwhile waits.
const MOST_STALLED: usize = 500;

/// Why what comes last is not taken up.
const STOPPING: &str = "the daemon stops";

/// The one handle to it. An event is applied first, written then, and published last.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    remembered: Arc<Mutex<Remembered>>,
    journal: Arc<Journal>,
    kept: Kept,
    standing: Arc<Standing>,
    closed: Arc<AtomicBool>,
    of: Of,
    nature: Nature,
}

/// A request that could belong to a boot.
#[derive(Clone, Copy, Debug)]
pub struct BootRequest<'a> {
    /// The card that it names.
    pub card: Mac,
    /// The address that it comes from.
    pub address: Ipv4Addr,
    /// Who has that address.
    pub neighbour: Neighbour,
    /// The boot id that it carries.
    pub id: Option<BootId>,
    /// Whether it asks for a script, which can open a boot.
    pub is_for_script: bool,
    /// Whether it asks for the head of a response only, and changes nothing.
    pub is_head: bool,
    /// Whether anybody can have forged the address that it comes from, as over TFTP.
    pub is_forgeable: bool,
    /// Whether DHCP is ours, so that a machine that boots is seen there.
    pub sees_dhcp: bool,
    /// The networks behind routers that the config names.
    pub subnets: &'a [Ipv4Net],
    /// The machines of the config.
    pub catalog: &'a Catalog,
}

impl<'a> BootRequest<'a> {
    /// A request without an id for the script of this card, as this config sees it.
    pub fn new(card: Mac, (address, neighbour): (Ipv4Addr, Neighbour), config: &'a Config) -> Self {
        let tftp = config.server.tftp.as_ref();
        Self {
            card,
            address,
            neighbour,
            id: None,
            is_for_script: true,
            is_head: false,
            is_forgeable: false,
            sees_dhcp: config.server.dhcp.is_some(),
            subnets: tftp.map(|tftp| tftp.subnets.as_slice()).unwrap_or_default(),
            catalog: &config.catalog,
        }
    }
}

/// The cards that a machine is known to have.
fn cards(subject: &Subject, card: Mac, state: &MachineState, catalog: &Catalog) -> Vec<Mac> {
    match subject.name.as_ref().and_then(|name| catalog.machines().get(name)) {
        Some(machine) => machine.macs.iter().chain(&state.confirmed).copied().collect(),
        None => vec![card],
    }
}

/// Where the time and the ids come from.
#[derive(Clone, Debug, Default)]
enum Nature {
    /// The clock and the random numbers of this host.
    #[default]
    Host,
    /// A test's.
    #[cfg(test)]
    Test(TestNature),
}

/// A clock that a test sets, and ids that are the same in each run.
#[cfg(test)]
#[derive(Clone, Debug, Default)]
pub(crate) struct TestNature {
    /// Milliseconds since 1970.
    pub(crate) millis: Arc<std::sync::atomic::AtomicU64>,
    /// The next id.
    pub(crate) next_id: Arc<std::sync::atomic::AtomicU64>,
    /// A clock that nobody sets: milliseconds since this moment.
    pub(crate) steady: Option<(Instant, Arc<std::sync::atomic::AtomicU64>)>,
}

/// How what is remembered is kept.
#[derive(Clone, Debug)]
enum Kept {
    On(Arc<Writer>),
    /// It is not, and why.
    Not(Arc<str>),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Not("no state folder is used".into())
    }
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
    machines: Machines,
    /// Whose boot is looked at, as it may come no further.
    under_way: HashSet<Id>,
    /// Of whom only an address is known: their DHCP was not seen.
    nameless: Bounded<Ipv4Addr, MachineState>,
    addresses: Bounded<Ipv4Addr, Subject>,
    /// What the clock said the last time, and when that was.
    ticked: Option<(SystemTime, Instant)>,
}

fn locked(remembered: &Mutex<Remembered>) -> MutexGuard<'_, Remembered> {
    // Every change below is whole before the lock is given back.
    remembered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// One that publishes to this journal, and keeps nothing when it ends.
    pub fn new(journal: Arc<Journal>) -> Self {
        Self { journal, ..Self::default() }
    }

    /// One that is kept in a state folder. A damaged one is put aside, and its verified copy is used. One that can be
    /// read and not written serves, and what becomes of its machines is written as soon as that can be.
    ///
    /// A missing one, unless the marker permits a new one, and one that lacks changes count as lost, see
    /// [`Self::is_state_lost`].
    ///
    /// # Errors
    /// There is one, and it cannot be read: who takes that for none has machines installed anew.
    pub fn open(state: &Path, journal: Arc<Journal>) -> Result<Self, DatabaseError> {
        let (store, content) = match open_store(state) {
            Ok((store, content)) => (Ok(store), content),
            Err(error @ DatabaseError::Later { .. }) => return Err(error),
            Err(error) => {
                error!(
                    "registry: {error}; machines boot, but what becomes of them is kept only until the daemon ends, or until that can be written; until then machines whose profile wipes hold"
                );
                (Err(error), peek(state)?)
            }
        };
        let Content { machines, loss } = content;
        // Whoever has told of machines there has had a registry there.
        let is_unused = journal.after(0, None, 1).is_empty();
        let is_new_folder = |loss: Loss| is_unused && loss.is_new_folder;
        let loss = loss.map(|loss| Loss { is_new_folder: is_new_folder(loss.clone()), ..loss });
        let standing = Arc::new(Standing::new(loss));
        let under_way = machines.iter().filter(|entry| entry.state.is_under_way());
        let under_way = under_way.map(|entry| entry.id).collect();
        let remembered = Remembered { machines, under_way, ..Remembered::default() };
        let remembered = Arc::new(Mutex::new(remembered));
        let shared = Shared {
            remembered: Arc::clone(&remembered),
            journal: Arc::clone(&journal),
            standing: Arc::clone(&standing),
        };
        let kept = match Writer::start(store, state.to_owned(), shared) {
            Ok(writer) => Kept::On(writer),
            Err(error) => {
                let reason = format!("cannot start a thread: {error}");
                error!("registry: {reason}");
                standing.set_unwritable(Some(&reason));
                Kept::Not(reason.into())
            }
        };
        Ok(Self { remembered, kept, standing, ..Self::new(journal) })
    }

    /// One without a file, which holds these machines, in a test's time.
    #[cfg(test)]
    pub(crate) fn in_test(entries: Vec<Entry>, nature: TestNature, journal: Arc<Journal>) -> Self {
        let mut machines = Machines::default();
        for Entry { id, name, macs, state } in entries {
            machines.load(id, name, macs, Arc::unwrap_or_clone(state));
        }
        let under_way = machines.iter().filter(|entry| entry.state.is_under_way());
        let under_way = under_way.map(|entry| entry.id).collect();
        let remembered = Remembered { machines, under_way, ..Remembered::default() };
        let remembered = Arc::new(Mutex::new(remembered));
        Self { remembered, nature: Nature::Test(nature), ..Self::new(journal) }
    }

    /// The time that decisions are made by.
    pub fn now(&self) -> SystemTime {
        match &self.nature {
            Nature::Host => SystemTime::now(),
            #[cfg(test)]
            Nature::Test(nature) => {
                SystemTime::UNIX_EPOCH
                    + Duration::from_millis(nature.millis.load(Ordering::Relaxed))
            }
        }
    }

    /// The time now. If the clock was set since the last time, what is only so for a while keeps its age.
    fn tick(&self, remembered: &mut Remembered) -> SystemTime {
        let now = self.now();
        let Some(instant) = self.steady() else {
            return now;
        };
        if let Some((before, at)) = remembered.ticked.replace((now, instant)) {
            let expected = before + instant.duration_since(at);
            let by = match now.duration_since(expected) {
                Ok(forward) => i64::try_from(forward.as_millis()).unwrap_or(i64::MAX),
                Err(back) => -i64::try_from(back.duration().as_millis()).unwrap_or(i64::MAX),
            };
            if by.unsigned_abs() >= JUMP_MILLIS {
                warn!("registry: the clock was set by {} s; open boots stay open", by / 1000);
                remembered.machines.shift(by);
            }
        }
        now
    }

    /// A clock that nobody sets; none in a test that has no use for one.
    fn steady(&self) -> Option<Instant> {
        match &self.nature {
            Nature::Host => Some(Instant::now()),
            #[cfg(test)]
            Nature::Test(TestNature { steady, .. }) => {
                let (origin, millis) = steady.as_ref()?;
                Some(*origin + Duration::from_millis(millis.load(Ordering::Relaxed)))
            }
        }
    }

    /// Two new ids, for a boot and for its answer files.
    fn fresh_ids(&self) -> (BootId, BootId) {
        let id = || match &self.nature {
            // The version 4 UUID takes its bits from the kernel; six of them are fixed.
            Nature::Host => BootId::new(*Uuid::new_v4().as_bytes()),
            #[cfg(test)]
            Nature::Test(nature) => {
                let number = nature.next_id.fetch_add(1, Ordering::Relaxed);
                BootId::new(u128::from(number).to_be_bytes())
            }
        };
        (id(), id())
    }

    /// Follows the config: its MACs go before those that were only seen with a machine's UUID or serial number.
    pub fn follow(&self, config: watch::Receiver<Arc<Config>>) {
        let mut remembered = locked(&self.remembered);
        let changed = remembered.machines.follow(config);
        if changed.is_empty() {
            return;
        }
        warn!(
            "registry: {} machines had more than {MOST_MACS} MACs, which a flood of requests with their UUID does; those seen last are kept",
            changed.len()
        );
        self.put(Change { changed, ..Change::default() });
    }

    /// Applies an event that belongs to no boot, and publishes it.
    pub fn record(&self, event: Event) {
        self.record_in(event, None);
    }

    /// Applies an event of a request that belonged to the boot with this id, and publishes it.
    pub fn record_in(&self, event: Event, id: Option<BootId>) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        match self.of {
            Of::Machines => {
                let mut remembered = locked(&self.remembered);
                let now = self.tick(&mut remembered);
                self.take_up(&mut remembered, (event, id), now);
            }
            Of::ASimulation => self.journal.publish_of_a_simulation(&event),
        }
    }

    /// Applies events that belong to no boot, and publishes them. They are in one transaction: after a crash the file
    /// has all of them or none.
    pub fn record_all(&self, events: impl IntoIterator<Item = Event>) {
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        match self.of {
            Of::Machines => {
                let mut remembered = locked(&self.remembered);
                let mut all = Change::default();
                for event in events {
                    self.apply(&mut remembered, (event, None), (&mut all, self.now()));
                }
                self.put(all);
            }
            Of::ASimulation => {
                events.into_iter().for_each(|event| self.journal.publish_of_a_simulation(&event));
            }
        }
    }

    fn take_up(
        &self,
        remembered: &mut Remembered,
        (event, id): (Event, Option<BootId>),
        now: SystemTime,
    ) {
        let mut change = Change::default();
        self.apply(remembered, (event, id), (&mut change, now));
        self.put(change);
    }

    /// Applies an event, and adds what changes by it to `all`.
    fn apply(
        &self,
        remembered: &mut Remembered,
        (event, id): (Event, Option<BootId>),
        (all, now): (&mut Change, SystemTime),
    ) {
        let ended = remembered.ends(&event, now);
        for event in ended.into_iter().chain([event]) {
            let Change { events: _, changed, gone } = remembered.apply(&event, id, now);
            all.changed.extend(changed);
            all.gone.extend(gone);
            if self.journal.admits(&event) {
                all.events.push(event);
            }
        }
    }

    fn put(&self, change: Change) {
        match &self.kept {
            Kept::On(writer) => writer.put(change),
            Kept::Not(_) => change.events.iter().for_each(|event| self.journal.write(event)),
        }
    }

    /// The machine's state with the boot that a request belongs to, which it opens if it may.
    ///
    /// # Errors
    /// Why the request is not taken for the machine's own.
    pub fn admit(&self, request: &BootRequest<'_>) -> Result<Arc<MachineState>, Doubt> {
        match self.of {
            Of::Machines => self.admit_with(request, self.fresh_ids()),
            Of::ASimulation => Err(Doubt::Simulation),
        }
    }

    fn admit_with(
        &self,
        request: &BootRequest<'_>,
        fresh: (BootId, BootId),
    ) -> Result<Arc<MachineState>, Doubt> {
        let BootRequest { card, address, neighbour, id, is_for_script, catalog, .. } = *request;
        let subject = self.whose(card, catalog);
        let mut remembered = locked(&self.remembered);
        let now = self.tick(&mut remembered);
        let known = remembered.machines.find(&subject).map(|entry| Arc::clone(&entry.state));
        let state = known.unwrap_or_default();
        let cards = cards(&subject, card, &state, catalog);
        let sender =
            Sender { address, neighbour, claimed: card, cards: &cards, subnets: request.subnets };
        let BootRequest { is_forgeable, sees_dhcp, .. } = *request;
        let asking = Asking { sender, id, is_for_script, is_forgeable, sees_dhcp };
        let part = match state.admit(asking, now) {
            Ok(Part::Opens(_)) if request.is_head => return Err(Doubt::NoContent),
            Ok(_) if request.is_head => return Ok(state),
            Ok(part) => part,
            Err(doubt) => {
                if let Doubt::OtherCard { card, .. } = doubt
                    && id.is_some_and(|id| state.open.as_ref().is_some_and(|open| open.id == id))
                {
                    let step = Step::BootIdMisused { from: address, card };
                    self.take_up(&mut remembered, (Event { subject, step }, None), now);
                }
                return Err(doubt);
            }
        };
        let mut others = Others::default();
        let Some(entry) = remembered.machines.of(&subject, &mut others) else {
            return Err(Doubt::NoNeighbour(address));
        };
        let entry_id = entry.id;
        let mut ids = fresh;
        let mut invited = None;
        let changed = Arc::make_mut(&mut entry.state);
        let returned = match part {
            Part::Continues | Part::Joins => {
                changed.hear(address, now);
                None
            }
            Part::Opens(card) => {
                let returned = changed.returns(card, now);
                ids = state.invitation(id, (card, address), now.into()).unwrap_or(fresh);
                changed.open(ids, (card, address), now);
                returned
            }
            Part::Invites(card) => {
                invited = Some(changed.invite(fresh, (card, address), now));
                None
            }
        };
        let mut change = remembered.without(others);
        change.changed.push(entry_id);
        self.put(change);
        if let Some(id) = invited {
            return Err(Doubt::Forgeable(id));
        }
        if let Some(step) = returned {
            let event = Event { subject: subject.clone(), step };
            self.take_up(&mut remembered, (event, Some(ids.0)), now);
        }
        let entry = remembered.machines.find(&subject);
        Ok(entry.map(|entry| Arc::clone(&entry.state)).unwrap_or_default())
    }

    /// The orders of the boot whose answer files a request may fetch.
    ///
    /// # Errors
    /// Why it may fetch none.
    pub fn granted_files(
        &self,
        request: &BootRequest<'_>,
        file_id: Option<BootId>,
    ) -> Result<Orders, Doubt> {
        let BootRequest { card, address, neighbour, subnets, catalog, .. } = *request;
        let subject = self.whose(card, catalog);
        let state = self.state(&subject);
        let now = self.now().into();
        let cards = cards(&subject, card, &state, catalog);
        let sender = Sender { address, neighbour, claimed: card, cards: &cards, subnets };
        let granted = file_id.and_then(|file_id| state.files.orders(file_id, now));
        let granted = granted.ok_or(Doubt::NoFiles)?;
        match locate(sender, &state.sightings, now) {
            // Long after its DHCP was seen an installer has the id, and is still behind its router.
            Ok(_) => Ok(granted),
            Err(Doubt::NotRelayed(_)) if state.sightings.is_behind_relay(address, subnets) => {
                Ok(granted)
            }
            Err(doubt) => Err(doubt),
        }
    }

    /// Counts a script with a secret that the open boot of a machine is given.
    pub fn count_secret(&self, subject: &Subject) {
        let mut remembered = locked(&self.remembered);
        let mut others = Others::default();
        let Some(entry) = remembered.machines.of(subject, &mut others) else {
            return;
        };
        Arc::make_mut(&mut entry.state).count_secret();
        let id = entry.id;
        let mut change = remembered.without(others);
        change.changed.push(id);
        self.put(change);
    }

    /// Waits until what was recorded is on the disk.
    ///
    /// # Errors
    /// It is not, and why.
    pub fn flush(&self) -> Result<(), String> {
        let flushed = match &self.kept {
            Kept::On(writer) => writer.flush(),
            Kept::Not(reason) => Err(reason.to_string()),
        };
        // It may have come too late to be taken up.
        if self.closed.load(Ordering::Relaxed) { Err(STOPPING.to_owned()) } else { flushed }
    }

    /// Why what is remembered is not kept, where it is not.
    pub fn trouble(&self) -> Option<String> {
        match &self.kept {
            Kept::On(writer) => writer.failed(),
            Kept::Not(reason) => Some(reason.to_string()),
        }
    }

    /// Why machines whose profile wipes hold: the registry was lost, or cannot be written. None if
    /// `server.on_lost_state` lets them boot.
    pub fn fault(&self, server: &Server) -> Option<RegistryFault> {
        self.standing.fault().filter(|_| server.on_lost_state == OnLostState::Hold)
    }

    /// A machine's state, as it counts for its next boot.
    pub fn state_at_boot(&self, subject: &Subject, server: &Server) -> Arc<MachineState> {
        let mut state = self.state(subject);
        if let Some(fault) = self.fault(server) {
            Arc::make_mut(&mut state).orders.registry_fault = Some(fault);
        }
        state
    }

    /// What is remembered of all machines, as it counts for their next boots.
    pub fn machines_at_boot(&self, server: &Server) -> KnownMachines {
        KnownMachines::new(self.machines(), self.fault(server).as_ref())
    }

    /// Whether machines may have been forgotten, or what became of them, and the operator has not accepted that.
    pub fn is_state_lost(&self) -> bool {
        self.standing.is_lost()
    }

    /// What was lost, unless the operator has accepted it.
    pub fn loss(&self) -> Option<Loss> {
        self.standing.loss()
    }

    /// Accepts what was lost, for good.
    ///
    /// # Errors
    /// It cannot be written, and why.
    pub fn accept_loss(&self) -> Result<(), String> {
        if let Some(loss) = self.loss() {
            // They may have been used up after what is left of the registry was written.
            let stale: Vec<Subject> = {
                let remembered = locked(&self.remembered);
                let stale = remembered.machines.iter().filter(|entry| loss.outdates(entry));
                stale.map(Entry::subject).collect()
            };
            let withdrawn = |subject| Event { subject, step: Step::Disarmed {} };
            self.record_all(stale.into_iter().map(withdrawn));
        }
        match &self.kept {
            Kept::On(writer) => writer.accept_loss(),
            Kept::Not(reason) => Err(reason.to_string()),
        }
    }

    /// Looks for boots that have come no further, for ever.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(self.now());
        }
    }

    pub(crate) fn look(&self, now: SystemTime) {
        let mut remembered = locked(&self.remembered);
        self.tick(&mut remembered);
        let stalled = remembered.stalled(now);
        drop(remembered);
        for event in stalled {
            self.record(event);
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
        if let Kept::On(writer) = &self.kept {
            writer.close();
        }
    }

    /// What is remembered of a machine: by its MAC or name, or by its address where neither is known.
    pub fn state(&self, subject: &Subject) -> Arc<MachineState> {
        let remembered = locked(&self.remembered);
        if let Some(entry) = remembered.machines.find(subject) {
            return Arc::clone(&entry.state);
        }
        let address = subject.address.filter(|_| subject.mac.is_none());
        let known = address.and_then(|address| remembered.nameless.get(&address, self.now()));
        Arc::new(known.cloned().unwrap_or_default())
    }

    /// The state of the machine that this event is about once it is recorded, without a fault of the registry.
    pub fn state_after(&self, event: &Event) -> MachineState {
        let Subject { mac, name, .. } = &event.subject;
        let by_mac = Subject { mac: *mac, ..Subject::default() };
        let by_name = Subject { name: name.clone(), ..Subject::default() };
        let remembered = locked(&self.remembered);
        let mut machines = Machines::default();
        for entry in
            [by_mac, by_name].iter().filter_map(|subject| remembered.machines.find(subject))
        {
            let Entry { id, name, macs, state } = entry.clone();
            machines.load(id, name, macs, Arc::unwrap_or_clone(state));
        }
        let entry = machines.of(&event.subject, &mut Others::default());
        let mut state = entry.map(|entry| MachineState::clone(&entry.state)).unwrap_or_default();
        state.apply(event, None, self.now());
        state
    }

    /// The machine that has this card: as the config says, or as the operator has confirmed. That a client
    /// claims the UUID or the serial number of a machine makes its card none of the machine's.
    pub fn whose(&self, mac: Mac, catalog: &Catalog) -> Subject {
        let named = catalog.machine(mac).map(|machine| machine.name.clone());
        let confirmed = || {
            let subject = Subject { mac: Some(mac), ..Subject::default() };
            let remembered = locked(&self.remembered);
            let entry = remembered.machines.find(&subject)?;
            let name = entry.name.clone().filter(|_| entry.state.confirmed.contains(&mac))?;
            catalog.machines().contains_key(&name).then_some(name)
        };
        Subject { mac: Some(mac), name: named.or_else(confirmed), address: None }
    }

    /// The orders that hold for a machine now; at DHCP it is known what has started.
    pub fn orders(&self, state: &MachineState, start: Option<(Mac, Stage, u32)>) -> Orders {
        state.orders(start, self.now())
    }

    /// The machine that an event would be about.
    #[cfg(test)]
    pub(crate) fn entry(&self, subject: &Subject) -> Option<Entry> {
        locked(&self.remembered).machines.find(subject).cloned()
    }

    /// All machines that are remembered.
    pub fn machines(&self) -> Vec<Entry> {
        locked(&self.remembered).machines.iter().cloned().collect()
    }

    /// The machine at this address: on a served LAN the one whose card has it there, elsewhere the one that was
    /// last seen to lease it.
    pub fn subject_at(&self, address: Ipv4Addr, at: Neighbour, catalog: &Catalog) -> Subject {
        let unknown = Subject { address: Some(address), ..Subject::default() };
        match at {
            Neighbour::Card(card) => {
                Subject { address: Some(address), ..self.whose(card, catalog) }
            }
            Neighbour::OffLink => self.leased_by(address).unwrap_or(unknown),
            Neighbour::Unknown | Neighbour::ThisHost => unknown,
        }
    }

    /// The machine that was last seen to lease this address, which any neighbour can claim.
    pub fn leased_by(&self, address: Ipv4Addr) -> Option<Subject> {
        let remembered = locked(&self.remembered);
        remembered.addresses.get(&address, self.now()).cloned()
    }
}

/// Opens the registry of a state folder. If it is missing or damaged, its verified copy takes its place.
///
/// # Errors
/// It cannot be read or written, or a later version wrote it.
pub fn open_store(state: &Path) -> Result<(Store, Content), DatabaseError> {
    let is_missing = !Store::path(state).exists() && !loss::marker(state).exists();
    if is_missing && Store::previous(state).exists() {
        return from_previous(state, missing(state));
    }
    match Store::open(state) {
        Err(error @ DatabaseError::Damaged { .. }) => begun_anew(state, &error),
        opened => opened,
    }
}

fn missing(state: &Path) -> String {
    format!("{} is missing", Store::path(state).display())
}

/// Puts a damaged one aside, and begins with its verified copy, or with nothing.
fn begun_anew(state: &Path, error: &DatabaseError) -> Result<(Store, Content), DatabaseError> {
    let aside = Store::set_aside(state)?;
    let what = format!("{error}; it was put aside as {}", aside.display());
    warn!("registry: {what}");
    from_previous(state, what)
}

/// Begins with the verified copy, if there is one. What has happened since it was made is lost.
fn from_previous(state: &Path, what: String) -> Result<(Store, Content), DatabaseError> {
    // What is left of the missing file belongs to no other.
    Store::move_aside(state, "lost")?;
    let lost = match Store::read_previous(state) {
        Ok(machines) => {
            let lost = Loss::now(format!("{what}; {}", used_previous(state)));
            Store::put(state, &machines, Some(&lost))?;
            lost
        }
        Err(error) if Store::previous(state).exists() => {
            Loss::now(format!("{what}; its copy cannot be used either: {error}"))
        }
        Err(_) => Loss::now(format!("{what}; there is no copy of it")),
    };
    let (mut store, content) = Store::open(state)?;
    store.set_loss(Some(&lost))?;
    Ok((store, Content { loss: Some(lost), ..content }))
}

fn used_previous(state: &Path) -> String {
    let age = Store::age_of_previous(state).unwrap_or_default().as_secs();
    let previous = Store::previous(state);
    format!(
        "its copy {} is used, which is {} min old: what machines did since then is missing",
        previous.display(),
        age / 60
    )
}

/// What [`open_store`] would find. Nothing is written.
///
/// # Errors
/// There is a registry, and it cannot be read.
pub fn peek(state: &Path) -> Result<Content, DatabaseError> {
    let what = match Store::inspect(state) {
        Ok(content) => return Ok(content),
        Err(error @ DatabaseError::Damaged { .. }) => error.to_string(),
        Err(_) if !Store::path(state).exists() => {
            if loss::marker(state).exists() {
                return Ok(Content::default());
            }
            if !Store::previous(state).exists() {
                return Ok(Content { loss: Some(Loss::of_all(state)), ..Content::default() });
            }
            missing(state)
        }
        Err(error) => return Err(error),
    };
    let (machines, what) = match Store::read_previous(state) {
        Ok(machines) => (machines, format!("{what}; {}", used_previous(state))),
        Err(_) => (Machines::default(), format!("{what}; there is no copy of it")),
    };
    Ok(Content { machines, loss: Some(Loss::now(what)) })
}

impl Remembered {
    fn ends(&self, event: &Event, now: SystemTime) -> Option<Event> {
        let entry = self.machines.find(&event.subject)?;
        let step = entry.state.ends(event, now)?;
        Some(Event { subject: event.subject.clone(), step })
    }

    fn apply(&mut self, event: &Event, id: Option<BootId>, now: SystemTime) -> Change {
        let Subject { mac, address, .. } = event.subject;
        if let (Some(_), Some(address)) = (mac, address) {
            self.addresses.keep(address, event.subject.clone(), (&event.subject, now));
        }
        let mut change = Change::default();
        let mut others = Others::default();
        if let Some(entry) = self.machines.of(&event.subject, &mut others) {
            Arc::make_mut(&mut entry.state).apply(event, id, now);
            let id = entry.id;
            change.changed.push(id);
            if entry.state.is_under_way() {
                self.under_way.insert(id);
            } else {
                self.under_way.remove(&id);
            }
            // What it has completed now counts.
            self.machines.touch(id);
            if let Step::ConfirmationWithdrawn { card } = &event.step {
                change.changed.extend(self.machines.take(*card, id));
                self.addresses.forget(|subject| subject.mac == Some(*card));
            }
        } else if let Some(address) = address {
            let known = self.nameless.get(&address, now);
            let mut state = known.cloned().unwrap_or_default();
            state.apply(event, None, now);
            self.nameless.keep(address, state, (&event.subject, now));
        }
        let of_others = self.without(others);
        change.changed.extend(of_others.changed);
        change.gone = of_others.gone;
        change
    }

    /// What a machine's change means for others.
    fn without(&mut self, others: Others) -> Change {
        for gone in &others.gone {
            self.under_way.remove(gone);
        }
        Change { events: Vec::new(), changed: others.changed, gone: others.gone }
    }

    /// What is to be said of boots that have come no further.
    fn stalled(&self, now: SystemTime) -> Vec<Event> {
        let entries = self.under_way.iter().filter_map(|id| self.machines.get(*id));
        let stalled = entries.filter_map(|entry| {
            let step = entry.state.stalls(now)?;
            Some(Event { subject: entry.subject(), step })
        });
        stalled.take(MOST_STALLED).collect()
    }
}

/// A map that forgets what is older than [`REMEMBERED`]. Strangers cannot push machines of the config
/// out of it, only each other.
#[derive(Debug)]
struct Bounded<K, V> {
    known: Lane<K, V>,
    strangers: Lane<K, V>,
}

impl<K: Eq + Hash, V> Default for Bounded<K, V> {
    fn default() -> Self {
        let lane = |most| Lane { most, entries: LinkedHashMap::new() };
        Self { known: lane(MOST_KNOWN), strangers: lane(MOST_STRANGERS) }
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
        lane.entries.insert(key, (value, now));
        while lane.entries.len() > lane.most {
            lane.entries.pop_front();
        }
    }

    fn forget(&mut self, is_over: impl Fn(&V) -> bool) {
        for lane in [&mut self.known, &mut self.strangers] {
            lane.entries.retain(|_, (value, _)| !is_over(value));
        }
    }
}

/// So many at most: what was not kept again for the longest time goes first.
#[derive(Debug)]
struct Lane<K, V> {
    most: usize,
    entries: LinkedHashMap<K, (V, SystemTime)>,
}

fn is_fresh(seen: SystemTime, now: SystemTime) -> bool {
    now.duration_since(seen).map_or(true, |age| age < REMEMBERED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::event::boot::Step;

    fn leased(mac: Mac, address: Ipv4Addr) -> Event {
        Event {
            subject: Subject { mac: Some(mac), name: None, address: Some(address) },
            step: Step::Leased { server: None, relay: None },
        }
    }

    #[test]
    fn an_address_is_the_machine_that_leased_it_last() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let [old, new] = [1, 2].map(|n| Mac::new([2, 0, 0, 0, 0, n]));
        assert_eq!(registry.leased_by(address).and_then(|who| who.mac), None);
        registry.record(leased(old, address));
        registry.record(leased(new, address));
        assert_eq!(registry.leased_by(address).and_then(|who| who.mac), Some(new));
    }

    #[test]
    fn a_card_that_the_config_does_not_name_is_its_machines_once_it_is_confirmed() {
        use crate::pure::catalog::settings::Settings;
        use crate::pure::catalog::{Machine, Network};
        let registry = Registry::default();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let mut seen = leased(mac, Ipv4Addr::new(10, 0, 0, 100));
        seen.subject.name = Some("oden".into());
        registry.record(seen.clone());
        let mut catalog = Catalog::default();
        assert_eq!(registry.whose(mac, &catalog).name, None);
        catalog.add(Machine {
            name: "oden".into(),
            macs: vec![],
            uuid: Some(uuid::Uuid::max()),
            serial: None,
            profile: None,
            network: Network::default(),
            settings: Settings::default(),
        });
        assert_eq!(registry.whose(mac, &catalog).name, None, "its UUID is a claim");
        registry.record(Event { step: Step::Confirmed { card: mac }, ..seen.clone() });
        assert_eq!(registry.whose(mac, &catalog).name.as_deref(), Some("oden"));
        assert_eq!(
            registry.whose(mac, &Catalog::default()).name,
            None,
            "it is gone from the config"
        );
        let oden = Subject { mac: None, ..seen.subject };
        let withdrawn = Step::ConfirmationWithdrawn { card: mac };
        registry.record(Event { subject: oden.clone(), step: withdrawn });
        let of_card = registry.whose(mac, &catalog);
        assert_eq!(of_card.name, None);
        assert_eq!(registry.state(&of_card).first_seen, None, "it is a stranger that is new");
        assert!(registry.state(&oden).first_seen.is_some(), "and the machine is what it was");
    }

    /// It was not seen again since the operator, or its last fetch, has decided its next boot.
    #[test]
    fn a_stranger_whose_next_boot_is_decided_is_not_forgotten_in_a_flood() {
        let registry = Registry::default();
        let stranger = Mac::new([2, 0, 0, 0, 0, 1]);
        let subject = Subject { mac: Some(stranger), ..Subject::default() };
        registry.record(leased(stranger, Ipv4Addr::new(10, 0, 0, 100)));
        registry.record(Event { subject: subject.clone(), step: Step::KeptOnDisk {} });
        for n in 0..u32::try_from(machines::MOST_STRANGERS).unwrap() + 100 {
            let [a, b, c, d] = n.to_be_bytes();
            registry.record(leased(Mac::new([6, 0, a, b, c, d]), Ipv4Addr::new(10, a, c, d)));
        }
        assert!(registry.state(&subject).orders.is_kept_on_disk);
    }

    #[test]
    fn a_card_that_is_withdrawn_keeps_that_its_machine_was_installed() {
        let registry = Registry::default();
        let card = Mac::new([2, 0, 0, 0, 0, 1]);
        let of_card = Subject { mac: Some(card), ..Subject::default() };
        let oden = Subject { name: Some("oden".into()), ..Subject::default() };
        let both = Subject { mac: Some(card), ..oden.clone() };
        for (subject, step) in [
            (both, Step::Confirmed { card }),
            (oden.clone(), Step::KeptOnDisk {}),
            (oden.clone(), Step::ConfirmationWithdrawn { card }),
        ] {
            registry.record(Event { subject, step });
        }
        assert!(registry.state(&of_card).orders.is_kept_on_disk);
        assert!(registry.state(&oden).orders.is_kept_on_disk);
        registry.record(leased(card, Ipv4Addr::new(10, 0, 0, 100)));
        assert_eq!(registry.machines().iter().filter(|one| one.name.is_some()).count(), 1);
    }

    #[test]
    fn what_was_recorded_is_there_again_whatever_ended_the_daemon() {
        let folder = tempfile::tempdir().unwrap();
        let open =
            || Registry::open(folder.path(), Arc::new(Journal::open(folder.path()))).unwrap();
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let mut event = leased(mac, address);
        event.subject.name = Some("oden".into());
        let state = {
            let registry = open();
            registry.record(event.clone());
            registry
                .record(Event { step: Step::Armed { profile: None, times: 2 }, ..event.clone() });
            registry.flush().unwrap();
            registry.state(&event.subject)
        };
        // Nothing was closed.
        let registry = open();
        assert_eq!(registry.state(&event.subject), state);
        assert_eq!(state.orders.armed.as_ref().map(|armed| armed.times), Some(2));
        registry.close();
        for end in ["-wal", "-shm"] {
            std::fs::remove_file(folder.path().join(format!("db/registry.db{end}"))).ok();
        }
        std::fs::write(
            Store::path(folder.path()),
            "no database, but long enough for one".repeat(99),
        )
        .unwrap();
        let registry = open();
        assert_eq!(*registry.state(&event.subject), MachineState::default());
        registry.record(event.clone());
        registry.flush().unwrap();
        let aside = std::fs::read_dir(folder.path().join("db")).unwrap().flatten();
        let is_aside = |name: String| name.starts_with("registry.db.damaged-");
        assert!(aside.into_iter().any(|entry| is_aside(entry.file_name().into_string().unwrap())));
    }

    #[test]
    fn what_nobody_is_told_of_is_on_the_disk_too_when_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let registry =
            Registry::open(folder.path(), Arc::new(Journal::open(folder.path()))).unwrap();
        let strangers = 0..3000;
        for n in strangers.clone() {
            let [_, _, c, d] = u32::to_be_bytes(n);
            let event = leased(Mac::new([2, 0, 0, 0, c, d]), Ipv4Addr::from(n));
            // As a flood makes them: more than the journal takes in a second.
            registry.record(event);
        }
        registry.close();
        assert_eq!(Store::read(folder.path()).unwrap().iter().count(), strangers.len());
    }

    #[test]
    fn one_of_a_later_version_stays_as_it_is_and_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Registry::open(folder.path(), Arc::default());
        open().unwrap().close();
        let path = Store::path(folder.path());
        let later = rusqlite::Connection::open(&path).unwrap();
        later.pragma_update(None, "user_version", 99).unwrap();
        drop(later);
        let before = std::fs::read(&path).unwrap();
        assert!(open().unwrap_err().to_string().contains("is of a later version of reveille"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    /// One with a machine that has an order, written and closed.
    fn written(folder: &Path) -> Subject {
        loss::permit(folder).unwrap();
        let registry = Registry::open(folder, Arc::default()).unwrap();
        let mut event = leased(Mac::new([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 100));
        event.subject.name = Some("oden".into());
        registry.record(Event { step: Step::Armed { profile: None, times: 3 }, ..event.clone() });
        let mut other = event.subject.clone();
        (other.mac, other.name) = (Some(Mac::new([2; 6])), Some("balder".into()));
        registry.record(Event { subject: other, step: Step::KeptOnDisk {} });
        registry.flush().unwrap();
        registry.close();
        let file = rusqlite::Connection::open(Store::path(folder)).unwrap();
        file.pragma_update(None, "wal_checkpoint", "TRUNCATE").ok();
        event.subject
    }

    #[test]
    fn a_row_that_cannot_be_read_is_told_of_and_the_others_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let oden = written(folder.path());
        let file = rusqlite::Connection::open(Store::path(folder.path())).unwrap();
        let broken = "UPDATE machines SET state = '{\"boots\":-1}' WHERE name = 'balder'";
        assert_eq!(file.execute(broken, []).unwrap(), 1);
        drop(file);
        let registry = Registry::open(folder.path(), Arc::default()).unwrap();
        assert_eq!(registry.machines().len(), 1);
        assert!(registry.state(&oden).orders.armed.is_some());
        let aside = std::fs::read_dir(folder.path().join("db")).unwrap().flatten();
        let names = aside.map(|entry| entry.file_name().into_string().unwrap());
        assert!(names.into_iter().any(|name| name.starts_with("registry.db.damaged-")));
        let loss = registry.loss().unwrap();
        assert!(loss.what.contains("balder"), "{loss:?}");
        registry.close();
        let again = Registry::open(folder.path(), Arc::default()).unwrap();
        assert_eq!(again.machines().len(), 1);
    }

    #[test]
    fn an_empty_file_is_a_damaged_one() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("db")).unwrap();
        std::fs::write(Store::path(folder.path()), "").unwrap();
        assert!(matches!(Store::open(folder.path()), Err(DatabaseError::Damaged { .. })));
        assert!(Registry::open(folder.path(), Arc::default()).unwrap().flush().is_ok());
    }

    #[test]
    fn a_simulation_is_not_remembered_of_the_machine() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        registry.of_a_simulation().record(leased(Mac::new([2, 0, 0, 0, 0, 1]), address));
        assert_eq!(registry.leased_by(address).and_then(|who| who.mac), None);
        registry.record(leased(Mac::new([2, 0, 0, 0, 0, 1]), address));
        assert!(
            registry.of_a_simulation().leased_by(address).and_then(|who| who.mac).is_some(),
            "it sees all"
        );
    }

    #[test]
    fn a_pairing_of_yesterday_names_nobody() {
        let registry = Registry::default();
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let event = leased(Mac::new([2, 0, 0, 0, 0, 1]), address);
        let yesterday = SystemTime::now() - Duration::from_hours(24);
        locked(&registry.remembered).apply(&event, None, yesterday);
        assert_eq!(registry.leased_by(address).and_then(|who| who.mac), None);
    }

    #[test]
    fn a_flood_of_invented_machines_is_bounded_and_makes_no_machine_of_the_config_forgotten() {
        let registry = Registry::default();
        let now = SystemTime::now();
        let oden = Mac::new([2, 0xff, 0, 0, 0, 1]);
        let address = Ipv4Addr::new(10, 0, 0, 100);
        let mut known = leased(oden, address);
        known.subject.name = Some("oden".into());
        locked(&registry.remembered).apply(&known, None, now);
        let strangers = u32::try_from(MOST_STRANGERS).unwrap() + 10;
        for n in 0..strangers {
            let [a, b, c, d] = n.to_be_bytes();
            let event = leased(Mac::new([2, 0, a, b, c, d]), Ipv4Addr::from(n));
            locked(&registry.remembered).apply(&event, None, now);
        }
        assert_eq!(locked(&registry.remembered).addresses.strangers.entries.len(), MOST_STRANGERS);
        assert_eq!(registry.leased_by(address).and_then(|who| who.mac), Some(oden));
        assert_eq!(
            registry.leased_by(Ipv4Addr::from(0)).and_then(|who| who.mac),
            None,
            "the oldest went"
        );
        assert!(
            registry.leased_by(Ipv4Addr::from(strangers - 1)).and_then(|who| who.mac).is_some()
        );
        // Who is in the config from now on is no stranger any more.
        let mut later = leased(Mac::new([2; 6]), Ipv4Addr::from(strangers - 1));
        later.subject.name = Some("balder".into());
        locked(&registry.remembered).apply(&later, None, now);
        assert_eq!(
            registry.leased_by(Ipv4Addr::from(strangers - 1)).and_then(|who| who.mac),
            Some(Mac::new([2; 6]))
        );
    }
}
