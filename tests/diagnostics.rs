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
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    for name in ["REVEILLE_CONFIG", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"] {
        command.env_remove(name);
    }
    let output = command.current_dir(folder).arg("check").output().unwrap();
    let mut said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    writeln!(said, "exit code {}", output.status.code().unwrap()).unwrap();
    said.replace(folder.to_str().unwrap(), "{here}")
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
