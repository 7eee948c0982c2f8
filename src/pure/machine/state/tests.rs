use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::pure::catalog::settings::{BootPolicy, LocalBoot, OnDiskFailure};
use crate::pure::event::boot::{Boot, Break, File, Offer, Sent, Subject, Transport};
use crate::pure::machine::evidence::{Neighbour, Sender};
use crate::pure::machine::orders::{Because, Stakes};

mod ordered;

const FIRST: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const SECOND: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
/// A profile that erases nothing.
const HARMLESS: Stakes = Stakes { wipes: false, on_disk_failure: OnDiskFailure::Boot };
/// An installer.
const INSTALLER: Stakes = Stakes { wipes: true, on_disk_failure: OnDiskFailure::Hold };

fn after(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A machine as the registry keeps it: what has ended before an event is taken up first.
struct Machine {
    state: MachineState,
    /// The verdicts, by their rules.
    stopped: Vec<String>,
    card: Mac,
    now: u64,
    xid: u32,
    policy: BootPolicy,
    stakes: Stakes,
    /// Whether its DHCP is seen.
    sees_dhcp: bool,
    is_forgeable: bool,
    /// The id of its open boot.
    id: Option<BootId>,
    ids: u8,
}

impl Machine {
    fn new(policy: BootPolicy) -> Self {
        let state = MachineState::default();
        Self {
            state,
            stopped: Vec::new(),
            card: FIRST,
            now: 1000,
            xid: 0,
            policy,
            stakes: HARMLESS,
            sees_dhcp: true,
            is_forgeable: false,
            id: None,
            ids: 0,
        }
    }

    fn take(&mut self, step: Step) {
        self.take_in(step, self.id);
    }

    fn take_in(&mut self, step: Step, id: Option<BootId>) {
        let subject =
            Subject { mac: Some(self.card), address: Some(ADDRESS), ..Subject::default() };
        let event = Event { subject: subject.clone(), step };
        let now = after(self.now);
        if let Some(step) = self.state.ends(&event, now) {
            self.stop(&step);
            self.state.apply(&Event { subject: subject.clone(), step }, None, now);
        }
        self.state.apply(&event, id, now);
    }

    fn stop(&mut self, step: &Step) {
        if let Step::Stopped { verdict } = step {
            self.stopped.push(verdict.rule.to_string());
        }
    }

    /// Lets time pass; what has stalled is told, as every few seconds.
    fn wait(&mut self, seconds: u64) -> &mut Self {
        for _ in 0..seconds {
            self.now += 1;
            if let Some(step) = self.state.stalls(after(self.now)) {
                self.stop(&step);
                self.take(step);
            }
        }
        self
    }

    fn because(&self, start: Option<(Mac, Stage, u32)>) -> Because {
        self.state.orders(start, after(self.now)).because(self.policy, "talos", self.stakes)
    }

    /// The firmware asks DHCP, a few times: who is left to its disk by silence is told nothing.
    fn discover(&mut self, stage: Stage, method: LocalBoot) -> Because {
        self.xid += 1;
        let because = self.because(Some((self.card, stage, self.xid)));
        self.repeat(stage, method);
        because
    }

    fn repeat(&mut self, stage: Stage, method: LocalBoot) {
        let xid = self.xid;
        let because = self.because(Some((self.card, stage, xid)));
        let is_answered_again =
            self.state.orders(Some((self.card, stage, xid)), after(self.now)).asks_again;
        if method == LocalBoot::Silent && !because.is_network() && !is_answered_again {
            let at = Some((stage, xid));
            return self.take(Step::LeftToItsDisk { method, at, reason: because.to_string() });
        }
        let is_ipxe = stage == Stage::Ipxe;
        self.take(Step::Offered {
            arch: Some(Arch::UefiX64),
            stage,
            what: if is_ipxe { Offer::Script } else { Offer::Nbp },
            xid,
            boot_file: "snponly.efi".into(),
            option_43: Some(self.state.option_43()),
            interface: "eth0".into(),
            relay: None,
        });
    }

    /// From its power-on to its script; whether that is the network's.
    fn power_on(&mut self) -> Because {
        self.id = None;
        self.discover(Stage::Pxe, LocalBoot::Exit);
        self.take(lease());
        self.load()
    }

    /// From its offer to its script.
    fn load(&mut self) -> Because {
        self.wait(4).take(nbp("snponly.efi"));
        self.wait(4).discover(Stage::Ipxe, LocalBoot::Exit);
        self.take(lease());
        self.wait(1).script()
    }

    /// Asks for its script, in its boot if one is open.
    fn admit(&mut self) -> Result<Part, Doubt> {
        let sender = Sender {
            address: ADDRESS,
            neighbour: Neighbour::Card(self.card),
            claimed: self.card,
            cards: &[FIRST, SECOND],
            subnets: &[],
        };
        let (id, sees_dhcp) = (self.id, self.sees_dhcp);
        let is_forgeable = self.is_forgeable;
        let asking = Asking { sender, id, is_for_script: true, is_forgeable, sees_dhcp };
        let part = self.state.admit(asking, after(self.now))?;
        match part {
            Part::Continues | Part::Joins => self.state.hear(ADDRESS, after(self.now)),
            Part::Invites(card) => {
                let fresh = self.fresh_ids();
                let id = self.state.invite(fresh, (card, ADDRESS), after(self.now));
                return Err(Doubt::Forgeable(id));
            }
            Part::Opens(card) => {
                let returned = self.state.returns(card, after(self.now));
                let ids = self.state.invitation(self.id, (card, ADDRESS), after(self.now).into());
                let ids = ids.unwrap_or_else(|| self.fresh_ids());
                self.state.open(ids, (card, ADDRESS), after(self.now));
                if let Some(step) = returned {
                    self.stop(&step);
                    self.take_in(step, Some(ids.0));
                }
            }
        }
        self.id = self.state.open.as_ref().map(|open| open.id);
        Ok(part)
    }

    fn fresh_ids(&mut self) -> (BootId, BootId) {
        self.ids += 2;
        (BootId::new([self.ids; 16]), BootId::new([self.ids + 1; 16]))
    }

    fn script(&mut self) -> Because {
        self.wait(1).admit().expect("it is the machine, and it boots");
        let because = self.because(None);
        let starts = match because {
            _ if because.is_network() => self.boot(),
            Because::DiskAgain => Starts::DiskAgain(LocalBoot::Exit),
            Because::Held => Starts::Hold,
            _ => Starts::Disk(LocalBoot::Exit),
        };
        self.take(script(starts));
        because
    }

    fn boot(&self) -> Starts {
        Starts::Boot(Box::new(Boot {
            profile: "talos".into(),
            image: Some("talos".into()),
            initrds: 1,
            policy: self.policy,
            wipes: false,
        }))
    }

    fn fetch(&mut self, part: &str) {
        self.wait(2).take(Step::ImageSent { file: format!("talos/{part}"), sent: sent() });
    }

    fn fetch_all(&mut self) {
        self.fetch("kernel");
        self.fetch("initrd");
    }

    fn does_not_start(&mut self) {
        let step = self.state.kernel_failed().expect("it has all that it boots");
        self.stop(&step);
        self.take(step);
    }

    fn arm(&mut self, times: u32) {
        self.wait(1).take(Step::Armed { profile: None, times });
    }
}

fn sent() -> Sent {
    Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http }
}

