//! A hardware address, in whichever spelling a person or a switch writes it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet MAC address: the identity of a machine on its boot LAN.
///
/// Prints as `5c:f3:fc:00:00:01`; [`Mac::hyphenated`] is iPXE's `${net0/mac:hexhyp}`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Mac([u8; 6]);

/// Why a text is not a MAC address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a MAC address; write it like 5c:f3:fc:00:00:01")]
pub struct MacError(String);

impl Mac {
    /// From the six bytes of the BOOTP `chaddr` field.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The six bytes in the order they go over the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether one card can have it: it is neither a group's (IEEE 802, the lowest bit of the first byte) nor all zero.
    pub const fn is_of_one_card(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// `5c-f3-fc-00-00-01`: the spelling that is safe in a path, and the one that iPXE's
    /// `${mac:hexhyp}` makes.
    pub fn hyphenated(self) -> String {
        self.spelled(b'-', &mut [0; 17]).to_owned()
    }

    /// A script names its machine a dozen times.
    fn spelled(self, separator: u8, text: &mut [u8; 17]) -> &str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        for (octet, place) in self.0.iter().zip(text.chunks_mut(3)) {
            place[0] = DIGITS[usize::from(octet >> 4)];
            place[1] = DIGITS[usize::from(octet & 15)];
            if let Some(third) = place.get_mut(2) {
                *third = separator;
            }
        }
        std::str::from_utf8(text).expect("digits and separators are ASCII")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    /// Reads `5c:f3:fc:00:00:01`, `5C-F3-FC-00-00-01`, `5cf3.fc00.0001` and `5cf3fc000001`.
    fn from_str(text: &str) -> Result<Self, MacError> {
        let refuse = || MacError(text.to_owned());
        let group = match (text.len(), text.as_bytes().get(2), text.as_bytes().get(4)) {
            (12, _, _) => 12,
            (14, _, Some(b'.')) => 4,
            (17, Some(b':' | b'-'), _) => 2,
            _ => return Err(refuse()),
        };
        let separator = text.as_bytes().get(group).copied();
        let mut digits = String::with_capacity(12);
        for (at, byte) in text.bytes().enumerate() {
            if at % (group + 1) == group {
                if Some(byte) != separator {
                    return Err(refuse());
                }
            } else if byte.is_ascii_hexdigit() {
                digits.push(char::from(byte));
            } else {
                return Err(refuse());
            }
        }
        let value = u64::from_str_radix(&digits, 16).map_err(|_| refuse())?;
        let [_, _, octets @ ..] = value.to_be_bytes();
        Ok(Self(octets))
    }
}

impl From<Mac> for String {
    fn from(own: Mac) -> Self {
        own.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spelled(b':', &mut [0; 17]))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_spelling_is_the_same_machine() {
        let mac = Mac::new([0x5c, 0xf3, 0xfc, 0x0a, 0x0b, 0x01]);
        for spelling in [
            "5c:f3:fc:0a:0b:01",
            "5C:F3:FC:0A:0B:01",
            "5c-f3-fc-0a-0b-01",
            "5cf3.fc0a.0b01",
            "5cf3fc0a0b01",
        ] {
            assert_eq!(spelling.parse(), Ok(mac), "{spelling}");
        }
        assert_eq!(mac.to_string(), "5c:f3:fc:0a:0b:01");
        assert_eq!(mac.hyphenated(), "5c-f3-fc-0a-0b-01");
    }

    #[test]
    fn what_is_no_mac_is_refused_and_quoted() {
        for text in [
            "",
            "oden",
            "5c:f3:fc:0a:0b",
            "5c:f3:fc:0a:0b:0g",
            "5c:f3-fc:0a:0b:01",
            "5cf3.fc0a:0b01",
            "5c:f3:fc:0a:0b:01:02",
            "+cf3fc0a0b01",
            "5c:f3:fc:0a:0b:é",
        ] {
            let error = text.parse::<Mac>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{text}`")), "{text}");
        }
    }
}
