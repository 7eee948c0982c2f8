//! The config file as it is written: names are not looked up yet, files not opened.
//!
//! Each mapping of the language is one struct and one `read`; the keys stand in one table, with
//! those that the language has and this version does not read.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;
use std::time::Duration;

use uuid::Uuid;

use super::fields::{Fields, Keys, Located, Problems, one_of, parse, scalar, unknown};
use super::yaml::{Node, Value};
use crate::boot::Mac;
use crate::boot::catalog::LocalBoot;
use crate::boot::cmdline::Flaw;
use crate::boot::talos::{TalosArch, TalosVersion};

const FILE: Keys = Keys {
    known: &["server", "omni", "images", "profiles", "machines", "unknown", "menu"],
    later: &["admin", "groups"],
};
const SERVER: Keys = Keys {
    known: &["interfaces", "advertise", "dhcp", "tftp", "http", "state", "boot_scripts", "nbps"],
    later: &[],
};
const DHCP: Keys = Keys { known: &["mode", "port", "boot_server_port"], later: &[] };
const TFTP: Keys = Keys { known: &["port", "max_transfers", "max_per_address"], later: &[] };
const HTTP: Keys = Keys { known: &["port"], later: &[] };
const OMNI: Keys = Keys {
    known: &["api", "join_token", "tunnel", "events", "kernel_log"],
    later: &["ca", "kernel_args"],
};
const SECRET: Keys = Keys { known: &["file", "env", "credential"], later: &[] };
const IMAGE: Keys = Keys { known: &["kernel", "initrd", "cmdline", "talos"], later: &[] };
const IMAGE_TALOS: Keys = Keys { known: &["version", "arch"], later: &["extensions", "factory"] };
const PROFILE: Keys = Keys {
    known: &["script", "image", "omni", "cmdline", "local_boot", "replace_ipxe"],
    later: &[
        "boot",
        "nbp",
        "nbp_ladder",
        "talos",
        "files",
        "option_43",
        "answer_request_67",
        "vars",
    ],
};
const MACHINE: Keys = Keys {
    known: &["mac", "uuid", "serial", "profile", "cmdline", "local_boot", "replace_ipxe"],
    later: &[
        "ip",
        "gateway",
        "nic",
        "hostname",
        "dns",
        "boot",
        "nbp",
        "nbp_ladder",
        "talos",
        "files",
        "option_43",
        "answer_request_67",
        "vars",
    ],
};
const MENU: Keys = Keys { known: &["default", "timeout", "profiles"], later: &[] };

/// A name and what stands under it.
pub type Named<T> = (Located<String>, T);

/// The whole file.
#[derive(Debug, Default)]
pub struct File {
    /// `server`
    pub server: Server,
    /// `omni`
    pub omni: Vec<Named<Omni>>,
    /// `images`
    pub images: Vec<Named<Image>>,
    /// `profiles`
    pub profiles: Vec<Named<Profile>>,
    /// `machines`
    pub machines: Vec<Named<Machine>>,
    /// `unknown`
    pub unknown: Option<Located<String>>,
    /// `menu`
    pub menu: Menu,
}

/// `server`
#[derive(Debug, Default)]
pub struct Server {
    /// `interfaces`
    pub interfaces: Option<Vec<Located<String>>>,
    /// `advertise`
    pub advertise: Option<Located<Ipv4Addr>>,
    /// `dhcp.port`
    pub dhcp_port: Option<u16>,
    /// `dhcp.boot_server_port`
    pub boot_server_port: Option<u16>,
    /// `tftp`
    pub tftp: Tftp,
    /// `http.port`
    pub http_port: Option<u16>,
    /// `state`
    pub state: Option<Located<String>>,
    /// `boot_scripts`
    pub boot_scripts: Option<Located<String>>,
    /// `nbps`
    pub nbps: Option<Vec<Located<String>>>,
}

/// `server.tftp`
#[derive(Debug, Default)]
pub struct Tftp {
    /// `tftp: off`
    pub off: bool,
    /// `port`
    pub port: Option<u16>,
    /// `max_transfers`
    pub max_transfers: Option<u32>,
    /// `max_per_address`
    pub max_per_address: Option<u32>,
}

