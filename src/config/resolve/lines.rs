//! Kernel lines, measured before a machine comes for one.
//!
//! A line is made for each profile and each group, and only for those machines whose own words could make it
//! too long: of ten thousand machines mostly none.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::boots::{Boot, Entry, Sure};
use super::link::Linker;
use super::look::{Trial, named};
use crate::boot::catalog::{Image, Machine, Profile};
use crate::boot::cmdline::{self, CmdlineError, KERNEL_NAME, MAX_LEN};
use crate::boot::select::Who;
use crate::config::fields::Located;

/// How many bytes a machine adds to any kernel line, at most.
pub(super) fn most_bytes(machine: &Machine) -> usize {
    let said = &machine.settings;
    let arguments: usize = said.cmdline.iter().map(|argument| argument.len() + 1).sum();
    // `ip=` has five addresses at most, and what separates them.
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let network = &machine.network;
    let ip = network.ip.map_or(0, |_| 100 + text(&network.hostname) + text(&network.nic));
    // In base64, where each label has blanks and quotes around it.
    let labels: usize = said.labels.iter().map(|(name, label)| name.len() + label.len() + 12).sum();
    let labels = if labels == 0 { 0 } else { 120 + labels * 4 / 3 };
    let halts = if said.halt_if_installed.is_some() { 30 } else { 0 };
    arguments + ip + labels + halts
}

/// A line that is too long: its length, and what says so.
fn too_long(profile: &Profile, image: &Image, who: &Who) -> Option<(usize, CmdlineError)> {
    match cmdline::kernel_line(profile, image, who) {
        Err(error @ CmdlineError::TooLong { len, .. }) => Some((len, error)),
        // What else can be wrong with one has been told where it stands.
        Err(CmdlineError::Argument { .. } | CmdlineError::Omni(_)) | Ok(_) => None,
    }
}

/// Machines whose lines are too long with one profile and one group.
struct Found<'a> {
    entries: Vec<&'a Entry>,
    /// That of the first.
    error: CmdlineError,
}

impl Linker<'_> {
    /// Tells of the kernel line of a profile or a group that is too long to be served.
    pub(super) fn tells_of_kernel_line(
        &mut self,
        name: &Located<String>,
        profile: &Profile,
        who: &Who,
    ) -> bool {
        let Some(image) = &profile.image else {
            return false;
        };
        if self.too_long.contains(&profile.name) {
            return false;
        }
        let Some((_, error)) = too_long(profile, image, who) else {
            return false;
        };
        let message = format!("{error}; its boots are refused until that is mended");
        self.problems.fault(&name.key, name.place, message);
        true
    }

    /// The same of all that may be booted: of the machines that one profile is too much for, once.
    pub(super) fn tells_of_kernel_lines(&mut self, boots: &[Boot<'_>], trials: &[Trial]) {
        // Of each profile with each group: the length without a machine, where that can be had.
        let mut lengths: BTreeMap<(&str, Option<&str>), Option<usize>> = BTreeMap::new();
        let mut found: BTreeMap<(&str, Option<&str>, Sure), Found<'_>> = BTreeMap::new();
        for boot in boots {
            let Some(image) = &boot.profile.image else {
                continue;
            };
            let group = boot.group.map(|group| group.name.as_str());
            let length = *lengths.entry((&boot.profile.name, group)).or_insert_with(|| {
                let line = cmdline::kernel_line(boot.profile, image, &boot.who(None));
                if let Err(error @ CmdlineError::TooLong { .. }) = &line {
                    self.doubts_a_choice(boot, error, trials);
                }
                line.ok().map(|line| KERNEL_NAME.len() + 1 + line.len())
            });
            let (Some(length), Some(kin)) = (length, boot.kin) else {
                continue;
            };
            if length + kin.most_bytes <= MAX_LEN {
                continue;
            }
            for entry in &kin.entries {
                let (machine, _) = *entry;
                if length + most_bytes(machine) <= MAX_LEN {
                    continue;
                }
                let who = boot.who(Some(machine));
                if let Some((_, error)) = too_long(boot.profile, image, &who) {
                    let key = (boot.profile.name.as_str(), group, boot.sure);
                    let new = || Found { entries: Vec::new(), error };
                    found.entry(key).or_insert_with(new).entries.push(entry);
                }
            }
        }
        for ((profile, group, sure), Found { entries, error }) in found {
            self.tell(entries, &error, (profile, group, sure));
        }
    }

    /// Of a profile's line that a group makes too long, where only the menu brings the two together.
    fn doubts_a_choice(&mut self, boot: &Boot<'_>, error: &CmdlineError, trials: &[Trial]) {
        let name = trials.iter().map(|trial| &trial.name);
        let name = name.into_iter().find(|name| name.value == boot.profile.name);
        let (Some(group), Some(name), Sure::FromMenu) = (boot.group, name, boot.sure) else {
            return;
        };
        if !self.too_long.contains(&name.value) {
            let message = format!(
                "should a machine of group {} choose it from the menu, its boots are refused: {error}",
                group.name
            );
            self.problems.warning(&name.key, name.place, message);
        }
    }

    fn tell(
        &mut self,
        mut entries: Vec<&Entry>,
        error: &CmdlineError,
        (profile, group, sure): (&str, Option<&str>, Sure),
    ) {
        entries.sort_by_key(|(_, place)| *place);
        let Some((first, place)) = entries.first() else {
            return;
        };
        let key = format!("machines.{}", first.name);
        let names: Vec<&str> = entries.iter().map(|(machine, _)| machine.name.as_str()).collect();
        let others = named("machine", &names).filter(|_| names.len() > 1);
        let (its, it) = match &others {
            Some(others) => (format!("boots of {others}"), others.as_str()),
            None => ("its boots".to_owned(), "it"),
        };
        if sure == Sure::Yes {
            let message = format!("{error}; {its} are refused until that is mended");
            let told = self.problems.fault(&key, *place, message);
            told.spoils = names.iter().map(|name| format!("machines.{name}")).collect();
            return;
        }
        let boots = if others.is_some() { "their boots" } else { "its boots" };
        let message = match group.filter(|_| sure == Sure::InGroup) {
            Some(group) => {
                format!("should {it} be in group {group}, {boots} are refused: {error}")
            }
            None => {
                format!("should {it} choose {profile} from the menu, {boots} are refused: {error}")
            }
        };
        self.problems.warning(&key, *place, message);
    }
}
