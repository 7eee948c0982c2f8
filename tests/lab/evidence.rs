//! Only the machine and the operator decide what happens to a disk: a neighbour on the LAN tries.
//!
//! The neighbour sends what he likes: DHCP with the machine's `chaddr`, its URLs, ids that he made up. The
//! machine, which has its address by ARP, installs and boots its disk all the same.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, InFolder, Lan, inside};
use crate::terminal::Session;

const MACHINE: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x10];
const TOKEN: &str = "hush-hush-a-join-token-of-43-letters-or-more";
const ROM: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
const IPXE: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];

const CONFIG: &str = "
server: { nbps: [./nbps] }
omni: { lab: { api: 'https://omni.example', join_token: { file: ./omni.token } } }
images:
  linux: { kernel: ./linux, initrd: ./first }
  talos: { kernel: ./linux, initrd: ./first, talos: { version: v1.11.2 } }
profiles:
  install: { script: linux, image: linux, boot: once, wipes: true }
  talos: { script: talos, image: talos, omni: lab }
machines:
  oden: { mac: '52:54:00:77:00:10', profile: install }
  ymer: { serial: CZ12345678, profile: install }
  loke: { mac: '52:54:00:77:00:12', profile: talos }
";

fn folder(config: &str) -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", config);
    folder.write("omni.token", TOKEN);
    folder.write("nbps/undionly.kpxe", vec![0xea; 70_000]);
    folder.write("linux", vec![1; 100_000]);
    folder.write("first", vec![2; 100_000]);
    folder
}

fn machine(lan: &Lan) -> Firmware {
    lan.attach("machine", "10.77.0.50/24");
    Firmware::new("machine", MACHINE, Ipv4Addr::new(10, 77, 0, 50))
}

/// A neighbour. What he asks in the name of the machine comes from his own card and address.
fn neighbour(lan: &Lan) -> Firmware {
    lan.attach("evil", "10.77.0.66/24");
    let own = Firmware::new("evil", [0x02, 0, 0, 0, 0, 0x66], Ipv4Addr::new(10, 77, 0, 66));
    own.in_the_name_of(MACHINE)
}

#[test]
fn no_report_fetch_or_discover_of_a_neighbour_has_an_installed_machine_installed_again() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (machine(&lan), neighbour(&lan));
        machine.installs(&mut appliance);
        assert_eq!(folder.next("oden"), "done");

        let guess = format!("&id={}", "0".repeat(32));
        for report in ["&boot=failed", "&disk=failed", "&boot=failed&disk=failed"] {
            for id in ["", &guess] {
                evil.script(&format!("{report}{id}"));
                let own = evil.hyphenated();
                let url = format!("http://10.77.0.2:8080/boot/{own}.ipxe?mac=1{report}{id}");
                evil.curl(&[&url]);
                assert_eq!(folder.next("oden"), "done", "{report}");
            }
        }
        for _ in 0..4 {
            evil.discover(ROM);
            evil.take_lease(ROM);
            evil.offers(IPXE);
            let script = evil.script("");
            assert!(!script.contains("boots install"), "{script}");
        }
        assert_eq!(folder.next("oden"), "done");
        machine.loads_ipxe();
        assert!(machine.script("").contains("goes to its local disk"));
        assert_eq!(folder.next("oden"), "done");
    });
}

#[test]
fn an_order_is_used_up_by_its_machine_and_by_nobody_else() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (machine(&lan), neighbour(&lan));
        machine.installs(&mut appliance);
        folder.reveille(&["arm", "oden"]);
        assert_eq!(folder.next("oden"), "armed");

        // He has no script of it, and fetches what he knows that it would name.
        evil.loads_ipxe();
        let script = evil.script("");
        assert!(!script.contains("/images/"), "{script}");
        let own = evil.hyphenated();
        for part in ["kernel", "initrd"] {
            for id in ["", "&id=00000000000000000000000000000000"] {
                let path = format!("/images/linux/{part}?mac={own}{id}");
                evil.fetch(&format!("http://10.77.0.2:8080{path}"));
            }
            evil.fetch(&format!("tftp://10.77.0.2/linux/{part}"));
        }
        assert_eq!(folder.next("oden"), "armed");

        machine.loads_ipxe();
        let script = machine.script("");
        machine.fetch_all_of(&script);
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");
    });
}

#[test]
fn forged_starts_amid_a_boot_neither_hide_its_completion_nor_its_script() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (machine(&lan), neighbour(&lan));
        machine.loads_ipxe();
        let script = machine.script("");
        let forge = || {
            evil.offers(ROM);
            evil.take_lease(ROM);
            evil.script("");
        };
        let loads = |line: &&str| line.starts_with("kernel ") || line.starts_with("initrd ");
        for line in script.lines().filter(loads) {
            forge();
            machine.fetch(line.split(' ').find(|word| word.contains("://")).unwrap());
        }
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");
    });
}

