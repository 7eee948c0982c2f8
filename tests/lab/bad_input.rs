//! What is missing, wrong or taken: the daemon says what, where and what would mend it, and serves on.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, InFolder, PATH, inside, run};

const NEEDY: &str = "\
server:
  nbps: [./nbps, ./more-nbps]
omni:
  lab:
    api: https://lab.omni.example
    join_token: { file: ./lab.token }
images:
  debian: { kernel: ./linux, initrd: ./gone.gz }
profiles:
  talos: { script: talos, image: talos, omni: lab }
  debian: { script: linux, image: debian }
  nixos: { script: nixos, wipes: false }
  fine: { script: linux, image: fine }
menu: { profiles: [] }
machines:
  one: { mac: 52:54:00:77:00:01, profile: talos }
  two: { mac: 52:54:00:77:00:02, profile: debian }
  three: { mac: 52:54:00:77:00:03, profile: nixos }
  four: { mac: 52:54:00:77:00:04, profile: fine }
";

fn needy_folder() -> Folder {
    let folder = folder();
    let images = "images:\n  talos: { kernel: ./linux }\n  fine: { kernel: ./linux }";
    folder.write("config.yaml", NEEDY.replacen("images:", images, 1));
    folder
}

fn script(firmware: &Firmware, last: u8) -> String {
    let url = format!("http://10.77.0.2:8080/boot/52-54-00-77-00-{last:02x}.ipxe");
    firmware.fetch_as_ipxe(&url).1
}

#[test]
fn what_is_missing_is_told_with_its_key_and_only_its_boots_are_refused() {
    in_lab!(|lan| {
        let folder = needy_folder();
        let mut appliance = Appliance::start(&folder);
        let log = appliance.log();
        let base = folder.path().display().to_string();
        for told in [
            format!("WARN config: ./config.yaml:2:18: server.nbps[1]: {base}/more-nbps: there is no such file"),
            format!("ERROR config: ./config.yaml:6:25: omni.lab.join_token.file: no join token: {base}/lab.token: there is no such file; boots that join lab are refused until it is there"),
            format!("WARN config: ./config.yaml:10:38: images.debian.initrd: {base}/gone.gz: there is no such file; boots of image debian are refused until it is there"),
            "ERROR config: ./config.yaml:14:20: profiles.nixos.script: boots of profile nixos are refused: there is no boot script named `nixos`".to_owned(),
        ] {
            assert!(log.contains(&told), "no `{told}` in\n{log}");
        }

        let machines = [1, 2, 3, 4].map(|last: u8| {
            let (name, address) = (format!("host{last}"), Ipv4Addr::new(10, 77, 0, 60 + last));
            lan.attach(&name, &format!("{address}/24"));
            Firmware::new(&name, [0x52, 0x54, 0, 0x77, 0, last], address)
        });
        let script = |number: usize| machines[number - 1].boots_to_its_script();
        let refused = |number, reason: &str| {
            let script = script(number);
            assert!(script.starts_with("#!ipxe\n"), "{script}");
            assert!(script.contains(reason), "no `{reason}` in\n{script}");
            assert!(!script.contains("\nkernel "), "{script}");
        };
        refused(1, "no join token for omni lab: ");
        refused(2, "gone.gz: there is no such file");
        refused(3, "there is no boot script `nixos.ipxe`");
        assert!(script(4).contains("\nkernel "));
        appliance.wait_for("WARN one (52:54:00:77:00:01): refused its boot: no join token");

        // An image that comes is served at once, a secret and a template when they are taken up.
        folder.write("gone.gz", "here");
        appliance.wait_for("image debian: initrd is there");
        assert!(script(2).contains("\nkernel "));
        folder.write("lab.token", "abcd\n");
        folder.write("boot-scripts/nixos.ipxe", "#!ipxe\necho {{ machine.name }}\n");
        appliance.wait_for("omni lab: join token is there");
        appliance.wait_for("template nixos: new");
        assert!(script(1).contains("?jointoken=abcd "));
        assert_eq!(script(3), "#!ipxe\necho three\n");
    });
}

