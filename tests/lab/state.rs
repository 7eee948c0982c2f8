//! Where the state folder is, and what becomes of one that is lost.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, InFolder, Lan, inside, run};

const CONFIG: &str = "server: { nbps: [/usr/lib/ipxe] }
images: { deb: { kernel: ./linux, initrd: ./initrd } }
profiles: { deb: { script: debian, image: deb, boot: once } }
machines: { m1: { mac: 02:00:00:00:00:01, profile: deb } }
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", CONFIG);
    for name in ["linux", "initrd"] {
        folder.write(name, "x");
    }
    folder
}

/// As root without a state folder of its own: `/var/lib` is the lab's.
fn bare(at: &Path, arguments: &[&str]) -> Command {
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    for name in ["REVEILLE_CONFIG", "STATE_DIRECTORY", "XDG_STATE_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", at).args(arguments).current_dir(at);
    command
}

fn own_var_lib() {
    run("mount", &["-t", "tmpfs", "tmpfs", "/var/lib"]);
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn asked(at: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = bare(at, arguments).output().unwrap();
    (output.status.code(), text(&output))
}

fn reveille(folder: &Folder, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    let output = command.args(arguments).in_folder(folder.path()).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn an_order_from_another_folder_reaches_the_daemon_and_without_one_makes_no_state_folder() {
    in_lab!(|_lan| {
        own_var_lib();
        let (folder, elsewhere) = (folder(), tempfile::tempdir().unwrap());
        fs::remove_dir_all(folder.state()).unwrap();
        let config = folder.path().join("config.yaml").display().to_string();
        let order = ["boot", "m1", "--profile", "deb", "--config", &config];

        let (code, why) = asked(elsewhere.path(), &order);
        assert_eq!(code, Some(1), "{why}");
        for place in ["/var/lib/reveille (", &format!("{} (", folder.state().display())] {
            assert!(why.contains(place), "{why}");
        }
        for path in [Path::new("/var/lib/reveille"), &folder.state()] {
            assert!(!path.exists(), "{} was made", path.display());
        }
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);

        let mut daemon = Appliance::spawn(bare(folder.path(), &["serve"]));
        let line = daemon.wait_for("/var/lib/reveille held neither a registry nor the marker");
        assert!(line.contains("WARN") && line.contains("`reveille state accept"), "{line}");
        daemon.wait_for("ready");
        // By the config, and without any.
        let (code, told) = asked(elsewhere.path(), &order);
        assert_eq!(code, Some(0), "{told}");
        let (code, told) = asked(elsewhere.path(), &["machine", "m1", "--json"]);
        let story: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((code, &story["machine"]["armed"]), (Some(0), &1.into()), "{told}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        let (code, why) = asked(elsewhere.path(), &["arm", "m1", "--config", "gone.yaml"]);
        assert_eq!(code, Some(1));
        assert!(
            why.contains("cannot read the config file gone.yaml: there is no such file"),
            "{why}"
        );

        // Another one, of another user's place.
        let config = "server: { dhcp: off, tftp: off, http: { port: 9090 }, state: ./state }\n";
        folder.write("second.yaml", config);
        let second = bare(folder.path(), &["serve", "--config", "second.yaml"]);
        let mut second = Appliance::spawn(second);
        second.wait_for("ready");
        let (code, why) = asked(elsewhere.path(), &order);
        assert_eq!(code, Some(1));
        assert!(
            why.contains("2 daemons run, with the state folders /var/lib/reveille and "),
            "{why}"
        );
    });
}

#[test]
fn an_old_place_is_used_until_it_is_moved() {
    in_lab!(|_lan| {
        own_var_lib();
        let folder = folder();
        let daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
        daemon.signal("TERM");
        daemon.ended();

        let mut daemon = Appliance::spawn(bare(folder.path(), &["serve"]));
        let line = daemon.wait_for("state folder: the state folder is still ");
        daemon.wait_for("ready");
        let command = line.split('`').nth(1).unwrap().to_owned();
        assert_eq!(asked(folder.path(), &["status"]).0, Some(0));
        daemon.signal("TERM");
        daemon.ended();
        run("sh", &["-c", &command]);
        let mut daemon = Appliance::spawn(bare(folder.path(), &["serve"]));
        daemon.wait_for("ready");
        let log = daemon.log();
        assert!(!log.contains("WARN state folder"), "{log}");
        let (_, told) = asked(folder.path(), &["status"]);
        assert!(told.contains("state         /var/lib/reveille\n"), "{told}");
        let (_, told) = asked(folder.path(), &["machine", "m1", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["machine"]["armed"], 1);
    });
}

#[test]
fn a_state_folder_that_is_deleted_under_the_daemon_comes_back_with_its_socket() {
    in_lab!(|_lan| {
        let folder = folder();
        let mut daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
        fs::remove_dir_all(folder.state()).unwrap();
        let line = daemon.wait_for("registry.db was deleted while the daemon runs: all of it was");
        assert!(line.contains("ERROR registry: "), "{line}");
        let made_again = "control.sock was deleted, and is made again";
        if !daemon.log().contains(made_again) {
            daemon.wait_for(made_again);
        }
        let journal = "journal.db was deleted while the daemon runs: all of it was written again";
        if !daemon.log().contains(journal) {
            daemon.wait_for(journal);
        }
        assert_eq!(reveille(&folder, &["status"]).0, Some(0));
        daemon.signal("KILL");
        daemon.ended();
        let mut daemon = Appliance::start(&folder);
        let (_, told) = reveille(&folder, &["machine", "m1", "--json"]);
        let story: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(story["machine"]["armed"], 1);
        assert_eq!(story["events"].as_array().map(Vec::len), Some(1), "the order: {told}");
        let log = daemon.log();
        assert!(!log.contains(" is lost"), "{log}");
    });
}

#[test]
fn a_registry_that_is_damaged_under_the_daemon_is_reported_and_written_again_from_memory() {
    in_lab!(|_lan| {
        let folder = folder();
        let mut daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
        assert_eq!(reveille(&folder, &["state"]).0, Some(0));
        // As a bad sector does it: the file looks as it did.
        let path = folder.state().join("db/registry.db");
        let file = File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_at(&[0x5a; 4096], 0).unwrap();
        file.set_modified(modified).unwrap();
        let (code, told) = reveille(&folder, &["state"]);
        assert!(code == Some(1) && told.contains("registry.db is damaged: "), "{told}");
        let command = told.split('`').nth(1).unwrap();
        run("sh", &["-c", command]);
        daemon.wait_for("registry.db was deleted while the daemon runs");
        let (code, told) = reveille(&folder, &["state"]);
        assert!(code == Some(0) && told.contains("registry.db, 1 machine\n"), "{told}");
    });
}

#[test]
fn a_lost_registry_is_an_error_until_it_is_restored_or_accepted() {
    in_lab!(|_lan| {
        let folder = folder();
        let daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
        let backup = folder.path().join("backup.db");
        let (code, told) = reveille(&folder, &["backup", "backup.db"]);
        assert_eq!(code, Some(0), "{told}");
        assert_eq!(fs::metadata(&backup).unwrap().mode() & 0o777, 0o600);
        let (code, why) = reveille(&folder, &["backup", "backup.db"]);
        assert!(code == Some(1) && why.contains("--force"), "{why}");
        assert_eq!(reveille(&folder, &["backup", "--force", "backup.db"]).0, Some(0));
        let (code, why) = reveille(&folder, &["restore", "backup.db"]);
        assert!(code == Some(1) && why.contains("stop it first"), "{why}");
        daemon.signal("KILL");
        daemon.ended();

        let db = folder.state().join("db");
        fs::remove_dir_all(&db).unwrap();
        fs::create_dir(&db).unwrap();
        // As of an earlier daemon.
        fs::write(db.join("registry.db.damaged-1"), "").unwrap();
        let mut daemon = Appliance::start(&folder);
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("ERROR registry: ")).unwrap();
        for told in [
            "machines whose profile wipes hold",
            "`reveille restore FILE",
            "`reveille state accept",
        ] {
            assert!(line.contains(told), "{line}");
        }
        let (code, told) = reveille(&folder, &["status"]);
        assert!(code == Some(1) && told.contains("\nlost  "), "{told}");
        assert_eq!(reveille(&folder, &["state"]).0, Some(1));
        daemon.signal("KILL");
        daemon.ended();

        // It lasts.
        let daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["status"]).0, Some(1));
        let (code, told) = reveille(&folder, &["state", "accept"]);
        assert!(code == Some(0) && told.contains("accepted what was lost "), "{told}");
        assert_eq!(reveille(&folder, &["status"]).0, Some(0));
        daemon.signal("KILL");
        daemon.ended();
        let daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["status"]).0, Some(0));
        daemon.signal("TERM");
        daemon.ended();

        let (code, told) = reveille(&folder, &["restore", "backup.db"]);
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("registry.db.before-restore-"), "{told}");
        folder.write("broken.db", "no registry".repeat(1000));
        let (code, why) = reveille(&folder, &["restore", "broken.db"]);
        assert!(code == Some(1) && why.contains("nothing was changed"), "{why}");
        let _daemon = Appliance::start(&folder);
        assert_eq!(reveille(&folder, &["status"]).0, Some(0));
        let (_, told) = reveille(&folder, &["machine", "m1", "--json"]);
        assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["machine"]["armed"], 1);
    });
}

