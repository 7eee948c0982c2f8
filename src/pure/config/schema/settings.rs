//! What may stand in a profile, in a group and in a machine alike.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::pure::catalog::ipxe_word::Flaw;
use crate::pure::catalog::settings::{
    BootPolicy, LocalBoot, NbpLadder, OnDiskFailure, Option43, Release, Settings, Var,
};
use crate::pure::client::Arch;
use crate::pure::config::fields::{Fields, Keys, Located};
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::{Node, Place, Value};

/// Their keys.
pub(super) const SETTINGS: &[&str] = &[
    "cmdline",
    "boot",
    "wipes",
    "on_disk_failure",
    "release",
    "local_boot",
    "nbp",
    "nbp_ladder",
    "option_43",
    "answer_request_67",
    "replace_ipxe",
    "talos",
    "files",
    "vars",
];
const TALOS: Keys = Keys { known: &["halt_if_installed", "labels"], also: &[] };
const NBP: Keys = Keys { known: &["bios", "uefi-x86", "uefi-x64", "uefi-arm64"], also: &[] };

/// The words of `release`.
pub(super) const RELEASES: &[(&str, Release)] =
    &[("anyone", Release::Anyone), ("seen", Release::Seen), ("armed", Release::Armed)];

/// What is said for machines.
#[derive(Debug, Default)]
pub struct Said {
    /// All but what must be looked up.
    pub settings: Settings,
    /// `nbp`
    pub nbps: Vec<(Arch, Located<String>)>,
    /// `files`: name, and path.
    pub files: Vec<(String, Located<String>)>,
    /// Where `boot` stands.
    pub boot_at: Option<(String, Place)>,
    /// Where `wipes` stands.
    pub wipes_at: Option<(String, Place)>,
    /// Where `on_disk_failure` stands.
    pub on_disk_failure_at: Option<(String, Place)>,
    /// Where `release` stands.
    pub release_at: Option<(String, Place)>,
    /// Those that say how DHCP answers, where each stands.
    pub at_dhcp: Vec<Located<&'static str>>,
}

impl Said {
    pub(super) fn read(fields: &Fields<'_>, problems: &mut Problems) -> Self {
        let methods = [
            ("exit", LocalBoot::Exit),
            ("sanboot", LocalBoot::Sanboot),
            ("http-404", LocalBoot::Http404),
            ("silent", LocalBoot::Silent),
        ];
        let modes = [
            ("default", Option43::Default),
            ("none", Option43::None),
            ("bios", Option43::Bios),
            ("skip-prompt", Option43::SkipPrompt),
        ];
        let policies = [
            ("always", BootPolicy::Always),
            ("once", BootPolicy::Once),
            ("local", BootPolicy::Local),
        ];
        let failures = [
            ("boot", OnDiskFailure::Boot),
            ("hold", OnDiskFailure::Hold),
            ("menu", OnDiskFailure::Menu),
        ];
        let ladders = [("auto", NbpLadder::Auto), ("off", NbpLadder::Off)];
        let boot = fields.one_of("boot", &policies, problems);
        let talos = fields
            .node("talos")
            .map(|node| Fields::of(node, &fields.path("talos"), TALOS, problems));
        let settings = Settings {
            cmdline: cmdline(fields, problems),
            boot,
            wipes: fields.flag("wipes", problems),
            on_disk_failure: fields.one_of("on_disk_failure", &failures, problems),
            release: fields.one_of("release", RELEASES, problems),
            local_boot: fields.one_of("local_boot", &methods, problems),
            nbp: BTreeMap::new(),
            nbp_ladder: fields.one_of("nbp_ladder", &ladders, problems),
            option_43: fields.one_of("option_43", &modes, problems),
            answer_request_67: fields.flag("answer_request_67", problems),
            replace_ipxe: fields.flag("replace_ipxe", problems),
            halt_if_installed: talos
                .as_ref()
                .and_then(|talos| talos.flag("halt_if_installed", problems)),
            labels: talos.map(|talos| labels(&talos, problems)).unwrap_or_default(),
            files: BTreeMap::new(),
            vars: vars(fields, problems),
        };
        let at_dhcp = at_dhcp(fields, settings.local_boot);
        let at = |field| fields.node(field).map(|node| (fields.path(field), node.place));
        let nbps = nbps(fields, problems);
        Self {
            settings,
            nbps,
            files: files(fields, problems),
            boot_at: at("boot"),
            wipes_at: at("wipes"),
            on_disk_failure_at: at("on_disk_failure"),
            release_at: at("release"),
            at_dhcp,
        }
    }
}

