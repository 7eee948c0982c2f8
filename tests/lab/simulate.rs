//! `reveille simulate` against the running daemon, beside a router that gives leases.

use std::path::Path;

use crate::boots;
use crate::in_lab;
use crate::journey::folder;
use crate::support::appliance::Folder;
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, InFolder, Lan, Router, inside, run};

const ODEN: &str = "52:54:00:77:00:10";

/// The daemon's folder, with a kernel and initrds that are what they say.
fn bootable() -> Folder {
    let folder = folder();
    let mut kernel = vec![0; 3_000_000];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x2c00_u16.to_le_bytes());
    kernel[0x2e00..0x2e10].copy_from_slice(b"6.1.0-28-amd64 (");
    folder.write("linux", kernel);
    folder.write("first", [&b"070701"[..], &[0; 1000]].concat());
    folder.write("second", [&b"\x28\xb5\x2f\xfd"[..], &[0; 70_000]].concat());
    folder
}

/// What it prints on this host, its times as `…`, and its exit code.
fn simulate(host: &str, folder: &Path, arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = inside(host, Path::new(env!("CARGO_BIN_EXE_reveille")));
    command.arg("simulate").args(arguments).in_folder(folder);
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    (without_times(&text), output.status.code())
}

fn without_times(text: &str) -> String {
    let line = |line: &str| match line.split_once(" ms") {
        Some((before, after)) => {
            let name = before.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{}: …{after}\n", name.trim())
        }
        None => format!("{}\n", line.trim()),
    };
    text.lines().map(line).collect()
}

const SCRIPT: &str = "\
script: …  http://10.77.0.2:8080/boot/52-54-00-77-00-10.ipxe: … bytes
kernel: …  bzImage 6.1.0-28-amd64, 2.86 MiB
its command line: initrd=initrd initrd=initrd.1 quiet
initrd: …  initrd: cpio, 1006 B
initrd: …  initrd.1: zstd, 68.36 KiB
total: …  the machine boots this kernel
";

