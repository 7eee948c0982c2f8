use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::outdated::outdated_by;
use super::targets::Targets;
use super::*;
use crate::pure::client::Facts;
use crate::pure::config::problem::Problems;
use crate::pure::config::resolve::resolve;
use crate::pure::config::schema::File;
use crate::pure::config::surroundings::Surroundings;
use crate::pure::event::boot::{Event, Step};
use crate::pure::machine::orders::{Completed, RegistryFault};
use crate::pure::machine::time::Time;
use crate::state::registry::machines::Id;

pub(crate) const CONFIG: &str = "\
images: { linux: { kernel: k, initrd: i } }
profiles:
  talos: { script: linux, image: linux, boot: once, wipes: true }
  debian: { script: linux, image: linux, boot: once, wipes: true }
  rescue: { script: linux, image: linux, wipes: false }
groups:
  - { name: asgard, match: { product: 'ProLiant*' }, profile: talos }
  - { name: vanaheim, match: { mac: '52:54:00:79:*' }, profile: debian }
machines:
  blade01: { mac: 52:54:00:77:00:01, profile: talos }
  blade02: { mac: 52:54:00:77:00:02, profile: rescue }
  oden: { mac: 52:54:00:77:00:03 }
  freja: { mac: 52:54:00:79:00:04 }
";

pub(crate) fn config(yaml: &str) -> Config {
    let mut problems = Problems::new(Path::new("config.yaml"), yaml);
    let file = File::parse(yaml, &mut problems).unwrap();
    let found =
        Surroundings { base: "/etc".into(), state: "/state".into(), ..Surroundings::default() };
    resolve(file, found, problems).unwrap()
}

fn entry(id: i64, name: Option<&str>, mac: &str, state: MachineState) -> Entry {
    let macs = vec![mac.parse().unwrap()];
    Entry { id: Id(id), name: name.map(str::to_owned), macs, state: Arc::new(state) }
}

fn known<const N: usize>(entries: [Entry; N]) -> KnownMachines {
    KnownMachines::new(entries.into(), None)
}

/// A machine whose iPXE reported this product.
fn of_product(product: &str) -> MachineState {
    let facts = Facts { product: Some(product.to_owned()), ..Facts::default() };
    let client = Client { facts: Some(facts), ..Client::at(Stage::Ipxe) };
    let mut state = MachineState::default();
    state.client = Some(Box::new(client));
    state
}

/// A machine that has completed a boot of this profile.
fn installed(profile: &str, policy: BootPolicy) -> MachineState {
    let was_once = policy == BootPolicy::Once;
    let done =
        Completed { at: Time::default(), profile: profile.to_owned(), was_once, has_wiped: false };
    let mut state = MachineState::default();
    state.orders.completed = Some(done);
    state
}

fn targets(names: &[&str]) -> Targets {
    Targets { names: names.iter().map(|&name| name.to_owned()).collect(), all: false }
}

#[test]
fn targets_are_names_patterns_groups_or_all_and_each_machine_counts_once() {
    let config = config(CONFIG);
    let entries = known([
        entry(1, Some("oden"), "52:54:00:77:00:03", of_product("ProLiant BL460c")),
        entry(2, None, "52:54:00:79:00:09", MachineState::default()),
        entry(3, None, "52:54:00:80:00:01", of_product("PROLIANT DL365")),
        entry(4, None, "52:54:00:80:00:02", of_product("PowerEdge")),
        // Its own entry names its profile.
        entry(5, Some("blade01"), "52:54:00:77:00:01", of_product("ProLiant BL460c")),
    ]);
    let found = |targets: &Targets| -> Vec<String> {
        targets.find(&config, &entries).unwrap().iter().map(Found::label).collect()
    };
    for (names, wanted) in [
        (&["oden"][..], &["oden"][..]),
        (&["blade0*"], &["blade01", "blade02"]),
        (&["BLADE0?"], &["blade01", "blade02"]),
        (&["oden", "blade0?", "52-54-00-77-00-01", "oden"], &["oden", "blade01", "blade02"]),
        (&["group:asgard"], &["oden", "52:54:00:80:00:01"]),
        (&["group:vanaheim"], &["freja", "52:54:00:79:00:09"]),
        (&["52:54:00:80:00:02"], &["52:54:00:80:00:02"]),
    ] {
        assert_eq!(found(&targets(names)), wanted, "{names:?}");
    }
    let all = Targets { names: vec![], all: true };
    assert_eq!(found(&all), ["blade01", "blade02", "freja", "oden"], "no stranger");
    assert!(!all.is_one_by_name() && targets(&["oden"]).is_one_by_name());
    for several in [&["oden", "freja"][..], &["o*"], &["ode?"], &["group:asgard"]] {
        assert!(!targets(several).is_one_by_name(), "{several:?}");
    }
}

