//! What is remembered about a machine because it decides the machine's next boot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, SystemTime};

use super::Arch;
use super::client::{Client, Stage};
use super::event::{Event, Offer, Step};

/// How long after an NBP was fetched the next iPXE to ask is taken for that NBP and not for the
/// card's own. A real one needs a few seconds; 2 minutes allow for a slow option ROM and a link
/// that spanning tree keeps shut for 50 seconds.
const NBP_IS_STARTING: Duration = Duration::from_mins(2);

/// In how many DHCP transactions an iPXE is offered an NBP before it gets its script all the same.
/// Which machine fetched a file over TFTP is known from the lease that it was seen to take; where that
/// is not seen (a relay, a switch that snoops), this ends the loop. One transaction may well have many
/// DISCOVERs, where router and rack start together; each turn of a loop begins a new one.
const MOST_TRANSACTIONS: u32 = 3;

/// How often a machine may fetch an NBP within [`LOOPING`] without its script. An NBP that leads back
/// to itself takes 2.5 to 3 seconds a turn (seen with iPXE); no server gets through its self-test
/// three times in a minute.
const MOST_FETCHES: usize = 3;
/// See [`MOST_FETCHES`]. It is also how long a machine that loops is not served.
const LOOPING: Duration = Duration::from_mins(1);

/// The facts that decide a machine's next boot. Only [`MachineState::apply`] changes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    /// The NBP that was fetched last.
    nbp: String,
    /// When it was fetched without a script after it, the last time last, no more than [`MOST_FETCHES`].
    fetched: Vec<SystemTime>,
    /// Whether it was shown the way to its script.
    was_led: bool,
    nbp_offered: Option<SystemTime>,
    last_xid: Option<u32>,
    transactions: u32,
    arch: Option<Arch>,
    client: Option<Box<Client>>,
}

impl MachineState {
    /// Takes up what happened at `at`.
    pub fn apply(&mut self, event: &Event, at: SystemTime) {
        match &event.step {
            Step::NbpSent { file, .. } => {
                // An address alone is no machine, somebody may try TFTP from there by hand; unless it
                // comes back from where it was led to.
                let is_machine = event.subject.mac.is_some() || self.was_led;
                if self.nbp != *file || !is_machine {
                    self.nbp.clone_from(file);
                    self.fetched.clear();
                }
                if self.fetched.len() == MOST_FETCHES {
                    self.fetched.remove(0);
                }
                self.fetched.push(at);
                self.was_led = false;
            }
            Step::AutoexecSent { .. } => self.was_led = true,
            // The NBP has done its work; the next iPXE to ask comes from a new power-on.
            Step::ScriptServed { client, .. } | Step::WaitServed { client, .. } => {
                *self = Self { arch: self.arch, client: Some(client.clone()), ..Self::default() };
            }
            Step::Offered { stage: Stage::Ipxe, what: Offer::Nbp, xid, arch, .. } => {
                self.arch = arch.or(self.arch);
                let before = if self.was_offered_an_nbp(at) { self.transactions } else { 0 };
                let is_new = before == 0 || self.last_xid != Some(*xid);
                self.transactions = before + u32::from(is_new);
                self.last_xid = Some(*xid);
                self.nbp_offered = Some(at);
            }
            Step::Offered { arch, .. } => self.arch = arch.or(self.arch),
            Step::Acknowledged { .. }
            | Step::Advised { .. }
            | Step::Leased { .. }
            | Step::Probed { .. }
            | Step::CompanionSent { .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. } => {}
        }
    }

    /// What the machine's firmware is, as DHCP told it last.
    pub fn arch(&self) -> Option<Arch> {
        self.arch
    }

    /// Whom the last script was for, with what iPXE told of the machine: what fetches the machine's own
    /// files later tells nothing of itself.
    pub fn client(&self) -> Option<&Client> {
        self.client.as_deref()
    }

    /// Of a machine that has just fetched an NBP, of whatever name.
    pub fn of_a_running_nbp(now: SystemTime) -> Self {
        Self { fetched: vec![now], ..Self::default() }
    }

    /// Whether the iPXE that asks now must be the NBP that was fetched a moment ago.
    pub fn runs_our_nbp(&self, now: SystemTime) -> bool {
        let in_vain = self.transactions >= MOST_TRANSACTIONS && self.was_offered_an_nbp(now);
        self.starting(now).is_some() || in_vain
    }

