//! What `reveille init` writes: a config with a comment at each of its parts, and what to do next.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::boot::Mac;
use crate::boot::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Pasted};
use crate::boot::talos::TalosVersion;

/// Where the image factory has Talos without any system extension: the hash of `customization: {}`.
const VANILLA: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

/// The column of the comments.
const COMMENTS: usize = 32;

/// What is known of this network.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the config goes.
    pub(super) config: PathBuf,
    /// The interface that machines boot on.
    pub(super) interface: String,
    /// The subnets that this host is in there.
    pub(super) subnets: Vec<Ipv4Net>,
    /// The Omni instance that machines join: its name, and what was pasted.
    pub(super) omni: Option<(String, Pasted)>,
    /// What machines boot.
    pub(super) system: System,
    /// The kernel, as the config names it.
    pub(super) kernel: String,
    /// The initial RAM disk, as the config names it.
    pub(super) initrd: String,
    /// Machines.
    pub(super) machines: Vec<NewMachine>,
}

/// What machines boot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Talos Linux.
    Talos(Release),
    /// Another Linux.
    Linux,
}

/// A release of Talos, as `v1.11.2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release(String);

/// A machine to write down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewMachine {
    /// Its name.
    pub(super) name: Name,
    /// Its network card.
    pub(super) mac: Mac,
    /// What it boots, where it is not the usual.
    pub(super) profile: Option<String>,
}

/// A name as the config has them: it goes into URLs, scripts and here into the name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.starts_with('.') || !text.chars().all(plain) {
            return Err(format!("`{text}` is not a name: letters, digits, `-`, `_` and `.`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for NewMachine {
    type Err = String;

    /// Reads `oden=5c:f3:fc:00:00:01` and `oden=5c:f3:fc:00:00:01,disk`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("write it like oden=5c:f3:fc:00:00:01")?;
        let (mac, profile) = match rest.split_once(',') {
            Some((mac, profile)) => (mac, Some(profile.to_owned())),
            None => (rest, None),
        };
        let mac = mac.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { name: name.parse()?, mac, profile })
    }
}

impl FromStr for Release {
    type Err = String;

    /// Stricter than [`TalosVersion`]: it goes into a URL.
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<TalosVersion>().map_err(|error| error.to_string())?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
        if !text.chars().all(plain) {
            return Err(format!("`{text}` is not a Talos version; write it like v1.11.2"));
        }
        Ok(Self(format!("v{}", text.trim_start_matches('v'))))
    }
}

impl Default for Release {
    fn default() -> Self {
        Self(format!("v{}.0", TalosVersion::NEWEST))
    }
}

impl AsRef<str> for Release {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl System {
    /// What its image and its profile are called, and its script.
    fn name(&self) -> &'static str {
        match self {
            Self::Talos(_) => "talos",
            Self::Linux => "linux",
        }
    }
}

impl Plan {
    /// The folder of the config, where its relative paths start.
    pub(super) fn folder(&self) -> &Path {
        self.config.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
    }

    /// Where the join token goes.
    pub(super) fn token(&self) -> Option<PathBuf> {
        let (name, _) = self.omni.as_ref()?;
        Some(self.folder().join("secrets").join(format!("{name}.token")))
    }

    /// What can be told to be wrong before it is written.
    pub(super) fn check(&self) -> Result<(), String> {
        let profiles = [self.system.name(), "disk"];
        for (at, machine) in self.machines.iter().enumerate() {
            let name = machine.name.as_ref();
            if let Some(profile) = &machine.profile
                && !profiles.contains(&profile.as_str())
            {
                return Err(format!(
                    "machine {name}: there is no profile `{profile}` in what is written; there is: {}",
                    profiles.join(", ")
                ));
            }
            for other in &self.machines[..at] {
                if other.name == machine.name {
                    return Err(format!("there are two machines named {name}"));
                }
                if other.mac == machine.mac {
                    let other = other.name.as_ref();
                    return Err(format!("machines {other} and {name} have one MAC address"));
                }
            }
        }
        Ok(())
    }

    /// The config.
    pub(super) fn yaml(&self) -> String {
        let mut text = Lines::default();
        text.add("# reveille: what boots on this LAN. Written by `reveille init`, to be edited: config.example.yaml");
        text.add("# has every key with its default. Relative paths start at this file. `reveille check` says what is");
        text.add("# wrong in it; a running daemon reads it again at SIGHUP.");
        text.add("");
        self.server(&mut text);
        self.instance(&mut text);
        self.image(&mut text);
        self.profiles(&mut text);
        self.entries(&mut text);
        let name = self.system.name();
        text.told(
            "unknown: menu",
            "who is not in the config gets: menu | local | ignore | a profile's name",
        );
        text.told(
            &format!("menu: {{ default: local, timeout: 30s, profiles: [{name}] }}"),
            "0s waits for ever",
        );
        text.0
    }

