//! Every boot script that comes with reveille, whole: for a machine of which nothing is said, and for one of
//! which everything is; and what hostile values come to in them.

use std::sync::Arc;

use super::*;
use crate::pure::catalog::pattern::Pattern;
use crate::pure::catalog::talos::TalosArch;
use crate::pure::catalog::{Files, Group, Image, Machine, Network, Part, STARTING_A_KERNEL, Talos};
use crate::pure::client::{Cpu, Facts, Stage};
use crate::pure::script::templates::BUILT_IN;

const MAC: Mac = Mac::new([0x5c, 0xf3, 0xfc, 0, 0, 1]);
const BASE: &str = "http://192.168.1.2:8080";

/// Those that no profile names: reveille comes to them by itself.
const BY_ITSELF: [&str; 5] = ["hold", "ask-facts", "autoexec", "refused", "waiting"];

fn image(initrds: &[&str]) -> Arc<Image> {
    Arc::new(Image {
        missing: None,
        name: "rack".into(),
        files: Files {
            kernel: Part::Own("/srv/vmlinuz".into()),
            initrds: initrds.iter().map(|path| Part::Own(path.into())).collect(),
        },
        cmdline: vec![],
        talos: None,
    })
}

/// A profile of which no more is said than must be.
fn bare(script: &str) -> Profile {
    let needs_image = STARTING_A_KERNEL.contains(&script);
    Profile {
        name: "bare".into(),
        script: script.into(),
        has_own_script: false,
        image: needs_image.then(|| image(&["/srv/initrd"])),
        omni: None,
        settings: Settings::default(),
    }
}

fn text(text: &str) -> Var {
    Var::Text(text.to_owned())
}

/// A machine of which everything is said that some script reads.
fn rich(script: &str) -> (Profile, Who) {
    let files = ["preseed.cfg", "ks.cfg", "config.ign", "user-data", "meta-data"];
    let vars = [
        ("rootfs", "/images/fcos-rootfs/kernel"),
        ("repo", "http://mirror.example/os/"),
        ("iso", "http://mirror.example/ubuntu.iso"),
        ("netbootxyz", "http://mirror.example/menu.ipxe"),
        ("install_dev", "/dev/sda"),
    ];
    let settings = Settings {
        cmdline: vec!["console=ttyS1,115200n8".into()],
        files: files.map(|name| (name.to_owned(), name.into())).into(),
        vars: vars.map(|(name, value)| (name.to_owned(), text(value))).into(),
        ..Settings::default()
    };
    let image = Some(image(&["/srv/initrd", "/srv/more"]));
    let profile = Profile { name: "rich".into(), image, settings, ..bare(script) };
    let machine = Machine {
        name: "oden".into(),
        macs: vec![MAC],
        uuid: None,
        serial: Some("CZ1".into()),
        profile: None,
        network: Network {
            ip: "192.168.1.171/24".parse().ok(),
            gateway: "192.168.1.1".parse().ok(),
            nic: Some("eno1".into()),
            hostname: Some("oden-1".into()),
            dns: vec![[192, 168, 1, 1].into(), [192, 168, 1, 3].into()],
        },
        settings: Settings { cmdline: vec!["quiet".into()], ..Settings::default() },
    };
    let group = Group {
        name: "asgard".into(),
        pattern: Pattern::default(),
        profile: Arc::new(bare(script)),
        settings: Settings { cmdline: vec!["iommu=off".into()], ..Settings::default() },
    };
    (profile, Who { machine: Some(Arc::new(machine)), group: Some(Arc::new(group)) })
}

fn told() -> Client {
    Client {
        mac: Some(MAC),
        arch: Some(crate::pure::client::Arch::Bios),
        uuid: uuid::Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").ok(),
        facts: Some(Facts {
            serial: Some("CZ 31 || shell".into()),
            product: Some("ProLiant BL460c Gen8".into()),
            vendor: Some("HP".into()),
            cpu: Some(Cpu::X64),
            nic: "14e4:1639".parse().ok(),
            ..Facts::default()
        }),
        choice: Some("rich".into()),
        ..Client::at(Stage::Ipxe)
    }
}

