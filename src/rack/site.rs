//! The sixteen machines, their addresses, and the config that they are served by.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::client::{Arch, Mac};
use crate::pure::config::problem::Problems;
use crate::pure::config::resolve::resolve;
use crate::pure::config::schema::File;
use crate::pure::config::snapshot::Config;
use crate::pure::config::surroundings::{Secret, Surroundings};
use crate::pure::machine::evidence::Neighbour;

/// The server.
pub(super) const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The router, whose DHCP server gives the leases.
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The relay of the other network, and its address there.
pub(super) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The neighbour's address.
pub(super) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
/// The neighbour's card.
pub(super) const HIS_CARD: Mac = Mac::new([0x66, 0x66, 0x66, 0, 0, 0x66]);
/// Stands in every secret, and in nothing else.
pub(super) const SECRET: &str = "hushhush";
/// How many machines there are.
pub(super) const MACHINES: usize = 16;

/// What a machine's firmware does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Firmware {
    /// A BIOS with a PXE ROM.
    Bios,
    /// UEFI, which asks port 4011 after its lease.
    Uefi,
    /// UEFI HTTP Boot.
    HttpBoot,
    /// A card with iPXE in its ROM.
    RomIpxe,
}

/// What the NBP that a machine loads does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loader {
    /// iPXE, which asks DHCP for its script.
    Ipxe,
    /// iPXE for EFI that looks for `autoexec.ipxe` first, and keeps the lease of the firmware.
    Autoexec,
    /// iPXE without HTTP, with an embedded script: it fetches its script over TFTP.
    OverTftp,
    /// PXELINUX, which knows no script.
    Pxelinux,
}

/// A machine as it was built.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// Its name, in the config too if `is_known`.
    pub(super) name: &'static str,
    pub(super) firmware: Firmware,
    pub(super) loader: Loader,
    /// The profile that the config gives it; none for a machine that is not in the config.
    pub(super) profile: Option<&'static str>,
    /// What else the config says of it.
    pub(super) settings: &'static str,
    pub(super) cards: u8,
    pub(super) is_relayed: bool,
    /// Its installer takes an address that is not that of its lease.
    pub(super) is_static: bool,
}

const USUAL: Spec = Spec {
    name: "",
    firmware: Firmware::Bios,
    loader: Loader::Ipxe,
    profile: Some("install"),
    settings: "",
    cards: 1,
    is_relayed: false,
    is_static: false,
};

pub(super) const SPECS: [Spec; MACHINES] = [
    Spec { name: "bios", ..USUAL },
    Spec { name: "sanboot", settings: "local_boot: sanboot", ..USUAL },
    Spec { name: "silent", settings: "local_boot: silent, on_disk_failure: boot", ..USUAL },
    Spec { name: "uefi", firmware: Firmware::Uefi, ..USUAL },
    Spec { name: "talos", firmware: Firmware::Uefi, profile: Some("talos"), ..USUAL },
    Spec { name: "autoexec", firmware: Firmware::Uefi, loader: Loader::Autoexec, ..USUAL },
    Spec { name: "http", firmware: Firmware::HttpBoot, profile: Some("talos"), ..USUAL },
    Spec {
        name: "http404",
        firmware: Firmware::HttpBoot,
        settings: "local_boot: http-404",
        ..USUAL
    },
    Spec { name: "rom", firmware: Firmware::RomIpxe, settings: "local_boot: sanboot", ..USUAL },
    Spec {
        name: "replaced",
        firmware: Firmware::RomIpxe,
        profile: Some("talos"),
        settings: "replace_ipxe: true, local_boot: silent",
        ..USUAL
    },
    Spec {
        name: "pxelinux",
        loader: Loader::Pxelinux,
        profile: Some("rescue"),
        settings: "nbp: { bios: pxelinux.0 }",
        ..USUAL
    },
    Spec {
        name: "static",
        settings: "ip: 10.77.0.50/24, gateway: 10.77.0.1",
        is_static: true,
        ..USUAL
    },
    Spec { name: "twins", cards: 2, ..USUAL },
    Spec { name: "relayed", firmware: Firmware::Uefi, is_relayed: true, ..USUAL },
    Spec {
        name: "tftp",
        loader: Loader::OverTftp,
        settings: "nbp: { bios: embedded.kpxe }",
        ..USUAL
    },
    Spec { name: "stranger", profile: None, ..USUAL },
];

/// A machine's card.
pub(super) fn card(machine: usize, card: u8) -> Mac {
    let number = u8::try_from(machine).expect("there are sixteen") + 1;
    Mac::new([0x52, 0x54, 0, 0, card, number])
}

