//! Beside other servers: one on the same host, or a router that names us itself.

use std::net::Ipv4Addr;

use crate::boots::{CONFIG, appliance, appliance_with, expected};
use crate::in_lab;
use crate::journey::folder;
use crate::support::firmware::Firmware;
use crate::support::router::Ipv6;
use crate::support::{Appliance, Guest, Machine, Router};

/// The router names the NBP of each firmware, and our address.
const NAMES_US: &[&str] = &[
    "--dhcp-match=set:uefi,option:client-arch,7",
    "--dhcp-boot=tag:!uefi,undionly.kpxe,,10.77.0.2",
    "--dhcp-boot=tag:uefi,snponly.efi,,10.77.0.2",
];

#[test]
fn a_dhcp_server_on_the_same_host_keeps_its_renewals() {
    in_lab!(|lan| {
        let folder = folder();
        lan.attach("leased", "10.77.0.150/24");
        let address = Ipv4Addr::new(10, 77, 0, 150);
        let firmware = Firmware::new("leased", [0x52, 0x54, 0, 0x77, 0, 0x10], address);
        let us = Ipv4Addr::new(10, 77, 0, 2);
        let uefi: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 7])];
        // Whoever comes first.
        for ours_first in [false, true] {
            let appliance = ours_first.then(|| Appliance::start(&folder));
            let _router = Router::on_the_appliance(&["--bind-dynamic", "--dhcp-authoritative"]);
            let mut appliance = appliance.unwrap_or_else(|| Appliance::start(&folder));
            let shares = appliance.log().contains("UDP port 67 is shared with dnsmasq (process ");
            assert_eq!(shares, !ours_first);
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
    in_lab!(|lan| {
        let _router = Router::on_the_appliance(&["--bind-dynamic"]);
        let (_folder, _appliance) = appliance();
        let bios = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        let uefi = Guest::power_on(&lan, Machine::Uefi, "52:54:00:77:00:02");
        assert_eq!(bios.command_line(), expected("bios"));
        assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
    });
}

#[test]
fn bios_and_uefi_boot_by_what_the_router_alone_names() {
    in_lab!(|lan| {
        let _router = Router::dnsmasq(NAMES_US, Ipv6::Announced);
        let config = CONFIG.replace("server:\n", "server:\n  dhcp: off\n");
        let (_folder, mut appliance) = appliance_with(&config);
        let bios = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
        let uefi = Guest::power_on(&lan, Machine::Uefi, "52:54:00:77:00:02");
        assert_eq!(bios.command_line(), expected("bios"));
        assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi")));
        let log = appliance.log();
        for nbp in ["undionly.kpxe", "snponly.efi"] {
            let fetched = log.matches(&format!("fetched {nbp} over TFTP")).count();
            assert_eq!(fetched, 1, "{nbp} once, then the script under its name");
        }
        assert_eq!(log.matches("fetched autoexec.ipxe").count(), 2);
        assert!(!log.contains("offered"), "DHCP is the router's alone");
    });
}
