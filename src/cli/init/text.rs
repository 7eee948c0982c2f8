//! The config that `reveille init` writes, with a comment at each of its parts.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use ipnet::Ipv4Net;

use super::plan::{NewMachine, Plan, System};
use crate::pure::catalog::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG};

/// The column of the comments.
const COMMENTS: usize = 32;

impl Plan {
    /// The config.
    pub(super) fn yaml(&self) -> String {
        let mut text = Lines::default();
        text.add("# reveille: what boots on this LAN. Written by `reveille init`, to be edited: config.example.yaml");
        text.add("# has every key with its default. Relative paths start at this file. `reveille check` says what is");
        text.add("# wrong in it; a running daemon takes up by itself what changes.");
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
        if self.omni.is_some() && self.boots_usual() {
            text.add(&format!("# Whoever chose {name} there would receive the join token: it is for the machines above."));
            text.told("menu: { default: local, timeout: 30s, profiles: [] }", "0s waits for ever");
        } else {
            text.told(
                &format!("menu: {{ default: local, timeout: 30s, profiles: [{name}] }}"),
                "0s waits for ever",
            );
        }
        text.0
    }

    /// Whether a machine receives the join token only once it is ordered: it would have to choose its profile from the menu.
    pub(super) fn needs_orders(&self) -> bool {
        self.omni.is_some() && !self.boots_usual()
    }

    /// Whether a machine boots the usual system: without one, only the menu does.
    fn boots_usual(&self) -> bool {
        let usual = self.system.name();
        self.machines.iter().any(|new| new.profile.as_deref().is_none_or(|name| name == usual))
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
        text.told(
            &format!("  state: {}", scalar(&self.state)),
            "what reveille keeps, also which machines are installed: back it up",
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
        text.add("images:");
        text.add(&format!("  {}:", self.system.name()));
        if let Some((kernel, initrd)) = &self.files {
            text.told(&format!("    kernel: {}", scalar(kernel)), "a file on this host");
            text.told(&format!("    initrd: {}", scalar(initrd)), "one, or a list");
        }
        match (&self.system, &self.files) {
            (System::Talos(release), Some(_)) => text.told(
                &format!("    talos: {{ version: {} }}", release.as_ref()),
                "which release these files are: it decides Talos' own arguments",
            ),
            (System::Talos(release), None) => {
                text.told("    talos:", "fetched by itself from factory.talos.dev, and kept");
                text.told(
                    &format!("      version: {}", release.as_ref()),
                    "as v1.11.2, or latest: the newest one, until `reveille pull --update`",
                );
                let extensions: Vec<&str> = self.extensions.iter().map(AsRef::as_ref).collect();
                text.told(
                    &format!("      extensions: [{}]", extensions.join(", ")),
                    "as siderolabs/bnx2-bnx2x, for Broadcom's NetXtreme II",
                );
            }
            (System::Linux, _) => {
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
            if self.needs_orders() {
                text.told(
                    "    release: armed",
                    "a machine receives the join token only after `reveille boot MAC --profile talos`",
                );
            }
        }
        text.add("    # cmdline: [\"console=ttyS1,115200n8\", intel_iommu=off]");
        text.told("    local_boot: exit", "exit | sanboot: how this hardware reaches its disk");
        // A profile that nobody boots is one that was forgotten, to the loader.
        let is_used =
            self.machines.iter().any(|machine| machine.profile.as_deref() == Some("disk"));
        let mark = if is_used { "" } else { "# " };
        text.told(&format!("  {mark}disk: {{ script: local-disk }}"), "the local disk");
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::init::plan::tests::{bare, plan};
    use crate::pure::catalog::Part;
    use crate::pure::config::problem::{Problem, Problems, Severity};
    use crate::pure::config::resolve::resolve;
    use crate::pure::config::schema::File;
    use crate::pure::config::surroundings::Surroundings;

    /// Every error that the loader has with it, and every secret that it gives to strangers, but for what is not
    /// on this host.
    fn complaints(plan: &Plan) -> Vec<String> {
        let mut problems = Problems::new(&plan.config, &plan.yaml());
        let file = File::parse(&plan.yaml(), &mut problems).unwrap();
        let problems = match resolve(file, Surroundings::default(), problems) {
            Ok(config) => config.problems,
            Err(problems) => problems,
        };
        let is_of_the_config = |problem: &&Problem| {
            problem.severity == Severity::Error || problem.message.contains(" receives ")
        };
        problems.iter().filter(is_of_the_config).map(ToString::to_string).collect()
    }

    #[test]
    fn the_join_token_is_for_the_machines_of_the_config_or_needs_an_order() {
        assert!(plan().yaml().contains("profiles: [] }"), "{}", plan().yaml());
        let without = Plan { machines: Vec::new(), ..plan() };
        assert!(without.yaml().contains("\n    release: armed "), "{}", without.yaml());
        assert!(without.yaml().contains("profiles: [talos] }"), "{}", without.yaml());
        assert_eq!(complaints(&without), Vec::<String>::new());
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
        let mut problems = Problems::new(Path::new(""), "");
        let file = File::parse(&bare().yaml(), &mut problems).unwrap();
        let config = resolve(file, Surroundings::default(), problems).unwrap();
        let machine = |mac: &str| config.catalog.machine(mac.parse().unwrap()).unwrap().clone();
        let (first, second) = (machine("5c:f3:fc:00:00:01"), machine("5c:f3:fc:00:00:02"));
        assert_eq!(
            (first.name.as_str(), first.profile.as_ref().unwrap().name.as_str()),
            ("1.10", "disk")
        );
        assert_eq!(
            (second.name.as_str(), second.profile.as_ref().unwrap().name.as_str()),
            ("null", "linux")
        );
        let image = second.profile.as_ref().unwrap().image.clone().unwrap();
        let own = |path: &str| Part::Own(path.into());
        assert_eq!(image.files.kernel, own("/srv/it's: #1/linux"));
        assert_eq!(image.files.initrds, [own("null")]);
    }
}