fn nbp(name: &str) -> Step {
    let arch = if name.ends_with(".efi") { Arch::UefiX64 } else { Arch::Bios };
    Step::NbpSent { file: name.into(), arch, sent: sent() }
}

fn autoexec() -> Step {
    Step::AutoexecSent { file: "autoexec.ipxe".into(), sent: sent() }
}

fn script(starts: Starts) -> Step {
    let client = Box::new(Client::at(Stage::Ipxe));
    Step::ScriptServed { starts, does: "boot".into(), client, sent: sent() }
}

fn broken_off(kind: File) -> Step {
    let sent = Sent { bytes: 30, ..sent() };
    Step::BrokenOff { kind, file: "snponly.efi".into(), sent, of: 100, why: Break::Closed }
}

fn lease() -> Step {
    Step::Leased { server: None, relay: None }
}

fn offer() -> Step {
    Step::Offered {
        arch: Some(Arch::UefiX64),
        stage: Stage::Pxe,
        what: Offer::Nbp,
        xid: 77,
        boot_file: "snponly.efi".into(),
        option_43: None,
        interface: "eth0".into(),
        relay: None,
    }
}

#[test]
fn once_is_the_network_until_a_boot_has_all_that_it_needs_and_then_the_disk() {
    let mut machine = Machine::new(BootPolicy::Once);
    assert_eq!(machine.power_on(), Because::First);
    machine.fetch("kernel");
    assert_eq!(machine.wait(300).power_on(), Because::First, "a reset halfway");
    machine.fetch("initrd");
    assert_eq!(machine.wait(300).power_on(), Because::First, "an initrd without its kernel");
    machine.fetch_all();
    assert_eq!(machine.state.boots, 1);
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.wait(86_400).power_on(), Because::Done);
    assert_eq!(machine.state.boots, 1);
}

#[test]
fn an_arming_is_for_so_many_completed_boots_and_a_retry_or_a_reset_uses_none_up() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).arm(2);
    for _ in 0..2 {
        assert_eq!(machine.wait(600).power_on(), Because::Armed);
        assert_eq!(machine.script(), Because::Armed, "the script is fetched once more");
        machine.fetch("kernel");
        assert_eq!(machine.wait(600).power_on(), Because::Armed, "a reset halfway");
        machine.fetch_all();
        machine.fetch_all();
    }
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.state.boots, 3);
    machine.arm(1);
    machine.take(Step::KeptOnDisk {});
    assert_eq!(machine.wait(600).power_on(), Because::KeptOnDisk);
}

#[test]
fn what_is_ordered_while_a_boot_is_under_way_is_for_the_next_one() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch("kernel");
    machine.arm(1);
    machine.fetch("initrd");
    assert_eq!(machine.wait(600).power_on(), Because::Armed);
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
}

#[test]
fn a_kernel_that_does_not_start_is_no_boot() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(1);
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.state.boots, 1);
    // Its script says to ask again after a minute, and to say why.
    machine.wait(60).does_not_start();
    assert_eq!(machine.state.boots, 0);
    assert_eq!(machine.script(), Because::Armed);
    assert_eq!(machine.stopped, ["kernel-does-not-start"]);
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.state.boots, 1);
}

#[test]
fn a_script_that_is_fetched_again_after_its_boot_is_no_reason_to_boot_anew() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(2);
    machine.power_on();
    machine.fetch_all();
    machine.wait(5).script();
    assert_eq!(machine.state.boots, 1);
    assert_eq!(machine.state.orders.armed.as_ref().map(|armed| armed.times), Some(1));
    assert!(machine.state.kernel_failed().is_none(), "it has its script only");
}

#[test]
fn a_machine_that_is_sent_to_its_disk_while_its_kernel_does_not_start_stays_there() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(1);
    machine.power_on();
    machine.fetch_all();
    machine.take(Step::KeptOnDisk {});
    machine.wait(60).does_not_start();
    assert_eq!(machine.script(), Because::KeptOnDisk);
    assert_eq!(machine.state.orders.armed, None);
}

