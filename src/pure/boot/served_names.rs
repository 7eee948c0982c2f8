//! From a name that a client sends to a file on this host: the only place where that happens, for
//! TFTP and HTTP alike. A client's string is looked up among what is served; it never becomes a path.

use std::path::PathBuf;
use std::time::SystemTime;

use super::decide::{Ignored, UnderItsName, decide_by_name};
use super::urls;
use crate::pure::catalog::image_set::{FILE, INITRAMFS, KERNEL, KERNEL_NAME, initrd_name};
use crate::pure::catalog::image_status::{Coming, Shelf};
use crate::pure::catalog::nbp::Nbp;
use crate::pure::catalog::server::Naming;
use crate::pure::catalog::{Catalog, Files};
use crate::pure::client::Mac;
use crate::pure::client::boot_id::BootId;
use crate::pure::machine::state::MachineState;
use crate::pure::printable::is_hidden;

/// Why a name is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing is served under it.
    #[error("nothing is served under this name")]
    Unknown,
    /// It climbs out of its folder, or holds control characters.
    #[error("this is no name of a file")]
    NoName,
    /// The decision says so.
    #[error(transparent)]
    Decided(Ignored),
    /// The image is on its way.
    #[error("image {0} is on its way")]
    Coming(String, Coming),
}

/// What a name asks for, over TFTP or under `/nbp/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An NBP.
    Nbp(Nbp),
    /// A kernel or an initrd, for boot loaders that know TFTP only: its name, as `talos/kernel`, and its
    /// file.
    Image(String, PathBuf),
    /// What an NBP other than iPXE loads by itself: its name, as `ldlinux.c32`, and its file.
    Companion(String, PathBuf),
    /// A machine's own script, `5c-f3-fc-00-00-01.ipxe`, in whatever folder: for an iPXE without HTTP.
    Script(Mac),
    /// `autoexec.ipxe`, in whatever folder: newer EFI builds of iPXE look for it in the one that they
    /// came from, then in the root. With the name that it was asked for by.
    Autoexec(String),
}

/// What files are served from.
#[derive(Clone, Copy, Debug)]
pub struct Served<'a> {
    /// What there is to boot.
    pub catalog: &'a Catalog,
    /// Who tells machines their boot file.
    pub naming: Naming,
    /// Which of the images that are fetched are here.
    pub shelf: &'a Shelf,
}

/// What a name asks for, from what is served and from what is remembered of who asks.
///
/// # Errors
/// It is no name, nothing is served under it, or not to this client.
pub fn asked(
    name: &[u8],
    served: Served<'_>,
    (state, now): (&MachineState, SystemTime),
) -> Result<Asked, Refusal> {
    let cleaned = cleaned(name)?;
    let (_, cleaned) = urls::of_boot(&cleaned);
    let cleaned = cleaned.to_owned();
    let file = cleaned.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    if let Some(script) = file.strip_suffix(".ipxe") {
        return match script.parse() {
            Ok(mac) => Ok(Asked::Script(mac)),
            Err(_) if script == "autoexec" => Ok(Asked::Autoexec(cleaned)),
            Err(_) => Err(Refusal::Unknown),
        };
    }
    if let Some((name, path)) = served.catalog.nbps.companion(&cleaned) {
        return Ok(Asked::Companion(name.clone(), path.clone()));
    }
    let Some(nbp) = served.catalog.nbps.named(&cleaned) else {
        let (image, part) = cleaned.rsplit_once('/').ok_or(Refusal::Unknown)?;
        // As over HTTP, or without its first folder.
        let image = image.strip_prefix("images/").unwrap_or(image);
        let path = image_part(image, part, None, served)?;
        return Ok(Asked::Image(format!("{image}/{part}"), path));
    };
    match decide_by_name(&nbp.name, served.naming, (state, now)).map_err(Refusal::Decided)? {
        UnderItsName::Nbp => Ok(Asked::Nbp(nbp.clone())),
        UnderItsName::Autoexec => Ok(Asked::Autoexec(nbp.name.clone())),
    }
}

