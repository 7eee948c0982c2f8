//! From the file as written to a [`Config`] that can be served: every name looked up, every default
//! filled in, and all problems at once.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::path::{Path, PathBuf};

use self::link::Linker;
use super::dry_run::templates;
use super::problem::{Problem, Problems, Severity};
use super::schema::File;
use super::snapshot::Config;
use super::surroundings::Surroundings;
use crate::pure::script::templates::Templates;

mod group;
mod image;
mod link;
mod machine;
mod menu;
mod omni;
mod profile;
mod server;

/// The folders that are searched for NBPs where the config names none: where Debian's package
/// `ipxe` puts them.
pub const DEFAULT_NBPS: &[&str] = &["/usr/lib/ipxe", "/boot"];

/// The folder of the templates, where the config names none.
pub const DEFAULT_BOOT_SCRIPTS: &str = "./boot-scripts";

/// Makes a config of what the file says and what was found. `Err` holds every problem, when one of
/// them is an error; else the faults and the warnings are in [`Config::problems`].
pub fn resolve(
    file: File,
    found: Surroundings,
    mut problems: Problems,
) -> Result<Config, Vec<Problem>> {
    let server = server::server(&file, &found, &mut problems);
    let templates = Templates::new(found.templates.clone(), found.answers.clone());
    let folder = file.server.boot_scripts.as_ref().map(|at| at.place).unwrap_or_default();
    for (name, mistake) in templates.broken() {
        let source = found.templates.get(name).and_then(|source| source.as_ref().ok());
        templates::tell_template(
            &mut problems,
            (name, mistake),
            (&found.boot_scripts, folder),
            source,
        );
    }
    let (catalog, wanted) = Linker::new(&found, &templates, &mut problems).link(file);

    let found = problems.sorted();
    if found.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(found);
    }
    Ok(Config { server, catalog, wanted, templates, problems: found })
}

/// A path that the config names: a relative one starts at the config's folder. Without the `./` that
/// people write, which only lengthens messages.
pub fn within(base: &Path, path: &str) -> PathBuf {
    base.join(path).components().collect()
}