#[test]
fn a_profile_that_was_ordered_by_its_name_is_not_the_one_boot_of_a_machine_unless_it_is_to_boot_once()
 {
    let armed = |profile: Option<&str>| Orders {
        armed: Some(orders::Arming {
            since: Time::default(),
            profile: profile.map(str::to_owned),
            times: 1,
        }),
        ..Orders::default()
    };
    let next = |before: &Orders, profile: &str, policy| {
        let boot = Boot { profile: profile.into(), image: None, initrds: 0, policy, wipes: false };
        let mut orders = before.clone();
        orders.complete(&boot, before, Time::default());
        orders.because(BootPolicy::Once, "install", HARMLESS)
    };
    use BootPolicy::{Always, Once};
    assert_eq!(next(&armed(Some("rescue")), "rescue", Always), Because::First);
    // It was installed, if only from a menu that the machine is shown at each boot.
    let boot = Boot {
        profile: "other-installer".into(),
        image: None,
        initrds: 0,
        policy: Always,
        wipes: true,
    };
    let mut installed = Orders::default();
    installed.complete(&boot, &Orders::default(), Time::default());
    assert_eq!(installed.because(Once, "install", INSTALLER), Because::Done);
    let memtest = Boot { profile: "memtest".into(), wipes: false, ..boot.clone() };
    installed.complete(&memtest, &installed.clone(), Time::default());
    let talos = Boot { profile: "talos".into(), policy: Once, ..memtest };
    for boot in [None, Some(&talos)] {
        if let Some(boot) = boot {
            installed.complete(boot, &installed.clone(), Time::default());
        }
        assert_eq!(installed.because(Once, "install", INSTALLER), Because::Done, "{boot:?}");
    }
    assert_eq!(next(&armed(Some("debian")), "debian", Once), Because::Done);
    assert_eq!(next(&armed(Some("install")), "install", Once), Because::Done);
    assert_eq!(next(&armed(None), "install", Once), Because::Done);
    // What was ordered is not in the config for now.
    assert_eq!(next(&armed(Some("rescue")), "install", Once), Because::Armed);
}

#[test]
fn an_order_given_while_a_kernel_does_not_start_holds() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(30).arm(3);
    machine.wait(30).does_not_start();
    assert_eq!(machine.script(), Because::Armed);
    machine.fetch_all();
    assert_eq!(machine.state.orders.armed.as_ref().map(|armed| armed.times), Some(2));
    machine.take(Step::KeptOnDisk {});
    assert_eq!(machine.wait(600).power_on(), Because::KeptOnDisk);
}

#[test]
fn a_disk_that_does_not_boot_leads_back_to_the_network_and_one_that_does_stays() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.wait(60).power_on(), Because::DiskFailed);
    assert_eq!(machine.stopped, ["disk-does-not-boot"]);
    assert_eq!(machine.script(), Because::DiskFailed, "also the next fetch");
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.wait(181).power_on(), Because::Done, "it has run for three minutes");
}

#[test]
fn who_is_armed_and_started_anew_has_no_disk_that_failed() {
    for sees_dhcp in [true, false] {
        let mut machine = Machine::new(BootPolicy::Once);
        let boot = |machine: &mut Machine| match sees_dhcp {
            true => machine.power_on(),
            false => {
                machine.id = None;
                machine.script()
            }
        };
        machine.sees_dhcp = sees_dhcp;
        boot(&mut machine);
        machine.fetch_all();
        assert_eq!(boot(machine.wait(600)), Because::Done);
        machine.arm(1);
        assert_eq!(boot(machine.wait(40)), Because::Armed);
        assert!(machine.stopped.is_empty(), "{:?}", machine.stopped);
        machine.fetch_all();
        assert_eq!(boot(machine.wait(600)), Because::Done);
        assert_eq!(boot(machine.wait(60)), Because::DiskFailed, "as before");
    }
}

#[test]
fn the_second_card_of_a_machine_is_no_disk_that_failed() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    machine.card = SECOND;
    assert_eq!(machine.wait(10).power_on(), Because::Done);
    // UEFI has HTTP Boot behind PXE in its order.
    machine.wait(5);
    assert_eq!(machine.discover(Stage::HttpBoot, LocalBoot::Exit), Because::Done);
    assert!(machine.stopped.is_empty(), "{:?}", machine.stopped);
    machine.card = FIRST;
    assert_eq!(machine.wait(60).power_on(), Because::DiskFailed);
}

#[test]
fn two_cards_that_boot_at_once_complete_one_boot() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(2);
    machine.power_on();
    machine.fetch("kernel");
    machine.card = SECOND;
    machine.fetch("kernel");
    machine.card = FIRST;
    machine.fetch("initrd");
    machine.card = SECOND;
    machine.fetch("initrd");
    assert_eq!(machine.state.boots, 1);
    assert_eq!(machine.state.orders.armed.as_ref().map(|armed| armed.times), Some(1));
}

#[test]
fn silence_is_the_disk_as_long_as_firmware_asks_on_and_no_longer() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600);
    assert_eq!(machine.discover(Stage::Pxe, LocalBoot::Silent), Because::Done);
    for pause in [4, 8, 16, 32] {
        machine.wait(pause);
        let xid = Some((FIRST, Stage::Pxe, machine.xid));
        assert_eq!(machine.because(xid), Because::Done);
        machine.repeat(Stage::Pxe, LocalBoot::Silent);
    }
    // Some firmware has a transaction for each.
    for pause in [4, 8, 16, 32] {
        machine.wait(pause);
        assert_eq!(machine.discover(Stage::Pxe, LocalBoot::Silent), Because::Done);
    }
    // Then it is answered again, which any neighbour can bring about: its script sends it to its disk.
    machine.wait(60).id = None;
    assert_eq!(machine.discover(Stage::Pxe, LocalBoot::Silent), Because::Done);
    machine.take(lease());
    assert_eq!(machine.load(), Because::Done);
    assert!(machine.stopped.is_empty(), "{:?}", machine.stopped);
    // It comes back from there, and that counts.
    machine.wait(60).id = None;
    assert_eq!(machine.discover(Stage::Pxe, LocalBoot::Silent), Because::Done);
    machine.take(lease());
    assert_eq!(machine.load(), Because::DiskFailed);
    assert_eq!(machine.stopped, ["disk-does-not-boot"]);
    machine.fetch_all();
    machine.wait(600);
    assert_eq!(machine.discover(Stage::Pxe, LocalBoot::Silent), Because::Done);
}