#[test]
fn one_target_that_does_not_exist_rejects_all_and_the_nearest_name_is_reported() {
    let config = config(CONFIG);
    let rejected =
        |names: &[&str]| targets(names).find(&config, &KnownMachines::default()).unwrap_err();
    for (names, mistake) in [
        (
            &["blade01", "balde0*"][..],
            "no machine of the config has a name like `balde0*`; did you mean `blade01`?",
        ),
        (&["group:asgrad"], "the config has no group `asgrad`; did you mean `asgard`?"),
        (
            &["group:asgard"],
            "no machine of the config and none that was seen boots by group `asgard`; a machine that names its own profile is in no group",
        ),
        (
            &["52:54:*"],
            "no machine of the config has a name like `52:54:*`; a pattern is one of names, not of MAC addresses",
        ),
    ] {
        assert_eq!(rejected(names), mistake);
    }
    let both = rejected(&["odin", "oden", "frejo"]);
    assert!(both.contains("`oden`?") && both.contains("`freja`?"), "{both}");
    let names: Vec<String> = (0..30).map(|n| format!("x{n}")).collect();
    let many = Targets { names, all: false }.find(&config, &KnownMachines::default()).unwrap_err();
    assert_eq!((many.lines().count(), many.lines().last()), (21, Some("and 10 more")));
    let none = Targets { names: vec![], all: true }
        .find(&self::config(""), &KnownMachines::default())
        .unwrap_err();
    assert!(none.starts_with("the config has no machine"), "{none}");
}

#[test]
fn a_reload_names_each_installed_machine_whose_disk_boots_another_profile_than_the_config_says() {
    let old = config(CONFIG);
    let once = |profile| installed(profile, BootPolicy::Once);
    let mut kept = once("talos");
    let event = Event { subject: Subject::default(), step: Step::KeptOnDisk {} };
    kept.apply(&event, None, SystemTime::UNIX_EPOCH);
    let mut in_asgard = once("talos");
    in_asgard.client = of_product("ProLiant").client;
    let entries = known([
        entry(1, Some("blade01"), "52:54:00:77:00:01", once("talos")),
        // It boots by the network whenever it asks.
        entry(2, Some("blade02"), "52:54:00:77:00:02", installed("rescue", BootPolicy::Always)),
        entry(3, Some("oden"), "52:54:00:77:00:03", in_asgard),
        entry(4, None, "52:54:00:79:00:09", once("debian")),
    ]);
    let told = |from: &str, to: &str| {
        assert!(CONFIG.contains(from), "{from}");
        outdated_by(&old, &config(&CONFIG.replacen(from, to, 1)), &entries)
    };
    assert_eq!(
        told("00:01, profile: talos", "00:01, profile: debian"),
        [
            "blade01: profile talos -> debian; its disk still boots; `reveille arm blade01` installs debian at its next network boot"
        ]
    );
    assert_eq!(
        told("'ProLiant*' }, profile: talos", "'ProLiant*' }, profile: debian"),
        [
            "oden: profile talos -> debian; its disk still boots; `reveille arm oden` installs debian at its next network boot"
        ]
    );
    assert_eq!(
        told("79:*' }, profile: debian", "79:*' }, profile: talos")[0],
        "52:54:00:79:00:09: profile debian -> talos; its disk still boots; `reveille arm 52:54:00:79:00:09` installs talos at its next network boot"
    );
    assert_eq!(
        told("00:03 }", "00:03, profile: debian, wipes: false }")[0],
        "oden: profile talos -> debian; its disk still boots; `reveille arm oden` boots debian at its next network boot",
        "an entry of its own, which wipes nothing"
    );
    let none: [&str; 0] = [];
    assert_eq!(
        told("00:02, profile: rescue", "00:02, profile: talos"),
        none,
        "it was not installed"
    );
    assert_eq!(
        told("00:01, profile: talos", "00:01, profile: rescue"),
        none,
        "not its disk: always"
    );
    assert_eq!(told("image: linux, boot: once", "image: linux, boot: local"), none, "the same");
    assert_eq!(
        told("image: linux, boot: once", "image: linux, cmdline: [more], boot: once")[0],
        "blade01: profile talos has changed; its disk still boots; `reveille arm blade01` installs talos at its next network boot"
    );
    // What was so before is not told again.
    let changed = config(&CONFIG.replacen("00:01, profile: talos", "00:01, profile: debian", 1));
    assert_eq!(outdated_by(&changed, &changed, &entries), none);
    let back = outdated_by(&changed, &old, &entries);
    assert_eq!(back, none, "its disk has what the config says again");
    // Sent to its disk for good, it is told all the same.
    let kept = known([entry(1, Some("blade01"), "52:54:00:77:00:01", kept)]);
    assert_eq!(outdated_by(&old, &changed, &kept).len(), 1);
}

