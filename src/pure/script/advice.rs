//! What is known of old hardware that boots Talos: a table, and which of its rows a machine is in by what it
//! says of itself. Nothing is decided by it; it is told where somebody reads it before the machine fails.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use uuid::Uuid;

use crate::pure::catalog::Image;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::pattern::{Fit, Pattern, Wildcard};
use crate::pure::catalog::talos::{TalosArch, TalosVersion};
use crate::pure::client::{Arch, Client, Cpu};
use crate::pure::event::advice::Advice;

/// The Talos that a machine boots, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub struct Booted<'a> {
    /// The processor that it is for.
    pub arch: Option<TalosArch>,
    /// Its release.
    pub version: Option<TalosVersion>,
    /// The system extensions in it.
    pub extensions: Option<&'a [String]>,
    /// Whether it needs a CPU of the level x86-64-v2, as all do that are not built for others.
    pub needs_v2: bool,
    /// The kernel line.
    pub line: &'a str,
}

impl<'a> Booted<'a> {
    /// This image, with a kernel line.
    pub fn new(image: &'a Image, shelf: &Shelf, line: &'a str) -> Self {
        let talos = image.talos.as_ref();
        let here = || shelf.kernel_set(image).and_then(|set| set.talos);
        Self {
            arch: talos.map(|talos| talos.arch),
            version: talos.and_then(|talos| talos.version).or_else(here),
            extensions: talos.and_then(|talos| talos.extensions.as_deref()),
            needs_v2: true,
            line,
        }
    }
}

/// All that is worth knowing of a machine that boots this Talos.
pub fn advise(client: &Client, booted: Booted<'_>) -> Vec<Advice> {
    let rows = TABLE.iter().filter(|row| row.machine.iter().all(|sign| sign.is_of(client)));
    let fits = rows.filter_map(|row| {
        let signs = row.image.iter().map(|sign| sign.is_of(booted));
        let (words, is_sure) = match signs.min().unwrap_or(Fit::Yes) {
            Fit::Yes => (Some(row.words), true),
            Fit::Open => (row.unless_known, false),
            Fit::No => (None, false),
        };
        Some(Advice { words: words?, source: row.source, is_sure })
    });
    fits.collect()
}

/// A machine of which a pattern that all machines of a group fit is all that is known.
pub fn known_by(pattern: &Pattern) -> Client {
    use crate::pure::client::{Facts, Firmware, Stage};
    let arch = match (pattern.firmware, pattern.cpu) {
        (Some(Firmware::Bios), _) => Some(Arch::Bios),
        (Some(Firmware::Uefi), Some(Cpu::X86)) => Some(Arch::UefiX86),
        (Some(Firmware::Uefi), Some(Cpu::X64)) => Some(Arch::UefiX64),
        (Some(Firmware::Uefi), Some(Cpu::Arm64)) => Some(Arch::UefiArm64),
        (Some(Firmware::Uefi), Some(Cpu::Arm32 | Cpu::Riscv64) | None) | (None, _) => None,
    };
    // What stands in the pattern between `*` and `?` stands in the name of every product that fits.
    let product = pattern.product.as_ref().map(|product| product.written().to_owned());
    let facts = Facts { product, cpu: pattern.cpu, ..Facts::default() };
    Client { arch, facts: Some(facts), ..Client::at(Stage::Ipxe) }
}

/// What is known, and of whom.
struct Row {
    /// All that the machine says of itself.
    machine: &'static [OfMachine],
    /// All that holds of what it boots.
    image: &'static [OfImage],
    words: &'static str,
    /// What is said where it is not known whether that holds of the image.
    unless_known: Option<&'static str>,
    source: &'static str,
}

