//! The network bootstrap programs on this host: found by folder, told apart by what is in the file.
//!
//! ```text
//!  URL ──fetch──▶ archive ──unpack──▶ NBPs ──store──▶ <state>/nbps/fetched ──find──▶ Nbps
//! ```

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::client::Arch;
use crate::sys::files::{open, reason};

pub mod archive;
pub mod fetch;
pub mod store;

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
const BIOS_EXTENSIONS: &[&str] = &["kpxe", "kkpxe", "kkkpxe", "pxe", "0"];

/// What PXELINUX itself fetches: its modules by their extension, its configuration from this folder.
const MODULE_EXTENSION: &str = "c32";
const PXELINUX_CONFIGS: &str = "pxelinux.cfg/";

/// What a gzip file begins with (RFC 1952 section 2.3.1).
const GZIP: &[u8] = &[0x1f, 0x8b];

/// How much of a file is searched for the version: iPXE's largest builds have little more than 1 MiB.
const MAX_SEARCHED: u64 = 4 << 20;

/// Looks through the folders and the folders directly in them (iPXE's own release puts each
/// architecture into one), in their order: of two files with one name the first is taken. Hidden ones
/// are passed over: [`store`] works in such. Returns also what is wrong: a path, and why.
pub fn find(folders: &[(PathBuf, Absence)]) -> (Nbps, Vec<(PathBuf, String)>) {
    let mut found = Found { folders, nbps: Nbps::default(), bad: Vec::new() };
    for (index, (folder, absence)) in folders.iter().enumerate() {
        match found.look_through(index, folder, "") {
            Err(error)
                if *absence == Absence::IsAProblem || error.kind() != io::ErrorKind::NotFound =>
            {
                found.bad.push((folder.clone(), reason(&error)));
            }
            Ok(()) | Err(_) => {}
        }
    }
    (found.nbps, found.bad)
}

/// What a search has found so far.
struct Found<'a> {
    folders: &'a [(PathBuf, Absence)],
    nbps: Nbps,
    bad: Vec<(PathBuf, String)>,
}

impl Found<'_> {
    fn look_through(&mut self, index: usize, folder: &Path, prefix: &str) -> io::Result<()> {
        for entry in folder.read_dir()? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                continue;
            };
            if is_hidden(&path) {
                continue;
            }
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                // What is searched by itself has its own place in the order.
                if prefix.is_empty() && !self.folders.iter().any(|(folder, _)| *folder == path) {
                    // A folder below that may not be read (an EFI system partition) holds nothing
                    // for us.
                    self.look_through(index, &path, &format!("{name}/")).ok();
                }
            } else if prefix == PXELINUX_CONFIGS || is_module(&path) {
                self.nbps.add_companion(name, path);
            } else if may_be_nbp(&path) {
                self.add(index, name, path);
            }
        }
        Ok(())
    }

    fn add(&mut self, folder: usize, name: String, path: PathBuf) {
        let arch = open(&path).and_then(|mut file| arch_of(&path, &mut file));
        match arch {
            Ok(arch) if is_plain(&name) => self.nbps.add(Nbp { name, path, arch, folder }),
            Ok(_) => self.bad.push((path, format!("its name is not offered: at most {MAX_NAME} letters, digits, `.`, `_`, `+`, `-` and `/` fit DHCP and a URL"))),
            Err(why) => self.bad.push((path, why)),
        }
    }
}

/// What an NBP's file tells of itself, beyond who can run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its size in bytes.
    pub size: u64,
    /// The version of iPXE, where the file holds it in plain text: BIOS builds are compressed.
    pub version: Option<String>,
}

/// Reads them.
///
/// # Errors
/// Why the file cannot be read, and what would mend it.
pub fn facts(path: &Path) -> Result<Facts, String> {
    let file = open(path)?;
    let size = file.metadata().map_err(|error| reason(&error))?.len();
    let mut content = Vec::new();
    file.take(MAX_SEARCHED).read_to_end(&mut content).map_err(|error| reason(&error))?;
    Ok(Facts { size, version: version_of(&content).map(str::to_owned) })
}

