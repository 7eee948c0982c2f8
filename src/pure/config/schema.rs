//! The config file as it is written: names are not looked up yet, files not opened.
//!
//! Each mapping of the language is one struct and one `read`; the keys stand in one table, with
//! those that the language has and this version does not read.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddr};

use ipnet::Ipv4Net;

use super::fields::{Fields, Keys, Located, one_of, scalar, subnet};
use super::problem::Problems;
use super::yaml::{self, Node, Value};
use crate::pure::catalog::server::OnLostState;

mod boot;
mod image;
mod omni;
mod settings;

pub use self::boot::{Group, Machine, Menu, Profile};
pub use self::image::{Image, Part, Release, Talos};
pub use self::omni::{Omni, SecretSource};
pub use self::settings::Said;

const FILE: Keys = Keys {
    known: &[
        "server", "admin", "omni", "images", "profiles", "machines", "groups", "unknown", "menu",
    ],
    also: &[],
};
const ADMIN: Keys = Keys { known: &["listen", "token"], also: &[] };
const SERVER: Keys = Keys {
    known: &[
        "interfaces",
        "advertise",
        "dhcp",
        "tftp",
        "http",
        "state",
        "boot_scripts",
        "nbps",
        "release",
        "on_lost_state",
    ],
    also: &[],
};
const DHCP: Keys = Keys { known: &["mode", "port", "boot_server_port"], also: &[] };
const TFTP: Keys = Keys {
    known: &["port", "max_transfers", "max_per_address", "max_unanswered", "max_errors", "subnets"],
    also: &[],
};
const HTTP: Keys = Keys { known: &["port", "hosts"], also: &[] };

/// The whole file.
#[derive(Debug, Default)]
pub struct File {
    /// `server`
    pub server: Server,
    /// `omni`
    pub omni: Vec<(Located<String>, Omni)>,
    /// `images`
    pub images: Vec<(Located<String>, Image)>,
    /// `profiles`
    pub profiles: Vec<(Located<String>, Profile)>,
    /// `machines`
    pub machines: Vec<(Located<String>, Machine)>,
    /// `groups`
    pub groups: Vec<Group>,
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
    /// `dhcp`
    pub dhcp: Dhcp,
    /// `tftp`
    pub tftp: Tftp,
    /// `http.port`
    pub http_port: Option<Located<u16>>,
    /// `http.hosts`
    pub http_hosts: Vec<Located<String>>,
    /// `release`
    pub release: Option<crate::pure::catalog::settings::Release>,
    /// `on_lost_state`
    pub on_lost_state: Option<OnLostState>,
    /// `state`
    pub state: Option<Located<String>>,
    /// `boot_scripts`
    pub boot_scripts: Option<Located<String>>,
    /// `nbps`
    pub nbps: Option<Vec<Located<String>>>,
}

/// `server.dhcp`
#[derive(Debug, Default)]
pub struct Dhcp {
    /// `dhcp: off`, or `mode: off`
    pub off: bool,
    /// `port`
    pub port: Option<Located<u16>>,
    /// `boot_server_port`
    pub boot_server_port: Option<Located<u16>>,
}

/// `server.tftp`
#[derive(Debug, Default)]
pub struct Tftp {
    /// `tftp: off`
    pub off: bool,
    /// `port`
    pub port: Option<Located<u16>>,
    /// `max_transfers`
    pub max_transfers: Option<u32>,
    /// `max_per_address`
    pub max_per_address: Option<u32>,
    /// `max_unanswered`
    pub max_unanswered: Option<u32>,
    /// `max_errors`
    pub max_errors: Option<u32>,
    /// `subnets`
    pub subnets: Vec<Ipv4Net>,
}

