//! Whether booting a profile erases a disk, and what follows if the disk of its machine does not boot.
//!
//! The operator's own `wipes` counts first: the machine's, then its group's, then the profile's. Without one
//! the profile's script decides, and every script wipes unless it is known not to.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::entries::{LOCAL_DISK, MENU, Profile};
use super::select::Who;
use super::settings::OnDiskFailure;

/// Built-in scripts that start nothing which could erase a disk.
const HARMLESS: &[&str] = &["memtest", "inspect"];

/// Kernel arguments by which an installer works without a person at the console, by name; a name that ends in
/// `*` stands for every argument that begins so.
///
/// debian-installer: `preseed/*`, with the aliases `url`, `file` and `auto` (its manual, appendix B).
/// Anaconda: `inst.ks`, before RHEL 9 also `ks`. Subiquity and cloud-init: `autoinstall`, `ds`, `ci.ds`,
/// `cloud-config-url`, `cc:`. CoreOS and Flatcar: Ignition may repartition a disk in a live system too.
/// SUSE: `autoyast`, Agama's `inst.auto`, KIWI's `rd.kiwi.install`. Then Proxmox VE, archiso's `script`,
/// Void's `autourl`, Clonezilla's `ocs_live_run`, SystemRescue's `autorun`, Kairos, Elemental and Harvester,
/// Ironic's agent, and systemd's factory reset.
const INSTALLER: &[&str] = &[
    "preseed/*",
    "preseed",
    "url",
    "file",
    "auto",
    "auto-install/*",
    "automatic-ubiquity",
    "inst.ks*",
    "ks",
    "ks.*",
    "kickstart",
    "autoinstall",
    "ds",
    "ci.ds",
    "cloud-config-url",
    "cc:",
    "ignition.*",
    "coreos.inst*",
    "flatcar.config.url",
    "coreos.config.url",
    "autoyast*",
    "inst.auto*",
    "agama.auto*",
    "rd.kiwi.install*",
    "rd.kiwi.oem.installdevice",
    "proxmox-start-auto-installer",
    "script",
    "autourl",
    "ocs_live_run*",
    "ocs_prerun*",
    "autorun*",
    "ar_source",
    "install.*",
    "config_url",
    "elemental.*",
    "harvester.install*",
    "k3os.install*",
    "ipa-api-url",
    "systemd.factory_reset",
    "rd.systemd.factory_reset",
];

/// Kernel arguments by which Talos has a machine config (and so installs), or erases by itself.
const TALOS: &[&str] = &["talos.config", "talos.config.*", "talos.experimental.wipe"];

/// Whether booting this profile erases a disk of the machine.
///
/// Without a written `wipes` that is:
/// - `menu` and `local-disk`: no, the operator's own templates of these names too, because such a profile is no boot
///   of its own: what is chosen from the menu has a profile with a `wipes`
/// - a template of the operator's own: yes, also in place of a built-in one
/// - `memtest` and `inspect`: no
/// - `talos`: if it has a machine config, which is `talos.config=` on its kernel line, or an answer file, since
///   Talos has no other use for one; Omni may still install on a machine that joins it
/// - `linux`: if it has answer files, or arguments for an installer on its kernel line
/// - every other script: yes. That includes `netbootxyz`: it shows a menu first, but the menu and
///   all that it offers come over plain HTTP from outside, so nothing here shows that they erase nothing.
pub fn wipes(profile: &Profile, who: &Who) -> bool {
    if let Some(written) = who.settings(Some(profile)).find_map(|said| said.wipes) {
        return written;
    }
    match profile.script.as_str() {
        MENU | LOCAL_DISK => false,
        _ if profile.has_own_script => true,
        script if HARMLESS.contains(&script) => false,
        "talos" => has_files(profile, who) || has_argument(profile, who, TALOS),
        "linux" => has_files(profile, who) || has_argument(profile, who, INSTALLER),
        _ => true,
    }
}

/// What follows if the disk of a machine of this profile does not boot.
pub fn on_disk_failure(profile: &Profile, who: &Who) -> OnDiskFailure {
    let written = who.settings(Some(profile)).find_map(|said| said.on_disk_failure);
    written.unwrap_or(if wipes(profile, who) { OnDiskFailure::Hold } else { OnDiskFailure::Boot })
}

