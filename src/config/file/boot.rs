//! `images`, `profiles`, `machines` and `menu`: what there is to boot, and who boots it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::boot::catalog::{LocalBoot, Option43, Settings};
use crate::boot::cmdline::Flaw;
use crate::boot::talos::{TalosArch, TalosVersion};
use crate::boot::{Arch, Mac};
use crate::config::fields::{Fields, Keys, Located, Problems, parse};
use crate::config::yaml::Node;

const IMAGE: Keys = Keys { known: &["kernel", "initrd", "cmdline", "talos"], later: &[] };
const IMAGE_TALOS: Keys = Keys { known: &["version", "arch"], later: &["extensions", "factory"] };
const PROFILE: Keys = Keys {
    known: &[
        "script",
        "image",
        "omni",
        "cmdline",
        "local_boot",
        "nbp",
        "option_43",
        "answer_request_67",
        "replace_ipxe",
    ],
    later: &["boot", "nbp_ladder", "talos", "files", "vars"],
};
const MACHINE: Keys = Keys {
    known: &[
        "mac",
        "uuid",
        "serial",
        "profile",
        "cmdline",
        "local_boot",
        "nbp",
        "option_43",
        "answer_request_67",
        "replace_ipxe",
    ],
    later: &[
        "ip",
        "gateway",
        "nic",
        "hostname",
        "dns",
        "boot",
        "nbp_ladder",
        "talos",
        "files",
        "vars",
    ],
};
const NBP: Keys = Keys { known: &["bios", "uefi-x86", "uefi-x64", "uefi-arm64"], later: &[] };
const MENU: Keys = Keys { known: &["default", "timeout", "profiles"], later: &[] };

/// One entry under `images`.
#[derive(Debug, Default)]
pub struct Image {
    /// `kernel`
    pub kernel: Option<Located<String>>,
    /// `initrd`
    pub initrds: Vec<Located<String>>,
    /// `cmdline`
    pub cmdline: Vec<String>,
    /// `talos`
    pub talos: Option<(TalosVersion, TalosArch)>,
}

/// One entry under `profiles`.
#[derive(Debug, Default)]
pub struct Profile {
    /// `script`
    pub script: Option<Located<String>>,
    /// `image`
    pub image: Option<Located<String>>,
    /// `omni`
    pub omni: Option<Located<String>>,
    /// What may stand in a machine too, or in a profile.
    pub settings: Settings,
    /// `nbp`
    pub nbps: Vec<(Arch, Located<String>)>,
}

/// One entry under `machines`.
#[derive(Debug, Default)]
pub struct Machine {
    /// `mac`
    pub macs: Vec<Located<Mac>>,
    /// `uuid`
    pub uuid: Option<Located<Uuid>>,
    /// `serial`
    pub serial: Option<Located<String>>,
    /// `profile`
    pub profile: Option<Located<String>>,
    /// What may stand in a machine too, or in a profile.
    pub settings: Settings,
    /// `nbp`
    pub nbps: Vec<(Arch, Located<String>)>,
}

/// `menu`
#[derive(Debug, Default)]
pub struct Menu {
    /// `default`
    pub default: Option<Located<String>>,
    /// `timeout`
    pub timeout: Option<Duration>,
    /// `profiles`
    pub profiles: Option<Vec<Located<String>>>,
}

/// Kernel arguments, each looked at as iPXE would.
fn cmdline(fields: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let arguments = fields.texts("cmdline", problems).unwrap_or_default();
    for argument in &arguments {
        if let Some(flaw) = Flaw::of(&argument.value) {
            let message = format!("the argument `{}` {flaw}", argument.value);
            problems.error(&argument.key, argument.place, message);
        }
    }
    arguments.into_iter().map(|argument| argument.value).collect()
}

