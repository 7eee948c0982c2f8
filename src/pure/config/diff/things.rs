//! What makes each thing of the config another one than before.
//!
//! Each has one function here. It takes the thing apart by name, so that a field which is added there is
//! asked for here. What is equal costs nothing but the comparison.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Touch;
use super::fields::Fields;
use crate::pure::catalog::image_set::initrd_name;
use crate::pure::catalog::omni::Omni;
use crate::pure::catalog::server::{Interfaces, Tftp};
use crate::pure::catalog::settings::{
    BootPolicy, LocalBoot, NbpLadder, OnDiskFailure, Option43, Release, Settings,
};
use crate::pure::catalog::{Group, Image, Machine, Menu, Network, Part, Profile, Talos, Unknown};
use crate::pure::image_source::URLS;

pub(super) fn named(interfaces: &Interfaces) -> String {
    match interfaces {
        Interfaces::OfDefaultRoute => "that of the default route".to_owned(),
        Interfaces::Named(names) => names.join(", "),
    }
}

pub(super) fn tftp(old: &Tftp, new: &Tftp, fields: &mut Fields) {
    let Tftp { port: _, max_transfers, max_per_address, max_unanswered, max_errors, subnets } = old;
    fields.value("max_transfers", Some(*max_transfers), Some(new.max_transfers));
    fields.value("max_per_address", Some(*max_per_address), Some(new.max_per_address));
    fields.value("max_unanswered", Some(*max_unanswered), Some(new.max_unanswered));
    fields.value("max_errors", Some(*max_errors), Some(new.max_errors));
    fields.list("subnets", subnets, &new.subnets);
}

pub(super) fn omni(old: &Omni, new: &Omni, fields: &mut Fields) {
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

/// What a factory makes is told by its version and its extensions.
fn is_from_elsewhere(old: &Part, new: &Part) -> bool {
    match (old, new) {
        (Part::Fetched(old, _), Part::Fetched(new, _)) => {
            old != new && new.as_str().starts_with(URLS)
        }
        (Part::Own(_) | Part::Fetched(..), _) => false,
    }
}

/// An address is not repeated: it may hold a password.
fn shown(part: &Part) -> String {
    match part {
        Part::Own(path) => path.display().to_string(),
        Part::Fetched(set, _) if set.as_str().starts_with(URLS) => "from an address".to_owned(),
        Part::Fetched(..) => "made by a factory".to_owned(),
    }
}

pub(super) fn image(
    (old, new): (&Image, &Image),
    touched: &BTreeMap<PathBuf, Touch>,
    fields: &mut Fields,
) {
    // What is missing was told with what happened to the file.
    let Image { name: _, files, missing: _, cmdline, talos } = old;
    let after = &new.files;
    fields.value("kernel", Some(shown(&files.kernel)), Some(shown(&after.kernel)));
    let all = |parts: &[Part]| -> Vec<String> { parts.iter().map(shown).collect() };
    fields.list("initrd", &all(&files.initrds), &all(&after.initrds));
    if is_from_elsewhere(&files.kernel, &after.kernel) {
        fields.changed("kernel", "comes from another address");
    }
    if files.initrds.iter().zip(&after.initrds).any(|(old, new)| is_from_elsewhere(old, new)) {
        fields.changed("initrd", "comes from another address");
    }
    fields.list("cmdline", cmdline, &new.cmdline);
    let release = |talos: &Option<Talos>| Some(talos.as_ref()?.release.clone());
    fields.value("talos", release(talos), release(&new.talos));
    if let (Some(talos), Some(new)) = (talos, &new.talos) {
        fields.value("talos.arch", Some(talos.arch), Some(new.arch));
        let named = |talos: &Talos| talos.extensions.clone().unwrap_or_default();
        fields.list("talos.extensions", &named(talos), &named(new));
    }
    let initrds = after.initrds.iter().enumerate().map(|(at, part)| (initrd_name(at), part));
    for (part, at) in [("kernel".to_owned(), &after.kernel)].into_iter().chain(initrds) {
        let Part::Own(path) = at else {
            continue;
        };
        // Of a path that is new here it says nothing what happened there.
        let is_old = files.kernel == *at || files.initrds.contains(at);
        let said = match touched.get(path).filter(|_| is_old) {
            None => continue,
            Some(Touch::Came) => "is there",
            Some(Touch::Changed) => "has other content",
            Some(Touch::Went) => "is gone",
        };
        fields.changed(&part, said);
    }
}

pub(super) fn profile(old: &Profile, new: &Profile, fields: &mut Fields) {
    // That a template came or went is reported of itself.
    let Profile { name: _, script, has_own_script: _, image, omni, settings: own } = old;
    fields.value("script", Some(script), Some(&new.script));
    let image_name = |image: &Option<Arc<Image>>| image.as_ref().map(|image| image.name.clone());
    fields.value("image", image_name(image), image_name(&new.image));
    let omni_name = |omni: &Option<Arc<Omni>>| omni.as_ref().map(|omni| omni.name.clone());
    fields.value("omni", omni_name(omni), omni_name(&new.omni));
    settings(own, &new.settings, fields);
}

pub(super) fn group(old: &Group, new: &Group, fields: &mut Fields) {
    let Group { name: _, pattern, profile, settings: own } = old;
    if *pattern != new.pattern {
        fields.value("match", Some(pattern.to_string()), Some(new.pattern.to_string()));
    }
    fields.value("profile", Some(&profile.name), Some(&new.profile.name));
    settings(own, &new.settings, fields);
}

pub(super) fn machine(old: &Machine, new: &Machine, fields: &mut Fields) {
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
        wipes,
        on_disk_failure,
        release,
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
    fields.value("wipes", *wipes, new.wipes);
    let failure = |failure: Option<OnDiskFailure>| failure.map(OnDiskFailure::word);
    fields.value("on_disk_failure", failure(*on_disk_failure), failure(new.on_disk_failure));
    let released = |release: Option<Release>| release.map(Release::word);
    fields.value("release", released(*release), released(new.release));
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

pub(super) fn gets(unknown: &Unknown) -> &str {
    match unknown {
        Unknown::Menu => "menu",
        Unknown::Local => "local",
        Unknown::Ignore => "ignore",
        Unknown::Profile(profile) => &profile.name,
    }
}

pub(super) fn menu(old: &Menu, new: &Menu, fields: &mut Fields) {
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
