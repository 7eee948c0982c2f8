//! What is in a release archive of iPXE: bytes in, NBPs out, and nothing that the archive says becomes a
//! path before it was looked at.
//!
//! `ipxeboot.tar.gz` holds one top folder, in it a folder for each architecture (`x86_64`, `i386`,
//! `arm64`, …; with `-sb` what is signed for Secure Boot, and a shim), and links: `snponly.efi` to
//! `x86_64/snponly.efi`, `snponly-shim.efi` to `shimx64.efi`. What one builds has `bin-x86_64-efi` and
//! the like.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::{Component, Path};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{GZIP, arch_of, is_plain, may_be_nbp};
use crate::pure::printable;

/// The NBPs of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Name to content. A name is a file's own and that of its folder, which tells the architecture.
    pub nbps: BTreeMap<String, Vec<u8>>,
    /// How many other files it holds: for machines that no client here can be, lists, documents.
    pub left_out: usize,
}

/// Why an archive is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is something else.
    #[error("it is no .tar.gz archive")]
    NotGzip,
    /// It cannot be read to its end.
    #[error("it is cut off, damaged, or not made by tar")]
    Broken,
    /// A name or a link that climbs, or starts at the root.
    #[error("it holds `{0}`, which leads out of the archive")]
    LeadsOut(String),
    /// A device, a pipe.
    #[error("it holds `{0}`, which is neither a file nor a folder nor a link")]
    Special(String),
    /// Two files would have one name.
    #[error("it holds two files for `{0}`")]
    Twice(String),
    /// A file that is too large.
    #[error("it holds `{0}`, which is larger than {limit} MiB: no NBP is", limit = MAX_FILE >> 20)]
    LargeFile(String),
    /// All of it is too large.
    #[error("it holds more than {} MiB", MAX_TOTAL >> 20)]
    Large,
    /// It has too many entries.
    #[error("it holds more than {MAX_ENTRIES} entries")]
    ManyEntries,
    /// Nothing in it is of use.
    #[error("it holds no NBP: {0}")]
    NoNbp(String),
}

/// iPXE 2.0.0's archive has 54 entries with about 40 MiB in all, the largest of little more than 1 MiB.
const MAX_ENTRIES: usize = 4096;
const MAX_FILE: u64 = 32 << 20;
const MAX_TOTAL: u64 = 256 << 20;

/// How many names are told of an archive without NBPs.
const TOLD: usize = 5;

/// Takes the NBPs out of an archive.
///
/// # Errors
/// Why none of it is taken.
pub fn unpack(archive: &[u8]) -> Result<Unpacked, Flaw> {
    unpack_at_most(archive, MAX_TOTAL)
}

fn unpack_at_most(archive: &[u8], most: u64) -> Result<Unpacked, Flaw> {
    if !archive.starts_with(GZIP) {
        return Err(Flaw::NotGzip);
    }
    let left = Cell::new(most);
    let mut archive = Archive::new(Bounded { inner: MultiGzDecoder::new(archive), left: &left });
    let why = |_: io::Error| if left.get() == 0 { Flaw::Large } else { Flaw::Broken };
    let mut nbps = BTreeMap::new();
    let mut others = Vec::new();
    for (index, entry) in archive.entries().map_err(why)?.enumerate() {
        let mut entry = entry.map_err(why)?;
        if index == MAX_ENTRIES {
            return Err(Flaw::ManyEntries);
        }
        let told = shown(&entry.path_bytes());
        let path = entry.path().map_err(why)?.into_owned();
        let parts = inside(&[], &path).ok_or_else(|| Flaw::LeadsOut(told.clone()))?;
        if !is_file(&entry, &parts, &told)? {
            continue;
        }
        let content = content(&mut entry, &told)?.map_err(why)?;
        let name = parts[parts.len().saturating_sub(2)..].join("/");
        let hidden = parts.iter().any(|part| part.starts_with('.'));
        let is_served = !hidden && is_plain(&name) && may_be_nbp(&path);
        if !is_served || arch_of(&path, &mut Cursor::new(&content)).is_err() {
            others.push(told);
        } else if nbps.insert(name.clone(), content).is_some() {
            return Err(Flaw::Twice(name));
        }
    }
    // gzip's check sum stands at its end, behind what tar reads.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(why)?;
    if nbps.is_empty() {
        return Err(Flaw::NoNbp(list(&others)));
    }
    Ok(Unpacked { nbps, left_out: others.len() })
}