/// The id of the boot that a name over TFTP carries.
pub fn boot_of(name: &[u8]) -> Option<BootId> {
    urls::of_boot(&cleaned(name).ok()?).0
}

/// Which file `/images/<image>/<part>` means: `kernel`, `initrd`, `initrd.1`, …; of a set with a mark, where
/// that is asked for.
///
/// # Errors
/// There is no such image or part, or it is not here yet.
pub fn image_part(
    image: &str,
    part: &str,
    mark: Option<&str>,
    Served { catalog, naming: _, shelf }: Served<'_>,
) -> Result<PathBuf, Refusal> {
    // A boot that has begun with a set goes on with it.
    if let Some(set) = mark.and_then(|mark| shelf.marked(mark)) {
        let made = if part == KERNEL_NAME { KERNEL } else { INITRAMFS };
        return Ok(set.folder.join(if set.base.is_some() { made } else { FILE }));
    }
    let image = catalog.images.get(image).ok_or(Refusal::Unknown)?;
    let Files { kernel, initrds } = &image.files;
    let initrd = || {
        let mut initrds = initrds.iter().enumerate();
        initrds.find_map(|(index, initrd)| (part == initrd_name(index)).then_some(initrd))
    };
    let part = if part == KERNEL_NAME { Some(kernel) } else { initrd() };
    let path = shelf.path(part.ok_or(Refusal::Unknown)?);
    path.map_err(|coming| Refusal::Coming(image.name.clone(), coming))
}

