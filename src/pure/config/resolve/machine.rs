//! From an entry of `machines` to a machine that no other one is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::link::{Linker, Named};
use crate::pure::catalog::{Machine, Profile};
use crate::pure::client::{Mac, swapped};
use crate::pure::config::fields::Located;
use crate::pure::config::schema;
use crate::pure::config::yaml::Place;

impl Linker<'_> {
    pub(crate) fn machine(
        &mut self,
        name: &Located<String>,
        machine: schema::Machine,
        (profiles, has_groups): (&Named<Profile>, bool),
        taken: &mut HashMap<Identity, (Arc<str>, u32)>,
    ) -> Option<Machine> {
        let own: Arc<str> = name.value.as_str().into();
        for (identity, key, place) in identities(&machine) {
            match taken.entry(identity) {
                Entry::Occupied(first) if first.get().0 != own => {
                    let (other, line) = first.get();
                    let identity = first.key();
                    let message =
                        format!("machine {other} has this {identity} already, on line {line}");
                    self.problems.error(key, place, message);
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert((Arc::clone(&own), place.line));
                }
            }
        }
        if machine.lacks_profile && !has_groups {
            let message = "`profile` is missing, and there are no `groups` that it could be in";
            self.problems.error(&name.key, name.place, message);
        }
        let profile = match &machine.profile {
            Some(at) => Some(self.profile_named(at, profiles)?),
            None => None,
        };
        if machine.macs.is_empty() && machine.uuid.is_none() && machine.serial.is_some() {
            for setting in &machine.said.at_dhcp {
                let message = format!(
                    "`{}` never acts: DHCP does not carry the serial number, by which alone this machine is known; give its entry a `mac` too",
                    setting.value
                );
                self.problems.warning(&setting.key, setting.place, message);
            }
        }
        Some(Machine {
            name: name.value.clone(),
            macs: machine.macs.into_iter().map(|at| at.value).collect(),
            uuid: machine.uuid.map(|at| at.value),
            serial: machine.serial.map(|at| at.value.trim().to_owned()),
            profile,
            network: machine.network,
            settings: self.settings(machine.said),
        })
    }
}

/// What tells a machine from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Mac(Mac),
    Uuid(uuid::Uuid),
    Serial(String),
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mac(_) => "MAC address",
            Self::Uuid(_) => "UUID",
            Self::Serial(_) => "serial number",
        })
    }
}

fn identities(machine: &schema::Machine) -> Vec<(Identity, &str, Place)> {
    let macs = machine.macs.iter().map(|at| (Identity::Mac(at.value), at.key.as_str(), at.place));
    // In either byte order it is the same machine.
    let uuid = machine.uuid.iter().map(|at| {
        let either = at.value.min(swapped(at.value));
        (Identity::Uuid(either), at.key.as_str(), at.place)
    });
    let serial = machine
        .serial
        .iter()
        .map(|at| (Identity::Serial(at.value.trim().to_lowercase()), at.key.as_str(), at.place));
    macs.chain(uuid).chain(serial).collect()
}