/// Whether an entry is a file that may be kept. Folders are made for what lies in them. A link is not
/// followed: what it names stands in the archive by itself.
fn is_file<R: Read>(entry: &Entry<'_, R>, parts: &[String], told: &str) -> Result<bool, Flaw> {
    let folder = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => return Ok(true),
        EntryType::Directory | EntryType::XGlobalHeader => return Ok(false),
        EntryType::Symlink => &parts[..parts.len().saturating_sub(1)],
        EntryType::Link => &[],
        _ => return Err(Flaw::Special(told.to_owned())),
    };
    let target = entry.link_name_bytes().unwrap_or_default();
    let leads = entry.link_name().ok().flatten().and_then(|target| inside(folder, &target));
    match leads {
        Some(_) => Ok(false),
        None => Err(Flaw::LeadsOut(format!("{told} -> {}", shown(&target)))),
    }
}

fn content<R: Read>(entry: &mut Entry<'_, R>, told: &str) -> Result<io::Result<Vec<u8>>, Flaw> {
    let mut content = Vec::new();
    let read = entry.take(MAX_FILE + 1).read_to_end(&mut content);
    if content.len() as u64 > MAX_FILE {
        return Err(Flaw::LargeFile(told.to_owned()));
    }
    Ok(read.map(|_| content))
}

/// The parts of a path in the archive that starts in `folder`; `None` where it leaves the archive.
fn inside(folder: &[String], path: &Path) -> Option<Vec<String>> {
    let mut parts = folder.to_vec();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            // Up again from a folder would be harmless, but who writes such a name means harm.
            Component::ParentDir if folder.is_empty() => return None,
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts)
}

/// A name from an archive, fit for a message.
fn shown(name: &[u8]) -> String {
    printable::name(&String::from_utf8_lossy(name))
}

/// The first few names, and how many more there are.
fn list(names: &[String]) -> String {
    let more = names.len().saturating_sub(TOLD);
    match (names, more) {
        ([], _) => "it is empty".to_owned(),
        (_, 0) => format!("only {}", names.join(", ")),
        _ => format!("only {} and {more} more", names[..TOLD].join(", ")),
    }
}

