//! Attacks on the daemon that were thought of after it was finished: each fails, and the machine boots.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::answers::hexhyp;
use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::firmware::{Firmware, uefi_program};
use crate::support::{Appliance, InFolder, Lan, inside, run};
use crate::tftp::{ask, finish, rrq, socket};

const ODEN: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x10];
const LOKE: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x12];
const EVIL: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];
const TOKEN: &str = "hush-hush-a-join-token-of-43-letters-or-more";
const PASSWORD: &str = "a-password-of-an-answer-file";
const ROM: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
const IPXE: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];

const CONFIG: &str = "
server: { nbps: [./nbps] }
omni: { lab: { api: 'https://omni.example', join_token: { file: ./omni.token } } }
images:
  linux: { kernel: ./linux, initrd: ./first }
  talos: { kernel: ./linux, initrd: ./first, talos: { version: v1.11.2 } }
profiles:
  install:
    { script: debian, image: linux, boot: once, wipes: true, files: { preseed.cfg: ./answers } }
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
    folder.write("answers", PASSWORD);
    folder.write("nbps/undionly.kpxe", vec![0xea; 70_000]);
    folder.write("nbps/ipxe.pxe", vec![0xeb; 70_000]);
    folder.write("linux", vec![1; 100_000]);
    folder.write("first", vec![2; 100_000]);
    folder
}

fn oden(lan: &Lan) -> Firmware {
    lan.attach("oden", "10.77.0.50/24");
    Firmware::new("oden", ODEN, Ipv4Addr::new(10, 77, 0, 50))
}

fn loke(lan: &Lan) -> Firmware {
    lan.attach("loke", "10.77.0.52/24");
    Firmware::new("loke", LOKE, Ipv4Addr::new(10, 77, 0, 52))
}

/// A neighbour with a card and an address of his own.
fn neighbour(lan: &Lan) -> Firmware {
    lan.attach("evil", "10.77.0.66/24");
    Firmware::new("evil", EVIL, Ipv4Addr::new(10, 77, 0, 66))
}

/// The neighbour, with a machine's address as the source of his datagrams. He does not answer ARP for it.
fn forger(victim: &Firmware) -> Firmware {
    run("ip", &["-n", "evil", "addr", "add", &format!("{}/32", victim.address), "dev", "lo"]);
    let quiet =
        "cd /proc/sys/net/ipv4/conf && echo 1 > all/arp_ignore && echo 2 > all/arp_announce";
    run("ip", &["netns", "exec", "evil", "sh", "-c", quiet]);
    Firmware::new("evil", EVIL, victim.address).in_the_name_of(victim.mac)
}

/// Nobody who forges the source of a datagram sees the answer to it.
#[test]
fn requests_over_tftp_with_a_forged_source_open_no_boot_end_none_and_use_up_no_secret() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (oden(&lan), neighbour(&lan));
        let evil = evil.in_the_name_of(ODEN);
        let forger = forger(&machine);
        let forge = |fetches: usize| {
            for _ in 0..fetches {
                let own = rrq(format!("{}.ipxe", forger.hyphenated()).as_bytes(), &[]);
                forger.socket(0).send_to(&own, ("10.77.0.2", 69)).unwrap();
            }
            thread::sleep(Duration::from_millis(100));
        };
        machine.loads_ipxe();
        forge(12);
        let script = machine.script("");
        evil.take_lease(IPXE);
        forge(12);
        machine.fetch_all_of(&script);
        appliance.wait_for("fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");

        // An iPXE without HTTP boots among them too, once those to its address have made room.
        thread::sleep(Duration::from_millis(1100));
        folder.reveille(&["arm", "oden"]);
        machine.loads_ipxe();
        forge(3);
        let name = format!("{}.ipxe", machine.hyphenated());
        let script = machine.script_over_tftp(&name);
        evil.take_lease(IPXE);
        forge(3);
        machine.fetch_all_of(&script);
        appliance.wait_for("fetched linux/initrd over TFTP");
        assert_eq!(folder.next("oden"), "done");
    });
}

