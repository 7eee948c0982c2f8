//! The security chapter names a test for each of its claims; each of them exists.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::fs;
use std::path::Path;

/// The text of every Rust file below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_security_chapter_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests"), &mut code);
    let chapter = fs::read_to_string(root.join("docs/src/operations/security.md")).unwrap();
    let is_test = |name: &&str| {
        name.len() > 20
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let quoted = chapter.split('`').skip(1).step_by(2);
    let named: Vec<&str> = quoted
        .filter_map(|quoted| quoted.rsplit_once(": ").map(|(_, name)| name))
        .filter(is_test)
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        assert!(code.contains(&format!("fn {name}(")), "there is no test `{name}`");
    }
}
