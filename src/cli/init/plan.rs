//! What `reveille init` has found out, or was told, of a network.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::Ipv4Net;

use crate::pure::catalog::omni::Pasted;
use crate::pure::catalog::talos::TalosVersion;
use crate::pure::client::Mac;
use crate::pure::image_source::LATEST;

/// What is known of this network.
#[derive(Debug)]
pub(super) struct Plan {
    /// Where the config goes.
    pub(super) config: PathBuf,
    /// The state folder as the config names it.
    pub(super) state: String,
    /// The interface that machines boot on.
    pub(super) interface: String,
    /// The subnets that this host is in there.
    pub(super) subnets: Vec<Ipv4Net>,
    /// The Omni instance that machines join: its name, and what was pasted.
    pub(super) omni: Option<(String, Pasted)>,
    /// What machines boot.
    pub(super) system: System,
    /// The kernel and the initial RAM disk as the config names them, where they are files of the operator's.
    pub(super) files: Option<(String, String)>,
    /// What goes into a Talos that is made.
    pub(super) extensions: Vec<Extension>,
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

/// A release of Talos, as `v1.11.2`, or `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Release(String);

/// A system extension of Talos, as `siderolabs/bnx2-bnx2x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension(String);

impl FromStr for Extension {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_part = |part: &str| !part.is_empty() && part.chars().all(plain);
        match text.split_once('/') {
            Some((maker, name)) if is_part(maker) && is_part(name) => Ok(Self(text.to_owned())),
            _ => Err(format!("`{text}` is no extension; write it like siderolabs/bnx2-bnx2x")),
        }
    }
}

impl AsRef<str> for Extension {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

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
        if text == LATEST {
            return Ok(Self::default());
        }
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
        Self(LATEST.to_owned())
    }
}

impl Release {
    /// The newest that is known here, for files of which it is not said what they are.
    pub(super) fn newest_known() -> Self {
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
    pub(super) fn name(&self) -> &'static str {
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
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::pure::catalog::omni::pasted;

    pub fn plan() -> Plan {
        let text = "siderolink.api=https://x.omni.example?grpc_tunnel=true&jointoken=hush \
                    talos.events.sink=[fdae:41e4:649b:9303::1]:8091 \
                    talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092";
        Plan {
            config: "./config.yaml".into(),
            state: "./state".to_owned(),
            interface: "eth0".to_owned(),
            subnets: vec!["192.168.1.2/24".parse().unwrap()],
            omni: Some(("homelab".to_owned(), pasted::parse(text).unwrap())),
            system: System::Talos("1.11.2".parse().unwrap()),
            files: None,
            extensions: vec!["siderolabs/bnx2-bnx2x".parse().unwrap()],
            machines: vec!["oden=5c-f3-fc-00-00-01".parse().unwrap()],
        }
    }

    pub fn bare() -> Plan {
        Plan {
            config: "/etc/reveille/its own.yaml".into(),
            state: "/var/lib/reveille".to_owned(),
            interface: "br:0".to_owned(),
            subnets: Vec::new(),
            omni: None,
            system: System::Linux,
            files: Some(("/srv/it's: #1/linux".to_owned(), "null".to_owned())),
            extensions: vec![],
            machines: vec![
                "1.10=5c-f3-fc-00-00-01,disk".parse().unwrap(),
                "null=5c-f3-fc-00-00-02".parse().unwrap(),
            ],
        }
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
        for text in ["", "newest", "v1.11.2; rm", "v1.11.2/../x", "v1.11.2\n"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
        assert_eq!(Release::newest_known().as_ref(), "v1.14.0");
        assert_eq!("latest".parse(), Ok(Release::default()));
        for text in ["bnx2-bnx2x", "siderolabs/", "siderolabs/a/b", "siderolabs/a b"] {
            assert!(text.parse::<Extension>().is_err(), "{text}");
        }
    }
}