/// An operator who notices that he has mixed up two machines.
#[test]
fn two_machines_that_change_names_keep_what_they_have_installed() {
    in_lab!(|lan| {
        let config = CONFIG.replace("profile: talos }", "profile: install }");
        let folder = folder(&config);
        let mut appliance = Appliance::start(&folder);
        let (oden, loke) = (oden(&lan), loke(&lan));
        oden.installs(&mut appliance);
        loke.discover(ROM);
        assert_eq!([folder.next("oden"), folder.next("loke")], ["done", "first"]);
        let swapped = config
            .replace("77:00:10", "swap")
            .replace("77:00:12", "77:00:10")
            .replace("swap", "77:00:12");
        folder.write("config.yaml", swapped);
        appliance.signal("HUP");
        appliance.wait_for("config: reloaded");
        oden.loads_ipxe();
        let script = oden.script("");
        assert!(!script.contains("boots install"), "{script}");
    });
}

/// Every way that was thought of to write the address of something secret.
#[test]
fn no_spelling_of_a_url_or_a_name_gives_a_neighbour_a_secret() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let _appliance = Appliance::start(&folder);
        let (oden, loke, evil) = (oden(&lan), loke(&lan), neighbour(&lan));
        let mut ids = Vec::new();
        let mut files = Vec::new();
        for machine in [&oden, &loke, &evil] {
            machine.loads_ipxe();
            let script = machine.script("");
            ids.extend(script.split_once("&id=").map(|(_, rest)| rest[..32].to_owned()));
            if script.contains("/files/") {
                files.push(machine.files_of(&script));
            }
        }
        assert_eq!((ids.len(), files.len()), (3, 1), "all of them have a boot open");
        let [.., own_id] = ids.as_slice() else { panic!("the neighbour has a boot of his own") };
        let file_id = files[0].rsplit('/').next().unwrap();
        let own = evil.hyphenated();

        let mut paths = vec![
            "/omni.token".to_owned(),
            "/images/../omni.token".to_owned(),
            "/images/..%2fomni.token".to_owned(),
            "/images/%2e%2e/omni.token".to_owned(),
            "/nbp/../omni.token".to_owned(),
            "/nbp/..%5comni.token".to_owned(),
            "/nbp//etc/passwd".to_owned(),
            format!("{}/preseed.cfg", files[0]),
            format!("{}/PRESEED.CFG", files[0]),
            format!("/files/{own}/{file_id}/preseed.cfg"),
            format!("/files/{}/preseed.cfg", oden.hyphenated()),
            format!("/files/{}/{own_id}/preseed.cfg", oden.hyphenated()),
            format!("/files/{}/{}/preseed.cfg", oden.hyphenated(), "0".repeat(32)),
            "/files/oden/preseed.cfg".to_owned(),
        ];
        for machine in [&oden, &loke] {
            let mac = machine.hyphenated();
            for mac in
                [mac.clone(), mac.to_uppercase(), mac.replace('-', ":"), mac.replace('-', "")]
            {
                for path in [
                    format!("/boot/{mac}.ipxe"),
                    format!("//boot/{mac}.ipxe"),
                    format!("/./boot/{mac}.ipxe"),
                    format!("/boot/../boot/{mac}.ipxe"),
                    format!("/boot/%2e%2e/boot/{mac}.ipxe"),
                    format!("/BOOT/{mac}.ipxe"),
                    format!("/boot/{mac}.ipxe/"),
                    format!("/boot/{mac}.ipxe%00"),
                    format!("/boot/{mac}.ipxe;x"),
                    format!("/boot/{mac}.ipxe#x"),
                    format!("/boot/{mac}"),
                    format!("/boot/boot-{own_id}/{mac}.ipxe"),
                    format!("/nbp/{mac}.ipxe"),
                    format!("/nbp/boot-{own_id}/{mac}.ipxe"),
                    format!("/boot/{mac}.ipxe?mac={own}&id={own_id}"),
                    format!(
                        "/boot/{mac}.ipxe?uuid=&serial=&product=&vendor=&id={own_id}&id={}",
                        ids[0]
                    ),
                    format!("/boot/{mac}.ipxe?uuid=&serial=CZ12345678&mac={mac}&profile=talos"),
                    format!("/boot/{own}.ipxe?mac={mac}&uuid=&serial=&product=&vendor="),
                    format!("/boot/{own}.ipxe?mac={own}&mac={mac}&uuid=&id={}", ids[1]),
                ] {
                    paths.push(path);
                }
            }
        }
        let urls: Vec<String> =
            paths.iter().map(|path| format!("http://10.77.0.2:8080{path}")).collect();
        let ways: [&[&str]; 11] = [
            &[],
            &["--user-agent", "iPXE/1.21.1"],
            &["--user-agent", "iPXE/1.21.1 (reveille simulate)"],
            &["--user-agent", "iPXE/1.21.1", "--range", "0-"],
            &["--user-agent", "iPXE/1.21.1", "--range", "5-40"],
            &["--user-agent", "iPXE/1.21.1", "--http1.0", "--header", "Host:"],
            &["--user-agent", "iPXE/1.21.1", "--header", "X-Forwarded-For: 10.77.0.52"],
            &["--user-agent", "iPXE/1.21.1", "--header", "Forwarded: for=10.77.0.50"],
            &["--user-agent", "iPXE/1.21.1", "--request", "OPTIONS"],
            &["--user-agent", "iPXE/1.21.1", "--request", "POST", "--data", "id=1"],
            &["--user-agent", "iPXE/1.21.1", "--request", "TRACE"],
        ];
        let is_harmless = |how: &str, answer: &str| {
            for secret in [TOKEN, PASSWORD].into_iter().chain(ids[..2].iter().map(String::as_str)) {
                assert!(!answer.contains(secret), "{how}: {secret}: {answer}");
            }
        };
        for way in ways {
            let mut arguments = [way, &["--path-as-is", "--globoff", "--include"]].concat();
            arguments.extend(urls.iter().map(String::as_str));
            let output = evil.curl(&arguments);
            let text =
                String::from_utf8_lossy(&output.stdout).replace(&format!("&id={}", ids[1]), "");
            assert!(text.matches("HTTP/1.").count() >= urls.len(), "{way:?}: {text}");
            is_harmless(&format!("{way:?}"), &text);
        }
        let absolute = format!("http://10.77.0.2:8080/boot/{}.ipxe", loke.hyphenated());
        for host in ["10.77.0.2", "10.77.0.52", "127.0.0.1", "localhost"] {
            let header = format!("Host: {host}");
            let output = evil.curl(&[
                "--user-agent",
                "iPXE/1.21.1",
                "--request-target",
                &absolute,
                "--header",
                &header,
                "http://10.77.0.2:8080/",
            ]);
            is_harmless(host, &String::from_utf8_lossy(&output.stdout));
        }

        for machine in [&oden, &loke] {
            let mac = machine.hyphenated();
            for name in [
                format!("{mac}.ipxe"),
                format!("\\BOOT\\{}.IPXE", mac.to_uppercase()),
                format!("C:\\x\\{mac}.ipxe"),
                format!("tftp://10.77.0.52/boot/{mac}.ipxe"),
                format!("http://10.77.0.2:8080/boot/{mac}.ipxe"),
                format!("boot-{own_id}/{mac}.ipxe"),
                format!("boot-{}/{mac}.ipxe", ids[0]),
                format!("boot-{}/boot/{mac}.ipxe", ids[1]),
                format!("{mac}.ipxe?uuid=&id={}", ids[1]),
                format!("files/{mac}/preseed.cfg"),
                files[0].clone() + "/preseed.cfg",
                files[0][1..].to_owned() + "/preseed.cfg",
                "answers".to_owned(),
                "preseed.cfg".to_owned(),
                "omni.token".to_owned(),
                "./omni.token".to_owned(),
                "../omni.token".to_owned(),
                "images/../omni.token".to_owned(),
                "talos/../../omni.token".to_owned(),
                "pxelinux.cfg/default".to_owned(),
                format!("pxelinux.cfg/01-{mac}"),
                format!("grub/grub.cfg-01-{mac}"),
                "/etc/passwd".to_owned(),
            ] {
                let own = socket(&evil);
                let answer = ask(&own, &rrq(name.as_bytes(), &[]));
                let text = match answer.0[..2] {
                    [0, 3] => finish(&own, answer),
                    _ => answer.0,
                };
                is_harmless(&name, &String::from_utf8_lossy(&text));
            }
        }
        // And those whose they are have them all the same.
        assert!(loke.script("").contains(TOKEN));
        let answers = oden.fetch(&format!("http://10.77.0.2:8080{}/preseed.cfg", files[0]));
        assert_eq!(String::from_utf8(answers).unwrap(), PASSWORD);
    });
}