#[test]
fn an_installer_holds_at_the_third_return_from_its_disk_and_never_starts_again() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.stakes = INSTALLER;
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    assert_eq!(machine.wait(60).power_on(), Because::DiskAgain, "the first return");
    assert_eq!(machine.wait(120).power_on(), Because::DiskAgain, "the second");
    assert_eq!(machine.wait(120).power_on(), Because::Held, "the third");
    assert_eq!(machine.wait(60).script(), Because::Held, "it asks on");
    assert_eq!(machine.wait(86_400).power_on(), Because::Held, "until the operator decides");
    machine.arm(1);
    assert_eq!(machine.wait(60).power_on(), Because::Armed);
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
}

#[test]
fn returns_that_are_long_ago_hold_nothing() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.stakes = INSTALLER;
    machine.power_on();
    machine.fetch_all();
    for _ in 0..5 {
        assert_eq!(machine.wait(700).power_on(), Because::Done);
        assert_eq!(machine.wait(60).power_on(), Because::DiskAgain);
    }
}

#[test]
fn an_installer_whose_ipxe_could_not_start_the_disk_holds_at_once() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.stakes = INSTALLER;
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).power_on();
    let step = machine.state.disk_failed().unwrap();
    machine.take(step);
    assert_eq!(machine.script(), Because::Held);
}

#[test]
fn an_installer_that_would_start_at_every_boot_holds() {
    let mut machine = Machine::new(BootPolicy::Always);
    machine.stakes = INSTALLER;
    assert_eq!(machine.power_on(), Because::WipesAlways);
    machine.arm(1);
    assert_eq!(machine.wait(600).power_on(), Because::Armed);
}

#[test]
fn after_the_registry_was_lost_only_what_erases_nothing_boots_by_itself() {
    let noticed = Time::from_millis(2000);
    let fault = Some(orders::RegistryFault::Lost(noticed));
    let lost = Orders { registry_fault: fault, ..Orders::default() };
    let because = |orders: &Orders, stakes| orders.because(BootPolicy::Once, "p", stakes);
    assert_eq!(because(&lost, INSTALLER), Because::StateLost);
    assert_eq!(because(&lost, HARMLESS), Because::First);
    let armed = |millis: u64| {
        let since = Time::from_millis(millis);
        let armed = Some(orders::Arming { since, profile: None, times: 1 });
        Orders { armed, ..lost.clone() }
    };
    assert_eq!(because(&armed(2000), INSTALLER), Because::Armed);
    let older = armed(1999);
    assert_eq!(because(&older, INSTALLER), Because::StateLost, "it may have been used up");
    assert_eq!(because(&older, HARMLESS), Because::Armed);
}

#[test]
fn while_the_registry_cannot_be_written_nothing_that_erases_a_disk_starts() {
    let fault = Some(orders::RegistryFault::Unwritable("the disk is full".into()));
    let unwritable = Orders { registry_fault: fault, ..Orders::default() };
    let because = |orders: &Orders, stakes| orders.because(BootPolicy::Once, "p", stakes);
    assert_eq!(because(&unwritable, INSTALLER), Because::RegistryUnwritable);
    assert_eq!(because(&unwritable, HARMLESS), Because::First);
    let since = Time::from_millis(u64::MAX);
    let armed = Some(orders::Arming { since, profile: None, times: 1 });
    let armed = Orders { armed, ..unwritable };
    assert_eq!(because(&armed, INSTALLER), Because::RegistryUnwritable, "it could be used twice");
    assert_eq!(because(&armed, HARMLESS), Because::Armed);
    assert_eq!(because(&Orders { registry_fault: None, ..armed }, INSTALLER), Because::Armed);
}

#[test]
fn requests_without_the_id_of_the_boot_complete_undo_and_report_nothing() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    let fetched = |part: &str| Step::ImageSent { file: format!("talos/{part}"), sent: sent() };
    for id in [None, Some(BootId::new([0xee; 16]))] {
        for part in ["kernel", "initrd"] {
            machine.take_in(fetched(part), id);
        }
    }
    assert_eq!((machine.state.boots, &machine.state.orders.completed), (0, &None));
    machine.fetch_all();
    assert_eq!(machine.state.boots, 1);
    let stopped = machine.state.kernel_failed().unwrap();
    machine.take_in(stopped.clone(), None);
    assert_eq!(machine.state.boots, 1, "nobody takes it back");
    machine.take(stopped);
    assert_eq!(machine.state.boots, 0, "but the machine");
    machine.fetch_all();
    machine.wait(600).power_on();
    let failed = machine.state.disk_failed().unwrap();
    machine.take_in(failed, None);
    assert_eq!(machine.script(), Because::Done);
}

#[test]
fn discovers_alone_never_lead_from_the_disk_to_the_network() {
    for stage in [Stage::Pxe, Stage::HttpBoot, Stage::Ipxe] {
        let mut machine = Machine::new(BootPolicy::Once);
        machine.power_on();
        machine.fetch_all();
        assert_eq!(machine.wait(600).power_on(), Because::Done);
        for _ in 0..50 {
            machine.wait(7).discover(stage, LocalBoot::Exit);
            machine.take(lease());
        }
        assert_eq!(machine.because(None), Because::Done);
        assert_eq!(machine.state.orders.disk_failed, None);
    }
}