/// One instance under `omni`.
#[derive(Debug, Default)]
pub struct Omni {
    /// `api`
    pub api: Option<Located<String>>,
    /// `join_token`
    pub join_token: Option<Located<SecretSource>>,
    /// `tunnel`
    pub tunnel: bool,
    /// `events`
    pub events: Option<String>,
    /// `kernel_log`
    pub kernel_log: Option<String>,
}

/// Where a secret is read from; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SecretSource {
    /// The first line of a file; the path starts at the config file.
    File(String),
    /// An environment variable.
    Env(String),
    /// A systemd credential.
    Credential(String),
}

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
    /// `cmdline`
    pub cmdline: Vec<String>,
    /// `local_boot`
    pub local_boot: Option<LocalBoot>,
    /// `replace_ipxe`
    pub replace_ipxe: Option<bool>,
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
    /// `cmdline`
    pub cmdline: Vec<String>,
    /// `local_boot`
    pub local_boot: Option<LocalBoot>,
    /// `replace_ipxe`
    pub replace_ipxe: Option<bool>,
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

impl File {
    /// Reads the whole tree, noting every problem.
    pub fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "", FILE, problems);
        let server = fields.node("server").map(|node| Server::read(node, problems));
        let menu = fields.node("menu").map(|node| Menu::read(node, problems));
        Self {
            server: server.unwrap_or_default(),
            omni: each(&fields, "omni", problems, Omni::read),
            images: each(&fields, "images", problems, Image::read),
            profiles: each(&fields, "profiles", problems, Profile::read),
            machines: each(&fields, "machines", problems, Machine::read),
            unknown: fields.text("unknown", problems),
            menu: menu.unwrap_or_default(),
        }
    }
}

/// Reads every entry of a mapping from names.
fn each<T>(
    fields: &Fields<'_>,
    section: &str,
    problems: &mut Problems,
    read: fn(&Node, &str, &mut Problems) -> T,
) -> Vec<Named<T>> {
    let Some(node) = fields.node(section) else {
        return Vec::new();
    };
    Fields::any(node, section, problems)
        .named(problems)
        .into_iter()
        .map(|(name, node)| {
            let entry = read(node, &name.key, problems);
            (name, entry)
        })
        .collect()
}

impl Server {
    fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "server", SERVER, problems);
        let (dhcp_port, boot_server_port) =
            fields.node("dhcp").map(|node| dhcp(node, problems)).unwrap_or_default();
        let tftp = fields.node("tftp").map(|node| Tftp::read(node, problems));
        let http_port = fields.node("http").and_then(|node| {
            Fields::of(node, "server.http", HTTP, problems).port("port", problems)
        });
        Self {
            interfaces: fields.texts("interfaces", problems),
            advertise: fields.parsed("advertise", problems),
            dhcp_port,
            boot_server_port,
            tftp: tftp.unwrap_or_default(),
            http_port,
            state: fields.text("state", problems),
            boot_scripts: fields.text("boot_scripts", problems),
            nbps: fields.texts("nbps", problems),
        }
    }
}

/// `proxy`, or a mapping with the ports.
fn dhcp(node: &Node, problems: &mut Problems) -> (Option<u16>, Option<u16>) {
    const MODES: &[(&str, ())] = &[("proxy", ())];
    if let Value::Scalar(_) = node.value {
        if let Some(mode) = scalar(node, "server.dhcp", problems) {
            one_of(&mode, MODES, &["off"], problems);
        }
        return (None, None);
    }
    let fields = Fields::of(node, "server.dhcp", DHCP, problems);
    fields.one_of("mode", MODES, &["off"], problems);
    (fields.port("port", problems), fields.port("boot_server_port", problems))
}

impl Tftp {
    /// `off`, or a mapping.
    fn read(node: &Node, problems: &mut Problems) -> Self {
        if let Value::Scalar(_) = node.value {
            let off = scalar(node, "server.tftp", problems)
                .and_then(|word| one_of(&word, &[("off", true)], &[], problems));
            return Self { off: off.unwrap_or(false), ..Self::default() };
        }
        let fields = Fields::of(node, "server.tftp", TFTP, problems);
        Self {
            off: false,
            port: fields.port("port", problems),
            max_transfers: fields.number("max_transfers", 1..=100_000, problems),
            max_per_address: fields.number("max_per_address", 1..=100_000, problems),
        }
    }
}

