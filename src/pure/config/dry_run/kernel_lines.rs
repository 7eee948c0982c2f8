//! Kernel lines, measured before a machine comes for one.
//!
//! A line is made for each profile and each group, and only for those machines whose own words could make it
//! too long: of ten thousand machines mostly none.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use super::affected::{Hit, named};
use super::combinations::{Boot, Entry, Sure, most_bytes, of_machine, spoilt};
use super::templates::Trial;
use crate::pure::catalog::image_set::KERNEL_NAME;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::{Image, Profile};
use crate::pure::config::fields::Located;
use crate::pure::config::problem::Problems;
use crate::pure::script::cmdline::{self, CmdlineError, MAX_LEN};

/// What is to be said of a line that is too long, or has a base that cannot be one.
fn too_long(profile: &Profile, image: &Image, who: &Who, shelf: &Shelf) -> Option<CmdlineError> {
    match cmdline::kernel_line(profile, image, who, shelf) {
        Err(error @ (CmdlineError::TooLong { .. } | CmdlineError::Base { .. })) => Some(error),
        // What else can be wrong with one has been told where it stands.
        Err(CmdlineError::Argument { .. } | CmdlineError::Omni(_)) | Ok(_) => None,
    }
}

/// A profile, or a group with its profile, whose line is too long for who has no words of its own.
pub(crate) struct TooLong {
    profile: String,
    group: Option<String>,
    /// Where that is said.
    name: Located<String>,
    error: CmdlineError,
}

/// Who of a boot has a line that is too long: some have words of their own that make it short enough.
fn refused<'a>(boot: &'a Boot<'a>, shelf: &Shelf) -> Option<Hit<'a>> {
    let image = boot.profile.image.as_ref()?;
    let is_refused = |machine| too_long(boot.profile, image, &boot.who(machine), shelf).is_some();
    let Some(kin) = boot.kin else {
        return is_refused(None).then_some(Hit { boot, machines: None });
    };
    let entries = kin.entries.iter().filter(|(machine, _)| is_refused(Some(machine)));
    let machines: Vec<&str> = entries.map(|(machine, _)| machine.name.as_str()).collect();
    let are_all = machines.len() == kin.entries.len();
    let is_any = !machines.is_empty();
    is_any.then_some(Hit { boot, machines: (!are_all).then_some(machines) })
}

/// What is said of an argument that shall take something off the line and finds nothing.
fn of_idle(argument: &str) -> String {
    format!("{argument} takes nothing away: nothing of that name is said before it")
}

/// Machines whose lines are too long with one profile and one group.
struct Found<'a> {
    entries: Vec<&'a Entry>,
    /// That of the first.
    error: CmdlineError,
}

/// Measures kernel lines.
pub(crate) struct KernelLines<'a> {
    pub(crate) shelf: &'a Shelf,
    pub(crate) problems: &'a mut Problems,
    /// The profiles and groups whose own kernel line is too long.
    pub(crate) too_long: &'a mut Vec<TooLong>,
}

