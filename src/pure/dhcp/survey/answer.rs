//! What others answer.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;

use super::question::Asked;
use crate::pure::dhcp::packet::{Offer, Options, option};
use crate::pure::dhcp::pxe::PXE_CLIENT;
use crate::pure::printable;

/// An offer, and whom it was made to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// As whom we asked.
    pub asked: Asked,
    /// Who answered: option 54, else the sender.
    pub server: Ipv4Addr,
    /// Whether it offers an address.
    pub lease: Option<Ipv4Addr>,
    /// Option 60.
    pub vendor_class: Option<String>,
    /// The boot file: option 67, else `file`.
    pub boot_file: Option<String>,
    /// Where it is fetched from: `siaddr`, else option 66.
    pub next_server: Option<String>,
    /// Whether it tells iPXE to pay no heed to proxyDHCP (option 175, sub-option 176).
    pub no_pxe_dhcp: bool,
}

impl Answer {
    /// Reads an offer.
    pub fn new(asked: Asked, from: Ipv4Addr, offer: &Offer) -> Self {
        const NO_PXE_DHCP: u8 = 176;
        let text = |code| offer.options.get(code).map(told).filter(|text| !text.is_empty());
        let file = Some(told(&offer.file)).filter(|file| !file.is_empty());
        let address = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
        Self {
            asked,
            server: offer.options.address(option::SERVER_ID).and_then(address).unwrap_or(from),
            lease: address(offer.yiaddr),
            vendor_class: text(option::VENDOR_CLASS),
            boot_file: text(option::BOOT_FILE).or(file),
            next_server: address(offer.siaddr)
                .map(|address| address.to_string())
                .or_else(|| text(option::SERVER_NAME)),
            no_pxe_dhcp: Options::read(offer.options.get(option::IPXE).unwrap_or_default())
                .get(NO_PXE_DHCP)
                .is_some_and(|value| value.iter().any(|byte| *byte != 0)),
        }
    }

    pub(super) fn is_pxe(&self) -> bool {
        self.vendor_class.as_deref().is_some_and(|class| class.starts_with(PXE_CLIENT))
    }

    pub(super) fn names(&self) -> Option<Named> {
        let boot_file = self.boot_file.clone()?;
        Some(Named { boot_file, next_server: self.next_server.clone() })
    }
}

/// What a server wrote, up to its first NUL, without what could disturb a terminal.
fn told(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    printable::name(&String::from_utf8_lossy(text))
}

/// A boot file, and where it is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub(super) boot_file: String,
    next_server: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.boot_file)?;
        self.next_server.as_ref().map_or(Ok(()), |server| write!(f, " on {server}"))
    }
}
