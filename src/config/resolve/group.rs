//! From `groups` to who is in which.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::link::{Linker, Named};
use crate::boot::catalog::{Group, Profile};
use crate::boot::pattern::Pattern;
use crate::boot::select::Who;
use crate::boot::settings::{LocalBoot, Settings};
use crate::config::fields::Located;
use crate::config::file;

impl Linker<'_> {
    pub(super) fn groups(
        &mut self,
        groups: Vec<file::Group>,
        profiles: &Named<Profile>,
    ) -> Vec<Arc<Group>> {
        let mut linked: Vec<Arc<Group>> = Vec::new();
        for file::Group { name, pattern, profile, said } in groups {
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
                self.measure_kernel_line(&name, &profile, &who);
            }
            linked.push(group);
        }
        linked
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
