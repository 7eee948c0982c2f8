//! What a file is, from its first bytes: kernels, programs and initrds.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use super::machine::Firmware;
use crate::pure::printable;

/// What a script has iPXE start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Linux for x86 (its Documentation/arch/x86/boot.rst).
    BzImage {
        /// Its version, as `6.1.0-28-amd64`.
        version: Option<String>,
        /// Whether UEFI can start it too.
        has_efi_stub: bool,
    },
    /// A UEFI program; Linux for other CPUs is one.
    Efi(Option<&'static str>),
    /// Xen, or another multiboot kernel.
    Elf,
}

impl Kernel {
    /// Recognises one.
    pub fn of(head: &[u8]) -> Option<Self> {
        let is_mz = head.starts_with(b"MZ");
        if head.get(0x202..0x206) == Some(b"HdrS") {
            return Some(Self::BzImage { version: version(head), has_efi_stub: is_mz });
        }
        if is_mz {
            return Some(Self::Efi(cpu(head)));
        }
        head.starts_with(b"\x7fELF").then_some(Self::Elf)
    }

    /// Why this firmware cannot start it, where it cannot.
    pub fn misfit(&self, firmware: Firmware) -> Option<&'static str> {
        match (self, firmware) {
            (Self::Efi(_), Firmware::Bios | Firmware::Ipxe) => {
                Some("a BIOS cannot start a UEFI program")
            }
            (
                Self::BzImage { has_efi_stub: false, .. },
                Firmware::Uefi | Firmware::UefiX86 | Firmware::UefiHttp,
            ) => Some("UEFI cannot start it: it was built without CONFIG_EFI_STUB"),
            (Self::Elf, Firmware::Uefi | Firmware::UefiX86 | Firmware::UefiHttp) => {
                Some("UEFI cannot start an ELF file")
            }
            (Self::BzImage { .. } | Self::Efi(_) | Self::Elf, _) => None,
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BzImage { version: Some(version), .. } => write!(f, "bzImage {version}"),
            Self::BzImage { version: None, .. } => f.write_str("bzImage"),
            Self::Efi(Some(cpu)) => write!(f, "UEFI program for {cpu}"),
            Self::Efi(None) => f.write_str("UEFI program"),
            Self::Elf => f.write_str("ELF"),
        }
    }
}

/// The first word of what `kernel_version`, at 0x20e, points to, 0x200 bytes further on.
fn version(head: &[u8]) -> Option<String> {
    let at = match head.get(0x20e..0x210)? {
        [0, 0] => return None,
        [low, high] => usize::from(u16::from_le_bytes([*low, *high])) + 0x200,
        _ => return None,
    };
    let text = head.get(at..)?.split(|byte| matches!(byte, 0 | b' ')).next()?;
    let is_plain = !text.is_empty() && text.len() < 128 && text.iter().all(u8::is_ascii_graphic);
    is_plain.then(|| String::from_utf8_lossy(text).into_owned())
}

/// The machine type of a PE file.
fn cpu(head: &[u8]) -> Option<&'static str> {
    let at: [u8; 4] = head.get(0x3c..0x40)?.try_into().ok()?;
    let at = usize::try_from(u32::from_le_bytes(at)).ok()?;
    match head.get(at..at.checked_add(6)?)? {
        [b'P', b'E', 0, 0, 0x4c, 0x01] => Some("x86"),
        [b'P', b'E', 0, 0, 0x64, 0x86] => Some("x86-64"),
        [b'P', b'E', 0, 0, 0xc2, 0x01] => Some("arm32"),
        [b'P', b'E', 0, 0, 0x64, 0xaa] => Some("arm64"),
        [b'P', b'E', 0, 0, 0x64, 0x50] => Some("riscv64"),
        _ => None,
    }
}

