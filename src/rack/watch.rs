//! The invariants, checked after each step of the server against what has really happened, and which effects
//! were seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::server::Server;
use super::site::{MACHINES, SECRET, SPECS, card, holder, is_of};
use crate::pure::client::boot_id::BootId;
use crate::pure::event::boot::{Starts, Step, Subject};
use crate::pure::machine::evidence::{Effect, Neighbour};
use crate::pure::machine::orders::{Arming, Orders};
use crate::pure::machine::state::MachineState;
use crate::server::machine_script::Does;

/// Who has caused a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Machine(usize),
    /// A user of the system that a machine runs.
    Tool(usize),
    Neighbour,
    Operator(usize),
    /// The server itself: it looks for stalled boots.
    Server,
}

/// What the server did.
#[derive(Clone, Debug)]
pub(super) enum Did<'a> {
    /// It answered a datagram.
    Dhcp,
    /// It answered a request for a script, an answer file, an NBP or a part of an image.
    Answered,
    /// It answered a script request that reports a kernel that does not start.
    AnsweredKernelFailed,
    /// It recorded that something has arrived.
    Recorded(&'a Step, Option<BootId>),
    /// It applied an order, of so many boots.
    Ordered(u32),
    Looked,
    Restarted,
}

/// Whether the neighbour keeps to his limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// He answers no DHCP and claims nobody's address.
    Limited,
    /// He does both; only the safety of disks, orders and secrets must hold.
    Spoofing,
}

/// The invariants.
#[derive(Debug)]
pub(super) struct Watch {
    mode: Mode,
    subjects: Vec<Subject>,
    last: Vec<Arc<MachineState>>,
    /// The parts of its image that a boot's machine has received, by the boot's id.
    received: BTreeMap<String, BTreeSet<String>>,
    /// The order that a boot was begun under.
    begun: BTreeMap<String, Option<Arming>>,
    /// Every id that a machine was given.
    ids: BTreeSet<String>,
    /// How many installations were counted, and how many boots were ordered.
    installed: [u32; MACHINES],
    ordered: [u32; MACHINES],
    pub(super) covered: [u64; Effect::ALL.len()],
}

impl Watch {
    pub(super) fn new(mode: Mode) -> Self {
        let subject = |(number, spec): (usize, &super::site::Spec)| Subject {
            mac: Some(card(number, 0)),
            name: spec.profile.map(|_| spec.name.to_owned()),
            address: None,
        };
        Self {
            mode,
            subjects: SPECS.iter().enumerate().map(subject).collect(),
            last: vec![Arc::default(); MACHINES],
            received: BTreeMap::new(),
            begun: BTreeMap::new(),
            ids: BTreeSet::new(),
            installed: [0; MACHINES],
            ordered: [0; MACHINES],
            covered: [0; Effect::ALL.len()],
        }
    }

    /// The state that a machine had when it was checked last.
    pub(super) fn state(&self, machine: usize) -> &MachineState {
        &self.last[machine]
    }

    /// Whom the registry knows the machine as.
    pub(super) fn subject(&self, machine: usize) -> &Subject {
        &self.subjects[machine]
    }

    pub(super) fn cover(&mut self, effect: Effect) {
        let at = Effect::ALL.iter().position(|known| *known == effect);
        self.covered[at.expect("it is one of all")] += 1;
    }

    /// Notes that a machine has received a part of its image.
    pub(super) fn receive(&mut self, id: BootId, part: &str) {
        self.received.entry(id.digits()).or_default().insert(part.to_owned());
    }

