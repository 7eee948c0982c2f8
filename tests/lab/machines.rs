//! Machines over time: booted once and then from their disk, armed, brought on by another NBP; and what is
//! remembered of them, whatever ends the daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::boots::appliance_with;
use crate::in_lab;
use crate::scripts::{bios_disk, uefi_disk};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::guest::{Disk, Hardware};
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, InFolder, Lan, Machine, Router, inside, run};

const BIOS: &str = "52:54:00:77:00:01";
const UEFI: &str = "52:54:00:77:00:02";

const ONCE: &str = "
server: { nbps: [/usr/lib/ipxe] }
images: { linux: { kernel: ./images/linux, initrd: ./images/initramfs.gz } }
profiles:
  install: { script: linux, image: linux, boot: once, cmdline: [console=ttyS0, quiet, lab.once=1] }
  rescue: { script: linux, image: linux, cmdline: [console=ttyS0, quiet, lab.rescue=1] }
machines:
  bios: { mac: 52:54:00:77:00:01, profile: install }
  uefi: { mac: 52:54:00:77:00:02, profile: install }
";

/// Runs a command of the operator beside the daemon, or where it was.
pub fn reveille(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    command.args(arguments).in_folder(folder.path());
    command.output().unwrap()
}

pub fn done(folder: &Folder, arguments: &[&str]) -> String {
    let output = reveille(folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}{why}");
    text
}

pub fn machine(folder: &Folder, who: &str) -> Value {
    let story = done(folder, &["machine", who, "--json"]);
    serde_json::from_str::<Value>(&story).unwrap()["machine"].clone()
}

#[test]
fn a_machine_installs_once_lands_on_its_disk_and_boots_the_network_again_when_it_is_armed() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let (folder, mut appliance) = appliance_with(ONCE);
        let (bios, uefi) = (bios_disk(&folder), uefi_disk(&folder));
        for (name, kind, mac, disk) in [
            ("bios", Machine::Bios, BIOS, Disk::Image(&bios)),
            ("uefi", Machine::Uefi, UEFI, Disk::Folder(&uefi)),
        ] {
            let hardware = Hardware { disk: Some(disk), ..Hardware::default() };
            let on = || Guest::power_on_with(&lan, (kind, mac), hardware);
            let line = on().command_line();
            assert!(line.ends_with("console=ttyS0 quiet lab.once=1"), "{line}");
            let told = machine(&folder, name);
            assert_eq!((&told["boots"], &told["failures"]), (&1.into(), &0.into()), "{told}");
            assert_eq!(
                (&told["next"]["boots"], &told["next"]["because"]),
                (&"disk".into(), &"done".into())
            );

            let mut guest = on();
            guest.wait_for("goes to its local disk (exit)");
            guest.wait_for("lab: this is the disk");
            drop(guest);

            // By its MAC, as a switch writes it.
            let armed = done(&folder, &["arm", &mac.replace(':', "-").to_uppercase()]);
            assert!(armed.contains("next boot: profile install: it is armed"), "{armed}");
            let line = on().command_line();
            assert!(line.ends_with("lab.once=1"), "{line}");
            done(&folder, &["boot", name, "--profile", "rescue"]);
            let line = on().command_line();
            assert!(line.ends_with("lab.rescue=1"), "{line}");
            let mut guest = on();
            guest.wait_for("lab: this is the disk");
            drop(guest);
            let told = machine(&folder, name);
            assert_eq!((&told["boots"], &told["armed"]), (&3.into(), &0.into()), "{told}");
        }
        assert!(!appliance.log().contains("panicked"));
    });
}