/// What is told from the iPXE on, but for the script's length.
fn with_script(text: &str) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once(": ") {
        Some((before, _)) if line.starts_with("script: ") => format!("{before}: … bytes\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

fn lab(lan: &Lan) -> (Router, Folder, Appliance) {
    lan.attach("other", "10.77.0.60/24");
    let router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
    let folder = bootable();
    let appliance = Appliance::start(&folder);
    (router, folder, appliance)
}

#[test]
fn a_simulation_walks_the_way_of_each_firmware_on_the_daemons_host_and_on_another() {
    in_lab!(|lan| {
        let (_router, folder, mut appliance) = lab(&lan);
        let nowhere = tempfile::tempdir().unwrap();
        let url = "http://10.77.0.2:8080/boot/52-54-00-77-00-10.ipxe";
        for (host, whose, address, at, more) in [
            ("appliance", " (this host)", "10.77.0.2", folder.path(), &[][..]),
            ("other", "", "10.77.0.60", nowhere.path(), &["--interface", "eth0"][..]),
        ] {
            let told = |firmware: &str| {
                let arguments = [&["--mac", ODEN, "--firmware", firmware], more].concat();
                let (text, code) = simulate(host, at, &arguments);
                assert_eq!(code, Some(0), "{text}");
                with_script(&text)
            };
            let ipxe = format!("iPXE's offer: …  {url} from 10.77.0.2{whose}\n{SCRIPT}");
            let head = |firmware| format!("{ODEN} as {firmware}, on eth0 (from {address})\n");
            assert_eq!(
                told("bios"),
                head("BIOS")
                    + &format!("DHCP offer: …  undionly.kpxe from 10.77.0.2{whose}\n")
                    + "TFTP: …  undionly.kpxe: 74213 bytes (tsize 74213, blksize 1456)\n"
                    + &ipxe
            );
            let nbp = "bin-x86_64-efi/snponly.efi";
            let bytes = std::fs::metadata(folder.path().join("nbps").join(nbp)).unwrap().len();
            assert_eq!(
                told("uefi"),
                head("UEFI x86-64")
                    + &format!("DHCP offer: …  {nbp} from 10.77.0.2{whose}\n")
                    + &format!("port 4011: …  {nbp} from 10.77.0.2:4011\n")
                    + &format!("TFTP: …  {nbp}: {bytes} bytes (blksize 1468, windowsize 4)\n")
                    + &ipxe
            );
            let at = format!("http://10.77.0.2:8080/nbp/{nbp}");
            assert_eq!(
                told("uefi-http"),
                head("UEFI x86-64 with HTTP Boot")
                    + &format!("DHCP offer: …  {at} from 10.77.0.2{whose}\n")
                    + &format!("HTTP Boot: …  {at}: {bytes} bytes\n")
                    + &ipxe
            );
            assert_eq!(told("ipxe"), head("a card's own iPXE") + &ipxe);
        }
        let log = appliance.log();
        let oden = format!("simulation of oden ({ODEN}): offered");
        assert_eq!(log.matches(&oden).count(), 14, "two each, and one of the card's own iPXE");
        assert_eq!(log.matches(&format!("INFO oden ({ODEN})")).count(), 0, "it is no boot of oden");
        assert!(!log.contains("takes its lease"));
    });
}

#[test]
fn a_simulation_leaves_what_is_remembered_of_the_machine_as_it_is() {
    in_lab!(|lan| {
        let folder = bootable();
        let config = std::fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        folder.write(
            "config.yaml",
            config.replace("profile: debian }", "profile: debian, replace_ipxe: true }"),
        );
        let mut appliance = Appliance::start(&folder);
        let firmware = crate::journey::machine(&lan);
        // The card's own iPXE is replaced, as that of the machine is: by the NBP, whose iPXE gets the script.
        let arguments = ["--mac", ODEN, "--firmware", "ipxe"];
        for _ in 0..5 {
            let (text, code) = simulate("appliance", folder.path(), &arguments);
            assert_eq!(code, Some(0));
            assert!(text.contains("TFTP: …  undionly.kpxe: 74213 bytes"), "{text}");
            assert!(text.contains("the machine boots this kernel"), "{text}");
        }
        let own: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];
        assert_eq!(firmware.discover(own).unwrap().file(), "undionly.kpxe");
        // A machine that goes round and round is told so, and that does not end it.
        let pxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        firmware.discover(pxe);
        firmware.take_lease(pxe);
        appliance.wait_for("takes its lease");
        for _ in 0..3 {
            firmware.discover(pxe);
            firmware.fetch("tftp://10.77.0.2/undionly.kpxe");
        }
        let ipxe = simulate("appliance", folder.path(), &["--mac", ODEN, "--firmware", "bios"]);
        assert_eq!(ipxe.1, Some(1), "{}", ipxe.0);
        appliance.wait_for(&format!(
            "simulation of oden ({ODEN}): not answered: it fetched undionly.kpxe three times"
        ));
    });
}

#[test]
fn a_machine_known_by_its_serial_number_gets_what_it_would_get() {
    in_lab!(|lan| {
        let (_router, folder, mut appliance) = lab(&lan);
        let config = std::fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        folder.write("config.yaml", config.replace("mac: 52:54:00:77:00:10", "serial: CZ 1&2"));
        appliance.signal("HUP");
        appliance.wait_for("config: reloaded");
        let (text, code) = simulate("appliance", folder.path(), &["--serial", "CZ 1&2"]);
        assert_eq!(code, Some(0));
        assert_eq!(text.matches("\nscript: …").count(), 2, "it is asked, and tells: {text}");
        assert!(text.contains("kernel: …  bzImage 6.1.0-28-amd64"), "{text}");
        let (text, code) = simulate("appliance", folder.path(), &["--serial", "other"]);
        assert_eq!(code, Some(0));
        assert!(text.contains("the machine shows the menu `reveille: 02:"), "{text}");
        let json = simulate("appliance", folder.path(), &["--serial", "CZ 1&2", "--json"]).0;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["does"], "boots this kernel");
        assert_eq!(json["steps"][0]["step"], "DHCP offer");
        assert_eq!(json["failure"], serde_json::Value::Null);
    });
}