    /// Whether who asks for the NBP `name` now must be that NBP itself: it was fetched a moment ago,
    /// and was not yet shown the way to its script.
    pub fn is_run_by(&self, name: &str, now: SystemTime) -> bool {
        self.starting(now) == Some(name) && !self.was_led
    }

    /// The NBP that is fetched again and again, without a script.
    pub fn loops_with(&self, now: SystemTime) -> Option<&str> {
        let [first, .., last] = self.fetched.as_slice() else {
            return None;
        };
        let many = self.fetched.len() == MOST_FETCHES && is_within(LOOPING, *first, *last);
        (many && is_within(LOOPING, *last, now)).then_some(&self.nbp)
    }

    fn starting(&self, now: SystemTime) -> Option<&str> {
        let at = self.fetched.last()?;
        is_within(NBP_IS_STARTING, *at, now).then_some(&self.nbp)
    }

    fn was_offered_an_nbp(&self, now: SystemTime) -> bool {
        self.nbp_offered.is_some_and(|at| is_within(NBP_IS_STARTING, at, now))
    }
}

fn is_within(time: Duration, at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).is_ok_and(|passed| passed < time)
}

#[cfg(test)]
mod tests {
    use super::super::Mac;
    use super::super::event::{Sent, Subject, Transport};
    use super::*;

    fn after(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn state(steps: &[(u64, Step)]) -> MachineState {
        let mac = Some(Mac::new([2, 0, 0, 0, 0, 1]));
        state_of(&Subject { mac, ..Subject::default() }, steps)
    }

    fn state_of(subject: &Subject, steps: &[(u64, Step)]) -> MachineState {
        let mut state = MachineState::default();
        for (second, step) in steps {
            let event = Event { subject: subject.clone(), step: step.clone() };
            state.apply(&event, after(*second));
        }
        state
    }

    fn sent() -> Sent {
        Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http }
    }

    fn fetched(name: &str) -> Step {
        Step::NbpSent { file: name.into(), sent: sent() }
    }

    fn autoexec() -> Step {
        Step::AutoexecSent { file: "autoexec.ipxe".into(), sent: sent() }
    }

    fn script() -> Step {
        Step::ScriptServed {
            does: "boot".into(),
            client: Box::new(Client::at(Stage::Ipxe)),
            sent: sent(),
        }
    }

    #[test]
    fn three_fetches_in_a_minute_without_a_script_are_a_loop_for_a_minute() {
        let nbp = || fetched("undionly.kpxe");
        let two = state(&[(0, nbp()), (3, nbp())]);
        assert_eq!(two.loops_with(after(4)), None);
        let three = state(&[(0, nbp()), (3, nbp()), (6, nbp())]);
        assert_eq!(three.loops_with(after(7)), Some("undionly.kpxe"));
        assert_eq!(three.loops_with(after(65)), Some("undionly.kpxe"));
        assert_eq!(three.loops_with(after(66)), None, "it may try again");
        let nobody = Subject::default();
        let by_hand = [(0, nbp()), (3, nbp()), (6, nbp())];
        assert_eq!(state_of(&nobody, &by_hand).loops_with(after(7)), None);
        let back = [(0, nbp()), (1, autoexec()), (3, nbp()), (4, autoexec()), (6, nbp())];
        assert_eq!(state_of(&nobody, &back).loops_with(after(7)), Some("undionly.kpxe"));
        let other = state(&[(0, nbp()), (3, fetched("ipxe.pxe")), (6, nbp())]);
        assert_eq!(other.loops_with(after(7)), None);
        let slow = state(&[(0, nbp()), (40, nbp()), (60, nbp())]);
        assert_eq!(slow.loops_with(after(61)), None);
        let booted = state(&[(0, nbp()), (3, nbp()), (4, script()), (6, nbp())]);
        assert_eq!(booted.loops_with(after(7)), None);
        let led = state(&[(0, nbp()), (3, nbp()), (4, autoexec()), (6, nbp())]);
        assert_eq!(led.loops_with(after(7)), Some("undionly.kpxe"), "it was led in vain");
    }

    #[test]
    fn who_fetches_the_same_nbp_again_is_that_nbp_once() {
        let steps = [(0, fetched("snponly.efi")), (5, autoexec())];
        let running = state(&steps[..1]);
        assert!(running.is_run_by("snponly.efi", after(4)));
        assert!(!running.is_run_by("undionly.kpxe", after(4)));
        assert!(!running.is_run_by("snponly.efi", after(120)));
        assert!(!state(&steps).is_run_by("snponly.efi", after(6)), "a reset on the way");
    }
}