#[test]
fn a_forged_start_amid_a_boot_does_not_keep_it_from_being_completed() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch("kernel");
    machine.discover(Stage::Pxe, LocalBoot::Exit);
    machine.take(lease());
    machine.fetch("initrd");
    assert_eq!(machine.state.boots, 1);
}

#[test]
fn a_boot_is_opened_by_its_machine_alone_and_closes_after_a_quarter_of_an_hour() {
    let mut machine = Machine::new(BootPolicy::Once);
    assert_eq!(machine.admit(), Err(Doubt::NotBooting));
    machine.discover(Stage::Pxe, LocalBoot::Exit);
    assert_eq!(machine.admit(), Err(Doubt::NotBooting), "it has taken no lease");
    machine.take(lease());
    assert_eq!(machine.admit(), Ok(Part::Opens(FIRST)));
    assert_eq!(machine.admit(), Ok(Part::Continues));
    let id = machine.id.take();
    assert_eq!(machine.admit(), Ok(Part::Joins), "the same start, in parallel");
    assert_eq!(machine.id, id);
    machine.wait(899);
    assert_eq!(machine.admit(), Ok(Part::Continues));
    machine.wait(900);
    assert_eq!(machine.admit(), Err(Doubt::NotBooting), "it is closed");
    machine.take(lease());
    assert_eq!(machine.admit(), Ok(Part::Opens(FIRST)));
    assert_ne!(machine.id, id);
    // A new start closes the one before.
    machine.wait(1).take(lease());
    machine.id = None;
    assert_eq!(machine.admit(), Ok(Part::Opens(FIRST)));
}

/// Anybody can send a datagram from the machine's address. What is sent back goes to the machine.
#[test]
fn a_request_whose_source_can_be_forged_opens_and_ends_no_boot_before_its_id_comes_back() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.discover(Stage::Pxe, LocalBoot::Exit);
    machine.take(lease());
    machine.is_forgeable = true;
    let Err(Doubt::Forgeable(id)) = machine.admit() else { panic!("it is invited") };
    assert!(machine.state.open.is_none());
    assert_eq!(machine.admit(), Err(Doubt::Forgeable(id)), "the same, however often it is forged");
    machine.wait(600).take(lease());
    machine.id = Some(id);
    let Err(Doubt::Forgeable(id)) = machine.admit() else { panic!("the first has expired") };
    machine.id = Some(id);
    assert_eq!(machine.admit(), Ok(Part::Opens(FIRST)));
    assert_eq!((machine.id, machine.admit()), (Some(id), Ok(Part::Continues)));
    machine.id = None;
    assert_eq!(machine.admit(), Err(Doubt::Forgeable(id)), "it may join");
    machine.wait(1).take(lease());
    let Err(Doubt::Forgeable(other)) = machine.admit() else { panic!("it is invited anew") };
    assert_ne!(other, id);
    machine.id = Some(id);
    assert_eq!(machine.admit(), Ok(Part::Continues), "its boot is still open");
}

#[test]
fn a_clock_that_is_set_by_years_amid_a_boot_neither_closes_it_nor_fails_a_disk() {
    for by in [50_000_000, -400_000] {
        let mut machine = Machine::new(BootPolicy::Once);
        machine.now = 1_000_000;
        let jump = |machine: &mut Machine| {
            machine.state.shift(1000 * by);
            machine.now = machine.now.saturating_add_signed(by);
        };
        machine.power_on();
        machine.fetch("kernel");
        jump(&mut machine);
        assert_eq!(machine.admit(), Ok(Part::Continues));
        machine.fetch("initrd");
        assert_eq!(machine.state.boots, 1);
        if by > 0 {
            assert_eq!(machine.wait(600).power_on(), Because::Done);
            machine.wait(100);
            jump(&mut machine);
            assert_eq!(machine.wait(100).power_on(), Because::Done, "200 s have passed");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_closes_no_boot() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.now = 1_000_000;
    machine.power_on();
    machine.fetch("kernel");
    machine.now = 5000;
    assert_eq!(machine.admit(), Ok(Part::Continues));
    machine.fetch("initrd");
    assert_eq!(machine.state.boots, 1);
}

#[test]
fn an_nbp_is_known_by_its_fetch_though_the_clock_was_set_back_before() {
    let offered = |xid| Step::Offered {
        arch: Some(Arch::Bios),
        stage: Stage::Ipxe,
        what: Offer::Nbp,
        xid,
        boot_file: "undionly.kpxe".into(),
        option_43: None,
        interface: "eth0".into(),
        relay: None,
    };
    let mut machine = Machine::new(BootPolicy::Once);
    machine.wait(7200).take(offered(1));
    machine.take(nbp("undionly.kpxe"));
    assert!(machine.state.runs_our_nbp(after(machine.now)));
    machine.now -= 3600;
    machine.take(offered(2));
    machine.wait(2).take(nbp("undionly.kpxe"));
    assert!(machine.state.runs_our_nbp(after(machine.now)));
}

#[test]
fn firmware_that_begins_anew_at_once_is_not_left_in_silence_for_ever() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600);
    let turns = (0..10).map(|_| {
        machine.wait(30);
        machine.discover(Stage::Pxe, LocalBoot::Silent);
        let start = Some((FIRST, Stage::Pxe, machine.xid));
        machine.state.orders(start, after(machine.now)).asks_again
    });
    assert!(turns.collect::<Vec<_>>().contains(&true));
}

#[test]
fn an_ipxe_that_cannot_start_the_disk_says_so() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).power_on();
    let step = machine.state.disk_failed().unwrap();
    machine.stop(&step);
    machine.take(step);
    assert_eq!(machine.script(), Because::DiskFailed);
    assert_eq!(machine.stopped, ["sanboot-failed"]);
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
}

