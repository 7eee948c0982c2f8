//! Simulated firmware of every kind walks from its first DISCOVER to the last byte of its initrd.

use super::answers::hexhyp;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::firmware::{Firmware, uefi_program};
use crate::support::{Appliance, InFolder, Lan, run};

const MACHINE: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x10];

const CONFIG: &str = "
server: { nbps: [./nbps] }
images:
  debian: { kernel: ./linux, initrd: [./first, ./second] }
profiles:
  debian: { script: linux, image: debian, cmdline: [quiet] }
machines:
  oden: { mac: 52:54:00:77:00:10, profile: debian }
";

/// A folder with an NBP for every architecture, a kernel and two initrds.
pub fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", CONFIG);
    for (name, machine) in [
        ("nbps/bin-i386-efi/snponly.efi", 0x014c),
        ("nbps/bin-x86_64-efi/snponly.efi", 0x8664),
        ("nbps/bin-arm32-efi/snponly.efi", 0x01c2),
        ("nbps/bin-arm64-efi/snponly.efi", 0xaa64),
        ("nbps/bin-riscv64-efi/snponly.efi", 0x5064),
    ] {
        folder.write(name, uefi_program(machine, name));
    }
    folder.write("nbps/undionly.kpxe", vec![0xea; 74_213]);
    folder.write("linux", vec![1; 3_000_000]);
    folder.write("first", vec![2; 1_000_000]);
    folder.write("second", vec![3; 1000]);
    folder
}

/// A machine on the LAN.
pub fn machine(lan: &Lan) -> Firmware {
    lan.attach("machine", "10.77.0.50/24");
    Firmware::new("machine", MACHINE, Ipv4Addr::new(10, 77, 0, 50))
}

#[test]
fn what_is_offered_is_served_for_every_firmware_and_architecture() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let nbp = |name: &str| std::fs::read(folder.path().join("nbps").join(name)).unwrap();

        for (code, name) in [
            (0_u16, "undionly.kpxe"),
            (6, "bin-i386-efi/snponly.efi"),
            (7, "bin-x86_64-efi/snponly.efi"),
            (9, "bin-x86_64-efi/snponly.efi"),
            (10, "bin-arm32-efi/snponly.efi"),
            (11, "bin-arm64-efi/snponly.efi"),
            (27, "bin-riscv64-efi/snponly.efi"),
        ] {
            let arch = code.to_be_bytes();
            let pxe: [(u8, &[u8]); 2] = [(60, b"PXEClient"), (93, &arch)];
            let offer = firmware.discover(&pxe).expect("PXE clients are answered");
            assert_eq!(offer.from.to_string(), "10.77.0.2:67", "{code}");
            assert_eq!(offer.file(), name, "{code}");
            let ack = firmware.request_boot_server(&pxe).expect("port 4011 answers");
            assert_eq!((ack.from.to_string(), ack.file()), ("10.77.0.2:4011".into(), name.into()));
            assert_eq!(firmware.fetch(&format!("tftp://10.77.0.2/{}", offer.file())), nbp(name));
            let ipxe = firmware.discover(&[(60, b"PXEClient"), (77, b"iPXE"), (93, &arch)]);
            let script = ipxe.expect("iPXE is answered").file();
            assert!(firmware.fetch(&script).starts_with(b"#!ipxe\n"), "{script}");
        }
        for (code, name) in [
            (15_u16, "bin-i386-efi/snponly.efi"),
            (16, "bin-x86_64-efi/snponly.efi"),
            (17, "bin-x86_64-efi/snponly.efi"),
            (18, "bin-arm32-efi/snponly.efi"),
            (19, "bin-arm64-efi/snponly.efi"),
            (28, "bin-riscv64-efi/snponly.efi"),
        ] {
            let http: [(u8, &[u8]); 2] = [(60, b"HTTPClient"), (93, &code.to_be_bytes())];
            let offer = firmware.discover(&http).expect("HTTP Boot clients are answered");
            assert_eq!(firmware.fetch(&offer.file()), nbp(name), "{code}");
        }
    });
}

#[test]
fn the_log_tells_the_journey_of_one_machine_step_by_step() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);

        let pxe: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[0, 7])];
        let offer = firmware.discover(pxe).unwrap();
        firmware.take_lease(pxe);
        appliance.wait_for("takes its lease");
        let ack = firmware.request_boot_server(pxe).unwrap();
        assert_eq!(ack.file(), offer.file());
        firmware.fetch(&format!("tftp://10.77.0.2/{}", ack.file()));
        let ipxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])];
        let script = firmware.discover(ipxe).unwrap().file();
        let script = String::from_utf8(firmware.fetch(&script)).unwrap();
        let urls: Vec<&str> = script
            .lines()
            .filter(|line| line.starts_with("kernel ") || line.starts_with("initrd "))
            .flat_map(|line| line.split(' ').filter(|word| word.starts_with("http://")))
            .collect();
        let plain: Vec<&str> = urls.iter().map(|url| url.split("&id=").next().unwrap()).collect();
        assert_eq!(
            plain,
            [
                "http://10.77.0.2:8080/images/debian/kernel?mac=52:54:00:77:00:10",
                "http://10.77.0.2:8080/images/debian/initrd?mac=52:54:00:77:00:10",
                "http://10.77.0.2:8080/images/debian/initrd.1?mac=52:54:00:77:00:10",
            ]
        );
        assert!(urls.iter().all(|url| url.split("&id=").nth(1).map(str::len) == Some(32)));
        let fetched: Vec<_> = urls.iter().map(|url| firmware.fetch(url).len()).collect();
        assert_eq!(fetched, [3_000_000, 1_000_000, 1000]);

        // A large file is told of when it has come to the client, which is looked for from time to time: a small one
        // that was fetched after it may be told of first.
        for part in ["kernel", "initrd", "initrd.1"] {
            let told = format!("fetched debian/{part} over");
            if !appliance.log().contains(&told) {
                appliance.wait_for(&told);
            }
        }
        let log = appliance.log();
        let mut steps: Vec<&str> = log
            .lines()
            .filter_map(|line| line.split_once("INFO oden (52:54:00:77:00:10): "))
            .map(|(_, step)| step.split(": ").next().unwrap())
            .collect();
        steps[6..].sort_unstable();
        assert_eq!(
            steps,
            [
                "offered bin-x86_64-efi/snponly.efi (UEFI x86-64, PXE, on eth0)",
                "takes its lease from 10.77.0.1",
                "acknowledged bin-x86_64-efi/snponly.efi on port 4011",
                "fetched bin-x86_64-efi/snponly.efi over TFTP",
                "offered http://10.77.0.2:8080/boot/52-54-00-77-00-10.ipxe (UEFI x86-64, iPXE, on eth0)",
                "runs its script",
                "fetched debian/initrd over HTTP",
                "fetched debian/initrd.1 over HTTP",
                "fetched debian/kernel over HTTP",
            ]
        );
    });
}

