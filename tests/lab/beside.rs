//! Beside other servers: one on the same host, or a router that names us itself.

use std::net::Ipv4Addr;
use std::path::Path;

use crate::boots::{CONFIG, appliance, appliance_with, expected};
use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::firmware::Firmware;
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, InFolder, Lan, Machine, Router, inside, run};

#[test]
fn a_dhcp_server_on_the_same_host_keeps_its_renewals() {
    in_lab!(|lan| {
        let folder = folder();
        lan.attach("leased", "10.77.0.150/24");
        let address = Ipv4Addr::new(10, 77, 0, 150);
        let firmware = Firmware::new("leased", [0x52, 0x54, 0, 0x77, 0, 0x10], address);
        let us = Ipv4Addr::new(10, 77, 0, 2);
        let uefi: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 7])];
        let servers = [
            ("dnsmasq", Dhcp::Dnsmasq, "--bind-dynamic"),
            ("dnsmasq", Dhcp::Dnsmasq, "--bind-interfaces"),
            ("kea-dhcp4", Dhcp::Kea, ""),
            ("dhcpd", Dhcp::Isc, ""),
        ];
        // Whoever comes first; but Kea shares its port with nobody who is there before it.
        let orders = servers.iter().flat_map(|server| [(server, false), (server, true)]);
        for ((name, dhcp, sharing), ours_first) in
            orders.filter(|order| order.0.0 != "kea-dhcp4" || !order.1)
        {
            println!("beside {name} {sharing}, ours first: {ours_first}");
            let appliance = ours_first.then(|| Appliance::start(&folder));
            let _router = Router::beside_the_appliance(*dhcp, sharing);
            let mut appliance = appliance.unwrap_or_else(|| Appliance::start(&folder));
            let shares = format!("UDP port 67 is shared with {name} (process ");
            assert_eq!(appliance.log().contains(&shares), !ours_first);
            let ack = firmware.renew(us).expect("its lease is renewed");
            assert_eq!(ack.datagram[16..20], address.octets(), "by who gives leases");
            let renewals = appliance.log().matches("not answered: 10.77.0.150:68").count();
            assert_eq!(renewals, 0, "it took no renewal from it");
            let offers: Vec<_> =
                firmware.offers(uefi).iter().map(|o| o.datagram[16..20] == [0; 4]).collect();
            assert!(offers.contains(&true) && offers.contains(&false), "{offers:?}");
            let ack = firmware.request_boot_server(uefi).expect("port 4011 is ours");
            assert_eq!(ack.file(), "bin-x86_64-efi/snponly.efi");
        }
    });
}

#[test]
fn bios_and_uefi_boot_with_a_dhcp_server_on_the_same_host() {
    in_lab!(guests: 2, |lan| {
        let _router = Router::on_the_appliance(Dhcp::Dnsmasq);
        let (_folder, _appliance) = appliance();
        let bios = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        let uefi = Guest::power_on(&lan, Machine::Uefi, "52:54:00:77:00:02");
        assert_eq!(bios.command_line(), expected("bios"));
        assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
    });
}

/// The router alone tells machines what to boot.
fn router_alone(lan: &Lan, dhcp: Dhcp) {
    let _router = Router::start(dhcp, Ipv6::Announced);
    let config = CONFIG.replace("server:\n", "server:\n  dhcp: off\n");
    let (_folder, mut appliance) = appliance_with(&config);
    let bios = Guest::power_on(lan, Machine::Bios, "52:54:00:77:00:01");
    let uefi = Guest::power_on(lan, Machine::Uefi, "52:54:00:77:00:02");
    assert_eq!(bios.command_line(), expected("bios"));
    assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
    let log = appliance.log();
    for nbp in ["undionly.kpxe", "snponly.efi"] {
        let fetched = log.matches(&format!("fetched {nbp} over TFTP")).count();
        assert_eq!(fetched, 1, "{nbp} once, then the script under its name");
    }
    assert_eq!(log.matches("the script that leads it to its own").count(), 2);
    assert!(!log.contains("offered"), "DHCP is the router's alone");
    assert!(!log.contains("WARN on "), "and it names us as it should");
}

#[test]
fn bios_and_uefi_boot_by_what_dnsmasq_alone_names() {
    in_lab!(guests: 2, |lan| { router_alone(&lan, Dhcp::DnsmasqNamingUs) });
}

#[test]
fn bios_and_uefi_boot_by_what_kea_alone_names() {
    in_lab!(guests: 2, |lan| { router_alone(&lan, Dhcp::KeaNamingUs) });
}

#[test]
fn bios_and_uefi_boot_by_what_isc_alone_names() {
    in_lab!(guests: 2, |lan| { router_alone(&lan, Dhcp::IscNamingUs) });
}

#[test]
fn an_ipxe_that_the_router_keeps_from_us_is_told_of_in_the_log() {
    in_lab!(guests: 1, |lan| {
        // no-pxedhcp: sub-option 176 of iPXE's option 175.
        let _router = Router::dnsmasq(&["--dhcp-option-force=175,b0:01:01"], Ipv6::Announced);
        let (_folder, mut appliance) = appliance();
        appliance.wait_for("WARN on eth0: the DHCP server 10.77.0.1 sends iPXE `no-pxedhcp`");
        let mut guest = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        guest.wait_for("Nothing to boot");
        assert!(!appliance.log().contains("runs its script"), "it pays no heed to us");
    });
}