impl KernelLines<'_> {
    /// Notes the kernel line of a profile or a group that is too long to be served, and tells of what shall
    /// take something off it that is not there.
    pub(crate) fn measure(&mut self, name: &Located<String>, profile: &Profile, who: &Who) {
        let Some(image) = profile.image.as_ref() else {
            return;
        };
        for idle in cmdline::idle_removals(profile, image, who, self.shelf) {
            self.problems.warning(&name.key, name.place, of_idle(&idle));
        }
        if self.is_too_long(&profile.name) {
            return;
        }
        if let Some(error) = too_long(profile, image, who, self.shelf) {
            let group = who.group.as_ref().map(|group| group.name.clone());
            let (name, profile) = (name.clone(), profile.name.clone());
            self.too_long.push(TooLong { profile, group, name, error });
        }
    }

    /// Whether a profile's own line is, whoever boots it.
    fn is_too_long(&self, profile: &str) -> bool {
        self.too_long.iter().any(|known| known.profile == profile && known.group.is_none())
    }

    /// Tells of the lines that were noted, and of those of all that may be booted: of the machines that one
    /// profile is too much for, once.
    pub(crate) fn report(&mut self, boots: &[Boot<'_>], trials: &[Trial]) {
        for TooLong { profile, group, name, error } in self.too_long.iter() {
            let is_its = |boot: &&Boot<'_>| {
                let of_group = boot.group.map(|group| &group.name);
                boot.sure == Sure::Yes
                    && boot.profile.name == *profile
                    && group.as_ref().is_none_or(|group| of_group == Some(group))
            };
            let its = boots.iter().filter(is_its);
            let hits: Vec<Hit<'_>> = its.filter_map(|boot| refused(boot, self.shelf)).collect();
            let mut spoils = spoilt(hits.iter().map(|hit| (hit.boot, hit.machines.as_deref())));
            spoils.push(match group {
                Some(group) => format!("groups.{group}"),
                None => name.key.clone(),
            });
            let message = format!("{error}; its boots are refused until that is mended");
            match error {
                // It comes and goes without the config.
                CmdlineError::Base { .. } => {
                    self.problems.warning(&name.key, name.place, message);
                }
                CmdlineError::TooLong { .. }
                | CmdlineError::Argument { .. }
                | CmdlineError::Omni(_) => {
                    self.problems.fault(&name.key, name.place, message).spoils = spoils;
                }
            }
        }
        self.tells_of_idle_removals(boots);
        self.tells_of_machines_lines(boots, trials);
    }

    /// Tells of what machines take off their lines, where it is not there whatever they surely boot.
    fn tells_of_idle_removals(&mut self, boots: &[Boot<'_>]) {
        for boot in boots.iter().filter(|boot| boot.sure == Sure::Yes) {
            let (Some(kin), Some(image)) = (boot.kin, &boot.profile.image) else {
                continue;
            };
            for (machine, place) in &kin.entries {
                if !machine.settings.cmdline.iter().any(|argument| argument.starts_with('-')) {
                    continue;
                }
                let who = boot.who(Some(machine));
                for idle in cmdline::idle_removals(boot.profile, image, &who, self.shelf) {
                    self.problems.warning(&of_machine(&machine.name), *place, of_idle(&idle));
                }
            }
        }
    }

    fn tells_of_machines_lines(&mut self, boots: &[Boot<'_>], trials: &[Trial]) {
        // Of each profile with each group: the length without a machine, where that can be had.
        let mut lengths: BTreeMap<(&str, Option<&str>), Option<usize>> = BTreeMap::new();
        let mut found: BTreeMap<(&str, Option<&str>, Sure), Found<'_>> = BTreeMap::new();
        for boot in boots {
            let Some(image) = &boot.profile.image else {
                continue;
            };
            let group = boot.group.map(|group| group.name.as_str());
            let length = *lengths.entry((&boot.profile.name, group)).or_insert_with(|| {
                let line = cmdline::kernel_line(boot.profile, image, &boot.who(None), self.shelf);
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
                if let Some(error) = too_long(boot.profile, image, &who, self.shelf) {
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
        if !self.is_too_long(&name.value) {
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
        let key = of_machine(&first.name);
        let names: Vec<&str> = entries.iter().map(|(machine, _)| machine.name.as_str()).collect();
        let others = named("machine", &names).filter(|_| names.len() > 1);
        let (its, it) = match &others {
            Some(others) => (format!("boots of {others}"), others.as_str()),
            None => ("its boots".to_owned(), "it"),
        };
        if sure == Sure::Yes {
            let message = format!("{error}; {its} are refused until that is mended");
            let told = self.problems.fault(&key, *place, message);
            told.spoils = names.iter().map(|name| of_machine(name)).collect();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pure::config::resolve::tests::resolved;

    /// What the last of these machines adds to the line of its profile, and what was reckoned.
    fn added(profile: &str, machine: &str) -> (usize, usize) {
        let yaml = format!(
            "images: {{ i: {{ kernel: /k, initrd: /r, talos: {{ version: v1.11.2 }} }} }}\n\
             profiles: {{ p: {{ image: i, {profile} }} }}\n\
             machines: {{ oden: {{ mac: 5c:f3:fc:00:00:01, profile: p, {machine} }} }}\n"
        );
        let catalog = resolved(&yaml).unwrap().catalog;
        let profile = &catalog.profiles["p"];
        let image = profile.image.as_ref().unwrap();
        let machine = &catalog.machines()["oden"];
        let who = Who { machine: Some(Arc::clone(machine)), group: None };
        let [without, with] = [Who::default(), who].map(|who| {
            cmdline::kernel_line(profile, image, &who, &Shelf::default()).unwrap().len()
        });
        (with.saturating_sub(without), most_bytes(machine))
    }

    #[test]
    fn no_machine_adds_more_to_a_line_than_is_reckoned() {
        let labels = |n: usize| {
            let all: Vec<String> = (0..n).map(|n| format!("label-{n}: 'true'")).collect();
            format!("talos: {{ halt_if_installed: true, labels: {{ {} }} }}", all.join(", "))
        };
        let long = "ip: 192.168.100.171/24, gateway: 192.168.100.254, hostname: a-quite-long-host-name.example, \
                    nic: enp130s0f1np1, dns: [192.168.100.253, 192.168.100.252]";
        let machines = [
            String::new(),
            "cmdline: [quiet]".to_owned(),
            "cmdline: ['console=ttyS1,115200n8', a=b]".to_owned(),
            "ip: 10.0.0.1/8".to_owned(),
            long.to_owned(),
            labels(1),
            labels(2),
            labels(20),
            format!("cmdline: [quiet], {long}, {}", labels(3)),
        ];
        let profiles =
            ["script: talos", "script: linux", "script: talos, talos: { labels: { a: b } }"];
        for profile in profiles {
            for machine in &machines {
                let (added, most) = added(profile, machine);
                assert!(added <= most, "{profile}, {machine}: {added} bytes, reckoned {most}");
            }
        }
    }

    #[test]
    fn a_group_of_a_profiles_name_hides_no_line_of_its() {
        let long = |n| "x".repeat(n);
        let yaml = format!(
            "images: {{ i: {{ kernel: /k }} }}\n\
             profiles:\n  p: {{ script: linux, image: i }}\n  q: {{ script: linux, image: i, cmdline: [{}] }}\n\
             groups:\n  - {{ name: q, match: {{ mac: '00:*' }}, profile: p, cmdline: [{}] }}\n\
             machines:\n  oden: {{ mac: 5c:f3:fc:00:00:01, profile: q, cmdline: [{}] }}\n",
            long(1000),
            long(2100),
            long(1100)
        );
        let problems = resolved(&yaml).unwrap().problems;
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["groups[0].name", "machines.oden"]);
    }
    #[test]
    fn a_machine_whose_own_word_makes_its_line_short_enough_is_not_among_those_refused() {
        let yaml = format!(
            "images: {{ i: {{ kernel: /k }} }}\n\
             profiles: {{ p: {{ script: linux, image: i, cmdline: ['a={}', quiet] }} }}\n\
             machines:\n\
             \x20 long: {{ mac: 5c:f3:fc:00:00:01, profile: p, cmdline: [quiet] }}\n\
             \x20 less: {{ mac: 5c:f3:fc:00:00:02, profile: p, cmdline: [-a] }}\n\
             \x20 other: {{ mac: 5c:f3:fc:00:00:03, profile: p, cmdline: [a=1] }}\n",
            "x".repeat(2040)
        );
        let problems = resolved(&yaml).unwrap().problems;
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].key, "profiles.p");
        assert_eq!(problems[0].spoils, ["machines.long", "profiles.p"]);
    }

    #[test]
    fn what_takes_nothing_away_is_told_where_it_stands_and_only_there() {
        let yaml = "images:\n  i: { kernel: /k, cmdline: [a=1], talos: { version: v1.11.2 } }\n  \
             n: { kernel: /k }\n\
             profiles:\n  p: { script: talos, image: i, cmdline: [-a, -pti, -b] }\n  \
             q: { script: talos, image: n, cmdline: [-b] }\n\
             groups:\n  - { name: g, match: { mac: '00:*' }, profile: p, cmdline: [-quiet, -slab_nomerge] }\n\
             machines:\n  oden: { mac: 5c:f3:fc:00:00:01, profile: p, cmdline: [-c=1, -selinux] }\n  \
             loke: { mac: 5c:f3:fc:00:00:02, profile: q }\n";
        let problems = resolved(yaml).unwrap().problems;
        let told: Vec<(&str, &str)> = problems
            .iter()
            .map(|problem| (problem.key.as_str(), problem.message.split(" takes ").next().unwrap()))
            .collect();
        assert_eq!(
            told,
            [
                ("profiles.p", "argument `-b` of profile `p`"),
                ("groups[0].name", "argument `-quiet` of group `g`"),
                ("machines.oden", "argument `-c=1` of machine `oden`"),
            ]
        );
        assert!(problems.iter().all(|problem| !problem.severity.is_error()));
    }
}