    /// Checks that an answer holds nothing that only a machine may have.
    pub(super) fn check_leak(&self, text: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(text);
        if text.contains(SECRET) {
            return Err("a secret went to the neighbour".to_owned());
        }
        if !["id=", "boot-", "/files/"].iter().any(|mark| text.contains(mark)) {
            return Ok(());
        }
        let words = text.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 32);
        match words.into_iter().find(|word| self.ids.contains(*word)) {
            Some(_) => Err("the id of a machine's boot went to the neighbour".to_owned()),
            None => Ok(()),
        }
    }

    /// Checks that a script may be given to who asks for it.
    pub(super) fn check_grant(
        &self,
        by: By,
        machine: Option<usize>,
        does: &Does,
    ) -> Result<(), String> {
        let Does::Boot { starts: Starts::Boot(boot), .. } = does else {
            return Ok(());
        };
        if boot.profile != "install" {
            return Ok(());
        }
        let Some(machine) = machine else {
            return Err("a machine that is not in the config got a profile that wipes".to_owned());
        };
        if self.mode == Mode::Limited && by != By::Machine(machine) && by != By::Tool(machine) {
            return Err(format!("{by:?} got the script of {} that wipes", SPECS[machine].name));
        }
        let Orders { armed, completed, .. } = &self.last[machine].orders;
        if armed.is_none() && completed.is_some() {
            let name = SPECS[machine].name;
            return Err(format!(
                "{name} is to be wiped without an order, and its first boot is over"
            ));
        }
        Ok(())
    }

    /// Checks what has become of a machine.
    pub(super) fn check(
        &mut self,
        server: &Server,
        machine: usize,
        (by, did): (By, &Did<'_>),
    ) -> Result<(), String> {
        let after = server.registry.state(&self.subjects[machine]);
        if Arc::ptr_eq(&after, &self.last[machine]) {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.last[machine], Arc::clone(&after));
        let checked = match did {
            Did::Restarted => self.check_restart(machine, (&before.orders, &after.orders)),
            Did::Dhcp
            | Did::Answered
            | Did::AnsweredKernelFailed
            | Did::Recorded(..)
            | Did::Ordered(_)
            | Did::Looked => self.check_change(machine, (&before, &after), (by, did)),
        };
        checked.map_err(|what| format!("{}: {what}, by {by:?}: {did:?}", SPECS[machine].name))
    }

    fn check_change(
        &mut self,
        machine: usize,
        (before, after): (&MachineState, &MachineState),
        (by, did): (By, &Did<'_>),
    ) -> Result<(), String> {
        let is_own = by == By::Machine(machine);
        let is_at_it = is_own || by == By::Tool(machine);
        let is_limited = self.mode == Mode::Limited;
        if let Did::Recorded(Step::ScriptServed { .. }, Some(id)) = did {
            self.begun.insert(id.digits(), after.orders.armed.clone());
        }
        self.check_orders(machine, (&before.orders, &after.orders), (by, did))?;
        let opened = |state: &MachineState| state.open.as_ref().map(|open| open.id);
        if opened(before) != opened(after) {
            if !is_at_it && is_limited {
                return Err("a boot was opened by another".to_owned());
            }
            if let Some(open) = &after.open {
                self.ids.extend([open.id.digits(), open.file_id.digits()]);
            }
            self.cover(Effect::OpenBoot);
        }
        let granted = |state: &MachineState| -> Vec<String> {
            let grants = serde_json::to_value(&state.files).expect("they are written");
            let ids = grants.as_array().into_iter().flatten();
            ids.map(|grant| grant["file_id"].to_string()).collect()
        };
        if before.files != after.files
            && granted(before) != granted(after)
            && !(is_at_it && matches!(did, Did::Recorded(..)))
        {
            return Err("answer files were granted without a script".to_owned());
        }
        if before.client != after.client {
            if !(is_at_it && matches!(did, Did::Recorded(..))) {
                return Err("facts were learnt from another".to_owned());
            }
            self.cover(Effect::LearnFacts);
        }
        if before.address != after.address {
            // Behind a router the machine at an address is the one that DHCP named last, whoever asked there.
            let is_its = after.address.is_none_or(|address| {
                is_of(address, machine) || holder(address) == Neighbour::OffLink
            });
            if !is_its && is_limited {
                return Err(format!("{:?} was learnt as its address", after.address));
            }
            self.cover(Effect::LearnAddress);
        }
        if before.last_seen != after.last_seen {
            self.cover(Effect::MarkSeen);
        }
        if before.confirmed != after.confirmed {
            return Err("a card was confirmed without the operator".to_owned());
        }
        if before.alarm != after.alarm && is_limited {
            return Err("an alarm was raised, and nobody has an id".to_owned());
        }
        if let Did::Recorded(Step::NbpSent { .. }, _) = did {
            let is_off_link = after.address.is_some_and(|at| holder(at) == Neighbour::OffLink);
            if !is_at_it && !is_off_link && is_limited {
                return Err("a fetch by another was counted for the loop guard".to_owned());
            }
            self.cover(Effect::CountNbpFetch);
        }
        self.check_ladder((before, after), by)
    }

    fn check_ladder(
        &mut self,
        (before, after): (&MachineState, &MachineState),
        by: By,
    ) -> Result<(), String> {
        if before.ladder == after.ladder {
            return Ok(());
        }
        let [was, is] = [before, after].map(|state| {
            serde_json::to_value(&state.ladder).expect("a ladder is written to the registry")
        });
        let is_climbed = was["nbps"] != is["nbps"];
        let is_turned = was["modes"] != is["modes"];
        let is_first = before.ladder.worked.is_none();
        let is_changed = |key: &str| was[key] != is[key];
        if by == By::Neighbour && self.mode == Mode::Limited {
            // That a boot has failed may be suspected by a claim; what counts may not change.
            if ["worked", "arch", "nbps"].iter().any(|key| is_changed(key))
                || is_turned && !is_first
            {
                return Err(format!("a claim changed the NBP: {was} became {is}"));
            }
        }
        if is_climbed || is_turned && !is_first {
            self.cover(Effect::ClimbNbp);
        } else if is_turned {
            self.cover(Effect::ClimbOption43);
        }
        Ok(())
    }

    fn check_orders(
        &mut self,
        machine: usize,
        (before, after): (&Orders, &Orders),
        (by, did): (By, &Did<'_>),
    ) -> Result<(), String> {
        if before == after {
            return Ok(());
        }
        if by == By::Operator(machine) {
            if before.completed != after.completed {
                return Err("an order has changed what was completed".to_owned());
            }
            if let Did::Ordered(times) = did {
                self.ordered[machine] += times;
            }
            self.cover(Effect::Order);
            return Ok(());
        }
        let word = |orders: &Orders| (orders.is_kept_on_disk, orders.is_withdrawn);
        if word(before) != word(after) {
            return Err("the operator's word was changed without him".to_owned());
        }
        let is_own = by == By::Machine(machine);
        let fetched = match did {
            Did::Recorded(Step::ImageSent { file, .. }, Some(id)) if is_own => {
                Some((id.digits(), file.as_str()))
            }
            Did::Recorded(..)
            | Did::Dhcp
            | Did::Answered
            | Did::AnsweredKernelFailed
            | Did::Ordered(_)
            | Did::Looked
            | Did::Restarted => None,
        };
        let has_all = |(id, file): &(String, &str)| {
            let image = file.split('/').next().unwrap_or_default();
            let parts = ["kernel", "initrd"].map(|part| format!("{image}/{part}"));
            let received = self.received.get(id);
            received.is_some_and(|received| parts.iter().all(|part| received.contains(part)))
        };
        let id = fetched.filter(has_all).map(|(id, _)| id);
        let is_complete = id.is_some();
        if before.completed != after.completed || before.armed != after.armed {
            match id {
                Some(id) => self.complete(machine, (before, after), &id)?,
                None if is_own && matches!(did, Did::AnsweredKernelFailed) => {
                    self.undo(machine, (before, after));
                }
                None => return Err(format!("{before:?} became {after:?}")),
            }
        }
        let is_failure = after.disk_failed.is_some() && before.disk_failed != after.disk_failed
            || after.held.is_some() && before.held != after.held;
        if is_failure && !is_complete {
            let is_at_it = is_own || by == By::Tool(machine);
            if !is_at_it && self.mode == Mode::Limited {
                return Err("its disk was reported as failed by another".to_owned());
            }
            self.cover(Effect::ReportDiskFailure);
        }
        Ok(())
    }

    /// A boot has received all that it boots.
    fn complete(
        &mut self,
        machine: usize,
        (before, after): (&Orders, &Orders),
        id: &str,
    ) -> Result<(), String> {
        self.cover(Effect::CompleteBoot);
        if before.completed != after.completed {
            let Some(completed) = &after.completed else {
                return Err("a completed boot is not completed any more".to_owned());
            };
            self.installed[machine] += u32::from(completed.profile == "install");
        }
        if self.installed[machine] > 1 + self.ordered[machine] {
            return Err(format!("it was wiped {} times", self.installed[machine]));
        }
        let begun = self.begun.get(id).and_then(Option::as_ref);
        // An order for another profile that came between the answer and its arrival is for the next boot.
        let is_another = |armed: &Arming| {
            let completed =
                after.completed.as_ref().filter(|_| before.completed != after.completed);
            let ordered = armed.profile.as_ref();
            ordered.zip(completed).is_some_and(|(ordered, done)| *ordered != done.profile)
        };
        let is_its = |armed: &&Arming| {
            begun.is_some_and(|begun| begun.since == armed.since) && !is_another(armed)
        };
        let expected = match before.armed.as_ref().filter(is_its) {
            Some(armed) => Some(Arming { times: armed.times - 1, ..armed.clone() }),
            None => before.armed.clone(),
        };
        if after.armed != expected.filter(|armed| armed.times > 0) {
            return Err(format!("an order was used wrongly: {before:?} became {after:?}"));
        }
        if before.armed != after.armed {
            self.cover(Effect::UseOrder);
        }
        Ok(())
    }

    /// The kernel of a completed boot has not started.
    fn undo(&mut self, machine: usize, (before, after): (&Orders, &Orders)) {
        self.cover(Effect::UndoCompletion);
        let is_install = |orders: &Orders| {
            orders.completed.as_ref().is_some_and(|completed| completed.profile == "install")
        };
        if before.completed != after.completed && is_install(before) {
            self.installed[machine] = self.installed[machine].saturating_sub(1);
        }
    }

    /// Checks what a machine is after a restart of the server: what was on the disk is there.
    fn check_restart(
        &mut self,
        machine: usize,
        (before, after): (&Orders, &Orders),
    ) -> Result<(), String> {
        // That a kernel did not start may be forgotten, and then the boot counts after all.
        let is_recounted = after.completed.is_some() && before.completed != after.completed;
        let is_install = after.completed.as_ref().is_some_and(|done| done.profile == "install");
        self.installed[machine] += u32::from(is_recounted && is_install);
        if before.completed.is_some() && after.completed.is_none() {
            return Err("a completed boot was forgotten".to_owned());
        }
        if before.armed != after.armed && !is_recounted {
            return Err("an order was lost, or came back".to_owned());
        }
        let word = |orders: &Orders| (orders.is_kept_on_disk, orders.is_withdrawn);
        if word(before) != word(after) {
            return Err("the operator's word was forgotten".to_owned());
        }
        Ok(())
    }
}
