//! What changes in the config and in what it names, on real files under a running daemon.
//!
//! Each change ends in one reload: a second one of it would be counted with the next.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, InFolder, Lan, inside, run};
use crate::tftp::{ask, error_code, finish, receive, rrq, silent, socket};

/// The folder of every test, with a config whose one machine boots with this argument.
pub fn saying(argument: &str) -> String {
    format!(
        "server: {{ nbps: [./nbps] }}\n\
         omni: {{ lab: {{ api: https://lab.omni.example, join_token: {{ file: ./lab.token }} }} }}\n\
         images: {{ debian: {{ kernel: ./linux, initrd: [./first] }} }}\n\
         profiles:\n\
         \x20 debian: {{ script: linux, image: debian, omni: lab, cmdline: [{argument}], wipes: false }}\n\
         machines: {{ oden: {{ mac: 52:54:00:77:00:10, profile: debian }} }}\n\
         menu: {{ profiles: [] }}\n"
    )
}

/// A daemon, and how many configs it has taken up.
pub struct Running {
    pub folder: Folder,
    pub appliance: Appliance,
    pub firmware: Firmware,
    generation: u64,
}

impl Running {
    pub fn start(lan: &Lan) -> Self {
        let folder = folder();
        folder.write("config.yaml", saying("a=0"));
        folder.write("lab.token", "hush\n");
        folder.write("boot-scripts/own.ipxe", "#!ipxe\necho one\n");
        Self::start_in(lan, folder)
    }

    pub fn start_in(lan: &Lan, folder: Folder) -> Self {
        let appliance = Appliance::start(&folder);
        Self::of(lan, folder, appliance)
    }

    pub fn of(lan: &Lan, folder: Folder, appliance: Appliance) -> Self {
        Self { folder, appliance, firmware: machine(lan), generation: 1 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn script(&self) -> String {
        self.firmware.boots_to_its_script()
    }

    /// The same of a daemon that sees no DHCP: it shows the script.
    fn shown_script(&self) -> String {
        let own = self.firmware.hyphenated();
        let script = self.firmware.fetch(&format!("http://10.77.0.2:8080/boot/{own}.ipxe"));
        String::from_utf8(script).unwrap()
    }

    /// Waits until what has been done is taken up. It must be one reload, and the only one since the last.
    /// Returns what has changed.
    pub fn reloads_once(&mut self) -> String {
        let line = self.appliance.wait_for("config: reloaded from ");
        self.generation += 1;
        let status = status(self.folder.path()).1;
        assert_eq!(status["config"]["generation"], self.generation, "{}", self.appliance.log());
        let (_, changes) = line.split_once("config.yaml").unwrap();
        changes.trim_start_matches(": ").to_owned()
    }

    /// The machine's script has this argument now, and it took one reload.
    fn serves_once(&mut self, argument: &str) {
        self.applies_once(argument, Self::script);
    }

    fn applies_once(&mut self, argument: &str, script: fn(&Self) -> String) {
        let changes = self.reloads_once();
        assert!(changes.starts_with("profile debian: cmdline + "), "{changes}");
        let script = script(self);
        assert!(script.contains(&format!(" {argument} ||")), "{script}");
    }

    /// This is in the log, or comes into it.
    fn tells(&mut self, text: &str) {
        if !self.appliance.log().contains(text) {
            self.appliance.wait_for(text);
        }
    }

    /// Nothing of it was told as an error.
    pub fn had_no_errors(&mut self) {
        let log = self.appliance.log();
        assert!(!log.contains("ERROR"), "{log}");
    }
}

/// `reveille status --json`, and its exit code.
pub fn status(folder: &Path) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_reveille"))
        .args(["status", "--json"])
        .in_folder(folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.is_empty(), "{text}");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn however_a_config_is_written_it_is_one_reload() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        let config = running.path("config.yaml");
        assert!(running.script().contains(" a=0 ||"));

        running.folder.write("config.yaml", saying("a=1"));
        running.serves_once("a=1");

        // As vim, sed -i and Ansible do.
        fs::rename(running.folder.write("new", saying("a=2")), &config).unwrap();
        running.serves_once("a=2");

        // As editors do that keep the old one.
        fs::rename(&config, running.path("config.yaml~")).unwrap();
        running.folder.write("config.yaml", saying("a=3"));
        running.serves_once("a=3");

        let new = running.folder.write("new", saying("a=4"));
        run("cp", &[new.to_str().unwrap(), config.to_str().unwrap()]);
        running.serves_once("a=4");

        for n in 0..50 {
            running.folder.write("config.yaml", saying(&format!("b={n}")));
            running.folder.write("boot-scripts/own.ipxe", format!("#!ipxe\necho {n}\n"));
        }
        let changes = running.reloads_once();
        assert_eq!(changes, ", with these changes");
        running.appliance.wait_for("config: template own: changed");
        running.appliance.wait_for("config: profile debian: cmdline + b=49 - a=4");
        assert!(running.script().contains(" b=49 ||"));

        fs::remove_file(&config).unwrap();
        running.folder.write("config.yaml", saying("a=5"));
        running.serves_once("a=5");
        running.had_no_errors();
    });
}