#[test]
fn a_bad_reload_changes_nothing_and_is_told() {
    in_lab!(|lan| {
        let folder = needy_folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let before = script(&firmware, 4);
        for (config, told) in [
            ("machines: [", "config.yaml:"),
            ("machine: {}", "there is no key `machine`; did you mean `machines`?"),
            ("unknown: nowhere", "there is no profile named `nowhere`"),
        ] {
            folder.write("config.yaml", config);
            appliance.signal("HUP");
            appliance.wait_for("not reloaded, the last good one serves on");
            appliance.wait_for(told);
            assert_eq!(script(&firmware, 4), before);
        }
        let moved = folder.write("config.yaml", "server: { http: { port: 9090 } }\n");
        appliance.signal("HUP");
        appliance.wait_for("server.http.port: 8080 -> 9090 is taken up at the next start");
        let discover: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];
        let offer = firmware.discover(discover).unwrap().file();
        firmware.take_lease(discover);
        assert!(firmware.fetch(&offer).starts_with(b"#!ipxe"), "what is told is what is served");

        folder.write("config.yaml", "machine: {}");
        let before = script(&firmware, 4);
        std::fs::remove_file(moved).unwrap();
        appliance.signal("HUP");
        appliance.wait_for("cannot read the config file ./config.yaml: there is no such file");
        assert_eq!(script(&firmware, 4), before);
    });
}

#[test]
fn a_daemon_with_a_bad_config_says_everything_and_does_not_start() {
    in_lab!(|_lan| {
        let folder = Folder::new();
        folder.write("config.yaml", "server: { http: { port: 0 } }\nmachines: { a: { mac: b } }\n");
        let (code, log) = Appliance::launch(&folder).ended();
        assert_eq!(code, Some(1), "{log}");
        for told in [
            "config: ./config.yaml is not taken up",
            "./config.yaml:1:25: error: server.http.port: `0` is not a whole number from 1 to 65535",
            "./config.yaml:2:23: error: machines.a.mac: `b` is not a MAC address; write it like 5c:f3:fc:00:00:01",
            "./config.yaml:2:13: error: machines.a: `profile` is missing",
            "     2 | machines: { a: { mac: b } }\n       |                       ^",
        ] {
            assert!(log.contains(told), "no `{told}` in\n{log}");
        }
    });
}

#[test]
fn a_taken_port_is_told_with_who_has_it() {
    in_lab!(|_lan| {
        let folder = folder();
        for (arguments, told) in [
            (
                &["--dhcp-range=10.77.0.100,10.77.0.200", "--dhcp-leasefile=/run/leases"][..],
                "dnsmasq: `bind-dynamic` in its config",
            ),
            (&["--enable-tftp", "--tftp-root=/tmp"][..], "UDP port 69 is taken by dnsmasq"),
        ] {
            let mut other = inside("appliance", Path::new("/usr/sbin/dnsmasq"));
            other.args(["-d", "--conf-file=/dev/null", "--user=root", "--port=0", "--pid-file="]);
            let mut other = Appliance::spawn_other(other.args(arguments));
            other.wait_for("started");
            if arguments[0].contains("dhcp") {
                other.wait_for("DHCP, IP range");
            } else {
                other.wait_for("TFTP root");
            }
            let (code, log) = Appliance::launch(&folder).ended();
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains(told), "no `{told}` in\n{log}");
            assert!(log.contains(" is taken by dnsmasq (process "), "{log}");
        }
    });
}

#[test]
fn without_the_right_to_low_ports_the_capability_is_named() {
    in_lab!(|_lan| {
        let folder = folder();
        let mut command = inside("appliance", Path::new("setpriv"));
        command
            .args(["--bounding-set", "-net_bind_service", "--inh-caps", "-net_bind_service"])
            .args([env!("CARGO_BIN_EXE_reveille"), "serve"])
            .in_folder(folder.path())
            .env("PATH", PATH);
        let (code, log) = Appliance::spawn(command).ended();
        assert_eq!(code, Some(1), "{log}");
        let told = "UDP port 67 is not allowed for this user: run as root, or grant the capability: setcap cap_net_bind_service=+ep /";
        assert!(log.contains(told), "{log}");
    });
}

