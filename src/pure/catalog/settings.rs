//! What may be said in a profile, in a group and in a machine alike.
//!
//! The machine's word comes before its group's, that before its profile's; kernel arguments, answer files
//! and variables add up instead, in the order profile, group, machine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pure::client::Arch;

/// What may stand in a profile, in a group or in a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Kernel arguments; these add up, the machine's last.
    pub cmdline: Vec<String>,
    /// When the network boots it, and when its disk.
    pub boot: Option<BootPolicy>,
    /// Whether the profile erases a disk; see [`super::wipes`].
    pub wipes: Option<bool>,
    /// What follows if the local disk does not boot.
    pub on_disk_failure: Option<OnDiskFailure>,
    /// To whom a response that contains a secret is given.
    pub release: Option<Release>,
    /// How the machine reaches its disk.
    pub local_boot: Option<LocalBoot>,
    /// Which NBP is offered, where it is not the usual one of the architecture.
    pub nbp: BTreeMap<Arch, String>,
    /// Whether another NBP is tried after failures.
    pub nbp_ladder: Option<NbpLadder>,
    /// What option 43 says to it.
    pub option_43: Option<Option43>,
    /// Whether its REQUEST on port 67 is answered.
    pub answer_request_67: Option<bool>,
    /// Whether an iPXE in the card's ROM first loads our NBP.
    pub replace_ipxe: Option<bool>,
    /// `talos.halt_if_installed`: whether Talos stops where its disk has a Talos already.
    pub halt_if_installed: Option<bool>,
    /// The labels that the machine has in Omni once it has joined; these add up.
    pub labels: BTreeMap<String, String>,
    /// Templates that are served as this machine's own files, by name; these add up.
    pub files: BTreeMap<String, PathBuf>,
    /// Values for templates, by name; these add up.
    pub vars: BTreeMap<String, Var>,
}

/// A value that the config gives to templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Var {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// Anything else that is written in one piece.
    Text(String),
    /// A list.
    List(Vec<Var>),
    /// A mapping.
    Map(BTreeMap<String, Var>),
}

/// When a machine is booted by the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootPolicy {
    /// Whenever it asks.
    #[default]
    Always,
    /// After one completed boot its local disk, until it is armed again.
    Once,
    /// Its local disk, unless it is armed.
    Local,
}

impl BootPolicy {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Once => "once",
            Self::Local => "local",
        }
    }
}

/// What follows if the local disk of a machine does not boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDiskFailure {
    /// The network boots the machine again.
    Boot,
    /// The machine waits for the operator.
    Hold,
    /// The machine shows the menu.
    Menu,
}

impl OnDiskFailure {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Hold => "hold",
            Self::Menu => "menu",
        }
    }
}

/// To whom a response that contains a secret is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// To every host on a served network.
    Anyone,
    /// To a machine that is seen to boot.
    #[default]
    Seen,
    /// The same, and only to a boot that is ordered, or to the first one of a machine with an entry, if it is due.
    Armed,
}

impl Release {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Seen => "seen",
            Self::Armed => "armed",
        }
    }
}

/// Whether a machine that fails at the same step again is given another NBP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NbpLadder {
    /// By itself.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl NbpLadder {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Off => "off",
        }
    }
}

/// How a machine is sent to its local disk; which one works is a matter of its firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalBoot {
    /// iPXE ends, and the firmware goes on with its boot order.
    #[default]
    Exit,
    /// iPXE itself starts the first disk.
    Sanboot,
    /// The script is answered with 404, and iPXE gives up: firmware that goes on then does so at once.
    Http404,
    /// No DHCP answer at all, so that firmware goes on with its boot order at once.
    Silent,
}

impl LocalBoot {
    /// The word for it in the config and in templates.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Sanboot => "sanboot",
            Self::Http404 => "http-404",
            Self::Silent => "silent",
        }
    }
}

/// What PXE firmware is told in option 43, where its kind's usual does not work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
