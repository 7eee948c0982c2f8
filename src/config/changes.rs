//! What is different between two snapshots, in words.
//!
//! Each thing of the config has one function here. It takes the thing apart by name, so that a field which
//! is added there is asked for here. What is equal costs nothing but the comparison.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::followed::Touch;
use super::{Config, Dhcp, Interfaces, Server, Tftp};
use crate::boot::catalog::{Files, Group, Image, Machine, Menu, Network, Profile, Unknown};
use crate::boot::cmdline::initrd_name;
use crate::boot::nbp::{Nbp, Nbps};
use crate::boot::omni::{Omni, redacted};
use crate::boot::settings::{BootPolicy, LocalBoot, NbpLadder, Option43, Settings};
use crate::boot::templates::Templates;

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
        let shown = |c: char| c.is_control().then(|| c.escape_default().to_string());
        let line: String =
            redacted(line).chars().map(|c| shown(c).unwrap_or_else(|| c.to_string())).collect();
        self.lines.push(line);
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
        let Server { interfaces, advertise, dhcp: _, tftp: _, http_port: _, state: _ } = old;
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

/// What has changed in one thing, field by field.
#[derive(Debug, Default)]
struct Fields {
    told: Vec<String>,
}

impl Fields {
    /// `profile talos -> rescue`
    fn value<T: PartialEq + Display>(&mut self, field: &str, old: Option<T>, new: Option<T>) {
        if old != new {
            let said =
                |value: Option<T>| value.map_or("none".to_owned(), |value| value.to_string());
            self.changed(field, &format!("{} -> {}", said(old), said(new)));
        }
    }

    /// `cmdline + console=ttyS1 - quiet`
    fn list<T: Ord + Display>(&mut self, field: &str, old: &[T], new: &[T]) {
        if old == new {
            return;
        }
        let beyond = |some: &[T], others: &[T], sign: &str| {
            let mut others: Vec<&T> = others.iter().collect();
            let mut beyond = Vec::new();
            for item in some {
                match others.iter().position(|other| *other == item) {
                    Some(at) => drop(others.swap_remove(at)),
                    None => beyond.push(format!("{sign} {item}")),
                }
            }
            beyond
        };
        let mut said = beyond(new, old, "+");
        said.extend(beyond(old, new, "-"));
        let said = if said.is_empty() { "in another order".to_owned() } else { said.join(" ") };
        self.changed(field, &said);
    }

    fn path(&mut self, field: &str, old: &Path, new: &Path) {
        self.value(field, Some(old.display().to_string()), Some(new.display().to_string()));
    }

    /// The value itself is not told.
    fn secret(
        &mut self,
        field: &str,
        old: &Result<SecretString, String>,
        new: &Result<SecretString, String>,
    ) {
        let said = match (old, new) {
            (Ok(old), Ok(new)) if old.expose_secret() == new.expose_secret() => return,
            (Ok(_), Ok(_)) => "changed",
            (Err(_), Ok(_)) => "is there",
            (Ok(_), Err(_)) => "is missing",
            (Err(old), Err(new)) if old == new => return,
            (Err(_), Err(_)) => "is still missing",
        };
        self.changed(field, said);
    }

    /// Where `what` is only told in a word.
    fn other<T: PartialEq>(&mut self, what: &str, old: &T, new: &T) {
        if old != new {
            self.changed(what, "changed");
        }
    }

    fn changed(&mut self, field: &str, how: &str) {
        self.told.push(format!("{field} {how}").trim_start().to_owned());
    }
}

fn by_name<T>(things: &BTreeMap<String, Arc<T>>) -> BTreeMap<&str, &T> {
    things.iter().map(|(name, thing)| (name.as_str(), &**thing)).collect()
}

fn named(interfaces: &Interfaces) -> String {
    match interfaces {
        Interfaces::OfDefaultRoute => "that of the default route".to_owned(),
        Interfaces::Named(names) => names.join(", "),
    }
}