/// Whoever may read the log, or is shown a machine, cannot speak for it.
#[test]
fn no_id_of_a_boot_appears_in_the_log_the_events_or_what_the_commands_print() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let machine = oden(&lan);
        machine.loads_ipxe();
        let script = machine.script("");
        let id = script.split_once("&id=").unwrap().1[..32].to_owned();
        let files = machine.files_of(&script);
        let file_id = files.rsplit('/').next().unwrap().to_owned();
        let http = |path: &str| format!("http://10.77.0.2:8080{path}");
        // What fails is logged by its name.
        for name in ["gone/kernel", "linux/gone", "x", "../x"] {
            machine.curl(&["--path-as-is", &format!("tftp://10.77.0.2/boot-{id}/{name}")]);
            machine.curl(&["--path-as-is", &http(&format!("/images/{name}?id={id}"))]);
            machine.curl(&["--path-as-is", &http(&format!("/nbp/boot-{id}/{name}"))]);
            machine.curl(&["--path-as-is", &http(&format!("{files}/{name}"))]);
        }
        machine.curl(&["--referer", "x", &http(&format!("{files}/preseed.cfg"))]);
        machine.curl(&["--header", "Host: x", &http(&format!("{files}/preseed.cfg"))]);
        machine.fetch(&http(&format!("{files}/preseed.cfg")));
        machine.fetch(&format!("tftp://10.77.0.2/boot-{id}/images/linux/kernel"));
        machine.fetch_all_of(&script);
        appliance.wait_for("fetched linux/initrd over HTTP");
        let mut shown = vec![appliance.log()];
        for command in [
            &["machine", "oden"][..],
            &["machine", "oden", "--json"],
            &["machines"],
            &["machines", "--json"],
            &["events"],
            &["events", "--json"],
            &["status", "--json"],
            &["render", "oden"],
        ] {
            let mut ran = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
            let output = ran.args(command).in_folder(folder.path()).output().unwrap();
            shown.push(String::from_utf8([output.stdout, output.stderr].concat()).unwrap());
        }
        for text in shown {
            for id in [&id, &file_id] {
                let line = text.lines().find(|line| line.contains(id.as_str()));
                assert_eq!(line, None);
            }
        }
    });
}