/// The state folder: what the config names, or the default.
pub fn state_folder(file: &File, base: &Path, default: &Path) -> PathBuf {
    let named = file.server.state.as_ref().map(|at| within(base, &at.value));
    named.unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pure::catalog::image_status::Shelf;
    use crate::pure::catalog::nbp::Nbps;
    use crate::pure::catalog::select::Who;
    use crate::pure::catalog::server::{Dhcp, Interfaces, Server, Tftp};
    use crate::pure::catalog::talos::{TalosArch, TalosVersion};
    use crate::pure::catalog::{Part, Unknown};
    use crate::pure::config::surroundings::{Secret, Surroundings};
    use crate::pure::script::cmdline;

    pub(crate) fn secret(text: &str) -> Result<Secret, String> {
        Ok(Secret { text: text.into(), from: "/etc/reveille/x".into(), open_to_all: None })
    }

    /// A host where every file is there and every secret can be read.
    pub(crate) fn resolved(yaml: &str) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::new(Path::new("config.yaml"), yaml);
        let Some(file) = File::parse(yaml, &mut problems) else {
            return Err(problems.sorted());
        };
        let mut nbps = Nbps::default();
        nbps.add(crate::pure::catalog::nbp::Nbp {
            name: "undionly.kpxe".into(),
            folder: 0,
            path: "/usr/lib/ipxe/undionly.kpxe".into(),
            arch: crate::pure::client::Arch::Bios,
        });
        let found = Surroundings {
            base: "/etc/reveille".into(),
            state: "/var/lib/reveille".into(),
            secrets: file.secret_sources().map(|s| (s.clone(), secret("abcd"))).collect(),
            answers: file
                .answer_files()
                .map(|name| (within(Path::new("/etc/reveille"), name), Ok(String::new())))
                .collect(),
            nbps,
            ..Surroundings::default()
        };
        resolve(file, found, problems)
    }

    fn complaints(yaml: &str) -> Vec<String> {
        let problems = match resolved(yaml) {
            Ok(config) => config.problems,
            Err(problems) => problems,
        };
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn the_example_says_what_it_says() {
        let config = resolved(include_str!("../../../config.example.yaml")).unwrap();
        assert_eq!(config.problems, []);
        let catalog = &config.catalog;
        let oden = catalog.machine("5c:f3:fc:00:00:01".parse().unwrap()).unwrap();
        let profile = oden.profile.as_ref().unwrap();
        assert_eq!((oden.name.as_str(), profile.name.as_str()), ("oden", "talos"));
        let image = profile.image.as_ref().unwrap();
        let Part::Fetched(set, "kernel") = &image.files.kernel else {
            panic!("it is made: {:?}", image.files);
        };
        assert!(set.as_str().starts_with("factory.talos.dev/"), "{set}");
        assert_eq!(config.wanted["talos"][0].set, *set);
        let v1_11: TalosVersion = "1.11".parse().unwrap();
        let told = image.talos.as_ref().unwrap();
        assert_eq!((told.version, told.arch), (Some(v1_11), TalosArch::Amd64));
        let networked = " talos.hostname=oden ip=192.168.1.171::192.168.1.1:255.255.255.0:oden:eth0:off:192.168.1.1";
        let groups: Vec<_> = catalog.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(groups, ["blades", "rest"]);
        let rest = &catalog.groups[1];
        let preseed = &rest.profile.settings.files["preseed.cfg"];
        assert_eq!(preseed, Path::new("/etc/reveille/answers/preseed.cfg"));
        let balder = catalog.machine("9c:8e:99:00:00:02".parse().unwrap()).unwrap();
        assert_eq!((balder.macs.len(), balder.settings.replace_ipxe), (2, Some(true)));
        assert!(catalog.needs_smbios());
        let choice: Vec<_> = catalog.menu.profiles.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(choice, ["talos", "rescue", "disk"]);
        let who = Who { machine: Some(Arc::clone(oden)), group: None };
        let line = cmdline::kernel_line(profile, image, &who, &Shelf::default()).unwrap();
        assert!(
            line.contains(" siderolink.api=https://example.omni.siderolabs.io?jointoken=abcd ")
        );
        let own = " console=ttyS1,115200n8 intel_iommu=off";
        assert!(line.ends_with(&format!("{own}{networked}")), "{line}");
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = resolved("").unwrap();
        assert_eq!(config.problems, []);
        assert_eq!(
            config.server,
            Server {
                interfaces: Interfaces::OfDefaultRoute,
                advertise: None,
                dhcp: Some(Dhcp { port: 67, boot_server_port: 4011 }),
                tftp: Some(Tftp {
                    port: 69,
                    max_transfers: 2000,
                    max_per_address: 8,
                    max_unanswered: 5,
                    max_errors: 100,
                    subnets: Vec::new(),
                }),
                http_port: 8080,
                http_hosts: Vec::new(),
                release: crate::pure::catalog::settings::Release::Seen,
                on_lost_state: crate::pure::catalog::server::OnLostState::Hold,
                state: "/var/lib/reveille".into(),
            }
        );
        assert!(matches!(config.catalog.unknown, Unknown::Menu));
        assert_eq!(config.catalog.menu.timeout.as_secs(), 30);
    }

    #[test]
    fn the_limits_of_tftp_are_taken_and_wrong_ones_are_told() {
        let tftp = |yaml: &str| resolved(yaml).unwrap().server.tftp.unwrap();
        let set = tftp(
            "server: { tftp: { max_unanswered: 1, max_errors: 0, subnets: [10.20.0.0/16, 10.99.0.7/32] } }",
        );
        assert_eq!((set.max_unanswered, set.max_errors, set.max_transfers), (1, 0, 2000));
        let subnets: Vec<_> = set.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.20.0.0/16", "10.99.0.7/32"]);
        let yaml = "server: { tftp: { max_unanswered: 0, subnets: [10.0.0/8, 'fe80::/64'] } }";
        assert_eq!(
            complaints(yaml),
            [
                "config.yaml:1:35: server.tftp.max_unanswered: `0` is not a whole number from 1 to 100",
                "config.yaml:1:48: server.tftp.subnets[0]: `10.0.0/8` is no IPv4 subnet, as 10.20.0.0/16 is one",
                "config.yaml:1:58: server.tftp.subnets[1]: `fe80::/64` is no IPv4 subnet, as 10.20.0.0/16 is one",
            ]
        );
    }

    #[test]
    fn every_section_may_be_empty() {
        let yaml = "server:\nomni:\nimages:\nprofiles:\nmachines:\nmenu:\n";
        assert_eq!(complaints(yaml), Vec::<String>::new());
    }

    #[test]
    fn a_boot_that_can_never_be_completed_is_told_of_one_that_is_to_be_completed_once() {
        let yaml = "profiles:\n  a: { script: netbootxyz, wipes: false, boot: once }\n  b: { script: menu }\n";
        assert_eq!(
            complaints(yaml),
            [
                "config.yaml:2:48: profiles.a.boot: a boot counts once the kernel and all initrds are fetched, and this profile has no `image`: the network boots its machines whenever they ask"
            ]
        );
    }

    #[test]
    fn every_problem_is_told_at_once_each_with_its_place() {
        let yaml = "\
server:
  interface: eth0
  http: { port: eighty }
  dhcp: relay
images:
  rack: { kernel: /srv/vmlinuz, initrd: https://example.org/initrd }
profiles:
  talos:
    script: talos
    image: rak
    cmdline: [quiet, 'x=${uuid}']
machines:
  oden: { mac: 5c:f3:fc:00:00:01, profile: talso }
  loke: { mac: 5C-F3-FC-00-00-01, profile: talos }
  nobody: { profile: talos }
groups: []
unknown: menue
menu: { default: talos, profiles: [] }
";
        assert_eq!(
            complaints(yaml),
            [
                "config.yaml:2:3: server.interface: there is no key `interface`; did you mean `interfaces`?",
                "config.yaml:3:17: server.http.port: `eighty` is not a whole number from 1 to 65535",
                "config.yaml:4:9: server.dhcp: there is no value `relay`; there is: proxy, off",
                "config.yaml:10:12: profiles.talos.image: there is no image named `rak`; did you mean `rack`?",
                "config.yaml:11:22: profiles.talos.cmdline[1]: the argument `x=${uuid}` has `${` in it, which iPXE would expand",
                "config.yaml:13:44: machines.oden.profile: there is no profile named `talso`; did you mean `talos`?",
                "config.yaml:14:16: machines.loke.mac: machine oden has this MAC address already, on line 13",
                "config.yaml:15:3: machines.nobody: a machine needs at least one of `mac`, `uuid` and `serial`",
                "config.yaml:17:10: unknown: there is no profile named `menue`; did you mean `menu`?",
                "config.yaml:18:18: menu.default: `menu.profiles` does not offer `talos`",
            ]
        );
    }

    #[test]
    fn an_nbp_that_is_named_must_be_there_and_for_that_firmware() {
        let yaml = "\
profiles:
  p: { script: menu, nbp: { bios: undionly.kpx, uefi-x64: undionly.kpxe, bioss: x } }
";
        assert_eq!(
            complaints(yaml),
            [
                "config.yaml:2:35: profiles.p.nbp.bios: boots that need it are refused: there is no NBP named `undionly.kpx`; did you mean `undionly.kpxe`?",
                "config.yaml:2:59: profiles.p.nbp.uefi-x64: `undionly.kpxe` is for BIOS, not for UEFI x86-64",
                "config.yaml:2:74: profiles.p.nbp.bioss: there is no key `bioss`; did you mean `bios`?",
            ]
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_told_with_all_the_rest() {
        let yaml = "\
unknown: menu
machines:
  oden: { mac: 5c:f3:fc:00:00:01, profile: p, mac: 5c:f3:fc:00:00:02 }
  oden: { mac: 5c:f3:fc:00:00:03, profile: p }
unknown: local
profiles: { p: { script: menu, <<: { local_boot: exit, script: linux } }, q: { scrip: menu } }
";
        assert_eq!(
            complaints(yaml),
            [
                "config.yaml:3:47: machines.oden.mac: this key stands here twice; the first is on line 3",
                "config.yaml:4:3: machines.oden: this key stands here twice; the first is on line 3",
                "config.yaml:5:1: unknown: this key stands here twice; the first is on line 1",
                "config.yaml:6:80: profiles.q.scrip: there is no key `scrip`; did you mean `script`?",
            ]
        );
    }

    #[test]
    fn a_secret_in_the_config_is_refused_and_not_repeated() {
        let yaml = "omni: { lab: { api: https://x, join_token: hush } }";
        let complaints = complaints(yaml).join("\n");
        assert!(complaints.contains("a secret does not stand in the config"), "{complaints}");
        assert!(!complaints.contains("hush"), "{complaints}");
    }

    #[test]
    fn a_line_too_long_for_one_machine_is_told_at_once_and_spoils_only_its_boots() {
        let long = "x".repeat(2040);
        let yaml = format!(
            "images: {{ i: {{ kernel: /k }} }}\nprofiles: {{ p: {{ script: linux, image: i }} }}\n\
             machines:\n  oden: {{ mac: 5c:f3:fc:00:00:01, profile: p, cmdline: [{long}] }}\n"
        );
        let config = resolved(&yaml).unwrap();
        let told = config.problems[0].to_string();
        assert!(told.starts_with("config.yaml:4:3: machines.oden: the kernel line has 2047 bytes"));
    }
}
