//! Where a machine fetches what was decided: the addresses that offers and scripts name, and that the
//! HTTP server answers. They stand here once, so that what is named is what is served.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Arch, Client, Facts, Mac};

/// What may stand in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The beginning of every address: `http://192.168.1.2:8080`.
pub fn base(address: Ipv4Addr, port: u16) -> String {
    format!("http://{address}:{port}")
}

/// The same for an iPXE without HTTP, to which everything comes over TFTP.
///
/// iPXE sends nothing over TFTP that stands behind a `?`, so the id of a boot is a folder there.
pub fn tftp_base(at: SocketAddrV4, id: Option<BootId>) -> String {
    let folder = id.map(|id| format!("/{BOOT_FOLDER}{}", id.digits())).unwrap_or_default();
    format!("tftp://{at}{folder}")
}

/// What the folder begins with that stands for a boot over TFTP.
const BOOT_FOLDER: &str = "boot-";

/// The id of the boot that a name over TFTP belongs to, and the name without it.
pub fn of_boot(name: &str) -> (Option<BootId>, &str) {
    let split = name.strip_prefix(BOOT_FOLDER).and_then(|rest| rest.split_once('/'));
    match split.and_then(|(digits, rest)| Some((digits.parse().ok()?, rest))) {
        Some((id, rest)) => (Some(id), rest),
        None => (None, name),
    }
}

/// A machine's script, as DHCP offers it: it must fit the BOOTP `file` field.
pub fn script(base: &str, mac: Mac) -> String {
    format!("{base}/boot/{}.ipxe", mac.hyphenated())
}

/// The same script, as a script names it: with all that this client has told and chosen, so that
/// asking again gets the same answer, and with the id of its boot. There is always a query, so that more may follow an `&`.
pub fn script_again(base: &str, mac: Mac, client: &Client, id: Option<BootId>) -> String {
    let mut url = format!("{}?mac={mac}{}", script(base, mac), id_in_query(id));
    let mut add = |name: &str, value: &str| {
        url += &format!("&{name}={}", utf8_percent_encode(value, QUERY));
    };
    if let Some(Facts { serial, product, vendor, cpu, has_v2, nic }) = &client.facts {
        add("uuid", &client.uuid.map(|uuid| uuid.to_string()).unwrap_or_default());
        for (name, fact) in [("serial", serial), ("product", product), ("vendor", vendor)] {
            add(&format!("{name}{IN_HEX}"), &hex(fact.as_deref().unwrap_or_default()));
        }
        // In iPXE's own words, as it tells them.
        if let Some((platform, arch)) = client.arch.and_then(platform) {
            add("platform", platform);
            add("arch", arch);
        }
        if let Some(cpu) = cpu {
            add("cpu", &cpu.to_string());
        }
        if let Some(has_v2) = has_v2 {
            add("v2", if *has_v2 { YES } else { "no" });
        }
        if let Some(nic) = nic {
            add("nic", &nic.busid());
        }
    }
    if let Some(choice) = &client.choice {
        add("profile", choice);
    }
    url
}

fn id_in_query(id: Option<BootId>) -> String {
    id.map(|id| format!("&{ID}={}", id.digits())).unwrap_or_default()
}

/// The id of the boot that a request belongs to.
pub const ID: &str = "id";
/// What iPXE adds to that address once it could not start the local disk.
pub const NO_DISK: (&str, &str) = ("disk", "failed");
/// What it adds once it has all that it boots, and the kernel did not start.
pub const NOT_STARTED: (&str, &str) = ("boot", "failed");

/// What a script's address tells behind its `?`, as [`script_again`] and iPXE write it.
///
/// A machine's SMBIOS strings may hold anything. iPXE's `:uristring` leaves `&`, `=`, `"`, `<` and `>` as they
/// are, `${…}` in a string is expanded once more on its way, and what a script writes with `%` is decoded and
/// written anew before it is sent (`core/uri.c`, `core/settings.c`; seen with Debian 12's). So they come as
/// hexadecimal bytes, `43-5a-31`, which iPXE's `:hexhyp` makes of them, each under a name that says so; as
/// plain text they are read too.
pub fn told(query: &str) -> BTreeMap<&'static str, String> {
    let mut told = BTreeMap::new();
    for (name, value) in query.split('&').filter_map(|part| part.split_once('=')) {
        let decoded = match name.strip_suffix(IN_HEX) {
            Some(_) => from_hex(value),
            None => Some(percent_decode_str(value).decode_utf8_lossy().into_owned()),
        };
        let name = name.strip_suffix(IN_HEX).unwrap_or(name);
        let known = TOLD.iter().find(|known| **known == name);
        if let (Some(name), Some(value)) = (known, decoded) {
            told.entry(*name).or_insert(value);
        }
    }
    told
}

/// What the name of a fact ends with that is told in hexadecimal bytes.
const IN_HEX: &str = "_hex";

/// The bytes of a text as iPXE's `:hexhyp` writes them.
pub fn hex(text: &str) -> String {
    let mut written = String::with_capacity(3 * text.len());
    for (at, byte) in text.bytes().enumerate() {
        let hyphen = if at == 0 { "" } else { "-" };
        // Writing to a `String` cannot fail.
        let _ = write!(written, "{hyphen}{byte:02x}");
    }
    written
}

fn from_hex(digits: &str) -> Option<String> {
    if digits.is_empty() {
        return Some(String::new());
    }
    let is_byte = |pair: &str| pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit());
    let byte = |pair: &str| is_byte(pair).then(|| u8::from_str_radix(pair, 16).ok())?;
    let bytes: Option<Vec<u8>> = digits.split('-').map(byte).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

