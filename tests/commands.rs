//! The commands, as an operator runs them: the real binary, its exact output and its exit code.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::fs;
use std::io::{self, BufRead, BufReader, Write, pipe};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{Builder, Header};
use tempfile::TempDir;

const X64: u16 = 0x8664;
const ARM64: u16 = 0xaa64;

/// The smallest file with a PE header, and a version of iPXE.
fn efi(machine: u16, version: &str) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file.extend(b"PE\0\0");
    file.extend(machine.to_le_bytes());
    file.extend(format!("\0iPXE\0{version}\0").as_bytes());
    file
}

fn bios() -> Vec<u8> {
    b"\xea\x05\x00\xc0\x07".to_vec()
}

/// A `.tar.gz`. Names go in as they are, also those that climb.
fn archive(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A release, as far as this needs one.
fn release(version: &str) -> Vec<u8> {
    archive(&[
        ("ipxeboot/i386/undionly.kpxe", bios()),
        ("ipxeboot/x86_64/snponly.efi", efi(X64, version)),
        ("ipxeboot/x86_64-sb/shimx64.efi", efi(X64, version)),
        ("ipxeboot/x86_64-sb/snponly.efi", efi(X64, version)),
        ("ipxeboot/arm64/snponly.efi", efi(ARM64, version)),
        ("ipxeboot/README", b"text".to_vec()),
    ])
}

/// A folder to run in, with a config that looks for NBPs only in it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), "server: { state: state, nbps: [] }\n").unwrap();
    fs::create_dir(folder.path().join("state")).unwrap();
    folder
}

/// What a command has said, with the folder's own name as `…`, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn reveille(folder: &Path, arguments: &[&str]) -> Said {
    output_of(Command::new(env!("CARGO_BIN_EXE_reveille")), folder, arguments)
}

fn output_of(mut command: Command, folder: &Path, arguments: &[&str]) -> Said {
    for name in ["REVEILLE_CONFIG", "STATE_DIRECTORY", "http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments);
    let output = loop {
        match command.output() {
            // Another test forked while this program was being copied, and has not called exec yet.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let text =
        |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(folder.to_str().unwrap(), "…");
    Said { stdout: text(output.stdout), stderr: text(output.stderr), code: output.status.code() }
}

/// Serves one file after another, each as a whole answer, to one connection each. Returns the URL.
fn server(answers: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines {
                if line.unwrap().is_empty() {
                    break;
                }
            }
            // Whoever asked may have heard enough.
            stream.write_all(&answer).ok();
        }
    });
    format!("http://{address}/ipxeboot.tar.gz")
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Length: {}", body.len()), body)
}

fn answer(status: &str, header: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{header}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a fetch that fails says last.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let said = reveille(folder, &[&["nbps", "fetch"], arguments].concat());
    assert_eq!((said.stdout.as_str(), said.code), ("", Some(1)), "{}", said.stderr);
    said.stderr.lines().last().unwrap().to_owned()
}

fn below(path: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const NONE: &str = "config: server.nbps: no NBP was found in any folder, so no firmware can be answered; \
     `reveille nbps fetch` gets iPXE's newest; or install Debian's package ipxe, or name a folder with \
     undionly.kpxe and snponly.efi\n";

#[test]
fn a_command_that_nobody_hears_ends_as_it_would_have() {
    let folder = folder();
    for (config, arguments, code) in [
        ("server: { state: state, nbps: [] }\n", &["nbps"][..], 0),
        ("server: { state: state, nbps: [./gone] }\n", &["nbps"], 0),
        ("server: { nbps: [ }\n", &["check"], 1),
        ("server: { nbps: [ }\n", &["nbps"], 1),
    ] {
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.current_dir(folder.path()).args(arguments).env_remove("REVEILLE_CONFIG");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?} of {config}");
    }
}