/// The version of an iPXE: a C string of its own, beside the same in UTF-16. `1.21.1`, or with what its
/// builder added, as `1.0.0+git-20190125.36a4c85-5.1` and `2.0.0 (g12798)`; such a one is surely it,
/// while three numbers alone may be another library's.
fn version_of(content: &[u8]) -> Option<&str> {
    if !content.windows(4).any(|word| word == b"iPXE") {
        return None;
    }
    let mut bare = None;
    for text in content.split(|byte| *byte == 0) {
        match after_three_numbers(text) {
            Some(b"") => bare = bare.or(Some(text)),
            Some([b'+', ..] | [b' ', b'(', ..])
                if text.iter().all(|c| matches!(c, b' '..=b'~')) =>
            {
                return std::str::from_utf8(text).ok();
            }
            Some(_) | None => {}
        }
    }
    bare.and_then(|text| std::str::from_utf8(text).ok())
}

/// What follows `1.2.3`.
fn after_three_numbers(text: &[u8]) -> Option<&[u8]> {
    let number = |text: &[u8]| text.iter().take_while(|c| c.is_ascii_digit()).count();
    let mut rest = text;
    for last in [false, false, true] {
        let digits = number(rest);
        rest = rest.get(digits..).filter(|_| (1..=4).contains(&digits))?;
        if !last {
            rest = rest.strip_prefix(b".")?;
        }
    }
    Some(rest)
}

/// Whether a name can stand in the BOOTP `file` field and in a URL as it is.
fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || "._+-/".contains(c))
}

/// Whether a file in one of the folders is looked at by [`find`].
pub fn is_looked_at(path: &Path) -> bool {
    let is_config = || {
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        folder == Some(PXELINUX_CONFIGS.trim_end_matches('/'))
    };
    !is_hidden(path) && (may_be_nbp(path) || is_module(path) || is_config())
}

/// Whether a name begins with a dot.
pub fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether a file could be an NBP, going by the end of its name.
fn may_be_nbp(path: &Path) -> bool {
    is_bios(path) || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("efi"))
}

fn is_module(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(MODULE_EXTENSION))
}

fn is_bios(path: &Path) -> bool {
    let is = |extension: &std::ffi::OsStr| {
        BIOS_EXTENSIONS.iter().any(|bios| extension.eq_ignore_ascii_case(bios))
    };
    path.extension().is_some_and(is)
}

/// The architecture of a file that may be an NBP, or why it is none.
fn arch_of(path: &Path, file: &mut (impl Read + Seek)) -> Result<Arch, String> {
    match pe_machine(file).map_err(|error| reason(&error))? {
        Some(machine) => arch_of_machine(machine)
            .ok_or_else(|| format!("no client is known that runs PE machine type {machine:#06x}")),
        None if !is_bios(path) => Err("it is no UEFI program: it has no PE header".to_owned()),
        None if is_code(file).map_err(|error| reason(&error))? => Ok(Arch::Bios),
        None => {
            Err("it is no BIOS program, but empty, text, an archive or a Linux program".to_owned())
        }
    }
}

