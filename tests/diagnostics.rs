//! What `reveille check` says of broken configs: each folder of `tests/fixtures/broken` holds one, with what
//! it names, and in `expected.txt` the exact words and the exit code.
//!
//! `REVEILLE_WRITE_EXPECTED=1 cargo test --test diagnostics` writes the expectations anew; then read what
//! has changed in them, as the operator would who made the mistake.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// What stands in every secret of the fixtures.
const SECRET: &str = "hush";

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/broken");
    let mut fixtures: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    fixtures.sort();
    fixtures
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}

/// A copy of a fixture, on a host that has an NBP and keeps its secrets to itself.
fn set_up(fixture: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(fixture, folder.path());
    fs::remove_file(folder.path().join("expected.txt")).ok();
    fs::create_dir_all(folder.path().join("state/nbps")).unwrap();
    fs::write(folder.path().join("state/nbps/undionly.kpxe"), b"\xea\x05\x00\xc0\x07").unwrap();
    for secret in fs::read_dir(folder.path().join("secrets")).into_iter().flatten() {
        fs::set_permissions(secret.unwrap().path(), fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

/// All that `reveille check` says there, and how it ends.
fn checked(folder: &Path) -> String {
    let (stdout, stderr, code) = check(folder, &[]);
    format!("{stdout}{stderr}exit code {code}\n")
}

fn check(folder: &Path, arguments: &[&str]) -> (String, String, i32) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    for name in ["REVEILLE_CONFIG", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(name);
    }
    let output = command
        .current_dir(folder)
        .env("STATE_DIRECTORY", folder.join("state"))
        .arg("check")
        .args(arguments)
        .output()
        .unwrap();
    let text =
        |bytes| String::from_utf8(bytes).unwrap().replace(folder.to_str().unwrap(), "{here}");
    (text(output.stdout), text(output.stderr), output.status.code().unwrap())
}

/// A folder with these files, and an NBP.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let empty = tempfile::tempdir().unwrap();
    let folder = set_up(empty.path());
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    folder
}

#[test]
fn every_broken_config_is_told_in_exactly_these_words() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 35, "only {} are there", fixtures.len());
    let mut others = String::new();
    for fixture in fixtures {
        let said = checked(set_up(&fixture).path());
        assert!(!said.contains(SECRET), "{}: a secret is told: {said}", fixture.display());
        let expected = fixture.join("expected.txt");
        if std::env::var_os("REVEILLE_WRITE_EXPECTED").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if said != expected {
            let name = fixture.file_name().unwrap().to_string_lossy();
            writeln!(others, "=== {name}\n{said}--- is expected to be\n{expected}").unwrap();
        }
    }
    assert!(others.is_empty(), "{others}");
}

#[test]
fn json_has_each_problem_with_its_file_its_place_and_its_line() {
    let folder = folder(&[
        (
            "config.yaml",
            "profiles:\n  p: { script: own, image: debain }\n  q: { script: own, wipes: false }\nunknown: q\n\
             images: { debian: { kernel: ./linux } }\n",
        ),
        ("boot-scripts/own.ipxe", "#!ipxe\necho {{ machin.name }}\n"),
        ("linux", "a kernel"),
    ]);
    let (said, errors, code) = check(folder.path(), &["--json"]);
    assert_eq!((errors.as_str(), code), ("", 1));
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        said,
        json!({
            "file": "./config.yaml",
            "ok": false,
            "omni": {},
            "problems": [
                {
                    "severity": "error",
                    "fault": false,
                    "file": "./config.yaml",
                    "line": 2,
                    "column": 28,
                    "key": "profiles.p.image",
                    "message": "there is no image named `debain`; did you mean `debian`?",
                    "quote": "  p: { script: own, image: debain }",
                },
                {
                    "severity": "error",
                    "fault": true,
                    "file": "{here}/boot-scripts/own.ipxe",
                    "line": 2,
                    "column": 9,
                    "key": "profiles.q.script",
                    "message": "boots of profile q are refused: `machin.name` is not known; did you mean `machine.name`?",
                    "quote": "echo {{ machin.name }}",
                },
            ],
        })
    );
}