/// A daemon whose config and token come as kubelet writes a volume: a hidden folder for each version, a link
/// to it that is replaced, and links through that one, which never change.
pub fn serve_config_map(folder: &Folder, argument: &str, token: &str) -> Appliance {
    fs::remove_file(folder.path().join("config.yaml")).unwrap();
    swap(folder, "..1", argument, token);
    for name in ["config.yaml", "lab.token"] {
        symlink(Path::new("..data").join(name), folder.path().join("map").join(name)).unwrap();
    }
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    command.args(["serve", "--config", "map/config.yaml"]).in_folder(folder.path());
    let mut appliance = Appliance::spawn(command);
    appliance.wait_for("ready");
    appliance
}

/// Its next version.
pub fn swap(folder: &Folder, version: &str, argument: &str, token: &str) {
    let config = saying(argument).replace("./lab.token", "lab.token").replace("./", "../");
    folder.write(&format!("map/{version}/config.yaml"), config);
    folder.write(&format!("map/{version}/lab.token"), token);
    let map = folder.path().join("map");
    symlink(version, map.join("..data_tmp")).unwrap();
    fs::rename(map.join("..data_tmp"), map.join("..data")).unwrap();
}

#[test]
fn a_config_map_that_is_swapped_is_one_reload() {
    in_lab!(|lan| {
        let folder = folder();
        let appliance = serve_config_map(&folder, "a=1", "1");
        let mut running = Running::of(&lan, folder, appliance);
        for (old, new, argument) in [("..1", "..2", "a=2"), ("..2", "..3", "a=3")] {
            let token = new.trim_matches('.');
            swap(&running.folder, new, argument, token);
            fs::remove_dir_all(running.path("map").join(old)).unwrap();
            assert_eq!(running.reloads_once(), ", with these changes");
            running.appliance.wait_for("config: omni lab: join token changed");
            let script = running.script();
            assert!(script.contains(&format!(" {argument} ||")), "{script}");
            assert!(script.contains(&format!("jointoken={token} ")), "{script}");
        }
        running.had_no_errors();
    });
}

#[test]
fn a_folder_that_is_removed_and_comes_back_is_one_reload_and_is_followed_on() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        for (n, name) in [(1, "boot-scripts"), (2, "nbps"), (3, "boot-scripts"), (4, "nbps")] {
            let aside = running.path("aside");
            run("cp", &["-r", running.path(name).to_str().unwrap(), aside.to_str().unwrap()]);
            fs::remove_dir_all(running.path(name)).unwrap();
            fs::rename(&aside, running.path(name)).unwrap();
            running.reloads_once();
            let template = format!("#!ipxe\necho {n}\n");
            running.folder.write("boot-scripts/own.ipxe", template);
            assert_eq!(running.reloads_once(), "template own: changed");
            running.folder.write(&format!("nbps/new-{n}.kpxe"), [0xea; 100]);
            assert_eq!(running.reloads_once(), format!("NBP new-{n}.kpxe: new"));
        }
        running.had_no_errors();
    });
}