/// Makes a served name of what firmware sends: `\` for `/`, a drive letter, `tftp://` and the host,
/// leading slashes, and garbage behind the name (UEFI before 2014 and some Intel ROMs read past the
/// end of option 67, up to the 0xff that ends the options and beyond it).
fn cleaned(name: &[u8]) -> Result<String, Refusal> {
    let name = name.split(|byte| matches!(byte, 0 | 0xff)).next().unwrap_or_default();
    let printable = |byte: &u8| (0x20..0x7f).contains(byte);
    let end = name.iter().rposition(printable).map_or(0, |last| last + 1);
    let name = std::str::from_utf8(&name[..end]).map_err(|_| Refusal::Unknown)?;
    if name.contains(is_hidden) {
        return Err(Refusal::NoName);
    }
    let name = name.replace('\\', "/");
    let name = match name.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => &name,
    };
    let name = match name.as_bytes() {
        [drive, b':', ..] if drive.is_ascii_alphabetic() => &name[2..],
        _ => name,
    };
    let name = name.trim_start_matches('/');
    if name.split('/').any(|part| part == "..") {
        return Err(Refusal::NoName);
    }
    if name.is_empty() {
        return Err(Refusal::Unknown);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pure::catalog::image_set::SetId;
    use crate::pure::catalog::image_status::{Set, Standing};
    use crate::pure::catalog::nbp::{Nbp, Nbps};
    use crate::pure::catalog::{Image, Part};
    use crate::pure::client::Arch;

    fn catalog(images: &[(&str, Part, &[Part])]) -> Catalog {
        let mut catalog = Catalog::default();
        for (name, kernel, initrds) in images {
            let image = Image {
                name: (*name).to_owned(),
                files: Files { kernel: kernel.clone(), initrds: initrds.to_vec() },
                missing: None,
                cmdline: Vec::new(),
                talos: None,
            };
            catalog.images.insert((*name).to_owned(), Arc::new(image));
        }
        catalog
    }

    /// What a client gets that asks for this name where `undionly.kpxe`, `x86_64/snponly.efi` and an image
    /// are served.
    fn served(name: &[u8]) -> Result<Asked, Refusal> {
        let mut nbps = Nbps::default();
        for (name, arch) in [("undionly.kpxe", Arch::Bios), ("x86_64/snponly.efi", Arch::UefiX64)] {
            nbps.add(Nbp { name: name.into(), path: name.into(), arch, folder: 0 });
        }
        let [kernel, first, second] =
            ["/linux", "/first", "/second"].map(|path| Part::Own(path.into()));
        let mut catalog = catalog(&[("talos", kernel, &[first, second])]);
        catalog.nbps = nbps;
        let (naming, shelf) = (Naming::ByUs, &Shelf::default());
        let served = Served { catalog: &catalog, naming, shelf };
        asked(name, served, (&MachineState::default(), SystemTime::UNIX_EPOCH))
    }

    fn nbp(name: &str) -> Result<Asked, Refusal> {
        let arch = if name.ends_with(".efi") { Arch::UefiX64 } else { Arch::Bios };
        Ok(Asked::Nbp(Nbp { name: name.into(), path: name.into(), arch, folder: 0 }))
    }

    /// iPXE sends what follows the slash of a URL, Windows' ROMs write `\` and shout (tftpd(8), `-m`),
    /// some UEFI send the whole URL.
    #[test]
    fn every_way_in_which_firmware_spells_a_name_is_that_name() {
        for name in [
            "undionly.kpxe",
            "/undionly.kpxe",
            "//undionly.kpxe",
            "\\undionly.kpxe",
            "C:\\undionly.kpxe",
            "c:/undionly.kpxe",
            "tftp://10.0.0.2/undionly.kpxe",
            "TFTP://10.0.0.2:69//undionly.kpxe",
            "UNDIONLY.KPXE",
            "\\UndiOnly.kpxe",
        ] {
            assert_eq!(served(name.as_bytes()), nbp("undionly.kpxe"), "{name:?}");
        }
        for name in ["x86_64/snponly.efi", "\\x86_64\\SNPONLY.EFI", "/X86_64/snponly.efi"] {
            assert_eq!(served(name.as_bytes()), nbp("x86_64/snponly.efi"), "{name:?}");
        }
    }

    /// syslinux mailing list 2008-02 (9778) and 2014-03 (21918), edk2 8cb92971e4: what stands behind the
    /// name in memory.
    #[test]
    fn what_was_read_past_the_end_of_a_name_is_no_part_of_it() {
        for name in [
            &b"undionly.kpxe\xff"[..],
            b"undionly.kpxe\xff\xff",
            b"undionly.kpxe\xff\x00\x12junk",
            b"undionly.kpxe\xff\x12junk",
            b"undionly.kpxe\x00\x43\x04junk",
            b"undionly.kpxe\n",
            b"undionly.kpxe\r\n\x80\xfe",
        ] {
            assert_eq!(served(name), nbp("undionly.kpxe"), "{name:?}");
        }
    }

    /// ipxe efi_autoexec.c asks in the folder that it came from, then in the root (seen).
    #[test]
    fn autoexec_is_found_in_every_folder() {
        for (name, file) in [
            ("autoexec.ipxe", "autoexec.ipxe"),
            ("x86_64/autoexec.ipxe", "x86_64/autoexec.ipxe"),
            ("/x64\\AUTOEXEC.IPXE", "x64/AUTOEXEC.IPXE"),
        ] {
            assert_eq!(served(name.as_bytes()), Ok(Asked::Autoexec(file.into())), "{name:?}");
        }
    }

    /// RFC 1350: an iPXE without HTTP has this way only. `${mac:hexhyp}` is how iPXE writes it.
    #[test]
    fn a_machines_script_is_found_in_every_folder() {
        let mac = Mac::new([0x5c, 0xf3, 0xfc, 0, 0, 1]);
        for name in ["5c-f3-fc-00-00-01.ipxe", "/boot/5C-F3-FC-00-00-01.IPXE", "5cf3fc000001.ipxe"]
        {
            assert_eq!(served(name.as_bytes()), Ok(Asked::Script(mac)), "{name:?}");
        }
        for name in ["oden.ipxe", "5c-f3-fc-00-00.ipxe", ".ipxe", "5c-f3-fc-00-00-01"] {
            assert_eq!(served(name.as_bytes()), Err(Refusal::Unknown), "{name:?}");
        }
    }

    /// Boot loaders that know TFTP only, as GRUB and PXELINUX do.
    #[test]
    fn a_part_of_an_image_is_found_under_its_name_and_under_its_path_over_http() {
        for (name, part, path) in [
            ("talos/kernel", "talos/kernel", "/linux"),
            ("/images/talos/kernel", "talos/kernel", "/linux"),
            ("talos/initrd", "talos/initrd", "/first"),
            ("images\\talos\\initrd.1", "talos/initrd.1", "/second"),
        ] {
            let image = Asked::Image(part.into(), path.into());
            assert_eq!(served(name.as_bytes()), Ok(image), "{name:?}");
        }
        for name in ["talos/initrd.2", "talos", "kernel", "talos/", "talos/linux", "none/kernel"] {
            assert_eq!(served(name.as_bytes()), Err(Refusal::Unknown), "{name:?}");
        }
    }

    #[test]
    fn a_boot_that_has_begun_with_a_set_has_the_rest_of_it_whatever_the_config_has_by_now() {
        let (made, web) = (SetId::new("made"), SetId::new("web"));
        let part_of = |set: &SetId, file| Part::Fetched(set.clone(), file);
        let catalog = catalog(&[
            ("t", part_of(&made, KERNEL), &[part_of(&made, INITRAMFS)]),
            ("u", part_of(&web, FILE), &[]),
        ]);
        let naming = Naming::ByUs;
        let mut shelf = Shelf::default();
        let coming = |part| {
            let shelf = &Shelf::default();
            image_part("t", part, None, Served { catalog: &catalog, naming, shelf })
        };
        assert!(matches!(coming("kernel"), Err(Refusal::Coming(..))));
        let mut here = |set: &SetId, mark: &str, is_made: bool| {
            let base = is_made.then(Vec::new);
            let set_here = Set { folder: mark.into(), mark: mark.into(), base, talos: None };
            shelf.sets.insert(set.clone(), Standing::Here(set_here));
        };
        here(&made, "now", true);
        here(&web, "web", false);
        here(&SetId::new("before"), "then", true);
        let part = |image, part, mark| {
            let served = Served { catalog: &catalog, naming, shelf: &shelf };
            let path = image_part(image, part, mark, served);
            path.unwrap().display().to_string()
        };
        assert_eq!(part("t", "initrd", None), "now/initramfs.xz");
        assert_eq!(part("t", "initrd", Some("now")), "now/initramfs.xz");
        assert_eq!(part("t", "initrd", Some("then")), "then/initramfs.xz");
        assert_eq!(part("t", "kernel", Some("then")), "then/kernel");
        assert_eq!(part("t", "kernel", Some("gone")), "now/kernel");
        assert_eq!(part("u", "kernel", Some("web")), "web/file");
    }

    /// dnsmasq's CVE-2009-2957 and 2958 and atftpd's history: what never becomes a path cannot climb.
    #[test]
    fn what_climbs_or_hides_something_is_no_name() {
        for name in [
            &b"../etc/passwd"[..],
            b"a/../../x",
            b"..\\x",
            b"x86_64/../undionly.kpxe",
            b"C:\\..\\x",
            b"tftp://10.0.0.2/../x",
            b"a\x01b",
            b"undi\x1b[2Jonly.kpxe",
            b"undionly.kpxe/..",
        ] {
            assert_eq!(served(name), Err(Refusal::NoName), "{name:?}");
        }
    }

    /// A name that is not UTF-8 is answered as any other: the `tftpd` crate says nothing to it.
    #[test]
    fn what_is_not_served_is_unknown() {
        for name in [
            &b""[..],
            b"/",
            b"tftp://10.0.0.2",
            b"C:",
            b"\xff\xfe",
            b"caf\xe9.efi",
            b"/etc/passwd",
            b"%2e%2e/etc/passwd",
            b"snponly.efi",
            b"undionly.kpx",
            b"undionly.kpxe/x",
        ] {
            assert_eq!(served(name), Err(Refusal::Unknown), "{name:?}");
        }
    }
}
