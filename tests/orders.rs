//! `reveille arm`, `disarm`, `boot` and `disk` for one machine and for several, without a daemon: the real binary, with
//! and without a terminal.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use terminal::Session;

mod terminal;

const CONFIG: &str = "\
server: { state: state, nbps: [] }
images: { linux: { kernel: k, initrd: i } }
profiles:
  talos: { script: linux, image: linux, boot: once, wipes: true }
  rescue: { script: linux, image: linux, boot: once, wipes: false }
groups:
  - { name: asgard, match: { mac: '52:54:00:00:00:*' }, profile: talos }
machines:
  blade01: { mac: '52:54:00:00:01:01', profile: talos }
  blade02: { mac: '52:54:00:00:01:02', profile: rescue }
  oden: { mac: '52:54:00:00:00:01' }
";

/// With machines that boot by the network whenever they ask, one of them a profile with a secret.
const WITH_ALWAYS: &str = "  m1: { mac: '52:54:00:00:02:01', profile: live }
  m2: { mac: '52:54:00:00:02:02', profile: joined }
";

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.yaml"), CONFIG).unwrap();
    for file in ["k", "i"] {
        fs::write(folder.path().join(file), file).unwrap();
    }
    // As `reveille state new` does.
    fs::create_dir(folder.path().join("state")).unwrap();
    fs::write(folder.path().join("state/new"), "").unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.env_remove("REVEILLE_CONFIG").env_remove("STATE_DIRECTORY");
    command.current_dir(folder).args(arguments);
    command
}