#[test]
fn what_was_booted_before_it_was_to_boot_once_counts_where_it_is_the_same() {
    let mut machine = Machine::new(BootPolicy::Always);
    machine.power_on();
    machine.fetch_all();
    machine.policy = BootPolicy::Once;
    assert_eq!(machine.wait(600).because(None), Because::Done);
    let orders = machine.state.orders(None, after(machine.now));
    assert_eq!(orders.because(BootPolicy::Once, "debian", HARMLESS), Because::First);
    assert_eq!(orders.because(BootPolicy::Local, "talos", HARMLESS), Because::Local);
    assert_eq!(orders.because(BootPolicy::Always, "talos", HARMLESS), Because::Always);
}

#[test]
fn a_machine_whose_dhcp_is_not_seen_completes_its_boots_all_the_same() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.sees_dhcp = false;
    assert_eq!(machine.script(), Because::First);
    machine.fetch_all();
    machine.id = None;
    assert_eq!(machine.wait(5).script(), Because::Done);
    let again = |machine: &mut Machine, seconds| {
        machine.id = None;
        machine.wait(seconds).script()
    };
    assert_eq!(again(&mut machine, 100), Because::DiskFailed);
    machine.fetch_all();
    assert_eq!(again(&mut machine, 600), Because::Done);
    assert_eq!(again(&mut machine, 600), Because::Done);
    assert_eq!(machine.state.boots, 2);
}

#[test]
fn an_offer_that_is_told_of_late_does_not_begin_its_boot_anew() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.sees_dhcp = false;
    machine.script();
    machine.discover(Stage::Pxe, LocalBoot::Exit);
    machine.discover(Stage::Ipxe, LocalBoot::Exit);
    machine.fetch_all();
    assert_eq!(machine.state.boots, 1);
    assert_eq!(machine.wait(600).power_on(), Because::Done);
}

#[test]
fn after_two_failures_at_the_same_step_another_nbp_is_tried_and_what_works_stays() {
    use crate::pure::catalog::nbp::{Nbp, Nbps};
    let mut nbps = Nbps::default();
    for name in ["snponly.efi", "ipxe.efi"] {
        let (name, arch) = (name.to_owned(), Arch::UefiX64);
        nbps.add(Nbp { path: name.clone().into(), name, arch, folder: 0 });
    }
    let turn = |machine: &Machine| {
        machine.state.ladder.nbp(&nbps, Arch::UefiX64).map(|nbp| nbp.name.clone()).unwrap()
    };
    let mut machine = Machine::new(BootPolicy::Always);
    for _ in 0..2 {
        assert_eq!(turn(&machine), "snponly.efi");
        machine.discover(Stage::Pxe, LocalBoot::Exit);
        machine.wait(3).take(nbp("snponly.efi"));
        machine.wait(130);
    }
    assert_eq!(machine.stopped, ["nbp-without-ipxe-uefi"; 2]);
    assert_eq!(turn(&machine), "ipxe.efi");
    machine.discover(Stage::Pxe, LocalBoot::Exit);
    machine.wait(3).take(nbp("ipxe.efi"));
    machine.wait(4).discover(Stage::Ipxe, LocalBoot::Exit);
    machine.script();
    machine.fetch_all();
    assert_eq!(machine.state.failures, 0);
    for _ in 0..3 {
        machine.wait(600).discover(Stage::Pxe, LocalBoot::Exit);
        machine.wait(3).take(nbp("ipxe.efi"));
        machine.wait(130);
        assert_eq!(turn(&machine), "ipxe.efi", "it has booted so");
    }
    machine.wait(600).discover(Stage::Pxe, LocalBoot::Exit);
    machine.wait(3).take(nbp("ipxe.efi"));
    machine.wait(130);
    assert_eq!(turn(&machine), "snponly.efi");
    assert_eq!(machine.state.failures, 4);
}

#[test]
fn discovers_in_the_name_of_a_machine_change_neither_its_nbp_nor_what_has_worked() {
    use crate::pure::catalog::nbp::{Nbp, Nbps};
    let mut nbps = Nbps::default();
    for (name, arch) in
        [("snponly.efi", Arch::UefiX64), ("ipxe.efi", Arch::UefiX64), ("undionly.kpxe", Arch::Bios)]
    {
        nbps.add(Nbp { path: name.into(), name: name.into(), arch, folder: 0 });
    }
    let forge = |machine: &mut Machine| {
        for arch in [Arch::UefiX64, Arch::Bios, Arch::UefiX64] {
            machine.xid += 1000;
            let Step::Offered { stage, what, boot_file, option_43, interface, .. } = offer() else {
                unreachable!()
            };
            let (arch, xid) = (Some(arch), machine.xid);
            let relay = None;
            machine.take(Step::Offered {
                arch,
                stage,
                what,
                xid,
                boot_file,
                option_43,
                interface,
                relay,
            });
        }
    };
    let mut machine = Machine::new(BootPolicy::Always);
    for round in 0..6 {
        machine.discover(Stage::Pxe, LocalBoot::Exit);
        forge(&mut machine);
        let turn = machine.state.ladder.nbp(&nbps, Arch::UefiX64).unwrap();
        assert_eq!(turn.name, "snponly.efi", "{round}");
        machine.take(nbp("snponly.efi"));
        forge(&mut machine);
        machine.discover(Stage::Ipxe, LocalBoot::Exit);
        machine.script();
        let worked = machine.state.ladder.worked.clone().unwrap();
        assert_eq!(worked.nbp, "snponly.efi", "{round}");
        machine.fetch_all();
        machine.wait(600);
    }
    assert!(!machine.state.ladder.has_climbed());
}

