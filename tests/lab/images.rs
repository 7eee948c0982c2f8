//! Images that reveille fetches by itself: named by version and extensions, waited for, kept, verified.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::control::reveille;
use crate::in_lab;
use crate::journey::machine;
use crate::support::appliance::Folder;
use crate::support::factory::{Factory, Fault, Offers, Tls};
use crate::support::firmware::Firmware;
use crate::support::guest::{initramfs, kernel};
use crate::support::router::Ipv6;
use crate::support::{Appliance, Dhcp, Guest, InFolder, Machine, Router, run};

const TOKEN: &str = "w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD+/=";
const INITRD: &str = "http://10.77.0.2:8080/images/talos/initrd";

/// The config for a factory at this address; a profile of its own names each image.
fn config(factory: &str, images: &str) -> String {
    format!(
        "
server: {{ nbps: [/usr/lib/ipxe] }}
omni:
  homelab: {{ api: https://lab.omni.example, join_token: {{ file: ./secrets/homelab.token }} }}
images:
  talos:
    talos: {{ version: v1.11.2, extensions: [siderolabs/bnx2-bnx2x], factory: {factory} }}
    cmdline: [lab.image=1]
{images}
profiles:
  talos: {{ script: talos, image: talos, omni: homelab, cmdline: [console=ttyS0, -pti, init_on_alloc=0] }}
machines:
  bios: {{ mac: 52:54:00:77:00:01, profile: talos, ip: 10.77.0.91/24, gateway: 10.77.0.1, cmdline: [talos.hostname=bios] }}
  uefi: {{ mac: 52:54:00:77:00:02, profile: talos, cmdline: [talos.hostname=uefi] }}
  oden: {{ mac: 52:54:00:77:00:10, profile: talos }}
"
    )
}

/// The kernel line that it asks for, written out.
fn expected(host: &str, ip: &str) -> String {
    format!(
        "initrd=initrd talos.platform=metal lab.factory=1 \
         siderolink.api=https://lab.omni.example?jointoken=w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAVfCfSCD%2B%2F%3D \
         talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092 \
         lab.image=1 console=ttyS0 init_on_alloc=0 talos.hostname={host}{ip}"
    )
}

/// Debian's kernel, and an initramfs that prints its kernel line.
fn offers() -> Offers {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: Vec<u8>| (name.to_owned(), Arc::new(content));
    let line = "talos.platform=metal console=tty0 init_on_alloc=1 pti=on lab.factory=1\n";
    Offers {
        files: [
            file("kernel-amd64", fs::read(kernel()).unwrap()),
            file("initramfs-amd64.xz", fs::read(initramfs(folder.path())).unwrap()),
            file("cmdline-metal-amd64", line.into()),
        ]
        .into(),
        versions: ["v1.11.2", "v1.11.3", "v1.12.0-alpha.1"].map(str::to_owned).into(),
        extensions: ["siderolabs/bnx2-bnx2x"].map(str::to_owned).into(),
        ..Offers::default()
    }
}

/// A factory on the appliance's own loopback.
fn factory(offers: Offers, tls: Option<&Tls>) -> Factory {
    let bound = thread::spawn(|| {
        let namespace = File::open("/run/netns/appliance").unwrap();
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind("127.0.0.1:0").unwrap()
    });
    Factory::on(bound.join().unwrap(), offers, tls)
}

fn folder(config: &str) -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", config);
    folder.write("secrets/homelab.token", format!("{TOKEN}\n"));
    folder
}

fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The folder of the one set in the store.
fn set(folder: &Folder) -> PathBuf {
    let output = reveille(folder.path(), &["images", "--json"]);
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = rows.as_array().unwrap().iter().find(|row| row["image"] == "talos").unwrap();
    folder.path().join(row["folders"][0].as_str().unwrap())
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// What a machine gets under an address: the status, and the body.
fn get(firmware: &Firmware, url: &str) -> (u16, Vec<u8>) {
    let output =
        firmware.curl(&["--silent", "--output", "-", "--write-out", "%{stderr}%{http_code}", url]);
    (String::from_utf8(output.stderr).unwrap().trim().parse().unwrap(), output.stdout)
}

#[test]
fn bios_and_uefi_wait_for_an_image_that_is_named_by_version_and_boot_it_with_its_factory_gone_too()
{
    in_lab!(guests: 2, |lan| {
        let _router = Router::start(Dhcp::Dnsmasq, Ipv6::Announced);
        let tls = Tls::new("127.0.0.1");
        let factory = factory(offers(), Some(&tls));
        // The machines are there before the image is.
        factory.fault("initramfs", Fault::Hold(500_000), 1);
        let named = format!("{{ url: '{}', ca: ./ca.pem }}", factory.url);
        let folder = folder(&config(&named, ""));
        folder.write("ca.pem", &tls.ca);
        let mut appliance = Appliance::start(&folder);
        let ip = " ip=10.77.0.91::10.77.0.1:255.255.255.0:::off";
        let boots = |before: &[&str]| {
            let mut bios = Guest::power_on(&lan, Machine::Bios, "52:54:00:77:00:01");
            let mut uefi = Guest::power_on(&lan, Machine::Uefi, "52:54:00:77:00:02");
            for text in before {
                bios.wait_for(text);
                uefi.wait_for(text);
            }
            factory.mend();
            assert_eq!(bios.command_line(), expected("bios", ip));
            assert_eq!(uefi.command_line(), format!("kernel {}", expected("uefi", "")));
        };
        boots(&["waits for image talos", " % of "]);
        let log = appliance.log();
        for step in [
            "image talos is fetched from https://127.0.0.1:",
            "bios (52:54:00:77:00:01): waits for image talos, which is on its way",
            "image talos is here: Talos v1.11.2 amd64 with siderolabs/bnx2-bnx2x",
            "bios (52:54:00:77:00:01): fetched talos/initrd",
        ] {
            assert!(log.contains(step), "no `{step}`");
        }
        let waits = log.matches("bios (52:54:00:77:00:01): waits").count();
        let told_at_debug = log.matches("DEBUG bios (52:54:00:77:00:01): waits").count();
        assert_eq!(waits - told_at_debug, 1, "it is told once, however often it asks");
        for asked in factory.asked() {
            let text = format!("{asked:?}");
            assert!(!text.contains("w7uVuW3z") && !text.contains("lab.omni"), "{text}");
        }

        factory.go_away();
        drop(appliance);
        let _appliance = Appliance::start(&folder);
        boots(&[]);
    });
}

#[test]
fn a_daemon_that_is_ended_at_whatever_moment_shows_no_half_image_and_goes_on_where_it_was() {
    in_lab!(|lan| {
        let offers = Offers { has_ranges: true, ..offers() };
        let whole = Arc::clone(&offers.files["initramfs-amd64.xz"]);
        let factory = factory(offers, None);
        let folder = folder(&config(&factory.url, ""));
        let firmware = machine(&lan);
        for after in [0, 50, 150, 300, 450, 600] {
            factory.mend();
            factory.fault("/image/", Fault::Slow(100_000, Duration::from_millis(10)), 9);
            // It may begin before all else is ready.
            let mut appliance = Appliance::launch(&folder);
            appliance.wait_for("image talos is fetched");
            thread::sleep(Duration::from_millis(after));
            let (status, body) = get(&firmware, INITRD);
            match status {
                200 => assert_eq!(sum(&body), sum(&whole), "after {after} ms"),
                status => assert_eq!(status, 503, "after {after} ms"),
            }
            let is_asked = after % 100 == 50;
            appliance.signal(if is_asked { "TERM" } else { "KILL" });
            let (code, log) = appliance.ended();
            assert_eq!(code, is_asked.then_some(0), "after {after} ms: {log}");
            assert!(!log.contains("panicked"), "after {after} ms: {log}");
            let left = reveille(folder.path(), &["images"]);
            assert!(!told(&left).contains("panicked"), "{}", told(&left));
        }
        factory.mend();
        let mut appliance = Appliance::start(&folder);
        if !told(&reveille(folder.path(), &["images"])).contains("Talos v1.11.2 amd64") {
            appliance.wait_for("image talos is here");
        }
        let (status, body) = get(&firmware, INITRD);
        assert_eq!((status, sum(&body)), (200, sum(&whole)));
        let asked = factory.asked();
        let goes_on = asked.iter().any(|asked| asked.headers.contains_key("range"));
        assert!(goes_on, "it went on where it was broken off");
    });
}

#[test]
fn what_is_damaged_on_the_disk_is_never_served_and_fetched_again() {
    in_lab!(|lan| {
        let offers = offers();
        let whole = Arc::clone(&offers.files["initramfs-amd64.xz"]);
        let factory = factory(offers, None);
        let folder = folder(&config(&factory.url, ""));
        let firmware = machine(&lan);
        let mut appliance = Appliance::start(&folder);
        appliance.wait_for("image talos is here");
        assert_eq!(sum(&get(&firmware, INITRD).1), sum(&whole));
        drop(appliance);
        let path = set(&folder).join("initramfs.xz");
        let mut damaged = whole.to_vec();
        damaged[5000] ^= 1;
        fs::write(&path, &damaged).unwrap();
        factory.fault("/image/", Fault::Status(500, "", "no"), 99);

        // It may be seen before all else is ready.
        let mut appliance = Appliance::launch(&folder);
        let told_of = appliance.wait_for("is set aside and fetched again");
        assert!(told_of.contains("initramfs.xz has the SHA-256 "), "{told_of}");
        assert_eq!(get(&firmware, INITRD).0, 503);
        let headers =
            firmware.curl(&["--dump-header", "-", "--output", "/dev/null", INITRD]).stdout;
        let headers = String::from_utf8(headers).unwrap().to_lowercase();
        assert!(headers.contains("\r\nretry-after: 5\r\n"), "{headers}");
        let script = firmware.boots_to_its_script();
        assert!(script.contains("waits for image talos"), "{script}");
        appliance.wait_for("image talos: cannot fetch");
        let script = firmware.boots_to_its_script();
        assert!(script.contains("it cannot be fetched at the moment: cannot fetch"), "{script}");
        let status = told(&reveille(folder.path(), &["status"]));
        assert!(status.contains("waits for     talos: it cannot be fetched"), "{status}");
        factory.mend();
        let pulled = reveille(folder.path(), &["pull"]);
        assert!(pulled.status.success(), "{}", told(&pulled));
        assert_eq!(sum(&get(&firmware, INITRD).1), sum(&whole));
        let aside = path.parent().unwrap().with_file_name(".damaged-amd64");
        assert!(aside.join("initramfs.xz").exists());
        let pruned = told(&reveille(folder.path(), &["images", "prune"]));
        assert!(pruned.contains(".damaged-amd64 (damaged)"), "{pruned}");
        assert!(!aside.exists());
        assert_eq!(sum(&get(&firmware, INITRD).1), sum(&whole));
    });
}

#[test]
fn a_disk_that_is_full_is_told_and_what_is_there_serves_on() {
    in_lab!(|lan| {
        let offers = offers();
        let whole = Arc::clone(&offers.files["initramfs-amd64.xz"]);
        let kib = offers.files.values().map(|file| file.len()).sum::<usize>() / 1024;
        let factory = factory(offers, None);
        let folder = folder(&config(&factory.url, ""));
        let size = format!("size={}k", kib + kib / 2);
        let state = folder.path().join("state").display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &state]);
        let firmware = machine(&lan);
        let mut appliance = Appliance::start(&folder);
        appliance.wait_for("image talos is here");
        let more = "  newer: { talos: { version: v1.11.3, factory: FACTORY } }";
        let more = config(&factory.url, &more.replace("FACTORY", &factory.url));
        let more = more.replace("menu:", "");
        folder.write(
            "config.yaml",
            format!("{more}\nmenu: {{ profiles: [newer] }}\n")
                .replace("machines:", "  newer: { script: talos, image: newer }\nmachines:"),
        );
        let failed = appliance.wait_for("image newer: cannot fetch");
        assert!(failed.contains("images prune"), "{failed}");
        assert_eq!(sum(&get(&firmware, INITRD).1), sum(&whole));
        let images = told(&reveille(folder.path(), &["images"]));
        assert!(images.contains("not here: ") && images.contains("images prune"), "{images}");
        // Nobody needs the older one any more.
        let fewer = fs::read_to_string(folder.path().join("config.yaml")).unwrap();
        folder.write("config.yaml", fewer.replace("image: talos,", "image: newer,"));
        appliance.wait_for("profile talos: image talos -> newer");
        let pruned = told(&reveille(folder.path(), &["images", "prune"]));
        assert!(
            pruned.contains("removed: Talos v1.11.2 amd64 with siderolabs/bnx2-bnx2x"),
            "{pruned}"
        );
        let pulled = reveille(folder.path(), &["pull", "newer"]);
        assert!(pulled.status.success(), "{}", told(&pulled));
        let url = INITRD.replace("talos", "newer");
        assert_eq!(sum(&get(&firmware, &url).1), sum(&whole));
    });
}