#[test]
fn no_datagram_stops_the_daemon() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let discover: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        let good = firmware.discover(discover).expect("it serves").datagram.len();
        let socket = firmware.socket(7000);
        let mut noise = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..3000_usize {
            let mut datagram: Vec<u8> = (0..round % 700)
                .map(|_| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    noise as u8
                })
                .collect();
            // Half of them look like the real thing at first sight.
            if round % 2 == 0 && datagram.len() > 250 {
                datagram[..3].copy_from_slice(&[1, 1, (round % 20) as u8]);
                datagram[236..240].copy_from_slice(&[99, 130, 83, 99]);
                datagram[240..243].copy_from_slice(&[53, 1, (round % 9) as u8]);
            }
            for port in [67, 69, 4011] {
                socket.send_to(&datagram, ("10.77.0.2", port)).unwrap();
            }
        }
        let again = firmware.discover(discover).expect("it serves on");
        assert_eq!(again.datagram.len(), good);
        assert_eq!(firmware.fetch("tftp://10.77.0.2/undionly.kpxe").len(), 74_213);
        let log = appliance.log();
        assert!(log.contains("dropped a malformed datagram from 10.77.0.50:7000 on eth0"), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        let told = log.matches("dropped a malformed datagram").count();
        assert!(told <= 4, "told {told} times: once a minute for each port is enough");
    });
}

#[test]
fn a_thousand_idle_connections_do_not_keep_machines_out() {
    in_lab!(alone, |lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
        let idle = firmware.connections(8080, 1100);
        assert_eq!(idle.len(), 1100);
        let discover: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];
        let offer = firmware.discover(discover).expect("DHCP answers");
        firmware.take_lease(discover);
        assert!(firmware.fetch(&offer.file()).starts_with(b"#!ipxe"));
        assert_eq!(firmware.fetch("tftp://10.77.0.2/undionly.kpxe").len(), 74_213);
    });
}

#[test]
fn a_log_whose_reader_stalls_holds_up_nothing() {
    in_lab!(|lan| {
        let folder = folder();
        let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        command.arg("serve").in_folder(folder.path()).env("REVEILLE_LOG", "debug");
        let mut daemon = command.stderr(Stdio::piped()).spawn().unwrap();
        let firmware = machine(&lan);
        // A pipe holds 64 KiB: a fraction of what these write.
        let discover: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        assert!(firmware.discover(discover).is_some());
        for _ in 0..1000 {
            firmware.take_lease(&[]);
        }
        assert_eq!(firmware.flood(discover), 1000);
        assert_eq!(firmware.fetch("tftp://10.77.0.2/undionly.kpxe").len(), 74_213);
        run("kill", &["-TERM", &daemon.id().to_string()]);
        assert_eq!(daemon.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_log_that_nobody_reads_any_more_stops_nothing() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        appliance.close_log();
        let firmware = machine(&lan);
        let discover: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        for _ in 0..3 {
            assert!(firmware.discover(discover).is_some());
            assert_eq!(firmware.fetch("tftp://10.77.0.2/undionly.kpxe").len(), 74_213);
        }
        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));
    });
}