/// What an initrd is packed with, where that is known: a script may fetch anything.
pub fn packing(head: &[u8]) -> Option<&'static str> {
    const KNOWN: [(&[u8], &str); 9] = [
        (b"\x1f\x8b", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"070701", "cpio"),
        (b"070702", "cpio"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"BZh", "bzip2"),
        (b"\x89LZO", "lzop"),
        (b"\x5d\0\0", "lzma"),
    ];
    KNOWN.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, name)| name)
}

/// The first bytes of a file that is not known, for somebody to recognise.
pub fn beginning(head: &[u8]) -> String {
    let (count, head) = (head.len().min(16), &head[..head.len().min(16)]);
    if count > 0 && head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return format!("`{}`", printable::line(&String::from_utf8_lossy(head)));
    }
    head.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head of a bzImage, as Linux' own header is laid out.
    fn bz_image(start: &[u8], version: &str) -> Vec<u8> {
        let mut head = vec![0; 0x3000];
        head[..start.len()].copy_from_slice(start);
        head[0x202..0x206].copy_from_slice(b"HdrS");
        head[0x20e..0x210].copy_from_slice(&0x2c00_u16.to_le_bytes());
        head[0x2e00..0x2e00 + version.len()].copy_from_slice(version.as_bytes());
        head
    }

    #[test]
    fn a_bz_image_tells_its_version_and_whether_uefi_can_start_it() {
        let debian = bz_image(b"MZ", "6.1.0-28-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
        let kernel = Kernel::of(&debian).unwrap();
        assert_eq!(kernel.to_string(), "bzImage 6.1.0-28-amd64");
        assert_eq!(kernel.misfit(Firmware::Uefi), None);
        let old = Kernel::of(&bz_image(&[0xea], "2.6.32\0")).unwrap();
        assert_eq!(old.to_string(), "bzImage 2.6.32");
        assert!(old.misfit(Firmware::Uefi).is_some() && old.misfit(Firmware::Bios).is_none());
        let mut nameless = debian.clone();
        nameless[0x20e..0x210].copy_from_slice(&[0, 0]);
        assert_eq!(Kernel::of(&nameless).unwrap().to_string(), "bzImage");
        let mut beyond = debian;
        beyond[0x20e..0x210].copy_from_slice(&[0xff, 0xff]);
        assert_eq!(Kernel::of(&beyond).unwrap().to_string(), "bzImage");
    }

    #[test]
    fn a_uefi_program_tells_its_cpu_and_runs_on_no_bios() {
        let mut head = b"MZ".to_vec();
        head.resize(0x3c, 0);
        head.extend(0x40_u32.to_le_bytes());
        head.extend(b"PE\0\0\x64\xaa");
        let kernel = Kernel::of(&head).unwrap();
        assert_eq!(kernel.to_string(), "UEFI program for arm64");
        assert!(kernel.misfit(Firmware::Bios).is_some());
        head[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(Kernel::of(&head).unwrap().to_string(), "UEFI program");
        assert_eq!(Kernel::of(b"MZ").unwrap().to_string(), "UEFI program");
    }

    #[test]
    fn what_is_no_kernel_is_none_and_its_beginning_tells_what_it_may_be() {
        for head in [&b""[..], b"<!DOCTYPE html>", &[1; 0x10000]] {
            assert_eq!(Kernel::of(head), None);
        }
        assert_eq!(beginning(b"<!DOCTYPE html>\n<html>"), "`<!DOCTYPE html>\\n`");
        assert_eq!(beginning(&[0x1f, 0x8b, 8]), "1f 8b 08");
        assert_eq!(beginning(b""), "");
    }

    #[test]
    fn an_initrd_is_known_by_its_packing() {
        for (head, name) in [
            (&b"\x1f\x8b\x08"[..], Some("gzip")),
            (b"\xfd7zXZ\0\0", Some("xz")),
            (b"\x28\xb5\x2f\xfd\x04", Some("zstd")),
            (b"070701000", Some("cpio")),
            (b"{\"ignition\"", None),
            (b"", None),
        ] {
            assert_eq!(packing(head), name);
        }
    }
}