/// Runs it without a terminal: standard output, standard error, exit code.
fn reveille(folder: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = command(folder, arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn armed(folder: &Path) -> BTreeSet<String> {
    let (text, why, code) = reveille(folder, &["machines", "--armed", "--json"]);
    assert_eq!(code, Some(0), "{why}");
    let machines: Vec<Value> = serde_json::from_str(&text).unwrap();
    machines.iter().map(|machine| machine["name"].as_str().unwrap().to_owned()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn without_a_terminal_one_named_machine_needs_no_yes_and_several_do() {
    let folder = folder();
    let folder = folder.path();
    let (said, why, code) = reveille(folder, &["arm", "blade01"]);
    assert_eq!(
        said,
        "blade01: armed: the network boots it once, what the config says\nnext boot: profile talos: it is armed; it erases a disk\n"
    );
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(armed(folder), names(["blade01"]));

    for arguments in [
        &["arm", "blade02", "oden"][..],
        &["arm", "blade0*"],
        &["arm", "--all"],
        &["arm", "group:asgard"],
    ] {
        let (said, why, code) = reveille(folder, arguments);
        assert_eq!((said.as_str(), code), ("", Some(1)), "{arguments:?}");
        assert!(why.contains("reveille: nothing was ordered: this order "), "{why}");
        assert!(why.trim_end().ends_with("--yes gives it"), "{why}");
    }
    let (_, why, _) = reveille(folder, &["arm", "blade0*"]);
    assert!(why.contains("blade01  profile talos: it is armed; it erases a disk\n"), "{why}");
    assert!(why.contains("blade02  profile rescue: it is armed\n"), "{why}");
    let (_, why, code) = reveille(folder, &["arm", "--yes", "oden", "blade99"]);
    assert!(why.contains("there is no machine `blade99`"), "{why}");
    assert_eq!(code, Some(1));
    assert_eq!(armed(folder), names(["blade01"]), "nothing was ordered");

    let (said, why, code) = reveille(folder, &["arm", "--yes", "blade0*", "group:asgard", "oden"]);
    assert_eq!(
        said,
        "armed: the network boots it once, what the config says\n\
         MACHINE  BOOTS NEXT\n\
         blade01  profile talos: it is armed; it erases a disk\n\
         blade02  profile rescue: it is armed\n\
         oden     profile talos: it is armed; it erases a disk\n"
    );
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(armed(folder), names(["blade01", "blade02", "oden"]));
    let (said, why, code) = reveille(folder, &["disarm", "--all", "--yes"]);
    assert!(
        said.contains(
            "blade01  profile talos: it has not completed a boot yet; it erases a disk\n"
        ),
        "{said}"
    );
    assert!(why.contains("`reveille disk` keeps a machine on its disk"), "{why}");
    assert_eq!((code, armed(folder)), (Some(0), names([])));
    let (said, _, code) = reveille(folder, &["disk", "--all", "-y"]);
    for name in ["blade01", "blade02", "oden   "] {
        let line = format!("{name}  its local disk: it is kept on its disk; `reveille arm`");
        assert!(said.contains(&line), "{said}");
    }
    assert_eq!(code, Some(0));
    // Later too.
    let (said, _, _) = reveille(folder, &["disarm", "oden"]);
    assert!(said.contains("next boot: its local disk: it is kept on its disk"), "{said}");
    for usage in [&["arm"][..], &["arm", "--all", "oden"], &["disk"], &["boot", "oden"]] {
        assert_eq!(reveille(folder, usage).2, Some(2), "{usage:?}");
    }
}

/// The folder, where `live` and `joined` boot always.
fn with_always() -> TempDir {
    let folder = folder();
    let profiles = "profiles:\n  live: { script: linux, image: linux }\n  \
        joined: { script: linux, image: linux, wipes: false, release: armed, files: { a: a } }";
    let config = CONFIG.replacen("profiles:", profiles, 1) + WITH_ALWAYS;
    fs::write(folder.path().join("config.yaml"), config).unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    folder
}

#[test]
fn machines_that_cannot_be_armed_are_left_out_of_patterns_and_refused_by_name() {
    let folder = with_always();
    let folder = folder.path();
    let always = "m1 (52:54:00:00:02:01) boots by the network whenever it asks (`boot: always`): there is nothing to arm; --profile has it boot another one";
    let (_, why, code) = reveille(folder, &["arm", "--all"]);
    assert!(why.contains(&format!("left out:\n  {always}\n")), "{why}");
    assert!(why.contains("this order is for 4 machines, and 2 of them boot"), "{why}");
    assert_eq!(code, Some(1));
    for named in
        [&["arm", "m1"][..], &["arm", "m1", "blade01", "--yes"], &["arm", "*1", "m1", "-y"]]
    {
        let (said, why, code) = reveille(folder, named);
        let expected = (String::new(), format!("reveille: {always}\n"), Some(1));
        assert_eq!((said, why, code), expected, "{named:?}");
    }
    let (_, why, code) = reveille(folder, &["arm", "m1*", "--yes"]);
    assert!(why.contains(always), "none is left: {why}");
    assert_eq!((code, armed(folder)), (Some(1), names([])));
    let (said, why, code) = reveille(folder, &["arm", "--all", "--yes"]);
    assert!(said.ends_with(&format!("left out:\n  {always}\n")), "{said}");
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(armed(folder), names(["blade01", "blade02", "m2", "oden"]));
}

#[test]
fn a_boot_that_needs_an_order_for_its_secret_is_armed_and_shown_as_withheld() {
    let folder = with_always();
    let folder = folder.path();
    let withheld = "profile joined: it boots by the network whenever it asks; its script holds a secret, and `release: armed` withholds it until `reveille arm`";
    let (said, why, _) = reveille(folder, &["machine", "m2"]);
    assert!(said.contains(&format!("boots next  {withheld}\n")), "{said}{why}");
    let (said, ..) = reveille(folder, &["machines"]);
    assert!(said.contains("profile joined, withheld until `reveille arm`\n"), "{said}");
    let (said, why, code) = reveille(folder, &["arm", "m2"]);
    assert!(said.ends_with("next boot: profile joined: it is armed\n"), "{said}{why}");
    assert_eq!(code, Some(0));
    let (said, ..) = reveille(folder, &["machine", "m2"]);
    assert!(!said.contains("withheld"), "{said}");
}

#[test]
fn on_a_terminal_what_erases_a_disk_is_ordered_by_name_or_number() {
    let folder = folder();
    let folder = folder.path();
    let asks = |arguments: &[&str], question: &str, answer: &str| {
        let mut session = Session::start(command(folder, arguments));
        session.answer(question, answer);
        session.ended()
    };
    let name =
        "blade01 boots profile talos: it is armed; it erases a disk. Type its name to order that: ";
    let number = "2 of these 3 machines boot a profile that erases a disk. Type 3, the number of machines listed, to order that: ";
    let yes = "Order that for 3 machines? [y/N]: ";
    let all = ["arm", "--all"];
    let rescue = ["boot", "--all", "--profile", "rescue"];
    for (arguments, question, answer) in [
        (&["arm", "blade01"][..], name, "y\n"),
        (&["arm", "blade01"], name, "\n"),
        (&["arm", "blade01"], name, "\x04"),
        (&all, number, "2\n"),
        (&all, number, "yes\n"),
        (&rescue, yes, "\n"),
        (&rescue, yes, "n\n"),
    ] {
        let (shown, code) = asks(arguments, question, answer);
        assert_ne!(code, Some(0), "{shown}");
        assert!(shown.contains("nothing was ordered"), "{shown}");
        assert_eq!(armed(folder), names([]), "{shown}");
    }
    let (shown, code) = asks(&["arm", "blade01"], name, "blade01\n");
    assert_eq!((code, armed(folder)), (Some(0), names(["blade01"])), "{shown}");
    let (shown, code) = asks(&all, number, "3\n");
    assert!(shown.contains("oden     profile talos: it is armed; it erases a disk\n"), "{shown}");
    assert_eq!((code, armed(folder).len()), (Some(0), 3), "{shown}");
    let (shown, code) = asks(&rescue, yes, "y\n");
    assert_eq!(code, Some(0), "{shown}");

    // Withdrawing that brings the first boot back, which erases a disk.
    let withdrawn = "Type its name to order that: ";
    let (shown, code) = asks(&["disarm", "blade01"], withdrawn, "no\n");
    assert_eq!((code, armed(folder).len()), (Some(1), 3), "{shown}");
    for unasked in [
        &["arm", "blade01", "--yes"][..],
        &["arm", "blade02"],
        &["boot", "oden", "--profile", "rescue"],
        &["disk", "blade0?", "--yes"],
        &["disk", "oden"],
    ] {
        let (shown, code) = Session::start(command(folder, unasked)).ended();
        assert_eq!(code, Some(0), "{shown}");
        assert!(!shown.contains(" to order that"), "{shown}");
    }
}

#[test]
fn an_order_for_a_machine_without_a_confirmed_card_says_that_it_has_to_be_confirmed_first() {
    let folder = folder();
    let folder = folder.path();
    let ymer = "  ymer: { serial: CZ1, profile: talos }\n";
    fs::write(folder.join("config.yaml"), format!("{CONFIG}{ymer}")).unwrap();
    let first =
        "; it erases a disk; its card has to be confirmed first: `reveille confirm ymer MAC`";
    for arguments in [&["arm", "ymer"][..], &["boot", "ymer", "--profile", "talos"]] {
        let (said, why, _) = reveille(folder, arguments);
        assert!(
            said.ends_with(&format!("next boot: profile talos: it is armed{first}\n")),
            "{said}{why}"
        );
    }
    let (said, why, _) = reveille(folder, &["machine", "ymer"]);
    assert!(
        said.contains(&format!("boots next  profile talos: it is armed{first}\n")),
        "{said}{why}"
    );
    let (said, why, _) = reveille(folder, &["machines"]);
    assert!(
        said.contains("profile talos, withheld until `reveille confirm ymer MAC`\n"),
        "{said}{why}"
    );
}