    fn server(&self, text: &mut Lines) {
        let subnets: Vec<String> = self.subnets.iter().map(Ipv4Net::to_string).collect();
        let here = match subnets.as_slice() {
            [] => "it has no IPv4 address yet".to_owned(),
            subnets => format!("this host is {} there", subnets.join(" and ")),
        };
        let address =
            self.subnets.first().map_or("192.168.1.2".to_owned(), |net| net.addr().to_string());
        text.add("server:");
        text.told(
            &format!("  interfaces: [{}]", scalar(&self.interface)),
            &format!("where machines boot: {here}"),
        );
        text.told(
            &format!("  # advertise: {address}"),
            "what machines are told to fetch from, where it is another address",
        );
        text.told(
            "  # dhcp: off",
            "beside the router's DHCP server; off: the router itself names this host and the NBP",
        );
        text.add("");
    }

    fn instance(&self, text: &mut Lines) {
        let Some((name, pasted)) = &self.omni else {
            text.add("# omni:                         # Sidero Omni, where machines shall join it");
            text.add("#   homelab:");
            text.add("#     kernel_args: { file: ./secrets/homelab.args } # all that its \"Copy Kernel Parameters\" copies");
            text.add("");
            return;
        };
        text.told("omni:", "Sidero Omni instances to join");
        text.add(&format!("  {name}:"));
        text.add(&format!("    api: {}", scalar(&pasted.api)));
        text.add(&format!("    join_token: {{ file: ./secrets/{name}.token }} # the secret has a file of its own, mode 0600"));
        text.told(
            &format!("    tunnel: {}", pasted.tunnel),
            "true where WireGuard's UDP does not get out",
        );
        for (key, said, default) in [
            ("events", &pasted.events, DEFAULT_EVENTS),
            ("kernel_log", &pasted.kernel_log, DEFAULT_KERNEL_LOG),
        ] {
            if let Some(said) = said.as_ref().filter(|said| *said != default) {
                text.add(&format!("    {key}: {}", scalar(said)));
            }
        }
        text.add("");
    }

    fn image(&self, text: &mut Lines) {
        let (kernel, initrd) = (scalar(&self.kernel), scalar(&self.initrd));
        text.add("images:");
        text.add(&format!("  {}:", self.system.name()));
        text.told(&format!("    kernel: {kernel}"), "a file on this host");
        text.told(&format!("    initrd: {initrd}"), "one, or a list");
        match &self.system {
            System::Talos(Release(version)) => text.told(
                &format!("    talos: {{ version: {version} }}"),
                "which release these files are: it decides Talos' own arguments",
            ),
            System::Linux => {
                text.told("    # cmdline: [priority=low]", "kernel arguments that it needs")
            }
        }
        text.add("");
    }

    fn profiles(&self, text: &mut Lines) {
        let name = self.system.name();
        text.told("profiles:", "what to boot");
        text.add(&format!("  {name}:"));
        let order = match self.system {
            System::Talos(_) => {
                "Talos' own arguments, Omni's three, then the image's, these, the machine's"
            }
            System::Linux => "the image's arguments, these, the machine's",
        };
        text.told(&format!("    script: {name}"), order);
        text.add(&format!("    image: {name}"));
        if let Some((omni, _)) = &self.omni {
            text.add(&format!("    omni: {omni}"));
        }
        text.add("    # cmdline: [\"console=ttyS1,115200n8\", intel_iommu=off]");
        text.told("    local_boot: exit", "exit | sanboot: how this hardware reaches its disk");
        text.add("  disk:");
        text.told("    script: local-disk", "the local disk");
        text.add("");
    }

    fn entries(&self, text: &mut Lines) {
        let usual = self.system.name();
        text.told("machines:", "each has at least one of mac, uuid, serial; any common spelling");
        for NewMachine { name, mac, profile } in &self.machines {
            text.add(&format!("  {}:", scalar(name.as_ref())));
            text.add(&format!("    mac: {mac}"));
            text.add(&format!("    profile: {}", profile.as_deref().unwrap_or(usual)));
        }
        text.add(&format!("  # balder: {{ mac: [9c:8e:99:00:00:01, 9c:8e:99:00:00:02], profile: {usual}, cmdline: [panic=10] }}"));
        text.add("");
    }