/// The names in a script's address.
const TOLD: [&str; 14] = [
    "mac",
    ID,
    "uuid",
    "serial",
    "product",
    "vendor",
    "platform",
    "arch",
    "cpu",
    "v2",
    "nic",
    "profile",
    NO_DISK.0,
    NOT_STARTED.0,
];

/// What a CPU of the level x86-64-v2 is told as.
const YES: &str = "yes";

/// Whether a CPU is of the level x86-64-v2, as a script's address tells it.
pub fn has_v2(told: &str) -> Option<bool> {
    match told {
        YES => Some(true),
        "no" => Some(false),
        _ => None,
    }
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

/// Where a machine's own files are, each by its name behind this: of the boot with this file id.
pub fn files(base: &str, mac: Mac, file_id: Option<BootId>) -> String {
    let folder = file_id.map(|id| format!("{}/", id.digits())).unwrap_or_default();
    format!("{base}/files/{}/{folder}", mac.hyphenated())
}

/// One of a machine's own files, as an installer fetches it.
pub fn file(base: &str, mac: Mac, file_id: Option<BootId>, name: &str) -> String {
    files(base, mac, file_id) + name
}

/// An NBP, for UEFI HTTP Boot: the address ends as the name does, in `.efi`.
pub fn nbp(base: &str, name: &str) -> String {
    format!("{base}/nbp/{name}")
}

/// A part of an image; the MAC and the id say which machine's boot the fetch belongs to.
///
/// With the mark of the set that it is of, so that kernel and initrd are of one, whatever is taken up in between.
pub fn image(
    base: &str,
    (image, part): (&str, &str),
    (mac, id): (Mac, Option<BootId>),
    mark: Option<&str>,
) -> String {
    let set = mark.map(|mark| format!("&set={mark}")).unwrap_or_default();
    format!("{base}/images/{image}/{part}?mac={mac}{}{set}", id_in_query(id))
}

/// What the User-Agent of `reveille simulate` ends with.
pub const SIMULATION: &str = "(reveille simulate)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_tells_in_bytes_is_that_whatever_they_are() {
        let serial = "a\"b<c> #1&x=${net0/mac}\\%41+Ö😀";
        let client = Client {
            facts: Some(Facts { serial: Some(serial.into()), ..Facts::default() }),
            ..Client::at(crate::pure::client::Stage::Ipxe)
        };
        let again = script_again("http://x", Mac::new([2; 6]), &client, None);
        let query = again.split_once('?').unwrap().1;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_&=:".contains(c);
        assert!(query.chars().all(is_plain), "{query}");
        let told = told(query);
        let value = |name| told.get(name).map(String::as_str);
        assert_eq!((value("serial"), value("product")), (Some(serial), Some("")));
        assert_eq!((value("mac"), value("profile")), (Some("02:02:02:02:02:02"), None));
    }

    #[test]
    fn a_card_and_a_cpu_are_told_as_ipxe_tells_them() {
        let facts =
            Facts { nic: "14e4:1639".parse().ok(), has_v2: Some(false), ..Facts::default() };
        let client = Client { facts: Some(facts), ..Client::at(crate::pure::client::Stage::Ipxe) };
        let again = script_again("http://x", Mac::new([2; 6]), &client, None);
        assert!(again.ends_with("&v2=no&nic=01-14-e4-16-39"), "{again}");
        let told = told(again.split_once('?').unwrap().1);
        assert_eq!((has_v2(&told["v2"]), told["nic"].as_str()), (Some(false), "01-14-e4-16-39"));
        assert_eq!([has_v2("yes"), has_v2("")], [Some(true), None]);
    }

    /// `${serial:hexhyp}` of `CZ 1`, as Debian 12's iPXE writes it.
    #[test]
    fn bytes_are_written_as_ipxe_writes_them() {
        assert_eq!(hex("CZ 1"), "43-5a-20-31");
        assert_eq!(told("serial_hex=43-5A-20-31")["serial"], "CZ 1");
        for none in ["serial_hex=4", "serial_hex=zz", "serial_hex=43-", "serial_hex=+1"] {
            assert!(told(none).is_empty(), "{none}");
        }
        assert_eq!(told("serial_hex=ff")["serial"], "\u{fffd}");
        assert_eq!(told("serial=CZ%201&vendor=%C3%96")["serial"], "CZ 1");
    }

    #[test]
    fn the_id_of_a_boot_stands_in_every_address_of_it() {
        let (id, mac) = (BootId::new([0xab; 16]), Mac::new([2; 6]));
        let digits = "ab".repeat(16);
        let again =
            script_again("http://x", mac, &Client::at(crate::pure::client::Stage::Ipxe), Some(id));
        assert_eq!(told(again.split_once('?').unwrap().1)[ID], digits);
        assert!(
            image("http://x", ("i", "kernel"), (mac, Some(id)), None)
                .ends_with(&format!("&id={digits}"))
        );
        let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 69);
        assert_eq!(tftp_base(at, Some(id)), format!("tftp://127.0.0.1:69/boot-{digits}"));
        assert_eq!(
            of_boot(&format!("boot-{digits}/images/i/kernel")),
            (Some(id), "images/i/kernel")
        );
        for other in ["boot-x/images/i/kernel", "images/i/kernel", "boot-", ""] {
            assert_eq!(of_boot(other), (None, other));
        }
    }

    #[test]
    fn any_query_is_read_somehow() {
        for query in ["", "&", "=", "x", "&&x=1", "%", "serial=%", "serial=%ff%fe"] {
            assert!(told(query).len() <= 1, "{query}");
        }
        assert_eq!(told("serial=a&serial=b")["serial"], "a");
    }
}
