//! Which NBP, and which option 43, firmware gets that fails with the usual ones.
//!
//! A machine that fails twice at the same step gets the next NBP of its kind (UEFI that never fetches one the next
//! option 43); what brought it to its script is remembered. One that has
//! come so far before must fail more often: rather its network is at fault. What the config says stays as it is.
//!
//! That a boot has ended without a script is known from a DISCOVER, which anybody can send in the machine's name.
//! So a failure is suspected first. It counts when the machine itself, from its address, fetches again, and is
//! forgotten when the machine comes to its script. Offers are made as if it counted already.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::catalog::settings::Option43;
use crate::pure::client::Arch;
use crate::pure::event::diagnosis::Reached;

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
    /// The firmware that this is of: for which the machine has fetched an NBP.
    #[serde(skip_serializing_if = "Option::is_none")]
    arch: Option<Arch>,
    /// At which step a boot seems to have failed since the machine's own last fetch, and of which firmware.
    #[serde(skip_serializing_if = "Option::is_none")]
    suspected: Option<(Reached, Option<Arch>)>,
    /// At which step it failed the last time after it had begun to fetch its NBP, and how often in a row there.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<(Reached, u32)>,
    /// Whether the machine has fetched an NBP, or a part of one, since that.
    #[serde(skip_serializing_if = "is_false")]
    has_fetched: bool,
    /// How often in a row it has fetched nothing.
    #[serde(skip_serializing_if = "is_zero")]
    unfetched: u32,
    /// How often another NBP was taken.
    nbps: u32,
    /// How often another option 43 was taken.
    modes: u32,
    /// What brought it to its script the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worked: Option<Worked>,
}

impl Ladder {
    /// Notes that the machine itself, from its address, has fetched the NBP of this architecture, or a part of one. For
    /// another architecture the counts start at zero.
    pub(super) fn fetch(&mut self, arch: Option<Arch>) {
        if self.arch.is_some() && arch.is_some() && self.arch != arch {
            *self = Self { arch, has_fetched: true, ..Self::default() };
            return;
        }
        self.arch = self.arch.or(arch);
        if let Some((at, arch)) = self.suspected.take() {
            self.count(at, arch);
        }
        (self.has_fetched, self.unfetched) = (true, 0);
    }

    /// Notes a request to the boot server port, or for the size of a file, from the machine's address. Its source can be
    /// forged, so it counts no failure of an NBP.
    pub(super) fn ask(&mut self) {
        if let Some((at @ Reached::Asked, arch)) = self.suspected {
            self.suspected = None;
            self.count(at, arch);
        }
    }

    /// Notes that a boot of firmware of this architecture seems to have failed at this step.
    ///
    /// UEFI firmware that fetches nothing gets another option 43: another NBP would change nothing.
    /// An offer that nobody used is only a DISCOVER that anybody can send, so after the first success it means nothing.
    pub(super) fn fail(&mut self, at: Reached, arch: Option<Arch>) {
        let has_worked = self.worked.is_some();
        match at {
            Reached::Offered if has_worked => {}
            Reached::Offered | Reached::Asked if !has_worked => self.count(at, arch),
            // It was led further by messages that anybody can send.
            _ if at > Reached::Asked && !self.has_fetched => {}
            _ => {
                // What came further is the better witness.
                let before = self.suspected.filter(|(before, _)| *before > at);
                self.suspected = before.or(Some((at, arch)));
            }
        }
    }

    /// As it is if what is suspected is so.
    fn suspecting(&self) -> Self {
        let mut ladder = self.clone();
        if let Some((at, arch)) = ladder.suspected.take() {
            ladder.count(at, arch);
        }
        ladder
    }

    fn count(&mut self, at: Reached, arch: Option<Arch>) {
        let enough = if self.worked.is_some() { FAILURES_AFTER_SUCCESS } else { FAILURES };
        if at <= Reached::Asked {
            self.unfetched += 1;
            if self.unfetched >= enough {
                self.unfetched = 0;
                let is_uefi = self.arch.or(arch).is_some_and(|arch| arch != Arch::Bios);
                self.modes += u32::from(is_uefi);
            }
            return;
        }
        self.has_fetched = false;
        let before = self.failed.filter(|(step, _)| *step == at).map_or(0, |(_, times)| times);
        self.failed = Some((at, before + 1)).filter(|(_, times)| *times < enough);
        self.nbps += u32::from(self.failed.is_none());
    }

    /// Takes up that this brought it to its script.
    pub(super) fn work(&mut self, nbp: &str, option_43: Option43) {
        let worked = Some(Worked { nbp: nbp.to_owned(), option_43 });
        *self = Self { arch: self.arch, worked, ..Self::default() };
    }

    /// Its turn among these, what worked before first.
    pub fn nbp<'a>(&self, nbps: &'a Nbps, arch: Arch) -> Option<&'a Nbp> {
        if self.arch.is_some_and(|own| own != arch) {
            return nbps.for_arch(arch);
        }
        let worked = self.worked.as_ref().and_then(|worked| nbps.named(&worked.nbp));
        let worked = worked.filter(|nbp| nbp.arch == arch);
        let others = nbps.ladder(arch).iter().map(AsRef::as_ref);
        let others = others.filter(|rung| worked.is_none_or(|worked| worked.name != rung.name));
        let rungs = worked.into_iter().chain(others);
        let turn = usize::try_from(self.suspecting().nbps).unwrap_or_default();
        rungs.clone().nth(turn % rungs.count().max(1))
    }

    /// The option 43 whose turn it is.
    pub fn option_43(&self) -> Option43 {
        let mut modes = MODES.to_vec();
        if let Some(worked) = &self.worked {
            modes.retain(|mode| *mode != worked.option_43);
            modes.insert(0, worked.option_43);
        }
        let turn = usize::try_from(self.suspecting().modes).unwrap_or_default();
        modes[turn % modes.len()]
    }

    /// Whether something else than usual was tried already.
    pub fn has_climbed(&self) -> bool {
        let Self { nbps, modes, .. } = self.suspecting();
        nbps > 0 || modes > 0
    }
}

/// What need not be written.
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Likewise.
fn is_zero(count: &u32) -> bool {
    *count == 0
}
