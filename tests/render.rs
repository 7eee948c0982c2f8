//! What `reveille render` says: by the real binary, for a config with every way to name a machine.
#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"
omni:
  homelab: { api: https://example.omni.siderolabs.io, join_token: { file: ./secrets/token } }
images:
  debian: { kernel: ./linux, initrd: ./initrd.gz, cmdline: [of=image] }
profiles:
  talos: { script: talos, image: debian, omni: homelab }
  rescue: { script: linux, image: debian, files: { preseed.cfg: ./preseed.cfg }, wipes: false }
  disk: { script: local-disk }
machines:
  oden: { mac: 5c:f3:fc:00:00:01, profile: talos, cmdline: [talos.hostname=oden] }
  loke: { uuid: 00112233-4455-6677-8899-aabbccddeeff, profile: rescue }
  ymer: { serial: CZ123, profile: rescue }
  tyst: { mac: 5c:f3:fc:00:00:04, profile: disk, local_boot: silent }
  fyra: { mac: 5c:f3:fc:00:00:05, profile: disk, local_boot: http-404 }
groups:
  - { name: blades, match: { product: "ProLiant*" }, profile: rescue }
  - { name: old, match: { arch: x86, firmware: bios }, profile: disk }
  - { name: there, match: { subnet: 10.9.0.0/16 }, profile: talos }
menu: { profiles: [rescue, talos] }
"#;

/// The smallest file with a PE header, for x86-64.
fn efi() -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file.extend(b"PE\0\0\x64\x86");
    file
}

/// A folder with a config and all that it names.
fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("config.yaml", config.as_bytes());
    write("state/nbps/undionly.kpxe", b"\xea\x05\x00\xc0\x07");
    write("state/nbps/own.kpxe", b"\xea\x05\x00\xc0\x07");
    write("state/nbps/snponly.efi", &efi());
    write("secrets/token", b"hush\n");
    let only_mine = fs::Permissions::from_mode(0o600);
    fs::set_permissions(folder.path().join("secrets/token"), only_mine).unwrap();
    write("linux", b"a kernel");
    write("initrd.gz", b"an initrd");
    write("preseed.cfg", b"d-i netcfg/get_hostname string {{ machine.name }}\n");
    write("boot-scripts/tell.ipxe", b"#!ipxe\necho {{ cmdline }}\necho {{ machine.vars.a }} {{ machine.vars.b }} {{ machine.vars.c }}\n");
    for layer in ["profile", "group", "machine"] {
        write(&format!("{layer}.cfg"), format!("of the {layer}\n").as_bytes());
    }
    folder
}