#[test]
fn a_machine_whose_disk_does_not_boot_is_booted_by_the_network_again_and_that_is_told() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let (folder, mut appliance) = appliance_with(ONCE);
        let empty = folder.write("empty.img", vec![0; 1 << 20]);
        let hardware = Hardware { disk: Some(Disk::Image(&empty)), ..Hardware::default() };
        let on = || Guest::power_on_with(&lan, (Machine::Bios, BIOS), hardware);
        on().command_line();
        let mut guest = on();
        guest.wait_for("goes to its local disk (exit)");
        drop(guest);
        assert!(on().command_line().ends_with("lab.once=1"));
        let line = appliance.wait_for("stopped: it was sent to its local disk and was back in PXE");
        assert!(line.contains("bios (52:54:00:77:00:01)"), "{line}");
        let told = done(&folder, &["machine", "bios"]);
        assert!(told.contains("! stopped: it was sent to its local disk"), "{told}");

        // By sanboot iPXE itself finds out, and nobody has to power-cycle it.
        let sanboot = ONCE.replace("boot: once", "boot: once, local_boot: sanboot");
        folder.write("config.yaml", sanboot);
        appliance.wait_for("local_boot");
        let line = on().command_line();
        assert!(line.ends_with("lab.once=1"), "{line}");
        appliance.wait_for("stopped: iPXE could not start its local disk");
    });
}

/// Its firmware takes "go on with your boot order" from the first card to the second one: that is no disk that
/// failed.
#[test]
fn a_machine_with_two_cards_boots_once_and_then_its_disk_behind_both() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let both = ONCE
            .replace("52:54:00:77:00:01,", "[52:54:00:77:00:01, 52:54:00:77:01:01],")
            .replace("52:54:00:77:00:02,", "[52:54:00:77:00:02, 52:54:00:77:01:02],");
        let (folder, mut appliance) = appliance_with(&both);
        let (bios, uefi) = (bios_disk(&folder), uefi_disk(&folder));
        for (name, kind, mac, second, disk) in [
            ("bios", Machine::Bios, BIOS, "52:54:00:77:01:01", Disk::Image(&bios)),
            ("uefi", Machine::Uefi, UEFI, "52:54:00:77:01:02", Disk::Folder(&uefi)),
        ] {
            let second_card = Some(second);
            let hardware = Hardware { disk: Some(disk), second_card, ..Hardware::default() };
            let on = || Guest::power_on_with(&lan, (kind, mac), hardware);
            let line = on().command_line();
            assert!(line.ends_with("lab.once=1"), "{line}");
            let mut guest = on();
            guest.wait_for("lab: this is the disk");
            drop(guest);
            let told = machine(&folder, name);
            assert_eq!((&told["boots"], &told["failures"]), (&1.into(), &0.into()), "{told}");
            assert_eq!(told["next"]["because"], "done", "{told}");
        }
        let log = appliance.log();
        for second in ["(52:54:00:77:01:01)", "(52:54:00:77:01:02)"] {
            assert!(log.contains(&format!("{second}: runs its script")), "it asks, too: {log}");
        }
        assert!(!log.contains("stopped"), "{log}");
    });
}

#[test]
fn a_uefi_machine_whose_nbp_is_damaged_reaches_its_script_by_the_next_one() {
    in_lab!(guests: 1, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Silent);
        let config = ONCE.replace("nbps: [/usr/lib/ipxe]", "nbps: [./own]");
        let folder = Folder::new();
        let mut damaged = fs::read("/usr/lib/ipxe/snponly.efi").unwrap();
        // Its header says what it is; behind it there is nothing that runs.
        damaged[4096..].fill(0);
        folder.write("own/snponly.efi", damaged);
        fs::copy("/usr/lib/ipxe/ipxe.efi", folder.path().join("own/ipxe.efi")).unwrap();
        folder.write("config.yaml", config);
        fs::create_dir_all(folder.path().join("images")).unwrap();
        fs::copy(crate::support::guest::kernel(), folder.path().join("images/linux")).unwrap();
        crate::support::guest::initramfs(&folder.path().join("images"));
        let mut appliance = Appliance::start(&folder);
        for _ in 0..2 {
            let guest = Guest::power_on(&lan, Machine::Uefi, UEFI);
            appliance.wait_for("fetched snponly.efi over TFTP");
            drop(guest);
        }
        let line = Guest::power_on(&lan, Machine::Uefi, UEFI).command_line();
        assert!(line.ends_with("lab.once=1"), "{line}");
        let log = appliance.log();
        assert_eq!(log.matches("stopped: it has fetched snponly.efi").count(), 2, "{log}");
        assert!(log.contains("fetched ipxe.efi over TFTP"), "{log}");
        let nbp = machine(&folder, "uefi")["nbp"].to_string();
        assert!(nbp.contains("ipxe.efi (it brought it to its script"), "{nbp}");
        // And so it is after a restart.
        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));
        let _appliance = Appliance::start(&folder);
        let nbp = machine(&folder, "uefi")["nbp"].to_string();
        assert!(nbp.contains("ipxe.efi (it brought it to its script"), "{nbp}");
    });
}

