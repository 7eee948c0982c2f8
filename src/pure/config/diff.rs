//! What is different between two snapshots, in words: `things` has a function for each thing of the
//! config, `fields` the words.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use self::fields::Fields;
use self::things::{gets, group, image, machine, menu, named, omni, profile, tftp};
use super::snapshot::Config;
use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::catalog::omni::{Omni, redacted};
use crate::pure::catalog::server::{Dhcp, Server};
use crate::pure::catalog::settings::Settings;
use crate::pure::catalog::{Group, Image, Profile};
use crate::pure::printable;
use crate::pure::script::templates::Templates;

mod fields;
mod things;

/// How many changes are told one by one.
const MOST: usize = 20;

/// What has changed for who is served, a line each; of many the first, and how many more there are.
/// `touched` is what happened to the files meanwhile. No line holds a secret.
pub fn changes(old: &Config, new: &Config, touched: &BTreeMap<PathBuf, Touch>) -> Vec<String> {
    let mut told = Changes::default();
    told.server(&old.server, &new.server);
    let (from, to) = (&old.catalog, &new.catalog);
    told.each("omni", by_name(&from.omni), by_name(&to.omni), omni);
    told.each("image", by_name(&from.images), by_name(&to.images), |old, new, fields| {
        image((old, new), touched, fields);
    });
    told.templates(&old.templates, &new.templates);
    told.answers(&new.templates, touched);
    told.nbps(&from.nbps, &to.nbps, touched);
    told.each("profile", by_name(&from.profiles), by_name(&to.profiles), profile);
    told.groups(&from.groups, &to.groups);
    told.each("machine", by_name(from.machines()), by_name(to.machines()), machine);
    told.whole("unknown", |fields| {
        fields.value("", Some(gets(&from.unknown)), Some(gets(&to.unknown)));
    });
    told.whole("menu", |fields| menu(&from.menu, &to.menu, fields));
    told.summarized()
}

/// Whether a profile boots or installs something else than before. What says when it does, or who gets its secrets,
/// does not count.
pub fn boots_otherwise(old: &Profile, new: &Profile) -> bool {
    let Settings { cmdline, files, vars, .. } = &old.settings;
    let image_name = |image: &Option<Arc<Image>>| image.as_ref().map(|image| image.name.clone());
    let omni_name = |omni: &Option<Arc<Omni>>| omni.as_ref().map(|omni| omni.name.clone());
    let mut fields = Fields::default();
    if let (Some(old), Some(new)) = (&old.image, &new.image) {
        image((old, new), &BTreeMap::new(), &mut fields);
    }
    !fields.told.is_empty()
        || old.script != new.script
        || image_name(&old.image) != image_name(&new.image)
        || omni_name(&old.omni) != omni_name(&new.omni)
        || (cmdline, files, vars)
            != (&new.settings.cmdline, &new.settings.files, &new.settings.vars)
}

/// What of `wanted` differs from what is bound since the start, a line each: that waits for the next start.
pub fn at_next_start(running: &Server, wanted: &Server) -> Vec<String> {
    let mut told = Changes::default();
    let mut port = |key: &str, old: Option<u16>, new: Option<u16>| {
        let said = |port: Option<u16>| Some(port.map_or("off".to_owned(), |port| port.to_string()));
        told.whole(&format!("server.{key}"), |fields| fields.value("", said(old), said(new)));
    };
    let dhcp = |server: &Server, port: fn(&Dhcp) -> u16| server.dhcp.as_ref().map(port);
    port("dhcp.port", dhcp(running, |dhcp| dhcp.port), dhcp(wanted, |dhcp| dhcp.port));
    let boot_server = |dhcp: &Dhcp| dhcp.boot_server_port;
    port("dhcp.boot_server_port", dhcp(running, boot_server), dhcp(wanted, boot_server));
    let tftp = |server: &Server| server.tftp.as_ref().map(|tftp| tftp.port);
    port("tftp.port", tftp(running), tftp(wanted));
    port("http.port", Some(running.http_port), Some(wanted.http_port));
    told.whole("server.state", |fields| {
        let said = |server: &Server| Some(server.state.display().to_string());
        fields.value("", said(running), said(wanted));
    });
    told.lines
}