    /// What to do next. `missing` are the image's files that are not there.
    pub(super) fn next(&self, missing: &[&str]) -> String {
        let mut steps = Vec::new();
        if !missing.is_empty() {
            steps.push(self.put_there(missing));
        }
        let config = word(&self.config.display().to_string());
        let (named, checked) =
            if self.config.strip_prefix(".").unwrap_or(&self.config) == Path::new("config.yaml") {
                (String::new(), String::new())
            } else {
                (format!(" --config {config}"), format!(" {config}"))
            };
        steps.push(format!("`reveille nbps{named}` lists what firmware loads first, `reveille nbps fetch{named}` gets the newest."));
        steps.push(format!("`reveille check{checked}` says what is wrong or missing."));
        steps.push(format!("`sudo reveille serve{named}` serves: as root, for ports 67 and 69."));
        steps.push(format!("On OPNsense set nothing, and remove what tells machines another boot server: \"Network booting\" of ISC\n   DHCP, \"Next server\" and \"TFTP\" fields of Kea, \"DHCP boot\" of Dnsmasq. `sudo reveille doctor --dhcp{named}`\n   asks the LAN, and says what else is in the way."));
        let mut text = "\nNext:\n".to_owned();
        for (at, step) in steps.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}. {step}", at + 1);
        }
        text
    }

    fn put_there(&self, missing: &[&str]) -> String {
        let release = match &self.system {
            System::Linux => return format!("Put there: {}", missing.join(", ")),
            System::Talos(Release(release)) => release,
        };
        let mut text = "Put Talos there, with the extensions that you choose at https://factory.talos.dev, or without any:".to_owned();
        let parts = [(&self.kernel, "kernel-amd64"), (&self.initrd, "initramfs-amd64.xz")];
        for (named, file) in
            parts.into_iter().filter(|(named, _)| missing.contains(&named.as_str()))
        {
            let path = word(
                &self.folder().join(named).components().collect::<PathBuf>().display().to_string(),
            );
            let _ = write!(
                text,
                "\n     curl -fL --create-dirs -o {path} \\\n       https://factory.talos.dev/image/{VANILLA}/{release}/{file}"
            );
        }
        text
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: &str) {
        self.0 += line;
        self.0.push('\n');
    }

    /// A line with a comment behind it.
    fn told(&mut self, line: &str, comment: &str) {
        let width = COMMENTS.max(line.chars().count() + 1);
        self.add(&format!("{line:width$}# {comment}"));
    }
}

/// A text as a YAML scalar: as it is where that means the same, else in quotes.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:+@%=".contains(c);
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "./".contains(c));
    let is_word = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    let is_number = !text.contains(|c: char| c.is_ascii_alphabetic() && !"eExXoObB".contains(c))
        && !text.contains('/');
    if text.chars().all(plain) && starts_well && !text.ends_with(':') && !is_word && !is_number {
        return text.to_owned();
    }
    // JSON's strings are YAML's.
    serde_json::Value::from(text).to_string()
}

