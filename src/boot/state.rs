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

use self::chain::Chain;
use self::journey::{Journey, ONE_ATTEMPT, Reached, Start};
use self::ladder::Ladder;
use self::orders::Orders;
use super::client::{Client, Stage};
use super::event::{Event, Starts, Step};
use super::settings::{LocalBoot, Option43};
use super::time::Time;
use super::verdict::{self, Verdict};
use super::{Arch, Mac};

mod chain;
pub mod journey;
pub mod ladder;
pub mod orders;

/// How soon a machine that was sent to its disk, and is back in PXE, has no disk that boots.
const BACK: Duration = Duration::from_mins(3);
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
    /// Which of its cards were sent to the disk, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    at_disk: Vec<AtDisk>,
}

/// What need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A card that was sent to the disk: where a machine has two, its firmware tries one after the other before
/// its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AtDisk {
    start: Start,
    is_silent: bool,
    at: Time,
}

impl AtDisk {
    /// Whether who starts so now has come back from there.
    fn is_back(&self, start: Start, now: Time) -> bool {
        let is_it = (self.start.mac, self.start.stage) == (start.mac, start.stage);
        // Who was left to its disk by silence asks on for a while.
        let asks_still = self.is_silent && now.is_within(ONE_ATTEMPT, self.at);
        is_it && !asks_still && now.is_within(BACK, self.at)
    }
}