#[test]
fn what_the_router_does_to_our_boots_is_told_once_and_when_it_is_over() {
    in_lab!(|lan| {
        let mut appliance = Appliance::start(&folder());
        let fact = "no DHCP server answers";
        appliance.wait_for(&format!("WARN on eth0: {fact}: machines get no address"));
        let firmware = machine(&lan);
        firmware.take_lease(&[]);
        appliance.wait_for(&format!("INFO on eth0: it is no longer so that {fact}"));
        firmware.take_lease_from([10, 77, 0, 9], &[]);
        let line = "several DHCP servers give leases, 10.77.0.1 and 10.77.0.9";
        appliance.wait_for(line);
        firmware.take_lease_from([10, 77, 0, 9], &[]);
        firmware.take_lease(&[(60, b"PXEClient")]);
        appliance.wait_for("takes its lease from 10.77.0.1");
        assert_eq!(appliance.log().matches(line).count(), 1);
    });
}

/// What `reveille doctor --dhcp` prints, and its exit code.
fn doctor(config: &str) -> (String, Option<i32>) {
    let folder = folder();
    folder.write("config.yaml", config);
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    let output = command.args(["doctor", "--dhcp"]).in_folder(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    (text, output.status.code())
}

#[test]
fn the_doctor_sees_everybody_who_answers_machines() {
    in_lab!(|lan| {
        let (_folder, _appliance) = appliance();
        let _router = Router::start(Dhcp::DnsmasqWithBootFile, Ipv6::Silent);
        lan.attach("proxy", "10.77.0.9/24");
        let _proxy = Router::proxy("proxy");
        let (text, code) = doctor("server: { nbps: [/usr/lib/ipxe] }\n");
        for told in [
            "UEFI: 10.77.0.1 offers the address 10.77.0.",
            "UEFI: 10.77.0.2 (this host) offers no address, as PXEClient, and `snponly.efi` on 10.77.0.2",
            "iPXE: 10.77.0.2 (this host) offers no address, as PXEClient, and `http://10.77.0.2:8080/boot/",
            "! another proxyDHCP server, 10.77.0.9, answers machines",
            "! the DHCP server 10.77.0.1 names a boot file of its own, `from-the-router.kpxe` on 10.77.0.1: ",
        ] {
            assert!(text.contains(told), "no `{told}`");
        }
        assert_eq!(text.matches("! ").count(), 2);
        assert_eq!(code, Some(1));
    });
}

#[test]
fn the_doctor_finds_nothing_beside_each_router_that_only_gives_leases_while_we_answer() {
    in_lab!(|_lan| {
        let config = "server: { nbps: [/usr/lib/ipxe] }\n";
        for dhcp in [Dhcp::Dnsmasq, Dhcp::Kea, Dhcp::Isc] {
            let _router = Router::start(dhcp, Ipv6::Silent);
            {
                let (_folder, _appliance) = appliance();
                let (text, code) = doctor(config);
                assert!(text.contains("UEFI: 10.77.0.1 offers the address 10.77.0."), "{dhcp:?}");
                assert!(text.contains("Nothing on eth0 stands in the way of a boot."), "{dhcp:?}");
                assert_eq!(code, Some(0), "{dhcp:?}");
            }
            let (text, code) = doctor(config);
            assert!(text.contains("! this host offers nothing to a machine as BIOS, nor as UEFI"));
            assert_eq!(code, Some(1), "{dhcp:?}");
        }
    });
}

#[test]
fn a_router_that_changes_its_address_is_not_taken_for_two() {
    in_lab!(|lan| {
        let router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
        let (_folder, mut appliance) = appliance();
        let firmware = machine(&lan);
        appliance.wait_for("INFO on eth0: the DHCP server is 10.77.0.1");
        firmware.take_lease(&[]);
        drop(router);
        run("ip", &["-n", "router", "addr", "del", "10.77.0.1/24", "dev", "eth0"]);
        run("ip", &["-n", "router", "addr", "add", "10.77.0.254/24", "dev", "eth0"]);
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
        firmware.take_lease_from([10, 77, 0, 254], &[]);
        appliance.wait_for("INFO on eth0: the DHCP server is 10.77.0.254");
        // The next finding comes with later answers.
        firmware.take_lease_from([10, 77, 0, 9], &[]);
        let line = appliance.wait_for("several DHCP servers give leases");
        assert!(line.contains("leases, 10.77.0.9 and 10.77.0.254: "), "{line}");
    });
}

#[test]
fn the_doctor_sees_a_router_that_names_us_or_does_not_where_dhcp_is_off() {
    in_lab!(|_lan| {
        let config = "server: { dhcp: off, nbps: [/usr/lib/ipxe] }\n";
        for dhcp in [Dhcp::DnsmasqNamingUs, Dhcp::KeaNamingUs, Dhcp::IscNamingUs] {
            let _router = Router::start(dhcp, Ipv6::Silent);
            let (text, code) = doctor(config);
            assert!(text.contains("UEFI: 10.77.0.1 offers the address 10.77.0."), "{text}");
            assert!(text.contains("and `snponly.efi` on 10.77.0.2"), "{text}");
            assert_eq!(code, Some(0));
        }
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
        let (text, code) = doctor(config);
        assert!(text.contains("the DHCP server 10.77.0.1 names no boot file to BIOS machines"));
        assert_eq!(code, Some(1));
    });
}
