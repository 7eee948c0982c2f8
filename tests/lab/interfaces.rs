//! Interfaces and addresses that come, go and change while the daemon runs.

use std::net::Ipv4Addr;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, Lan, run};

const UEFI: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 7])];
const IPXE: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])];

fn folder_for_two() -> Folder {
    let folder = folder();
    folder.write("config.yaml", "server: { interfaces: [eth0, eth1], nbps: [./nbps] }\n");
    folder
}

/// What it is offered holds this address of ours and no other.
fn is_told(firmware: &Firmware, ours: [u8; 4]) {
    let offer = firmware.discover(UEFI).expect("it is answered");
    let address = Ipv4Addr::from(ours);
    assert_eq!(*offer.from.ip(), address);
    assert_eq!(offer.datagram[20..24], ours, "siaddr");
    let script = firmware.discover(IPXE).expect("it is answered").file();
    assert!(script.starts_with(&format!("http://{address}:8080/boot/")), "{script}");
    firmware.take_lease(IPXE);
    assert!(firmware.fetch(&script).starts_with(b"#!ipxe"));
    let nbp = format!("tftp://{address}/{}", offer.file());
    assert!(!firmware.fetch(&nbp).is_empty());
}

#[test]
fn each_interface_answers_with_its_own_address_and_is_followed_as_it_changes() {
    in_lab!(|lan| {
        let folder = folder_for_two();
        let mut appliance = Appliance::start(&folder);
        let log = appliance.log();
        assert!(log.contains("there is no interface eth1 (there is: eth0, lo)"), "{log}");
        let near = machine(&lan);
        is_told(&near, [10, 77, 0, 2]);

        let second = Lan::second();
        appliance.wait_for("serving machines on eth0 (10.77.0.2), eth1 (10.78.0.2)");
        second.attach("far", "10.78.0.50/24");
        let far = Firmware::new("far", [2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 78, 0, 50));
        is_told(&far, [10, 78, 0, 2]);
        is_told(&near, [10, 77, 0, 2]);

        run("ip", &["-n", "appliance", "addr", "del", "10.78.0.2/24", "dev", "eth1"]);
        appliance.wait_for("interface eth1 has no IPv4 address");
        run("ip", &["-n", "appliance", "addr", "add", "10.78.0.3/24", "dev", "eth1"]);
        appliance.wait_for("serving machines on eth0 (10.77.0.2), eth1 (10.78.0.3)");
        is_told(&far, [10, 78, 0, 3]);

        second.unplug();
        appliance.wait_for("there is no interface eth1");
        is_told(&near, [10, 77, 0, 2]);
        second.plug();
        appliance.wait_for("serving machines on eth0 (10.77.0.2), eth1 (10.78.0.2)");
        is_told(&far, [10, 78, 0, 2]);
    });
}

#[test]
fn what_is_being_fetched_is_not_disturbed_by_another_interface() {
    in_lab!(|lan| {
        let folder = folder_for_two();
        folder.write("nbps/undionly.kpxe", vec![7; 10_000_000]);
        let second = Lan::second();
        let mut appliance = Appliance::start(&folder);
        let near = machine(&lan);
        std::thread::scope(|scope| {
            let slowly = |url: &'static str| {
                let near = &near;
                scope.spawn(move || near.curl(&["--fail", "--limit-rate", "4M", url]).stdout.len())
            };
            let downloads =
                ["tftp://10.77.0.2/undionly.kpxe", "http://10.77.0.2:8080/nbp/undionly.kpxe"]
                    .map(slowly);
            second.unplug();
            appliance.wait_for("there is no interface eth1");
            second.plug();
            appliance.wait_for("eth1 (10.78.0.2)");
            assert_eq!(downloads.map(|download| download.join().unwrap()), [10_000_000; 2]);
        });
    });
}