#[test]
fn uefi_that_never_fetches_is_told_another_option_43() {
    let mut machine = Machine::new(BootPolicy::Always);
    let mut said = Vec::new();
    for _ in 0..7 {
        said.push(machine.state.option_43());
        machine.discover(Stage::Pxe, LocalBoot::Exit);
        machine.wait(200);
    }
    let [default, bios, skip] = [Option43::Default, Option43::Bios, Option43::SkipPrompt];
    assert_eq!(said, [default, default, bios, bios, skip, skip, default]);
    assert_eq!(machine.stopped, ["no-lease"; 7]);
    // Where the router is down, machines that boot stay as they are.
    machine.power_on();
    for _ in 0..10 {
        machine.wait(200).discover(Stage::Pxe, LocalBoot::Exit);
    }
    assert_eq!(machine.state.option_43(), default);
    assert!(!machine.state.ladder.has_climbed());
}

#[test]
fn each_verdict_has_a_journey_that_comes_to_it() {
    type Walk<'a> = &'a dyn Fn(&mut Machine);
    let asked: Walk<'_> = &|machine| {
        machine.discover(Stage::Pxe, LocalBoot::Exit);
        machine.take(Step::Acknowledged {
            port: 4011,
            boot_file: "snponly.efi".into(),
            relay: None,
        });
    };
    let fetched: Walk<'_> = &|machine| {
        machine.discover(Stage::Pxe, LocalBoot::Exit);
        machine.wait(2).take(nbp("snponly.efi"));
    };
    let bios = |step: Step| match step {
        Step::Offered { stage, what, xid, boot_file, option_43, interface, .. } => Step::Offered {
            arch: Some(Arch::Bios),
            stage,
            what,
            xid,
            boot_file,
            option_43,
            interface,
            relay: None,
        },
        other => other,
    };
    let table: [(&str, Walk<'_>); 19] = [
        ("no-lease", &|machine| {
            machine.discover(Stage::Pxe, LocalBoot::Exit);
        }),
        ("no-fetch-uefi", &|machine| {
            machine.discover(Stage::Pxe, LocalBoot::Exit);
            machine.take(lease());
        }),
        ("no-fetch-bios", &|machine| {
            machine.take(bios(offer()));
            machine.take(lease());
        }),
        ("no-fetch-http-boot", &|machine| {
            machine.discover(Stage::HttpBoot, LocalBoot::Exit);
            machine.take(lease());
        }),
        ("no-fetch-after-4011", asked),
        ("nbp-broken-off-uefi", &|machine| {
            asked(machine);
            machine.take(broken_off(File::Nbp));
        }),
        ("nbp-broken-off-bios", &|machine| {
            machine.take(bios(offer()));
            machine.take(broken_off(File::Nbp));
        }),
        ("nbp-without-ipxe-uefi", fetched),
        ("nbp-without-ipxe-bios", &|machine| {
            machine.take(bios(offer()));
            machine.take(nbp("undionly.kpxe"));
        }),
        ("led-without-script", &|machine| {
            fetched(machine);
            machine.take(autoexec());
        }),
        ("ipxe-without-our-offer", &|machine| {
            fetched(machine);
            machine.discover(Stage::Ipxe, LocalBoot::Exit);
        }),
        ("no-facts", &|machine| {
            fetched(machine);
            machine.take(script(Starts::Question));
        }),
        ("waiting-broken-off", &|machine| {
            fetched(machine);
            let client = Box::new(Client::at(Stage::Ipxe));
            machine.take(Step::WaitServed { image: "talos".into(), client, sent: sent() });
        }),
        ("refused", &|machine| {
            fetched(machine);
            machine.take(Step::Refused { what: "its boot".into(), reason: "no file".into() });
        }),
        ("script-without-kernel", &|machine| {
            machine.power_on();
        }),
        ("download-broken-off", &|machine| {
            machine.power_on();
            machine.take(broken_off(File::Image));
        }),
        ("refused", &|machine| {
            machine.power_on();
            machine.fetch("kernel");
            let (what, reason) = ("linux/initrd".into(), "there is no such file".into());
            machine.take(Step::Refused { what, reason });
        }),
        ("kernel-without-initrd", &|machine| {
            machine.power_on();
            machine.fetch("kernel");
        }),
        ("back-in-pxe", &|machine| {
            machine.power_on();
            machine.fetch_all();
            machine.wait(100).power_on();
        }),
    ];
    for (rule, walk) in table {
        let mut machine = Machine::new(BootPolicy::Always);
        walk(&mut machine);
        let by_then = machine.stopped.len();
        machine.wait(700);
        let first = machine.stopped.first().map(String::as_str);
        assert_eq!(first, Some(rule), "{:?}", machine.stopped);
        assert!(machine.state.failures > 0, "{rule}");
        // And it is told once, also where the machine is started anew.
        if by_then == 0 {
            let told = machine.stopped.len();
            machine.power_on();
            assert_eq!(machine.stopped.len(), told, "{rule}: {:?}", machine.stopped);
        }
    }
}

#[test]
fn firmware_that_asks_on_and_on_without_a_pause_is_told_of_and_climbs() {
    for arch in [Arch::Bios, Arch::UefiX64] {
        let mut machine = Machine::new(BootPolicy::Always);
        let mut is_as_usual = true;
        for n in 0..30 {
            machine.xid += 1;
            let Step::Offered { stage, what, boot_file, interface, .. } = offer() else {
                unreachable!()
            };
            let option_43 = Some(machine.state.option_43());
            let (arch, xid) = (Some(arch), machine.xid);
            machine.take(Step::Offered {
                arch,
                stage,
                what,
                xid,
                boot_file,
                option_43,
                interface,
                relay: None,
            });
            // It takes its lease from the router each time.
            machine.take(lease());
            machine.wait(24);
            assert!(machine.stopped.len() <= 1 + n / 3, "{:?}", machine.stopped);
            is_as_usual &= machine.state.option_43() == Option43::default();
        }
        assert!(machine.stopped.len() >= 6, "{:?}", machine.stopped);
        // Anybody can send DISCOVERs: they change option 43, and BIOS has no other one.
        assert_eq!(machine.state.ladder.has_climbed(), arch == Arch::UefiX64);
        assert_eq!(is_as_usual, arch == Arch::Bios, "BIOS is told no other option 43");
    }
}