fn tftp(old: &Tftp, new: &Tftp, fields: &mut Fields) {
    let Tftp { port: _, max_transfers, max_per_address, max_unanswered, max_errors, subnets } = old;
    fields.value("max_transfers", Some(*max_transfers), Some(new.max_transfers));
    fields.value("max_per_address", Some(*max_per_address), Some(new.max_per_address));
    fields.value("max_unanswered", Some(*max_unanswered), Some(new.max_unanswered));
    fields.value("max_errors", Some(*max_errors), Some(new.max_errors));
    fields.list("subnets", subnets, &new.subnets);
}

fn omni(old: &Omni, new: &Omni, fields: &mut Fields) {
    let Omni { name: _, api, join_token, tunnel, events, kernel_log } = old;
    fields.secret("join token", join_token, &new.join_token);
    // Where the pasted kernel parameters are not there, nor is what they say of the rest.
    if api.is_empty() || new.api.is_empty() {
        return;
    }
    fields.value("api", Some(api), Some(&new.api));
    fields.value("tunnel", Some(*tunnel), Some(new.tunnel));
    fields.value("events", Some(events), Some(&new.events));
    fields.value("kernel_log", Some(kernel_log), Some(&new.kernel_log));
}

fn image((old, new): (&Image, &Image), touched: &BTreeMap<PathBuf, Touch>, fields: &mut Fields) {
    // What is missing was told with what happened to the file.
    let Image { name: _, files, missing: _, cmdline, talos } = old;
    let (none, paths) = (Files::default(), |files: &Result<Files, String>| files.clone().ok());
    let (before, after) = (paths(files).unwrap_or(none), paths(&new.files).unwrap_or_default());
    fields.path("kernel", &before.kernel, &after.kernel);
    let shown = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    fields.list("initrd", &shown(&before.initrds), &shown(&after.initrds));
    fields.list("cmdline", cmdline, &new.cmdline);
    let release = |image: &Image| image.talos.map(|(version, _)| version.to_string());
    fields.value("talos", release(old), release(new));
    if release(old) == release(new) {
        fields.other("talos.arch", talos, &new.talos);
    }
    let initrds = after.initrds.iter().enumerate().map(|(at, path)| (initrd_name(at), path));
    for (part, path) in [("kernel".to_owned(), &after.kernel)].into_iter().chain(initrds) {
        // Of a path that is new here it says nothing what happened there.
        let is_old = before.kernel == *path || before.initrds.contains(path);
        let said = match touched.get(path).filter(|_| is_old) {
            None => continue,
            Some(Touch::Came) => "is there",
            Some(Touch::Changed) => "has other content",
            Some(Touch::Went) => "is gone",
        };
        fields.changed(&part, said);
    }
}

fn profile(old: &Profile, new: &Profile, fields: &mut Fields) {
    let Profile { name: _, script, image, omni, settings: own } = old;
    fields.value("script", Some(script), Some(&new.script));
    let image_name = |image: &Option<Arc<Image>>| image.as_ref().map(|image| image.name.clone());
    fields.value("image", image_name(image), image_name(&new.image));
    let omni_name = |omni: &Option<Arc<Omni>>| omni.as_ref().map(|omni| omni.name.clone());
    fields.value("omni", omni_name(omni), omni_name(&new.omni));
    settings(own, &new.settings, fields);
}

fn group(old: &Group, new: &Group, fields: &mut Fields) {
    let Group { name: _, pattern, profile, settings: own } = old;
    if *pattern != new.pattern {
        fields.value("match", Some(pattern.to_string()), Some(new.pattern.to_string()));
    }
    fields.value("profile", Some(&profile.name), Some(&new.profile.name));
    settings(own, &new.settings, fields);
}