/// A text that would end a line, colour it, or turn it round.
const HOSTILE: &str = "a\u{1b}[31m\u{202e}b\u{2066}\u{2028}\u{200b}\u{feff}\u{85}";

#[test]
fn nothing_that_a_neighbour_sends_writes_a_line_of_its_own_or_hides_one() {
    in_lab!(|lan| {
        let folder = folder(&CONFIG.replace("machines:", "unknown: menu\nmachines:"));
        let mut appliance = Appliance::start(&folder);
        let (_oden, evil) = (oden(&lan), neighbour(&lan));
        let line = format!("{HOSTILE}\r\n2026-01-01T00:00:00.000000Z  INFO oden: INJECTED");
        let encoded: String = line.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let (in_hex, own) = (hexhyp(&line), evil.hyphenated());
        evil.loads_ipxe();
        for path in [
            format!(
                "/boot/{own}.ipxe?uuid={encoded}&serial_hex={in_hex}&product={encoded}&vendor={encoded}&platform={encoded}&arch={encoded}&profile={encoded}"
            ),
            format!("/boot/52-54-00-77-00-10.ipxe?uuid=&serial={encoded}&product_hex={in_hex}"),
            format!("/boot/{encoded}.ipxe"),
            format!("/nbp/{encoded}"),
            format!("/nbp/{encoded}/autoexec.ipxe"),
            format!("/images/{encoded}/{encoded}"),
            format!("/files/{own}/{encoded}/{encoded}"),
            format!("/{encoded}"),
        ] {
            let url = format!("http://10.77.0.2:8080{path}");
            evil.fetch_as_ipxe(&url);
            evil.curl(&["--referer", "x", &url]);
            evil.curl(&["--header", &format!("Host: {HOSTILE}"), &url]);
            evil.curl(&["--user-agent", &format!("iPXE/{HOSTILE}"), &url]);
        }
        for name in [line.clone(), format!("{line}/autoexec.ipxe"), format!("x/{line}")] {
            let own = socket(&evil);
            own.send_to(&rrq(name.as_bytes(), &[]), ("10.77.0.2", 69)).unwrap();
            own.send_to(
                &rrq(b"undionly.kpxe", &[("blksize", &line), (&line, "1")]),
                ("10.77.0.2", 69),
            )
            .unwrap();
            own.send_to(&[b"\0\x01x\0", line.as_bytes(), b"\0"].concat(), ("10.77.0.2", 69))
                .unwrap();
            let error = [b"\0\x05\0\0", line.as_bytes(), b"\0"].concat();
            let (_, from) = ask(&own, &rrq(b"undionly.kpxe", &[]));
            own.send_to(&error, from).unwrap();
        }
        let class = format!("PXEClient:Arch:00000:{line}");
        for code in [12, 17, 43, 60, 66, 67, 77, 97, 175] {
            let class = class.as_bytes();
            let hostile: &[(u8, &[u8])] = match code {
                60 => &[(60, class), (93, &[0, 0])],
                code => &[(60, b"PXEClient"), (93, &[0, 0]), (code, line.as_bytes())],
            };
            evil.discover(hostile);
        }
        let mut log = appliance.log();
        for command in [&["machines"][..], &["machine", &own], &["events"], &["events", "--json"]] {
            log += &folder.reveille(command);
        }
        assert!(log.contains("INJECTED"), "it is shown");
        let is_hidden = |c: char| c.is_control() || HOSTILE[1..].contains(c) && !c.is_ascii();
        for line in log.lines() {
            assert!(!line.contains(is_hidden), "{line:?}");
            assert!(!line.starts_with("2026-01-01"), "{line:?}");
        }
    });
}

