//! What is remembered about a machine because it decides the machine's next boot.
//!
//! [`Journey`] is the boot that is under way, or was the last; [`Orders`] say whether the network boots it or
//! its disk; [`Ladder`] which NBP its firmware gets. They change by events only, in [`MachineState::apply`];
//! what an event shows to have come to its end before it is an event of its own, which [`MachineState::ends`]
//! makes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::attempt::{FileGrants, Invitation};
use super::diagnosis;
use super::evidence::{Neighbour, Sender, Sightings, locate};
use super::loop_guard::Chain;
use super::nbp_fallback::Ladder;
use super::orders::{self, Orders};
use super::progress::{Journey, ONE_ATTEMPT};
use super::time::Time;
use crate::pure::catalog::server::Naming;
use crate::pure::catalog::settings::Option43;
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Arch, Client, Mac, Stage};
use crate::pure::event::boot::{Event, File, Starts, Step};
use crate::pure::event::diagnosis::{Reached, Verdict};
use crate::pure::event::doubt::Doubt;

pub use super::attempt::OpenBoot;

/// The DHCP server port.
const DHCP_PORT: u16 = 67;
/// How soon a machine that was sent to its disk, and is back in PXE, has no disk that boots.
const BACK: Duration = Duration::from_mins(3);
/// How long a script waits before it offers a disk again that did not boot.
pub const DISK_AGAIN: Duration = Duration::from_mins(1);
/// How soon a request without an id, of a machine whose DHCP is not seen, is of the boot that is open.
const SAME_START: Duration = Duration::from_secs(20);
/// How many cards are remembered that were sent to the disk.
const MOST_CARDS: usize = 16;

/// The facts that decide a machine's next boot. Only [`MachineState::apply`] changes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MachineState {
    /// When it was seen first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// When it was seen last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// The address that it had then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// What its firmware is, as DHCP told it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Whom the last script was for, with what iPXE told of the machine: what fetches the machine's own
    /// files later tells nothing of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Box<Client>>,
    /// Boots that fetched all that they boot.
    pub boots: u64,
    /// Boots that came to nothing since then.
    pub failures: u32,
    /// Why the last of them did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Box<Verdict>>,
    /// Whether the network boots it, or its disk.
    pub orders: Orders,
    /// Which NBP its firmware gets.
    #[serde(skip_serializing_if = "is_default")]
    pub ladder: Ladder,
    /// The boot that is under way, or was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journey: Option<Box<Journey>>,
    #[serde(skip_serializing_if = "is_default")]
    chain: Chain,
    /// Which of its cards a boot has sent to the disk, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sent_to_disk: Vec<SentToDisk>,
    /// Which of its cards DHCP left to the disk by silence, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_in_silence: Vec<SentToDisk>,
    /// When and where it was seen on its way to its script.
    #[serde(skip_serializing_if = "is_default")]
    pub sightings: Sightings,
    /// The boot that it has opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open: Option<Box<OpenBoot>>,
    /// The boot that it opens if the id comes back which it was sent over TFTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    invited: Option<Invitation>,
    /// The answer files that its last boots may fetch.
    #[serde(skip_serializing_if = "FileGrants::is_empty")]
    pub files: FileGrants,
    /// The cards that the operator has confirmed as its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confirmed: Vec<Mac>,
    /// When the id of one of its boots came from a card that is not its own: until the next order, which
    /// shows that the operator has seen it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alarm: Option<Alarm>,
}

/// That the id of a boot came from a card that is not the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When, the last time.
    pub at: Time,
    /// From where.
    pub from: Ipv4Addr,
    /// The card there.
    pub card: Mac,
}

/// A request that could be part of a boot.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Where it comes from.
    pub sender: Sender<'a>,
    /// The boot id that it carries.
    pub id: Option<BootId>,
    /// Whether it asks for a script, which can open a boot.
    pub is_for_script: bool,
    /// Whether anybody can have forged the address that it comes from, as over TFTP.
    pub is_forgeable: bool,
    /// Whether DHCP is ours, so that a machine that boots is seen there.
    pub sees_dhcp: bool,
}

/// How a request belongs to a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It carries the id of the open boot.
    Continues,
    /// It carries no id, and the open boot has begun since the machine was last seen to start.
    Joins,
    /// It opens a boot, from this card.
    Opens(Mac),
    /// It opens a boot, from this card, once it proves by an id that it receives what is sent to its address.
    Invites(Mac),
}

