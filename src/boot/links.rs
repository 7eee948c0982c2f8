//! Where a machine fetches what was decided: the addresses that offers and scripts name, and that the
//! HTTP server answers. They stand here once, so that what is named is what is served.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

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

/// What a script's address tells behind its `?`, as [`script_again`] and iPXE write it.
///
/// iPXE's `:uristring` escapes blanks, `%`, `#`, `/`, `:`, `@` and `?` but not `&`, `=` and `+` (`core/uri.c`;
/// seen with Debian 12's): what stands behind an `&` and is none of ours belongs to the value before it, and
/// a `+` is a plus. That iPXE also writes a byte beyond ASCII with its sign, `%FFFFFFC3`, and what is encoded
/// once more on its way to the wire as `%FFFFFFFFFFFFC3`.
pub fn told(query: &str) -> BTreeMap<&'static str, String> {
    let mut told: Vec<(&'static str, String)> = Vec::new();
    for part in query.split('&') {
        let named = part.split_once('=').and_then(|(name, value)| {
            TOLD.iter().find(|known| **known == name).map(|known| (*known, value))
        });
        match (named, told.last_mut()) {
            (Some((name, value)), _) => told.push((name, value.to_owned())),
            (None, Some((_, before))) => *before += &format!("&{part}"),
            (None, None) => {}
        }
    }
    let decoded =
        |value: String| percent_decode_str(&unsigned(&value)).decode_utf8_lossy().into_owned();
    // The first of a name counts: what follows it may be a part of a value.
    told.into_iter().rev().map(|(name, value)| (name, decoded(value))).collect()
}

/// `%FFFFFFC3` as `%C3`.
fn unsigned(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut rest = part;
        while let Some(shorter) = rest.strip_prefix("FF") {
            rest = shorter;
        }
        let is_signed = part.len() >= rest.len() + 6;
        let is_byte = rest.starts_with(['8', '9', 'A', 'B', 'C', 'D', 'E', 'F']);
        text.push('%');
        text.push_str(if is_signed && is_byte { rest } else { part });
    }
    text
}

/// The names in a script's address.
const TOLD: [&str; 9] =
    ["mac", "uuid", "serial", "product", "vendor", "platform", "arch", "cpu", "profile"];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ipxe_does_not_escape_in_a_value_stays_in_it() {
        let query = "mac=52:54:00:00:00:01&uuid=&serial=CZ%201&2%253+4=5&&product=A&B=C&vendor=%C3%96&cpu=x64";
        let told = told(query);
        let value = |name| told.get(name).map(String::as_str);
        assert_eq!(value("serial"), Some("CZ 1&2%3+4=5&"));
        assert_eq!(value("product"), Some("A&B=C"));
        assert_eq!(value("vendor"), Some("Ö"));
        assert_eq!((value("uuid"), value("cpu"), value("profile")), (Some(""), Some("x64"), None));
        assert_eq!(told.get("mac").map(String::as_str), Some("52:54:00:00:00:01"));
    }

    #[test]
    fn a_byte_that_ipxe_writes_with_its_sign_is_that_byte() {
        for written in [
            "%C3%96x%F0%9F%98%80",
            "%FFFFFFC3%FFFFFF96x%FFFFFFF0%FFFFFF9F%FFFFFF98%FFFFFF80",
            "%FFFFFFFFFFFFC3%FFFFFFFFFFFF96x%FFFFFFFFFFFFF0%FFFFFFFFFFFF9F%FFFFFFFFFFFF98%FFFFFFFFFFFF80",
        ] {
            assert_eq!(told(&format!("serial={written}"))["serial"], "Öx😀", "{written}");
        }
        assert_eq!(told("serial=%25FFFFFFC3")["serial"], "%FFFFFFC3");
    }

    #[test]
    fn any_query_is_read_somehow() {
        for query in ["", "&", "=", "x", "&&x=1", "%", "serial=%", "serial=%ff%fe"] {
            assert!(told(query).len() <= 1, "{query}");
        }
        assert_eq!(told("serial=a&serial=b")["serial"], "a");
    }
}
