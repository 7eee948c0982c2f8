//! What strangers get, and what the menu offers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use super::link::{Linker, Named, RESERVED};
use crate::pure::catalog::{Menu, Profile, Unknown};
use crate::pure::config::fields::{Located, no_such};
use crate::pure::config::schema;
use crate::pure::nearest::nearest;

impl Linker<'_> {
    pub(crate) fn unknown(
        &mut self,
        at: Option<Located<String>>,
        profiles: &Named<Profile>,
    ) -> Unknown {
        let Some(at) = at else {
            return Unknown::default();
        };
        match at.value.as_str() {
            "menu" => Unknown::Menu,
            "local" => Unknown::Local,
            "ignore" => Unknown::Ignore,
            name if profiles.has(name) => {
                self.profile_named(&at, profiles).map(Unknown::Profile).unwrap_or_default()
            }
            name => {
                let known = || profiles.names().chain(RESERVED);
                self.used.extend(nearest(name, known()).map(str::to_owned));
                self.problems.error(&at.key, at.place, no_such("profile", name, known()));
                Unknown::default()
            }
        }
    }

    pub(crate) fn menu(&mut self, menu: schema::Menu, profiles: &Named<Profile>) -> Menu {
        let offers = |name: &str| {
            menu.profiles.as_ref().is_none_or(|offered| offered.iter().any(|at| at.value == name))
        };
        let default = menu.default.filter(|at| at.value != "local").and_then(|at| {
            if profiles.has(&at.value) && !offers(&at.value) {
                let message = format!("`menu.profiles` does not offer `{}`", at.value);
                self.problems.error(&at.key, at.place, message);
            }
            if !profiles.has(&at.value) && nearest(&at.value, ["local"].into_iter()).is_some() {
                let known = no_such("profile", &at.value, profiles.names().chain(["local"]));
                self.problems.error(&at.key, at.place, known);
                return None;
            }
            self.profile_named(&at, profiles)
        });
        let offered: Vec<Arc<Profile>> = match &menu.profiles {
            Some(names) => names.iter().filter_map(|at| self.profile_named(at, profiles)).collect(),
            None => {
                self.used.extend(profiles.names().map(str::to_owned));
                profiles.0.values().flatten().cloned().collect()
            }
        };
        Menu {
            default,
            timeout: menu.timeout.unwrap_or(Menu::default().timeout),
            profiles: offered,
        }
    }
}