#[test]
fn a_serial_number_that_a_neighbour_claims_makes_him_no_machine_of_the_config() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let evil = neighbour(&lan);
        let evil = evil.in_the_name_of([0x02, 0, 0, 0, 0, 0x66]);
        evil.loads_ipxe();
        let own = evil.hyphenated();
        let claim =
            "uuid=&serial=CZ12345678&product=&vendor=&platform=pcbios&arch=i386&cpu=x64&v2=yes";
        let url = format!("http://10.77.0.2:8080/boot/{own}.ipxe?{claim}");
        let (_, script) = evil.fetch_as_ipxe(&url);
        assert!(script.contains("reveille confirm ymer"), "{script}");
        assert!(!script.contains("/images/"), "{script}");
        appliance.wait_for("anybody can claim those");
        for part in ["kernel", "initrd"] {
            evil.fetch(&format!("http://10.77.0.2:8080/images/linux/{part}?mac={own}"));
        }
        assert_eq!(folder.next("ymer"), "first");
        let status = folder.reveille(&["status"]);
        let first = "unconfirmed   ymer: profile install: it has not completed a boot yet; it erases a disk; its card has to be confirmed first: `reveille confirm ymer MAC`";
        assert!(status.contains(first), "{status}");
        for address in ["00:00:00:00:00:00", "01:00:5e:00:00:01"] {
            assert!(folder.refused(&["confirm", "ymer", address]).contains("which no card has"));
        }

        // The operator knows better. At a terminal he types the name of a machine whose disk that erases.
        let confirm = |more: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
            command.args(["confirm", "ymer", "02:00:00:00:00:66"]).args(more);
            command.in_folder(folder.path());
            command
        };
        let mut session = Session::start(confirm(&[]));
        session.answer("it erases a disk. Type its name to confirm that: ", "y\n");
        let (shown, code) = session.ended();
        assert!(shown.contains("nothing was confirmed: that is not ymer"), "{shown}");
        assert_eq!(code, Some(1));
        let told = "ymer: 02:00:00:00:00:66 is its card from now on\nnext boot: profile install: it has not completed a boot yet; it erases a disk\n";
        let withdraw = ["confirm", "ymer", "02:00:00:00:00:66", "--withdraw"];
        let mut session = Session::start(confirm(&[]));
        session.answer("Type its name to confirm that: ", "ymer\n");
        assert!(session.ended().0.ends_with(told));
        folder.reveille(&withdraw);
        let (shown, code) = Session::start(confirm(&["--yes"])).ended();
        assert_eq!((shown.as_str(), code), (told, Some(0)));
        folder.reveille(&withdraw);
        assert_eq!(folder.reveille(&["confirm", "ymer", "02:00:00:00:00:66"]), told);
        evil.loads_ipxe();
        let (_, script) = evil.fetch_as_ipxe(&url);
        evil.fetch_all_of(&script);
        appliance.wait_for("ymer (02:00:00:00:00:66): fetched linux/initrd");
        assert_eq!(folder.next("ymer"), "done");

        // And may have been mistaken: the card is a stranger's again.
        for (arguments, reason) in [
            (&["confirm", "loke", "02:00:00:00:00:66"][..], "confirmed as a card of ymer"),
            (&["confirm", "ymer", "02:00:00:00:00:67"], "--another"),
            (&["confirm", "ymer", "02:00:00:00:00:67", "--withdraw"], "was not confirmed"),
            (&["confirm", "ymer", "52:54:00:77:00:10"], "stands under `mac` of oden"),
        ] {
            assert!(folder.refused(arguments).contains(reason), "{arguments:?}");
        }
        folder.reveille(&["confirm", "ymer", "02:00:00:00:00:66", "--withdraw"]);
        evil.loads_ipxe();
        // But it may have the disk that was installed.
        let (_, script) = evil.fetch_as_ipxe(&url);
        assert!(script.contains("goes to its local disk"), "{script}");
        assert_eq!(folder.next("ymer"), "done");
    });
}