/// A text as one word of a shell.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+@%=:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::omni::pasted;
    use crate::config::Severity;
    use crate::config::fields::Problems;
    use crate::config::file::File;
    use crate::config::resolve::{Surroundings, resolve};

    fn plan() -> Plan {
        let text = "siderolink.api=https://x.omni.example?grpc_tunnel=true&jointoken=hush \
                    talos.events.sink=[fdae:41e4:649b:9303::1]:8091 \
                    talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092";
        Plan {
            config: "./config.yaml".into(),
            interface: "eth0".to_owned(),
            subnets: vec!["192.168.1.2/24".parse().unwrap()],
            omni: Some(("homelab".to_owned(), pasted::parse(text).unwrap())),
            system: System::Talos("1.11.2".parse().unwrap()),
            kernel: "./images/kernel-amd64".to_owned(),
            initrd: "./images/initramfs-amd64.xz".to_owned(),
            machines: vec!["oden=5c-f3-fc-00-00-01".parse().unwrap()],
        }
    }

    fn bare() -> Plan {
        Plan {
            config: "/etc/reveille/its own.yaml".into(),
            interface: "br:0".to_owned(),
            subnets: Vec::new(),
            omni: None,
            system: System::Linux,
            kernel: "/srv/it's: #1/linux".to_owned(),
            initrd: "null".to_owned(),
            machines: vec![
                "1.10=5c-f3-fc-00-00-01,disk".parse().unwrap(),
                "null=5c-f3-fc-00-00-02".parse().unwrap(),
            ],
            ..plan()
        }
    }

    /// Every problem that the loader has with it, but for what is not on this host.
    fn complaints(plan: &Plan) -> Vec<String> {
        let mut problems = Problems::new(&plan.config);
        let file = File::parse(&plan.yaml(), &mut problems);
        let problems = match resolve(file, Surroundings::default(), problems) {
            Ok(config) => config.warnings,
            Err(problems) => problems,
        };
        let told = problems.iter().filter(|problem| problem.severity == Severity::Error);
        told.map(ToString::to_string).collect()
    }

    #[test]
    fn the_config_says_what_was_found_and_the_loader_takes_it() {
        insta::assert_snapshot!("omni", plan().yaml());
        assert_eq!(complaints(&plan()), Vec::<String>::new());
        assert!(!plan().yaml().contains("hush"));
    }

    #[test]
    fn names_that_yaml_would_read_as_something_else_are_quoted() {
        insta::assert_snapshot!("linux", bare().yaml());
        assert_eq!(complaints(&bare()), Vec::<String>::new());
        let mut problems = Problems::new(Path::new(""));
        let file = File::parse(&bare().yaml(), &mut problems);
        let config = resolve(file, Surroundings::default(), problems).unwrap();
        let machine = |mac: &str| config.catalog.machine(mac.parse().unwrap()).unwrap().clone();
        let (first, second) = (machine("5c:f3:fc:00:00:01"), machine("5c:f3:fc:00:00:02"));
        assert_eq!((first.name.as_str(), first.profile.name.as_str()), ("1.10", "disk"));
        assert_eq!((second.name.as_str(), second.profile.name.as_str()), ("null", "linux"));
        let image = second.profile.image.clone().unwrap();
        assert_eq!(image.kernel, Path::new("/srv/it's: #1/linux"));
        assert_eq!(image.initrds, [Path::new("null")]);
    }

    #[test]
    fn the_next_steps_name_what_is_missing_and_the_config_where_it_is_elsewhere() {
        insta::assert_snapshot!(
            "next",
            plan().next(&["./images/kernel-amd64", "./images/initramfs-amd64.xz"])
        );
        insta::assert_snapshot!("next_elsewhere", bare().next(&["null"]));
        let there = plan().next(&[]);
        assert!(there.starts_with("\nNext:\n1. `reveille nbps`"), "{there}");
        let same = Plan { config: "config.yaml".into(), ..plan() }.next(&[]);
        assert_eq!(same, there);
    }

    #[test]
    fn machines_are_read_and_what_cannot_be_is_told() {
        let oden: NewMachine = "oden=5C-F3-FC-00-00-01,disk".parse().unwrap();
        assert_eq!((oden.name.as_ref(), oden.profile.as_deref()), ("oden", Some("disk")));
        for (text, told) in [
            ("oden", "write it like oden=5c:f3:fc:00:00:01"),
            ("o den=5c:f3:fc:00:00:01", "`o den` is not a name"),
            ("../x=5c:f3:fc:00:00:01", "`../x` is not a name"),
            ("oden=5c:f3", "`5c:f3` is not a MAC address"),
        ] {
            let error = text.parse::<NewMachine>().unwrap_err();
            assert!(error.starts_with(told), "{error}");
        }
        let two = |first: &str, second: &str| {
            let machines = vec![first.parse().unwrap(), second.parse().unwrap()];
            Plan { machines, ..plan() }.check()
        };
        assert_eq!(two("a=5c:f3:fc:00:00:01", "b=5c:f3:fc:00:00:02,disk"), Ok(()));
        for (first, second, told) in [
            ("a=5c:f3:fc:00:00:01", "a=5c:f3:fc:00:00:02", "there are two machines named a"),
            ("a=5c:f3:fc:00:00:01", "b=5cf3fc000001", "machines a and b have one MAC address"),
            (
                "a=5c:f3:fc:00:00:01",
                "b=5cf3fc000002,talso",
                "machine b: there is no profile `talso` in what is written; there is: talos, disk",
            ),
        ] {
            assert_eq!(two(first, second), Err(told.to_owned()));
        }
    }

    #[test]
    fn a_release_goes_into_a_url_and_is_nothing_else() {
        for (text, release) in [("1.11.2", "v1.11.2"), ("v1.12.0-beta.1", "v1.12.0-beta.1")] {
            assert_eq!(text.parse::<Release>().unwrap().as_ref(), release);
        }
        for text in ["", "latest", "v1.11.2; rm", "v1.11.2/../x", "v1.11.2\n"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
        assert_eq!(Release::default().as_ref(), "v1.14.0");
    }
}