/// The settings that DHCP follows, and no script can.
fn at_dhcp(fields: &Fields<'_>, local_boot: Option<LocalBoot>) -> Vec<Located<&'static str>> {
    let silent =
        (local_boot == Some(LocalBoot::Silent)).then_some(("local_boot", "local_boot: silent"));
    ["nbp", "nbp_ladder", "option_43", "answer_request_67", "replace_ipxe"]
        .map(|field| (field, field))
        .into_iter()
        .chain(silent)
        .filter_map(|(field, value)| {
            Some(Located { value, key: fields.path(field), place: fields.node(field)?.place })
        })
        .collect()
}

/// Kernel arguments, each looked at as iPXE would.
pub(super) fn cmdline(fields: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let arguments = fields.texts("cmdline", problems).unwrap_or_default();
    for argument in &arguments {
        if let Some(flaw) = Flaw::of(&argument.value) {
            let quoted = match argument.value.as_str() {
                "" => String::new(),
                value => format!(" `{value}`"),
            };
            let message = format!("the argument{quoted} {flaw}");
            problems.error(&argument.key, argument.place, message);
        }
    }
    arguments.into_iter().map(|argument| argument.value).collect()
}

/// The NBP for each architecture that one is named for; whether there is such a one is looked up later.
fn nbps(fields: &Fields<'_>, problems: &mut Problems) -> Vec<(Arch, Located<String>)> {
    let Some(node) = fields.node("nbp") else {
        return Vec::new();
    };
    let fields = Fields::of(node, &fields.path("nbp"), NBP, problems);
    let arches = [
        ("bios", Arch::Bios),
        ("uefi-x86", Arch::UefiX86),
        ("uefi-x64", Arch::UefiX64),
        ("uefi-arm64", Arch::UefiArm64),
    ];
    let named = arches.map(|(key, arch)| Some((arch, fields.text(key, problems)?)));
    named.into_iter().flatten().collect()
}

fn files(fields: &Fields<'_>, problems: &mut Problems) -> Vec<(String, Located<String>)> {
    let Some(node) = fields.node("files") else {
        return Vec::new();
    };
    let fields = Fields::any(node, &fields.path("files"), problems);
    let named = fields.named(problems);
    let read = |(name, _): (Located<String>, &Node)| {
        let path = fields.text(&name.value, problems);
        if path.is_none() {
            problems.error(&name.key, name.place, "the path of a template belongs here");
        }
        Some((name.value, path?))
    };
    named.into_iter().filter_map(read).collect()
}

/// The words of Kubernetes' labels, which Omni's are like; nothing that YAML would read otherwise.
fn labels(talos: &Fields<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(node) = talos.node("labels") else {
        return BTreeMap::new();
    };
    let is_plain = |text: &str| {
        !text.is_empty()
            && text.len() <= 63
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
    };
    let fields = Fields::any(node, &talos.path("labels"), problems);
    let mut labels = BTreeMap::new();
    for (key, _) in fields.entries() {
        let Some(label) = fields.text(&key.text, problems) else {
            continue;
        };
        if is_plain(&key.text) && is_plain(&label.value) {
            labels.insert(key.text.to_string(), label.value);
        } else {
            let message = format!(
                "`{}: {}` is no label: both have at most 63 letters, digits, `-`, `_`, `.` and `/`",
                key.text, label.value
            );
            problems.error(&label.key, key.place, message);
        }
    }
    labels
}

fn vars(fields: &Fields<'_>, problems: &mut Problems) -> BTreeMap<String, Var> {
    let Some(node) = fields.node("vars") else {
        return BTreeMap::new();
    };
    let fields = Fields::any(node, &fields.path("vars"), problems);
    for (key, _) in fields.entries() {
        let is_name = key.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            let message = format!(
                "`{}` is no name that a template can say: a letter, then letters, digits and `_`",
                key.text
            );
            problems.error(&fields.path(&key.text), key.place, message);
        }
    }
    fields
        .entries()
        .iter()
        .filter_map(|(key, node)| Some((key.text.to_string(), var(node)?)))
        .collect()
}

fn var(node: &Node) -> Option<Var> {
    Some(match &node.value {
        Value::Null => return None,
        Value::Scalar(text) => match (&**text, text.parse::<i64>()) {
            ("true", _) => Var::Flag(true),
            ("false", _) => Var::Flag(false),
            // `007` and `+1` are no numbers to who wrote them.
            (_, Ok(number)) if number.to_string() == **text => Var::Number(number),
            (text, _) => Var::Text(text.to_owned()),
        },
        Value::List(items) => Var::List(items.iter().filter_map(var).collect()),
        Value::Map(entries) => Var::Map(
            entries
                .iter()
                .filter_map(|(key, node)| Some((key.text.to_string(), var(node)?)))
                .collect(),
        ),
    })
}
