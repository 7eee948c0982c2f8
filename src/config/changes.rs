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
use crate::boot::catalog::{
    Image, LocalBoot, Machine, Menu, Nbp, Nbps, Option43, Profile, Settings, Unknown,
};
use crate::boot::cmdline::initrd_name;
use crate::boot::omni::{Omni, redacted};
use crate::boot::script::Templates;

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
    told.nbps(&from.nbps, &to.nbps, touched);
    told.each("profile", by_name(&from.profiles), by_name(&to.profiles), profile);
    told.each("machine", from.machines(), to.machines(), machine);
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
    fields.value("api", Some(api), Some(&new.api));
    fields.secret("join token", join_token, &new.join_token);
    fields.value("tunnel", Some(*tunnel), Some(new.tunnel));
    fields.value("events", Some(events), Some(&new.events));
    fields.value("kernel_log", Some(kernel_log), Some(&new.kernel_log));
}

fn image((old, new): (&Image, &Image), touched: &BTreeMap<PathBuf, Touch>, fields: &mut Fields) {
    let Image { name: _, kernel, initrds, cmdline, talos } = old;
    fields.path("kernel", kernel, &new.kernel);
    let shown = |paths: &[PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.display().to_string()).collect()
    };
    fields.list("initrd", &shown(initrds), &shown(&new.initrds));
    fields.list("cmdline", cmdline, &new.cmdline);
    let release = |image: &Image| image.talos.map(|(version, _)| version.to_string());
    fields.value("talos", release(old), release(new));
    if release(old) == release(new) {
        fields.other("talos.arch", talos, &new.talos);
    }
    let initrds = new.initrds.iter().enumerate().map(|(at, path)| (initrd_name(at), path));
    for (part, path) in [("kernel".to_owned(), &new.kernel)].into_iter().chain(initrds) {
        // Of a path that is new here it says nothing what happened there.
        let is_old = old.kernel == *path || old.initrds.contains(path);
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

fn machine(old: &Machine, new: &Machine, fields: &mut Fields) {
    let Machine { name: _, macs, uuid, serial, profile, settings: own } = old;
    fields.list("mac", macs, &new.macs);
    fields.value("uuid", *uuid, new.uuid);
    fields.value("serial", serial.as_ref(), new.serial.as_ref());
    fields.value("profile", Some(&profile.name), Some(&new.profile.name));
    settings(own, &new.settings, fields);
}

fn settings(old: &Settings, new: &Settings, fields: &mut Fields) {
    let Settings { cmdline, nbp, option_43, answer_request_67, replace_ipxe, local_boot } = old;
    fields.list("cmdline", cmdline, &new.cmdline);
    if *nbp != new.nbp {
        let named = |settings: &Settings| -> Vec<String> {
            settings.nbp.iter().map(|(arch, name)| format!("{name} ({arch})")).collect()
        };
        fields.list("nbp", &named(old), &named(new));
    }
    fields.value("option_43", option_43.map(Option43::word), new.option_43.map(Option43::word));
    fields.value("answer_request_67", *answer_request_67, new.answer_request_67);
    fields.value("replace_ipxe", *replace_ipxe, new.replace_ipxe);
    let word = |method: Option<LocalBoot>| method.map(LocalBoot::word);
    fields.value("local_boot", word(*local_boot), word(new.local_boot));
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
