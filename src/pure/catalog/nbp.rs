//! Network bootstrap programs: what firmware loads first.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;

use crate::pure::client::Arch;

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
pub struct Nbps {
    programs: BTreeMap<String, Arc<Nbp>>,
    /// See [`Self::ladder`]: each machine that asks needs one.
    ladders: BTreeMap<Arch, Vec<Arc<Nbp>>>,
    companions: BTreeMap<String, (String, PathBuf)>,
}

impl Nbps {
    /// Adds one; the first of a name stays.
    pub fn add(&mut self, nbp: Nbp) {
        if let Entry::Vacant(place) = self.programs.entry(nbp.name.to_ascii_lowercase()) {
            let arch = nbp.arch;
            place.insert(Arc::new(nbp));
            self.ladders.insert(arch, self.rungs(arch));
        }
    }

    /// Adds a file that an NBP loads by itself, as PXELINUX its modules; the first of a name stays.
    pub fn add_companion(&mut self, name: String, path: PathBuf) {
        self.companions.entry(name.to_ascii_lowercase()).or_insert((name, path));
    }

    /// The NBP of this name. Case does not matter: some firmware shouts.
    pub fn named(&self, name: &str) -> Option<&Nbp> {
        self.programs.get(&name.to_ascii_lowercase()).map(AsRef::as_ref)
    }

    /// The file of this name that an NBP loads by itself: its name as it is written, and where it lies.
    pub fn companion(&self, name: &str) -> Option<&(String, PathBuf)> {
        self.companions.get(&name.to_ascii_lowercase())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Nbp> {
        self.programs.values().map(AsRef::as_ref)
    }

    /// The one to offer to a client of this architecture.
    ///
    /// The plain UNDI and SNP builds come before those with drivers of their own: they use the
    /// driver that the card's firmware brings, which works where iPXE's own does not (tg3 of the
    /// HP DL380p Gen8; Broadcom and Cisco cards with `ipxe.efi`). But what stands in an earlier folder
    /// was put there to be used. Of two that are the same otherwise it is the one that runs on more
    /// machines. A shim is never offered by itself.
    pub fn for_arch(&self, arch: Arch) -> Option<&Nbp> {
        self.ladder(arch).first().map(AsRef::as_ref)
    }

    /// The builds that such a client can be offered, the one of [`Self::for_arch`] first: who fails with one
    /// may boot with the next. Of each build it is the best.
    pub fn ladder(&self, arch: Arch) -> &[Arc<Nbp>] {
        self.ladders.get(&arch).map(Vec::as_slice).unwrap_or_default()
    }

    fn rungs(&self, arch: Arch) -> Vec<Arc<Nbp>> {
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
        let fitting = self.programs.values().filter(|nbp| nbp.arch == arch && !nbp.is_shim());
        let mut rungs: Vec<(usize, &Arc<Nbp>)> =
            fitting.filter_map(|nbp| Some((rank(nbp)?, nbp))).collect();
        rungs.sort_by_key(|(rank, nbp)| (nbp.folder, *rank, nbp.is_narrow(), nbp.name.len()));
        let mut seen = Vec::new();
        rungs.retain(|(rank, _)| {
            let is_new = !seen.contains(rank);
            seen.push(*rank);
            is_new
        });
        rungs.into_iter().map(|(_, nbp)| Arc::clone(nbp)).collect()
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
