//! What real firmware makes of each option 43 that a machine may be given.

use std::fs;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::guest::{initramfs, kernel};
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, Machine, Router};

const CONFIG: &str = "
server:
  nbps: [/usr/lib/ipxe]
images:
  linux: { kernel: ./linux, initrd: ./initramfs.gz }
profiles:
  linux: { script: linux, image: linux, option_43: bios, cmdline: [console=ttyS0, quiet] }
machines:
  asking: { mac: 52:54:00:77:01:01, profile: linux, option_43: none, cmdline: [lab.host=asking] }
  loading: { mac: 52:54:00:77:01:02, profile: linux, cmdline: [lab.host=loading] }
  prompted: { mac: 52:54:00:77:01:03, profile: linux, option_43: skip-prompt, cmdline: [lab.host=prompted] }
  rom: { mac: 52:54:00:77:01:04, profile: linux, cmdline: [lab.host=rom] }
";

/// edk2 PxeBcDhcp4.c takes an offer without option 43 for the BINL kind, which asks port 4011, and one
/// with it for the PXE 1.0 kind, which just downloads. An iPXE gets none whatever the config says.
#[test]
fn firmware_boots_with_every_option_43_and_uefi_asks_port_4011_only_without_one() {
    in_lab!(guests: 4, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let folder = Folder::new();
        folder.write("config.yaml", CONFIG);
        fs::copy(kernel(), folder.path().join("linux")).unwrap();
        initramfs(folder.path());
        let mut appliance = Appliance::start(&folder);
        let machines = [
            ("asking", Machine::Uefi, "52:54:00:77:01:01"),
            ("loading", Machine::Uefi, "52:54:00:77:01:02"),
            ("prompted", Machine::Uefi, "52:54:00:77:01:03"),
            ("rom", Machine::Bios, "52:54:00:77:01:04"),
        ];
        let guests = machines.map(|(_, machine, mac)| Guest::power_on(&lan, machine, mac));
        for ((name, machine, _), guest) in machines.into_iter().zip(guests) {
            // The EFI stub sees the image's name as the first word.
            let stub = if machine == Machine::Bios { "" } else { "kernel " };
            assert_eq!(
                guest.command_line(),
                format!("{stub}initrd=initrd console=ttyS0 quiet lab.host={name}")
            );
        }
        let log = appliance.log();
        let firmware = |name: &str| steps(&log, name, "runs its script");
        let offered = "offered snponly.efi (UEFI x86-64, PXE, on eth0)";
        let leased = "takes its lease from 10.77.0.1";
        let ipxe = |mac: &str, arch: &str| {
            format!("offered http://10.77.0.2:8080/boot/{mac}.ipxe ({arch}, iPXE, on eth0)")
        };
        assert_eq!(
            firmware("asking"),
            [
                offered,
                leased,
                "acknowledged snponly.efi on port 4011",
                "fetched snponly.efi over TFTP",
                &ipxe("52-54-00-77-01-01", "UEFI x86-64"),
                leased,
            ]
        );
        for (name, mac) in [("loading", "52-54-00-77-01-02"), ("prompted", "52-54-00-77-01-03")] {
            assert_eq!(
                firmware(name),
                [
                    offered,
                    leased,
                    "fetched snponly.efi over TFTP",
                    &ipxe(mac, "UEFI x86-64"),
                    leased
                ]
            );
        }
        assert_eq!(firmware("rom"), [&ipxe("52-54-00-77-01-04", "BIOS"), leased]);
    });
}

/// The steps of a machine up to this one, each without what follows its colon; an offer or a lease that
/// was asked for again counts once, and so does the question for a file's size.
fn steps(log: &str, machine: &str, until: &str) -> Vec<String> {
    let marker = format!(" INFO {machine} (");
    let mut steps: Vec<String> = log
        .lines()
        .filter_map(|line| line.split_once(&marker)?.1.split_once("): "))
        .map(|(_, step)| step.split(": ").next().unwrap_or(step).to_owned())
        .take_while(|step| step != until)
        .collect();
    steps.dedup();
    steps
}
