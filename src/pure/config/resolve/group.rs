//! From `groups` to who is in which.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::link::{Linker, Named};
use crate::pure::catalog::pattern::Pattern;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::{LocalBoot, Settings};
use crate::pure::catalog::{Group, Profile};
use crate::pure::config::fields::Located;
use crate::pure::config::schema;
use crate::pure::script::advice::{Booted, advise, known_by};
use crate::pure::script::cmdline::kernel_line;

impl Linker<'_> {
    pub(crate) fn groups(
        &mut self,
        groups: Vec<schema::Group>,
        profiles: &Named<Profile>,
    ) -> Vec<Arc<Group>> {
        let mut linked: Vec<Arc<Group>> = Vec::new();
        for schema::Group { name, pattern, profile, said } in groups {
            let at_dhcp = said.at_dhcp.clone();
            let settings = self.settings(said);
            let named = profile.as_ref().and_then(|at| self.profile_named(at, profiles));
            let (Some(name), Some(pattern)) = (name, pattern) else {
                continue;
            };
            if linked.iter().any(|other| other.name == name.value) {
                let message = format!("there is a group `{}` already", name.value);
                self.problems.error(&name.key, name.place, message);
            }
            if let Some(first) = linked.iter().find(|other| other.pattern == pattern) {
                let message = format!(
                    "it asks for the same as group {}, which comes before it: nobody is ever in it",
                    first.name
                );
                self.problems.warning(&name.key, name.place, message);
            }
            let (Some(at), Some(profile)) = (profile, named) else {
                continue;
            };
            let of_profile = (&at, &*profile);
            self.doubts_at_dhcp(&name.value, &pattern, &at_dhcp, of_profile);
            let has_arguments = !settings.cmdline.is_empty();
            let group = Group {
                name: name.value.clone(),
                pattern,
                profile: Arc::clone(&profile),
                settings,
            };
            let group = Arc::new(group);
            if has_arguments {
                let who = Who { machine: None, group: Some(Arc::clone(&group)) };
                self.kernel_lines().measure(&name, &profile, &who);
            }
            self.advises(&name, &group);
            linked.push(group);
        }
        linked
    }

    /// Warns of what is known of all machines that such a group can have, where they boot Talos: what an image of
    /// which not everything is known should be is not told here.
    fn advises(&mut self, name: &Located<String>, group: &Arc<Group>) {
        let profile = &group.profile;
        let Some(image) = profile.image.as_ref().filter(|_| profile.adds_talos_arguments()) else {
            return;
        };
        let who = Who { machine: None, group: Some(Arc::clone(group)) };
        let Ok(line) = kernel_line(profile, image, &who, &self.found.shelf) else {
            return;
        };
        let booted = Booted::new(image, &self.found.shelf, &line);
        for advice in advise(&known_by(&group.pattern), booted) {
            if advice.is_sure {
                let message = format!("of each of its machines: {advice}");
                self.problems.warning(&name.key, name.place, message);
            }
        }
    }

    /// Warns of settings that only DHCP can follow, of a group that DHCP does not know anybody to be in: there
    /// its machines are answered as if it were not.
    fn doubts_at_dhcp(
        &mut self,
        group: &str,
        pattern: &Pattern,
        own: &[Located<&'static str>],
        (at, profile): (&Located<String>, &Profile),
    ) {
        let untold = pattern.untold_by_dhcp();
        if untold.is_empty() {
            return;
        }
        let why = format!(
            "DHCP does not carry the {} that group {group} asks for, and answers as if it were not there; match by mac, subnet or firmware, or give these machines entries of their own",
            untold.join(" and the ")
        );
        for setting in own {
            let message = format!("`{}` never acts: {why}", setting.value);
            self.problems.warning(&setting.key, setting.place, message);
        }
        let of_profile = at_dhcp(&profile.settings);
        if !of_profile.is_empty() {
            let message = format!(
                "{} of profile {} never acts here: {why}",
                of_profile.join(", "),
                profile.name
            );
            self.problems.warning(&at.key, at.place, message);
        }
    }
}

/// The settings among these that say how DHCP answers.
fn at_dhcp(said: &Settings) -> Vec<&'static str> {
    [
        ("`nbp`", !said.nbp.is_empty()),
        ("`nbp_ladder`", said.nbp_ladder.is_some()),
        ("`option_43`", said.option_43.is_some()),
        ("`answer_request_67`", said.answer_request_67.is_some()),
        ("`replace_ipxe`", said.replace_ipxe.is_some()),
        ("`local_boot: silent`", said.local_boot == Some(LocalBoot::Silent)),
    ]
    .into_iter()
    .filter_map(|(name, is_said)| is_said.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use crate::pure::config::resolve::tests::resolved;

    /// What is told of a group that asks for this, whose profile says that.
    fn told(asks: &str, talos: &str, cmdline: &str) -> Vec<String> {
        let yaml = format!(
            "images: {{ i: {{ kernel: /k, initrd: /r{talos} }} }}\n\
             profiles: {{ p: {{ script: talos, image: i }} }}\n\
             groups:\n  - {{ name: blades, match: {{ {asks} }}, profile: p, cmdline: [{cmdline}] }}\n"
        );
        let problems = resolved(&yaml).unwrap().problems.into_iter();
        let of_group = problems.filter(|problem| problem.key == "groups[0].name");
        of_group.map(|problem| format!("{}: {}", problem.severity, problem.message)).collect()
    }

    #[test]
    fn what_is_known_of_all_machines_of_a_group_is_a_warning() {
        let (gen8, talos) = ("product: 'ProLiant BL460c Gen8*'", ", talos: { version: v1.12.0 }");
        let vt_d = told(gen8, talos, "quiet");
        assert_eq!(vt_d.len(), 1, "{vt_d:?}");
        let start = "warning: of each of its machines: Talos 1.12 and later turns on VT-d";
        assert!(vt_d[0].starts_with(start), "{vt_d:?}");
        assert!(
            vt_d[0].ends_with("(https://github.com/siderolabs/talos/issues/12619)"),
            "{vt_d:?}"
        );
        for (asks, talos, cmdline) in [
            (gen8, talos, "intel_iommu=off"),
            (gen8, ", talos: { version: v1.11.6 }", "quiet"),
            (gen8, "", "quiet"),
            ("product: 'ProLiant BL460c*'", talos, "quiet"),
            ("mac: '9c:*'", talos, "quiet"),
        ] {
            assert_eq!(told(asks, talos, cmdline), [""; 0], "{asks} {talos} {cmdline}");
        }
        let uefi = told("firmware: uefi, arch: x86", talos, "quiet");
        assert!(uefi[0].contains("its UEFI is a 32-bit one"), "{uefi:?}");
    }
}
