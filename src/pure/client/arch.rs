//! What kind of machine asks: option 93.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// The architecture of an NBP that a client can run, read from option 93 (Client System
/// Architecture, RFC 4578 section 2.1, values as in IANA's "Processor Architecture Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Arch {
    /// x86 BIOS.
    Bios,
    /// 32-bit x86 UEFI.
    UefiX86,
    /// x86-64 UEFI.
    UefiX64,
    /// 32-bit ARM UEFI.
    UefiArm32,
    /// 64-bit ARM UEFI.
    UefiArm64,
    /// 64-bit RISC-V UEFI.
    UefiRiscv64,
    /// A code that no NBP here is for.
    Other(u16),
}

impl Arch {
    /// Every architecture that an NBP can be for.
    pub const ALL: [Self; 6] = [
        Self::Bios,
        Self::UefiX86,
        Self::UefiX64,
        Self::UefiArm32,
        Self::UefiArm64,
        Self::UefiRiscv64,
    ];

    /// The architecture for one code of option 93.
    ///
    /// RFC 4578 names 7 and 9 the wrong way round (errata 4624 and 4625): x86-64 UEFI sends 7,
    /// some old firmware 9, so both are x86-64. 15 to 19 and 28 are the HTTP Boot twins; whether a
    /// client wants HTTP Boot is told by option 60, not here.
    pub const fn from_iana(code: u16) -> Self {
        match code {
            0 => Self::Bios,
            6 | 15 => Self::UefiX86,
            7 | 9 | 16 | 17 => Self::UefiX64,
            10 | 18 => Self::UefiArm32,
            11 | 19 => Self::UefiArm64,
            27 | 28 => Self::UefiRiscv64,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bios => f.write_str("BIOS"),
            Self::UefiX86 => f.write_str("UEFI x86"),
            Self::UefiX64 => f.write_str("UEFI x86-64"),
            Self::UefiArm32 => f.write_str("UEFI arm32"),
            Self::UefiArm64 => f.write_str("UEFI arm64"),
            Self::UefiRiscv64 => f.write_str("UEFI riscv64"),
            Self::Other(code) => write!(f, "architecture {code} (option 93)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_and_nine_are_both_x86_64_uefi() {
        assert_eq!(Arch::from_iana(7), Arch::UefiX64);
        assert_eq!(Arch::from_iana(9), Arch::UefiX64);
    }

    #[test]
    fn http_boot_codes_are_the_architecture_of_their_pxe_twin() {
        for (http, pxe) in [(15, 6), (16, 7), (18, 10), (19, 11), (28, 27)] {
            assert_eq!(Arch::from_iana(http), Arch::from_iana(pxe), "{http}");
        }
    }

    #[test]
    fn a_code_without_an_ipxe_stays_what_it_is() {
        for code in [1, 2, 20, 21, 41, 99, 0xffff] {
            assert_eq!(Arch::from_iana(code), Arch::Other(code));
        }
    }
}
