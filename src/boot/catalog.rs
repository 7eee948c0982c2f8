//! What there is to boot, and who boots it: machines, profiles, images and NBPs.
//!
//! A catalog is made by `config::resolve`, which links every name: a [`Machine`] holds its
//! [`Profile`], so a dangling name cannot exist here.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::client::Client;
use super::omni::Omni;
use super::talos::{TalosArch, TalosVersion};
use super::{Arch, Mac};

/// A known box.
#[derive(Debug)]
pub struct Machine {
    /// Its name in the config.
    pub name: String,
    /// Its network cards.
    pub macs: Vec<Mac>,
    /// Its SMBIOS UUID.
    pub uuid: Option<Uuid>,
    /// Its SMBIOS serial number.
    pub serial: Option<String>,
    /// What it boots.
    pub profile: Arc<Profile>,
    /// What it says for itself, which comes before what its profile says.
    pub settings: Settings,
}

/// What to boot.
#[derive(Debug)]
pub struct Profile {
    /// Its name in the config.
    pub name: String,
    /// The template in `boot-scripts/`, without `.ipxe`.
    pub script: String,
    /// Kernel and initial RAM disks.
    pub image: Option<Arc<Image>>,
    /// The Omni instance that the machine joins.
    pub omni: Option<Arc<Omni>>,
    /// What it says for its machines.
    pub settings: Settings,
}

impl Profile {
    /// Whether its script is Talos', which adds Talos' own arguments whatever the image is.
    pub fn adds_talos_arguments(&self) -> bool {
        self.script == "talos"
    }

    /// Whether its script is a built-in one that loads a kernel.
    pub fn needs_image(&self) -> bool {
        self.adds_talos_arguments() || self.script == "linux"
    }
}

/// What may stand in a profile or in a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Kernel arguments; these add up, the machine's last.
    pub cmdline: Vec<String>,
    /// Which NBP is offered, where it is not the usual one of the architecture.
    pub nbp: BTreeMap<Arch, String>,
    /// What option 43 says to it.
    pub option_43: Option<Option43>,
    /// Whether its REQUEST on port 67 is answered.
    pub answer_request_67: Option<bool>,
    /// Whether an iPXE in the card's ROM first loads our NBP.
    pub replace_ipxe: Option<bool>,
    /// How the machine reaches its disk.
    pub local_boot: Option<LocalBoot>,
}

/// A kernel and what goes with it, on this host's disk.
#[derive(Debug)]
pub struct Image {
    /// Its name in the config.
    pub name: String,
    /// The kernel file.
    pub kernel: PathBuf,
    /// The initial RAM disks, in the order in which the kernel unpacks them.
    pub initrds: Vec<PathBuf>,
    /// Kernel arguments that this image needs.
    pub cmdline: Vec<String>,
    /// The Talos release that these files are, where that is known.
    pub talos: Option<(TalosVersion, TalosArch)>,
}

/// How a machine is sent to its local disk; which one works is a matter of its firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalBoot {
    /// iPXE ends, and the firmware goes on with its boot order.
    #[default]
    Exit,
    /// iPXE itself starts the first disk.
    Sanboot,
}

/// What PXE firmware is told in option 43, where its kind's usual does not work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Option43 {
    /// What suits the kind of firmware: `bios` for BIOS ROMs, `none` for UEFI.
    #[default]
    Default,
    /// No option 43.
    None,
    /// "Just download the boot file", as PXE 2.1 ROMs want it.
    Bios,
    /// The same, with a boot prompt that does not wait: for UEFI that wants one.
    SkipPrompt,
}

impl Option43 {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::None => "none",
            Self::Bios => "bios",
            Self::SkipPrompt => "skip-prompt",
        }
    }
}

/// A network bootstrap program: a file that firmware loads and runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nbp {
    /// The name under which it is offered and served; short enough for the BOOTP `file` field.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Who can run it.
    pub arch: Arch,
    /// Which of the searched folders it was found in or below: one of an earlier folder comes first.
    pub folder: usize,
}

impl Nbp {
    /// Its file name, without the folder and in small letters.
    fn file(&self) -> String {
        self.name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
    }

    /// Whether it is a Secure Boot shim, going by its name: that one only loads an iPXE that lies
    /// beside it, and is none itself.
    pub fn is_shim(&self) -> bool {
        self.file().contains("shim")
    }