fn machine(old: &Machine, new: &Machine, fields: &mut Fields) {
    let Machine { name: _, macs, uuid, serial, profile, network, settings: own } = old;
    fields.list("mac", macs, &new.macs);
    fields.value("uuid", *uuid, new.uuid);
    fields.value("serial", serial.as_ref(), new.serial.as_ref());
    let named = |profile: &Option<Arc<Profile>>| {
        Some(profile.as_ref().map_or("its group's".to_owned(), |profile| profile.name.clone()))
    };
    fields.value("profile", named(profile), named(&new.profile));
    let Network { ip, gateway, nic, hostname, dns } = network;
    fields.value("ip", *ip, new.network.ip);
    fields.value("gateway", *gateway, new.network.gateway);
    fields.value("nic", nic.as_ref(), new.network.nic.as_ref());
    fields.value("hostname", hostname.as_ref(), new.network.hostname.as_ref());
    fields.list("dns", dns, &new.network.dns);
    settings(own, &new.settings, fields);
}

fn settings(old: &Settings, new: &Settings, fields: &mut Fields) {
    let Settings {
        cmdline,
        boot,
        local_boot,
        nbp,
        nbp_ladder,
        option_43,
        answer_request_67,
        replace_ipxe,
        halt_if_installed,
        labels,
        files,
        vars,
    } = old;
    fields.list("cmdline", cmdline, &new.cmdline);
    let policy = |policy: Option<BootPolicy>| policy.map(BootPolicy::word);
    fields.value("boot", policy(*boot), policy(new.boot));
    let method = |method: Option<LocalBoot>| method.map(LocalBoot::word);
    fields.value("local_boot", method(*local_boot), method(new.local_boot));
    if *nbp != new.nbp {
        let named = |settings: &Settings| -> Vec<String> {
            settings.nbp.iter().map(|(arch, name)| format!("{name} ({arch})")).collect()
        };
        fields.list("nbp", &named(old), &named(new));
    }
    let ladder = |ladder: Option<NbpLadder>| ladder.map(NbpLadder::word);
    fields.value("nbp_ladder", ladder(*nbp_ladder), ladder(new.nbp_ladder));
    fields.value("option_43", option_43.map(Option43::word), new.option_43.map(Option43::word));
    fields.value("answer_request_67", *answer_request_67, new.answer_request_67);
    fields.value("replace_ipxe", *replace_ipxe, new.replace_ipxe);
    fields.value("talos.halt_if_installed", *halt_if_installed, new.halt_if_installed);
    let pairs = |labels: &BTreeMap<String, String>| -> Vec<String> {
        labels.iter().map(|(name, label)| format!("{name}={label}")).collect()
    };
    fields.list("talos.labels", &pairs(labels), &pairs(&new.labels));
    let paths = |files: &BTreeMap<String, PathBuf>| -> Vec<String> {
        files.iter().map(|(name, path)| format!("{name} ({})", path.display())).collect()
    };
    fields.list("files", &paths(files), &paths(&new.files));
    for name in BTreeSet::from_iter(vars.keys().chain(new.vars.keys())) {
        // What a variable holds may be anything; its name is enough to find it.
        fields.other(&format!("vars.{name}"), &vars.get(name), &new.vars.get(name));
    }
}

fn gets(unknown: &Unknown) -> &str {
    match unknown {
        Unknown::Menu => "menu",
        Unknown::Local => "local",
        Unknown::Ignore => "ignore",
        Unknown::Profile(profile) => &profile.name,
    }
}

fn menu(old: &Menu, new: &Menu, fields: &mut Fields) {
    let Menu { default, timeout, profiles } = old;
    let named = |profile: &Option<Arc<Profile>>| {
        Some(profile.as_ref().map_or("local".to_owned(), |profile| profile.name.clone()))
    };
    fields.value("default", named(default), named(&new.default));
    let seconds = |time: &Duration| Some(format!("{} s", time.as_secs()));
    fields.value("timeout", seconds(timeout), seconds(&new.timeout));
    let names = |profiles: &[Arc<Profile>]| -> Vec<String> {
        profiles.iter().map(|profile| profile.name.clone()).collect()
    };
    fields.list("profiles", &names(profiles), &names(&new.profiles));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Arch;
    use crate::config::fields::Problems;
    use crate::config::file::File;
    use crate::config::resolve::{Secret, Surroundings, resolve};

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
            ("script: linux", "script: own", "profile rescue: script linux -> own"),
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
            ("v1.11.2", "v1.10.0", "image talos: talos 1.11 -> 1.10"),
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