/// A reader that fails where there is more than may be.
struct Bounded<'a, R> {
    inner: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        if self.left.get() == 0 { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(read) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;
    use crate::nbps::testing::pe;

    /// An entry: its path, its type, where a link leads, its content.
    pub(in super::super) type Item = (&'static str, EntryType, &'static str, Vec<u8>);

    pub(in super::super) fn file(path: &'static str, content: impl Into<Vec<u8>>) -> Item {
        (path, EntryType::Regular, "", content.into())
    }

    fn link(path: &'static str, target: &'static str) -> Item {
        (path, EntryType::Symlink, target, Vec::new())
    }

    fn bios() -> Vec<u8> {
        b"\xea\x05\x00\xc0\x07".to_vec()
    }

    /// A `.tar.gz`. Names go in as they are: the builder's own way refuses those that climb.
    pub(in super::super) fn tar_gz(items: &[Item]) -> Vec<u8> {
        let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, kind, target, content) in items {
            let mut header = Header::new_gnu();
            let old = header.as_old_mut();
            old.name[..path.len()].copy_from_slice(path.as_bytes());
            old.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, content.as_slice()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    /// The layout of iPXE 2.0.0's `ipxeboot.tar.gz`.
    pub(in super::super) fn release() -> Vec<Item> {
        let efi = |paths: [&'static str; 3], machine| paths.map(|path| file(path, pe(machine)));
        let mut items = vec![("ipxeboot/", EntryType::Directory, "", Vec::new())];
        for (paths, machine) in [
            (
                [
                    "ipxeboot/arm32/ipxe.efi",
                    "ipxeboot/arm32/ipxe-legacy.efi",
                    "ipxeboot/arm32/snponly.efi",
                ],
                0x01c2,
            ),
            (
                [
                    "ipxeboot/arm64/ipxe.efi",
                    "ipxeboot/arm64/ipxe-legacy.efi",
                    "ipxeboot/arm64/snponly.efi",
                ],
                0xaa64,
            ),
            (
                [
                    "ipxeboot/arm64-sb/ipxe.efi",
                    "ipxeboot/arm64-sb/shimaa64.efi",
                    "ipxeboot/arm64-sb/snponly.efi",
                ],
                0xaa64,
            ),
            (
                [
                    "ipxeboot/i386/ipxe.efi",
                    "ipxeboot/i386/ipxe-legacy.efi",
                    "ipxeboot/i386/snponly.efi",
                ],
                0x014c,
            ),
            (
                [
                    "ipxeboot/loong64/ipxe.efi",
                    "ipxeboot/loong64/ipxe-legacy.efi",
                    "ipxeboot/loong64/snponly.efi",
                ],
                0x6264,
            ),
            (
                [
                    "ipxeboot/riscv32/ipxe.efi",
                    "ipxeboot/riscv32/ipxe-legacy.efi",
                    "ipxeboot/riscv32/snponly.efi",
                ],
                0x5032,
            ),
            (
                [
                    "ipxeboot/riscv64/ipxe.efi",
                    "ipxeboot/riscv64/ipxe-legacy.efi",
                    "ipxeboot/riscv64/snponly.efi",
                ],
                0x5064,
            ),
            (
                [
                    "ipxeboot/x86_64/ipxe.efi",
                    "ipxeboot/x86_64/ipxe-legacy.efi",
                    "ipxeboot/x86_64/snponly.efi",
                ],
                0x8664,
            ),
            (
                [
                    "ipxeboot/x86_64-sb/ipxe.efi",
                    "ipxeboot/x86_64-sb/shimx64.efi",
                    "ipxeboot/x86_64-sb/snponly.efi",
                ],
                0x8664,
            ),
        ] {
            items.extend(efi(paths, machine));
        }
        for path in [
            "ipxeboot/i386/ipxe-legacy.pxe",
            "ipxeboot/i386/ipxe.pxe",
            "ipxeboot/i386/undionly.kpxe",
            "ipxeboot/x86_64/ipxe-legacy.pxe",
            "ipxeboot/x86_64/ipxe.pxe",
            "ipxeboot/x86_64/undionly.kpxe",
        ] {
            items.push(file(path, bios()));
        }
        for (path, target) in [
            ("ipxeboot/arm64-sb/ipxe-shim.efi", "shimaa64.efi"),
            ("ipxeboot/arm64-sb/snponly-shim.efi", "shimaa64.efi"),
            ("ipxeboot/x86_64-sb/ipxe-shim.efi", "shimx64.efi"),
            ("ipxeboot/x86_64-sb/snponly-shim.efi", "shimx64.efi"),
            ("ipxeboot/ipxe.efi", "x86_64/ipxe.efi"),
            ("ipxeboot/ipxe-legacy.efi", "x86_64/ipxe-legacy.efi"),
            ("ipxeboot/ipxe-legacy.pxe", "x86_64/ipxe-legacy.pxe"),
            ("ipxeboot/ipxe.pxe", "x86_64/ipxe.pxe"),
            ("ipxeboot/sb", "x86_64-sb"),
            ("ipxeboot/snponly.efi", "x86_64/snponly.efi"),
            ("ipxeboot/undionly.kpxe", "x86_64/undionly.kpxe"),
        ] {
            items.push(link(path, target));
        }
        items
    }

    fn flaw(items: &[Item]) -> String {
        unpack(&tar_gz(items)).unwrap_err().to_string()
    }

    #[test]
    fn a_release_is_its_nbps_by_architecture_without_what_no_client_runs() {
        let unpacked = unpack(&tar_gz(&release())).unwrap();
        let names: Vec<_> = unpacked.nbps.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "arm32/ipxe-legacy.efi",
                "arm32/ipxe.efi",
                "arm32/snponly.efi",
                "arm64-sb/ipxe.efi",
                "arm64-sb/shimaa64.efi",
                "arm64-sb/snponly.efi",
                "arm64/ipxe-legacy.efi",
                "arm64/ipxe.efi",
                "arm64/snponly.efi",
                "i386/ipxe-legacy.efi",
                "i386/ipxe-legacy.pxe",
                "i386/ipxe.efi",
                "i386/ipxe.pxe",
                "i386/snponly.efi",
                "i386/undionly.kpxe",
                "riscv64/ipxe-legacy.efi",
                "riscv64/ipxe.efi",
                "riscv64/snponly.efi",
                "x86_64-sb/ipxe.efi",
                "x86_64-sb/shimx64.efi",
                "x86_64-sb/snponly.efi",
                "x86_64/ipxe-legacy.efi",
                "x86_64/ipxe-legacy.pxe",
                "x86_64/ipxe.efi",
                "x86_64/ipxe.pxe",
                "x86_64/snponly.efi",
                "x86_64/undionly.kpxe",
            ]
        );
        assert_eq!(unpacked.left_out, 6);
        assert_eq!(unpacked.nbps["i386/snponly.efi"], pe(0x014c));
    }

    #[test]
    fn what_leads_out_of_the_archive_is_refused() {
        let nbp = file("bin/undionly.kpxe", bios());
        for (item, told) in [
            (file("../undionly.kpxe", bios()), "../undionly.kpxe"),
            (file("bin/../../undionly.kpxe", bios()), "bin/../../undionly.kpxe"),
            (file("/etc/undionly.kpxe", bios()), "/etc/undionly.kpxe"),
            (link("bin/a.efi", "/etc/shadow"), "bin/a.efi -> /etc/shadow"),
            (link("bin/a.efi", "../../a.efi"), "bin/a.efi -> ../../a.efi"),
            (("a.efi", EntryType::Link, "../a.efi", Vec::new()), "a.efi -> ../a.efi"),
            (link("a\x1b[2J.efi", "/"), "a\\u{1b}[2J.efi -> /"),
        ] {
            let expected = format!("it holds `{told}`, which leads out of the archive");
            assert_eq!(flaw(&[nbp.clone(), item]), expected);
        }
        let fine = [nbp, link("bin/a.efi", "../bin/undionly.kpxe")];
        assert_eq!(unpack(&tar_gz(&fine)).unwrap().nbps.len(), 1);
    }

    #[test]
    fn what_is_no_file_and_what_is_too_much_is_refused() {
        let pipe = ("bin/pipe", EntryType::Fifo, "", Vec::new());
        assert_eq!(
            flaw(&[pipe]),
            "it holds `bin/pipe`, which is neither a file nor a folder nor a link"
        );
        let large = file("a.efi", vec![0; (MAX_FILE + 1) as usize]);
        assert_eq!(flaw(&[large]), "it holds `a.efi`, which is larger than 32 MiB: no NBP is");
        let many = vec![file("a", ""); MAX_ENTRIES + 1];
        assert_eq!(flaw(&many), "it holds more than 4096 entries");
        let twice = [file("a/bin/x.kpxe", bios()), file("b/bin/x.kpxe", bios())];
        assert_eq!(flaw(&twice), "it holds two files for `bin/x.kpxe`");
    }

    #[test]
    fn a_bomb_is_refused_before_it_has_grown() {
        let mut bytes = tar_gz(&[file("bin/undionly.kpxe", bios())]);
        let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
        bomb.write_all(&[0; 1 << 20]).unwrap();
        bytes.extend(bomb.finish().unwrap());
        assert_eq!(unpack_at_most(&bytes, 1 << 20), Err(Flaw::Large));
        assert_eq!(unpack_at_most(&bytes, 1 << 21).map(|unpacked| unpacked.nbps.len()), Ok(1));
        assert_eq!(Flaw::Large.to_string(), "it holds more than 256 MiB");
    }

    #[test]
    fn what_is_no_archive_or_only_half_of_one_is_refused() {
        let whole = tar_gz(&release());
        assert_eq!(unpack(b"<html>").unwrap_err().to_string(), "it is no .tar.gz archive");
        let broken = "it is cut off, damaged, or not made by tar";
        for cut in [10, whole.len() / 2, whole.len() - 1] {
            assert_eq!(unpack(&whole[..cut]).unwrap_err().to_string(), broken, "{cut}");
        }
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert_eq!(unpack(&damaged).unwrap_err().to_string(), broken);
        let mut no_tar = GzEncoder::new(Vec::new(), Compression::fast());
        no_tar.write_all(&[b'x'; 2048]).unwrap();
        assert_eq!(unpack(&no_tar.finish().unwrap()).unwrap_err().to_string(), broken);
    }

    #[test]
    fn an_archive_without_nbps_says_what_it_holds() {
        assert_eq!(flaw(&[]), "it holds no NBP: it is empty");
        assert_eq!(
            flaw(&[file("x/README", "text"), file("x/undionly.kpxe", "<html>")]),
            "it holds no NBP: only x/README, x/undionly.kpxe"
        );
        let many = ["a", "b", "c", "d", "._snponly.efi", "e", "f"].map(|name| file(name, ""));
        assert_eq!(flaw(&many), "it holds no NBP: only a, b, c, d, ._snponly.efi and 2 more");
    }
}