/// NFS, overlays and hosts where it is used up: what a user namespace may have of it can be nothing.
#[test]
fn where_the_kernel_tells_of_no_changes_they_are_taken_up_all_the_same() {
    in_lab!(|_lan| {
        for limit in ["max_inotify_instances", "max_inotify_watches"] {
            let folder = folder();
            // Low ports belong to the namespace outside.
            let config = |argument: &str| {
                saying(argument).replace("server: {", "server: { dhcp: off, tftp: off,")
            };
            folder.write("config.yaml", config("a=0"));
            folder.write("lab.token", "hush\n");
            let start = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\" serve");
            let mut command = inside("appliance", Path::new("unshare"));
            command
                .args(["--user", "--map-root-user", "sh", "-c", &start])
                .arg(env!("CARGO_BIN_EXE_reveille"))
                .in_folder(folder.path());
            let mut appliance = Appliance::spawn(command);
            appliance.wait_for("INFO config: the kernel tells of no changes (");
            let firmware =
                Firmware::new("router", [0x52, 0x54, 0, 0x77, 0, 0x10], [10, 77, 0, 1].into());
            let mut running = Running { folder, appliance, firmware, generation: 1 };
            for n in 0..50 {
                running.folder.write("config.yaml", config(&format!("b={n}")));
            }
            running.applies_once("b=49", Running::shown_script);
            let new = running.folder.write("new", config("a=1"));
            fs::rename(new, running.path("config.yaml")).unwrap();
            running.applies_once("a=1", Running::shown_script);
            running.folder.write("boot-scripts/own.ipxe", "#!ipxe\n");
            assert_eq!(running.reloads_once(), "template own: new");
            running.had_no_errors();
            assert_eq!(running.appliance.log().matches("tells of no changes").count(), 1);
        }
    });
}

#[test]
fn a_broken_edit_changes_nothing_is_told_once_and_is_seen_in_the_status() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        let before = running.script();
        let broken = saying("a=1").replace("image: debian", "image: debain");
        running.folder.write("config.yaml", &broken);
        let told = "there is no image named `debain`; did you mean `debian`?";
        running.appliance.wait_for("ERROR config: not reloaded, the last good one serves on:");
        running.appliance.wait_for(told);
        assert_eq!(running.script(), before);
        let (code, said) = status(running.folder.path());
        assert_eq!((code, &said["config"]["generation"]), (Some(1), &1.into()));
        let problem = &said["config"]["refused"]["problems"][0];
        assert_eq!(problem["key"], "profiles.debian.image");
        assert_eq!((&problem["line"], &problem["column"]), (&5.into(), &35.into()));
        assert!(said["config"]["refused"]["text"].as_str().unwrap().contains(told));

        // Saved once more as it is, and asked for.
        running.folder.write("config.yaml", &broken);
        running.appliance.wait_for("WARN config: not reloaded: what was wrong is still so");
        running.appliance.signal("HUP");
        running.appliance.wait_for("WARN config: not reloaded: what was wrong is still so");
        assert_eq!(running.appliance.log().matches(told).count(), 1);

        // A template that changes meanwhile is taken up with the mended config.
        running.folder.write("boot-scripts/own.ipxe", "#!ipxe\necho two\n");
        running.appliance.wait_for("WARN config: not reloaded: what was wrong is still so");
        running.folder.write("config.yaml", saying("a=0"));
        assert_eq!(running.reloads_once(), "template own: changed");
        let (code, said) = status(running.folder.path());
        assert_eq!((code, &said["config"]["refused"]), (Some(0), &Value::Null));
    });
}

