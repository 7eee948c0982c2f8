//! From an entry of `profiles` to a profile, with what it and others say for machines.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::link::{Linker, Named, RESERVED};
use super::within;
use crate::pure::catalog::omni::Omni;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::settings::{BootPolicy, Settings};
use crate::pure::catalog::wipes::wipes;
use crate::pure::catalog::{Image, Profile};
use crate::pure::client::Arch;
use crate::pure::config::dry_run::templates::{place_of, quote_of, with_consequence};
use crate::pure::config::fields::{Located, no_such};
use crate::pure::config::schema;

/// Templates that no profile boots by.
const OF_OURS: [&str; 5] = ["ask-facts", "autoexec", "hold", "refused", "waiting"];

impl Linker<'_> {
    pub(crate) fn profile(
        &mut self,
        name: &Located<String>,
        profile: schema::Profile,
        images: &Named<Image>,
        omni: &Named<Omni>,
    ) -> Option<Profile> {
        let script = profile.script?;
        if OF_OURS.contains(&script.value.as_str()) {
            let message = format!(
                "`{}` boots nothing: reveille runs it by itself where it is needed; name talos, linux, menu or another of those that boot something, or a template of your own",
                script.value
            );
            self.problems.error(&script.key, script.place, message);
        } else if !self.templates.knows(&script.value) {
            let names = self.templates.names();
            let names = names.iter().map(String::as_str).filter(|name| !OF_OURS.contains(name));
            let known = no_such("boot script", &script.value, names);
            let message = format!("boots of profile {} are refused: {known}", name.value);
            self.problems.fault(&script.key, script.place, message);
        }
        let image = profile.image.as_ref().and_then(|at| self.named("image", at, images));
        if RESERVED.contains(&name.value.as_str()) {
            let message = format!(
                "`{}` is a word of `unknown` and `menu`: no profile can have it for a name",
                name.value
            );
            self.problems.error(&name.key, name.place, message);
        }
        let without_image = profile.lacks_image;
        let boot_at = profile.said.boot_at.clone();
        let profile = Profile {
            name: name.value.clone(),
            // A template that cannot be used starts nothing.
            has_own_script: self.templates.is_own(&script.value)
                && !self.templates.broken().contains_key(&script.value),
            script: script.value,
            image,
            omni: profile.omni.as_ref().and_then(|at| self.named("Omni instance", at, omni)),
            settings: self.settings(profile.said),
        };
        if without_image && profile.needs_image() {
            let message = format!("script `{}` needs an `image`", profile.script);
            self.problems.error(&name.key, name.place, message);
        }
        if profile.settings.boot == Some(BootPolicy::Once)
            && profile.image.is_none()
            && !wipes(&profile, &Who::default())
            && let Some((key, place)) = boot_at
        {
            let message = "a boot counts once the kernel and all initrds are fetched, and this profile has no `image`: the network boots its machines whenever they ask";
            self.problems.warning(&key, place, message);
        }
        self.kernel_lines().measure(name, &profile, &Who::default());
        Some(profile)
    }

    pub(crate) fn settings(&mut self, said: schema::Said) -> Settings {
        let nbp = self.nbps(said.nbps);
        let files = said.files.into_iter().map(|(name, at)| (name, self.answer(&at))).collect();
        Settings { nbp, files, ..said.settings }
    }

    /// The path of an answer file, after a look whether it can be used.
    pub(crate) fn answer(&mut self, at: &Located<String>) -> PathBuf {
        let path = within(&self.found.base, &at.value);
        if let Some(Err(mistake)) = self.templates.answers().get(&path) {
            let until = "it is not served until that is mended";
            if mistake.line.is_some() {
                let source = self.found.answers.get(&path).and_then(|source| source.as_ref().ok());
                let source = source.map(String::as_str);
                let (place, quote) = (place_of(mistake), quote_of(mistake, source));
                let message = with_consequence(&mistake.message, until);
                self.problems.fault_elsewhere(&at.key, (path.clone(), place, quote), &message);
            } else {
                let message = with_consequence(&mistake.to_string(), until);
                self.problems.fault(&at.key, at.place, message);
            }
        }
        path
    }

    /// The NBPs that are named, after a look whether each is there and for whom.
    pub(crate) fn nbps(&mut self, named: Vec<(Arch, Located<String>)>) -> BTreeMap<Arch, String> {
        for (arch, at) in &named {
            match self.found.nbps.named(&at.value) {
                Some(nbp) if nbp.arch == *arch => {}
                Some(nbp) => {
                    let message = format!("`{}` is for {}, not for {arch}", at.value, nbp.arch);
                    self.problems.error(&at.key, at.place, message);
                }
                None => {
                    let names: Vec<&str> =
                        self.found.nbps.iter().map(|n| n.name.as_str()).collect();
                    let known = no_such("NBP", &at.value, names.into_iter());
                    let message = format!("boots that need it are refused: {known}");
                    self.problems.warning(&at.key, at.place, message);
                }
            }
        }
        named.into_iter().map(|(arch, at)| (arch, at.value)).collect()
    }
}
