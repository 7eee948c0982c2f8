//! `profiles`, `groups`, `machines` and `menu`: who boots what.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use uuid::Uuid;

use super::settings::{SETTINGS, Said};
use crate::pure::catalog::Network;
use crate::pure::catalog::pattern::{Pattern, Wildcard};
use crate::pure::client::{Cpu, Firmware, Mac};
use crate::pure::config::fields::{Fields, Keys, Located, address, parse};
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::{Node, Value};

const PROFILE: Keys = Keys { known: &["script", "image", "omni"], also: SETTINGS };
const GROUP: Keys = Keys { known: &["name", "match", "profile"], also: SETTINGS };
const MATCH: Keys = Keys {
    known: &["mac", "arch", "firmware", "vendor", "product", "serial", "subnet"],
    also: &[],
};
const MACHINE: Keys = Keys {
    known: &["mac", "uuid", "serial", "profile", "ip", "gateway", "nic", "hostname", "dns"],
    also: SETTINGS,
};
const MENU: Keys = Keys { known: &["default", "timeout", "profiles"], also: &[] };

/// One entry under `profiles`.
#[derive(Debug, Default)]
pub struct Profile {
    /// `script`
    pub script: Option<Located<String>>,
    /// `image`
    pub image: Option<Located<String>>,
    /// `omni`
    pub omni: Option<Located<String>>,
    /// Whether it means to have no image.
    pub lacks_image: bool,
    /// What may stand in a group and a machine too.
    pub said: Said,
}

/// One entry of `groups`.
#[derive(Debug)]
pub struct Group {
    /// `name`
    pub name: Option<Located<String>>,
    /// `match`
    pub pattern: Option<Pattern>,
    /// `profile`
    pub profile: Option<Located<String>>,
    /// What may stand in a profile and a machine too.
    pub said: Said,
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
    /// Whether it leaves the profile to a group.
    pub lacks_profile: bool,
    /// `ip`, `gateway`, `nic`, `hostname`, `dns`
    pub network: Network,
    /// What may stand in a profile and a group too.
    pub said: Said,
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

impl Profile {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, PROFILE, problems);
        let script = fields.text("script", problems);
        if fields.lacks("script") {
            problems.error(
                key,
                node.place,
                "`script` is missing: talos, linux, debian, local-disk, menu or another of those that come with reveille, or a template of your own",
            );
        }
        Self {
            script,
            image: fields.text("image", problems),
            omni: fields.text("omni", problems),
            lacks_image: fields.lacks("image"),
            said: Said::read(&fields, problems),
        }
    }
}

impl Group {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, GROUP, problems);
        let name = fields.text("name", problems);
        if fields.lacks("name") {
            problems.error(key, node.place, "`name` is missing");
        }
        let profile = fields.text("profile", problems);
        if fields.lacks("profile") {
            problems.error(key, node.place, "`profile` is missing");
        }
        let pattern = fields.node("match").and_then(|node| {
            let before = problems.errors();
            let fields = Fields::of(node, &fields.path("match"), MATCH, problems);
            let pattern = pattern(&fields, problems);
            // With a part of it left out, it would fit others.
            (problems.errors() == before).then_some(pattern)
        });
        if fields.lacks("match") || pattern.as_ref().is_some_and(Pattern::is_empty) {
            let message = "`match` is missing or empty; what everybody gets is said by `unknown`";
            problems.error(key, node.place, message);
        }
        let said = Said::read(&fields, problems);
        Self { name, pattern: pattern.filter(|pattern| !pattern.is_empty()), profile, said }
    }
}

fn pattern(fields: &Fields<'_>, problems: &mut Problems) -> Pattern {
    let firmwares = [("bios", Firmware::Bios), ("uefi", Firmware::Uefi)];
    let mac = fields.text("mac", problems).and_then(|at| {
        let is_part = |c: char| c.is_ascii_hexdigit() || ":-. *?".contains(c);
        if at.value.chars().all(is_part) {
            return Some(Wildcard::of_mac(&at.value));
        }
        let message = format!(
            "`{}` is no pattern of a MAC address: hexadecimal digits, `*` and `?`",
            at.value
        );
        problems.error(&at.key, at.place, message);
        None
    });
    let mut text = |field: &str| fields.text(field, problems);
    let [vendor, product, serial] = ["vendor", "product", "serial"].map(&mut text);
    if let Some(serial) = &serial {
        doubt_serial(serial, problems);
    }
    let [vendor, product, serial] =
        [vendor, product, serial].map(|at| at.map(|at| Wildcard::new(&at.value)));
    Pattern {
        mac,
        cpu: fields.one_of("arch", &Cpu::WORDS, problems),
        firmware: fields.one_of("firmware", &firmwares, problems),
        vendor,
        product,
        serial,
        subnet: fields.subnet("subnet", problems),
    }
}

