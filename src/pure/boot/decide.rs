//! The one decision: what should this client load next?
//!
//! DHCP asks with [`decide`], and HTTP, where an iPXE has come for its script, with
//! [`decide_script`], which is the second half of the same decision. The answer says *what*; the
//! protocol that asks knows *where* that is to be had.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::time::SystemTime;

use super::plan::{Selection, select};
use crate::pure::catalog::image_status::{Coming, Lack, Shelf};
use crate::pure::catalog::nbp::Nbp;
use crate::pure::catalog::needs_facts::NeedsFacts;
use crate::pure::catalog::select::{Boots, Who};
use crate::pure::catalog::server::Naming;
use crate::pure::catalog::settings::{BootPolicy, LocalBoot, NbpLadder, OnDiskFailure, Option43};
use crate::pure::catalog::wipes::{on_disk_failure, wipes};
use crate::pure::catalog::{Catalog, LOCAL_DISK, MENU, Profile};
use crate::pure::client::{Arch, Client, Mac, Stage};
use crate::pure::event::boot::{Boot, Starts, Step};
use crate::pure::machine::orders::{Because, Orders, RegistryFault};
use crate::pure::machine::state::MachineState;

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
    /// The entries of the config that are for its machine.
    pub who: Who,
    /// When the network boots that, and when its disk.
    pub policy: BootPolicy,
    /// Why it goes to its disk, where that was not the config's word.
    pub because: Option<Because>,
    /// What keeps the registry from being written, if it holds for that.
    pub write_error: Option<Arc<str>>,
    /// Whether an order of the operator starts it.
    pub is_armed: bool,
    /// See [`Selection::is_ordered_or_due`].
    pub is_ordered_or_due: bool,
}

impl Script {
    /// One that nothing was ordered for.
    pub fn new(kind: Kind, who: Who) -> Self {
        Self {
            kind,
            who,
            policy: BootPolicy::default(),
            because: None,
            write_error: None,
            is_armed: false,
            is_ordered_or_due: false,
        }
    }

    /// What it does, as far as that decides the next boot.
    pub fn starts(&self) -> Starts {
        match &self.kind {
            Kind::Profile(profile) | Kind::Waiting(profile, _) => Starts::Boot(Box::new(Boot {
                profile: profile.name.clone(),
                image: profile.image.as_ref().map(|image| image.name.clone()),
                initrds: profile.image.as_ref().map_or(0, |image| image.initrds()),
                policy: self.policy,
                wipes: wipes(profile, &self.who),
            })),
            Kind::Menu(_) => Starts::Menu,
            Kind::LocalDisk(method) => Starts::Disk(*method),
            Kind::Hold(Hold::DiskAgain(method)) => Starts::DiskAgain(*method),
            Kind::Hold(Hold::Stay) => Starts::Hold,
            Kind::AskFacts => Starts::Question,
        }
    }

    /// The image that it waits for.
    pub fn awaits(&self) -> Option<&str> {
        match &self.kind {
            Kind::Waiting(profile, _) => profile.image.as_ref().map(|image| image.name.as_str()),
            Kind::Profile(_)
            | Kind::Menu(_)
            | Kind::LocalDisk(_)
            | Kind::Hold(_)
            | Kind::AskFacts => None,
        }
    }
}

/// The kinds of script there are.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Boot this profile by its own template.
    Profile(Arc<Profile>),
    /// Wait until this profile's image is here, and ask again.
    Waiting(Arc<Profile>, Coming),
    /// Let somebody choose; this is how the machine reaches its disk, if that is chosen.
    Menu(LocalBoot),
    /// Go to the local disk.
    LocalDisk(LocalBoot),
    /// Wait, and say why.
    Hold(Hold),
    /// Ask again, with what iPXE can tell of the machine.
    AskFacts,
}

/// How a machine waits whose profile may not start by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Its disk is offered again after a minute, by this method.
    DiskAgain(LocalBoot),
    /// Until the operator decides.
    Stay,
}

impl Kind {
    /// The boot of a profile.
    pub fn of(profile: &Arc<Profile>, who: &Who) -> Self {
        match profile.script.as_str() {
            MENU => Self::Menu(who.local_boot(Some(profile))),
            LOCAL_DISK => Self::LocalDisk(who.local_boot(Some(profile))),
            _ => Self::Profile(Arc::clone(profile)),
        }
    }
}

/// What is served under an NBP's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderItsName {
    /// The NBP.
    Nbp,
    /// The script that leads every iPXE to its own: it recognises a script under any name.
    Autoexec,
}