/// What a machine says of itself. What it did not say is not so.
enum OfMachine {
    /// Its card is one of these, of Broadcom.
    Broadcom(&'static [u16]),
    /// Its product name, with `*` and `?`.
    Product(&'static str),
    /// What its CPU can run.
    Cpu(Cpu),
    /// Its CPU is an x86-64 of before 2009.
    IsBelowV2,
    /// Its firmware.
    Firmware(Arch),
    /// Its UUID is one that many have.
    HasNoUuid,
}

/// What may hold of a Talos.
enum OfImage {
    /// It is for this processor.
    Arch(TalosArch),
    /// It is this release, or a later one.
    Since(TalosVersion),
    /// This extension is not in it.
    Lacks(&'static str),
    /// This argument is not on its kernel line.
    Without(&'static str),
    /// It needs a CPU of the level x86-64-v2.
    NeedsV2,
}

impl OfMachine {
    fn is_of(&self, client: &Client) -> bool {
        let facts = client.facts.as_ref();
        match self {
            Self::Broadcom(devices) => {
                let nic = facts.and_then(|facts| facts.nic);
                nic.is_some_and(|nic| nic.vendor == 0x14e4 && devices.contains(&nic.device))
            }
            Self::Product(pattern) => {
                let pattern =
                    Pattern { product: Some(Wildcard::new(pattern)), ..Pattern::default() };
                pattern.fits(client) == Fit::Yes
            }
            Self::Cpu(cpu) => client.cpu() == Some(*cpu),
            Self::IsBelowV2 => {
                let has_v2 = facts.and_then(|facts| facts.has_v2);
                client.cpu() == Some(Cpu::X64) && has_v2 == Some(false)
            }
            Self::Firmware(arch) => client.arch == Some(*arch),
            Self::HasNoUuid => client.uuid.is_some_and(|uuid| OF_NOBODY.contains(&uuid)),
        }
    }
}

impl OfImage {
    fn is_of(&self, booted: Booted<'_>) -> Fit {
        match self {
            Self::Arch(arch) => known(booted.arch, |is| is == *arch),
            Self::Since(version) => known(booted.version, |is| is >= *version),
            Self::Lacks(extension) => {
                known(booted.extensions, |are| !are.iter().any(|is| is == extension))
            }
            Self::Without(argument) => {
                known(Some(booted.line), |line| !line.split(' ').any(|word| word == *argument))
            }
            Self::NeedsV2 => known(Some(booted.needs_v2), |needs| needs),
        }
    }
}

fn known<T>(what: Option<T>, holds: impl FnOnce(T) -> bool) -> Fit {
    match what.map(holds) {
        Some(true) => Fit::Yes,
        Some(false) => Fit::No,
        None => Fit::Open,
    }
}

/// The UUIDs of boards that were never given one: none, all bits, and that of AMI's firmware.
const OF_NOBODY: [Uuid; 3] =
    [Uuid::nil(), Uuid::max(), Uuid::from_u128(0x03000200_0400_0500_0006_000700080009)];

/// BCM5709, 5709S, 5716, 5716S, 5706, 5708, 5706S, 5708S (Linux `drivers/net/ethernet/broadcom/bnx2.c`).
const BNX2: &[u16] = &[0x1639, 0x163a, 0x163b, 0x163c, 0x164a, 0x164c, 0x16aa, 0x16ac];

/// BCM57710, 57711, 57712, 57800, 57810, 57811, 57840, with their variants (Linux
/// `drivers/net/ethernet/broadcom/bnx2x`).
const BNX2X: &[u16] = &[
    0x163d, 0x163e, 0x163f, 0x164e, 0x164f, 0x1650, 0x1662, 0x1663, 0x166f, 0x168a, 0x168d, 0x168e,
    0x16a1, 0x16a2, 0x16a4, 0x16a5, 0x16a9, 0x16ab, 0x16ad, 0x16ae, 0x16af,
];

const WITH_VT_D: TalosVersion = TalosVersion { major: 1, minor: 12 };

const TABLE: &[Row] = &[
    Row {
        machine: &[OfMachine::Broadcom(BNX2)],
        image: &[OfImage::Lacks("siderolabs/bnx2-bnx2x")],
        words: "its network card, a Broadcom BCM5706, 5708, 5709 or 5716, has no firmware in this image, so that Talos has no network: add siderolabs/bnx2-bnx2x to the image's `extensions`",
        unless_known: Some(
            "its network card, a Broadcom BCM5706, 5708, 5709 or 5716, needs firmware: see that the extension siderolabs/bnx2-bnx2x is in the image, without which Talos has no network",
        ),
        source: "https://github.com/siderolabs/talos/issues/8761",
    },
    Row {
        machine: &[OfMachine::Broadcom(BNX2X)],
        image: &[OfImage::Lacks("siderolabs/bnx2-bnx2x")],
        words: "its network card, a Broadcom BCM577xx or 578xx, has no firmware in this image, so that Talos has no network: add siderolabs/bnx2-bnx2x to the image's `extensions`",
        unless_known: Some(
            "its network card, a Broadcom BCM577xx or 578xx, needs firmware: see that the extension siderolabs/bnx2-bnx2x is in the image, without which Talos has no network",
        ),
        source: "https://github.com/siderolabs/extensions/pull/11",
    },
    Row {
        machine: &[OfMachine::Product("*Gen8*")],
        image: &[OfImage::Since(WITH_VT_D), OfImage::Without("intel_iommu=off")],
        words: "Talos 1.12 and later turns on VT-d, with which a Gen8 may write nothing to its disk though the installation seems to succeed: add intel_iommu=off to `cmdline`, and for the installed system to the machine's kernel arguments in Omni or in its machine config",
        unless_known: Some(
            "Talos 1.12 and later turns on VT-d, with which a Gen8 may write nothing to its disk though the installation seems to succeed: if this image is one, add intel_iommu=off to `cmdline`, and for the installed system to the machine's kernel arguments in Omni or in its machine config",
        ),
        source: "https://github.com/siderolabs/talos/issues/12619",
    },
    Row {
        machine: &[OfMachine::IsBelowV2],
        image: &[OfImage::NeedsV2],
        words: "its CPU is older than x86-64-v2, and Talos halts on it as soon as its kernel runs: boot something else on it, or a Talos that was built with GOAMD64=v1 and say `vars: { any_cpu: true }`",
        unless_known: None,
        source: "https://github.com/siderolabs/talos/issues/7091",
    },
    Row {
        machine: &[OfMachine::Cpu(Cpu::X86), OfMachine::Firmware(Arch::Bios)],
        image: &[],
        words: "its CPU runs 32-bit programs only, and there is no Talos for such: boot something else on it",
        unless_known: None,
        source: "https://github.com/siderolabs/talos/issues/7091",
    },
    Row {
        machine: &[OfMachine::Firmware(Arch::UefiX86)],
        image: &[],
        words: "its UEFI is a 32-bit one, and iPXE cannot start the 64-bit kernel of Talos from there: let it boot as a BIOS, if its setup can do that (legacy boot, CSM)",
        unless_known: None,
        source: "https://docs.kernel.org/arch/x86/boot.html",
    },
    Row {
        machine: &[OfMachine::Cpu(Cpu::Arm64)],
        image: &[OfImage::Arch(TalosArch::Amd64)],
        words: "its CPU is a 64-bit ARM, and the image is for x86-64: give it one with `arch: arm64`",
        unless_known: None,
        source: "https://docs.siderolabs.com/talos/latest/getting-started/system-requirements",
    },
    Row {
        machine: &[OfMachine::Cpu(Cpu::X64)],
        image: &[OfImage::Arch(TalosArch::Arm64)],
        words: "its CPU is an x86-64, and the image is for 64-bit ARM: give it one with `arch: amd64`",
        unless_known: None,
        source: "https://docs.siderolabs.com/talos/latest/getting-started/system-requirements",
    },
    Row {
        machine: &[OfMachine::HasNoUuid],
        image: &[],
        words: "its board has no UUID of its own, and Omni takes all machines with the same for one: write one with its maker's tool, or let no two such machines join",
        unless_known: None,
        source: "https://github.com/siderolabs/omni/issues/1241",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::client::{Facts, Firmware, Stage};

    const BOOTED: Booted<'static> = Booted {
        arch: Some(TalosArch::Amd64),
        version: Some(TalosVersion { major: 1, minor: 11 }),
        extensions: Some(&[]),
        needs_v2: true,
        line: "talos.platform=metal",
    };

    fn modern() -> Facts {
        Facts {
            product: Some("ProLiant DL380 Gen10".into()),
            cpu: Some(Cpu::X64),
            has_v2: Some(true),
            nic: "8086:1521".parse().ok(),
            ..Facts::default()
        }
    }

    fn told(facts: Facts) -> Client {
        let uuid = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").ok();
        Client { arch: Some(Arch::Bios), uuid, facts: Some(facts), ..Client::at(Stage::Ipxe) }
    }

    /// By how each begins, and whether it is sure.
    fn advised(client: &Client, booted: Booted<'_>) -> Vec<(String, bool)> {
        let advice = advise(client, booted).into_iter();
        let short = |words: &str| words.chars().take(24).collect::<String>();
        advice.map(|advice| (short(advice.words), advice.is_sure)).collect()
    }

    fn sure(start: &str) -> Vec<(String, bool)> {
        vec![(start.to_owned(), true)]
    }

    #[test]
    fn a_machine_of_today_and_one_that_told_nothing_need_no_advice() {
        assert_eq!(advised(&told(modern()), BOOTED), []);
        let newest = Booted { version: Some(TalosVersion::NEWEST), ..BOOTED };
        assert_eq!(advised(&told(modern()), newest), []);
        assert_eq!(advised(&told(Facts::default()), newest), []);
        assert_eq!(advised(&Client::at(Stage::Ipxe), newest), []);
        let arm = Client { arch: Some(Arch::UefiArm64), ..told(Facts { nic: None, ..modern() }) };
        let image = Booted { arch: Some(TalosArch::Arm64), ..BOOTED };
        assert_eq!(advised(&arm, image), []);
        // There iPXE has no `cpuid`, and so says no.
        let facts = Facts { has_v2: Some(false), ..Facts::default() };
        assert_eq!(advised(&Client { facts: Some(facts), ..arm }, image), []);
    }

    #[test]
    fn a_broadcom_card_needs_its_firmware_in_the_image() {
        let with = |nic: &str, extensions| {
            let client = told(Facts { nic: nic.parse().ok(), ..modern() });
            advised(&client, Booted { extensions, ..BOOTED })
        };
        let has: &[String] = &["siderolabs/intel-ucode".into(), "siderolabs/bnx2-bnx2x".into()];
        for nic in ["14e4:1639", "14e4:163a", "14e4:164c", "14e4:16ac", "14e4:168e", "14e4:1650"] {
            assert_eq!(with(nic, Some(&has[..1])), sure("its network card, a Broa"), "{nic}");
            assert_eq!(with(nic, Some(&[])).len(), 1, "{nic}");
            assert_eq!(with(nic, Some(has)), [], "{nic}");
            let doubt = with(nic, None);
            assert_eq!(doubt, [("its network card, a Broa".to_owned(), false)], "{nic}");
        }
        for nic in ["14e4:1657", "8086:1639"] {
            assert_eq!(with(nic, Some(&[])), [], "{nic}");
        }
    }

    #[test]
    fn a_gen8_needs_vt_d_off_since_talos_1_12() {
        let with = |product: &str, version: Option<&str>, line| {
            let client = told(Facts { product: Some(product.into()), ..modern() });
            let version = version.map(|version| version.parse().unwrap());
            advised(&client, Booted { version, line, ..BOOTED })
        };
        let (blade, line) = ("ProLiant BL460c Gen8", "talos.platform=metal");
        let off = "talos.platform=metal intel_iommu=off quiet";
        assert_eq!(with(blade, Some("v1.12.0"), line), sure("Talos 1.12 and later tur"));
        assert_eq!(with("ProLiant DL320e Gen8 v2", Some("v1.14.2"), line).len(), 1);
        assert_eq!(with(blade, Some("v1.12.0"), off), []);
        assert_eq!(with(blade, Some("v1.11.6"), line), []);
        assert_eq!(with("ProLiant BL460c Gen9", Some("v1.12.0"), line), []);
        let doubt = with(blade, None, line);
        assert_eq!(doubt, [("Talos 1.12 and later tur".to_owned(), false)]);
        assert_eq!(with(blade, None, off), []);
    }

    #[test]
    fn what_cannot_run_this_talos_at_all_is_told() {
        let old = told(Facts { has_v2: Some(false), ..modern() });
        assert_eq!(advised(&old, BOOTED), sure("its CPU is older than x8"));
        assert_eq!(advised(&old, Booted { needs_v2: false, ..BOOTED }), []);
        let older = told(Facts { cpu: Some(Cpu::X86), has_v2: Some(false), ..modern() });
        assert_eq!(advised(&older, BOOTED), sure("its CPU runs 32-bit prog"));
        let uefi = |arch| Client { arch: Some(arch), ..told(modern()) };
        assert_eq!(advised(&uefi(Arch::UefiX86), BOOTED), sure("its UEFI is a 32-bit one"));
        assert_eq!(advised(&uefi(Arch::UefiArm64), BOOTED), sure("its CPU is a 64-bit ARM,"));
        let arm = Booted { arch: Some(TalosArch::Arm64), ..BOOTED };
        assert_eq!(advised(&uefi(Arch::UefiX64), arm), sure("its CPU is an x86-64, an"));
        assert_eq!(advised(&uefi(Arch::UefiX64), Booted { arch: None, ..BOOTED }), []);
        let nobody = Client { uuid: Some(Uuid::nil()), ..told(modern()) };
        assert_eq!(advised(&nobody, BOOTED), sure("its board has no UUID of"));
    }

    #[test]
    fn a_group_tells_what_all_its_machines_have() {
        let newest = Booted { version: Some(TalosVersion::NEWEST), ..BOOTED };
        let product = |written: &str| {
            let product = Some(Wildcard::new(written));
            advised(&known_by(&Pattern { product, ..Pattern::default() }), newest).len()
        };
        assert_eq!(product("ProLiant BL460c Gen8*"), 1);
        assert_eq!(product("*GEN8 v2"), 1);
        assert_eq!(product("ProLiant BL460c*"), 0, "some are no Gen8");
        assert_eq!(product("*Gen?"), 0);
        let firmware =
            Pattern { firmware: Some(Firmware::Uefi), cpu: Some(Cpu::X86), ..Pattern::default() };
        assert_eq!(advised(&known_by(&firmware), newest), sure("its UEFI is a 32-bit one"));
    }
}