impl Machine {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, MACHINE, problems);
        let macs = fields.texts("mac", problems).unwrap_or_default();
        let uuid = fields.text("uuid", problems);
        let serial = fields.text("serial", problems);
        let is_told = fields.node("mac").is_some_and(|node| !is_empty_list(node))
            || ["uuid", "serial"].into_iter().any(|field| !fields.lacks(field));
        if !is_told && (fields.lacks("mac") || fields.node("mac").is_some()) {
            let message = "a machine needs at least one of `mac`, `uuid` and `serial`";
            problems.error(key, node.place, message);
        }
        Self {
            macs: macs.into_iter().filter_map(|at| parse(at, problems)).collect(),
            uuid: uuid.and_then(|at| machine_uuid(at, problems)),
            serial: serial.and_then(|at| machine_serial(at, problems)),
            profile: fields.text("profile", problems),
            lacks_profile: fields.lacks("profile"),
            network: network(&fields, problems),
            said: Said::read(&fields, problems),
        }
    }
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, Value::List(items) if items.is_empty())
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

/// What boards report whose maker left the field as it was: many machines have the same. hardinfo
/// (`dmi_util.c`, `ignore_placeholder_strings`) and EVE ("discard placeholder DMI serial numbers") pass them over
/// for that reason; ASRock's X300 has the first, System76's open firmware the last; "Not Specified" is
/// dmidecode's word for a field that is not there.
const PLACEHOLDERS: [&str; 20] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "to be filled by oem",
    "default string",
    "system serial number",
    "chassis serial number",
    "base board serial number",
    "serial number",
    "not specified",
    "not applicable",
    "not available",
    "unknown",
    "n/a",
    "na",
    "none",
    "null",
    "invalid",
    "0123456789",
    "1234567890",
    "123456789",
];

fn is_placeholder(serial: &str) -> bool {
    let bare = serial.trim().to_lowercase();
    ['0', '.', '-', 'x', ' '].into_iter().any(|filler| bare.chars().all(|c| c == filler))
        || PLACEHOLDERS.contains(&bare.as_str())
}

/// A serial number that tells a machine from others. None of those that do not is in the catalog: a machine
/// that reports one is found by it by no means.
fn machine_serial(at: Located<String>, problems: &mut Problems) -> Option<Located<String>> {
    if !is_placeholder(&at.value) {
        return Some(at);
    }
    let message = format!(
        "`{}` is what a board without a serial number reports: it names no machine",
        at.value
    );
    problems.error(&at.key, at.place, message);
    None
}

/// Warns of a group by serial number that takes in boards without one.
fn doubt_serial(at: &Located<String>, problems: &mut Problems) {
    let is_bare = !at.value.contains(['*', '?']);
    let message = if is_bare && is_placeholder(&at.value) {
        format!(
            "`{}` is what boards without a serial number report, of whatever kind: all of them are in this group",
            at.value
        )
    } else if !is_bare && at.value.chars().all(|c| "*? ".contains(c)) {
        format!(
            "`{}` fits every serial number, and what boards without one report too; leave it out, or say a part that stays",
            at.value
        )
    } else {
        return;
    };
    problems.warning(&at.key, at.place, message);
}

fn network(fields: &Fields<'_>, problems: &mut Problems) -> Network {
    let ip = fields.text("ip", problems).and_then(|at| match at.value.parse::<Ipv4Net>() {
        Ok(ip) => Some(at.map(|_| ip)),
        Err(_) => {
            let message = format!(
                "`{}` is no IPv4 address with its prefix, as 192.168.1.171/24 is one",
                at.value
            );
            problems.error(&at.key, at.place, message);
            None
        }
    });
    let gateway = fields.address("gateway", problems);
    if let (Some(ip), Some(gateway)) = (&ip, &gateway)
        && !ip.value.contains(&gateway.value)
    {
        let message = format!("{} is not on the network of {}", gateway.value, ip.value);
        problems.error(&gateway.key, gateway.place, message);
    }
    let nic = fields.text("nic", problems).and_then(|at| {
        let is_plain = at.value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if is_plain && (1..16).contains(&at.value.len()) {
            return Some(at.value);
        }
        let message = format!("`{}` is no name of a network interface, as eth0", at.value);
        problems.error(&at.key, at.place, message);
        None
    });
    let hostname = fields.text("hostname", problems).and_then(|at| {
        let is_plain = at.value.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
        if is_plain && (1..64).contains(&at.value.len()) && !at.value.starts_with('-') {
            return Some(at.value);
        }
        let message =
            format!("`{}` is no host name: letters, digits, `-` and `.`, at most 63", at.value);
        problems.error(&at.key, at.place, message);
        None
    });
    let dns = fields.texts("dns", problems).unwrap_or_default();
    let mut dns: Vec<Located<Ipv4Addr>> =
        dns.into_iter().filter_map(|at| address(at, problems)).collect();
    if let Some(third) = dns.get(2) {
        problems.error(&third.key, third.place, "the kernel takes two name servers at most");
        dns.truncate(2);
    }
    if ip.is_none() && fields.node("ip").is_none() {
        for field in ["gateway", "nic", "dns"] {
            if let Some(node) = fields.node(field) {
                let message = "it says nothing without `ip`: the machine has its address by DHCP";
                problems.warning(&fields.path(field), node.place, message);
            }
        }
    }
    Network {
        ip: ip.map(|at| at.value),
        gateway: gateway.map(|at| at.value),
        nic,
        hostname,
        dns: dns.into_iter().map(|at| at.value).collect(),
    }
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