impl Omni {
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, OMNI, problems);
        let api = fields.text("api", problems);
        if let Some(api) = &api {
            let schemes = ["https://", "http://", "grpc://"];
            if !schemes.iter().any(|scheme| api.value.starts_with(scheme)) {
                let message = format!(
                    "`{}` is not the address of a machine API; write it like https://example.omni.siderolabs.io",
                    api.value
                );
                problems.error(&api.key, api.place, message);
            } else if api.value.contains('?') {
                let message = "the address ends before its `?`: the token comes from `join_token`";
                problems.error(&api.key, api.place, message);
            } else if let Some(flaw) = Flaw::of(&api.value) {
                problems.error(&api.key, api.place, format!("the address {flaw}"));
            }
        } else {
            problems.error(key, node.place, "`api` is missing: the address of Omni's machine API");
        }
        let join_token = match fields.node("join_token") {
            Some(node) => SecretSource::read(node, &fields.path("join_token"), problems),
            None => {
                problems.error(
                    key,
                    node.place,
                    "`join_token` is missing: { file: … }, { env: … } or { credential: … }",
                );
                None
            }
        };
        Self {
            api,
            join_token,
            tunnel: fields.flag("tunnel", problems).unwrap_or(false),
            events: argument(&fields, "events", problems),
            kernel_log: argument(&fields, "kernel_log", problems),
        }
    }
}

/// A field that goes onto the kernel line as part of one argument.
fn argument(fields: &Fields<'_>, field: &str, problems: &mut Problems) -> Option<String> {
    let text = fields.text(field, problems)?;
    if let Some(flaw) = Flaw::of(&text.value) {
        problems.error(&text.key, text.place, format!("`{}` {flaw}", text.value));
    }
    Some(text.value)
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

impl SecretSource {
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Option<Located<Self>> {
        if let Value::Scalar(_) = node.value {
            // The text may be the secret itself: it is not repeated.
            let message = "a secret does not stand in the config; write { file: ./secrets/x }, { env: NAME } or { credential: NAME }";
            problems.error(key, node.place, message);
            return None;
        }
        let fields = Fields::of(node, key, SECRET, problems);
        let mut sources = [
            fields.text("file", problems).map(|at| at.map(Self::File)),
            fields.text("env", problems).map(|at| at.map(Self::Env)),
            fields.text("credential", problems).map(|at| at.map(Self::Credential)),
        ]
        .into_iter()
        .flatten();
        match (sources.next(), sources.next()) {
            (Some(source), None) => Some(source),
            _ => {
                problems.error(key, node.place, "name one source: `file`, `env` or `credential`");
                None
            }
        }
    }
}

impl Image {
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
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

const LOCAL_BOOT: &[(&str, LocalBoot)] =
    &[("exit", LocalBoot::Exit), ("sanboot", LocalBoot::Sanboot)];
const LOCAL_BOOT_LATER: &[&str] = &["http-404", "silent"];

impl Profile {
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
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
            cmdline: cmdline(&fields, problems),
            local_boot: fields.one_of("local_boot", LOCAL_BOOT, LOCAL_BOOT_LATER, problems),
            replace_ipxe: fields.flag("replace_ipxe", problems),
        }
    }
}

impl Machine {
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
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
            cmdline: cmdline(&fields, problems),
            local_boot: fields.one_of("local_boot", LOCAL_BOOT, LOCAL_BOOT_LATER, problems),
            replace_ipxe: fields.flag("replace_ipxe", problems),
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
    fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "menu", MENU, problems);
        Self {
            default: fields.text("default", problems),
            timeout: fields.duration("timeout", problems),
            profiles: fields.texts("profiles", problems),
        }
    }
}

/// "no profile named `x`", with the nearest name.
pub fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    unknown(&format!("{what} named"), name, known)
}