fn run(profile: Profile, who: Who, client: &Client) -> Result<String, Refusal> {
    let profile = Arc::new(profile);
    let kind = Kind::of(&profile, &who);
    let mut catalog = Catalog::default();
    catalog.menu.profiles = vec![profile];
    let shelf = Shelf::default();
    let scene =
        Scene { client, mac: MAC, base: BASE, http: BASE, id: None, file_id: None, shelf: &shelf };
    let script = Script::new(kind, who);
    Ok(render(&Templates::default(), &script, &catalog, scene)?.text)
}

fn bare_run(script: &str) -> Result<String, Refusal> {
    let stranger = Client { mac: Some(MAC), ..Client::at(Stage::Ipxe) };
    run(bare(script), Who::default(), &stranger)
}

fn rich_run(script: &str) -> Result<String, Refusal> {
    let (profile, who) = rich(script);
    run(profile, who, &told())
}

#[test]
fn every_script_for_a_machine_of_which_nothing_is_said_and_one_of_which_everything_is() {
    for (name, _) in BUILT_IN.iter().filter(|(name, _)| !BY_ITSELF.contains(name)) {
        insta::assert_snapshot!(format!("{name}_bare"), bare_run(name).unwrap());
        insta::assert_snapshot!(format!("{name}_rich"), rich_run(name).unwrap());
    }
}

/// PROTOCOL D.5 of the appliance's reference: what Debian 12's iPXE, of 2019, and every later one has.
#[test]
fn every_script_starts_as_ipxe_wants_has_its_labels_and_uses_what_every_build_has() {
    let commands = "dhcp chain kernel initrd boot menu item choose iseq isset set goto sleep echo prompt exit \
                    sanboot cpuid imgfree shell";
    let commands: Vec<&str> = commands.split(' ').filter(|word| !word.is_empty()).collect();
    for (name, _) in BUILT_IN.iter().filter(|(name, _)| !BY_ITSELF.contains(name)) {
        for script in [bare_run(name).unwrap(), rich_run(name).unwrap()] {
            assert!(script.starts_with("#!ipxe\n"), "{name}: {script}");
            let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
            for line in lines.clone().filter(|line| !line.starts_with(['#', ':'])) {
                for part in line.split(" || ").flat_map(|part| part.split(" && ")) {
                    let word = part.trim_end_matches("||").split(' ').next().unwrap();
                    assert!(word.is_empty() || commands.contains(&word), "{name}: {word}: {line}");
                    if let Some(label) = part.strip_prefix("goto ").filter(|to| *to != "${chosen}")
                    {
                        let label = format!("\n:{label}\n");
                        assert!(script.contains(&label), "{name}: {label}: {script}");
                    }
                }
            }
        }
    }
}

#[test]
fn only_an_x86_64_talos_asks_for_a_cpu_of_its_time_and_only_where_it_needs_one() {
    let asks = |arch: Option<TalosArch>, any_cpu: Option<bool>| {
        let (mut profile, who) = rich("talos");
        let vars = &mut profile.settings.vars;
        vars.extend(any_cpu.map(|any| ("any_cpu".to_owned(), Var::Flag(any))));
        profile.image = profile.image.and_then(Arc::into_inner).map(|image| {
            let (release, version, extensions) = ("v1.11.2".to_owned(), None, None);
            let talos = arch.map(|arch| Talos { release, version, arch, extensions });
            Arc::new(Image { talos, ..image })
        });
        run(profile, who, &told()).unwrap().contains("cpuid ")
    };
    let (amd64, arm64) = (Some(TalosArch::Amd64), Some(TalosArch::Arm64));
    assert!(asks(amd64, None) && asks(amd64, Some(false)) && asks(None, None));
    assert!(!asks(arm64, None) && !asks(amd64, Some(true)) && !asks(None, Some(true)));
}