#[test]
fn what_the_config_names_is_followed_and_told_by_its_name() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        running.folder.write("lab.token", "hush-hush\n");
        assert_eq!(running.reloads_once(), "omni lab: join token changed");
        assert!(running.script().contains("?jointoken=hush-hush "));
        fs::remove_file(running.path("lab.token")).unwrap();
        running.folder.write("lab.token", "quiet\n");
        assert_eq!(running.reloads_once(), "omni lab: join token changed");

        running.folder.write("boot-scripts/linux.ipxe", "#!ipxe\necho mine\n");
        assert_eq!(running.reloads_once(), "template linux: changed");
        assert_eq!(running.script(), "#!ipxe\necho mine\n");
        fs::remove_file(running.path("boot-scripts/linux.ipxe")).unwrap();
        assert_eq!(running.reloads_once(), "template linux: changed");
        assert!(running.script().contains("?jointoken=quiet "));

        let nbp = vec![0xeb; 1000];
        running.folder.write("nbps/undionly.kpxe", &nbp);
        assert_eq!(running.reloads_once(), "NBP undionly.kpxe: changed");
        assert!(running.firmware.fetch("http://10.77.0.2:8080/nbp/undionly.kpxe") == nbp);

        // As `reveille nbps fetch` puts a set in its place.
        for (slot, count) in [(".fetched-a", 1), (".fetched-b", 2)] {
            for n in 0..count {
                let name = format!("state/nbps/{slot}/i386/of-{slot}-{n}.kpxe");
                running.folder.write(&name.replace("of-.fetched", "of"), [0xea; 100]);
            }
            symlink(slot, running.path("state/nbps/.fetched-new")).unwrap();
            let (new, link) = ("state/nbps/.fetched-new", "state/nbps/fetched");
            fs::rename(running.path(new), running.path(link)).unwrap();
            if count == 1 {
                assert_eq!(running.reloads_once(), "NBP i386/of-a-0.kpxe: new");
            } else {
                running.reloads_once();
                running.appliance.wait_for("config: NBP i386/of-a-0.kpxe: gone");
            }
        }
        assert!(!running.appliance.log().contains("hush"));
        running.had_no_errors();
    });
}

#[test]
fn an_image_that_comes_later_is_taken_up_and_its_copying_holds_back_no_other_change() {
    in_lab!(|lan| {
        let mut running = Running::start(&lan);
        fs::remove_file(running.path("first")).unwrap();
        assert_eq!(running.reloads_once(), "image debian: initrd is gone");
        assert!(running.script().contains("first: there is no such file"));

        let copying = AtomicBool::new(true);
        let path = running.path("first");
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut file = fs::File::create(&path).unwrap();
                while copying.load(Ordering::Relaxed) {
                    file.write_all(&[3; 1000]).unwrap();
                    thread::sleep(Duration::from_millis(10));
                }
                file.write_all(b"its end").unwrap();
            });
            running.folder.write("config.yaml", saying("a=1"));
            let line = running.appliance.wait_for("config: reloaded from ");
            copying.store(false, Ordering::Relaxed);
            assert!(line.contains("with these changes"), "{line}");
        });
        running.appliance.wait_for("config: image debian: initrd is there");
        running.appliance.wait_for("config: profile debian: cmdline + a=1 - a=0");
        running.generation += 1;
        assert_eq!(running.reloads_once(), "image debian: initrd has other content");
        assert!(running.script().contains(" a=1 ||"));
        running.had_no_errors();
    });
}

#[test]
fn a_download_ends_on_the_snapshot_that_it_began_with() {
    in_lab!(|lan| {
        let folder = folder();
        // More than sockets hold.
        let old = vec![1; 30_000_000];
        folder.write("linux", &old);
        folder.write("config.yaml", saying("a=0"));
        folder.write("lab.token", "hush\n");
        let mut running = Running::start_in(&lan, folder);
        let mut stream = running.firmware.connections(8080, 1).remove(0);
        let request =
            "GET /images/debian/kernel HTTP/1.1\r\nHost: 10.77.0.2\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut begin = [0; 100];
        stream.read_exact(&mut begin).unwrap();
        assert!(begin.starts_with(b"HTTP/1.1 200 OK\r\n"));

        let new = vec![9; 1000];
        fs::rename(running.folder.write("new", &new), running.path("linux")).unwrap();
        assert_eq!(running.reloads_once(), "image debian: kernel has other content");
        let kernel = "http://10.77.0.2:8080/images/debian/kernel";
        assert!(running.firmware.fetch(kernel) == new);
        running.folder.write("config.yaml", "unknown: local\n");
        running.reloads_once();
        running.appliance.wait_for("config: image debian: gone");
        assert!(!running.firmware.curl(&["--fail", kernel]).status.success());

        let mut rest = begin.to_vec();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.ends_with(&old));
    });
}

