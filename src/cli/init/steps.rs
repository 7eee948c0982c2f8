//! What is left to do when the config is written.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;
use std::path::Path;

use super::plan::Plan;
use crate::config::state_folder::word;

impl Plan {
    /// What to do next. `missing` are the image's files that are not there.
    pub(super) fn next(&self, missing: &[&str]) -> String {
        let mut steps = Vec::new();
        if !missing.is_empty() {
            steps.push(format!("Put there: {}", missing.join(", ")));
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
        if self.files.is_none() {
            steps.push(format!("`reveille pull{named}` fetches Talos now; otherwise `serve` does so at its start, and machines wait for it."));
        }
        steps.push(format!("`sudo reveille serve{named}` serves: as root, for ports 67 and 69."));
        if self.needs_orders() {
            let name = self.system.name();
            steps.push(format!("No machine of the config joins Omni yet: start one from its network card, find its MAC address in\n   `reveille machines{named}`, and order its boot: `reveille boot MAC --profile {name}{named}`. Once the machines\n   have entries with their `mac`, remove `release: armed`, and {name} from `menu.profiles`."));
        }
        steps.push(format!("On OPNsense set nothing, and remove what tells machines another boot server: \"Network booting\" of ISC\n   DHCP, \"Next server\" and \"TFTP\" fields of Kea, \"DHCP boot\" of Dnsmasq. `sudo reveille doctor --dhcp{named}`\n   asks the LAN, and says what else is in the way."));
        let mut text = "\nNext:\n".to_owned();
        for (at, step) in steps.iter().enumerate() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{}. {step}", at + 1);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::init::plan::tests::{bare, plan};

    #[test]
    fn the_next_steps_name_what_is_missing_and_the_config_where_it_is_elsewhere() {
        insta::assert_snapshot!("next", plan().next(&[]));
        insta::assert_snapshot!("next_elsewhere", bare().next(&["null"]));
        let without = Plan { machines: Vec::new(), ..plan() }.next(&[]);
        assert!(without.contains("`reveille boot MAC --profile talos`"), "{without}");
        let there = plan().next(&[]);
        assert!(!there.contains("reveille boot"), "{there}");
        assert!(there.starts_with("\nNext:\n1. `reveille nbps`"), "{there}");
        let same = Plan { config: "config.yaml".into(), ..plan() }.next(&[]);
        assert_eq!(same, there);
    }
}