const MACHINES: u8 = 50;

/// A config of many machines, with a kernel and an initrd of these sizes.
pub fn rack(kernel: usize, initrd: usize) -> Folder {
    let mut config = "
server: { nbps: [./nbps] }
images: { linux: { kernel: ./linux, initrd: ./first } }
profiles: { install: { script: linux, image: linux, boot: once, local_boot: sanboot } }
machines:
"
    .to_owned();
    for n in 0..MACHINES {
        config += &format!("  m{n}: {{ mac: '52:54:00:78:00:{n:02x}', profile: install }}\n");
    }
    let folder = Folder::new();
    folder.write("config.yaml", config);
    folder.write("nbps/undionly.kpxe", vec![0xea; 70_000]);
    folder.write("linux", vec![1; kernel]);
    folder.write("first", vec![2; initrd]);
    folder
}

/// What a simulated machine has come to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// It has fetched all.
    fetched: u64,
    /// It has begun to, and the daemon was killed: whether the last bytes were on their way, nobody knows.
    broken_off: u64,
    /// It was sent to its disk.
    at_disk: bool,
    /// That was before it had begun to fetch anything.
    is_unbooted: bool,
}

#[test]
fn a_daemon_that_is_killed_again_and_again_forgets_no_boot_that_it_has_told_and_no_order() {
    in_lab!(alone, |lan| {
        let machines: Vec<Firmware> = (0..MACHINES).map(|n| of_the_rack(&lan, n)).collect();
        let folder = rack(200_000, 500_000);
        let seen = Arc::new(Mutex::new(BTreeMap::<u8, Seen>::new()));
        // How often each was told to have fetched its last part, over all lives of the daemon.
        let mut told = BTreeMap::<u8, u64>::new();
        let mut ordered = BTreeMap::<u8, u64>::new();
        for round in 0..8_u64 {
            let appliance = Appliance::start(&folder);
            let is_over = AtomicBool::new(false);
            thread::scope(|scope| {
                for part in 0..5 {
                    let (seen, is_over, machines) = (Arc::clone(&seen), &is_over, &machines);
                    scope.spawn(move || {
                        for n in (0..MACHINES).filter(|n| n % 5 == part) {
                            if is_over.load(Ordering::Relaxed) {
                                break;
                            }
                            boot(&machines[usize::from(n)], &seen);
                        }
                    });
                }
                // Orders, while all this goes on.
                for n in [round as u8, 20 + round as u8] {
                    // It may be given, and the daemon killed before it says so.
                    *ordered.entry(n).or_default() += 1;
                    if reveille(&folder, &["arm", &format!("m{n}")]).status.success() {
                        seen.lock().unwrap().entry(n).or_default().at_disk = false;
                    }
                }
                thread::sleep(Duration::from_millis(300 + 350 * round));
                appliance.signal("KILL");
                is_over.store(true, Ordering::Relaxed);
            });
            for line in appliance.ended().1.lines() {
                let of = (0..MACHINES).find(|n| line.contains(&format!(" m{n} (")));
                if let Some(n) = of.filter(|_| line.contains("fetched linux/initrd over")) {
                    *told.entry(n).or_default() += 1;
                }
            }
        }
        let _appliance = Appliance::start(&folder);
        let machines: Vec<Value> =
            serde_json::from_str(&done(&folder, &["machines", "--json"])).unwrap();
        assert_eq!(machines.len(), usize::from(MACHINES));
        let seen = seen.lock().unwrap();
        let mut completed = 0;
        for told_of in machines {
            let n: u8 = told_of["name"].as_str().unwrap()[1..].parse().unwrap();
            let boots = told_of["boots"].as_u64().unwrap();
            let fetched = seen.get(&n).copied().unwrap_or_default().fetched;
            let told = told.get(&n).copied().unwrap_or_default();
            assert!(boots >= told, "m{n}: {told} boots were told, and {boots} are remembered");
            let broken_off = seen.get(&n).copied().unwrap_or_default().broken_off;
            assert!(
                boots <= fetched + broken_off,
                "m{n}: {boots} boots of {fetched}, {broken_off}"
            );
            let is_unbooted = seen.get(&n).is_some_and(|seen| seen.is_unbooted);
            assert!(!is_unbooted, "m{n} went to its disk unbooted");
            let ordered = ordered.get(&n).copied().unwrap_or_default();
            let is_disk = told_of["next"]["boots"] == "disk";
            // One boot for itself, and one for each order that was given when it had none.
            assert_eq!(is_disk, boots > 0 && told_of["armed"] == 0, "{told_of}");
            assert!(boots <= 1 + ordered, "{told_of}");
            completed += boots;
        }
        assert!(completed > u64::from(MACHINES) / 2, "the test has tested little: {completed}");
    });
}