#[test]
fn where_a_step_fails_it_is_told_with_what_was_waited_for_and_where_to_look() {
    in_lab!(|lan| {
        let (router, folder, mut appliance) = lab(&lan);
        let says = |folder: &Folder| simulate("appliance", folder.path(), &["--mac", ODEN]);

        folder.write("linux", "<!DOCTYPE html>");
        let (text, code) = says(&folder);
        let told = "\n! kernel: it is no kernel that iPXE can start: it begins with `<!DOCTYPE html>`\n\
            waited for: http://10.77.0.2:8080/images/debian/kernel?mac=52:54:00:77:00:10\n";
        assert!(text.contains(told), "{text}");
        assert_eq!(code, Some(1));

        std::fs::remove_file(folder.path().join("linux")).unwrap();
        appliance.wait_for("image debian: kernel is gone");
        let (text, code) = says(&folder);
        assert!(text.contains("\n! script: the machine is refused; its console shows: reveille cannot boot 52:54:00:77:00:10: / image debian has no "), "{text}");
        assert_eq!(code, Some(1));

        std::fs::remove_file(folder.path().join("nbps/undionly.kpxe")).unwrap();
        let (text, code) = says(&folder);
        assert!(text.contains("\n! TFTP: the server refuses: error "), "{text}");
        assert_eq!(code, Some(1));

        drop(appliance);
        let (text, code) = says(&folder);
        for told in [
            "\n! DHCP offer: no such offer came within 7 s\n",
            "\nwaited for: an offer with a boot file and no address (proxyDHCP), with `PXEClient` as its option 60\n",
            "\nlook at: nobody on this host has UDP port 67: ",
            "on which the DHCP server 10.77.0.1 answered; ",
        ] {
            assert!(text.contains(told), "no `{told}`");
        }
        assert_eq!(code, Some(1));

        drop(router);
        let (text, _) = says(&folder);
        assert!(text.contains("look at: the LAN: nobody at all answered on eth0"), "{text}");
        run("ip", &["-n", "appliance", "link", "set", "eth0", "down"]);
        let (text, code) = says(&folder);
        assert!(text.contains("there is no interface to play a machine on"), "{text}");
        assert_eq!(code, Some(1));
        let nowhere = tempfile::tempdir().unwrap();
        let (text, code) = simulate("other", nowhere.path(), &[]);
        let told =
            "reveille: there is no interface to play a machine on, name one by `--interface`: ";
        assert!(text.starts_with(told), "{text}");
        assert_eq!(code, Some(1));
    });
}

#[test]
fn a_real_kernel_is_known_and_its_line_is_shown_without_the_token() {
    in_lab!(|_lan| {
        let (folder, mut appliance) = boots::appliance();
        for (mac, firmware, host) in [
            ("52:54:00:77:00:01", "bios", "bios"),
            ("52:54:00:77:00:02", "uefi", "uefi"),
            ("52:54:00:77:00:03", "uefi-http", "http"),
            ("52:54:00:77:00:04", "ipxe", "chained"),
        ] {
            let arguments = ["--mac", mac, "--firmware", firmware];
            let (text, code) = simulate("appliance", folder.path(), &arguments);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains("\nkernel: …  bzImage 6."), "{text}");
            assert!(text.contains("\ninitrd: …  initrd: gzip, "), "{text}");
            let line = boots::expected(host);
            let (before, after) = line.split_once("w7uVuW").unwrap();
            let after = after.split_once(' ').unwrap().1;
            assert!(text.contains(&format!("its command line: {before}*** {after}\n")), "{text}");
            let json =
                simulate("appliance", folder.path(), &[&arguments[..], &["--json"]].concat());
            assert!(json.0.contains("jointoken=***"), "{}", json.0);
            for said in [text, json.0, appliance.log()] {
                assert!(!said.contains("w7uVuW"), "the token is shown");
            }
        }
    });
}

#[test]
fn of_several_who_offer_a_boot_the_first_is_taken_and_all_are_told() {
    in_lab!(|lan| {
        let (_router, folder, _appliance) = lab(&lan);
        lan.attach("proxy", "10.77.0.9/24");
        {
            let _proxy = Router::proxy("proxy");
            let (text, code) = simulate("appliance", folder.path(), &["--mac", ODEN]);
            let left = "an offer of 10.77.0.9 without an address was left: it names no boot file";
            assert!(text.contains(left), "{text}");
            assert_eq!(code, Some(0));
        }
        folder.write(
            "second.yaml",
            "server: { nbps: [./nbps], interfaces: [eth0], state: ./second }\n",
        );
        let mut second = inside("proxy", Path::new(env!("CARGO_BIN_EXE_reveille")));
        second.args(["serve", "--config", "second.yaml"]).in_folder(folder.path());
        let mut second = Appliance::spawn(second);
        second.wait_for("ready");
        let (text, code) = simulate("appliance", folder.path(), &["--mac", ODEN]);
        let too = |server: &str| {
            text.contains(&format!(
                "{server} offers `undionly.kpxe` too; the first offer was taken"
            ))
        };
        assert!(too("10.77.0.2") || too("10.77.0.9"), "{text}");
        assert_eq!(code, Some(0));
    });
}
