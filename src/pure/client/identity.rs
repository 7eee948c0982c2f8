//! Who is asking, and how far its boot has come.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::arch::Arch;
use super::mac::Mac;
use super::pci::PciId;

/// Where on its way a machine is when it asks "what next?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// A PXE option ROM or the PXE client of UEFI (option 60 `PXEClient`).
    Pxe,
    /// UEFI HTTP Boot (option 60 `HTTPClient`).
    HttpBoot,
    /// An iPXE: it asks DHCP where its script is (option 77 `iPXE`), or HTTP for the script itself.
    Ipxe,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pxe => "PXE",
            Self::HttpBoot => "HTTP Boot",
            Self::Ipxe => "iPXE",
        })
    }
}

/// The kind of firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// The PC's own since 1981.
    Bios,
    /// UEFI.
    Uefi,
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        })
    }
}

/// What a CPU can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cpu {
    /// 32-bit x86, or what its UEFI keeps to that.
    X86,
    /// x86-64.
    X64,
    /// 32-bit ARM.
    Arm32,
    /// 64-bit ARM.
    Arm64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Cpu {
    /// All of them, with the words of the config.
    pub const WORDS: [(&str, Self); 5] = [
        ("x86", Self::X86),
        ("x64", Self::X64),
        ("arm32", Self::Arm32),
        ("arm64", Self::Arm64),
        ("riscv64", Self::Riscv64),
    ];
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, cpu)| cpu == self);
        f.write_str(word.map_or("?", |(word, _)| word))
    }
}

/// What iPXE told of its machine, once it was asked: of its SMBIOS tables, its CPU and its network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The system serial number, without surrounding blanks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The product name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The manufacturer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// What the CPU can run, where the firmware does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Whether it is of the level x86-64-v2, as those since 2009 are; nothing where it is no x86.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_v2: Option<bool>,
    /// The network card that it booted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nic: Option<PciId>,
}

impl Facts {
    fn or_as_known(self, before: &Self) -> Self {
        let Self { serial, product, vendor, cpu, has_v2, nic } = self;
        Self {
            serial: serial.or_else(|| before.serial.clone()),
            product: product.or_else(|| before.product.clone()),
            vendor: vendor.or_else(|| before.vendor.clone()),
            cpu: cpu.or(before.cpu),
            has_v2: has_v2.or(before.has_v2),
            nic: nic.or(before.nic),
        }
    }
}

/// Who sent this packet or request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The hardware address, unless the client put something else into `chaddr`
    /// (UEFI may send its system GUID there).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The architecture, where the stage tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// How far the boot has come.
    pub stage: Stage,
    /// Whether it can fetch its script over HTTP, as far as it says: cut-down iPXEs in ROMs cannot.
    pub speaks_http: bool,
    /// Whether it can be asked for more than it must be: whoever fetches a script by hand wants to see it.
    pub may_be_asked: bool,
    /// The client machine identifier: option 97, or iPXE's `${uuid}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
    /// Where it is: its own address, or while it has none that of its relay, or ours on its LAN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// What iPXE told of the machine; `None` until it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
    /// The profile that somebody chose from the menu.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub choice: Option<String>,
    /// Whether its iPXE tells that it could not start the local disk.
    pub has_no_disk: bool,
}

impl Client {
    /// One that has told nothing.
    pub const fn at(stage: Stage) -> Self {
        Self {
            mac: None,
            arch: None,
            stage,
            speaks_http: true,
            may_be_asked: true,
            uuid: None,
            address: None,
            facts: None,
            choice: None,
            has_no_disk: false,
        }
    }

    /// With what the same machine reported `before` in place of what it does not report now. If it reports another
    /// UUID or serial number, it is another machine, or another mainboard: then nothing of before holds.
    #[must_use]
    pub fn or_as_known(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before.filter(|before| !self.is_another_than(before)) else {
            return self;
        };
        self.arch = self.arch.or(before.arch);
        self.uuid = self.uuid.or(before.uuid);
        self.facts = match (self.facts, &before.facts) {
            (Some(facts), Some(before)) => Some(facts.or_as_known(before)),
            (facts, before) => facts.or_else(|| before.clone()),
        };
        self
    }

    fn is_another_than(&self, before: &Self) -> bool {
        let serial = |client: &Self| client.facts.as_ref()?.serial.clone();
        let differ = |pair: Option<(String, String)>| pair.is_some_and(|(now, then)| now != then);
        let uuids = self.uuid.zip(before.uuid);
        uuids.is_some_and(|(now, then)| now != then && now != swapped(then))
            || differ(serial(self).zip(serial(before)))
    }

    /// Its firmware, where it is known.
    pub fn firmware(&self) -> Option<Firmware> {
        match self.arch? {
            Arch::Bios => Some(Firmware::Bios),
            Arch::UefiX86
            | Arch::UefiX64
            | Arch::UefiArm32
            | Arch::UefiArm64
            | Arch::UefiRiscv64 => Some(Firmware::Uefi),
            Arch::Other(_) => None,
        }
    }

    /// What its CPU can run: UEFI is of one kind, a BIOS starts on both.
    pub fn cpu(&self) -> Option<Cpu> {
        match self.arch {
            Some(Arch::UefiX86) => Some(Cpu::X86),
            Some(Arch::UefiX64) => Some(Cpu::X64),
            Some(Arch::UefiArm32) => Some(Cpu::Arm32),
            Some(Arch::UefiArm64) => Some(Cpu::Arm64),
            Some(Arch::UefiRiscv64) => Some(Cpu::Riscv64),
            Some(Arch::Bios | Arch::Other(_)) | None => self.facts.as_ref()?.cpu,
        }
    }
}

/// A UUID with its first three fields in the other byte order.
pub fn swapped(uuid: Uuid) -> Uuid {
    Uuid::from_bytes(uuid.to_bytes_le())
}
