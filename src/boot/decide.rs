//! The one decision: what should this client load next?
//!
//! DHCP asks with [`decide`], and HTTP, where an iPXE has come for its script, with
//! [`decide_script`], which is the second half of the same decision. The answer says *what*; the
//! protocol that asks knows *where* that is to be had.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::time::SystemTime;

use super::catalog::{Catalog, LocalBoot, Machine, Nbp, Profile, Unknown};
use super::client::{Client, Stage};
use super::state::MachineState;
use super::{Arch, Mac};

/// What a client should load next.
#[derive(Clone, Debug)]
pub enum Answer<'a> {
    /// This network bootstrap program.
    Nbp(&'a Nbp),
    /// Its own iPXE script, which is fetched by this MAC.
    Script(Mac),
    /// Nothing: it gets no answer.
    Ignore(Ignored),
}

/// Which script a machine runs.
#[derive(Clone, Debug)]
pub struct Script {
    /// The kind of boot.
    pub kind: Kind,
    /// The machine, where it is known.
    pub machine: Option<Arc<Machine>>,
}

/// The kinds of script there are.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Boot this profile by its own template.
    Profile(Arc<Profile>),
    /// Let somebody choose.
    Menu,
    /// Go to the local disk.
    LocalDisk(LocalBoot),
    /// Ask again, with the machine's SMBIOS facts.
    AskSmbios,
}

/// Why a client deliberately gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// `unknown: ignore`.
    #[error("it is not in the config, which says `unknown: ignore`")]
    UnknownMachine,
    /// There is no file that it could run.
    #[error(
        "no NBP for {0} was found; put one into a folder of `server.nbps` (Debian: package ipxe)"
    )]
    NoNbp(Arch),
    /// The client did not say what it is.
    #[error("its architecture is not known")]
    NoArch,
    /// A script is asked for by MAC, and there is none.
    #[error("it sent no MAC address")]
    NoMac,
}

/// The profile name of the menu's own template, which a profile may name as its script.
const MENU: &str = "menu";
/// The template for the local disk, which a profile may name as its script.
const LOCAL_DISK: &str = "local-disk";

/// Decides what `client` loads next, given what is remembered of it.
pub fn decide<'a>(
    client: &Client,
    catalog: &'a Catalog,
    state: &MachineState,
    now: SystemTime,
) -> Answer<'a> {
    let machine = catalog.identify(client);
    if stays_ignored(client, machine, catalog) {
        return Answer::Ignore(Ignored::UnknownMachine);
    }
    match client.stage {
        Stage::Pxe | Stage::HttpBoot => nbp(client, catalog),
        Stage::Ipxe if replaces_ipxe(machine, catalog) && !state.runs_our_nbp(now) => {
            nbp(client, catalog)
        }
        Stage::Ipxe => match client.mac {
            Some(mac) => Answer::Script(mac),
            None => Answer::Ignore(Ignored::NoMac),
        },
    }
}

/// Decides which script an iPXE runs that has come for it.
///
/// # Errors
/// It gets none.
pub fn decide_script(client: &Client, catalog: &Catalog) -> Result<Script, Ignored> {
    let machine = catalog.identify(client);
    if stays_ignored(client, machine, catalog) {
        return Err(Ignored::UnknownMachine);
    }
    let kind = match machine {
        Some(machine) => of_profile(&machine.profile, machine.local_boot),
        None if client.smbios.is_none() && catalog.needs_smbios() => Kind::AskSmbios,
        None => match &catalog.unknown {
            Unknown::Menu => Kind::Menu,
            Unknown::Local | Unknown::Ignore => Kind::LocalDisk(LocalBoot::default()),
            Unknown::Profile(profile) => of_profile(profile, None),
        },
    };
    Ok(Script { kind: choose(kind, client, catalog), machine: machine.cloned() })
}

/// A stranger is ignored at once, unless facts that only its iPXE can tell may yet name it.
fn stays_ignored(client: &Client, machine: Option<&Arc<Machine>>, catalog: &Catalog) -> bool {
    machine.is_none()
        && matches!(catalog.unknown, Unknown::Ignore)
        && (client.smbios.is_some() || !catalog.needs_smbios())
}

fn nbp<'a>(client: &Client, catalog: &'a Catalog) -> Answer<'a> {
    let Some(arch) = client.arch else {
        return Answer::Ignore(Ignored::NoArch);
    };
    match catalog.nbps.for_arch(arch) {
        Some(nbp) => Answer::Nbp(nbp),
        None => Answer::Ignore(Ignored::NoNbp(arch)),
    }
}

fn replaces_ipxe(machine: Option<&Arc<Machine>>, catalog: &Catalog) -> bool {
    let stranger = match &catalog.unknown {
        Unknown::Profile(profile) => profile.replace_ipxe,
        Unknown::Menu | Unknown::Local | Unknown::Ignore => None,
    };
    machine.map_or(stranger, |m| m.replace_ipxe.or(m.profile.replace_ipxe)).unwrap_or(false)
}

fn of_profile(profile: &Arc<Profile>, machines_own: Option<LocalBoot>) -> Kind {
    match profile.script.as_str() {
        MENU => Kind::Menu,
        LOCAL_DISK => Kind::LocalDisk(machines_own.or(profile.local_boot).unwrap_or_default()),
        _ => Kind::Profile(Arc::clone(profile)),
    }
}

/// Takes up a choice from the menu: only who is shown the menu may choose, and only from it.
fn choose(kind: Kind, client: &Client, catalog: &Catalog) -> Kind {
    let offered = |choice: &String| catalog.menu.profiles.iter().find(|p| p.name == *choice);
    match (&kind, client.choice.as_ref().and_then(offered)) {
        (Kind::Menu, Some(profile)) => of_profile(profile, None),
        (Kind::Menu | Kind::Profile(_) | Kind::LocalDisk(_) | Kind::AskSmbios, _) => kind,
    }
}