#[test]
fn a_token_that_was_pasted_where_it_does_not_belong_is_not_repeated() {
    in_lab!(|_lan| {
        let folder = Folder::new();
        folder.write("lab.token", "siderolink.api=https://x?jointoken=hush talos.events.sink=y");
        folder.write(
            "config.yaml",
            "omni:\n  a: { api: 'siderolink.api=https://x?jointoken=hush', join_token: { file: lab.token } }\n\
             \x20 b: { api: https://x, join_token: { file: lab.token } }\n\
             images: { i: { kernel: k, cmdline: ['siderolink.api=x?jointoken=hush quiet'] } }\n",
        );
        let (_, log) = Appliance::launch(&folder).ended();
        assert!(log.contains("omni.a.api: `siderolink.api=https://x?jointoken=***`"), "{log}");
        assert!(log.contains("lab.token holds more than a token: only what follows"), "{log}");
        assert!(log.contains("images.i.cmdline[0]: "), "{log}");
        assert!(!log.contains("hush"), "{log}");
    });
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_up_nothing_else() {
    in_lab!(|lan| {
        let folder = folder();
        for name in ["nbps/ipxe.efi", "boot-scripts/linux.ipxe", "lab.token"] {
            let path = folder.write(name, "");
            std::fs::remove_file(&path).unwrap();
            run("mkfifo", &[&path.display().to_string()]);
        }
        let config = std::fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        let omni = "omni: { lab: { api: https://x, join_token: { file: lab.token } } }\n";
        folder.write("config.yaml", format!("{omni}{config}"));
        let mut appliance = Appliance::start(&folder);
        for told in ["nbps/ipxe.efi", "boot-scripts/linux.ipxe", "lab.token"] {
            assert!(appliance.log().contains(&format!("{told}: it is no regular file")), "{told}");
        }
        let firmware = machine(&lan);
        let nbp = folder.path().join("nbps/bin-x86_64-efi/snponly.efi");
        std::fs::remove_file(&nbp).unwrap();
        run("mkfifo", &[&nbp.display().to_string()]);
        let url = "tftp://10.77.0.2/bin-x86_64-efi/snponly.efi";
        assert!(!firmware.curl(&["--max-time", "5", url]).status.success());
        appliance.wait_for("snponly.efi: it is no regular file");
        assert_eq!(firmware.fetch("tftp://10.77.0.2/undionly.kpxe").len(), 74_213);
    });
}

#[test]
fn a_flood_of_machines_gets_one_offer_each() {
    in_lab!(alone, |lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        assert_eq!(firmware.flood(&[(60, b"PXEClient"), (93, &[0, 0])]), 1000);
        let told = appliance.log().matches(": offered undionly.kpxe").count();
        assert!((1..1000).contains(&told), "{told} lines of the log");
    });
}

#[test]
fn a_relay_is_answered_at_its_rate_and_no_address_that_a_forged_request_names() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let bios: &[(u8, &[u8])] = &[(60, b"PXEClient"), (93, &[0, 0])];
        let answers = firmware.relay(firmware.address, 200, bios);
        assert!((20..200).contains(&answers), "{answers} answers to one relay");
        appliance.wait_for("a relay that gets at most 20 answers a second");
        let own = Ipv4Addr::new(10, 77, 0, 2);
        let lan_broadcast = Ipv4Addr::new(10, 77, 0, 255);
        for (giaddr, why) in [
            (own, "would go to 10.77.0.2, which is an address of this host"),
            (lan_broadcast, "would go to 10.77.0.255, which is no address of one host"),
        ] {
            assert_eq!(firmware.relay(giaddr, 1, bios), 0, "{giaddr}");
            appliance.wait_for(why);
        }
        assert!(firmware.discover(bios).is_some());
    });
}

#[test]
fn it_stops_when_it_is_told_to() {
    in_lab!(|_lan| {
        for signal in ["TERM", "INT"] {
            let folder = Folder::new();
            let appliance = Appliance::start(&folder);
            appliance.signal(signal);
            let (code, log) = appliance.ended();
            assert_eq!(code, Some(0), "{log}");
            assert!(log.contains("stopped"), "{log}");
        }
    });
}

#[test]
fn the_command_line_explains_itself() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_reveille")).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, help) = run(&["serve", "--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("--config <FILE>") && help.contains("REVEILLE_CONFIG"), "{help}");
    let (code, text) = run(&["serve", "--config", "/nonexistent/config.yaml"]);
    assert_eq!(code, Some(1));
    let told = "cannot read the config file /nonexistent/config.yaml: there is no such file";
    assert!(text.contains(told), "{text}");
    let folder = Folder::new();
    let large = folder.write("config.yaml", "");
    std::fs::File::options().write(true).open(&large).unwrap().set_len(100 << 20).unwrap();
    let (code, text) = run(&["serve", "--config", large.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let told = "config.yaml: it has 104857600 bytes, a config may have 67108864 (64 MiB)";
    assert!(text.contains(told), "{text}");
}