#[test]
fn the_scripts_that_start_a_kernel_are_known() {
    for (name, source) in BUILT_IN {
        let starts = source.contains("\nkernel ") || source.contains("include \"linux.ipxe\"");
        assert_eq!(STARTING_A_KERNEL.contains(name), starts, "{name}");
    }
}

#[test]
fn every_script_says_in_its_first_lines_what_it_is() {
    for (name, source) in BUILT_IN {
        let first = source.strip_prefix("#!ipxe\n").unwrap_or(source);
        assert!(first.starts_with("{#-\n  "), "{name}");
        let about = first.split_once("#}").unwrap().0;
        let tells =
            ["\n  Reads ", "\n  Vars ", "\n  Example "].iter().all(|part| about.contains(part));
        assert!(tells || BY_ITSELF.contains(name), "{name}: {about}");
    }
}

/// Cases 84, 87, 89, 90 and 91 of the appliance's reference.
const HOSTILE: [&str; 16] = [
    "x\nshell",
    "x\r\nshell",
    "x || shell",
    "x && shell",
    "x ; shell",
    "||",
    "&&",
    ";",
    "#x",
    "${net0/mac}",
    "x${y}",
    "x\\",
    "a b=c",
    "\u{2028}x",
    "x\u{0}y",
    "\u{a0}",
];

/// Odd, but one word to iPXE.
const ODD: [&str; 7] = ["100%", "a&b", "a;b", "a||b", "Öden-Ω", "\"x'", "a\\b"];

#[test]
fn a_hostile_word_of_the_config_is_refused_by_every_script_that_prints_it() {
    let places: [(&str, &[&str]); 4] = [
        ("rootfs", &["coreos"]),
        ("repo", &["kickstart"]),
        ("iso", &["autoinstall"]),
        ("netbootxyz", &["netbootxyz"]),
    ];
    for (var, scripts) in places {
        for script in scripts {
            let with = |value: &str| {
                let (mut profile, who) = rich(script);
                profile.settings.vars.insert(var.to_owned(), text(value));
                run(profile, who, &told())
            };
            let lines = with("fine").unwrap().lines().count();
            for value in HOSTILE {
                // Behind `name=` an operator is none.
                match with(value) {
                    Err(Refusal::Template(mistake)) => {
                        assert!(mistake.line.is_some(), "{script}: {value:?}: {mistake}");
                        assert!(!mistake.to_string().contains("shell"), "not repeated: {mistake}");
                    }
                    Err(other) => panic!("{script}: {value:?}: {other}"),
                    Ok(made) => {
                        assert!(["||", "&&", ";", "#x"].contains(&value), "{script}: {value:?}");
                        assert!(made.contains(&format!("={value} ")), "{script}: {made}");
                    }
                }
            }
            for value in ODD.into_iter().chain([&*"x".repeat(200)]) {
                let made = with(value).unwrap();
                assert!(made.contains(value), "{script}: {value}: {made}");
                assert_eq!(made.lines().count(), lines, "{script}: {value}: {made}");
            }
        }
    }
}

#[test]
fn what_a_machine_says_of_itself_is_shown_as_far_as_it_can_be_printed() {
    let shown = |value: &str| {
        let facts = Facts { serial: Some(value.into()), ..Facts::default() };
        let client = Client { facts: Some(facts), ..told() };
        let script = run(bare("inspect"), Who::default(), &client).unwrap();
        let line = script.lines().find(|line| line.starts_with("echo serial")).unwrap();
        assert_eq!(script.lines().count(), bare_run("inspect").unwrap().lines().count());
        line["echo serial   ".len()..].to_owned()
    };
    let table = [
        ("x\nshell", "x shell"),
        ("x || shell", "x shell"),
        ("|| && ; #", "unknown"),
        ("${net0/mac}", "unknown"),
        ("100% a&b Öden", "100% a&b Öden"),
        ("x\\", "unknown"),
        ("\"'", "\"'"),
        ("", "unknown"),
    ];
    for (value, expected) in table {
        assert_eq!(shown(value), expected, "{value:?}");
    }
    assert_eq!(shown(&"x".repeat(200)).len(), 200);
}