pub fn of_the_rack(lan: &Lan, n: u8) -> Firmware {
    let (name, address) = (format!("m{n}"), Ipv4Addr::new(10, 77, 0, 100 + n));
    lan.attach(&name, &format!("{address}/24"));
    Firmware::new(&name, [0x52, 0x54, 0, 0x78, 0, n], address)
}

/// One boot of a machine, as far as the daemon lives.
pub fn boot(firmware: &Firmware, seen: &Mutex<BTreeMap<u8, Seen>>) {
    let n = firmware.mac[5];
    let mac = firmware.hyphenated();
    if seen.lock().unwrap().get(&n).is_some_and(|seen| seen.at_disk) {
        return;
    }
    firmware.powers_on();
    let get = |path: &str| {
        let url = format!("http://10.77.0.2:8080{path}");
        let output = firmware.curl(&["--fail", "--max-time", "5", &url]);
        output.status.success().then_some(output.stdout)
    };
    let Some(script) = get(&format!("/boot/{mac}.ipxe")) else {
        return;
    };
    let script = String::from_utf8(script).unwrap();
    if script.contains("goes to its local disk") {
        let mut seen = seen.lock().unwrap();
        let own = seen.entry(n).or_default();
        own.at_disk = true;
        own.is_unbooted |= own.fetched + own.broken_off == 0;
        return;
    }
    // A part of a file, and its head, are no boot.
    let [kernel, initrd] = images_of(&script);
    let url = format!("http://10.77.0.2:8080{initrd}");
    firmware.curl(&["--head", "--max-time", "5", &url]);
    firmware.curl(&["--range", "0-99", "--max-time", "5", &url]);
    let all = get(&kernel).and_then(|_| get(&initrd));
    let mut seen = seen.lock().unwrap();
    let own = seen.entry(n).or_default();
    match all {
        Some(_) => own.fetched += 1,
        None => own.broken_off += 1,
    }
}

/// The paths of kernel and initrd in a script.
fn images_of(script: &str) -> [String; 2] {
    ["kernel", "initrd"].map(|part| {
        let line = script.lines().find(|line| line.starts_with(&format!("{part} "))).unwrap();
        let url = line.split(' ').find(|word| word.starts_with("http://")).unwrap();
        url.strip_prefix("http://10.77.0.2:8080").unwrap().to_owned()
    })
}

