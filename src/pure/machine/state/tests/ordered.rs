//! What operators order, and what machines report.

use uuid::Uuid;

use super::*;
use crate::pure::client::{Client, Facts, PciId, Stage};
use crate::pure::event::boot::{Starts, Step};
use crate::pure::machine::state::MachineState;

#[test]
fn disarming_withdraws_an_order_and_what_the_config_says_holds_again() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.arm(1);
    machine.take(Step::Disarmed {});
    assert_eq!(machine.wait(600).power_on(), Because::First);
    machine.fetch_all();
    machine.wait(600).arm(3);
    machine.take(Step::Disarmed {});
    assert_eq!(machine.wait(600).power_on(), Because::Done);
}

#[test]
fn an_order_that_was_withdrawn_does_not_come_back_when_its_kernel_does_not_start() {
    let mut machine = Machine::new(BootPolicy::Once);
    machine.power_on();
    machine.fetch_all();
    machine.wait(600).arm(1);
    assert_eq!(machine.wait(600).power_on(), Because::Armed);
    machine.fetch_all();
    machine.take(Step::Disarmed {});
    machine.wait(60).does_not_start();
    assert_eq!(machine.script(), Because::Done);
}

#[test]
fn a_machine_that_is_sent_to_its_disk_stays_there_until_it_is_armed_whatever_the_config_says() {
    for policy in [BootPolicy::Always, BootPolicy::Once, BootPolicy::Local] {
        let mut machine = Machine::new(policy);
        machine.arm(2);
        machine.take(Step::KeptOnDisk {});
        assert_eq!(machine.wait(600).power_on(), Because::KeptOnDisk, "{policy:?}");
        assert_eq!(machine.wait(60).power_on(), Because::KeptOnDisk, "its disk does not boot");
        machine.take(Step::Disarmed {});
        assert_eq!(machine.wait(600).power_on(), Because::KeptOnDisk, "nothing was ordered");
        // A rescue system is for its own boot only.
        machine.wait(1).take(Step::Armed { profile: Some("rescue".into()), times: 1 });
        assert_eq!(machine.because(None), Because::Armed);
        machine.take(Step::Disarmed {});
        assert_eq!(machine.because(None), Because::KeptOnDisk);
        machine.arm(1);
        assert_eq!(machine.wait(600).power_on(), Because::Armed);
        machine.fetch_all();
        assert_ne!(machine.wait(600).power_on(), Because::KeptOnDisk, "{policy:?}");
    }
}

#[test]
fn a_machine_that_an_earlier_version_disarmed_is_kept_on_its_disk_as_it_was() {
    let json = r#"{"orders":{"is_disarmed":true}}"#;
    let state: MachineState = serde_json::from_str(json).unwrap();
    let because = |state: &MachineState, policy| state.orders.because(policy, "talos", HARMLESS);
    assert_eq!(because(&state, BootPolicy::Once), Because::KeptOnDisk);
    assert_eq!(because(&state, BootPolicy::Always), Because::Always, "it meant nothing for these");
    let again = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<MachineState>(&again).unwrap(), state);
    let mut machine = Machine { state, ..Machine::new(BootPolicy::Once) };
    machine.arm(1);
    machine.power_on();
    machine.fetch_all();
    assert_eq!(machine.wait(600).power_on(), Because::Done);
    let because: Because = serde_json::from_str("\"disarmed\"").unwrap();
    assert_eq!(because, Because::KeptOnDisk);
}

fn reports(machine: &mut Machine, starts: Starts, client: Client) {
    let client = Box::new(client);
    machine.wait(1).take(Step::ScriptServed { starts, does: "boot".into(), client, sent: sent() });
}

#[test]
fn what_a_machine_reported_stays_when_it_boots_its_disk_and_reports_nothing() {
    let facts = |serial: &str, vendor: Option<&str>| Facts {
        serial: Some(serial.to_owned()),
        vendor: vendor.map(str::to_owned),
        product: vendor.map(|vendor| format!("{vendor} board")),
        nic: vendor.and_then(|_| PciId::of_busid("01-14-e4-16-3b")),
        ..Facts::default()
    };
    let client = |facts: Option<Facts>, uuid: u128| {
        let uuid = (uuid > 0).then(|| Uuid::from_u128(uuid));
        Client { mac: Some(FIRST), facts, uuid, ..Client::at(Stage::Ipxe) }
    };
    let mut machine = Machine::new(BootPolicy::Once);
    let boot = machine.boot();
    reports(&mut machine, boot.clone(), client(Some(facts("CZ1", Some("HP"))), 7));
    machine.fetch_all();
    let known = |machine: &Machine| {
        let client = machine.state.client.clone().unwrap();
        (client.facts.unwrap(), client.uuid.map(|uuid| uuid.as_u128()))
    };
    assert!(known(&machine).0.nic.is_some());
    reports(&mut machine, Starts::Disk(LocalBoot::Exit), client(None, 0));
    assert_eq!(known(&machine), (facts("CZ1", Some("HP")), Some(7)), "the disk's boot erases none");
    machine.wait(1).take(Step::WaitServed {
        image: "talos".into(),
        client: Box::new(client(None, 0)),
        sent: sent(),
    });
    assert_eq!(known(&machine), (facts("CZ1", Some("HP")), Some(7)));
    // Field by field.
    reports(&mut machine, Starts::Disk(LocalBoot::Exit), client(Some(Facts::default()), 0));
    assert_eq!(known(&machine), (facts("CZ1", Some("HP")), Some(7)));
    reports(&mut machine, boot.clone(), client(Some(facts("CZ1", Some("Dell"))), 7));
    assert_eq!(known(&machine), (facts("CZ1", Some("Dell")), Some(7)));
    // Its card is in another machine.
    reports(&mut machine, boot, client(Some(facts("CZ2", None)), 8));
    assert_eq!(known(&machine), (facts("CZ2", None), Some(8)));
}