#[test]
fn interfaces_and_limits_change_under_a_running_transfer_and_a_port_waits_for_the_next_start() {
    in_lab!(|lan| {
        let second = Lan::second();
        second.attach("far", "10.78.0.50/24");
        let far = Firmware::new("far", [2, 0, 0, 0, 0, 1], [10, 78, 0, 50].into());
        let folder = folder();
        let server = |more: &str| format!("server: {{ nbps: [./nbps], {more} }}\n");
        folder.write("config.yaml", server("interfaces: [eth0]"));
        let mut running = Running::start_in(&lan, folder);
        let near = socket(&running.firmware);
        let request = rrq(b"undionly.kpxe", &[]);
        let begun = ask(&near, &request);

        running.folder.write("config.yaml", server("interfaces: [eth0, eth1]"));
        assert_eq!(running.reloads_once(), "server.interfaces: eth0 -> eth0, eth1");
        running.tells("serving machines on eth0 (10.77.0.2), eth1 (10.78.0.2)");
        assert!(!far.fetch("tftp://10.78.0.2/undionly.kpxe").is_empty());

        let limits = "interfaces: [eth1], tftp: { max_per_address: 1 }, http: { port: 8081 }";
        running.folder.write("config.yaml", server(limits));
        assert_eq!(running.reloads_once(), ", with these changes");
        running
            .appliance
            .wait_for("WARN config: server.http.port: 8080 -> 8081 is taken up at the next start");
        running.tells("machines on eth0 are not served any more");
        let said = status(running.folder.path()).1;
        assert_eq!(said["config"]["at_next_start"][0], "server.http.port: 8080 -> 8081");
        assert_eq!(said["interfaces"][0]["addresses"][0], "10.78.0.2");
        assert_eq!(said["counts"]["tftp_transfers"], 1);
        silent_for(&running.firmware, &request);
        let first = far.socket(0);
        first.send_to(&request, ("10.78.0.2", 69)).unwrap();
        receive(&first);
        let next = far.socket(0);
        next.send_to(&request, ("10.78.0.2", 69)).unwrap();
        assert_eq!(error_code(&receive(&next).0), 0);
        running.appliance.wait_for("`server.tftp.max_per_address` are running");
        // What machines are told is what is served.
        let script = far.discover(&[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])]).unwrap();
        far.take_lease(&[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 7])]);
        assert!(far.fetch(&script.file()).starts_with(b"#!ipxe"));

        assert_eq!(finish(&near, begun).len(), 74_213, "it was never disturbed");
        // It is told once.
        running.folder.write("config.yaml", server(&limits.replace(": 1 }", ": 2 }")));
        assert_eq!(running.reloads_once(), "server.tftp: max_per_address 1 -> 2");
        assert_eq!(running.appliance.log().matches("at the next start").count(), 1);
    });
}

/// A request of it is not answered.
fn silent_for(firmware: &Firmware, request: &[u8]) {
    let own = socket(firmware);
    own.send_to(request, ("10.77.0.2", 69)).unwrap();
    silent(&own);
}

#[test]
fn a_sighup_is_a_reload_at_once_and_a_config_that_comes_where_there_was_none_is_taken_up() {
    in_lab!(|lan| {
        let folder = folder();
        let config = fs::read(folder.path().join("config.yaml")).unwrap();
        fs::remove_file(folder.path().join("config.yaml")).unwrap();
        let appliance = Appliance::start(&folder);
        let mut running = Running::of(&lan, folder, appliance);
        running.appliance.signal("HUP");
        let nothing = "nothing that is served has changed";
        running.appliance.wait_for(&format!(
            "config: reloaded from the built-in defaults (there is no config file): {nothing}"
        ));
        running.generation += 1;
        running.folder.write("config.yaml", config);
        assert_eq!(running.reloads_once(), ", with these changes");
        running.appliance.wait_for("config: machine oden: new");
        running.appliance.signal("HUP");
        assert_eq!(running.reloads_once(), nothing);
        running.had_no_errors();
    });
}