#[test]
fn in_an_empty_folder_nobody_gets_anything_and_each_line_says_what_to_do() {
    let folder = folder();
    assert_eq!(
        reveille(folder.path(), &["nbps"]),
        Said {
            stdout: "\
FIRMWARE      GETS
BIOS          none: `reveille nbps fetch`, or on Debian `apt-get install ipxe`
UEFI x86      none: `reveille nbps fetch`
UEFI x86-64   none: `reveille nbps fetch`, or on Debian `apt-get install ipxe`
UEFI arm32    none: `reveille nbps fetch`
UEFI arm64    none: `reveille nbps fetch`
UEFI riscv64  none: `reveille nbps fetch`
"
            .to_owned(),
            stderr: NONE.to_owned(),
            code: Some(0),
        }
    );
    assert_eq!(below(folder.path().to_owned()), ["config.yaml", "state"], "and nothing was made");
    assert_eq!(below(folder.path().join("state")), Vec::<String>::new());
}

#[test]
fn a_release_is_fetched_and_the_next_one_takes_its_place() {
    let folder = folder();
    let (first, second) = (release("2.0.0 (g12798)"), release("2.1.0 (gabcde)"));
    let url = server(vec![ok(&first), ok(&second)]);
    let said = reveille(folder.path(), &["nbps", "fetch", &url, "--sha256", &sum(&first)]);
    assert_eq!(
        said,
        Said {
            stdout: "\
FIRMWARE      GETS
BIOS          i386/undionly.kpxe
UEFI x86      none: `reveille nbps fetch`
UEFI x86-64   x86_64/snponly.efi
UEFI arm32    none: `reveille nbps fetch`
UEFI arm64    arm64/snponly.efi
UEFI riscv64  none: `reveille nbps fetch`

A running daemon takes them up by itself.
"
            .to_owned(),
            stderr: format!(
                "fetching {url}\n{} B with SHA-256 {}\n\
                 NBPs in …/state/nbps/fetched: 5; left out of the archive: 1\n",
                first.len(),
                sum(&first)
            ),
            code: Some(0),
        }
    );
    let said = reveille(folder.path(), &["nbps", "fetch", &url]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let said = reveille(folder.path(), &["nbps"]);
    assert_eq!((said.stderr.as_str(), said.code), ("", Some(0)));
    let listed: Vec<_> = said.stdout.lines().take(6).collect();
    assert_eq!(
        listed,
        [
            "NAME                   FOR          IPXE            SIZE  FOLDER",
            "arm64/snponly.efi      UEFI arm64   2.1.0 (gabcde)  91 B  …/state/nbps/fetched/arm64",
            "i386/undionly.kpxe     BIOS         -               5 B   …/state/nbps/fetched/i386",
            "x86_64-sb/shimx64.efi  UEFI x86-64  2.1.0 (gabcde)  91 B  …/state/nbps/fetched/x86_64-sb",
            "x86_64-sb/snponly.efi  UEFI x86-64  2.1.0 (gabcde)  91 B  …/state/nbps/fetched/x86_64-sb",
            "x86_64/snponly.efi     UEFI x86-64  2.1.0 (gabcde)  91 B  …/state/nbps/fetched/x86_64",
        ]
    );
    let said = reveille(folder.path(), &["nbps", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(json["offered"]["UEFI x86-64"], "x86_64/snponly.efi");
    assert_eq!(json["offered"]["UEFI riscv64"], serde_json::Value::Null);
    assert_eq!(json["nbps"][0]["ipxe"], "2.1.0 (gabcde)");
    assert_eq!(json["nbps"][0]["size"], 91);
}

#[test]
fn a_file_on_this_host_does_as_well() {
    let folder = folder();
    fs::write(folder.path().join("ipxeboot.tar.gz"), release("2.0.0")).unwrap();
    let said = reveille(folder.path(), &["nbps", "fetch", "./ipxeboot.tar.gz"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(
        below(folder.path().join("state/nbps/fetched")),
        ["arm64", "i386", "x86_64", "x86_64-sb"]
    );
    assert_eq!(
        refusal(folder.path(), &["./ipxeboot.tgz"]),
        "reveille: cannot fetch ./ipxeboot.tgz: there is no such file"
    );
}

#[test]
fn a_redirect_is_followed() {
    let folder = folder();
    let archive = release("2.0.0");
    let there = server(vec![ok(&archive)]);
    let url = server(vec![answer("302 Found", &format!("Location: {there}"), b"")]);
    let said = reveille(folder.path(), &["nbps", "fetch", &url]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);

    let circle = vec![answer("302 Found", "Location: /ipxeboot.tar.gz", b""); 12];
    let url = server(circle);
    let told = format!("reveille: cannot fetch {url}: too many redirects");
    assert_eq!(refusal(folder.path(), &[&url]), told);
}

#[test]
fn what_cannot_be_had_whole_changes_nothing() {
    let folder = folder();
    let archive = release("2.0.0");
    fs::write(folder.path().join("good.tar.gz"), &archive).unwrap();
    assert_eq!(reveille(folder.path(), &["nbps", "fetch", "good.tar.gz"]).code, Some(0));
    let before = reveille(folder.path(), &["nbps"]);

    let cut = format!("Content-Length: {}", archive.len() + 1);
    let huge = format!("Content-Length: {}", 65 << 20);
    let ended = b"5\r\nhello\r\n";
    for (answer, told) in [
        (
            answer("404 Not Found", "Content-Length: 4", b"gone"),
            "the server answers 404 Not Found".to_owned(),
        ),
        (
            answer("206 Partial Content", "Content-Length: 1", b"x"),
            "the server answers 206 Partial Content".to_owned(),
        ),
        (
            answer("200 OK", &cut, &archive),
            format!(
                "the connection ended after {} of {} bytes; try again",
                archive.len(),
                archive.len() + 1
            ),
        ),
        (
            answer("200 OK", "Transfer-Encoding: chunked", ended),
            "the connection ended after 5 bytes: unexpected EOF during chunk size line; try again"
                .to_owned(),
        ),
        (
            answer("200 OK", &huge, b""),
            "it has more than 64 MiB, so it is no release of iPXE".to_owned(),
        ),
    ] {
        let url = server(vec![answer]);
        assert_eq!(
            refusal(folder.path(), &[&url]),
            format!("reveille: cannot fetch {url}: {told}")
        );
    }
    for (body, told) in [
        (b"<html>".to_vec(), "it is no .tar.gz archive"),
        (archive[..archive.len() / 2].to_vec(), "it is cut off, damaged, or not made by tar"),
        (archive_of("../snponly.efi"), "it holds `../snponly.efi`, which leads out of the archive"),
        (
            archive_of("/etc/snponly.efi"),
            "it holds `/etc/snponly.efi`, which leads out of the archive",
        ),
        (archive_of("ipxeboot/README"), "it holds no NBP: only ipxeboot/README"),
    ] {
        let url = server(vec![ok(&body)]);
        let size = body.len();
        let expected = format!("reveille: cannot use {url} ({size} B): {told}");
        assert_eq!(refusal(folder.path(), &[&url]), expected);
    }
    let other = "0".repeat(64);
    let url = server(vec![ok(&archive)]);
    assert_eq!(
        refusal(folder.path(), &[&url, "--sha256", &other]),
        format!(
            "reveille: cannot fetch {url}: its SHA-256 is {}, not {other}: another release, or not what it should be",
            sum(&archive)
        )
    );
    assert_eq!(reveille(folder.path(), &["nbps"]), before);
    assert_eq!(below(folder.path().join("state/nbps")), [".fetch-lock", ".fetched-a", "fetched"]);
}

fn archive_of(name: &str) -> Vec<u8> {
    archive(&[(name, efi(X64, "2.0.0"))])
}

#[test]
fn who_cannot_be_reached_is_named_with_the_way_around() {
    let folder = folder();
    // Nobody listens where somebody has just stopped to.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(
        refusal(folder.path(), &[&format!("http://me:hush@{address}/x.tar.gz")]),
        format!(
            "reveille: cannot fetch http://***@{address}/x.tar.gz: Connection refused (os error 111); \
             without internet here, download it elsewhere and name the file: `reveille nbps fetch ./ipxeboot.tar.gz`"
        )
    );
    let said = reveille(folder.path(), &["nbps", "fetch", "ftp://example.org/x"]);
    assert_eq!(said.code, Some(2));
    assert!(said.stderr.contains("it must be an http:// or https:// URL, or a file on this host"));
}

#[test]
fn an_error_in_the_config_is_told_and_stops_only_what_it_hides() {
    let folder = folder();
    let config = folder.path().join("config.yaml");
    fs::create_dir_all(folder.path().join("state/nbps")).unwrap();
    fs::write(folder.path().join("state/nbps/snponly.efi"), efi(X64, "2.0.0")).unwrap();
    fs::write(
        &config,
        "server: { state: state, nbps: [], http: { port: eighty } }\n\
         profiles:\n  p: { script: menu, nbp: { bios: snponly.efi } }\n",
    )
    .unwrap();
    let said = reveille(folder.path(), &["nbps"]);
    assert_eq!(
        said.stderr,
        "config: ./config.yaml:1:49: server.http.port: `eighty` is not a whole number from 1 to 65535\n\
         config: ./config.yaml:3:35: profiles.p.nbp.bios: `snponly.efi` is for UEFI x86-64, not for BIOS\n"
    );
    assert!(said.stdout.contains("\nUEFI x86-64   snponly.efi\n"), "{}", said.stdout);
    assert_eq!(said.code, Some(0));

    for (text, told) in [
        (
            "server: { state: [a, b] }\n",
            "./config.yaml:1:18: error: server.state: a single value belongs here, not a list",
        ),
        (
            "server: { stat: x }\n",
            "./config.yaml:1:11: error: server.stat: there is no key `stat`; did you mean `state`?",
        ),
    ] {
        fs::write(&config, text).unwrap();
        for arguments in [&["nbps"][..], &["nbps", "fetch", "x.tar.gz"]] {
            let said = reveille(folder.path(), arguments);
            assert!(
                said.stderr
                    .starts_with("reveille: config: ./config.yaml does not tell where NBPs are: ")
            );
            assert!(said.stderr.contains(told), "{}", said.stderr);
            assert_eq!((said.stdout.as_str(), said.code), ("", Some(1)));
        }
    }
    for arguments in [
        &["nbps", "--config", "gone.yaml"][..],
        &["nbps", "--config", "gone.yaml", "fetch", "x.tar.gz"],
        &["nbps", "fetch", "--config", "gone.yaml", "x.tar.gz"],
    ] {
        assert_eq!(
            reveille(folder.path(), arguments).stderr,
            "reveille: cannot read the config file gone.yaml: there is no such file\n"
        );
    }
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let folder = folder();
    fs::write(folder.path().join("good.tar.gz"), release("2.0.0")).unwrap();
    fs::remove_dir(folder.path().join("state")).unwrap();
    fs::write(folder.path().join("state"), "a file").unwrap();
    assert_eq!(
        refusal(folder.path(), &["good.tar.gz"]),
        "reveille: cannot write …/state/nbps: Not a directory (os error 20)"
    );
}

#[test]
fn a_machine_is_entered_into_the_config_as_it_stands_and_ordered_without_a_daemon() {
    let folder = folder();
    let config = folder.path().join("config.yaml");
    let old = "\
server: { state: state, nbps: [] }   # here
profiles: { disk: { script: local-disk, boot: once } }
machines:
    # the first
    oden: { mac: '52:54:00:00:00:01', profile: disk }

# the end
unknown: local
";
    fs::write(&config, old).unwrap();
    let adopt = |mac: &str, more: &[&str]| {
        reveille(folder.path(), &[&["adopt", mac, "--name", "balder"], more].concat())
    };
    let entry = "  balder:\n    mac: \"52:54:00:00:00:09\"\n    profile: disk\n";
    let printed = adopt("5254.0000.0009", &["--profile", "disk", "--print"]);
    assert_eq!((printed.stdout.as_str(), printed.code), (entry, Some(0)), "{printed:?}");
    assert_eq!(fs::read_to_string(&config).unwrap(), old);
    let wrong = adopt("5254.0000.0009", &["--profile", "dusk"]);
    assert!(
        wrong.stderr.contains("there is no profile named `dusk`; did you mean `disk`?"),
        "{wrong:?}"
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), old);

    let entered = adopt("52-54-00-00-00-09", &["--profile", "disk"]);
    assert_eq!(entered.code, Some(0), "{entered:?}");
    let new = old.replace(
        "profile: disk }\n\n",
        "profile: disk }\n    balder:\n        mac: \"52:54:00:00:00:09\"\n        profile: disk\n\n",
    );
    assert_eq!(fs::read_to_string(&config).unwrap(), new);
    let again = adopt("52:54:00:00:00:09", &[]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("is in the config already, as machine balder"), "{again:?}");

    let order = ["boot", "balder", "--profile", "disk"];
    let refused = reveille(folder.path(), &order);
    assert!(
        refused.code == Some(1) && refused.stderr.contains("`reveille state new"),
        "{refused:?}"
    );
    assert_eq!(below(folder.path().join("state")), Vec::<String>::new());
    assert_eq!(reveille(folder.path(), &["state", "new"]).code, Some(0));
    let armed = reveille(folder.path(), &order);
    assert_eq!(armed.code, Some(0), "{armed:?}");
    assert!(armed.stderr.contains("no reveille runs; it is written down in "), "{armed:?}");
    let listed = reveille(folder.path(), &["machines", "--armed"]);
    assert_eq!(listed.stdout.lines().count(), 2, "{listed:?}");
    assert!(listed.stdout.contains("balder   52:54:00:00:00:09"), "{listed:?}");
    let nobody = reveille(folder.path(), &["machine", "baldur"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("did you mean `balder`?"), "{nobody:?}");
}

#[test]
fn a_registry_is_permitted_backed_up_lost_restored_and_accepted_without_a_daemon() {
    let folder = folder();
    let config = "server: { state: state, nbps: [] }
profiles: { disk: { script: local-disk, boot: once } }
machines: { oden: { mac: '52:54:00:00:00:01', profile: disk } }
";
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    let run = |arguments: &[&str]| reveille(folder.path(), arguments);
    let is_armed = || run(&["machines", "--armed"]).stdout.contains("oden");
    fs::remove_dir(folder.path().join("state")).unwrap();

    for arguments in [&["backup", "b.db"][..], &["arm", "oden"], &["pull"], &["nbps", "fetch", "x"]]
    {
        let said = run(arguments);
        let looked = said.stderr.contains("no reveille runs with the state folder …/state (");
        assert!(said.code == Some(1) && looked, "{arguments:?}: {said:?}");
    }
    assert_eq!(below(folder.path().to_owned()), ["config.yaml"], "nothing was made");
    let shown = run(&["state"]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    assert!(
        shown
            .stdout
            .contains("lost          …/state held neither a registry nor the marker of a new one"),
        "{shown:?}"
    );
    let accepted = run(&["state", "accept"]);
    let permits = "`reveille state new --config ./config.yaml` permits the first registry";
    assert!(accepted.code == Some(1) && accepted.stderr.contains(permits), "{accepted:?}");
    assert!(shown.stdout.contains(permits), "{shown:?}");

    let permitted = run(&["state", "new"]);
    assert_eq!(permitted.stdout, "the next start begins a new registry in …/state\n");
    assert_eq!(below(folder.path().join("state")), ["new"]);
    assert_eq!(run(&["state"]).code, Some(0));
    assert_eq!(run(&["arm", "oden"]).code, Some(0));
    assert!(is_armed() && !folder.path().join("state/new").exists());
    let again = run(&["state", "new"]);
    assert!(again.code == Some(1) && again.stderr.contains("registry.db exists"), "{again:?}");

    let backed = run(&["backup", "b.db"]);
    assert_eq!(backed.stdout, "saved 1 machine of …/state to b.db\n", "{backed:?}");
    let db = folder.path().join("state/db");
    fs::remove_file(db.join("registry.db")).unwrap();
    fs::remove_file(db.join("registry.db.previous")).unwrap();
    assert_eq!(run(&["state"]).code, Some(1));
    let restored = run(&["restore", "b.db"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    assert!(restored.stderr.contains("orders in the backup count again"), "{restored:?}");
    assert!(is_armed());
    assert_eq!(run(&["state"]).code, Some(0));

    // A copy that was put there by hand lacks what came later.
    fs::copy(folder.path().join("b.db"), db.join("registry.db")).unwrap();
    let shown = run(&["state"]);
    assert!(shown.code == Some(1) && shown.stdout.contains("write-ahead log"), "{shown:?}");
    assert_eq!(run(&["state", "accept"]).code, Some(0));
    assert_eq!(run(&["state"]).code, Some(0));
    assert_eq!(run(&["state", "accept"]).stdout, "nothing is lost\n");
    assert!(!is_armed(), "it may have been used up");
}

#[test]
fn a_missing_registry_with_a_copy_is_neither_discarded_nor_taken_for_a_first_start() {
    let folder = folder();
    let config = "server: { state: state, nbps: [] }
images: { linux: { kernel: k, initrd: k } }
profiles: { install: { script: linux, image: linux, boot: once, wipes: true } }
machines:
  oden: { mac: '52:54:00:00:00:01', profile: install }
  balder: { mac: '52:54:00:00:00:02', profile: install }
";
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    fs::write(folder.path().join("k"), "k").unwrap();
    let run = |arguments: &[&str]| reveille(folder.path(), arguments);
    let next = |name: &str| run(&["machine", name]).stdout;
    let db = folder.path().join("state/db");
    assert_eq!(run(&["state", "new"]).code, Some(0));
    assert_eq!(run(&["disk", "oden"]).code, Some(0));
    let remove = || fs::remove_file(db.join("registry.db")).unwrap();
    remove();

    let shown = run(&["state"]);
    let copy = "copy          …/state/db/registry.db.previous, ";
    let way = "`reveille restore …/state/db/registry.db.previous --config ./config.yaml` brings the copy back; then `reveille state accept --config ./config.yaml`";
    assert!(shown.code == Some(1) && shown.stdout.contains(way), "{shown:?}");
    assert!(shown.stdout.contains(copy) && shown.stdout.contains(", 1 machine\n"), "{shown:?}");
    assert!(!shown.stdout.contains("state new"), "{shown:?}");
    // The one that the copy does not know holds as well.
    assert!(next("oden").contains("its local disk"), "{}", next("oden"));
    assert!(next("balder").contains("nothing, it is held: the registry was lost"));
    let refused = run(&["state", "new"]);
    assert!(refused.code == Some(1) && refused.stderr.contains(way), "{refused:?}");
    assert!(db.join("registry.db.previous").exists() && !folder.path().join("state/new").exists());

    let accepted = run(&["state", "accept"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert!(accepted.stdout.contains("registry.db.previous is used"), "{accepted:?}");
    assert_eq!(run(&["state"]).code, Some(0));
    assert!(next("oden").contains("its local disk"), "{}", next("oden"));
    assert!(next("balder").contains("profile install: it has not completed a boot yet"));

    remove();
    let anew = run(&["state", "new", "--forget-machines"]);
    assert_eq!(anew.code, Some(0), "{anew:?}");
    assert!(anew.stderr.contains("is kept as …/state/db/registry.db.previous.old-"), "{anew:?}");
    assert_eq!(run(&["machines", "--json"]).code, Some(0));
    assert!(next("oden").contains("it has not completed a boot yet"), "{}", next("oden"));
}

#[test]
fn a_config_that_does_not_parse_leaves_the_state_folder_unknown() {
    let folder = folder();
    let run = |arguments: &[&str]| reveille(folder.path(), arguments);
    for (text, why) in [
        (
            "server:\n  state: ./state\nprofiles:\n  x: [1\n",
            "./config.yaml:4:6: unclosed bracket '['",
        ),
        ("server: { state: [a] }\n", "./config.yaml:1:18: server.state: "),
        ("server: [./state]\n", "./config.yaml:1:9: server: "),
    ] {
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        for arguments in [&["state"][..], &["state", "new"], &["state", "accept"]] {
            let said = run(arguments);
            let told = format!("reveille: cannot determine the state folder: {why}");
            assert!(said.stderr.starts_with(&told), "{arguments:?}: {said:?}");
            assert!(said.stderr.contains("`reveille check --config ./config.yaml`"), "{said:?}");
            assert_eq!((said.stdout.as_str(), said.code), ("", Some(1)), "{arguments:?}");
        }
    }
    assert_eq!(below(folder.path().join("state")), Vec::<String>::new());

    // An error elsewhere hides nothing.
    let text = "server: { state: ./state, http: { port: x } }\n";
    fs::write(folder.path().join("config.yaml"), text).unwrap();
    let said = run(&["state"]);
    assert!(said.stdout.starts_with("state folder  …/state (`server.state` in the config)\n"));
}

#[test]
fn a_registry_that_this_user_may_not_read_is_not_taken_for_a_missing_one() {
    let folder = folder();
    assert_eq!(reveille(folder.path(), &["state", "new"]).code, Some(0));
    let set_mode = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(folder.path().to_owned(), 0o755);
    let (db, program) = (folder.path().join("state/db"), folder.path().join("reveille"));
    fs::create_dir(&db).unwrap();
    fs::write(db.join("registry.db"), "x").unwrap();
    set_mode(db.clone(), 0o000);
    // Root may read everything.
    fs::copy(env!("CARGO_BIN_EXE_reveille"), &program).unwrap();
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        output_of(command, folder.path(), arguments)
    };
    for arguments in [&["state"][..], &["state", "new"], &["state", "accept"]] {
        let said = as_user(arguments);
        let told = "reveille: cannot read the registry …/state/db/registry.db: user ";
        assert!(said.stderr.starts_with(told), "{arguments:?}: {said:?}");
        assert!(said.stderr.contains("may not; run this as root (sudo)"), "{said:?}");
        assert_eq!((said.stdout.as_str(), said.code), ("", Some(1)), "{arguments:?}");
    }
    set_mode(folder.path().join("config.yaml"), 0o000);
    let said = as_user(&["state"]);
    let told = "reveille: cannot determine the state folder: cannot read the config file ./config.yaml: user ";
    assert!(said.stderr.starts_with(told), "{said:?}");
    set_mode(db, 0o700);
}

#[test]
fn a_registry_of_a_later_version_is_not_reported_as_sound() {
    let folder = folder();
    assert_eq!(reveille(folder.path(), &["state", "new"]).code, Some(0));
    let config = "server: { state: state, nbps: [] }
profiles: { disk: { script: local-disk } }
machines: { oden: { mac: '52:54:00:00:00:01', profile: disk } }
";
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    assert_eq!(reveille(folder.path(), &["disk", "oden"]).code, Some(0));
    let registry = rusqlite::Connection::open(folder.path().join("state/db/registry.db")).unwrap();
    registry.execute_batch("PRAGMA user_version = 1000").unwrap();
    drop(registry);
    let said = reveille(folder.path(), &["state"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("\nlost          unknown, because "), "{said:?}");
}