#[test]
fn who_is_reset_at_the_end_of_its_download_has_not_booted_and_who_looks_at_its_script_boots_nothing()
 {
    in_lab!(|lan| {
        lan.attach("desk", "10.77.0.60/24");
        let folder = rack(1000, 8_000_000);
        let mut appliance = Appliance::start(&folder);
        let firmware = of_the_rack(&lan, 7);
        let mac = firmware.hyphenated();
        let script = format!("http://10.77.0.2:8080/boot/{mac}.ipxe");
        firmware.powers_on();
        let text = String::from_utf8(firmware.fetch(&script)).unwrap();
        let [kernel, initrd] = images_of(&text);
        let fetch = |path: &str| firmware.fetch(&format!("http://10.77.0.2:8080{path}"));
        fetch(&kernel);
        // The kernel of the appliance has all of it, and of the machine's a part.
        let mut line = firmware.connections(8080, 1).pop().unwrap();
        write!(line, "GET /images/linux/initrd?mac={mac} HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n")
            .unwrap();
        line.read_exact(&mut [0; 100_000]).unwrap();
        socket2::SockRef::from(&line).set_linger(Some(Duration::ZERO)).unwrap();
        drop(line);
        let told = appliance.wait_for("m7 (52:54:00:78:00:07): broke off linux/initrd");
        assert!(!told.contains(" at 8000000 of"), "{told}");
        assert_eq!(machine(&folder, "m7")["boots"], 0);

        fetch(&initrd);
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        let desk = Firmware::new("desk", [2; 6], Ipv4Addr::new(10, 77, 0, 60));
        for tail in ["", "?mac=1&boot=failed", "?mac=1&disk=failed"] {
            let shown = String::from_utf8(desk.fetch(&format!("{script}{tail}"))).unwrap();
            assert!(shown.contains("goes to its local disk"), "{shown}");
        }
        appliance.wait_for("m7 (52:54:00:78:00:07): showed its script to 10.77.0.60");
        let told = machine(&folder, "m7");
        assert_eq!((&told["boots"], &told["reached"]), (&1.into(), &"all".into()), "{told}");
        assert_eq!(told["address"], "10.77.0.107");
        // The machine itself may say so, with the id of its boot.
        let id = initrd.split("&id=").nth(1).unwrap();
        let script = firmware.fetch(&format!("{script}?mac=1&id={id}&boot=failed"));
        assert!(String::from_utf8(script).unwrap().contains("m7 boots install"));
        appliance
            .wait_for("stopped: it has all of image linux, and iPXE could not start the kernel");
        assert_eq!(machine(&folder, "m7")["boots"], 0);
    });
}

#[test]
fn a_registry_that_can_only_be_read_is_not_taken_for_none_and_is_written_once_it_can_be() {
    in_lab!(|lan| {
        let [seventh, eighth] = [7, 8].map(|n| of_the_rack(&lan, n));
        let folder = rack(1000, 1000);
        let state = folder.path().join("state");
        let at = state.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &at]);
        folder.permit_registry();
        let seen = Mutex::default();
        let mut appliance = Appliance::start(&folder);
        boot(&seventh, &seen);
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));

        // To read it SQLite would write beside it.
        let filling = state.join("filling");
        fs::write(&filling, vec![0; 2 << 20]).unwrap_err();
        let mut appliance = Appliance::launch(&folder);
        let line = appliance.wait_for("ERROR registry: ");
        assert!(line.contains("registry.db") && line.contains("machines boot"), "{line}");
        appliance.wait_for("ready");
        boot(&seventh, &seen);
        appliance.wait_for("m7 (52:54:00:78:00:07): runs its script: to its local disk");
        boot(&eighth, &seen);
        appliance.wait_for("m8 (52:54:00:78:00:08): fetched linux/initrd");
        // Its socket is gone, and it is there: what it would write over is not written.
        fs::remove_file(state.join("control.sock")).unwrap();
        let output = reveille(&folder, &["arm", "m7"]);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && why.contains("a reveille runs, and does not answer"),
            "{why}"
        );

        fs::remove_file(&filling).unwrap();
        appliance.wait_for("registry: what is remembered is written again");
        // What is told is written each second.
        thread::sleep(Duration::from_secs(3));
        appliance.signal("KILL");
        appliance.ended();
        for name in ["m7", "m8"] {
            assert_eq!(machine(&folder, name)["boots"], 1);
            let told = done(&folder, &["events", name]);
            assert!(told.contains("fetched linux/initrd"), "{told}");
        }
    });
}

