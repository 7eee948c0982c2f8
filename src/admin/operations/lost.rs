//! A lost registry, as the log and the status describe it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::pure::catalog::select::Who;
use crate::pure::catalog::server::OnLostState;
use crate::pure::catalog::wipes::wipes;
use crate::pure::config::snapshot::Config;
use crate::state::registry::Registry;
use crate::state::registry::loss::Loss;

/// What was lost, and what follows for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostState {
    /// What was lost, and when that was noticed.
    #[serde(flatten)]
    pub loss: Loss,
    /// What machines do whose profile wipes.
    pub effect: Effect,
}

/// What machines do whose profile wipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// They hold until the operator accepts the loss.
    Hold,
    /// No profile of the config wipes.
    NoneWipes,
    /// They boot: `server.on_lost_state` is `boot`.
    Boot,
}

/// How the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// The operator must do something.
    Error,
    /// The operator should know.
    Warning,
    /// It is usual.
    Information,
}

impl LostState {
    /// Nothing if nothing was lost, or the operator has accepted it.
    pub fn of(registry: &Registry, config: &Config) -> Option<Self> {
        let loss = registry.loss()?;
        let effect = match config.server.on_lost_state {
            OnLostState::Boot => Effect::Boot,
            OnLostState::Hold if any_wipes(config) => Effect::Hold,
            OnLostState::Hold => Effect::NoneWipes,
        };
        Some(Self { loss, effect })
    }

    /// How urgent it is.
    pub fn urgency(&self) -> Urgency {
        match (self.effect, self.loss.is_new_folder) {
            (Effect::Hold, false) => Urgency::Error,
            (Effect::Hold, true) | (Effect::NoneWipes | Effect::Boot, false) => Urgency::Warning,
            (Effect::NoneWipes | Effect::Boot, true) => Urgency::Information,
        }
    }

    /// All of it in one line; `with` are the arguments that name the config.
    pub fn line(&self, with: &str) -> String {
        let Loss { what, is_new_folder, .. } = &self.loss;
        let accept = format!("`reveille state accept{with}`");
        let restore = format!("`reveille restore FILE{with}`");
        let effect = match self.effect {
            Effect::Hold => "machines whose profile wipes hold",
            Effect::NoneWipes => "no profile wipes, so machines boot as ever",
            Effect::Boot => {
                "machines boot as if for the first time, because `server.on_lost_state` is `boot`"
            }
        };
        if *is_new_folder {
            return format!(
                "{what}; {effect}; if this is the first start, type {accept}; if not, a registry was lost: stop reveille and type {restore}"
            );
        }
        format!(
            "the registry, or a part of it, is lost: {what}; {effect}; stop reveille and type {restore}, or type {accept}: then a machine whose boot was forgotten installs once more, and `reveille disk NAME{with}` keeps it on its disk"
        )
    }
}

/// Whether an entry of the config wipes a disk.
fn any_wipes(config: &Config) -> bool {
    let catalog = &config.catalog;
    let of_machine = catalog.machines().values().any(|machine| {
        let who = Who { machine: Some(Arc::clone(machine)), group: None };
        machine.profile.as_ref().is_some_and(|profile| wipes(profile, &who))
    });
    of_machine || catalog.profiles.values().any(|profile| wipes(profile, &Who::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(effect: Effect, is_new_folder: bool) -> LostState {
        LostState { loss: Loss { at: 0, millis: 0, what: "W".into(), is_new_folder }, effect }
    }

    #[test]
    fn a_first_start_is_no_error_and_names_the_command_that_ends_it() {
        let first = lost(Effect::Hold, true);
        assert_eq!(first.urgency(), Urgency::Warning);
        let line = first.line(" --config c");
        let told = "if this is the first start, type `reveille state accept --config c`";
        assert!(line.contains(told), "{line}");
        assert_eq!(lost(Effect::NoneWipes, true).urgency(), Urgency::Information);
    }

    #[test]
    fn a_loss_that_holds_machines_is_an_error_with_both_ways_out() {
        let held = lost(Effect::Hold, false);
        assert_eq!(held.urgency(), Urgency::Error);
        let line = held.line("");
        for told in ["wipes hold", "`reveille restore FILE`", "`reveille state accept`"] {
            assert!(line.contains(told), "{line}");
        }
        assert_eq!(lost(Effect::Boot, false).urgency(), Urgency::Warning);
    }
}