impl MachineState {
    /// What `event` shows to have come to nothing before it, as an event of its own, to be applied first.
    pub fn ends(&self, event: &Event, at: SystemTime) -> Option<Step> {
        let at = Time::from(at);
        let before = self.journey.as_deref()?;
        let begun = Journey::begun(Some(before), event, at)?;
        let after = at.since(before.last).unwrap_or_default();
        let is_back = match begun.start {
            Some(start) => self.sent_to_disk(start, at).is_some(),
            None => before.is_back_unseen(at),
        };
        let verdict = if is_back {
            let mut at_disk = before.clone();
            at_disk.reached = Reached::Disk;
            verdict::verdict(&at_disk, self.arch, after)
        } else if before.is_told || before.reached == Reached::Disk {
            None
        } else {
            verdict::verdict(before, self.arch, after)
        };
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// What is to be said where nothing was heard of its boot for too long.
    pub fn stalls(&self, now: SystemTime) -> Option<Step> {
        let journey = self.journey.as_deref().filter(|journey| !journey.is_told)?;
        let after = Time::from(now).since(journey.further)?;
        let verdict = (after >= verdict::patience(journey)?)
            .then(|| verdict::verdict(journey, self.arch, after));
        verdict.flatten().map(|verdict| Step::Stopped { verdict })
    }

    /// Whether it is worth asking [`Self::stalls`] later.
    pub fn is_under_way(&self) -> bool {
        let journey = self.journey.as_deref().filter(|journey| !journey.is_told);
        journey.is_some_and(|journey| verdict::patience(journey).is_some())
    }

    /// What is to be said where iPXE tells that it could not start the disk.
    pub fn disk_failed(&self) -> Option<Step> {
        let verdict = verdict::told(verdict::SANBOOT_FAILED, self.journey.as_ref()?);
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// What is to be said where iPXE tells that it has all that it boots, and could not start it.
    pub fn kernel_failed(&self) -> Option<Step> {
        let journey = self.journey.as_ref().filter(|journey| journey.reached == Reached::All)?;
        let verdict = verdict::told(verdict::KERNEL_DOES_NOT_START, journey);
        verdict.map(|verdict| Step::Stopped { verdict })
    }

    /// Takes up what happened at `at`.
    pub fn apply(&mut self, event: &Event, at: SystemTime) {
        let at = Time::from(at);
        if is_of_the_machine(&event.step) {
            self.first_seen.get_or_insert(at);
            self.last_seen = Some(at);
            self.address = event.subject.address.or(self.address);
        }
        if let Some(begun) = Journey::begun(self.journey.as_deref(), event, at) {
            self.journey = Some(Box::new(begun));
        }
        self.chain.apply(event, at);
        let had_all = self.has_all();
        if let Some(journey) = &mut self.journey {
            journey.apply(event, at);
        }
        match &event.step {
            Step::Offered { arch, stage, .. } => {
                self.arch = arch.or(self.arch);
                match stage {
                    Stage::Pxe | Stage::HttpBoot => self.ladder.start(*arch),
                    Stage::Ipxe => {}
                }
            }
            Step::ScriptServed { starts, client, .. } => {
                self.client = Some(client.clone());
                self.come_to_script();
                match starts {
                    Starts::Disk(_) => self.send_to_disk(at),
                    Starts::Boot(_) => self.begin(),
                    Starts::Menu | Starts::Question => {}
                }
            }
            Step::WaitServed { client, .. } => {
                self.client = Some(client.clone());
                self.come_to_script();
            }
            Step::LeftToItsDisk { .. } => self.send_to_disk(at),
            Step::ImageSent { .. } if !had_all && self.has_all() => self.complete(at),
            Step::Stopped { verdict } => self.stop(verdict, at),
            Step::Armed { profile, times } => {
                self.orders.is_disarmed = false;
                self.orders.disk_failed = None;
                self.expect_back();
                self.orders.armed =
                    Some(orders::Arming { since: at, profile: profile.clone(), times: *times });
            }
            Step::Disarmed {} => {
                self.orders.armed = None;
                self.orders.is_disarmed = true;
            }
            Step::Acknowledged { .. }
            | Step::Advised { .. }
            | Step::Leased { .. }
            | Step::Probed { .. }
            | Step::ScriptShown { .. }
            | Step::NbpSent { .. }
            | Step::AutoexecSent { .. }
            | Step::CompanionSent { .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. } => {}
        }
    }

    fn has_all(&self) -> bool {
        self.journey.as_ref().is_some_and(|journey| journey.reached == Reached::All)
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

    /// Its script boots something.
    fn begin(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.orders = Some(self.orders.clone());
        }
    }

    /// It had all that it needs, and its kernel did not start: nothing is completed after all.
    fn undo(&mut self) {
        if let Some(journey) = &mut self.journey {
            journey.undo();
            if let Some(before) = &journey.orders {
                self.orders = self.orders.resumed(before);
                self.boots = self.boots.saturating_sub(1);
            }
        }
    }

    /// It has all that it needs.
    fn complete(&mut self, at: Time) {
        let Some(journey) = &self.journey else {
            return;
        };
        if let (Some(boot), Some(before)) = (&journey.boot, &journey.orders) {
            self.orders.complete(boot, before, at);
        }
        self.boots += 1;
        self.failures = 0;
        self.verdict = None;
        self.at_disk.clear();
    }

    fn send_to_disk(&mut self, at: Time) {
        self.forgive();
        let Some((start, is_silent)) = self
            .journey
            .as_ref()
            .and_then(|journey| Some((journey.start?, journey.to_disk == Some(LocalBoot::Silent))))
        else {
            return;
        };
        let is_it = |sent: &AtDisk| (sent.start.mac, sent.start.stage) == (start.mac, start.stage);
        self.at_disk.retain(|sent| !is_it(sent));
        if self.at_disk.len() == MOST_CARDS {
            self.at_disk.remove(0);
        }
        self.at_disk.push(AtDisk { start, is_silent, at });
    }

    /// What came to nothing before is over, unless it is that disk.
    fn forgive(&mut self) {
        if self.verdict.as_ref().is_some_and(|verdict| verdict.reached != Reached::Disk) {
            self.failures = 0;
            self.verdict = None;
        }
    }

    fn stop(&mut self, verdict: &Verdict, at: Time) {
        self.failures = self.failures.saturating_add(1);
        self.verdict = Some(Box::new(verdict.clone()));
        if verdict.rule == verdict::KERNEL_DOES_NOT_START {
            self.undo();
        }
        if verdict.reached == Reached::Disk {
            self.orders.disk_failed = Some(at);
            self.at_disk.clear();
        }
        let is_firmware = self
            .journey
            .as_ref()
            .is_some_and(|journey| journey.start.is_none_or(|start| start.stage != Stage::Ipxe));
        // Who has booted so takes our offers: that it gets no address is another's fault.
        let is_ours = verdict.rule != verdict::NO_LEASE || self.ladder.worked.is_none();
        if is_firmware && is_ours && !verdict.reached.is_scripted() {
            self.ladder.fail(verdict.reached);
        }
    }

    /// Somebody has ordered that it boots anew: that it comes back from its disk shows nothing.
    fn expect_back(&mut self) {
        self.at_disk.clear();
        let at_disk = self.journey.as_mut().filter(|journey| journey.reached == Reached::Disk);
        if let Some(journey) = at_disk {
            journey.is_told = true;
        }
    }

    fn sent_to_disk(&self, start: Start, now: Time) -> Option<&AtDisk> {
        self.at_disk.iter().find(|sent| sent.is_back(start, now))
    }

    /// The orders that hold for who asks now; at DHCP it is known what has started.
    pub fn orders(&self, start: Option<(Mac, Stage, u32)>, now: SystemTime) -> Orders {
        let now = Time::from(now);
        let mut orders = self.orders.clone();
        match start {
            Some((mac, stage, xid)) => {
                if self.sent_to_disk(Start { mac, stage, xid }, now).is_some() {
                    orders.disk_failed = Some(now);
                }
            }
            None => {
                if self.journey.as_ref().is_some_and(|journey| journey.is_back_unseen(now)) {
                    orders.disk_failed = Some(now);
                }
            }
        }
        orders
    }

    /// The orders under which the boot that is under way was begun: what it fetches later, as an installer
    /// its answers, is of that boot, though it counts as completed by then.
    pub fn orders_under_way(&self) -> Orders {
        let begun = self.journey.as_ref().and_then(|journey| journey.orders.clone());
        begun.unwrap_or_default()
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
    pub fn loops_with(&self, now: SystemTime) -> Option<&str> {
        self.chain.loops_with(now.into())
    }
}

/// Whether an event is something that the machine did, and not we.
fn is_of_the_machine(step: &Step) -> bool {
    match step {
        Step::Stopped { .. }
        | Step::Armed { .. }
        | Step::Disarmed {}
        | Step::ScriptShown { .. } => false,
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