#[test]
fn a_registry_that_is_damaged_is_put_aside_and_the_daemon_serves_on() {
    in_lab!(|lan| {
        let seventh = of_the_rack(&lan, 7);
        let folder = rack(1000, 1000);
        let seen = Mutex::default();
        let mut appliance = Appliance::start(&folder);
        boot(&seventh, &seen);
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));

        // Without a daemon the commands read what it left, say so, and write orders down.
        let output = reveille(&folder, &["machine", "m7"]);
        let (text, why) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(why.contains("no reveille runs; this is what is remembered in "), "{why}");
        assert!(text.contains("1 completed"), "{text}");
        assert!(text.contains("fetched linux/initrd over HTTP: 1000 bytes"), "{text}");
        let output = reveille(&folder, &["events", "m7"]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("m7  runs its script"));
        done(&folder, &["arm", "m7"]);
        let appliance = Appliance::start(&folder);
        assert_eq!(machine(&folder, "m7")["armed"], 1);
        appliance.signal("KILL");
        appliance.ended();

        let registry = folder.path().join("state/db/registry.db");
        let mut bytes = fs::read(&registry).unwrap();
        let len = bytes.len();
        bytes[100..len.min(5000)].fill(0x5a);
        fs::write(&registry, bytes).unwrap();
        for end in ["-wal", "-shm"] {
            fs::remove_file(folder.path().join(format!("state/db/registry.db{end}"))).ok();
        }
        let mut appliance = Appliance::launch(&folder);
        let line = appliance.wait_for("is damaged");
        assert!(line.contains("put aside as ") && line.contains("registry.db.damaged-"), "{line}");
        appliance.wait_for("ready");
        boot(&seventh, &seen);
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        let log = appliance.log();
        assert!(log.contains("registry.db.previous is used, which is "), "{log}");
        assert_eq!(machine(&folder, "m7")["boots"], 2, "the first one is in the copy");
    });
}

#[test]
fn a_hundred_thousand_invented_machines_take_little_memory_and_push_out_no_machine_of_the_config() {
    in_lab!(alone, |lan| {
        lan.attach("rack", "10.77.0.50/24");
        let folder = rack(1000, 1000);
        let mut appliance = Appliance::start(&folder);
        boot(&of_the_rack(&lan, 7), &Mutex::default());
        appliance.wait_for("m7 (52:54:00:78:00:07): fetched linux/initrd");
        let firmware = Firmware::new("rack", [2; 6], Ipv4Addr::new(10, 77, 0, 50));
        let options: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
        let invented = firmware.invent(100_000, &options);
        assert!(invented > 20_000, "the test has tested little: {invented} were answered");
        let status = fs::read_to_string(format!("/proc/{}/status", appliance.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < 128 << 10, "its memory peaked at {peak} KiB");
        assert!(status.contains("THP_enabled:\t0"), "{status}");
        let machines: Vec<Value> =
            serde_json::from_str(&done(&folder, &["machines", "--json"])).unwrap();
        assert!(machines.len() <= 10_000 + usize::from(MACHINES), "{}", machines.len());
        assert_eq!(machine(&folder, "m7")["boots"], 1);
        let told = done(&folder, &["events", "m7"]);
        assert!(told.contains("m7  fetched linux/initrd"), "{told}");
    });
}

#[test]
fn what_is_told_is_followed_until_nobody_reads_it_any_more() {
    in_lab!(|lan| {
        let [seventh, eighth] = [7, 8].map(|n| of_the_rack(&lan, n));
        let folder = rack(1000, 1000);
        let _appliance = Appliance::start(&folder);
        let mut command = inside("appliance", Path::new("timeout"));
        command.args(["60", env!("CARGO_BIN_EXE_reveille"), "events", "--follow", "m7"]);
        command.in_folder(folder.path());
        let mut events = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
        boot(&eighth, &Mutex::default());
        boot(&seventh, &Mutex::default());
        let last = lines.by_ref().map(Result::unwrap).find(|line| {
            assert!(line.contains("  m7  "), "{line}");
            line.contains("fetched linux/initrd")
        });
        assert!(last.is_some(), "it follows on while the daemon runs");
        drop(lines);
        // It finds out with the next that it would say.
        boot(&seventh, &Mutex::default());
        assert!(events.wait().unwrap().success());
    });
}