#[test]
fn the_newest_release_is_looked_for_when_it_is_asked_for_and_a_command_without_a_daemon_does_the_same()
 {
    in_lab!(|_lan| {
        let factory = factory(offers(), None);
        let newest =
            format!("  newest: {{ talos: {{ version: latest, factory: {} }} }}", factory.url);
        let text = config(&factory.url, &newest)
            .replace("machines:", "  newest: { script: talos, image: newest }\nmachines:");
        let folder = folder(&format!("{text}\nmenu: {{ profiles: [newest] }}\n"));
        let outside = |arguments: &[&str]| {
            let program = Path::new(env!("CARGO_BIN_EXE_reveille"));
            let mut command = crate::support::inside("appliance", program);
            let output = command.args(arguments).in_folder(folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", told(&output));
            told(&output)
        };
        let pulled = outside(&["pull"]);
        assert!(pulled.contains("newest is here: Talos v1.11.3 amd64\n"), "{pulled}");
        assert!(
            pulled.contains("newest: fetching\n"),
            "lines where there is no terminal: {pulled}"
        );
        assert!(outside(&["pull"]).contains("newest is here: Talos v1.11.3 amd64, already\n"));
        let _appliance = Appliance::start(&folder);
        factory.change(|offers| offers.versions.push("v1.11.4".into()));
        assert!(outside(&["pull"]).contains("newest is here already\n"));
        let updated = outside(&["pull", "--update", "newest"]);
        assert!(updated.contains("newest is here: Talos v1.11.4 amd64\n"), "{updated}");
        let images = outside(&["images"]);
        assert!(images.contains("Talos v1.11.4 (latest) amd64"), "{images}");
        assert!(images.contains("no profile names it: `reveille images prune`"), "{images}");
        let dry = outside(&["images", "prune", "--dry-run"]);
        assert!(dry.contains("would be removed: Talos v1.11.3 amd64, "), "{dry}");
        let pruned = outside(&["images", "prune"]);
        assert!(pruned.contains("removed: 1 in all, "), "{pruned}");
        assert!(outside(&["images", "prune"]).contains("every image here is named by a profile"));
        let id = outside(&["schematic", "talos", "--id"]);
        assert_eq!(id, "fd096f676a0df013f9631767d26696f8cb5ba7b7d3921cd8781a061a7ce9016d\n");
        let yaml = outside(&["schematic", "talos", "--yaml"]);
        assert_eq!(format!("{}\n", hex(&sum(yaml.as_bytes()))), id);
        let unknown = reveille(folder.path(), &["pull", "newset"]);
        assert!(told(&unknown).contains("did you mean `newest`?"), "{}", told(&unknown));
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
