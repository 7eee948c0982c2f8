//! The network bootstrap programs on this host: found by folder, told apart by what is in the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::boot::Arch;
use crate::boot::catalog::{Nbp, Nbps};
use crate::files::{open, reason};

/// What it means that a folder is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Nobody named it.
    IsFine,
    /// The config names it.
    IsAProblem,
}

/// The longest name that fits the BOOTP `file` field (127 bytes and a NUL, RFC 2131 section 2) as part
/// of `http://255.255.255.255:65535/nbp/`, as UEFI HTTP Boot is told it.
const MAX_NAME: usize = 94;

/// What iPXE's BIOS builds end in.
const BIOS_EXTENSIONS: &[&str] = &["kpxe", "kkpxe", "kkkpxe", "pxe"];

/// Looks through the folders and the folders directly in them (iPXE's own release puts each
/// architecture into one), in their order: of two files with one name the first is taken. Returns
/// also what is wrong: a path, and why.
pub fn find(folders: &[(PathBuf, Absence)]) -> (Nbps, Vec<(PathBuf, String)>) {
    let mut nbps = Nbps::default();
    let mut bad = Vec::new();
    for (index, (folder, absence)) in folders.iter().enumerate() {
        match look_through((index, folder), "", &mut nbps, &mut bad) {
            Err(error)
                if *absence == Absence::IsAProblem || error.kind() != io::ErrorKind::NotFound =>
            {
                bad.push((folder.clone(), reason(&error)));
            }
            Ok(()) | Err(_) => {}
        }
    }
    (nbps, bad)
}

fn look_through(
    (index, folder): (usize, &Path),
    prefix: &str,
    nbps: &mut Nbps,
    bad: &mut Vec<(PathBuf, String)>,
) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{prefix}{name}");
        if path.is_dir() && prefix.is_empty() {
            // A folder below that may not be read (an EFI system partition) holds nothing for us.
            look_through((index, &path), &format!("{name}/"), nbps, bad).ok();
        } else if let Some(arch) = arch_of(&path, bad) {
            if is_plain(&name) {
                nbps.add(Nbp { name, path, arch, folder: index });
            } else {
                bad.push((path, format!("its name is not offered: at most {MAX_NAME} letters, digits, `.`, `_`, `-` and `/` fit DHCP and a URL")));
            }
        }
    }
    Ok(())
}

/// Whether a name can stand in the BOOTP `file` field and in a URL as it is.
fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c))
}

/// The architecture of a file that could be an NBP; `None` for every other file.
fn arch_of(path: &Path, bad: &mut Vec<(PathBuf, String)>) -> Option<Arch> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    let bios = BIOS_EXTENSIONS.contains(&extension.as_str());
    if !bios && extension != "efi" {
        return None;
    }
    let machine =
        open(path).and_then(|mut file| pe_machine(&mut file).map_err(|error| reason(&error)));
    let told = match machine {
        Ok(None) if bios => return Some(Arch::Bios),
        Ok(None) => "it is no UEFI program: it has no PE header".to_owned(),
        Ok(Some(machine)) => match arch_of_machine(machine) {
            Some(arch) => return Some(arch),
            None => format!("no client is known that runs PE machine type {machine:#06x}"),
        },
        Err(why) => why,
    };
    bad.push((path.to_owned(), told));
    None
}

/// The machine type of a PE file's COFF header, or `None` for what is no PE file.
fn pe_machine(file: &mut File) -> io::Result<Option<u16>> {
    let mut dos = [0; 64];
    match file.read_exact(&mut dos) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if !dos.starts_with(b"MZ") {
        return Ok(None);
    }
    let [.., a, b, c, d] = dos;
    file.seek(SeekFrom::Start(u64::from(u32::from_le_bytes([a, b, c, d]))))?;
    let mut coff = [0; 6];
    match file.read_exact(&mut coff) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    Ok(match coff {
        [b'P', b'E', 0, 0, low, high] => Some(u16::from_le_bytes([low, high])),
        _ => None,
    })
}