fn has_files(profile: &Profile, who: &Who) -> bool {
    who.settings(Some(profile)).any(|said| !said.files.is_empty())
}

fn has_argument(profile: &Profile, who: &Who, names: &[&str]) -> bool {
    let of_image = profile.image.iter().flat_map(|image| &image.cmdline);
    let written = who.settings(Some(profile)).flat_map(|said| &said.cmdline);
    of_image.chain(written).any(|argument| names.iter().any(|name| is_set(argument, name)))
}

/// Whether an argument has this name, and a value that does something.
fn is_set(argument: &str, name: &str) -> bool {
    let (own, value) = argument.split_once('=').unwrap_or((argument, ""));
    // debian-installer takes `name?=value` for a default, and `owner:name` for a question of another package.
    let own = own.strip_suffix('?').unwrap_or(own);
    let unowned = own.split_once(':').map_or(own, |(_, name)| name);
    let has_name = match name.strip_suffix('*') {
        Some(start) => own.starts_with(start) || unowned.starts_with(start),
        None => own == name || unowned == name,
    };
    // The ISO of a live system comes by `url` too, and `/dev/null` turns cloud-init's `cloud-config-url` off.
    let path = value.split(['?', '#']).next().unwrap_or_default();
    let is_iso = name == "url" && path.to_ascii_lowercase().ends_with(".iso");
    has_name && !is_iso && !["false", "no", "off", "0", "/dev/null"].contains(&value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pure::catalog::entries::{Files, Group, Image, Machine, Network, Part};
    use crate::pure::catalog::pattern::Pattern;
    use crate::pure::catalog::settings::Settings;

    fn profile(script: &str, settings: Settings) -> Profile {
        Profile {
            name: "p".into(),
            script: script.into(),
            has_own_script: false,
            image: None,
            omni: None,
            settings,
        }
    }

    fn with_arguments(arguments: &[&str]) -> Settings {
        let cmdline = arguments.iter().map(|&word| word.to_owned()).collect();
        Settings { cmdline, ..Settings::default() }
    }

    fn with_file() -> Settings {
        let mut settings = Settings::default();
        settings.files.insert("answers".into(), "/srv/answers".into());
        settings
    }

    fn word(wipes: Option<bool>) -> Settings {
        Settings { wipes, ..Settings::default() }
    }

    fn who(machine: Option<Settings>, group: Option<Settings>) -> Who {
        let machine = machine.map(|settings| {
            Arc::new(Machine {
                name: "oden".into(),
                macs: Vec::new(),
                uuid: None,
                serial: None,
                profile: None,
                network: Network::default(),
                settings,
            })
        });
        let group = group.map(|settings| {
            Arc::new(Group {
                name: "rack".into(),
                pattern: Pattern::default(),
                profile: Arc::new(profile("linux", Settings::default())),
                settings,
            })
        });
        Who { machine, group }
    }

    #[test]
    fn a_template_in_place_of_a_built_in_one_wipes_unless_it_is_the_menu_or_the_disk() {
        for (script, expected) in [
            ("memtest", true),
            ("inspect", true),
            ("talos", true),
            ("linux", true),
            ("debian", true),
            ("menu", false),
            ("local-disk", false),
        ] {
            let own = |settings| Profile { has_own_script: true, ..profile(script, settings) };
            assert_eq!(wipes(&own(Settings::default()), &Who::default()), expected, "{script}");
            assert!(!wipes(&own(word(Some(false))), &Who::default()), "{script}");
        }
    }

    #[test]
    fn a_machine_config_makes_talos_wipe_wherever_it_is_written() {
        for argument in ["talos.config=http://10.0.0.1/c.yaml", "talos.experimental.wipe=system"] {
            let with = with_arguments(&["quiet", argument]);
            let plain = profile("talos", Settings::default());
            assert!(wipes(&profile("talos", with.clone()), &Who::default()), "{argument}");
            assert!(wipes(&plain, &who(Some(with.clone()), None)), "{argument}");
            assert!(wipes(&plain, &who(None, Some(with.clone()))), "{argument}");
            let image = Image {
                name: "i".into(),
                files: Files { kernel: Part::Own("/k".into()), initrds: Vec::new() },
                missing: None,
                cmdline: with.cmdline,
                talos: None,
            };
            let of_image = Profile { image: Some(Arc::new(image)), ..plain };
            assert!(wipes(&of_image, &Who::default()), "{argument}");
        }
        assert!(wipes(&profile("talos", with_file()), &Who::default()));
        for harmless in ["talos.platform=metal", "talos.configure=x", "inst.ks=http://x/ks"] {
            let profile = profile("talos", with_arguments(&[harmless]));
            assert!(!wipes(&profile, &Who::default()), "{harmless}");
        }
    }

    #[test]
    fn files_and_arguments_for_an_installer_make_linux_wipe() {
        let installers = [
            "inst.ks=http://x/ks.cfg",
            "ks=http://x/ks.cfg",
            "preseed/url=http://x/p",
            "preseed/url?=http://x/p",
            "d-i:preseed/url=http://x/p",
            "url=http://x/p",
            "auto=true",
            "auto",
            "file=/p",
            "autoinstall",
            "ds=nocloud;s=http://x/",
            "cloud-config-url=http://x/c",
            "ignition.config.url=http://x/i",
            "coreos.inst.install_dev=/dev/sda",
            "autoyast=http://x/a",
            "inst.auto=http://x/a",
            "rd.kiwi.install.pxe",
        ];
        for argument in installers {
            let of_profile = profile("linux", with_arguments(&["quiet", argument]));
            assert!(wipes(&of_profile, &Who::default()), "{argument}");
            let plain = profile("linux", Settings::default());
            assert!(wipes(&plain, &who(Some(with_arguments(&[argument])), None)), "{argument}");
        }
        let live = [
            "console=ttyS0",
            "priority=low",
            "url=http://x/live.ISO?a=b",
            "cloud-config-url=/dev/null",
            "auto=false",
            "coreos.inst=no",
            "autofs=true",
            "kst=1",
            "inst.rescue",
        ];
        for argument in live {
            let profile = profile("linux", with_arguments(&[argument]));
            assert!(!wipes(&profile, &Who::default()), "{argument}");
        }
        assert!(wipes(&profile("linux", with_file()), &Who::default()));
        let plain = profile("linux", Settings::default());
        assert!(wipes(&plain, &who(None, Some(with_file()))));
    }

    #[test]
    fn the_machines_word_comes_before_its_groups_and_that_before_the_profiles() {
        let (yes, no) = (Some(true), Some(false));
        let table = [
            (None, None, None, true),
            (no, None, None, false),
            (no, yes, None, true),
            (no, yes, no, false),
            (yes, no, None, false),
            (no, None, yes, true),
        ];
        for (of_profile, of_group, of_machine, expected) in table {
            let profile = profile("debian", word(of_profile));
            let who = who(Some(word(of_machine)), Some(word(of_group)));
            assert_eq!(
                wipes(&profile, &who),
                expected,
                "{of_profile:?} {of_group:?} {of_machine:?}"
            );
        }
        assert!(wipes(&profile("memtest", word(yes)), &Who::default()), "a written word is obeyed");
    }

    #[test]
    fn a_disk_that_does_not_boot_holds_what_wipes_and_boots_what_does_not() {
        let failure = |word| Settings { on_disk_failure: word, ..Settings::default() };
        let (boot, hold, menu) = (OnDiskFailure::Boot, OnDiskFailure::Hold, OnDiskFailure::Menu);
        let table = [
            ("talos", None, None, boot),
            ("debian", None, None, hold),
            ("debian", Some(boot), None, boot),
            ("debian", Some(boot), Some(menu), menu),
            ("talos", Some(hold), None, hold),
        ];
        for (script, of_profile, of_machine, expected) in table {
            let profile = profile(script, failure(of_profile));
            let who = who(Some(failure(of_machine)), None);
            assert_eq!(on_disk_failure(&profile, &who), expected, "{script}");
        }
        let spared = profile("debian", word(Some(false)));
        assert_eq!(on_disk_failure(&spared, &Who::default()), boot);
    }
}