/// The neighbour has the address of no machine, and yet he knows all that DHCP and its URLs show.
#[test]
fn an_id_is_worth_nothing_in_another_boot_of_its_machine_or_for_another_machine() {
    in_lab!(|lan| {
        let folder = folder(&CONFIG.replace("profile: talos }", "profile: install }"));
        let mut appliance = Appliance::start(&folder);
        let (oden, loke) = (oden(&lan), loke(&lan));
        oden.loads_ipxe();
        let first = oden.script("");
        loke.loads_ipxe();
        let other = loke.script("");
        // A second power-on: what is fetched with the first id is of no boot.
        oden.loads_ipxe();
        let second = oden.script("");
        let id = |script: &str| script.split_once("&id=").unwrap().1[..32].to_owned();
        assert_ne!(id(&first), id(&second));
        oden.fetch_all_of(&first);
        oden.fetch_all_of(&second.replace(&id(&second), &id(&other)));
        loke.fetch_all_of(&second.replace("77:00:10", "77:00:12"));
        appliance.wait_for("loke (52:54:00:77:00:12): fetched linux/initrd");
        assert_eq!([folder.next("oden"), folder.next("loke")], ["first", "first"]);
        for (whose, script) in [(&loke, &second), (&oden, &other)] {
            let own = whose.files_of(&whose.script(""));
            let others =
                if script == &second { oden.files_of(script) } else { loke.files_of(script) };
            let id = others.rsplit('/').next().unwrap();
            let mixed = format!("/files/{}/{id}/preseed.cfg", whose.hyphenated());
            for path in [others, mixed] {
                let url = format!("http://10.77.0.2:8080{path}");
                let output = whose.curl(&["--fail", &url]);
                assert!(!output.status.success(), "{path}");
            }
            whose.fetch(&format!("http://10.77.0.2:8080{own}/preseed.cfg"));
        }
        oden.fetch_all_of(&second);
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!([folder.next("oden"), folder.next("loke")], ["done", "first"]);
    });
}