#[test]
fn a_machine_that_was_to_boot_once_and_is_back_soon_has_not_failed() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.wait(120).power_on(), Because::Done);
    machine.arm(1);
    assert_eq!(machine.wait(300).power_on(), Because::Armed);
    machine.fetch_all();
    assert_eq!(machine.wait(120).power_on(), Because::Done);
    assert!(machine.stopped.is_empty(), "{:?}", machine.stopped);
}

#[test]
fn what_failed_before_a_machine_reached_its_disk_is_over() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).discover(Stage::Pxe, LocalBoot::Exit);
    machine.wait(100);
    assert_eq!(machine.state.failures, 1);
    assert_eq!(machine.power_on(), Because::Done);
    assert_eq!((machine.state.failures, &machine.state.verdict), (0, &None));
}

#[test]
fn a_boot_that_ends_well_is_no_failure_however_late_the_machine_is_back() {
    let mut machine = Machine::new(BootPolicy::Always);
    for _ in 0..3 {
        machine.power_on();
        machine.fetch_all();
        machine.wait(3600);
    }
    machine.take(script(Starts::Menu));
    machine.wait(3600);
    assert!(machine.stopped.is_empty(), "{:?}", machine.stopped);
    assert_eq!((machine.state.boots, machine.state.failures), (3, 0));
}

#[test]
fn what_is_remembered_is_the_same_after_it_was_written_and_read() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(2);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).power_on();
    let text = serde_json::to_string(&machine.state).unwrap();
    assert_eq!(serde_json::from_str::<MachineState>(&text).unwrap(), machine.state);
    assert!(text.len() < 3000, "{}", text.len());
}

fn chained(subject: &Subject, steps: &[(u64, Step)]) -> MachineState {
    let mut state = MachineState::default();
    for (second, step) in steps {
        let event = Event { subject: subject.clone(), step: step.clone() };
        state.apply(&event, None, after(*second));
    }
    state
}

fn state(steps: &[(u64, Step)]) -> MachineState {
    chained(&Subject { mac: Some(FIRST), ..Subject::default() }, steps)
}

#[test]
fn three_fetches_in_a_minute_without_a_script_are_a_loop_for_a_minute() {
    let undionly = || nbp("undionly.kpxe");
    let two = state(&[(0, undionly()), (3, undionly())]);
    assert_eq!(two.loops_with(Naming::ByTheRouter, after(4)), None);
    let three = state(&[(0, undionly()), (3, undionly()), (6, undionly())]);
    assert_eq!(three.loops_with(Naming::ByTheRouter, after(7)), Some("undionly.kpxe"));
    assert_eq!(three.loops_with(Naming::ByTheRouter, after(65)), Some("undionly.kpxe"));
    assert_eq!(three.loops_with(Naming::ByTheRouter, after(66)), None, "it may try again");
    let nobody = Subject::default();
    let by_hand = [(0, undionly()), (3, undionly()), (6, undionly())];
    assert_eq!(chained(&nobody, &by_hand).loops_with(Naming::ByTheRouter, after(7)), None);
    let back =
        [(0, undionly()), (1, autoexec()), (3, undionly()), (4, autoexec()), (6, undionly())];
    assert_eq!(
        chained(&nobody, &back).loops_with(Naming::ByTheRouter, after(7)),
        Some("undionly.kpxe")
    );
    let other = state(&[(0, undionly()), (3, nbp("ipxe.pxe")), (6, undionly())]);
    assert_eq!(other.loops_with(Naming::ByTheRouter, after(7)), None);
    let slow = state(&[(0, undionly()), (40, undionly()), (60, undionly())]);
    assert_eq!(slow.loops_with(Naming::ByTheRouter, after(61)), None);
    let booted =
        state(&[(0, undionly()), (3, undionly()), (4, script(Starts::Menu)), (6, undionly())]);
    assert_eq!(booted.loops_with(Naming::ByTheRouter, after(7)), None);
    let led = state(&[(0, undionly()), (3, undionly()), (4, autoexec()), (6, undionly())]);
    assert_eq!(
        led.loops_with(Naming::ByTheRouter, after(7)),
        Some("undionly.kpxe"),
        "it was led in vain"
    );
}

#[test]
fn a_fetch_without_an_offer_before_it_is_no_turn_of_a_loop() {
    let fetch = || nbp("undionly.kpxe");
    let unoffered = state(&[(0, fetch()), (3, fetch()), (6, fetch())]);
    assert_eq!(unoffered.loops_with(Naming::ByUs, after(7)), None);
    let steps = [0, 3, 6].map(|second| [(second, offer()), (second + 1, fetch())]);
    let looping = state(&steps.concat());
    assert_eq!(looping.loops_with(Naming::ByUs, after(8)), Some("undionly.kpxe"));
}

#[test]
fn who_fetches_the_same_nbp_again_is_that_nbp_once() {
    let steps = [(0, nbp("snponly.efi")), (5, autoexec())];
    let running = state(&steps[..1]);
    assert!(running.is_run_by("snponly.efi", after(4)));
    assert!(!running.is_run_by("undionly.kpxe", after(4)));
    assert!(!running.is_run_by("snponly.efi", after(120)));
    assert!(!state(&steps).is_run_by("snponly.efi", after(6)), "a reset on the way");
}