#[test]
fn of_many_outdated_machines_the_first_are_named_and_how_many_more_there_are() {
    let rack = |profile: &str| {
        let machine = |n: u32| {
            format!("  m{n:03}: {{ mac: '52:54:00:81:00:{n:02x}', profile: {profile} }}\n")
        };
        config(&format!("{CONFIG}{}", (0..50).map(machine).collect::<String>()))
    };
    let state = installed("talos", BootPolicy::Once);
    let entries: Vec<Entry> = (0..50)
        .map(|n| {
            let mac = format!("52:54:00:81:00:{n:02x}");
            entry(n, Some(&format!("m{n:03}")), &mac, state.clone())
        })
        .collect();
    let entries = KnownMachines::new(entries, None);
    let told = outdated_by(&rack("talos"), &rack("debian"), &entries);
    assert_eq!(told.len(), 21);
    assert_eq!(told[20], "and 30 more");
}

#[test]
fn a_machine_reports_what_its_disk_has_until_it_is_armed_or_installed() {
    let config = config(&CONFIG.replacen("00:01, profile: talos", "00:01, profile: debian", 1));
    let mut state = installed("talos", BootPolicy::Once);
    let told = |state: &MachineState| {
        let entries = known([entry(1, Some("blade01"), "52:54:00:77:00:01", state.clone())]);
        find(&config, &entries, "blade01").unwrap().told(&config)
    };
    let machine = told(&state);
    assert_eq!(machine.next.to_string(), format!("its local disk: {}", Because::Done));
    assert_eq!(
        machine.outdated.unwrap().to_string(),
        "profile talos -> debian; its disk still boots; `reveille arm blade01` installs debian at its next network boot"
    );
    let step = Step::Armed { profile: None, times: 1 };
    state.apply(&Event { subject: Subject::default(), step }, None, SystemTime::UNIX_EPOCH);
    let machine = told(&state);
    assert_eq!(machine.outdated, None);
    assert_eq!(machine.next.to_string(), "profile debian: it is armed; it erases a disk");
    assert_eq!(told(&installed("debian", BootPolicy::Once)).outdated, None);
}

#[test]
fn a_machine_that_is_kept_on_its_disk_boots_it_whatever_the_config_says() {
    let config = config(CONFIG);
    let mut state = MachineState::default();
    let event = Event { subject: Subject::default(), step: Step::KeptOnDisk {} };
    state.apply(&event, None, SystemTime::UNIX_EPOCH);
    let entries = known([
        entry(1, Some("blade02"), "52:54:00:77:00:02", state.clone()),
        // A stranger, who is shown the menu.
        entry(2, None, "52:54:00:80:00:01", state),
    ]);
    for who in ["blade02", "52:54:00:80:00:01"] {
        let found = find(&config, &entries, who).unwrap();
        let next = found.told(&config).next;
        assert_eq!((next.boots, next.because), (What::Disk, Some(Because::KeptOnDisk)), "{who}");
        assert_eq!(found.may_be_armed(&config, None), Ok(()), "that is the way back");
    }
    let fresh = known([entry(1, Some("blade02"), "52:54:00:77:00:02", MachineState::default())]);
    let found = find(&config, &fresh, "blade02").unwrap();
    assert!(found.may_be_armed(&config, None).unwrap_err().contains("`boot: always`"));
}