/// He knows the machine's MAC, and sends whatever he likes in its name.
#[test]
fn what_a_neighbour_tells_of_a_machine_changes_neither_its_facts_nor_its_nbp() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        folder.write("nbps/snponly.efi", uefi_program(0x8664, "a"));
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (oden(&lan), neighbour(&lan).in_the_name_of(ODEN));
        let uefi: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00007:UNDI:003016"), (93, &[0, 7])];
        let lie = |ending: &str| {
            let own = evil.hyphenated();
            let facts =
                "uuid=11111111-2222-3333-4444-555555555555&serial=LIE&product=LIE&vendor=LIE";
            let url = format!("http://10.77.0.2:8080/boot/{own}.ipxe?{facts}{ending}");
            evil.fetch_as_ipxe(&url);
            evil.curl(&["--user-agent", "iPXE/1.21.1", "--head", &url]);
            evil.discover(uefi);
            evil.discover(&[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7]), (97, &[7; 17])]);
            evil.take_lease(uefi);
        };
        for ending in ["", "&profile=talos", "&boot=failed", "&disk=failed"] {
            lie(ending);
        }
        machine.loads_ipxe();
        lie("");
        let facts = "uuid=&serial=TRUE&product=P&vendor=V&platform=pcbios&arch=i386&cpu=x64&v2=yes";
        let own = machine.hyphenated();
        let url = format!("http://10.77.0.2:8080/boot/{own}.ipxe?{facts}");
        let (_, script) = machine.fetch_as_ipxe(&url);
        lie("&serial=LIE");
        machine.fetch_all_of(&script);
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        lie("");
        let story = folder.story("oden").to_string();
        assert!(story.contains("TRUE") && !story.contains("LIE"), "{story}");
        assert_eq!(folder.next("oden"), "done");
        assert_eq!(machine.discover(ROM).unwrap().file(), "undionly.kpxe");
        let log = appliance.log();
        assert!(log.contains("refused 10.77.0.66 its script"), "{log}");
    });
}

#[test]
fn a_simulation_of_a_machine_changes_nothing_of_it_whoever_runs_it() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (machine, evil) = (oden(&lan), neighbour(&lan));
        machine.installs(&mut appliance);
        folder.reveille(&["arm", "oden"]);
        let of = |story: &Value| {
            let machine = &story["machine"];
            ["next", "boots", "facts", "address", "last_seen", "alarm"]
                .map(|key| machine[key].clone())
        };
        let before = folder.story("oden");
        let mac = "52:54:00:77:00:10";
        for firmware in ["bios", "ipxe"] {
            let mut own = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
            own.args(["simulate", "--mac", mac, "--firmware", firmware]).in_folder(folder.path());
            let text = String::from_utf8(own.output().unwrap().stdout).unwrap();
            assert!(!text.contains("&id="), "{text}");
            let mut other = inside("evil", Path::new(env!("CARGO_BIN_EXE_reveille")));
            other.args(["simulate", "--interface", "eth0", "--mac", mac, "--firmware", firmware]);
            other.current_dir("/").output().unwrap();
        }
        let agent = "iPXE/1.21.1 (reveille simulate)";
        let own = machine.hyphenated();
        for ending in ["", "&boot=failed", "&disk=failed"] {
            let url = format!("http://10.77.0.2:8080/boot/{own}.ipxe?uuid=&serial=X{ending}");
            for host in [&machine, &evil] {
                host.curl(&["--user-agent", agent, &url]);
            }
        }
        assert_eq!(of(&folder.story("oden")), of(&before));
        assert_eq!(folder.next("oden"), "armed");
        machine.loads_ipxe();
        machine.fetch_all_of(&machine.script(""));
        appliance.wait_for("oden (52:54:00:77:00:10): fetched linux/initrd");
        assert_eq!(folder.next("oden"), "done");
    });
}