/// The lines, as they are found.
#[derive(Debug, Default)]
struct Changes {
    lines: Vec<String>,
}

impl Changes {
    fn line(&mut self, line: &str) {
        self.lines.push(printable::line(&redacted(line)).into_owned());
    }

    /// Tells what has changed in one thing, all in one line.
    fn whole(&mut self, what: &str, compare: impl FnOnce(&mut Fields)) {
        let mut fields = Fields::default();
        compare(&mut fields);
        if !fields.told.is_empty() {
            self.line(&format!("{what}: {}", fields.told.join("; ")));
        }
    }

    /// Tells of each thing of a kind: those that are new, those that have gone, and what has changed in the
    /// others.
    fn each<T>(
        &mut self,
        kind: &str,
        old: BTreeMap<&str, &T>,
        new: BTreeMap<&str, &T>,
        compare: impl Fn(&T, &T, &mut Fields),
    ) {
        for (name, thing) in &new {
            match old.get(name) {
                Some(before) => {
                    // What a name costs is only spent where there is something to tell.
                    let mut fields = Fields::default();
                    compare(before, thing, &mut fields);
                    if !fields.told.is_empty() {
                        self.line(&format!("{kind} {name}: {}", fields.told.join("; ")));
                    }
                }
                None => self.line(&format!("{kind} {name}: new")),
            }
        }
        for name in old.keys().filter(|name| !new.contains_key(*name)) {
            self.line(&format!("{kind} {name}: gone"));
        }
    }

    fn server(&mut self, old: &Server, new: &Server) {
        // The ports and the state folder are told by [`at_next_start`].
        let Server {
            interfaces,
            advertise,
            dhcp: _,
            tftp: _,
            http_port: _,
            http_hosts,
            release,
            on_lost_state,
            state: _,
        } = old;
        self.whole("server.http.hosts", |fields| fields.list("", http_hosts, &new.http_hosts));
        self.whole("server.release", |fields| {
            fields.value("", Some(release.word()), Some(new.release.word()));
        });
        self.whole("server.on_lost_state", |fields| {
            fields.value("", Some(on_lost_state.word()), Some(new.on_lost_state.word()));
        });
        self.whole("server.interfaces", |fields| {
            fields.value("", Some(named(interfaces)), Some(named(&new.interfaces)));
        });
        self.whole("server.advertise", |fields| fields.value("", *advertise, new.advertise));
        if let (Some(old), Some(new)) = (&old.tftp, &new.tftp) {
            self.whole("server.tftp", |fields| tftp(old, new, fields));
        }
    }

    fn templates(&mut self, old: &Templates, new: &Templates) {
        for name in BTreeSet::from_iter(old.names().into_iter().chain(new.names())) {
            let what = match (old.source(&name), new.source(&name)) {
                (None, Some(_)) => "new",
                (Some(_), None) => "gone",
                (Some(old), Some(new)) if old != new => "changed",
                (Some(_), Some(_)) | (None, None) => continue,
            };
            self.line(&format!("template {name}: {what}"));
        }
    }

    fn answers(&mut self, new: &Templates, touched: &BTreeMap<PathBuf, Touch>) {
        for path in new.answers().keys().filter(|path| touched.contains_key(*path)) {
            self.line(&format!("answer file {}: changed", path.display()));
        }
    }

    fn groups(&mut self, old: &[Arc<Group>], new: &[Arc<Group>]) {
        fn all(groups: &[Arc<Group>]) -> BTreeMap<&str, &Group> {
            groups.iter().map(|group| (group.name.as_str(), &**group)).collect()
        }
        let names = |groups: &[Arc<Group>], others: &BTreeMap<&str, &Group>| -> Vec<String> {
            let in_both = groups.iter().filter(|group| others.contains_key(group.name.as_str()));
            in_both.map(|group| group.name.clone()).collect()
        };
        let (before, after) = (all(old), all(new));
        if names(old, &after) != names(new, &before) {
            self.line(&format!("groups: in another order: {}", names(new, &after).join(", ")));
        }
        self.each("group", before, after, group);
    }