/// Whether it could be machine code, which has no mark of its own: a page that was saved under an NBP's
/// name, an archive or a Linux program is none.
fn is_code(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    file.rewind()?;
    let mut begin = Vec::new();
    file.take(64).read_to_end(&mut begin)?;
    let is_text = begin.iter().all(|c| matches!(c, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    Ok(!is_text && !begin.starts_with(b"\x7fELF") && !begin.starts_with(GZIP))
}

/// The machine type of a PE file's COFF header, or `None` for what is no PE file.
fn pe_machine(file: &mut (impl Read + Seek)) -> io::Result<Option<u16>> {
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

    use super::testing::pe;
    use super::*;

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
    fn a_page_that_was_saved_as_a_bios_program_is_told_and_not_offered() {
        let folder = tempfile::tempdir().unwrap();
        for content in
            [&b"<html>not found</html>"[..], b"", b"\x7fELF\x02\x01", b"\x1f\x8b\x08\x00"]
        {
            let path = folder.path().join("undionly.kpxe");
            fs::write(&path, content).unwrap();
            let (nbps, bad) = find(&[(folder.path().to_owned(), Absence::IsAProblem)]);
            assert!(nbps.iter().next().is_none());
            let why = "it is no BIOS program, but empty, text, an archive or a Linux program";
            assert_eq!(bad, [(path, why.to_owned())]);
        }
    }

    #[test]
    fn what_is_hidden_is_not_searched_and_what_is_listed_by_itself_only_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".fetched-a", "fetched", "own"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("snponly.efi"), pe(0x8664)).unwrap();
        }
        fs::write(folder.path().join("._undionly.kpxe"), b"\0\x05\x16\x07").unwrap();
        let folders = [folder.path().to_owned(), folder.path().join("fetched")];
        let (nbps, bad) = find(&folders.map(|folder| (folder, Absence::IsAProblem)));
        assert_eq!(bad, []);
        let names: Vec<_> = nbps.iter().map(|nbp| (nbp.name.as_str(), nbp.folder)).collect();
        assert_eq!(names, [("own/snponly.efi", 0), ("snponly.efi", 1)]);
    }

    /// The longest that fits DHCP: see [`MAX_NAME`].
    #[test]
    fn a_name_of_94_bytes_is_found_and_a_longer_one_is_told_and_not_offered() {
        let folder = tempfile::tempdir().unwrap();
        let named = |len: usize| format!("{}.efi", "n".repeat(len - 4));
        for len in [94, 95, 128] {
            std::fs::write(folder.path().join(named(len)), super::testing::pe(0x8664)).unwrap();
        }
        let (found, mut bad) = find(&[(folder.path().to_owned(), Absence::IsAProblem)]);
        bad.sort();
        let reason = "its name is not offered: at most 94 letters, digits, `.`, `_`, `+`, `-` and `/` fit DHCP and a URL";
        let refused = [95, 128].map(|len| (folder.path().join(named(len)), reason.to_owned()));
        assert_eq!(bad, refused);
        assert!(found.named(&named(94)).is_some());
    }

    #[test]
    fn the_version_is_the_text_that_ipxe_prints() {
        for (content, version) in [
            (
                &b"iPXE\0\0\x001.0.0+git-20190125.36a4c85-5.1\0"[..],
                Some("1.0.0+git-20190125.36a4c85-5.1"),
            ),
            (b"iPXE\x001.0.4\x002.0.0 (g12798)\0", Some("2.0.0 (g12798)")),
            (b"iPXE/%s\x001.21.1\0", Some("1.21.1")),
            (b"1.21.1+git20250501.dad20602\0GRUB", None),
            (b"iPXE\x001.2.3.4\x00127.0.0.1\0HTTP/1.1\x001.2\0", None),
            (b"iPXE\x002.0.0+\xff\xfe\0", None),
            (b"iPXE\x0020260306.1.1\0", None),
        ] {
            assert_eq!(version_of(content), version, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn the_version_of_debians_builds_is_read() {
        let path = Path::new("/usr/lib/ipxe/snponly.efi");
        let facts = facts(path).expect("Debian's package ipxe is there (dev/setup installs it)");
        assert!(facts.size > 100_000);
        assert!(facts.version.is_some_and(|version| version.contains("git")));
    }

    #[test]
    fn a_folder_that_nobody_named_may_be_absent() {
        let absent = PathBuf::from("/nonexistent/nbps");
        assert_eq!(find(&[(absent.clone(), Absence::IsFine)]).1, []);
        let (_, bad) = find(&[(absent.clone(), Absence::IsAProblem)]);
        assert_eq!(bad, [(absent, "there is no such file".to_owned())]);
    }
}

/// What tests of NBPs are made of.
#[cfg(test)]
mod testing {
    /// The smallest file with a PE header.
    pub(super) fn pe(machine: u16) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..2].copy_from_slice(b"MZ");
        file[60] = 64;
        file.extend(b"PE\0\0");
        file.extend(machine.to_le_bytes());
        file
    }
}
