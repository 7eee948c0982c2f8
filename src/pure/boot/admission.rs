//! Whether a script that was decided on is given to who asks for it, shown to him, or withheld.
//!
//! A script that holds a secret, and one whose boot must be counted, go to an open boot only; everything else
//! is the same for everybody on the served networks.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Deserialize, Serialize};

use super::decide::{Kind, Script};
use super::plan::Selection;
use crate::pure::catalog::Profile;
use crate::pure::catalog::release::{release, secrets};
use crate::pure::catalog::select::{Boots, Who};
use crate::pure::catalog::settings::{BootPolicy, Release};
use crate::pure::catalog::wipes::wipes;
use crate::pure::client::Mac;
use crate::pure::event::doubt::Doubt;
use crate::pure::machine::attempt::{MOST_SECRETS, OpenBoot};
use crate::pure::machine::orders::Because;

/// What becomes of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// It is given.
    Give,
    /// Its text is shown without secrets, in a form that no iPXE runs.
    Show(Doubt),
    /// The machine gets a script that says why instead, and asks again.
    Withhold(Withheld),
}

/// Why a machine does not receive its script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The request is not known to be the machine's.
    #[error("its script is withheld: {0}")]
    Doubted(Doubt),
    /// The boot has received enough.
    #[error(
        "its script holds a secret, and this boot has received {MOST_SECRETS} such scripts already; a new power-on may receive more"
    )]
    TooMany,
    /// `release: armed`, and no boot is ordered or due.
    #[error(
        "its script holds a secret, and `release: armed` gives it only to a boot that is ordered, or to the first one of a machine in `machines` with `boot: once`; `reveille arm` orders one"
    )]
    NotArmed,
}

/// A script, and who asks for it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The script.
    pub script: &'a Script,
    /// Whether its text holds a secret.
    pub has_secret: bool,
    /// The boot that the request belongs to, or why it belongs to none.
    pub boot: Result<&'a OpenBoot, &'a Doubt>,
    /// Whether an iPXE asks: whoever else fetches a script wants to read it.
    pub is_ipxe: bool,
    /// `server.release`.
    pub release: Release,
}

/// Decides what becomes of a script.
pub fn handle(request: Request<'_>) -> Handling {
    let Request { script, has_secret, boot, is_ipxe, release: default } = request;
    let profile = match &script.kind {
        Kind::Profile(profile) | Kind::Waiting(profile, _) => Some(profile),
        Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => None,
    };
    let release = profile.map_or(default, |profile| release(profile, &script.who, default));
    let is_secret = has_secret && release != Release::Anyone;
    let boot = match boot {
        Ok(boot) => boot,
        Err(doubt) if !is_ipxe => return Handling::Show(doubt.clone()),
        Err(doubt) if is_secret || is_counted(script) => {
            return Handling::Withhold(Withheld::Doubted(doubt.clone()));
        }
        Err(_) => return Handling::Give,
    };
    if is_secret && boot.secrets >= MOST_SECRETS {
        return Handling::Withhold(Withheld::TooMany);
    }
    if is_secret && release == Release::Armed && !script.is_ordered_or_due {
        return Handling::Withhold(Withheld::NotArmed);
    }
    Handling::Give
}

/// Whether the boot must be counted: a boot that is not counted as completed would start once more.
fn is_counted(script: &Script) -> bool {
    match &script.kind {
        Kind::Profile(profile) => counts((profile, &script.who), script.policy, script.is_armed),
        Kind::Waiting(..) | Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => {
            false
        }
    }
}

fn counts((profile, who): (&Profile, &Who), policy: BootPolicy, is_armed: bool) -> bool {
    wipes(profile, who) || policy != BootPolicy::Always || is_armed
}

/// A card that is known to be a machine's only by a UUID or a serial number, and has to be confirmed before it
/// receives what the machine boots next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnconfirmedCard {
    /// The machine's name in the config.
    pub machine: String,
    /// The card, if one was seen.
    pub card: Option<Mac>,
    /// Whether the machine's entry has other cards.
    pub is_another: bool,
}

impl UnconfirmedCard {
    /// The command that confirms the card.
    pub fn command(&self) -> String {
        let Self { machine, card, is_another } = self;
        let card = card.map_or("MAC".to_owned(), |card| card.to_string());
        let another = if *is_another { " --another" } else { "" };
        format!("reveille confirm {machine} {card}{another}")
    }
}

impl fmt::Display for UnconfirmedCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its card has to be confirmed first: `{}`", self.command())
    }
}