    /// Whether it is made for fewer machines than another of its name: signed for Secure Boot, with
    /// what may not be signed left out, or a BIOS one that needs a 64-bit CPU.
    fn is_narrow(&self) -> bool {
        let mut folders = self.name.split('/').rev().skip(1);
        folders.any(|folder| {
            folder.ends_with("-sb") || self.arch == Arch::Bios && folder.contains("x86_64")
        })
    }
}

/// Every NBP that was found, by name.
#[derive(Clone, Debug, Default)]
pub struct Nbps(BTreeMap<String, Nbp>);

impl Nbps {
    /// Adds one; the first of a name stays.
    pub fn add(&mut self, nbp: Nbp) {
        self.0.entry(nbp.name.to_ascii_lowercase()).or_insert(nbp);
    }

    /// The NBP of this name. Case does not matter: some firmware shouts.
    pub fn named(&self, name: &str) -> Option<&Nbp> {
        self.0.get(&name.to_ascii_lowercase())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Nbp> {
        self.0.values()
    }

    /// The one to offer to a client of this architecture.
    ///
    /// The plain UNDI and SNP builds come before those with drivers of their own: they use the
    /// driver that the card's firmware brings, which works where iPXE's own does not (tg3 of the
    /// HP DL380p Gen8; Broadcom and Cisco cards with `ipxe.efi`). But what stands in an earlier folder
    /// was put there to be used. Of two that are the same otherwise it is the one that runs on more
    /// machines. A shim is never offered by itself.
    pub fn for_arch(&self, arch: Arch) -> Option<&Nbp> {
        let ranked: &[&str] = match arch {
            Arch::Bios => &["undionly.kpxe", "undionly.kkpxe", "ipxe.pxe", "ipxe-legacy.pxe"],
            Arch::UefiX86
            | Arch::UefiX64
            | Arch::UefiArm32
            | Arch::UefiArm64
            | Arch::UefiRiscv64 => &["snponly", "ipxe"],
            Arch::Other(_) => &[],
        };
        let rank = |nbp: &Nbp| ranked.iter().position(|wanted| nbp.file().starts_with(wanted));
        self.0
            .values()
            .filter(|nbp| nbp.arch == arch && !nbp.is_shim())
            .filter_map(|nbp| Some((rank(nbp)?, nbp)))
            .min_by_key(|(rank, nbp)| (nbp.folder, *rank, nbp.is_narrow(), nbp.name.len()))
            .map(|(_, nbp)| nbp)
    }
}

/// What a machine gets that stands nowhere in the config.
#[derive(Debug, Default)]
pub enum Unknown {
    /// The menu.
    #[default]
    Menu,
    /// Its local disk.
    Local,
    /// No answer.
    Ignore,
    /// This profile.
    Profile(Arc<Profile>),
}

/// The menu for machines that may choose.
#[derive(Debug)]
pub struct Menu {
    /// What happens when nobody presses a key: `None` is the local disk.
    pub default: Option<Arc<Profile>>,
    /// How long it waits for a key.
    pub timeout: Duration,
    /// What may be chosen, in this order.
    pub profiles: Vec<Arc<Profile>>,
}

impl Default for Menu {
    fn default() -> Self {
        Self { default: None, timeout: Duration::from_secs(30), profiles: Vec::new() }
    }
}

/// Everything that can be booted, and by whom.
#[derive(Debug, Default)]
pub struct Catalog {
    by_mac: BTreeMap<Mac, Arc<Machine>>,
    by_uuid: BTreeMap<Uuid, Arc<Machine>>,
    by_serial: BTreeMap<String, Arc<Machine>>,
    /// All Omni instances, by name.
    pub omni: BTreeMap<String, Arc<Omni>>,
    /// All images, by name.
    pub images: BTreeMap<String, Arc<Image>>,
    /// All profiles, by name.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// What strangers get.
    pub unknown: Unknown,
    /// The menu.
    pub menu: Menu,
    /// The NBPs that can be offered.
    pub nbps: Nbps,
}

impl Catalog {
    /// Enters a machine under each of its identities.
    pub fn add(&mut self, machine: Machine) {
        let machine = Arc::new(machine);
        for mac in &machine.macs {
            self.by_mac.insert(*mac, Arc::clone(&machine));
        }
        if let Some(uuid) = machine.uuid {
            self.by_uuid.insert(uuid, Arc::clone(&machine));
        }
        if let Some(serial) = &machine.serial {
            self.by_serial.insert(serial.clone(), Arc::clone(&machine));
        }
    }

