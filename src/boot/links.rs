//! Where a machine fetches what was decided: the addresses that offers and scripts name, and that the
//! HTTP server answers. They stand here once, so that what is named is what is served.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::Facts;
use super::{Arch, Client, Mac};

/// What may stand in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The beginning of every address: `http://192.168.1.2:8080`.
pub fn base(address: Ipv4Addr, port: u16) -> String {
    format!("http://{address}:{port}")
}

/// The same for an iPXE without HTTP, to which everything comes over TFTP.
pub fn tftp_base(at: SocketAddrV4) -> String {
    format!("tftp://{at}")
}

/// A machine's script, as DHCP offers it: it must fit the BOOTP `file` field.
pub fn script(base: &str, mac: Mac) -> String {
    format!("{base}/boot/{}.ipxe", mac.hyphenated())
}

/// The same script, as a script names it: with all that this client has told and chosen, so that
/// asking again gets the same answer. There is always a query, so that more may follow an `&`.
pub fn script_again(base: &str, mac: Mac, client: &Client) -> String {
    let mut url = format!("{}?mac={mac}", script(base, mac));
    let mut add = |name: &str, value: &str| {
        url += &format!("&{name}={}", utf8_percent_encode(value, QUERY));
    };
    if let Some(Facts { serial, product, vendor, cpu }) = &client.facts {
        add("uuid", &client.uuid.map(|uuid| uuid.to_string()).unwrap_or_default());
        for (name, fact) in [("serial", serial), ("product", product), ("vendor", vendor)] {
            add(name, fact.as_deref().unwrap_or_default());
        }
        // In iPXE's own words, as it tells them.
        if let Some((platform, arch)) = client.arch.and_then(platform) {
            add("platform", platform);
            add("arch", arch);
        }
        if let Some(cpu) = cpu {
            add("cpu", &cpu.to_string());
        }
    }
    if let Some(choice) = &client.choice {
        add("profile", choice);
    }
    url
}

/// What iPXE says of itself, `${platform}` and `${buildarch}`, on firmware of this kind.
fn platform(arch: Arch) -> Option<(&'static str, &'static str)> {
    PLATFORMS.iter().find(|(known, _)| *known == arch).map(|(_, words)| *words)
}

/// The firmware on which iPXE says this of itself. On BIOS it is `i386` whatever the CPU.
pub fn arch_of_platform(platform: &str, buildarch: &str) -> Option<Arch> {
    let is_it = |words: (&str, &str)| words == (platform, buildarch);
    let found = PLATFORMS.iter().find(|(_, words)| is_it(*words));
    found.map(|(arch, _)| *arch).or((platform == "pcbios").then_some(Arch::Bios))
}

const PLATFORMS: [(Arch, (&str, &str)); 6] = [
    (Arch::Bios, ("pcbios", "i386")),
    (Arch::UefiX86, ("efi", "i386")),
    (Arch::UefiX64, ("efi", "x86_64")),
    (Arch::UefiArm32, ("efi", "arm32")),
    (Arch::UefiArm64, ("efi", "arm64")),
    (Arch::UefiRiscv64, ("efi", "riscv64")),
];

/// Where a machine's own files are, each by its name behind this.
pub fn files(base: &str, mac: Mac) -> String {
    format!("{base}/files/{}/", mac.hyphenated())
}

/// One of a machine's own files, as an installer fetches it.
pub fn file(base: &str, mac: Mac, name: &str) -> String {
    files(base, mac) + name
}

/// An NBP, for UEFI HTTP Boot: the address ends as the name does, in `.efi`.
pub fn nbp(base: &str, name: &str) -> String {
    format!("{base}/nbp/{name}")
}

/// A part of an image; the MAC tells whose fetch it is.
pub fn image(base: &str, image: &str, part: &str, mac: Mac) -> String {
    format!("{base}/images/{image}/{part}?mac={mac}")
}