const RACK: &str = "server: { nbps: [./nbps] }
images: { linux: { kernel: ./linux, initrd: ./initrd } }
profiles:
  install: { script: linux, image: linux, boot: once, wipes: true }
  rescue: { script: linux, image: linux, wipes: false }
machines:
  m1: { mac: '52:54:00:79:00:01', profile: install }
  m2: { mac: '52:54:00:79:00:02', profile: install }
  m3: { mac: '52:54:00:79:00:03', profile: rescue }
";

/// A rack whose state folder is a small file system of its own.
fn rack_on_a_small_disk() -> Folder {
    let folder = folder();
    folder.write("config.yaml", RACK);
    folder.write("nbps/undionly.kpxe", vec![0xea; 70_000]);
    let at = folder.state().display().to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &at]);
    folder.permit_registry();
    folder
}

/// m1, m2 and m3 of the rack.
fn machines(lan: &Lan) -> [Firmware; 3] {
    [1, 2, 3].map(|n| {
        let name = format!("m{n}");
        lan.attach(&name, &format!("10.77.0.10{n}/24"));
        Firmware::new(&name, [0x52, 0x54, 0, 0x79, 0, n], Ipv4Addr::new(10, 77, 0, 100 + n))
    })
}

/// Leaves no block free.
fn fill(folder: &Folder) {
    let mut filling = File::create(folder.state().join("filling")).unwrap();
    while filling.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_start_on_a_full_disk_serves_and_writes_its_registry_once_there_is_room() {
    in_lab!(|lan| {
        let folder = rack_on_a_small_disk();
        let [m1, m2, m3] = machines(&lan);
        // The first start, and a later one.
        for (installer, is_first) in [(m1, true), (m2, false)] {
            fill(&folder);
            let mut daemon = Appliance::start(&folder);
            let log = daemon.log();
            let line = log.lines().find(|line| line.contains("ERROR registry: ")).unwrap();
            assert!(line.contains("the disk is full"), "{line}");
            assert!(!log.contains(" is lost"), "{log}");
            let (code, told) = reveille(&folder, &["status"]);
            assert!(code == Some(1) && told.contains("\nnot kept      "), "{told}");
            let (code, told) = reveille(&folder, &["state"]);
            assert!(code == Some(1) && told.contains("\nnot written   "), "{told}");

            let script = asks_for_its_script(&m3);
            assert!(script.contains("boots rescue"), "{script}");
            m3.fetch_all_of(&script);
            let script = asks_for_its_script(&installer);
            assert!(script.contains("reveille holds m"), "{script}");
            assert!(script.contains("the registry cannot be written"), "{script}");

            make_room(&folder);
            // An order does not wait for the next attempt, which comes by itself.
            if !is_first {
                assert_eq!(reveille(&folder, &["arm", "m2"]).0, Some(0));
            }
            daemon.wait_for("registry: what is remembered is written again");
            let script = asks_for_its_script(&installer);
            assert!(script.contains("boots install"), "{script}");
            assert_eq!(reveille(&folder, &["status"]).0, Some(0));
            assert_eq!(reveille(&folder, &["state"]).0, Some(0));
            daemon.signal("TERM");
            daemon.ended();
        }
        let mut daemon = Appliance::start(&folder);
        assert!(!daemon.log().contains(" is lost"), "all was written");
        let (_, told) = reveille(&folder, &["machine", "m3", "--json"]);
        assert_eq!(told.matches("fetched linux/initrd").count(), 2, "{told}");
    });
}

fn make_room(folder: &Folder) {
    fs::remove_file(folder.state().join("filling")).unwrap();
}

fn asks_for_its_script(machine: &Firmware) -> String {
    machine.loads_ipxe();
    machine.script("")
}

#[test]
fn a_boot_that_was_completed_on_a_full_disk_is_not_repeated_after_a_kill() {
    in_lab!(|lan| {
        let folder = rack_on_a_small_disk();
        let [m1, _, m3] = machines(&lan);
        for signal in ["KILL", "TERM"] {
            let mut daemon = Appliance::start(&folder);
            // Its first boot, and then one that is ordered.
            if signal == "TERM" {
                assert_eq!(reveille(&folder, &["state", "accept"]).0, Some(0));
                assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
            }
            let script = asks_for_its_script(&m1);
            assert!(script.contains("boots install"), "{script}");
            fill(&folder);
            // What is free in the log is used up at last.
            while !daemon.log().contains("what is remembered cannot be written") {
                m3.loads_ipxe();
            }
            m1.fetch_all_of(&script);
            daemon.wait_for("m1 (52:54:00:79:00:01): fetched linux/initrd");
            let (_, told) = reveille(&folder, &["machine", "m1", "--json"]);
            let story: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(story["machine"]["next"]["boots"], "disk", "{told}");
            daemon.signal(signal);
            daemon.ended();

            make_room(&folder);
            let (code, told) = reveille(&folder, &["state"]);
            assert!(code == Some(1) && told.contains("not all changes could be written"), "{told}");
            let mut daemon = Appliance::start(&folder);
            let log = daemon.log();
            let line = log.lines().find(|line| line.contains("ERROR registry: ")).unwrap();
            for told in ["not all changes could be written", "`reveille state accept"] {
                assert!(line.contains(told), "{line}");
            }
            let script = asks_for_its_script(&m1);
            assert!(script.contains("reveille holds m1"), "{script}");
            let (_, told) = reveille(&folder, &["machine", "m1"]);
            assert!(told.contains("last boot   held\n"), "{told}");
            let (code, told) = reveille(&folder, &["status"]);
            assert!(code == Some(1) && told.contains("\nheld          m1: "), "{told}");
            assert!(told.contains("`reveille disk m1` boots its disk"), "{told}");
            // Only an order that is given now counts.
            assert_eq!(reveille(&folder, &["disarm", "m1"]).0, Some(0));
            assert_eq!(reveille(&folder, &["arm", "m1"]).0, Some(0));
            assert!(asks_for_its_script(&m1).contains("boots install"));
            daemon.signal("TERM");
            daemon.ended();
        }
    });
}

#[test]
fn installers_hold_while_the_disk_is_full_and_boot_once_there_is_room() {
    in_lab!(|lan| {
        let folder = rack_on_a_small_disk();
        let [_, m2, m3] = machines(&lan);
        let mut daemon = Appliance::start(&folder);
        fill(&folder);
        while !daemon.log().contains("what is remembered cannot be written") {
            m3.loads_ipxe();
        }
        let script = asks_for_its_script(&m2);
        assert!(script.contains("reveille holds m2"), "{script}");
        assert!(script.contains("the registry cannot be written"), "{script}");
        assert!(script.contains("the disk is full"), "{script}");
        let script = asks_for_its_script(&m3);
        assert!(script.contains("boots rescue"), "{script}");
        // An order could be used twice.
        assert_eq!(reveille(&folder, &["arm", "m2"]).0, Some(1));
        assert!(asks_for_its_script(&m2).contains("reveille holds m2"));
        let (code, told) = reveille(&folder, &["status"]);
        assert_eq!(code, Some(1), "{told}");
        for row in ["\nnot kept      ", "m2: the registry cannot be written"] {
            assert!(told.contains(row), "{told}");
        }
        assert!(!told.contains("\nlost"), "{told}");
        let (code, told) = reveille(&folder, &["state"]);
        assert!(code == Some(1) && told.contains("\nnot written   "), "{told}");
        let (_, told) = reveille(&folder, &["machines"]);
        assert!(told.contains("nothing, it is held"), "{told}");

        make_room(&folder);
        daemon.wait_for("registry: what is remembered is written again");
        assert!(asks_for_its_script(&m2).contains("boots install"));
        assert_eq!(reveille(&folder, &["status"]).0, Some(0));
        daemon.signal("KILL");
        daemon.ended();
        let mut daemon = Appliance::start(&folder);
        assert!(!daemon.log().contains(" is lost"), "all was written");
        drop(daemon);

        // The operator may want it otherwise.
        let boots = RACK.replace("server: {", "server: { on_lost_state: boot,");
        folder.write("config.yaml", boots);
        let mut daemon = Appliance::start(&folder);
        fill(&folder);
        while !daemon.log().contains("what is remembered cannot be written") {
            m3.loads_ipxe();
        }
        assert!(asks_for_its_script(&m2).contains("boots install"));
    });
}