impl File {
    /// Reads the whole tree, noting every problem.
    pub fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "", FILE, problems);
        let server = fields.node("server").map(|node| Server::read(node, problems));
        let menu = fields.node("menu").map(|node| Menu::read(node, problems));
        if let Some(node) = fields.node("admin") {
            admin(node, problems);
        }
        Self {
            server: server.unwrap_or_default(),
            omni: each(&fields, "omni", problems, Omni::read),
            images: each(&fields, "images", problems, Image::read),
            profiles: each(&fields, "profiles", problems, Profile::read),
            machines: each(&fields, "machines", problems, Machine::read),
            groups: groups(&fields, problems),
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
) -> Vec<(Located<String>, T)> {
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

fn groups(fields: &Fields<'_>, problems: &mut Problems) -> Vec<Group> {
    let Some(node) = fields.node("groups") else {
        return Vec::new();
    };
    let Value::List(items) = &node.value else {
        let message = format!("a list belongs here, not {}", node.describe());
        problems.error("groups", node.place, message);
        return Vec::new();
    };
    let read = |(index, item)| Group::read(item, &format!("groups[{index}]"), problems);
    items.iter().enumerate().map(read).collect()
}

/// `admin`: what it says is looked at, so that a config which a later version reads is known to be right.
fn admin(node: &Node, problems: &mut Problems) {
    let fields = Fields::of(node, "admin", ADMIN, problems);
    let listen = fields.parsed::<SocketAddr>("listen", problems);
    let token =
        fields.node("token").and_then(|node| SecretSource::read(node, "admin.token", problems));
    if let Some(listen) = listen
        && !listen.value.ip().is_loopback()
        && token.is_none()
    {
        let message = format!("{} is no loopback address, so it needs a `token`", listen.value);
        problems.error(&listen.key, listen.place, message);
    }
    let message = "this version of reveille has no API yet, and listens nowhere for it";
    problems.warning("admin", node.place, message);
}

impl Server {
    fn read(node: &Node, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, "server", SERVER, problems);
        let dhcp = fields.node("dhcp").map(|node| Dhcp::read(node, problems));
        let tftp = fields.node("tftp").map(|node| Tftp::read(node, problems));
        let http = fields.node("http").map(|node| {
            let fields = Fields::of(node, "server.http", HTTP, problems);
            (fields.port("port", problems), fields.texts("hosts", problems).unwrap_or_default())
        });
        let (http_port, http_hosts) = http.unwrap_or_default();
        let on_lost = [("hold", OnLostState::Hold), ("boot", OnLostState::Boot)];
        Self {
            interfaces: fields.texts("interfaces", problems),
            advertise: fields.address("advertise", problems),
            dhcp: dhcp.unwrap_or_default(),
            tftp: tftp.unwrap_or_default(),
            http_port,
            http_hosts,
            release: fields.one_of("release", settings::RELEASES, problems),
            on_lost_state: fields.one_of("on_lost_state", &on_lost, problems),
            state: fields.text("state", problems),
            boot_scripts: fields.text("boot_scripts", problems),
            nbps: fields.texts("nbps", problems),
        }
    }
}

impl Dhcp {
    /// `proxy` or `off`, or a mapping with the ports.
    fn read(node: &Node, problems: &mut Problems) -> Self {
        const MODES: &[(&str, bool)] = &[("proxy", false), ("off", true)];
        if let Value::Scalar(_) = node.value {
            let off = scalar(node, "server.dhcp", problems)
                .and_then(|mode| one_of(&mode, MODES, problems));
            return Self { off: off.unwrap_or(false), ..Self::default() };
        }
        let fields = Fields::of(node, "server.dhcp", DHCP, problems);
        Self {
            off: fields.one_of("mode", MODES, problems).unwrap_or(false),
            port: fields.port("port", problems),
            boot_server_port: fields.port("boot_server_port", problems),
        }
    }
}

impl Tftp {
    /// `off`, or a mapping.
    fn read(node: &Node, problems: &mut Problems) -> Self {
        if let Value::Scalar(_) = node.value {
            let off = scalar(node, "server.tftp", problems)
                .and_then(|word| one_of(&word, &[("off", true)], problems));
            return Self { off: off.unwrap_or(false), ..Self::default() };
        }
        let fields = Fields::of(node, "server.tftp", TFTP, problems);
        Self {
            off: false,
            port: fields.port("port", problems),
            max_transfers: fields.number("max_transfers", 1..=100_000, problems),
            max_per_address: fields.number("max_per_address", 1..=100_000, problems),
            max_unanswered: fields.number("max_unanswered", 1..=100, problems),
            max_errors: fields.number("max_errors", 0..=100_000, problems),
            subnets: fields
                .texts("subnets", problems)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|at| subnet(at, problems))
                .collect(),
        }
    }
}

impl File {
    /// Reads YAML text, noting every problem. None where it is no YAML: nothing is known then of what it says.
    pub fn parse(text: &str, problems: &mut Problems) -> Option<Self> {
        match yaml::parse(text) {
            Ok(node) => Some(Self::read(&node, problems)),
            Err(error) => {
                problems.error("", error.place, error.message);
                None
            }
        }
    }

    /// Every secret that is named.
    pub fn secret_sources(&self) -> impl Iterator<Item = &SecretSource> {
        self.omni.iter().flat_map(|(_, omni)| omni.secrets())
    }

    /// Every CA certificate that is named.
    pub fn ca_files(&self) -> impl Iterator<Item = &str> {
        let omni = self.omni.iter().filter_map(|(_, omni)| omni.ca.as_ref());
        let factories = self.images.iter().filter_map(|(_, image)| {
            let (_, ca) = &image.talos.as_ref()?.factory;
            ca.as_ref()
        });
        omni.chain(factories).map(|ca| ca.value.as_str())
    }

    /// Every kernel and initrd that is named.
    pub fn image_files(&self) -> impl Iterator<Item = &str> {
        self.images.iter().flat_map(|(_, image)| {
            image.kernel.iter().chain(&image.initrds).filter_map(|part| match part {
                Part::File(at) => Some(at.value.as_str()),
                Part::Url(..) => None,
            })
        })
    }

    /// Every answer file that is named.
    pub fn answer_files(&self) -> impl Iterator<Item = &str> {
        let profiles = self.profiles.iter().map(|(_, profile)| &profile.said);
        let groups = self.groups.iter().map(|group| &group.said);
        let machines = self.machines.iter().map(|(_, machine)| &machine.said);
        profiles
            .chain(groups)
            .chain(machines)
            .flat_map(|said| said.files.iter().map(|(_, at)| at.value.as_str()))
    }
}