/// What need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A card that was sent to the disk: the firmware of a machine with two tries one after the other before the
/// disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SentToDisk {
    card: Mac,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    at: Time,
    /// Whether the script waits for a minute first.
    #[serde(default)]
    is_delayed: bool,
    /// Since when its firmware asks on and on, if silence left it to the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
}

impl SentToDisk {
    fn is_of(&self, card: Mac, stage: Option<Stage>) -> bool {
        (self.card, self.stage) == (card, stage)
    }

    /// Whether a start at `now` means that the disk did not boot.
    fn is_back(&self, now: Time) -> bool {
        let delay = if self.is_delayed { DISK_AGAIN } else { Duration::ZERO };
        now.is_within(BACK + delay, self.at)
    }

    /// Adds this one to a list, in the place of an earlier one of the same card and stage.
    fn note(self, list: &mut Vec<Self>) {
        list.retain(|sent| !sent.is_of(self.card, self.stage));
        if list.len() == MOST_CARDS {
            list.remove(0);
        }
        list.push(self);
    }
}

impl MachineState {
    /// What `event` shows to have come to nothing before it, as an event of its own, to be applied first.
    pub fn ends(&self, event: &Event, at: SystemTime) -> Option<Step> {
        let at = Time::from(at);
        let before = self.journey.as_deref()?;
        Journey::begun(Some(before), event, at)?;
        let after = at.since(before.last).unwrap_or_default();
        let is_over = before.is_told || before.reached == Reached::Disk;
        let verdict = if is_over { None } else { diagnosis::verdict(before, self.arch, after) };
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// How a request belongs to a boot of this machine: the one place where a boot is opened, or is not.
    ///
    /// # Errors
    /// Why the request is not taken for the machine's own.
    pub fn admit(&self, asking: Asking<'_>, now: SystemTime) -> Result<Part, Doubt> {
        let now = Time::from(now);
        let Asking { sender, id, is_for_script, is_forgeable, sees_dhcp } = asking;
        let open = self.open.as_deref().filter(|open| open.is_open(now));
        if let Some(open) = open.filter(|open| id == Some(open.id)) {
            return match locate(sender, &self.sightings, now) {
                Ok(_) => Ok(Part::Continues),
                // The id proves more than the address, unless another card has that.
                Err(Doubt::NoNeighbour(address) | Doubt::NotRelayed(address))
                    if address == open.address =>
                {
                    Ok(Part::Continues)
                }
                Err(doubt) => Err(doubt),
            };
        }
        let card = locate(sender, &self.sightings, now)?;
        if !is_for_script {
            return Err(Doubt::NoBoot);
        }
        let address = sender.address;
        let is_off_link = sender.neighbour == Neighbour::OffLink;
        if (sees_dhcp || is_off_link) && !self.sightings.is_booting(address, now) {
            return Err(Doubt::NotBooting);
        }
        let is_same_start = |open: &&OpenBoot| {
            // One that lies in the future was opened before the clock was set back: that says nothing of this start.
            open.card == card
                && open.opened <= now
                && match self.sightings.last(address) {
                    Some(last) if sees_dhcp => last <= open.opened,
                    Some(_) | None => now.is_within(SAME_START, open.last),
                }
        };
        match open.filter(is_same_start) {
            _ if self.invitation(id, (card, address), now).is_some() => Ok(Part::Opens(card)),
            Some(open) if is_forgeable => Err(Doubt::Forgeable(open.id)),
            Some(_) => Ok(Part::Joins),
            None if is_forgeable => Ok(Part::Invites(card)),
            None => Ok(Part::Opens(card)),
        }
    }

    /// The ids of the boot that a request with this id opens, from this card at this address, if it was invited to.
    pub fn invitation(
        &self,
        id: Option<BootId>,
        at: (Mac, Ipv4Addr),
        now: Time,
    ) -> Option<(BootId, BootId)> {
        let invited = self.invited.as_ref().filter(|invited| id == Some(invited.id))?;
        invited.is_for(at, now).then_some((invited.id, invited.file_id))
    }

    /// Invites the machine to open a boot: the id that it is to send back.
    pub fn invite(
        &mut self,
        fresh: (BootId, BootId),
        at: (Mac, Ipv4Addr),
        now: SystemTime,
    ) -> BootId {
        let now = Time::from(now);
        // A forged request must not replace the invitation that the machine has received.
        let before = self.invited.take().filter(|invited| invited.is_for(at, now));
        self.invited.insert(before.unwrap_or_else(|| Invitation::new(fresh, at, now))).id
    }

    /// The disk failure that the opening of a boot from this card shows, to be applied before it opens.
    pub fn returns(&self, card: Mac, now: SystemTime) -> Option<Step> {
        let now = Time::from(now);
        let stage = self.sightings.stage();
        let sent = self.sent_to_disk.iter().find(|sent| sent.is_of(card, stage))?;
        if !sent.is_back(now) {
            return None;
        }
        let after = now.since(sent.at).unwrap_or_default();
        let mut at_disk = self.journey.as_deref().cloned().unwrap_or_else(|| Journey::at_disk(now));
        at_disk.reached = Reached::Disk;
        let verdict = diagnosis::verdict(&at_disk, self.arch, after)?;
        Some(Step::Stopped { verdict })
    }

    /// What of this is so also for a card that another machine has now: what was done, and not what was ordered.
    #[must_use]
    pub fn of_another_card(&self) -> Self {
        let orders = Orders { armed: None, ..self.orders.clone() };
        Self {
            orders,
            open: None,
            invited: None,
            files: FileGrants::default(),
            confirmed: Vec::new(),
            ..self.clone()
        }
    }

    /// Opens a boot, which closes the one before.
    pub fn open(
        &mut self,
        (id, file_id): (BootId, BootId),
        (card, address): (Mac, Ipv4Addr),
        now: SystemTime,
    ) {
        let now = Time::from(now);
        self.invited = None;
        self.address = Some(address);
        self.first_seen.get_or_insert(now);
        self.last_seen = Some(now);
        self.open = Some(Box::new(OpenBoot {
            id,
            file_id,
            opened: now,
            last: now,
            card,
            stage: self.sightings.stage(),
            address,
            secrets: 0,
            boot: None,
            orders: None,
            fetched: std::collections::BTreeSet::new(),
            is_complete: false,
        }));
        // A request of its own has reached us: its NBP works.
        self.chain = Chain::default();
    }

    /// Keeps the open boot open.
    pub fn hear(&mut self, address: Ipv4Addr, now: SystemTime) {
        if let Some(open) = &mut self.open {
            open.last = Time::from(now);
            self.address = Some(address);
        }
    }

    /// Whether something of it is only so for a while.
    pub fn has_timers(&self) -> bool {
        self.open.is_some()
            || self.invited.is_some()
            || !self.files.is_empty()
            || !self.sent_to_disk.is_empty()
            || self.chain != Chain::default()
    }

    /// Keeps the age of what is only so for a while, when the clock is set by so many milliseconds: a clock that
    /// jumps neither closes a boot nor makes a disk fail.
    pub fn shift(&mut self, by: i64) {
        self.open.iter_mut().for_each(|open| open.shift(by));
        self.invited.iter_mut().for_each(|invited| invited.shift(by));
        self.files.shift(by);
        self.sightings.shift(by);
        self.chain.shift(by);
        self.orders.returns.iter_mut().for_each(|at| *at = at.shifted(by));
        let sent = self.sent_to_disk.iter_mut().chain(&mut self.left_in_silence);
        sent.for_each(|sent| {
            sent.at = sent.at.shifted(by);
            sent.since = sent.since.map(|since| since.shifted(by));
        });
    }

    /// Counts a script with a secret that the open boot is given.
    pub fn count_secret(&mut self) {
        if let Some(open) = &mut self.open {
            open.secrets = open.secrets.saturating_add(1);
        }
    }

    /// What is to be said where nothing was heard of its boot for too long.
    pub fn stalls(&self, now: SystemTime) -> Option<Step> {
        let journey = self.journey.as_deref().filter(|journey| !journey.is_told)?;
        let after = Time::from(now).since(journey.further)?;
        let verdict = (after >= diagnosis::patience(journey)?)
            .then(|| diagnosis::verdict(journey, self.arch, after));
        verdict.flatten().map(|verdict| Step::Stopped { verdict })
    }

    /// Whether it is worth asking [`Self::stalls`] later.
    pub fn is_under_way(&self) -> bool {
        let journey = self.journey.as_deref().filter(|journey| !journey.is_told);
        journey.is_some_and(|journey| diagnosis::patience(journey).is_some())
    }

    /// What is to be said where iPXE reports, in its open boot, that it could not start the disk.
    pub fn disk_failed(&self) -> Option<Step> {
        self.open.as_ref()?;
        let verdict = diagnosis::told(diagnosis::SANBOOT_FAILED, self.journey.as_ref()?);
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// What is to be said where iPXE reports, in its open boot, that it has all that it boots and could not
    /// start it.
    pub fn kernel_failed(&self) -> Option<Step> {
        self.open.as_ref().filter(|open| open.is_complete)?;
        let journey = self.journey.as_ref()?;
        let verdict = diagnosis::told(diagnosis::KERNEL_DOES_NOT_START, journey);
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// Applies what happened at `at`, to the request of which `id` belonged if it belonged to a boot.
    ///
    /// Effects on orders need that this boot is the open one: see [`super::evidence::Effect`].
    pub fn apply(&mut self, event: &Event, id: Option<BootId>, at: SystemTime) {
        let at = Time::from(at);
        if is_of_the_machine(&event.step) {
            self.first_seen.get_or_insert(at);
            self.last_seen = Some(at);
        }
        if let Some(begun) = Journey::begun(self.journey.as_deref(), event, at) {
            self.journey = Some(Box::new(begun));
        }
        self.chain.apply(event, at);
        if let Some(journey) = &mut self.journey {
            journey.apply(event, at);
        }
        let is_of_open = id.is_some() && self.open.as_ref().map(|open| open.id) == id;
        match &event.step {
            Step::Offered { arch, stage, .. } => {
                self.arch = arch.or(self.arch);
                self.sightings.discover(*stage);
            }
            Step::Leased { relay, .. } => self.sightings.request(*relay, at),
            Step::Acknowledged { relay, port, .. } => {
                if *port == DHCP_PORT {
                    self.sightings.request(*relay, at);
                } else if let Some(address) = event.subject.address {
                    self.see_fetch(address, at);
                    self.ladder.ask();
                }
            }
            Step::AutoexecSent { .. } => {
                if let Some(address) = event.subject.address {
                    self.see_fetch(address, at);
                }
            }
            Step::Probed { .. } => {
                if let Some(address) = event.subject.address {
                    self.see_fetch(address, at);
                }
                self.ladder.ask();
            }
            Step::NbpSent { arch, .. } => {
                if let Some(address) = event.subject.address {
                    self.see_fetch(address, at);
                }
                self.ladder.fetch(Some(*arch));
            }
            // Whoever forges a source receives nothing, and acknowledges nothing.
            Step::BrokenOff { kind: File::Nbp, sent, .. } if sent.bytes > 0 => {
                self.ladder.fetch(None);
            }
            Step::ScriptServed { starts, client, .. } => {
                self.learn(client);
                self.come_to_script();
                match starts {
                    Starts::Disk(_) if is_of_open => self.send_to_disk(false, at),
                    Starts::DiskAgain(_) if is_of_open => self.send_to_disk(true, at),
                    Starts::Boot(boot) if is_of_open => self.start(boot),
                    Starts::Disk(_)
                    | Starts::DiskAgain(_)
                    | Starts::Boot(_)
                    | Starts::Hold
                    | Starts::Menu
                    | Starts::Question => {}
                }
            }
            Step::WaitServed { client, .. } => {
                self.learn(client);
                self.come_to_script();
            }
            Step::LeftToItsDisk { at: Some((stage, _)), .. } => {
                self.sightings.discover(*stage);
                if let Some(card) = event.subject.mac {
                    let stage = Some(*stage);
                    let of_this = |left: &&SentToDisk| left.is_of(card, stage) && left.is_back(at);
                    let before = self.left_in_silence.iter().find(of_this);
                    let since = before.map(|left| left.since.unwrap_or(left.at));
                    let left = SentToDisk { card, stage, at, is_delayed: false, since };
                    left.note(&mut self.left_in_silence);
                }
            }
            Step::LeftToItsDisk { at: None, .. } if is_of_open => self.send_to_disk(false, at),
            Step::ImageSent { file, .. } if is_of_open => {
                let is_complete = self.open.as_mut().is_some_and(|open| open.fetch(file));
                if is_complete {
                    self.complete(at);
                }
            }
            Step::Stopped { verdict } => self.stop(verdict, is_of_open, at),
            Step::Armed { profile, times } => {
                self.alarm = None;
                self.expect_back();
                let profile = profile.clone();
                self.orders.arm(orders::Arming { since: at, profile, times: *times });
            }
            Step::Disarmed {} => {
                self.alarm = None;
                self.orders.withdraw();
            }
            Step::KeptOnDisk {} => {
                self.alarm = None;
                self.expect_back();
                self.orders.keep_on_disk();
            }
            Step::BootIdMisused { from, card } => {
                self.alarm = Some(Alarm { at, from: *from, card: *card });
            }
            Step::Confirmed { card } => {
                self.confirmed.retain(|known| known != card);
                self.confirmed.push(*card);
            }
            Step::ConfirmationWithdrawn { card } => {
                self.confirmed.retain(|known| known != card);
                // What it was given as this machine's card ends.
                (self.open, self.invited) = (None, None);
                self.files = FileGrants::default();
            }
            Step::Advised { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. }
            | Step::CompanionSent { .. }
            | Step::LeftToItsDisk { at: None, .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. } => {}
        }
    }

    /// Notes a fetch from this address, which the neighbour table says is the machine's.
    fn see_fetch(&mut self, address: Ipv4Addr, at: Time) {
        self.sightings.fetch(address, at);
        self.address = Some(address);
    }

    /// What it reported before and does not report now stays.
    fn learn(&mut self, client: &Client) {
        let before = self.client.as_deref();
        self.client = Some(Box::new(client.clone().or_as_known(before)));
    }

    /// It has its script: what its firmware got has worked.
    fn come_to_script(&mut self) {
        let Some(journey) = &self.journey else {
            return;
        };
        let is_firmware = journey.start.is_none_or(|start| start.stage != Stage::Ipxe);
        if let Some(nbp) = journey.nbp.as_ref().filter(|_| is_firmware) {
            self.ladder.work(nbp, journey.option_43.unwrap_or_default());
        }
    }

    /// Notes what the script of the open boot boots.
    fn start(&mut self, boot: &crate::pure::event::boot::Boot) {
        let Self { open, orders, files, .. } = self;
        if let Some(open) = open {
            open.start(boot, orders);
            files.add(open);
        }
        if let Some(journey) = &mut self.journey {
            journey.orders = Some(self.orders.clone());
        }
    }

    /// It had all that it needs, and its kernel did not start: nothing is completed after all.
    fn undo(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.undo();
        }
        if let Some(open) = &mut self.open
            && open.is_complete
        {
            open.undo();
            if let Some(before) = &open.orders {
                self.orders = self.orders.resumed(before);
                self.boots = self.boots.saturating_sub(1);
            }
        }
    }

    /// The open boot has all that it needs.
    fn complete(&mut self, at: Time) {
        if let Some(OpenBoot { boot: Some(boot), orders: Some(before), .. }) = self.open.as_deref()
        {
            self.orders.complete(boot, before, at);
        }
        self.boots += 1;
        self.failures = 0;
        self.verdict = None;
        self.sent_to_disk.clear();
        self.left_in_silence.clear();
    }

    /// Notes that the open boot was sent to the disk.
    fn send_to_disk(&mut self, is_delayed: bool, at: Time) {
        self.forgive();
        if let Some(OpenBoot { card, stage, .. }) = self.open.as_deref() {
            let sent = SentToDisk { card: *card, stage: *stage, at, is_delayed, since: None };
            sent.note(&mut self.sent_to_disk);
        }
    }

    /// What came to nothing before is over, unless it is that disk.
    fn forgive(&mut self) {
        if self.verdict.as_ref().is_some_and(|verdict| verdict.reached != Reached::Disk) {
            self.failures = 0;
            self.verdict = None;
        }
    }

    fn stop(&mut self, verdict: &Verdict, is_of_open: bool, at: Time) {
        self.failures = self.failures.saturating_add(1);
        self.verdict = Some(Box::new(verdict.clone()));
        if verdict.rule == diagnosis::KERNEL_DOES_NOT_START && is_of_open {
            self.undo();
        }
        if verdict.reached == Reached::Disk && is_of_open {
            self.orders.fail_disk(verdict.rule == diagnosis::SANBOOT_FAILED, at);
            self.sent_to_disk.clear();
        }
        let is_firmware = self
            .journey
            .as_ref()
            .is_some_and(|journey| journey.start.is_none_or(|start| start.stage != Stage::Ipxe));
        // Who has booted so takes our offers: that it gets no address is another's fault.
        let is_ours = verdict.rule != diagnosis::NO_LEASE || self.ladder.worked.is_none();
        if is_firmware && is_ours && !verdict.reached.is_scripted() {
            self.ladder.fail(verdict.reached, self.arch);
        }
    }

    /// The operator has decided what the machine boots: that it comes back from its disk shows nothing.
    fn expect_back(&mut self) {
        self.orders.forgive_disk();
        self.sent_to_disk.clear();
        self.left_in_silence.clear();
        let at_disk = self.journey.as_mut().filter(|journey| journey.reached == Reached::Disk);
        if let Some(journey) = at_disk {
            journey.is_told = true;
        }
    }

    /// Whether a machine that was left to its disk by silence is answered again, since its disk may not boot.
    /// That is a claim, which any neighbour can make: the machine then opens a boot, whose script sends it to
    /// its disk, and only its return from there counts.
    fn breaks_silence(&self, card: Mac, stage: Stage, now: Time) -> bool {
        let of_this = |list: &[SentToDisk]| {
            list.iter()
                .find(|sent| sent.is_of(card, Some(stage)))
                .filter(|sent| sent.is_back(now))
                .cloned()
        };
        // Firmware that gets no answer asks on for a while. If it asks for longer than that, it begins anew at
        // once each time.
        let asks_anew = of_this(&self.left_in_silence).is_some_and(|left| {
            let is_long = left.since.is_some_and(|since| !now.is_within(BACK, since));
            is_long || !now.is_within(ONE_ATTEMPT, left.at)
        });
        let is_running_nbp = stage == Stage::Ipxe && self.chain.runs_our_nbp(now);
        asks_anew || is_running_nbp || of_this(&self.sent_to_disk).is_some()
    }

    /// The orders that hold for who asks now; at DHCP it is known what has started.
    pub fn orders(&self, start: Option<(Mac, Stage, u32)>, now: SystemTime) -> Orders {
        let now = Time::from(now);
        let mut orders = self.orders.clone();
        orders.forget_old_returns(now);
        orders.asks_again =
            start.is_some_and(|(card, stage, _)| self.breaks_silence(card, stage, now));
        orders
    }

    /// What option 43 says to its firmware, where the config does not say it.
    pub fn option_43(&self) -> Option43 {
        self.ladder.option_43()
    }

    /// Of a machine that has just fetched an NBP, of whatever name.
    pub fn of_a_running_nbp(now: SystemTime) -> Self {
        Self { chain: Chain::of_a_running_nbp(now.into()), ..Self::default() }
    }

    /// Whether the iPXE that asks now must be the NBP that was fetched a moment ago.
    pub fn runs_our_nbp(&self, now: SystemTime) -> bool {
        self.chain.runs_our_nbp(now.into())
    }

    /// Whether who asks for the NBP `name` now must be that NBP itself: it was fetched a moment ago,
    /// and was not yet shown the way to its script.
    pub fn is_run_by(&self, name: &str, now: SystemTime) -> bool {
        self.chain.is_run_by(name, now.into())
    }

    /// The NBP that is fetched again and again, without a script.
    pub fn loops_with(&self, naming: Naming, now: SystemTime) -> Option<&str> {
        self.chain.loops_with(naming, now.into())
    }
}

/// Whether an event is something that the machine did, and not we.
fn is_of_the_machine(step: &Step) -> bool {
    match step {
        Step::Stopped { .. }
        | Step::Armed { .. }
        | Step::Disarmed {}
        | Step::KeptOnDisk {}
        | Step::BootIdMisused { .. }
        | Step::Confirmed { .. }
        | Step::ConfirmationWithdrawn { .. }
        | Step::ScriptShown { .. }
        | Step::ScriptWithheld { .. } => false,
        Step::Offered { .. }
        | Step::Leased { .. }
        | Step::Acknowledged { .. }
        | Step::Probed { .. }
        | Step::NbpSent { .. }
        | Step::CompanionSent { .. }
        | Step::AutoexecSent { .. }
        | Step::ScriptServed { .. }
        | Step::WaitServed { .. }
        | Step::Advised { .. }
        | Step::ImageSent { .. }
        | Step::FileSent { .. }
        | Step::BrokenOff { .. }
        | Step::Refused { .. }
        | Step::Ignored { .. }
        | Step::LeftToItsDisk { .. } => true,
    }
}

#[cfg(test)]
mod tests;
