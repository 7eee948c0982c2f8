//! The control socket: who may use it, what is answered, and what becomes of nonsense.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::{Appliance, InFolder, run};

pub fn reveille(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(arguments).in_folder(folder).output().unwrap()
}

fn connect(folder: &Folder) -> UnixStream {
    let stream = UnixStream::connect(folder.path().join("state/control.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Sends these bytes and reads a line.
fn answer(stream: &mut UnixStream, request: &[u8]) -> Value {
    stream.write_all(request).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

fn version(stream: &mut UnixStream) -> Value {
    answer(stream, b"{\"do\":\"status\"}\n")["answer"]["version"].take()
}

#[test]
fn it_is_there_for_its_own_user_alone_and_goes_with_the_daemon() {
    in_lab!(|_lan| {
        let folder = folder();
        let appliance = Appliance::start(&folder);
        let path = folder.path().join("state/control.sock");
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let names = fs::read_dir(folder.path().join("state")).unwrap().flatten();
        let names: Vec<String> =
            names.map(|name| name.file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");

        // What a daemon that was killed leaves behind is replaced.
        appliance.signal("KILL");
        appliance.ended();
        assert!(path.exists());
        let output = reveille(folder.path(), &["status"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{text}");
        let state = folder.path().join("state").display().to_string();
        assert!(text.starts_with("reveille: no reveille runs with the state folder "), "{text}");
        assert!(text.contains("start it with `reveille serve --config ./config.yaml`"), "{text}");
        let appliance = Appliance::start(&folder);
        assert_eq!(reveille(folder.path(), &["status"]).status.code(), Some(0));

        // Another one beside it would take its place.
        let config = "server: { dhcp: off, tftp: off, http: { port: 9090 }, state: ../state }\n";
        folder.write("other/config.yaml", config);
        let other = folder.path().join("other");
        let mut command =
            crate::support::inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        command.arg("serve").in_folder(&other);
        let (code, log) = Appliance::spawn(command).ended();
        assert_eq!(code, Some(1));
        assert!(log.contains("another reveille runs with the state folder "), "{log}");
        assert!(log.contains(": stop it, or name another folder in `server.state`"), "{log}");
        assert_eq!(reveille(folder.path(), &["status"]).status.code(), Some(0), "{state}");

        appliance.signal("TERM");
        assert_eq!(appliance.ended().0, Some(0));
        assert!(!path.exists());
    });
}

#[test]
fn nonsense_is_answered_by_an_error_and_keeps_nobody_else() {
    in_lab!(|_lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        // One that says nothing, one that does not end its line, one that does not read.
        let _silent = connect(&folder);
        let mut endless = connect(&folder);
        endless.write_all(b"{\"do\":").unwrap();
        let mut deaf = connect(&folder);
        deaf.write_all(&b"{\"do\":\"status\"}\n".repeat(1000)).unwrap();

        let mut client = connect(&folder);
        for (request, told) in [
            (&b"garbage\n"[..], "this is no request, as {\"do\":\"status\"} is one: "),
            (b"\n", "this is no request"),
            (b"{}\n", "this is no request"),
            (b"{\"do\":\"stop\"}\n", "unknown variant `stop`, expected one of `status`, `reload`"),
            (b"{\"do\":\"status\",\"x\":1}\n", "this is no request"),
            (b"\xff\xfe\0\n", "this is no request"),
        ] {
            let reply = answer(&mut client, request);
            let text = reply["error"].as_str().unwrap();
            assert!(text.contains(told), "{text}");
        }
        assert_eq!(version(&mut client), env!("CARGO_PKG_VERSION"), "the same goes on");
        assert_eq!(version(&mut client), env!("CARGO_PKG_VERSION"));

        let mut long = connect(&folder);
        long.write_all(&vec![b'x'; 64 << 10]).unwrap();
        let reply = answer(&mut long, b"");
        assert!(reply["error"].as_str().unwrap().contains("this is no request"), "{reply}");
        let mut rest = Vec::new();
        long.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "it was closed");

        // Who says nothing is closed after a while.
        let mut left = Vec::new();
        endless.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        endless.read_to_end(&mut left).unwrap();
        assert!(left.is_empty());
        assert!(!appliance.log().contains("panicked"));
    });
}

#[test]
fn the_commands_tell_people_and_programs_how_it_stands() {
    in_lab!(|lan| {
        let folder = folder();
        let appliance = Appliance::start(&folder);
        machine(&lan).boots_to_its_script();
        let output = reveille(folder.path(), &["status"]);
        let text = String::from_utf8(output.stdout).unwrap();
        for line in [
            "config        ./config.yaml, taken up ",
            "listens on    DHCP (udp 67), PXE boot server (udp 4011), TFTP (udp 69), HTTP (tcp 8080)",
            "boots on      eth0 (10.77.0.2)",
            "knows         1 machine, 0 groups, 1 profile, 1 image, 6 NBPs",
            "sends         0 files over TFTP",
            "since then    ",
            ", runs its script 1\n",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
        let output = reveille(folder.path(), &["status", "--json"]);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["listeners"][3]["port"], 8080);
        assert_eq!(json["counts"]["machines"], 1);
        assert_eq!(json["events"]["runs its script"], 1);

        let output = reveille(folder.path(), &["reload"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "reloaded, generation 2\nnothing that is served has changed\n");
        assert_eq!(output.status.code(), Some(0));
        // What is no YAML at all still says where the state folder is.
        folder.write("config.yaml", "server: { state: ./state\nmachines: [\n");
        let output = reveille(folder.path(), &["reload"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            text.starts_with(
                "reveille: not reloaded, the last good config serves on:\n./config.yaml:"
            ),
            "{text}"
        );
        let output = reveille(folder.path(), &["status"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains("./config.yaml is refused since "), "{text}");
        drop(appliance);
    });
}

#[test]
fn where_it_cannot_be_made_machines_boot_all_the_same() {
    in_lab!(|lan| {
        let folder = folder();
        let state = folder.path().join("state");
        run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", &state.display().to_string()]);
        let mut appliance = Appliance::start(&folder);
        let log = appliance.log();
        assert!(log.contains("WARN no control socket: cannot make "), "{log}");
        assert!(log.contains("Read-only file system"), "{log}");
        let firmware = machine(&lan);
        assert!(firmware.discover(&[(60, b"PXEClient"), (93, &[0, 0])]).is_some());
        assert_eq!(reveille(folder.path(), &["status"]).status.code(), Some(3));
    });
}