#[test]
fn a_token_is_given_to_its_machine_over_http_and_tftp_and_to_nobody_else() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let evil = neighbour(&lan);
        let loke: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x12];
        let evil = evil.in_the_name_of(loke);
        lan.attach("loke", "10.77.0.52/24");
        let machine = Firmware::new("loke", loke, Ipv4Addr::new(10, 77, 0, 52));
        let over_tftp = format!("{}.ipxe", machine.hyphenated());
        let own = format!("http://10.77.0.2:8080/boot/{}.ipxe", machine.hyphenated());

        // Before it boots, while it boots, and with a lease in its name.
        for _ in 0..2 {
            for text in [evil.script(""), evil.script_over_tftp(&over_tftp)] {
                assert!(text.starts_with("#!ipxe") && !text.contains(TOKEN), "{text}");
                assert!(text.contains("its script is withheld"), "{text}");
            }
            let shown = String::from_utf8(evil.fetch(&own)).unwrap();
            assert!(shown.starts_with("# reveille: ") && !shown.contains(TOKEN), "{shown}");
            evil.take_lease(IPXE);
            machine.loads_ipxe();
        }
        for text in [machine.script(""), machine.script_over_tftp(&over_tftp)] {
            assert!(text.contains(TOKEN), "{text}");
            let leaks = text.lines().filter(|line| line.starts_with("kernel "));
            for line in leaks {
                let (_, arguments) = line.split_once("/kernel").unwrap();
                let arguments = arguments.split_once(' ').unwrap().1;
                assert!(!arguments.contains("id="), "the id stands on the kernel line: {line}");
            }
        }
        // The appliance itself shows the operator what it would give.
        let mut curl = inside("appliance", Path::new("/usr/bin/curl"));
        let shown = curl.args(["--silent", &own]).output().unwrap().stdout;
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.starts_with("# reveille: ") && shown.contains("jointoken=***"), "{shown}");
        let log = appliance.log();
        assert!(
            !log.contains(TOKEN)
                && log.contains("ScriptWithheld") | log.contains("refused 10.77.0.66 its script"),
            "{log}"
        );
    });
}

#[test]
fn the_id_of_a_boot_from_another_card_is_an_alarm_and_no_evidence() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (machine(&lan), neighbour(&lan));
        machine.loads_ipxe();
        let script = machine.script("");
        // He has read the traffic.
        evil.fetch_all_of(&script);
        let line =
            appliance.wait_for("alarm: 10.77.0.66 (02:00:00:00:00:66) has the id of its boot");
        assert!(line.contains("oden (52:54:00:77:00:10)"), "{line}");
        assert_eq!(folder.next("oden"), "first");
        machine.fetch_all_of(&script);
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");
    });
}

#[test]
fn an_open_boot_outlives_the_daemon() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let appliance = Appliance::start(&folder);
        let machine = machine(&lan);
        machine.loads_ipxe();
        let script = machine.script("");
        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));
        let mut appliance = Appliance::start(&folder);
        machine.fetch_all_of(&script);
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");
    });
}

#[test]
fn a_neighbour_who_leases_in_a_machines_name_neither_loops_it_nor_moves_its_nbp() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (machine(&lan), neighbour(&lan));
        for _ in 0..6 {
            evil.offers(ROM);
            evil.take_lease(ROM);
            // From the fourth on it is he who loops.
            evil.curl(&["tftp://10.77.0.2/undionly.kpxe"]);
        }
        let offer = machine.discover(ROM).expect("it is offered its NBP");
        assert_eq!(offer.file(), "undionly.kpxe");
        machine.take_lease(ROM);
        machine.fetch("tftp://10.77.0.2/undionly.kpxe");
        machine.installs(&mut appliance);
        assert_eq!(folder.next("oden"), "done");
    });
}

/// A stranger boots as himself, so he opens a boot of his own: each of his MACs has a first one.
#[test]
fn a_stranger_receives_what_is_armed_by_an_order_only() {
    in_lab!(|lan| {
        let entries =
            "  joined: { script: linux, image: linux, omni: lab, release: armed, boot: once }
  answered: { script: inspect, files: { facts: ./facts }, wipes: false, release: armed }
groups: [{ name: g, match: { mac: '02:00:00:00:01:*' }, profile: answered }]
unknown: joined
machines:
";
        let folder = folder(&CONFIG.replacen("machines:\n", entries, 1));
        folder.write("facts", "a secret\n");
        folder.write("boot-scripts/inspect.ipxe", "#!ipxe\necho {{ files.facts }}\n");
        let mut appliance = Appliance::start(&folder);
        lan.attach("evil", "10.77.0.66/24");
        let card = [0x02, 0, 0, 0, 0, 0x66];
        let evil = Firmware::new("evil", card, Ipv4Addr::new(10, 77, 0, 66));
        evil.loads_ipxe();
        let script = evil.script("");
        assert!(script.contains("a boot that is ordered"), "{script}");
        assert!(!script.contains(TOKEN) && !script.contains("/images/"), "{script}");
        folder.reveille(&["arm", "02:00:00:00:00:66"]);
        evil.loads_ipxe();
        assert!(evil.script("").contains(TOKEN));
        appliance.wait_for("runs its script: profile joined");

        lan.attach("other", "10.77.0.67/24");
        let card = [0x02, 0, 0, 0, 1, 0x67];
        let other = Firmware::new("other", card, Ipv4Addr::new(10, 77, 0, 67));
        other.loads_ipxe();
        let script = other.script("");
        assert!(!script.contains("/files/"), "the address of an answer file: {script}");
        folder.reveille(&["arm", "02:00:00:00:01:67"]);
        other.loads_ipxe();
        assert!(other.script("").contains("/files/"));
    });
}