#[test]
fn a_release_that_is_fetched_while_it_serves_is_offered_from_then_on() {
    in_lab!(|lan| {
        let folder = folder();
        let fetched = uefi_program(0x8664, "fetched");
        folder.write("ipxeboot/x86_64/snponly.efi", &fetched);
        let archive = folder.write("ipxeboot.tar.gz", "").display().to_string();
        let at = folder.path().display().to_string();
        run("tar", &["-C", &at, "-czf", &archive, "ipxeboot"]);
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let offer = |arch: &[u8]| {
            firmware.discover(&[(60, b"PXEClient"), (93, arch)]).expect("it is answered").file()
        };
        assert_eq!(offer(&[0, 7]), "bin-x86_64-efi/snponly.efi");
        let fetch = Command::new(env!("CARGO_BIN_EXE_reveille"))
            .args(["nbps", "fetch", "./ipxeboot.tar.gz"])
            .in_folder(folder.path())
            .status();
        assert!(fetch.unwrap().success());
        appliance.wait_for("NBP x86_64/snponly.efi: new");
        assert_eq!(offer(&[0, 7]), "x86_64/snponly.efi");
        assert_eq!(firmware.fetch("tftp://10.77.0.2/x86_64/snponly.efi"), fetched);
        assert_eq!(offer(&[0, 0]), "undionly.kpxe", "what it does not hold is as before");
    });
}

#[test]
fn without_any_config_a_stranger_is_shown_the_menu() {
    in_lab!(|lan| {
        let folder = Folder::new();
        let mut appliance = Appliance::start(&folder);
        let log = appliance.log();
        assert!(log.contains("the built-in defaults"), "{log}");
        assert!(log.contains("serving machines on eth0 (10.77.0.2)"), "{log}");
        let firmware = machine(&lan);
        let ipxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];
        let script = firmware.discover(ipxe).unwrap().file();
        firmware.take_lease(ipxe);
        let script = String::from_utf8(firmware.fetch(&script)).unwrap();
        assert!(script.contains("\nmenu reveille: 52:54:00:77:00:10\n"), "{script}");
        appliance.wait_for("runs its script: the menu");
    });
}

#[test]
fn a_machine_known_by_its_serial_number_is_asked_for_it_once() {
    in_lab!(|lan| {
        let folder = folder();
        let config = CONFIG.replace("mac: 52:54:00:77:00:10", "serial: CZ 1&2");
        folder.write("config.yaml", config);
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let url = format!("http://10.77.0.2:8080/boot/{}.ipxe", firmware.hyphenated());
        let asked = String::from_utf8(firmware.fetch(&url)).unwrap();
        let chain = asked.lines().find(|line| line.starts_with("chain ")).unwrap();
        let url = chain.split(' ').find(|word| word.starts_with("http://")).unwrap();
        let serial = hexhyp("CZ 1&2");
        let told = [
            ("${serial:hexhyp}", serial.as_str()),
            ("${product:hexhyp}", ""),
            ("${manufacturer:hexhyp}", ""),
            ("${uuid}", ""),
            ("${platform}", "pcbios"),
            ("${buildarch}", "i386"),
            ("${cpu}", "x64"),
            ("${v2}", "yes"),
            ("${netX/busid:hexhyp}", "01-14-e4-16-39"),
        ];
        let told = told.iter().fold(url.to_owned(), |url, (name, fact)| url.replace(name, fact));
        assert!(!told.contains("${"), "{told}");
        let script = String::from_utf8(firmware.fetch(&told)).unwrap();
        assert!(script.contains("reveille: oden boots debian"), "{script}");
        let other = told.replace(&serial, &hexhyp("none"));
        let script = String::from_utf8(firmware.fetch(&other)).unwrap();
        assert!(script.contains("\nmenu reveille"), "a stranger is not asked again: {script}");
        let choice = script.split(' ').find(|word| word.ends_with("&profile=debian")).unwrap();
        let script = String::from_utf8(firmware.fetch(choice)).unwrap();
        assert!(script.contains(" boots debian "), "what it chooses it gets: {script}");
    });
}