/// Why a client deliberately gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// `unknown: ignore`.
    #[error("it is not in the config, which says `unknown: ignore`")]
    UnknownMachine,
    /// It boots its local disk, and its way there is to get no answer.
    #[error("it boots its local disk (`local_boot: {}`){}", .0.word(), told(.1.as_ref()))]
    ToItsDisk(LocalBoot, Option<Because>),
    /// The config names a file for it that is not there.
    #[error(
        "the config gives it the NBP `{0}`, which was not found; put it into a folder of `server.nbps`"
    )]
    NbpNotFound(String),
    /// The config names a file for it that it cannot run.
    #[error(
        "the config gives it the NBP `{name}`, which is for {is_for}, and it is {client}; name another under `nbp`"
    )]
    WrongNbp {
        /// The file.
        name: String,
        /// Who can run it.
        is_for: Arch,
        /// What the client is.
        client: Arch,
    },
    /// There is no file that it could run.
    #[error(
        "no NBP for {0} was found; see `reveille nbps`, or put one into a folder of `server.nbps`"
    )]
    NoNbp(Arch),
    /// It does not come any further.
    #[error(
        "it fetched {0} three times within a minute and never its script: that NBP leads back to itself or does not work on this machine (then name another by `nbp`), or HTTP does not reach it; it gets no NBP for a minute"
    )]
    Loops(String),
    /// Nothing here is for such machines.
    #[error("no NBP is known for {0}")]
    NotBootable(Arch),
    /// The client did not say what it is.
    #[error("its architecture is not known")]
    NoArch,
    /// A script is asked for by MAC, and there is none.
    #[error("it sent no MAC address")]
    NoMac,
}

impl Ignored {
    /// The step that it is where a script was asked for.
    pub fn step(self) -> Step {
        let reason = self.to_string();
        match self {
            Self::ToItsDisk(method, _) => Step::LeftToItsDisk { method, at: None, reason },
            Self::UnknownMachine
            | Self::NbpNotFound(_)
            | Self::WrongNbp { .. }
            | Self::NoNbp(_)
            | Self::Loops(_)
            | Self::NotBootable(_)
            | Self::NoArch
            | Self::NoMac => Step::Ignored { reason },
        }
    }
}

/// Decides what `client` loads next, given what is remembered of it, where `selection` is for it, as it is
/// [now](Selection::now).
pub fn decide<'a>(
    client: &Client,
    selection: &Selection,
    catalog: &'a Catalog,
    (state, now): (&MachineState, SystemTime),
) -> Answer<'a> {
    if let Some(reason) = not_answered(selection) {
        return Answer::Ignore(reason);
    }
    match client.stage {
        Stage::Pxe | Stage::HttpBoot => nbp(client, selection, catalog, (state, now)),
        Stage::Ipxe if !client.speaks_http => nbp(client, selection, catalog, (state, now)),
        Stage::Ipxe if replaces_ipxe(selection) && !state.runs_our_nbp(now) => {
            nbp(client, selection, catalog, (state, now))
        }
        Stage::Ipxe => match client.mac {
            Some(mac) => Answer::Script(mac),
            None => Answer::Ignore(Ignored::NoMac),
        },
    }
}

/// What option 43 says to a client's firmware: as the config says, else as it did when that worked.
pub fn option_43(selection: &Selection, state: &MachineState) -> Option43 {
    let climbs = selection.first(|said| said.nbp_ladder).unwrap_or_default() == NbpLadder::Auto;
    let said = selection.first(|said| said.option_43);
    said.unwrap_or_else(|| if climbs { state.option_43() } else { Option43::default() })
}

/// Decides which script an iPXE runs that has come for it, given which images are here and what was ordered for
/// its machine.
///
/// # Errors
/// It gets none.
pub fn decide_script(
    client: &Client,
    catalog: &Catalog,
    needs_facts: &NeedsFacts,
    (shelf, orders): (&Shelf, &Orders),
) -> Result<Script, Ignored> {
    let selection = select(client, catalog).now(catalog, orders);
    let tells_more = client.facts.is_none() && client.speaks_http;
    let policy = selection.policy;
    if selection.is_open && tells_more {
        return Ok(Script { policy, ..Script::new(Kind::AskFacts, selection.who) });
    }
    let is_armed = selection.because == Some(Because::Armed);
    let is_ordered_or_due = selection.is_ordered_or_due();
    let who = selection.who;
    let because = selection.because.filter(|because| !because.is_network());
    let kind = match selection.boots {
        Boots::Ignore => return Err(Ignored::UnknownMachine),
        Boots::Menu => Kind::Menu(who.local_boot(None)),
        Boots::Local(profile) => Kind::LocalDisk(who.local_boot(profile.as_deref())),
        Boots::Hold(profile) if because == Some(Because::DiskAgain) => {
            Kind::Hold(Hold::DiskAgain(who.local_boot(Some(&profile))))
        }
        Boots::Hold(_) => Kind::Hold(Hold::Stay),
        Boots::Profile(profile) => Kind::of(&profile, &who),
    };
    let kind = choose(kind, &who, client, catalog);
    let kind = match kind {
        Kind::Profile(profile)
            if tells_more && uses_facts(&profile, &who, needs_facts)
                || client.may_be_asked && tells_more && is_worth_advice(&profile) =>
        {
            Kind::AskFacts
        }
        // It has tried, and is to go on.
        Kind::LocalDisk(_) if client.has_no_disk => Kind::LocalDisk(LocalBoot::Exit),
        // From a menu that would only lead back to it.
        Kind::LocalDisk(LocalBoot::Http404) if client.choice.is_none() => {
            return Err(Ignored::ToItsDisk(LocalBoot::Http404, because));
        }
        Kind::Profile(profile) => {
            let coming = profile.image.as_ref().and_then(|image| match shelf.has(image).err()? {
                Lack::Coming(coming) => Some(coming),
                // That is no matter of time.
                Lack::Missing(_) => None,
            });
            match coming {
                Some(coming) => Kind::Waiting(profile, coming),
                None => Kind::Profile(profile),
            }
        }
        Kind::Waiting(..) | Kind::Menu(_) | Kind::LocalDisk(_) | Kind::Hold(_) | Kind::AskFacts => {
            kind
        }
    };
    let write_error = match &orders.registry_fault {
        Some(RegistryFault::Unwritable(reason)) if because == Some(Because::RegistryUnwritable) => {
            Some(Arc::clone(reason))
        }
        Some(_) | None => None,
    };
    Ok(Script { kind, who, policy, because, write_error, is_armed, is_ordered_or_due })
}

