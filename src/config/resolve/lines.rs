//! Kernel lines, measured before a machine comes for one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::link::Linker;
use crate::boot::catalog::{Catalog, Group, Machine, Profile, Unknown};
use crate::boot::cmdline::{self, CmdlineError};
use crate::boot::pattern::Fit;
use crate::boot::select::Who;
use crate::boot::{Client, Stage};
use crate::config::fields::Located;

impl Linker<'_> {
    /// Tells of a kernel line that is too long to be served. What else can be wrong with one has been told
    /// where it stands.
    pub(super) fn tells_of_kernel_line(
        &mut self,
        name: &Located<String>,
        profile: &Profile,
        who: &Who,
    ) -> bool {
        let Some(image) = &profile.image else {
            return false;
        };
        match cmdline::kernel_line(profile, image, who) {
            Err(error @ CmdlineError::TooLong { .. }) if !self.too_long.contains(&profile.name) => {
                let message = format!("{error}; its boots are refused until that is mended");
                self.problems.fault(&name.key, name.place, message);
                true
            }
            Err(
                CmdlineError::TooLong { .. }
                | CmdlineError::Argument { .. }
                | CmdlineError::Omni(_),
            )
            | Ok(_) => false,
        }
    }

    /// Warns of a kernel line that is too long if a machine should be in a group, which its entry does not
    /// tell.
    pub(super) fn doubts_a_kernel_line(
        &mut self,
        name: &Located<String>,
        group: &Group,
        who: &Who,
    ) -> bool {
        let Some(image) = &group.profile.image else {
            return false;
        };
        let line = cmdline::kernel_line(&group.profile, image, who);
        let is_told = self.too_long.contains(&group.profile.name);
        if let (Err(error @ CmdlineError::TooLong { .. }), false) = (line, is_told) {
            let message =
                format!("should it be in group {}, its boots are refused: {error}", group.name);
            self.problems.warning(&name.key, name.place, message);
            return true;
        }
        false
    }

    /// The same, of a machine that names no profile: of each that a group which it may be in, `unknown` or
    /// the menu may give it.
    pub(super) fn tells_of_a_line_by_group(
        &mut self,
        name: &Located<String>,
        machine: &Arc<Machine>,
        catalog: &Catalog,
    ) {
        let has_arguments = !machine.settings.cmdline.is_empty() || machine.network.ip.is_some();
        if machine.profile.is_some() || !has_arguments {
            return;
        }
        let client = Client {
            mac: machine.macs.first().copied(),
            uuid: machine.uuid,
            ..Client::at(Stage::Ipxe)
        };
        let who = |group: Option<&Arc<Group>>| Who {
            machine: Some(Arc::clone(machine)),
            group: group.cloned(),
        };
        for group in &catalog.groups {
            let fits = group.pattern.may_fit(&client);
            if fits == Fit::No {
                continue;
            }
            let is_sure = fits == Fit::Yes;
            let told = match is_sure {
                true => self.tells_of_kernel_line(name, &group.profile, &who(Some(group))),
                false => self.doubts_a_kernel_line(name, group, &who(Some(group))),
            };
            if told || is_sure {
                return;
            }
        }
        let others: &[Arc<Profile>] = match &catalog.unknown {
            Unknown::Profile(profile) => std::slice::from_ref(profile),
            Unknown::Menu => &catalog.menu.profiles,
            Unknown::Local | Unknown::Ignore => &[],
        };
        for profile in others {
            if self.tells_of_kernel_line(name, profile, &who(None)) {
                return;
            }
        }
    }
}
