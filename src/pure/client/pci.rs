//! What a PCI device is, by the numbers that it tells.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A PCI device: who made it, and what it is. Written as `lspci -n` does: `14e4:1639`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PciId {
    /// Who made it.
    pub vendor: u16,
    /// What it is.
    pub device: u16,
}

/// Why a text is no PCI id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a PCI id; write it like 14e4:1639, as `lspci -n` does")]
pub struct PciIdError(String);

/// What iPXE's `busid` begins with where the card is on PCI; it may be on another bus, or hidden behind its
/// firmware's driver (`include/ipxe/dhcp.h`, `include/ipxe/device.h`).
const ON_PCI: &str = "01";

impl PciId {
    /// From `${netX/busid:hexhyp}`, `01-14-e4-16-39`: the bus, the vendor and the device
    /// (`net/netdev_settings.c`).
    pub fn of_busid(busid: &str) -> Option<Self> {
        let bytes: Vec<&str> = busid.split('-').collect();
        let [ON_PCI, a, b, c, d] = bytes[..] else {
            return None;
        };
        let id: Self = format!("{a}{b}:{c}{d}").parse().ok()?;
        // Some bus whose driver does not say.
        (id.vendor != 0).then_some(id)
    }

    /// The same as iPXE writes it.
    pub fn busid(self) -> String {
        let [[a, b], [c, d]] = [self.vendor.to_be_bytes(), self.device.to_be_bytes()];
        format!("{ON_PCI}-{a:02x}-{b:02x}-{c:02x}-{d:02x}")
    }
}

impl FromStr for PciId {
    type Err = PciIdError;

    fn from_str(text: &str) -> Result<Self, PciIdError> {
        let number = |digits: &str| {
            let are_four = digits.len() == 4 && digits.bytes().all(|c| c.is_ascii_hexdigit());
            are_four.then(|| u16::from_str_radix(digits, 16).ok())?
        };
        let parts = text.split_once(':').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        let (vendor, device) = parts.ok_or_else(|| PciIdError(text.to_owned()))?;
        Ok(Self { vendor, device })
    }
}

impl From<PciId> for String {
    fn from(own: PciId) -> Self {
        own.to_string()
    }
}

impl TryFrom<String> for PciId {
    type Error = PciIdError;

    fn try_from(text: String) -> Result<Self, PciIdError> {
        text.parse()
    }
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_on_pci_is_read_as_ipxe_tells_it() {
        let bcm5709 = PciId { vendor: 0x14e4, device: 0x1639 };
        assert_eq!(PciId::of_busid("01-14-e4-16-39"), Some(bcm5709));
        assert_eq!(PciId::of_busid("01-14-E4-16-39"), Some(bcm5709));
        assert_eq!(bcm5709.busid(), "01-14-e4-16-39");
        assert_eq!(bcm5709.to_string().parse(), Ok(bcm5709));
        for none in ["", "01", "07-14-e4-16-39", "01-00-00-00-00", "01-14-e4-16", "01-14e4-16-39-"]
        {
            assert_eq!(PciId::of_busid(none), None, "{none}");
        }
        for none in ["", "14e4", "14e4:", "14e4:163", "14e4:+639", "14e4:1639:1"] {
            assert!(none.parse::<PciId>().is_err(), "{none}");
        }
    }
}