/// Whether it may be worth saying something of who boots this: see [`crate::pure::script::advice`].
fn is_worth_advice(profile: &Profile) -> bool {
    profile.adds_talos_arguments() && profile.image.is_some()
}

/// Whether a profile's script, or a file that its machine will fetch, prints what only iPXE can tell.
fn uses_facts(profile: &Profile, who: &Who, needs_facts: &NeedsFacts) -> bool {
    let mut files = who.settings(Some(profile)).flat_map(|said| said.files.values());
    needs_facts.script(&profile.script) || files.any(|path| needs_facts.answer(path))
}

/// Decides what a client gets that asks for an NBP by its name.
///
/// # Errors
/// It gets nothing.
pub fn decide_by_name(
    name: &str,
    naming: Naming,
    (state, now): (&MachineState, SystemTime),
) -> Result<UnderItsName, Ignored> {
    if let Some(looping) = state.loops_with(naming, now)
        && looping == name
    {
        return Err(Ignored::Loops(name.to_owned()));
    }
    match naming {
        Naming::ByTheRouter if state.is_run_by(name, now) => Ok(UnderItsName::Autoexec),
        Naming::ByTheRouter | Naming::ByUs => Ok(UnderItsName::Nbp),
    }
}

/// Why a client gets no answer at all. A stranger is ignored at once, unless facts that only its iPXE can
/// tell may yet name it.
fn not_answered(selection: &Selection) -> Option<Ignored> {
    let silent = |because| Some(Ignored::ToItsDisk(LocalBoot::Silent, because));
    match &selection.boots {
        _ if selection.is_open => None,
        Boots::Ignore => Some(Ignored::UnknownMachine),
        Boots::Profile(profile) => match Kind::of(profile, &selection.who) {
            Kind::LocalDisk(LocalBoot::Silent) => silent(None),
            Kind::LocalDisk(_)
            | Kind::Profile(_)
            | Kind::Waiting(..)
            | Kind::Menu(_)
            | Kind::Hold(_)
            | Kind::AskFacts => None,
        },
        Boots::Local(profile) => {
            let method = selection.who.local_boot(profile.as_deref());
            // A hold stays silent.
            let is_answered_again = selection.asks_again
                && profile.as_ref().is_some_and(|profile| {
                    on_disk_failure(profile, &selection.who) != OnDiskFailure::Hold
                });
            let is_silent = method == LocalBoot::Silent && !is_answered_again;
            if is_silent { silent(selection.because) } else { None }
        }
        Boots::Hold(profile) => match selection.who.local_boot(Some(profile)) {
            LocalBoot::Silent => silent(selection.because),
            LocalBoot::Exit | LocalBoot::Sanboot | LocalBoot::Http404 => None,
        },
        Boots::Menu => None,
    }
}

fn told(because: Option<&Because>) -> String {
    because.map(|because| format!(": {because}")).unwrap_or_default()
}

fn nbp<'a>(
    client: &Client,
    selection: &Selection,
    catalog: &'a Catalog,
    (state, now): (&MachineState, SystemTime),
) -> Answer<'a> {
    let Some(arch) = client.arch else {
        return Answer::Ignore(Ignored::NoArch);
    };
    if let Some(name) = selection.first(|said| said.nbp.get(&arch).cloned()) {
        return match catalog.nbps.named(&name) {
            Some(nbp) if nbp.arch == arch => unless_it_loops(nbp, state, now),
            // `config::resolve` takes up no config that says so; here it holds for every catalog.
            Some(nbp) => Answer::Ignore(Ignored::WrongNbp {
                name: nbp.name.clone(),
                is_for: nbp.arch,
                client: arch,
            }),
            None => Answer::Ignore(Ignored::NbpNotFound(name)),
        };
    }
    let found = match selection.first(|said| said.nbp_ladder).unwrap_or_default() {
        NbpLadder::Auto => state.ladder.nbp(&catalog.nbps, arch),
        NbpLadder::Off => catalog.nbps.for_arch(arch),
    };
    match found {
        Some(nbp) => unless_it_loops(nbp, state, now),
        None if matches!(arch, Arch::Other(_)) => Answer::Ignore(Ignored::NotBootable(arch)),
        None => Answer::Ignore(Ignored::NoNbp(arch)),
    }
}

