//! Who is asking, and how far its boot has come.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use uuid::Uuid;

use super::{Arch, Mac};

/// Where on its way a machine is when it asks "what next?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What iPXE read from the machine's SMBIOS tables, once it was asked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smbios {
    /// The system serial number, without surrounding blanks.
    pub serial: Option<String>,
}

/// Who sent this packet or request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The hardware address, unless the client put something else into `chaddr`
    /// (UEFI may send its system GUID there).
    pub mac: Option<Mac>,
    /// The architecture, where the stage tells it.
    pub arch: Option<Arch>,
    /// How far the boot has come.
    pub stage: Stage,
    /// Whether it can fetch its script over HTTP, as far as it says: cut-down iPXEs in ROMs cannot.
    pub speaks_http: bool,
    /// The client machine identifier: option 97, or iPXE's `${uuid}`.
    pub uuid: Option<Uuid>,
    /// SMBIOS facts; `None` until iPXE was asked for them.
    pub smbios: Option<Smbios>,
    /// The profile that somebody chose from the menu.
    pub choice: Option<String>,
}