#[test]
fn what_cannot_be_read_at_all_is_told_in_json_too() {
    let folder = folder(&[("latin.yaml", "unknown: menu\n")]);
    fs::write(folder.path().join("latin.yaml"), b"unknown: menu\n# Gr\xfc\xdfe\n").unwrap();
    for (file, why) in [
        ("gone.yaml", "there is no such file"),
        ("state", "it is no regular file"),
        ("latin.yaml", "its line 2 is not UTF-8; save it in that encoding"),
    ] {
        let told = format!("cannot read the config file {file}: {why}");
        let (said, errors, code) = check(folder.path(), &[file]);
        let line = format!("reveille: {told}\n");
        assert_eq!((said.as_str(), errors, code), ("", line, 1));
        let (said, errors, code) = check(folder.path(), &["--json", file]);
        assert_eq!((errors.as_str(), code), ("", 1));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((&said["ok"], &said["file"]), (&json!(false), &json!(file)));
        assert_eq!(said["problems"][0]["message"], told);
        assert_eq!(said["problems"].as_array().unwrap().len(), 1);
    }
}

#[test]
fn relative_paths_start_at_the_file_and_not_where_the_command_runs() {
    let folder = folder(&[
        ("there/config.yaml", "images: { debian: { kernel: ./linux, initrd: initrd.gz } }\n"),
        ("there/linux", "a kernel"),
        ("initrd.gz", "an initrd, and not the one that is meant"),
    ]);
    let expected = "\
there/config.yaml:1:46: warning: images.debian.initrd: {here}/there/initrd.gz: there is no such file; boots of image debian are refused until it is there
     1 | images: { debian: { kernel: ./linux, initrd: initrd.gz } }
       |                                              ^^^^^^^^^
there/config.yaml: 1 warning; 0 machines, 0 groups, 0 profiles, 1 image
";
    for arguments in [&["there/config.yaml"][..], &["--config", "there/config.yaml"]] {
        assert_eq!(check(folder.path(), arguments), (expected.to_owned(), String::new(), 0));
    }
    let (_, errors, code) = check(folder.path(), &["--config", "x", "y"]);
    assert!(errors.contains("cannot be used with"), "{errors}");
    assert_eq!(code, 2);
}

#[test]
fn in_the_example_with_its_files_nothing_is_wrong() {
    let example = include_str!("../config.example.yaml");
    // Which NBPs the host has is none of the example's business.
    let here = example.replace("nbps: [/usr/lib/ipxe, /boot]", "nbps: [./state/nbps]");
    assert_ne!(here, example);
    let folder = folder(&[
        ("config.yaml", &here),
        ("secrets/homelab.token", "hush\n"),
        ("images/kernel-amd64", "a kernel"),
        ("images/initramfs-amd64.xz", "an initrd"),
        ("images/linux", "a kernel"),
        ("images/initrd.gz", "an initrd"),
        ("boot-scripts/README", "templates"),
        ("answers/preseed.cfg", include_str!("../answers/preseed.cfg")),
    ]);
    let said = "omni homelab: https://example.omni.siderolabs.io; its join token is plain\n\
                ./config.yaml: nothing is wrong; 4 machines, 2 groups, 4 profiles, 2 images\n";
    assert_eq!(check(folder.path(), &[]), (said.to_owned(), String::new(), 0));
}

#[test]
fn of_the_whole_language_only_what_it_names_is_not_there() {
    let folder = folder(&[("config.yaml", include_str!("fixtures/whole-language.yaml"))]);
    let (said, errors, code) = check(folder.path(), &["--json"]);
    assert_eq!((errors.as_str(), code), ("", 1), "{said}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["ok"], false);
    let problems = said["problems"].as_array().unwrap();
    let faults = problems.iter().filter(|problem| problem["severity"] == "error");
    let faults: Vec<(&str, bool)> = faults
        .map(|problem| (problem["key"].as_str().unwrap(), problem["fault"] == true))
        .collect();
    let keys = [
        "server.boot_scripts",
        "omni.homelab.join_token.file",
        "omni.homelab.ca",
        "profiles.talos.files.preseed.cfg",
    ];
    assert_eq!(faults, keys.map(|key| (key, true)));
}