/// An NBP, unless it has led nowhere three times: another one of its kind may do better.
fn unless_it_loops<'a>(nbp: &'a Nbp, state: &MachineState, now: SystemTime) -> Answer<'a> {
    match state.loops_with(Naming::ByUs, now) {
        Some(name) if name == nbp.name => Answer::Ignore(Ignored::Loops(name.to_owned())),
        Some(_) | None => Answer::Nbp(nbp),
    }
}

fn replaces_ipxe(selection: &Selection) -> bool {
    selection.first(|said| said.replace_ipxe).unwrap_or(false)
}

/// Takes up a choice from the menu: only who is shown the menu may choose, and only from it.
fn choose(kind: Kind, who: &Who, client: &Client, catalog: &Catalog) -> Kind {
    let offered = |choice: &String| catalog.menu.profiles.iter().find(|p| p.name == *choice);
    match (&kind, client.choice.as_ref().and_then(offered)) {
        (Kind::Menu(_), Some(profile)) => Kind::of(profile, who),
        (
            Kind::Menu(_)
            | Kind::Profile(_)
            | Kind::Waiting(..)
            | Kind::LocalDisk(_)
            | Kind::Hold(_)
            | Kind::AskFacts,
            _,
        ) => kind,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::pure::catalog::image_set::SetId;
    use crate::pure::catalog::image_status::{Set, Standing};
    use crate::pure::catalog::nbp::Nbps;
    use crate::pure::catalog::pattern::{Pattern, Wildcard};
    use crate::pure::catalog::settings::Settings;
    use crate::pure::catalog::{Files, Group, Image, Machine, Network, Part, Unknown};
    use crate::pure::client::Facts;
    use crate::pure::event::boot::{Event, Sent, Step, Subject, Transport};
    use crate::pure::machine::orders::{Arming, Completed};
    use crate::pure::machine::time::Time;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const MAC: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
    const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";
    const UUID_SWAPPED: &str = "33221100-5544-7766-8899-aabbccddeeff";

    fn profile(name: &str, script: &str) -> Arc<Profile> {
        Arc::new(Profile {
            name: name.into(),
            script: script.into(),
            has_own_script: false,
            image: None,
            omni: None,
            settings: Settings::default(),
        })
    }

    fn machine(profile: &Arc<Profile>) -> Machine {
        Machine {
            name: "oden".into(),
            macs: vec![],
            uuid: None,
            serial: None,
            profile: Some(Arc::clone(profile)),
            network: Network::default(),
            settings: Settings::default(),
        }
    }

    /// Decides as the shells do.
    fn decide<'a>(
        client: &Client,
        catalog: &'a Catalog,
        state: &MachineState,
        now: SystemTime,
    ) -> Answer<'a> {
        super::decide(client, &select(client, catalog), catalog, (state, now))
    }

    fn catalog(unknown: Unknown, machines: Vec<Machine>) -> Catalog {
        let mut catalog = Catalog::default();
        catalog.unknown = unknown;
        let mut nbps = Nbps::default();
        for (name, arch) in [
            ("ipxe.pxe", Arch::Bios),
            ("undionly.kpxe", Arch::Bios),
            ("ipxe.efi", Arch::UefiX64),
            ("snponly.efi", Arch::UefiX64),
            ("bin-arm64-efi/ipxe.efi", Arch::UefiArm64),
        ] {
            nbps.add(Nbp { name: name.into(), path: name.into(), arch, folder: 0 });
        }
        catalog.nbps = nbps;
        for machine in machines {
            catalog.add(machine);
        }
        catalog
    }

    fn client(stage: Stage, arch: Arch) -> Client {
        Client { mac: Some(MAC), arch: Some(arch), ..Client::at(stage) }
    }

    fn told(answer: &Answer<'_>) -> String {
        match answer {
            Answer::Nbp(nbp) => nbp.name.clone(),
            Answer::Script(mac) => format!("script {mac}"),
            Answer::Ignore(reason) => format!("ignored: {reason}"),
        }
    }

    fn kind(client: &Client, catalog: &Catalog) -> String {
        kind_with(client, catalog, &Shelf::default())
    }

    fn kind_with(client: &Client, catalog: &Catalog, shelf: &Shelf) -> String {
        let script =
            decide_script(client, catalog, &NeedsFacts::default(), (shelf, &Orders::default()));
        match script.map(|script| script.kind) {
            Ok(Kind::Profile(profile)) => profile.name.clone(),
            Ok(Kind::Waiting(profile, coming)) => format!("{} once {coming}", profile.name),
            Ok(Kind::Menu(_)) => "menu".into(),
            Ok(Kind::LocalDisk(method)) => format!("disk by {method:?}"),
            Ok(Kind::Hold(hold)) => format!("hold: {hold:?}"),
            Ok(Kind::AskFacts) => "ask".into(),
            Err(reason) => reason.to_string(),
        }
    }

    #[test]
    fn each_stage_and_architecture_gets_what_it_can_run() {
        let catalog = catalog(Unknown::Menu, vec![]);
        let state = MachineState::default();
        let decided = |stage, arch| told(&decide(&client(stage, arch), &catalog, &state, NOW));
        for stage in [Stage::Pxe, Stage::HttpBoot] {
            assert_eq!(decided(stage, Arch::Bios), "undionly.kpxe");
            assert_eq!(decided(stage, Arch::UefiX64), "snponly.efi");
            assert_eq!(decided(stage, Arch::UefiArm64), "bin-arm64-efi/ipxe.efi");
            for arch in [Arch::UefiX86, Arch::UefiArm32, Arch::UefiRiscv64] {
                assert!(decided(stage, arch).starts_with(&format!("ignored: no NBP for {arch}")));
            }
        }
        for arch in Arch::ALL {
            assert_eq!(decided(Stage::Ipxe, arch), "script 52:54:00:00:00:01");
        }
    }

    #[test]
    fn a_machine_is_known_by_mac_then_uuid_in_either_byte_order_then_serial() {
        let [by_mac, by_uuid, by_serial] = ["mac", "uuid", "serial"].map(|n| profile(n, "linux"));
        let catalog = catalog(
            Unknown::Menu,
            vec![
                Machine { macs: vec![MAC], ..machine(&by_mac) },
                Machine { uuid: UUID.parse().ok(), ..machine(&by_uuid) },
                Machine { serial: Some("CZ1".into()), ..machine(&by_serial) },
            ],
        );
        let stranger = Client { mac: Some(Mac::new([2; 6])), ..client(Stage::Ipxe, Arch::Bios) };
        let with_uuid =
            |text: &str| Client { uuid: Uuid::parse_str(text).ok(), ..stranger.clone() };
        let serial = |serial: &str| Some(Facts { serial: Some(serial.into()), ..Facts::default() });
        assert_eq!(kind(&client(Stage::Ipxe, Arch::Bios), &catalog), "mac");
        assert_eq!(kind(&with_uuid(UUID), &catalog), "uuid");
        assert_eq!(kind(&with_uuid(UUID_SWAPPED), &catalog), "uuid");
        assert_eq!(kind(&Client { facts: serial("CZ1"), ..stranger.clone() }, &catalog), "serial");
        assert_eq!(kind(&stranger, &catalog), "ask", "its SMBIOS facts may yet name it");
        assert_eq!(kind(&Client { facts: serial("CZ9"), ..stranger }, &catalog), "menu");
    }

    #[test]
    fn where_the_mac_decides_nobody_is_asked_for_more() {
        let catalog = catalog(
            Unknown::Local,
            vec![Machine { macs: vec![Mac::new([2; 6])], ..machine(&profile("p", "linux")) }],
        );
        assert_eq!(kind(&client(Stage::Ipxe, Arch::Bios), &catalog), "disk by Exit");
    }

    #[test]
    fn who_boots_an_image_that_is_on_its_way_waits_for_it_and_who_chose_it_too() {
        let set = SetId::new("set");
        let part = |name| Part::Fetched(set.clone(), name);
        let image = Image {
            name: "rack".into(),
            files: Files { kernel: part("kernel"), initrds: vec![part("initramfs.xz")] },
            missing: None,
            cmdline: vec![],
            talos: None,
        };
        let blade = Profile {
            name: "blade".into(),
            script: "talos".into(),
            has_own_script: false,
            image: Some(Arc::new(image)),
            omni: None,
            settings: Settings::default(),
        };
        let blade = Arc::new(blade);
        let mut catalog = catalog(Unknown::Menu, vec![]);
        catalog.menu.profiles = vec![Arc::clone(&blade)];
        let told = Client { facts: Some(Facts::default()), ..client(Stage::Ipxe, Arch::Bios) };
        let chosen = Client { choice: Some("blade".into()), ..told.clone() };
        catalog.add(Machine { macs: vec![Mac::new([2; 6])], ..machine(&blade) });
        let known = Client { mac: Some(Mac::new([2; 6])), ..told };
        let coming = Coming { received: 1 << 20, total: Some(2 << 20), ..Coming::default() };
        let mut shelf = Shelf::default();
        for who in [&chosen, &known] {
            shelf.sets.insert(set.clone(), Standing::Coming(coming.clone()));
            assert_eq!(kind_with(who, &catalog, &shelf), "blade once 50 % of 2 MiB are here");
            let here = Set { folder: "/x".into(), mark: "m".into(), base: None, talos: None };
            shelf.sets.insert(set.clone(), Standing::Here(here));
            assert_eq!(kind_with(who, &catalog, &shelf), "blade");
            let untold = Client { facts: None, ..who.clone() };
            assert_eq!(kind_with(&untold, &catalog, &shelf), "ask", "advice may be due");
            let by_hand = Client { may_be_asked: false, ..untold.clone() };
            assert_eq!(kind_with(&by_hand, &catalog, &shelf), "blade");
            let by_tftp = Client { speaks_http: false, ..untold };
            assert_eq!(kind_with(&by_tftp, &catalog, &shelf), "blade");
        }
    }

    #[test]
    fn a_stranger_gets_what_unknown_says() {
        let client = client(Stage::Ipxe, Arch::Bios);
        let table = [
            (Unknown::Menu, "menu"),
            (Unknown::Local, "disk by Exit"),
            (Unknown::Profile(profile("rescue", "linux")), "rescue"),
            (Unknown::Ignore, "it is not in the config, which says `unknown: ignore`"),
        ];
        for (unknown, expected) in table {
            assert_eq!(kind(&client, &catalog(unknown, vec![])), expected);
        }
    }

    #[test]
    fn only_a_machine_with_an_entry_has_a_first_boot_that_is_due() {
        let once = Settings { boot: Some(BootPolicy::Once), ..Settings::default() };
        let joined = |settings| {
            Arc::new(Profile { settings, ..Arc::into_inner(profile("joined", "linux")).unwrap() })
        };
        let by_mac = Pattern { mac: Some(Wildcard::of_mac("52:54:*")), ..Pattern::default() };
        let group = |profile| Group {
            name: "g".into(),
            pattern: by_mac.clone(),
            profile,
            settings: Settings::default(),
        };
        let known = |profile| Machine { macs: vec![MAC], ..machine(profile) };
        let due = |catalog: &Catalog, orders: &Orders| {
            let (client, shelf) = (client(Stage::Ipxe, Arch::Bios), Shelf::default());
            let script = decide_script(&client, catalog, &NeedsFacts::default(), (&shelf, orders));
            script.unwrap().is_ordered_or_due
        };
        let order = |profile: Option<&str>| Orders {
            armed: Some(Arming {
                since: Time::default(),
                profile: profile.map(str::to_owned),
                times: 1,
            }),
            ..Orders::default()
        };
        let done = |profile: &str, was_once| Orders {
            completed: Some(Completed {
                at: Time::default(),
                profile: profile.into(),
                was_once,
                has_wiped: false,
            }),
            ..Orders::default()
        };
        let never = Orders::default();
        let joined_once = joined(once.clone());
        let by_its_entry = catalog(Unknown::Ignore, vec![known(&joined_once)]);
        assert!(due(&by_its_entry, &never));
        assert!(due(&by_its_entry, &done("rescue", false)), "of another profile it was");
        assert!(!due(&by_its_entry, &done("joined", true)));
        let mut in_group = catalog(Unknown::Ignore, vec![]);
        in_group.groups = vec![Arc::new(group(Arc::clone(&joined_once)))];
        let by_unknown = catalog(Unknown::Profile(Arc::clone(&joined_once)), vec![]);
        for strangers in [&in_group, &by_unknown] {
            assert!(!due(strangers, &never));
            assert!(due(strangers, &order(None)));
        }
        let always = catalog(Unknown::Ignore, vec![known(&joined(Settings::default()))]);
        assert!(!due(&always, &never), "a boot whenever it asks is never its first one");
        assert!(due(&always, &order(None)));
        let mut menu = catalog(Unknown::Menu, vec![]);
        menu.menu.profiles = vec![Arc::clone(&joined_once)];
        menu.profiles.insert("joined".into(), joined_once);
        assert!(!due(&menu, &never));
        assert!(due(&menu, &order(Some("joined"))));
    }

    #[test]
    fn an_ignored_stranger_gets_nothing_unless_its_smbios_facts_may_yet_name_it() {
        let state = MachineState::default();
        let client = client(Stage::Pxe, Arch::Bios);
        let ignoring = catalog(Unknown::Ignore, vec![]);
        let answer = told(&decide(&client, &ignoring, &state, NOW));
        assert!(answer.starts_with("ignored: it is not in the config"), "{answer}");
        let by_serial = Machine { serial: Some("CZ1".into()), ..machine(&profile("p", "linux")) };
        let may_yet = catalog(Unknown::Ignore, vec![by_serial]);
        assert_eq!(told(&decide(&client, &may_yet, &state, NOW)), "undionly.kpxe");
    }

    #[test]
    fn only_who_is_shown_the_menu_may_choose_from_it_and_only_what_it_offers() {
        let offered = profile("rescue", "linux");
        let mut catalog = catalog(
            Unknown::Menu,
            vec![Machine { macs: vec![Mac::new([2; 6])], ..machine(&profile("fixed", "linux")) }],
        );
        catalog.menu.profiles = vec![offered];
        let choosing = |mac, choice: &str| Client {
            mac: Some(mac),
            choice: Some(choice.into()),
            ..client(Stage::Ipxe, Arch::Bios)
        };
        assert_eq!(kind(&choosing(MAC, "rescue"), &catalog), "rescue");
        assert_eq!(kind(&choosing(MAC, "fixed"), &catalog), "menu");
        assert_eq!(kind(&choosing(Mac::new([2; 6]), "rescue"), &catalog), "fixed");
    }

    #[test]
    fn a_disk_that_is_chosen_is_reached_the_machines_own_way() {
        let mut catalog = catalog(
            Unknown::Menu,
            vec![Machine {
                macs: vec![MAC],
                settings: Settings { local_boot: Some(LocalBoot::Sanboot), ..Settings::default() },
                ..machine(&profile("choose", "menu"))
            }],
        );
        catalog.menu.profiles = vec![profile("disk", "local-disk")];
        let choosing = Client { choice: Some("disk".into()), ..client(Stage::Ipxe, Arch::Bios) };
        assert_eq!(kind(&choosing, &catalog), "disk by Sanboot");
    }

    #[test]
    fn the_machines_way_to_its_disk_comes_before_its_profiles() {
        let disk = Arc::new(Profile {
            settings: Settings { local_boot: Some(LocalBoot::Sanboot), ..Settings::default() },
            ..Arc::into_inner(profile("disk", "local-disk")).unwrap()
        });
        let of = |own| {
            let settings = Settings { local_boot: own, ..Settings::default() };
            let machine = Machine { macs: vec![MAC], settings, ..machine(&disk) };
            kind(&client(Stage::Ipxe, Arch::Bios), &catalog(Unknown::Menu, vec![machine]))
        };
        assert_eq!(of(None), "disk by Sanboot");
        assert_eq!(of(Some(LocalBoot::Exit)), "disk by Exit");
    }

    /// A group whose machines are those of a product, by this template.
    fn group(name: &str, product: &str, profile: &Arc<Profile>) -> Arc<Group> {
        let product = Some(Wildcard::new(product));
        Arc::new(Group {
            name: name.into(),
            pattern: Pattern { product, ..Pattern::default() },
            profile: Arc::clone(profile),
            settings: Settings::default(),
        })
    }

    #[test]
    fn a_machines_own_profile_comes_before_any_group_and_the_first_group_that_fits_before_unknown()
    {
        let [own, blades, all, unknown] =
            ["own", "blades", "all", "unknown"].map(|name| profile(name, "linux"));
        let other = Mac::new([2; 6]);
        let mut catalog = catalog(
            Unknown::Profile(unknown),
            vec![
                Machine { macs: vec![MAC], ..machine(&own) },
                Machine { name: "loke".into(), macs: vec![other], profile: None, ..machine(&own) },
            ],
        );
        catalog.groups = vec![group("blades", "ProLiant BL*", &blades), group("all", "P*", &all)];
        let decided = |mac: Mac, product: Option<&str>| {
            let told = |product: &str| Facts { product: Some(product.into()), ..Facts::default() };
            let facts = product.map(told);
            kind(&Client { mac: Some(mac), facts, ..client(Stage::Ipxe, Arch::Bios) }, &catalog)
        };
        assert_eq!(decided(MAC, Some("ProLiant BL460c")), "own");
        assert_eq!(decided(other, Some("ProLiant BL460c")), "blades", "an entry without a profile");
        assert_eq!(decided(Mac::new([4; 6]), Some("proliant bl460c gen8")), "blades");
        assert_eq!(decided(Mac::new([4; 6]), Some("PowerEdge")), "all");
        assert_eq!(decided(Mac::new([4; 6]), Some("X4150")), "unknown");
        assert_eq!(decided(Mac::new([4; 6]), Some("")), "unknown", "it was asked, and has none");
        assert_eq!(decided(MAC, None), "own", "nobody is asked for what does not matter");
        assert_eq!(decided(other, None), "ask");
    }

    #[test]
    fn what_dhcp_does_not_tell_has_no_say_in_the_nbp() {
        let named = |name: &str| Settings {
            nbp: [(Arch::Bios, name.to_owned())].into(),
            ..Settings::default()
        };
        let p = profile("p", "linux");
        let by_mac = Pattern { mac: Some(Wildcard::of_mac("52:54:*")), ..Pattern::default() };
        let group = |pattern: Pattern, nbp: &str| {
            let settings = named(nbp);
            Arc::new(Group { name: nbp.into(), pattern, profile: Arc::clone(&p), settings })
        };
        let mut catalog = catalog(Unknown::Menu, vec![]);
        let serial = Pattern { serial: Some(Wildcard::new("*")), ..Pattern::default() };
        catalog.groups = vec![group(serial, "undionly.kpxe"), group(by_mac, "ipxe.pxe")];
        let client = client(Stage::Pxe, Arch::Bios);
        assert_eq!(told(&decide(&client, &catalog, &MachineState::default(), NOW)), "ipxe.pxe");
    }

    #[test]
    fn a_machines_word_comes_before_its_groups_and_that_before_its_profiles() {
        let said = |method| Settings { local_boot: method, ..Settings::default() };
        let all = [None, Some(LocalBoot::Exit), Some(LocalBoot::Sanboot), Some(LocalBoot::Silent)];
        for (of_machine, of_group, of_profile) in all.into_iter().flat_map(|machine| {
            all.into_iter().flat_map(move |group| all.map(|profile| (machine, group, profile)))
        }) {
            let profile = Arc::new(Profile {
                settings: said(of_profile),
                ..Arc::into_inner(profile("disk", "local-disk")).unwrap()
            });
            let machine = Machine {
                macs: vec![MAC],
                profile: None,
                settings: said(of_machine),
                ..machine(&profile)
            };
            let mut catalog = catalog(Unknown::Menu, vec![machine]);
            catalog.groups = vec![Arc::new(Group {
                name: "g".into(),
                pattern: Pattern { mac: Some(Wildcard::of_mac("52*")), ..Pattern::default() },
                profile,
                settings: said(of_group),
            })];
            let expected = of_machine.or(of_group).or(of_profile).unwrap_or_default();
            let client = client(Stage::Ipxe, Arch::Bios);
            assert_eq!(kind(&client, &catalog), format!("disk by {expected:?}"));
        }
    }

    #[test]
    fn who_shall_boot_its_disk_in_silence_gets_no_answer_from_dhcp_and_by_404_no_script() {
        let of = |method| {
            let settings = Settings { local_boot: Some(method), ..Settings::default() };
            let disk = profile("disk", "local-disk");
            catalog(Unknown::Menu, vec![Machine { macs: vec![MAC], settings, ..machine(&disk) }])
        };
        let (pxe, ipxe) = (client(Stage::Pxe, Arch::Bios), client(Stage::Ipxe, Arch::Bios));
        let state = MachineState::default();
        let silent = "ignored: it boots its local disk (`local_boot: silent`)";
        for client in [&pxe, &ipxe] {
            assert_eq!(told(&decide(client, &of(LocalBoot::Silent), &state, NOW)), silent);
        }
        let by_404 = of(LocalBoot::Http404);
        assert_eq!(told(&decide(&pxe, &by_404, &state, NOW)), "undionly.kpxe");
        assert_eq!(kind(&ipxe, &by_404), "it boots its local disk (`local_boot: http-404`)");
    }

    #[test]
    fn an_ipxe_without_http_first_loads_ours() {
        let catalog = catalog(Unknown::Menu, vec![]);
        let client = Client { speaks_http: false, ..client(Stage::Ipxe, Arch::Bios) };
        let answer = told(&decide(&client, &catalog, &MachineState::default(), NOW));
        assert_eq!(answer, "undionly.kpxe");
    }

    #[test]
    fn the_config_may_name_another_nbp_the_machine_before_its_profile() {
        let of = |names: &[(Arch, &str)]| Settings {
            nbp: names.iter().map(|(arch, name)| (*arch, (*name).to_owned())).collect(),
            ..Settings::default()
        };
        let named = Arc::new(Profile {
            settings: of(&[(Arch::Bios, "ipxe.pxe"), (Arch::UefiX64, "ipxe.efi")]),
            ..Arc::into_inner(profile("p", "linux")).unwrap()
        });
        let settings = of(&[(Arch::Bios, "gone.kpxe")]);
        let machine = Machine { macs: vec![MAC], settings, ..machine(&named) };
        let catalog = catalog(Unknown::Menu, vec![machine]);
        let state = MachineState::default();
        let decided = |arch| told(&decide(&client(Stage::Pxe, arch), &catalog, &state, NOW));
        assert_eq!(decided(Arch::UefiX64), "ipxe.efi");
        assert!(
            decided(Arch::Bios).starts_with("ignored: the config gives it the NBP `gone.kpxe`")
        );
        assert_eq!(decided(Arch::UefiArm64), "bin-arm64-efi/ipxe.efi");
    }

    #[test]
    fn an_nbp_for_another_kind_of_machine_is_never_offered() {
        let nbp = [(Arch::Bios, "SNPONLY.EFI".to_owned())].into();
        let settings = Settings { nbp, ..Settings::default() };
        let machine = Machine { macs: vec![MAC], settings, ..machine(&profile("p", "linux")) };
        let catalog = catalog(Unknown::Menu, vec![machine]);
        for stage in [Stage::Pxe, Stage::HttpBoot] {
            let client = client(stage, Arch::Bios);
            assert_eq!(
                told(&decide(&client, &catalog, &MachineState::default(), NOW)),
                "ignored: the config gives it the NBP `snponly.efi`, which is for UEFI x86-64, and it is BIOS; name another under `nbp`"
            );
        }
    }

    #[test]
    fn replacing_ends_when_the_nbp_runs_and_begins_anew_minutes_later() {
        let catalog = catalog(
            Unknown::Menu,
            vec![Machine {
                macs: vec![MAC],
                settings: Settings { replace_ipxe: Some(true), ..Settings::default() },
                ..machine(&profile("p", "linux"))
            }],
        );
        let ipxe = client(Stage::Ipxe, Arch::Bios);
        let mut state = MachineState::default();
        assert_eq!(told(&decide(&ipxe, &catalog, &state, NOW)), "undionly.kpxe");
        let over = Transport::Http;
        let sent = Sent { bytes: 1, took: std::time::Duration::ZERO, over };
        let step = Step::NbpSent { file: "undionly.kpxe".into(), arch: Arch::Bios, sent };
        state.apply(&Event { subject: Subject::default(), step }, None, NOW);
        let later = |seconds| NOW + std::time::Duration::from_secs(seconds);
        let decided = |seconds| told(&decide(&ipxe, &catalog, &state, later(seconds)));
        assert_eq!(decided(3), "script 52:54:00:00:00:01");
        assert_eq!(decided(119), "script 52:54:00:00:00:01");
        assert_eq!(decided(120), "undionly.kpxe");
    }
}