    fn nbps(&mut self, old: &Nbps, new: &Nbps, touched: &BTreeMap<PathBuf, Touch>) {
        fn all(nbps: &Nbps) -> BTreeMap<&str, &Nbp> {
            nbps.iter().map(|nbp| (nbp.name.as_str(), nbp)).collect()
        }
        self.each("NBP", all(old), all(new), |old, new, fields| {
            let Nbp { name: _, path, arch, folder: _ } = old;
            fields.value("for", Some(arch), Some(&new.arch));
            fields.path("now", path, &new.path);
            if fields.told.is_empty() && touched.contains_key(&new.path) {
                fields.told.push("changed".to_owned());
            }
        });
    }

    fn summarized(self) -> Vec<String> {
        let mut lines = self.lines;
        if lines.len() > MOST + 1 {
            let more = lines.len() - MOST;
            lines.truncate(MOST);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

fn by_name<T>(things: &BTreeMap<String, Arc<T>>) -> BTreeMap<&str, &T> {
    things.iter().map(|(name, thing)| (name.as_str(), &**thing)).collect()
}

/// What happened to a file between two readings of the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It was not there before.
    Came,
    /// It has other content.
    Changed,
    /// It is not there any more.
    Went,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pure::client::Arch;
    use crate::pure::config::problem::Problems;
    use crate::pure::config::resolve::resolve;
    use crate::pure::config::schema::File;
    use crate::pure::config::surroundings::{Secret, Surroundings};

    /// A host with an NBP, a template of its own and this token.
    struct Host {
        token: Result<&'static str, &'static str>,
        template: Option<&'static str>,
        nbp: &'static str,
    }

    const HOST: Host = Host { token: Ok("hush"), template: Some("#!ipxe\n"), nbp: "snponly.efi" };

    fn config(yaml: &str, host: &Host) -> Config {
        let mut problems = Problems::new(Path::new("config.yaml"), yaml);
        let file = File::parse(yaml, &mut problems).unwrap();
        let mut nbps = Nbps::default();
        let (name, path) = (host.nbp.to_owned(), Path::new("/nbps").join(host.nbp));
        nbps.add(Nbp { name, path, arch: Arch::UefiX64, folder: 0 });
        let read = |token: &str| Secret {
            text: token.into(),
            from: "/etc/token".to_owned(),
            open_to_all: None,
        };
        let token = host.token.map(read).map_err(str::to_owned);
        let template = host.template.map(|source| ("own".to_owned(), Ok(source.to_owned())));
        let found = Surroundings {
            base: "/etc".into(),
            state: "/state".into(),
            secrets: file.secret_sources().map(|source| (source.clone(), token.clone())).collect(),
            templates: template.into_iter().collect(),
            nbps,
            ..Surroundings::default()
        };
        resolve(file, found, problems).unwrap()
    }

    fn told(old: &str, new: &str) -> Vec<String> {
        changes(&config(old, &HOST), &config(new, &HOST), &BTreeMap::new())
    }

    const CONFIG: &str = "\
server: { interfaces: [eth0], tftp: { max_transfers: 100 } }
omni: { lab: { api: https://x, join_token: { file: token } } }
images: { talos: { kernel: k, initrd: [i], cmdline: [one], talos: { version: v1.11.2 } } }
profiles:
  talos: { script: talos, image: talos, omni: lab, cmdline: [quiet] }
  rescue: { script: linux, image: talos, local_boot: exit }
machines:
  oden: { mac: 52:54:00:77:00:10, profile: talos }
  loke: { uuid: 01234567-89ab-cdef-0123-456789abcdef, profile: talos }
  ymer: { serial: CZ1, profile: rescue }
menu: { timeout: 30s }
";

    #[test]
    fn the_same_is_no_change() {
        assert_eq!(told(CONFIG, CONFIG), Vec::<String>::new());
        assert_eq!(told(CONFIG, &format!("# words\n{CONFIG}")), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_change_is_told_in_words() {
        for (from, to, line) in [
            ("[quiet]", "[quiet, console=ttyS1]", "profile talos: cmdline + console=ttyS1"),
            ("[quiet]", "[]", "profile talos: cmdline - quiet"),
            ("[one]", "[two, one, two]", "image talos: cmdline + two + two"),
            (
                "local_boot: exit",
                "local_boot: sanboot",
                "profile rescue: local_boot exit -> sanboot",
            ),
            (
                "local_boot: exit",
                "option_43: bios",
                "profile rescue: local_boot exit -> none; option_43 none -> bios",
            ),
            (
                "script: linux",
                "script: own, wipes: false",
                "profile rescue: script linux -> own; wipes none -> false",
            ),
            (
                "local_boot: exit",
                "local_boot: exit, wipes: false, on_disk_failure: hold, release: armed",
                "profile rescue: wipes none -> false; on_disk_failure none -> hold; release none -> armed",
            ),
            (
                "10, profile: talos",
                "10, profile: talos, boot: once, wipes: true, release: anyone",
                "machine oden: boot none -> once; wipes none -> true; release none -> anyone",
            ),
            ("[eth0]", "[eth0], http: { hosts: [boot.lan] }", "server.http.hosts: + boot.lan"),
            ("[eth0]", "[eth0], release: armed", "server.release: seen -> armed"),
            ("[eth0]", "[eth0], on_lost_state: boot", "server.on_lost_state: hold -> boot"),
            ("omni: lab, ", "", "profile talos: omni lab -> none"),
            ("10, profile: talos", "10, profile: rescue", "machine oden: profile talos -> rescue"),
            (
                "mac: 52:54:00:77:00:10",
                "mac: [52:54:00:77:00:10, 52:54:00:77:00:11]",
                "machine oden: mac + 52:54:00:77:00:11",
            ),
            (
                "cdef, profile",
                "cdee, profile",
                "machine loke: uuid 01234567-89ab-cdef-0123-456789abcdef -> 01234567-89ab-cdef-0123-456789abcdee",
            ),
            ("serial: CZ1", "serial: CZ2", "machine ymer: serial CZ1 -> CZ2"),
            ("  ymer: { serial: CZ1, profile: rescue }\n", "", "machine ymer: gone"),
            (
                "machines:\n",
                "machines:\n  tor: { serial: T, profile: rescue }\n",
                "machine tor: new",
            ),
            ("api: https://x", "api: https://y", "omni lab: api https://x -> https://y"),
            ("initrd: [i]", "initrd: [j]", "image talos: initrd + /etc/j - /etc/i"),
            ("kernel: k", "kernel: /k", "image talos: kernel /etc/k -> /k"),
            ("v1.11.2", "v1.10.0", "image talos: talos v1.11.2 -> v1.10.0"),
            ("[eth0]", "[eth0, eth1]", "server.interfaces: eth0 -> eth0, eth1"),
            (
                "interfaces: [eth0]",
                "advertise: 10.0.0.1",
                "server.interfaces: eth0 -> that of the default route",
            ),
            (
                "max_transfers: 100",
                "max_errors: 7, subnets: [10.0.0.0/8]",
                "server.tftp: max_transfers 100 -> 2000; max_errors 100 -> 7; subnets + 10.0.0.0/8",
            ),
            ("timeout: 30s", "timeout: 30s, default: rescue", "menu: default local -> rescue"),
            ("timeout: 30s", "timeout: 5s", "menu: timeout 30 s -> 5 s"),
            ("timeout: 30s", "profiles: [talos, rescue]", "menu: profiles in another order"),
            ("menu:", "unknown: ignore\nmenu:", "unknown: menu -> ignore"),
        ] {
            assert!(CONFIG.contains(from), "{from}");
            assert_eq!(told(CONFIG, &CONFIG.replacen(from, to, 1))[0], line);
        }
    }

    #[test]
    fn what_the_config_names_is_told_and_no_secret_is() {
        let old = config(CONFIG, &HOST);
        for (host, line) in [
            (Host { token: Ok("hush2"), ..HOST }, "omni lab: join token changed"),
            (Host { token: Err("gone"), ..HOST }, "omni lab: join token is missing"),
            (Host { template: Some("#!ipxe\nexit\n"), ..HOST }, "template own: changed"),
            (Host { template: Some("{{"), ..HOST }, "template own: changed"),
            (Host { template: None, ..HOST }, "template own: gone"),
        ] {
            let new = config(CONFIG, &host);
            assert_eq!(changes(&old, &new, &BTreeMap::new()), [line]);
            let back = changes(&new, &old, &BTreeMap::new());
            assert!(!back.concat().contains("hush"), "{back:?}");
        }
        let other = config(CONFIG, &Host { nbp: "ipxe.efi", ..HOST });
        let told = changes(&old, &other, &BTreeMap::new());
        assert_eq!(told, ["NBP ipxe.efi: new", "NBP snponly.efi: gone"]);
        let pasted = CONFIG.replace("[quiet]", "['siderolink.api=https://x?jointoken=hush']");
        let told = changes(&old, &config(&pasted, &HOST), &BTreeMap::new());
        assert_eq!(
            told,
            ["profile talos: cmdline + siderolink.api=https://x?jointoken=*** - quiet"]
        );
    }

    #[test]
    fn pasted_kernel_parameters_that_go_take_nothing_else_with_them() {
        let pasted = CONFIG.replace("api: https://x, join_token", "kernel_args");
        let args = "siderolink.api=https://x?grpc_tunnel=true&jointoken=hush";
        let there = config(&pasted, &Host { token: Ok(args), ..HOST });
        let gone = config(&pasted, &Host { token: Err("gone"), ..HOST });
        let none = BTreeMap::new();
        assert_eq!(changes(&there, &gone, &none), ["omni lab: join token is missing"]);
        assert_eq!(changes(&gone, &there, &none), ["omni lab: join token is there"]);
    }

    #[test]
    fn a_file_with_other_content_is_told_by_what_it_is() {
        let config = config(CONFIG, &HOST);
        for (path, touch, line) in [
            ("/etc/k", Touch::Came, "image talos: kernel is there"),
            ("/etc/i", Touch::Changed, "image talos: initrd has other content"),
            ("/etc/i", Touch::Went, "image talos: initrd is gone"),
            ("/nbps/snponly.efi", Touch::Changed, "NBP snponly.efi: changed"),
        ] {
            let touched = BTreeMap::from([(PathBuf::from(path), touch)]);
            assert_eq!(changes(&config, &config, &touched), [line]);
        }
    }

    #[test]
    fn of_many_changes_the_first_are_told_and_how_many_there_are_more() {
        let machines = |count: u32| {
            let machine = |n: u32| format!("  m{n:03}: {{ serial: S{n}, profile: rescue }}\n");
            let all: String = (0..count).map(machine).collect();
            CONFIG.replace("machines:\n", &format!("machines:\n{all}"))
        };
        let told = |count| told(CONFIG, &machines(count));
        assert_eq!(told(21).len(), 21);
        let many = told(103);
        assert_eq!(many.len(), 21);
        assert_eq!((many[0].as_str(), many[20].as_str()), ("machine m000: new", "and 83 more"));
    }

    #[test]
    fn what_waits_for_the_next_start_is_named() {
        let server = |yaml: &str| config(&format!("server: {yaml}\n"), &HOST).server;
        let running = server("{}");
        assert_eq!(
            at_next_start(&running, &server("{ interfaces: [eth7] }")),
            Vec::<String>::new()
        );
        let wanted = server("{ http: { port: 8081 }, dhcp: off, state: /s, advertise: 10.0.0.1 }");
        assert_eq!(
            at_next_start(&running, &wanted),
            [
                "server.dhcp.port: 67 -> off",
                "server.dhcp.boot_server_port: 4011 -> off",
                "server.http.port: 8080 -> 8081",
                "server.state: /state -> /s",
            ]
        );
        let bound = wanted.with_bound_of(&running);
        assert_eq!(at_next_start(&running, &bound), Vec::<String>::new());
        assert_eq!(bound.advertise, Some("10.0.0.1".parse().unwrap()));
        let limited = server("{ tftp: { port: 1069, max_errors: 3 } }").with_bound_of(&running);
        let tftp = limited.tftp.unwrap();
        assert_eq!((tftp.port, tftp.max_errors), (69, 3));
    }
}