/// The address that the router gives a card.
pub(super) fn lease(machine: usize, card: u8) -> Ipv4Addr {
    let number = u8::try_from(machine).expect("there are sixteen") + 1;
    if SPECS[machine].is_relayed {
        return Ipv4Addr::new(10, 99, 0, 100 + number);
    }
    Ipv4Addr::new(10, 77, 0, 100 + 50 * card + number)
}

/// The address that the installer of `static` takes.
pub(super) const STATIC: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

/// The machine with this card.
pub(super) fn owner(mac: Mac) -> Option<usize> {
    let [.., card, number] = mac.octets();
    let machine = usize::from(number).checked_sub(1)?;
    let spec = SPECS.get(machine)?;
    (card < spec.cards && self::card(machine, card) == mac).then_some(machine)
}

/// Who has an address, as long as nobody claims it by ARP.
pub(super) fn holder(address: Ipv4Addr) -> Neighbour {
    let [a, b, c, _] = address.octets();
    if address == US {
        return Neighbour::ThisHost;
    }
    if [a, b, c] != [10, 77, 0] {
        return Neighbour::OffLink;
    }
    holders().get(&address).map_or(Neighbour::Unknown, |card| Neighbour::Card(*card))
}

fn holders() -> &'static BTreeMap<Ipv4Addr, Mac> {
    static HOLDERS: OnceLock<BTreeMap<Ipv4Addr, Mac>> = OnceLock::new();
    HOLDERS.get_or_init(|| {
        let cards = |machine: usize| (0..SPECS[machine].cards).map(move |card| (machine, card));
        let leases = (0..MACHINES).flat_map(cards);
        let own = leases.map(|(machine, card)| (lease(machine, card), self::card(machine, card)));
        let is_static = |spec: &Spec| spec.is_static;
        let machine = SPECS.iter().position(is_static).expect("one has such an installer");
        own.chain([(STATIC, card(machine, 0)), (NEIGHBOUR, HIS_CARD)]).collect()
    })
}

/// Whether an address is one of a machine's.
pub(super) fn is_of(address: Ipv4Addr, machine: usize) -> bool {
    let spec = SPECS[machine];
    (0..spec.cards).any(|card| lease(machine, card) == address)
        || spec.is_static && address == STATIC
}

/// The config.
pub(super) fn config() -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| Arc::new(resolved(&yaml()))))
}

fn yaml() -> String {
    let mut yaml = String::from(
        "server: { tftp: { subnets: [10.99.0.0/24] } }\n\
         omni: { lab: { api: https://omni.lan, join_token: { file: /token } } }\n\
         images:\n\
         \x20 debian: { kernel: /debian/linux, initrd: /debian/initrd }\n\
         \x20 talos: { kernel: /talos/linux, initrd: /talos/initrd, talos: { version: v1.11.2 } }\n\
         profiles:\n\
         \x20 install: { script: debian, image: debian, boot: once, files: { preseed.cfg: /answer } }\n\
         \x20 talos: { script: talos, image: talos, omni: lab, boot: once }\n\
         \x20 rescue: { script: linux, image: debian }\n\
         menu: { default: local, timeout: 30s, profiles: [rescue] }\n\
         unknown: menu\n\
         machines:\n",
    );
    for (at, spec) in SPECS.iter().enumerate() {
        let Some(profile) = spec.profile else { continue };
        let cards: Vec<String> =
            (0..spec.cards).map(|no| format!("\"{}\"", card(at, no))).collect();
        let more = if spec.settings.is_empty() { "" } else { ", " };
        yaml += &format!(
            "  {}: {{ mac: [{}], profile: {profile}{more}{} }}\n",
            spec.name,
            cards.join(", "),
            spec.settings
        );
    }
    yaml
}

fn resolved(yaml: &str) -> Config {
    let mut nbps = Nbps::default();
    for (name, arch) in [
        ("undionly.kpxe", Arch::Bios),
        ("ipxe.pxe", Arch::Bios),
        ("pxelinux.0", Arch::Bios),
        ("embedded.kpxe", Arch::Bios),
        ("snponly.efi", Arch::UefiX64),
        ("ipxe.efi", Arch::UefiX64),
    ] {
        nbps.add(Nbp { name: name.into(), path: name.into(), arch, folder: 0 });
    }
    let mut problems = Problems::new(Path::new("config.yaml"), yaml);
    let file = File::parse(yaml, &mut problems).expect("it is YAML");
    let token = Secret { text: SECRET.into(), from: "/token".into(), open_to_all: None };
    let found = Surroundings {
        base: "/".into(),
        nbps,
        secrets: file.secret_sources().map(|source| (source.clone(), Ok(token.clone()))).collect(),
        answers: [("/answer".into(), Ok(format!("d-i passwd/root-password password {SECRET}\n")))]
            .into(),
        ..Surroundings::default()
    };
    resolve(file, found, problems).expect("the config has no error")
}