/// As a flood with one machine's UUID left it, before MACs were bounded.
#[test]
fn a_machine_with_very_many_macs_is_found_without_comparing_each_with_each() {
    let yaml = "profiles: { p: { script: menu } }\n\
         machines: { oden: { mac: ['02:00:00:00:00:05', '02:00:00:00:00:01'], profile: p } }\n";
    let config = config(yaml);
    let mac = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        Mac::new([2, 0, a, b, c, d])
    };
    let macs: Vec<Mac> = (2..1_000_000).map(mac).collect();
    let (id, name) = (Id(1), Some("oden".to_owned()));
    let entries = known([Entry { id, name, macs: macs.clone(), state: Arc::default() }]);
    let found = find(&config, &entries, "02:00:00:0f:42:3f").unwrap();
    assert_eq!(found.subject.name.as_deref(), Some("oden"));
    assert_eq!(found.macs[0], mac(1), "the one that was not seen");
    assert_eq!(found.macs[1..], macs);
    assert_eq!(found.told(&config).macs.len(), macs.len() + 1);
    assert_eq!(list(&config, &entries).len(), 1);
}

#[test]
fn after_a_loss_a_machine_that_was_forgotten_holds_in_every_list() {
    let config = config(CONFIG);
    let noticed = RegistryFault::Lost(Time::from_millis(5));
    let seen = entry(1, Some("freja"), "52:54:00:79:00:04", MachineState::default());
    let lost = KnownMachines::new(vec![seen], Some(&noticed));
    for who in ["blade01", "freja"] {
        let next = find(&config, &lost, who).unwrap().told(&config).next;
        let held = (What::Hold, Some(Because::StateLost), false);
        assert_eq!((next.boots, next.because, next.wipes), held, "{who}");
    }
    let harmless = find(&config, &lost, "blade02").unwrap().told(&config).next;
    assert_eq!(harmless.boots, What::Profile);
}

#[test]
fn a_machine_without_a_confirmed_card_reports_the_command_that_confirms_it_before_its_next_boot() {
    let more = "  kept: { script: linux, image: linux, files: { a: /a }, wipes: false }
  shown: { script: linux, image: linux, files: { a: /a }, wipes: false, release: anyone }
groups:";
    let machines = "  ymer: { serial: CZ1, profile: talos }
  loke: { uuid: 00112233-4455-6677-8899-aabbccddeeff, profile: kept }
  brage: { serial: CZ2, profile: rescue }
  idun: { serial: CZ3, profile: shown }
";
    let config = config(&format!("{}{machines}", CONFIG.replacen("groups:", more, 1)));
    let card: Mac = "52:54:00:77:00:09".parse().unwrap();
    let mut confirmed = MachineState::default();
    confirmed.confirmed.push(card);
    let facts = Facts { serial: Some("CZ1".into()), ..Facts::default() };
    let mut claims = MachineState::default();
    claims.client = Some(Box::new(Client { facts: Some(facts), ..Client::at(Stage::Ipxe) }));
    let next = |entries: &KnownMachines, who: &str| {
        find(&config, entries, who).unwrap().told(&config).next.to_string()
    };
    let unseen = KnownMachines::default();
    assert_eq!(
        next(&unseen, "ymer"),
        "profile talos: it has not completed a boot yet; it erases a disk; its card has to be confirmed first: `reveille confirm ymer MAC`"
    );
    assert_eq!(
        next(&unseen, "loke"),
        "profile kept: it boots by the network whenever it asks; its card has to be confirmed first: `reveille confirm loke MAC`"
    );
    for (who, why) in [
        ("brage", "no secret, and nothing is erased"),
        ("idun", "anyone receives it"),
        ("blade01", "its entry has a `mac`"),
    ] {
        assert!(!next(&unseen, who).contains("confirm"), "{why}");
    }
    let mut ordered = MachineState::default();
    let step = Step::Armed { profile: None, times: 1 };
    ordered.apply(&Event { subject: Subject::default(), step }, None, SystemTime::UNIX_EPOCH);
    let armed = known([entry(1, Some("ymer"), "52:54:00:77:00:08", ordered)]);
    assert!(next(&armed, "ymer").contains("; its card has to be confirmed first"));
    let claimed = known([entry(1, None, "52:54:00:77:00:09", claims)]);
    let told = next(&claimed, "52:54:00:77:00:09");
    assert!(told.ends_with("`reveille confirm ymer 52:54:00:77:00:09`"), "{told}");
    let its = known([entry(1, Some("ymer"), "52:54:00:77:00:09", confirmed)]);
    assert!(!next(&its, "ymer").contains("confirm"));
    let at_its_disk =
        known([entry(1, Some("ymer"), "52:54:00:77:00:09", installed("talos", BootPolicy::Once))]);
    assert!(!next(&at_its_disk, "ymer").contains("confirm"), "its disk needs no card");
}