fn render(folder: &Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.env_remove("REVEILLE_CONFIG");
    command
        .current_dir(folder)
        .env("STATE_DIRECTORY", folder.join("state"))
        .args(["render", "--server", "192.168.1.2"])
        .args(arguments);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap().replace(folder.to_str().unwrap(), "{here}")
    };
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn json(folder: &Path, arguments: &[&str]) -> Value {
    let (said, errors, _) = render(folder, &[arguments, &["--json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{errors}"))
}

#[test]
fn what_a_machine_gets_is_told_in_words_with_the_script_below_and_no_token() {
    let folder = folder(CONFIG);
    let (said, errors, code) = render(folder.path(), &["oden", "--firmware", "uefi"]);
    assert_eq!((errors.as_str(), code), ("", Some(0)));
    let (words, script) = said.split_once("\n\n").unwrap();
    assert_eq!(
        words,
        "\
machine       oden, found by its MAC address 5c:f3:fc:00:00:01
boots         profile talos, image debian: its own entry says so
template      talos.ipxe, built in
settings      wipes: false (script talos); on_disk_failure: boot (default of what does not wipe); release: seen (server)
facts         its iPXE is first asked what machine it is, since Talos, an entry or the template needs to know; then this is decided
its firmware  snponly.efi on 192.168.1.2 (option 60 PXEClient, no option 43)
on port 4011  snponly.efi on 192.168.1.2 (option 60 PXEClient, no option 43)
its iPXE      http://192.168.1.2:8080/boot/5c-f3-fc-00-00-01.ipxe (option 60 PXEClient, no option 43)
script        profile talos, image debian"
    );
    assert!(script.starts_with("#!ipxe\n"), "{script}");
    assert!(script.contains("jointoken=*** ") && !script.contains("hush"), "{script}");
    assert!(script.contains(" of=image talos.hostname=oden || "), "{script}");

    let (only, _, code) = render(folder.path(), &["oden", "--firmware", "uefi", "--script"]);
    assert_eq!((only.as_str(), code), (script, Some(0)));
    let (whole, ..) = render(folder.path(), &["oden", "--script", "--show-secrets"]);
    assert!(whole.contains("jointoken=hush "), "{whole}");
}

#[test]
fn a_machine_is_found_by_name_mac_uuid_and_serial_however_they_are_written() {
    let folder = folder(CONFIG);
    let mac = "oden, found by its MAC address 5c:f3:fc:00:00:01";
    for (arguments, machine) in [
        (&["oden"][..], mac),
        (&["5c:f3:fc:00:00:01"], mac),
        (&["--mac", "5C-F3-FC-00-00-01"], mac),
        (&["--mac", "5cf3.fc00.0001"], mac),
        (&["--mac", "5CF3FC000001"], mac),
        (&["loke"], "loke, found by its UUID"),
        (&["--uuid", "00112233-4455-6677-8899-AABBCCDDEEFF"], "loke, found by its UUID"),
        (
            &["--uuid", "33221100-5544-7766-8899-aabbccddeeff"],
            "loke, found by its UUID, in the other byte order",
        ),
        (&["--serial", "cz123"], "ymer, found by its serial number"),
        (&["--serial", "CZ124"], "no entry has its MAC address, its UUID or its serial number"),
    ] {
        assert_eq!(json(folder.path(), arguments)["why"]["machine"], machine, "{arguments:?}");
    }
}

#[test]
fn a_stranger_gets_what_its_group_says_or_else_the_menu_and_may_choose_from_it() {
    let folder = folder(CONFIG);
    let stranger = ["--mac", "02:00:00:00:00:99"];
    for (more, group, boots) in [
        (
            &["--product", "ProLiant BL460c Gen8"][..],
            "blades, the first that fits: product ProLiant*; DHCP does not tell all of that, so it has no say in the offers",
            "profile rescue, image debian: its group says so",
        ),
        (
            &["--arch", "x86"],
            "old, the first that fits: arch x86, firmware bios; DHCP does not tell all of that, so it has no say in the offers",
            "profile disk: its group says so",
        ),
        (
            &["--address", "10.9.3.1"],
            "there, the first that fits: subnet 10.9.0.0/16",
            "profile talos, image debian: its group says so",
        ),
        (&["--firmware", "uefi", "--arch", "x86"], "none of 3 fits", "the menu: `unknown` says so"),
    ] {
        let why = &json(folder.path(), &[&stranger, more].concat())["why"];
        assert_eq!((&why["group"], &why["boots"]), (&group.into(), &boots.into()), "{more:?}");
    }
    let menu = json(folder.path(), &stranger);
    assert_eq!(
        (&menu["does"], &menu["why"]["template"]),
        (&"the menu".into(), &"menu.ipxe, built in".into())
    );
    let chosen = json(folder.path(), &[&stranger[..], &["--choice", "rescue"]].concat());
    assert_eq!(chosen["does"], "profile rescue, image debian");
    let not_offered = json(folder.path(), &[&stranger[..], &["--choice", "disk"]].concat());
    assert_eq!(not_offered["does"], "the menu");
}

#[test]
fn each_kind_of_firmware_is_offered_its_own() {
    let folder = folder(CONFIG);
    let script =
        "http://192.168.1.2:8080/boot/5c-f3-fc-00-00-01.ipxe (option 60 PXEClient, no option 43)";
    for (firmware, first, count) in [
        ("bios", "undionly.kpxe on 192.168.1.2 (option 60 PXEClient, option 43 is 06 01 08 ff)", 2),
        ("uefi", "snponly.efi on 192.168.1.2 (option 60 PXEClient, no option 43)", 3),
        (
            "uefi-http",
            "http://192.168.1.2:8080/nbp/snponly.efi (option 60 HTTPClient, no option 43)",
            2,
        ),
    ] {
        let offers = &json(folder.path(), &["oden", "--firmware", firmware])["offers"];
        assert_eq!((&offers["its firmware"], &offers["its iPXE"]), (&first.into(), &script.into()));
        assert_eq!(offers.as_object().unwrap().len(), count, "{offers}");
    }
    let offers = &json(folder.path(), &["oden", "--firmware", "ipxe"])["offers"];
    assert_eq!(*offers, serde_json::json!({ "its iPXE": script }));
}

#[test]
fn who_is_sent_to_its_disk_without_an_answer_or_ignored_is_told_so() {
    let silent = "no answer: it boots its local disk (`local_boot: silent`)";
    let folder = folder(CONFIG);
    let said = json(folder.path(), &["tyst"]);
    assert_eq!(said["offers"], serde_json::json!({ "its firmware": silent, "its iPXE": silent }));
    assert_eq!(
        said["why"]["settings"],
        "wipes: false (script local-disk); on_disk_failure: boot (default of what does not wipe); local_boot: silent (machine tyst)"
    );
    assert_eq!(said["does"], "to its local disk by exit");

    let (said, _, code) = render(folder.path(), &["fyra"]);
    assert!(
        said.ends_with("script        none: it boots its local disk (`local_boot: http-404`)\n")
    );
    assert_eq!(code, Some(1));
    let (said, errors, code) = render(folder.path(), &["fyra", "--script"]);
    let none = "reveille: there is no script: it boots its local disk (`local_boot: http-404`)\n";
    assert_eq!((said.as_str(), errors.as_str(), code), ("", none, Some(1)));

    let ignoring = self::folder("unknown: ignore\n");
    let said = json(ignoring.path(), &["--mac", "02:00:00:00:00:99"]);
    let ignored = "it is not in the config, which says `unknown: ignore`";
    assert_eq!(said["refused"], ignored);
    assert_eq!(said["offers"]["its firmware"], format!("no answer: {ignored}"));
    assert_eq!(said["why"]["boots"], "nothing, it is not answered: `unknown` says so");
}

#[test]
fn an_answer_file_is_filled_in_and_one_that_is_not_there_is_told_with_those_that_are() {
    let folder = folder(CONFIG);
    let (said, errors, code) = render(folder.path(), &["ymer", "--file", "preseed.cfg"]);
    let filled = "d-i netcfg/get_hostname string ymer\n";
    assert_eq!((said.as_str(), errors.as_str(), code), (filled, "", Some(0)));
    let (said, errors, code) = render(folder.path(), &["ymer", "--file", "late.sh"]);
    let told = "reveille: late.sh: profile rescue has no file of this name; it has: preseed.cfg\n";
    assert_eq!((said.as_str(), errors.as_str(), code), ("", told, Some(1)));
}

#[test]
fn who_is_not_known_or_not_named_is_told_what_to_say() {
    let folder = folder(CONFIG);
    for (arguments, told) in [
        (&["odne"][..], "there is no machine named `odne`; did you mean `oden`?"),
        (&["Oden"], "there is no machine named `Oden`; did you mean `oden`?"),
        (&[], "name a machine of the config, or say --mac, --uuid or --serial"),
    ] {
        let (said, errors, code) = render(folder.path(), arguments);
        assert_eq!((said.as_str(), code), ("", Some(1)), "{arguments:?}");
        assert_eq!(errors, format!("reveille: {told}\n"));
    }
    let broken = self::folder("unknown: meun\n");
    let (said, errors, code) = render(broken.path(), &["oden"]);
    assert_eq!((said.as_str(), code), ("", Some(1)));
    let told = "reveille: config: ./config.yaml cannot be used: ./config.yaml:1:10: error: unknown: there is no profile named `meun`; did you mean `menu`?";
    assert!(errors.starts_with(told), "{errors}");
}

/// One setting in the profile `p`, in the group `g` and in the machine `m` that is in it, wherever `said` has it.
fn layers(said: [&str; 3]) -> TempDir {
    let [profile, group, machine] =
        said.map(|said| if said.is_empty() { String::new() } else { format!(", {said}") });
    // A template of one's own wipes unless it is written otherwise, and then needs another `boot`.
    let harmless =
        if said.iter().any(|said| said.contains("wipes")) { "boot: once" } else { "wipes: false" };
    folder(&format!(
        "images: {{ debian: {{ kernel: ./linux, cmdline: [image, of=image] }} }}\n\
         profiles: {{ p: {{ script: tell, {harmless}, image: debian, cmdline: [profile, of=profile], vars: {{ a: p, b: p, c: p }}, files: {{ a: profile.cfg, b: profile.cfg, c: profile.cfg }}{profile} }} }}\n\
         groups: [{{ name: g, match: {{ mac: '02:*' }}, profile: p, cmdline: [group, of=group], vars: {{ b: g, c: g }}, files: {{ b: group.cfg, c: group.cfg }}{group} }}]\n\
         machines: {{ m: {{ mac: 02:00:00:00:00:01, cmdline: [machine, of=machine, -group], vars: {{ c: m }}, files: {{ c: machine.cfg }}{machine} }} }}\n"
    ))
}

#[test]
fn the_machines_word_comes_before_its_groups_and_that_before_its_profiles() {
    let layer = ["profile p", "group g", "machine m"];
    for (name, told, values) in [
        ("boot", "boot", ["always", "once", "always"]),
        ("wipes", "wipes", ["false", "true", "false"]),
        ("on_disk_failure", "on_disk_failure", ["boot", "menu", "hold"]),
        ("release", "release", ["anyone", "armed", "seen"]),
        ("local_boot", "local_boot", ["exit", "sanboot", "silent"]),
        ("nbp_ladder", "nbp_ladder", ["auto", "off", "auto"]),
        ("option_43", "option_43", ["none", "bios", "skip-prompt"]),
        ("answer_request_67", "answer_request_67", ["false", "true", "false"]),
        ("replace_ipxe", "replace_ipxe", ["false", "true", "false"]),
        ("talos: { halt_if_installed", "talos.halt_if_installed", ["false", "true", "false"]),
        ("talos: { labels: { rack", "label rack", ["a", "b", "c"]),
        ("nbp: { bios", "nbp for BIOS", ["undionly.kpxe", "own.kpxe", "undionly.kpxe"]),
    ] {
        // Who says it: nobody but the profile, then the group too, then all three, then all but the group.
        for (sayers, wins) in
            [(&[0][..], 0), (&[0, 1], 1), (&[0, 1, 2], 2), (&[0, 2], 2), (&[1], 1)]
        {
            let close = " }".repeat(name.matches('{').count());
            let said = [0, 1, 2].map(|at| match sayers.contains(&at) {
                true => format!("{name}: {}{close}", values[at]),
                false => String::new(),
            });
            let folder = layers(said.each_ref().map(String::as_str));
            let settings = json(folder.path(), &["m"])["why"]["settings"].to_string();
            let expected = format!("{told}: {} ({})", values[wins], layer[wins]);
            assert!(settings.contains(&expected), "{said:?}: {expected}: {settings}");
            assert_eq!(settings.matches(&format!("{told}: ")).count(), 1, "{settings}");
        }
    }
}

#[test]
fn arguments_files_and_variables_add_up_and_the_machines_win() {
    let folder = layers(["", "", ""]);
    let said = json(folder.path(), &["m"]);
    let script = "#!ipxe\necho image profile machine of=machine\necho p g m\n";
    assert_eq!(said["script"], script);
    for (name, text) in
        [("a", "of the profile\n"), ("b", "of the group\n"), ("c", "of the machine\n")]
    {
        assert_eq!(render(folder.path(), &["m", "--file", name]).0, text);
    }
    let stranger = json(folder.path(), &["--mac", "02:00:00:00:00:02"]);
    assert_eq!(stranger["script"], "#!ipxe\necho image profile group of=group\necho p g g\n");
}

#[test]
fn what_is_known_of_old_hardware_is_told_with_its_source() {
    let config = CONFIG.replace(
        "initrd: ./initrd.gz, cmdline",
        "initrd: ./initrd.gz, talos: { version: v1.12.1, extensions: [siderolabs/intel-ucode] }, cmdline",
    );
    let folder = folder(&config);
    let advice = |arguments: &[&str]| {
        let said = json(folder.path(), &[&["oden"], arguments].concat());
        said["why"]["advice"].as_str().map(str::to_owned)
    };
    assert_eq!(advice(&[]), None);
    let card = advice(&["--nic", "14e4:1639"]).unwrap();
    assert_eq!(
        card,
        "its network card, a Broadcom BCM5706, 5708, 5709 or 5716, has no firmware in this image, so that Talos has no network: add siderolabs/bnx2-bnx2x to the image's `extensions` (https://github.com/siderolabs/talos/issues/8761)"
    );
    let both = advice(&["--nic", "14e4:1639", "--product", "ProLiant DL380p Gen8"]).unwrap();
    assert!(both.starts_with(&format!("{card}; Talos 1.12 and later turns on VT-d")), "{both}");
    let old = advice(&["--arch", "x64-v1"]).unwrap();
    assert!(old.starts_with("its CPU is older than x86-64-v2"), "{old}");
    let uefi = advice(&["--firmware", "uefi-x86"]).unwrap();
    assert!(uefi.starts_with("its UEFI is a 32-bit one"), "{uefi}");
    let (_, errors, code) = render(folder.path(), &["oden", "--nic", "bcm5709"]);
    assert!(errors.contains("`bcm5709` is not a PCI id; write it like 14e4:1639"), "{errors}");
    assert_eq!(code, Some(2));
}

#[test]
fn each_firmware_has_the_first_word_for_its_own_nbp() {
    let folder = layers([
        "nbp: { bios: own.kpxe, uefi-x64: snponly.efi }",
        "",
        "nbp: { bios: undionly.kpxe }",
    ]);
    let said = json(folder.path(), &["m"]);
    let settings = said["why"]["settings"].as_str().unwrap();
    let nbps =
        "nbp for BIOS: undionly.kpxe (machine m); nbp for UEFI x86-64: snponly.efi (profile p)";
    assert!(settings.contains(nbps), "{settings}");
    let offered = said["offers"]["its firmware"].as_str().unwrap();
    assert!(offered.starts_with("undionly.kpxe on "), "{offered}");
}

#[test]
fn a_machine_that_only_a_uuid_names_has_the_command_that_confirms_its_card() {
    let folder = folder(CONFIG);
    for name in ["loke", "ymer"] {
        let card = &json(folder.path(), &[name])["why"]["card"];
        let told = format!("its card has to be confirmed first: `reveille confirm {name} MAC`");
        assert_eq!(card, &Value::from(told), "{name}");
    }
    assert_eq!(json(folder.path(), &["oden"])["why"]["card"], Value::Null);
}