/// Whether only the machine itself receives this boot: it has a secret, or is counted.
pub fn is_for_its_machine_alone(selection: &Selection, server_default: Release) -> bool {
    let Boots::Profile(profile) = &selection.boots else {
        return false;
    };
    let who = &selection.who;
    match Kind::of(profile, who) {
        Kind::Profile(profile) => {
            let has_secret = secrets(&profile, who).is_some()
                && release(&profile, who, server_default) != Release::Anyone;
            let is_armed = selection.because == Some(Because::Armed);
            has_secret || counts((&profile, who), selection.policy, is_armed)
        }
        Kind::Waiting(..) | Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::pure::catalog::Profile;
    use crate::pure::catalog::select::Who;
    use crate::pure::catalog::settings::{LocalBoot, Settings};
    use crate::pure::client::Mac;
    use crate::pure::client::boot_id::BootId;
    use crate::pure::machine::state::MachineState;

    fn script(wipes: bool, policy: BootPolicy, released: Option<Release>) -> Script {
        let settings = Settings { wipes: Some(wipes), release: released, ..Settings::default() };
        let profile = Profile {
            name: "p".into(),
            script: "linux".into(),
            has_own_script: false,
            image: None,
            omni: None,
            settings,
        };
        Script { policy, ..Script::new(Kind::Profile(Arc::new(profile)), Who::default()) }
    }

    fn open_boot(secrets: u32) -> OpenBoot {
        let mut state = MachineState::default();
        let ids = (BootId::new([1; 16]), BootId::new([2; 16]));
        let card = Mac::new([2; 6]);
        state.open(ids, (card, Ipv4Addr::LOCALHOST), std::time::SystemTime::UNIX_EPOCH);
        (0..secrets).for_each(|_| state.count_secret());
        *state.open.unwrap()
    }

    fn handled(
        script: &Script,
        has_secret: bool,
        boot: Result<&OpenBoot, &Doubt>,
        is_ipxe: bool,
    ) -> &'static str {
        let request = Request { script, has_secret, boot, is_ipxe, release: Release::Seen };
        match handle(request) {
            Handling::Give => "give",
            Handling::Show(_) => "show",
            Handling::Withhold(Withheld::Doubted(_)) => "doubted",
            Handling::Withhold(Withheld::TooMany) => "too many",
            Handling::Withhold(Withheld::NotArmed) => "not armed",
        }
    }

    #[test]
    fn a_stranger_receives_what_holds_no_secret_and_is_not_counted() {
        use BootPolicy::{Always, Once};
        let stranger = Err(&Doubt::NotBooting);
        for (script, has_secret, expected) in [
            (script(false, Always, None), false, "give"),
            (script(false, Always, None), true, "doubted"),
            (script(false, Always, Some(Release::Anyone)), true, "give"),
            (script(false, Once, None), false, "doubted"),
            (script(true, Once, Some(Release::Anyone)), false, "doubted"),
            (Script { is_armed: true, ..script(false, Always, None) }, false, "doubted"),
        ] {
            assert_eq!(handled(&script, has_secret, stranger, true), expected);
            assert_eq!(handled(&script, has_secret, stranger, false), "show");
            assert_eq!(handled(&script, has_secret, Ok(&open_boot(0)), true), "give");
        }
        for kind in [Kind::AskFacts, Kind::Menu(LocalBoot::Exit), Kind::LocalDisk(LocalBoot::Exit)]
        {
            let script = Script::new(kind, Who::default());
            assert_eq!(handled(&script, false, stranger, true), "give");
        }
    }

    #[test]
    fn a_boot_receives_ten_secrets() {
        let script = script(false, BootPolicy::Always, None);
        for (secrets, expected) in [(9, "give"), (10, "too many")] {
            assert_eq!(handled(&script, true, Ok(&open_boot(secrets)), true), expected);
            assert_eq!(handled(&script, false, Ok(&open_boot(secrets)), true), "give");
        }
    }

    #[test]
    fn a_secret_for_armed_machines_needs_an_order_or_a_first_boot() {
        let mut script = script(false, BootPolicy::Always, Some(Release::Armed));
        assert_eq!(handled(&script, true, Ok(&open_boot(0)), true), "not armed");
        script.is_ordered_or_due = true;
        assert_eq!(handled(&script, true, Ok(&open_boot(0)), true), "give");
        assert_eq!(handled(&script, true, Err(&Doubt::NotBooting), true), "doubted");
    }
}
