//! From `groups` to who is in which.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::link::{Linker, Named};
use crate::boot::catalog::{Group, Profile};
use crate::boot::select::Who;
use crate::boot::settings::{LocalBoot, Settings};
use crate::config::file;

impl Linker<'_> {
    pub(super) fn groups(
        &mut self,
        groups: Vec<file::Group>,
        profiles: &Named<Profile>,
    ) -> Vec<Arc<Group>> {
        let mut linked: Vec<Arc<Group>> = Vec::new();
        for file::Group { name, pattern, profile, said } in groups {
            let profile = profile.and_then(|at| self.profile_named(&at, profiles));
            let settings = self.settings(said);
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
            let Some(profile) = profile else {
                continue;
            };
            if pattern.needs_smbios() {
                let acting = at_dhcp(&settings, &profile.settings);
                if !acting.is_empty() {
                    let message = format!(
                        "{} of this group, or of its profile, never acts: DHCP does not tell the vendor, product or serial number that it asks for; match by mac, arch, firmware or subnet, or give these machines entries of their own",
                        acting.join(", ")
                    );
                    self.problems.warning(&name.key, name.place, message);
                }
            }
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
                self.tells_of_kernel_line(&name, &profile, &who);
            }
            linked.push(group);
        }
        linked
    }
}

/// The settings among these that say how DHCP answers.
fn at_dhcp(group: &Settings, profile: &Settings) -> Vec<&'static str> {
    let says = |is_said: fn(&Settings) -> bool| is_said(group) || is_said(profile);
    [
        ("`nbp`", says(|said| !said.nbp.is_empty())),
        ("`option_43`", says(|said| said.option_43.is_some())),
        ("`answer_request_67`", says(|said| said.answer_request_67.is_some())),
        ("`replace_ipxe`", says(|said| said.replace_ipxe.is_some())),
        ("`local_boot: silent`", says(|said| said.local_boot == Some(LocalBoot::Silent))),
    ]
    .into_iter()
    .filter_map(|(name, is_said)| is_said.then_some(name))
    .collect()
}