/// PE machine types, from the PE/COFF specification, "Machine Types".
fn arch_of_machine(machine: u16) -> Option<Arch> {
    match machine {
        0x014c => Some(Arch::UefiX86),
        0x8664 => Some(Arch::UefiX64),
        0x01c0 | 0x01c2 | 0x01c4 => Some(Arch::UefiArm32),
        0xaa64 => Some(Arch::UefiArm64),
        0x5064 => Some(Arch::UefiRiscv64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The smallest file with a PE header.
    fn pe(machine: u16) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..2].copy_from_slice(b"MZ");
        file[60] = 64;
        file.extend(b"PE\0\0");
        file.extend(machine.to_le_bytes());
        file
    }

    #[test]
    fn each_architecture_is_read_from_the_file_not_from_its_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, machine) in [
            ("bin-i386-efi", 0x014c),
            ("bin-x86_64-efi", 0x8664),
            ("bin-arm32-efi", 0x01c2),
            ("bin-arm64-efi", 0xaa64),
            ("bin-riscv64-efi", 0x5064),
        ] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("snponly.efi"), pe(machine)).unwrap();
        }
        fs::write(folder.path().join("undionly.kpxe"), b"\xea\x05\x00").unwrap();
        let (nbps, bad) = find(&[(folder.path().to_owned(), Absence::IsAProblem)]);
        assert_eq!(bad, []);
        let offered = Arch::ALL.map(|arch| nbps.for_arch(arch).unwrap().name.clone());
        assert_eq!(
            offered,
            [
                "undionly.kpxe",
                "bin-i386-efi/snponly.efi",
                "bin-x86_64-efi/snponly.efi",
                "bin-arm32-efi/snponly.efi",
                "bin-arm64-efi/snponly.efi",
                "bin-riscv64-efi/snponly.efi"
            ]
        );
    }

    #[test]
    fn the_first_folder_wins_and_the_firmwares_own_driver_comes_first() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(theirs.path().join("ipxe.efi"), pe(0x8664)).unwrap();
        fs::write(theirs.path().join("snponly.efi"), pe(0x8664)).unwrap();
        fs::write(ours.path().join("snponly.efi"), pe(0x8664)).unwrap();
        let folders = [ours.path(), theirs.path()].map(|p| (p.to_owned(), Absence::IsAProblem));
        let (nbps, _) = find(&folders);
        let nbp = nbps.for_arch(Arch::UefiX64).unwrap();
        assert_eq!(nbp.path, ours.path().join("snponly.efi"));
        assert_eq!(nbps.named("IPXE.EFI").unwrap().path, theirs.path().join("ipxe.efi"));
    }

    #[test]
    fn an_earlier_folder_comes_first_whatever_the_name_and_odd_names_are_told() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(ours.path().join("bin-x86_64-efi")).unwrap();
        fs::write(ours.path().join("bin-x86_64-efi/ipxe.efi"), pe(0x8664)).unwrap();
        fs::write(theirs.path().join("snponly.efi"), pe(0x8664)).unwrap();
        let odd = theirs.path().join("my snponly.efi");
        fs::write(&odd, pe(0x8664)).unwrap();
        let folders = [ours.path(), theirs.path()].map(|p| (p.to_owned(), Absence::IsAProblem));
        let (nbps, bad) = find(&folders);
        assert_eq!(nbps.for_arch(Arch::UefiX64).unwrap().name, "bin-x86_64-efi/ipxe.efi");
        assert_eq!(bad.len(), 1);
        assert_eq!(bad[0].0, odd);
        assert!(bad[0].1.starts_with("its name is not offered"), "{}", bad[0].1);
    }

    #[test]
    fn a_damaged_program_is_told_and_not_offered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snponly.efi");
        fs::write(&path, b"<html>not found</html>").unwrap();
        fs::write(folder.path().join("vmlinuz"), b"not an NBP at all").unwrap();
        let (nbps, bad) = find(&[(folder.path().to_owned(), Absence::IsAProblem)]);
        assert!(nbps.iter().next().is_none());
        assert_eq!(bad, [(path, "it is no UEFI program: it has no PE header".to_owned())]);
    }

    #[test]
    fn a_folder_that_nobody_named_may_be_absent() {
        let absent = PathBuf::from("/nonexistent/nbps");
        assert_eq!(find(&[(absent.clone(), Absence::IsFine)]).1, []);
        let (_, bad) = find(&[(absent.clone(), Absence::IsAProblem)]);
        assert_eq!(bad, [(absent, "there is no such file".to_owned())]);
    }
}
