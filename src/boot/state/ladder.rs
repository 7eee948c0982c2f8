//! Which NBP, and which option 43, firmware gets that fails with the usual ones.
//!
//! A machine that fails twice at the same step gets the next NBP of its kind (PXE firmware that never fetches
//! one, if it is UEFI, the next option 43 first); what brought it to its script is remembered. One that has
//! come so far before must fail more often: rather its network is at fault. What the config says stays as it is.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use super::journey::Reached;
use crate::boot::Arch;
use crate::boot::nbp::{Nbp, Nbps};
use crate::boot::settings::Option43;

/// How often a machine fails at the same step before something else is tried.
const FAILURES: u32 = 2;
/// The same for one that has come to its script before.
const FAILURES_AFTER_SUCCESS: u32 = 4;

/// What UEFI is told in option 43, one after the other: generations of it differ (edk2 30a95d4d39, 8cdd559be6,
/// 8149).
const MODES: [Option43; 3] = [Option43::Default, Option43::Bios, Option43::SkipPrompt];

/// What brought a machine to its script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worked {
    /// The NBP.
    pub nbp: String,
    /// Option 43.
    pub option_43: Option43,
}

/// Where on the ladder a machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ladder {
    /// The firmware that this is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<Arch>,
    /// At which step it failed the last time, and how often in a row there.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<(Reached, u32)>,
    /// How often another NBP was taken.
    nbps: u32,
    /// How often another option 43 was taken.
    modes: u32,
    /// What brought it to its script the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worked: Option<Worked>,
    /// What is known of the other kinds of firmware that the machine was said to have. Anybody can send a DISCOVER
    /// that says so, and what brought the machine to its script must not be forgotten by it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Self>,
}

impl Ladder {
    /// Takes up what firmware asks: another kind begins anew, or where it was before.
    pub(super) fn start(&mut self, arch: Option<Arch>) {
        // There is no NBP for other kinds than those that have a name, so there are few.
        let is_named = !matches!(arch, None | Some(Arch::Other(_)));
        if !is_named || self.arch == arch {
            return;
        }
        let mut others = std::mem::take(&mut self.others);
        let known = others.iter().position(|other| other.arch == arch);
        let next = known.map(|at| others.remove(at)).unwrap_or_default();
        let before = std::mem::replace(self, Self { arch, ..next });
        if before.arch.is_some() {
            others.push(before);
        }
        self.others = others;
    }

    /// What is known of this kind of firmware.
    pub fn of(&self, arch: Arch) -> Option<&Self> {
        let is_its = |ladder: &&Self| ladder.arch == Some(arch);
        let own = Some(self).filter(|own| own.arch.is_none_or(|own| own == arch));
        own.or_else(|| self.others.iter().find(is_its))
    }

    /// Notes that a boot has failed at this step.
    ///
    /// An offer that nobody used is only a DISCOVER that anybody can send: before the first success it may
    /// change option 43, and nothing else ever.
    pub(super) fn fail(&mut self, at: Reached) {
        let is_unused_offer = at == Reached::Offered;
        if is_unused_offer && self.worked.is_some() {
            return;
        }
        let before = self.failed.filter(|(step, _)| *step == at).map_or(0, |(_, times)| times);
        let enough = if self.worked.is_some() { FAILURES_AFTER_SUCCESS } else { FAILURES };
        if before + 1 < enough {
            self.failed = Some((at, before + 1));
            return;
        }
        self.failed = None;
        let has_fetched_nothing = at <= Reached::Asked;
        let is_uefi = self.arch.is_some_and(|arch| arch != Arch::Bios);
        let all = MODES.len() as u32;
        if is_unused_offer {
            self.modes += u32::from(is_uefi);
        } else if has_fetched_nothing && is_uefi && !(self.modes + 1).is_multiple_of(all) {
            self.modes += 1;
        } else {
            // All of them were tried with this NBP.
            self.modes += u32::from(has_fetched_nothing && is_uefi);
            self.nbps += 1;
        }
    }

    /// Takes up that this brought it to its script.
    pub(super) fn work(&mut self, nbp: &str, option_43: Option43) {
        let worked = Some(Worked { nbp: nbp.to_owned(), option_43 });
        let others = std::mem::take(&mut self.others);
        *self = Self { arch: self.arch, worked, others, ..Self::default() };
    }

    /// Its turn among these, what worked before first.
    pub fn nbp<'a>(&self, nbps: &'a Nbps, arch: Arch) -> Option<&'a Nbp> {
        let Some(own) = self.of(arch) else {
            return nbps.for_arch(arch);
        };
        let worked = own.worked.as_ref().and_then(|worked| nbps.named(&worked.nbp));
        let worked = worked.filter(|nbp| nbp.arch == arch);
        let others = nbps.ladder(arch).iter().map(AsRef::as_ref);
        let others = others.filter(|rung| worked.is_none_or(|worked| worked.name != rung.name));
        let rungs = worked.into_iter().chain(others);
        let turn = usize::try_from(own.nbps).unwrap_or_default();
        rungs.clone().nth(turn % rungs.count().max(1))
    }

    /// The option 43 whose turn it is.
    pub fn option_43(&self) -> Option43 {
        let mut modes = MODES.to_vec();
        if let Some(worked) = &self.worked {
            modes.retain(|mode| *mode != worked.option_43);
            modes.insert(0, worked.option_43);
        }
        let turn = usize::try_from(self.modes).unwrap_or_default();
        modes[turn % modes.len()]
    }

    /// Whether something else than usual was tried already.
    pub fn has_climbed(&self) -> bool {
        self.nbps > 0 || self.modes > 0
    }
}