impl Image {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, IMAGE, problems);
        let talos = fields.node("talos").and_then(|node| {
            let fields = Fields::of(node, &fields.path("talos"), IMAGE_TALOS, problems);
            let arches = [("amd64", TalosArch::Amd64), ("arm64", TalosArch::Arm64)];
            let arch = fields.one_of("arch", &arches, &[], problems);
            let version = fields.parsed::<TalosVersion>("version", problems)?;
            Some((version.value, arch.unwrap_or_default()))
        });
        let kernel = local(fields.text("kernel", problems), problems);
        if fields.node("kernel").is_none() {
            let message = if talos.is_some() {
                "`kernel` is missing: this version of reveille does not fetch Talos images itself yet, so name the files with `kernel` and `initrd`"
            } else {
                "`kernel` is missing"
            };
            problems.error(key, node.place, message);
        }
        let initrds = fields.texts("initrd", problems).unwrap_or_default();
        Self {
            kernel,
            initrds: initrds.into_iter().filter_map(|at| local(Some(at), problems)).collect(),
            cmdline: cmdline(&fields, problems),
            talos,
        }
    }
}

/// A file on this host, and no URL.
fn local(at: Option<Located<String>>, problems: &mut Problems) -> Option<Located<String>> {
    let at = at?;
    if at.value.contains("://") {
        let message =
            format!("this version of reveille cannot fetch `{}` yet; name a file", at.value);
        problems.error(&at.key, at.place, message);
        return None;
    }
    Some(at)
}

/// What a profile and a machine have in common.
fn settings(fields: &Fields<'_>, problems: &mut Problems) -> Settings {
    let methods = [("exit", LocalBoot::Exit), ("sanboot", LocalBoot::Sanboot)];
    let modes = [
        ("default", Option43::Default),
        ("none", Option43::None),
        ("bios", Option43::Bios),
        ("skip-prompt", Option43::SkipPrompt),
    ];
    Settings {
        cmdline: cmdline(fields, problems),
        local_boot: fields.one_of("local_boot", &methods, &["http-404", "silent"], problems),
        nbp: BTreeMap::new(),
        option_43: fields.one_of("option_43", &modes, &[], problems),
        answer_request_67: fields.flag("answer_request_67", problems),
        replace_ipxe: fields.flag("replace_ipxe", problems),
    }
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

impl Profile {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, PROFILE, problems);
        let script = fields.text("script", problems);
        if script.is_none() {
            problems.error(
                key,
                node.place,
                "`script` is missing: talos, linux, local-disk, menu, or a template of your own",
            );
        }
        Self {
            script,
            image: fields.text("image", problems),
            omni: fields.text("omni", problems),
            settings: settings(&fields, problems),
            nbps: nbps(&fields, problems),
        }
    }
}

impl Machine {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, MACHINE, problems);
        let macs = fields.texts("mac", problems).unwrap_or_default();
        let uuid = fields.text("uuid", problems);
        let serial = fields.text("serial", problems);
        if macs.is_empty() && uuid.is_none() && serial.is_none() {
            problems.error(
                key,
                node.place,
                "a machine needs at least one of `mac`, `uuid` and `serial`",
            );
        }
        let profile = fields.text("profile", problems);
        if profile.is_none() {
            problems.error(key, node.place, "`profile` is missing");
        }
        Self {
            macs: macs.into_iter().filter_map(|at| parse(at, problems)).collect(),
            uuid: uuid.and_then(|at| machine_uuid(at, problems)),
            serial,
            profile,
            settings: settings(&fields, problems),
            nbps: nbps(&fields, problems),
        }
    }
}

/// A UUID that tells a machine from others: boards without one report zeros or ones.
fn machine_uuid(at: Located<String>, problems: &mut Problems) -> Option<Located<Uuid>> {
    let message = match Uuid::parse_str(&at.value) {
        Ok(uuid) if uuid.is_nil() || uuid.is_max() => {
            format!("`{}` is what a board without a UUID reports: it names no machine", at.value)
        }
        Ok(uuid) => return Some(at.map(|_| uuid)),
        Err(_) => format!("`{}` is not a UUID", at.value),
    };
    problems.error(&at.key, at.place, message);
    None
}

impl Menu {
    pub(super) fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "menu", MENU, problems);
        Self {
            default: fields.text("default", problems),
            timeout: fields.duration("timeout", problems),
            profiles: fields.texts("profiles", problems),
        }
    }
}