    /// Every machine, by name.
    pub fn machines(&self) -> BTreeMap<&str, &Machine> {
        let all = self.by_mac.values().chain(self.by_uuid.values()).chain(self.by_serial.values());
        all.map(|machine| (machine.name.as_str(), &**machine)).collect()
    }

    /// The machine with this network card.
    pub fn machine(&self, mac: Mac) -> Option<&Arc<Machine>> {
        self.by_mac.get(&mac)
    }

    /// Which machine a client is: by MAC, then UUID, then serial number.
    ///
    /// Firmware and iPXE disagree about the byte order of the UUID's first three fields on boards
    /// with an SMBIOS older than 2.6, so both orders count.
    pub fn identify(&self, client: &Client) -> Option<&Arc<Machine>> {
        let by_uuid = |uuid: Uuid| {
            let swapped = Uuid::from_bytes(uuid.to_bytes_le());
            self.by_uuid.get(&uuid).or_else(|| self.by_uuid.get(&swapped))
        };
        client
            .mac
            .and_then(|mac| self.by_mac.get(&mac))
            .or_else(|| client.uuid.and_then(by_uuid))
            .or_else(|| self.by_serial.get(client.smbios.as_ref()?.serial.as_ref()?))
    }

    /// What is said for a client, the first to be asked first: by its machine, then by its profile.
    pub fn settings<'a>(
        &'a self,
        machine: Option<&'a Arc<Machine>>,
    ) -> impl Iterator<Item = &'a Settings> {
        let profile = match (machine, &self.unknown) {
            (Some(machine), _) => Some(&machine.profile),
            (None, Unknown::Profile(profile)) => Some(profile),
            (None, Unknown::Menu | Unknown::Local | Unknown::Ignore) => None,
        };
        let own = machine.map(|machine| &machine.settings);
        own.into_iter().chain(profile.map(|profile| &profile.settings))
    }

    /// Whether some machine can only be told by what its SMBIOS tables say.
    pub fn needs_smbios(&self) -> bool {
        !self.by_uuid.is_empty() || !self.by_serial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client is offered where these are found, each in the folder of this index.
    fn offered(arch: Arch, names: &[(&str, usize)]) -> Option<String> {
        let mut nbps = Nbps::default();
        for (name, folder) in names {
            nbps.add(Nbp { name: (*name).into(), path: name.into(), arch, folder: *folder });
        }
        nbps.for_arch(arch).map(|nbp| nbp.name.clone())
    }

    #[test]
    fn of_two_of_one_name_the_one_that_runs_on_more_machines_is_offered() {
        let bios = [("bin-x86_64-pcbios/undionly.kpxe", 0), ("a-longer-one/bin/undionly.kpxe", 0)];
        assert_eq!(offered(Arch::Bios, &bios).as_deref(), Some("a-longer-one/bin/undionly.kpxe"));
        let uefi = [("x86_64-sb/snponly.efi", 0), ("bin-x86_64-efi/snponly.efi", 0)];
        assert_eq!(offered(Arch::UefiX64, &uefi).as_deref(), Some("bin-x86_64-efi/snponly.efi"));
        assert_eq!(offered(Arch::UefiX64, &uefi[..1]).as_deref(), Some("x86_64-sb/snponly.efi"));
    }

    #[test]
    fn a_shim_is_never_offered_by_itself() {
        let shims =
            ["shimx64.efi", "ipxe-shim.efi", "x86_64-sb/SNPONLY-SHIM.EFI", "snponly-shimx64.efi"];
        assert_eq!(offered(Arch::UefiX64, &shims.map(|name| (name, 0))), None);
    }

    #[test]
    fn an_earlier_folder_comes_before_a_better_build() {
        let names = [("snponly.efi", 2), ("x86_64/ipxe-legacy.efi", 1), ("x86_64/ipxe.efi", 1)];
        assert_eq!(offered(Arch::UefiX64, &names).as_deref(), Some("x86_64/ipxe.efi"));
    }
}