/// In another network namespace no port is taken.
#[test]
fn a_second_daemon_on_the_same_state_folder_does_not_start_and_the_first_serves_on() {
    in_lab!(|lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let machine = oden(&lan);
        let mut second = inside("router", Path::new(env!("CARGO_BIN_EXE_reveille")));
        second.arg("serve").in_folder(folder.path());
        let (code, log) = Appliance::spawn(second).ended();
        assert_ne!(code, Some(0));
        assert!(log.contains("another reveille runs with the state folder"), "{log}");
        machine.installs(&mut appliance);
        assert_eq!(folder.next("oden"), "done");
    });
}

/// Whoever knows a machine's MAC can send as if he were in the config.
#[test]
fn a_flood_in_the_name_of_a_machine_keeps_neither_it_nor_another_from_its_boot() {
    in_lab!(alone, |lan| {
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        let (oden, loke, evil) = (oden(&lan), loke(&lan), neighbour(&lan).in_the_name_of(ODEN));
        let is_over = AtomicBool::new(false);
        let sent = thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let (mut sent, socket) = (0, evil.socket(0));
                while !is_over.load(Ordering::Relaxed) && sent < 200_000 {
                    // Some 10,000 a second.
                    thread::sleep(Duration::from_millis(5));
                    for _ in 0..25 {
                        for kind in [1, 3] {
                            let datagram = evil.datagram(kind, Ipv4Addr::UNSPECIFIED, ROM);
                            socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).ok();
                            sent += 1;
                        }
                    }
                }
                sent
            });
            let begun = Instant::now();
            oden.installs(&mut appliance);
            // A REQUEST that was lost is sent again: the script that withholds the other has iPXE do so.
            let boots = (0..20).any(|_| {
                loke.loads_ipxe();
                thread::sleep(Duration::from_millis(500));
                loke.script("").contains(TOKEN)
            });
            assert!(boots);
            println!("both booted after {:?}", begun.elapsed());
            is_over.store(true, Ordering::Relaxed);
            flood.join().unwrap()
        });
        println!("in {sent} datagrams of a neighbour");
        assert_eq!(folder.next("oden"), "done");
    });
}

/// He names the relay of his network in a datagram of his own, which no relay has forwarded.
#[test]
fn a_host_of_another_network_is_not_taken_for_a_machine_by_naming_a_relay() {
    in_lab!(|lan| {
        let second = lan.behind_a_relay();
        let folder = folder(CONFIG);
        let mut appliance = Appliance::start(&folder);
        second.attach("far", "10.78.0.66/24");
        run("ip", &["-n", "far", "route", "add", "default", "via", "10.78.0.1"]);
        let far = Firmware::new("far", EVIL, Ipv4Addr::new(10, 78, 0, 66)).in_the_name_of(LOKE);
        let loke = loke(&lan);
        loke.loads_ipxe();
        let mut datagram = far.datagram(3, Ipv4Addr::UNSPECIFIED, IPXE);
        datagram[24..28].copy_from_slice(&[10, 78, 0, 1]);
        far.socket(0).send_to(&datagram, ("10.77.0.2", 67)).unwrap();
        appliance.wait_for("takes its lease");
        for _ in 0..3 {
            let script = far.script("");
            assert!(
                script.contains("no DHCP request of this machine has come through"),
                "{script}"
            );
            assert!(!script.contains(TOKEN), "{script}");
        }
        assert!(loke.script("").contains(TOKEN));
    });
}
