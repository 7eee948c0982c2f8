//! The unguessable names of a boot and of its answer files.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 122 random bits or more, that only the machine they were sent to knows.
///
/// There is no `Display`, and `Debug` prints `***`: whoever knows the id can speak for the machine, so it
/// belongs into the URLs of its scripts and nowhere else.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BootId([u8; 16]);

impl BootId {
    /// An id of these bits, which the caller takes from the kernel's random numbers.
    pub const fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The 32 hexadecimal digits that stand in a URL.
    pub fn digits(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a boot id has 32 hexadecimal digits")]
pub struct NoBootId;

impl FromStr for BootId {
    type Err = NoBootId;

    fn from_str(text: &str) -> Result<Self, NoBootId> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = u128::from_str_radix(text, 16).ok().filter(|_| is_hex).ok_or(NoBootId)?;
        Ok(Self(bits.to_be_bytes()))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for BootId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digits())
    }
}

impl<'de> Deserialize<'de> for BootId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_digits_that_it_writes_and_nothing_else() {
        let id = BootId::new([0x0f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(id.digits(), "0f0102030405060708090a0b0c0d0eff");
        assert_eq!(id.digits().parse(), Ok(id));
        for none in ["", "0", "+f0102030405060708090a0b0c0d0eff", &"0".repeat(33), &"g".repeat(32)]
        {
            assert_eq!(none.parse::<BootId>(), Err(NoBootId), "{none}");
        }
    }

    #[test]
    fn debug_output_hides_the_digits() {
        assert_eq!(format!("{:?}", Some(BootId::new([7; 16]))), "Some(***)");
    }
}