#[test]
fn a_serial_number_of_any_kind_goes_through_a_url_and_back() {
    for value in HOSTILE.into_iter().chain(ODD) {
        let facts = Facts { serial: Some(value.into()), ..Facts::default() };
        let client = Client { facts: Some(facts), ..told() };
        let script = run(bare("linux"), Who::default(), &client).unwrap();
        let url = script.lines().find_map(|line| line.strip_prefix("chain ")).unwrap();
        let query = url.split_once('?').unwrap().1.split(' ').next().unwrap();
        assert_eq!(urls::told(query)["serial"], value);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_&=:%".contains(c);
        assert!(query.chars().all(is_plain), "{query}");
    }
}

#[test]
fn a_kernel_line_that_its_template_makes_too_long_is_refused_without_its_value() {
    let (mut profile, who) = rich("kickstart");
    profile.settings.vars.insert("repo".into(), text(&format!("http://{}/", "s".repeat(2000))));
    let refused = run(profile, who, &told()).unwrap_err().to_string();
    assert!(refused.starts_with("the kernel line has "), "{refused}");
    assert!(
        refused.ends_with("`inst.repo=…` (2018 bytes), with what its template adds"),
        "{refused}"
    );
}

/// Over TFTP nothing follows a file's name: the script is only asked for again.
#[test]
fn a_kernel_that_does_not_start_is_reported_over_http_and_cannot_be_over_tftp() {
    let client = Client { mac: Some(MAC), ..Client::at(Stage::Ipxe) };
    for (base, expected) in [(BASE, true), ("tftp://192.168.1.2:69", false)] {
        let catalog = Catalog::default();
        let shelf = Shelf::default();
        let scene = Scene {
            client: &client,
            mac: MAC,
            base,
            http: BASE,
            id: None,
            file_id: None,
            shelf: &shelf,
        };
        let profile = Arc::new(bare("linux"));
        let script = Script::new(Kind::of(&profile, &Who::default()), Who::default());
        let text = render(&Templates::default(), &script, &catalog, scene).unwrap().text;
        let failed = text.split_once(":boot_failed").unwrap().1;
        assert!(failed.contains(&format!("chain --replace --autofree {base}/")), "{failed}");
        assert_eq!(failed.contains("boot=failed"), expected, "{failed}");
    }
}

/// The question is part of the built-in template.
#[test]
fn a_menu_of_the_operators_own_asks_nothing_that_it_does_not_write_itself() {
    let own = "{% for profile in menu.profiles %}\nchain {{ profile.url }}\n{% endfor %}";
    let own = Templates::new([("menu".to_owned(), Ok(own.to_owned()))].into(), BTreeMap::new());
    let wiping = Arc::new(bare("debian"));
    let mut catalog = Catalog::default();
    catalog.menu.profiles = vec![Arc::clone(&wiping)];
    let menu = Script::new(Kind::Menu(LocalBoot::Exit), Who::default());
    let client = Client { mac: Some(MAC), ..Client::at(Stage::Ipxe) };
    let shelf = Shelf::default();
    let scene = Scene {
        client: &client,
        mac: MAC,
        base: BASE,
        http: BASE,
        id: None,
        file_id: None,
        shelf: &shelf,
    };
    for (templates, asks) in [(&Templates::default(), true), (&own, false)] {
        let text = render(templates, &menu, &catalog, scene).unwrap().text;
        assert_eq!(text.contains("yes, erase the disk"), asks, "{text}");
        assert!(text.contains(&format!("profile={}", wiping.name)), "{text}");
    }
}
