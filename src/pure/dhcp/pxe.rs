//! The PXE options of a request: who is asking, and how far its boot has come.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use uuid::Uuid;

use super::packet::{Options, Request, option};
use crate::pure::client::{Arch, Client, Mac, Stage};

/// Option 60 of a PXE client, and of every reply to one.
pub const PXE_CLIENT: &str = "PXEClient";
/// Option 60 of a UEFI HTTP Boot client, and of every reply to one.
pub const HTTP_CLIENT: &str = "HTTPClient";

/// Why a DHCP client is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Option 60 is neither `PXEClient…` nor `HTTPClient…`.
    #[error("it is no PXE client: its option 60 is neither `PXEClient…` nor `HTTPClient…`")]
    NotPxe,
    /// Its ROM says x86 BIOS, and runs none of it.
    #[error("it is a Raspberry Pi's boot ROM, which takes no NBP")]
    RaspberryPi,
}

/// The first three bytes of the MAC addresses of Raspberry Pis, whose boot ROM says that it is an x86
/// BIOS (option 93 of 0). An iPXE on one says what it is.
const RASPBERRY_PI: [[u8; 3]; 5] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
];

/// Says who sent a request.
///
/// # Errors
/// It is not network booting, or not as it says.
pub fn client(request: &Request) -> Result<Client, NotOurs> {
    let class = request.options.get(option::VENDOR_CLASS).unwrap_or_default();
    let firmware = if class.starts_with(PXE_CLIENT.as_bytes()) {
        Stage::Pxe
    } else if class.starts_with(HTTP_CLIENT.as_bytes()) {
        Stage::HttpBoot
    } else {
        return Err(NotOurs::NotPxe);
    };
    // A chainloaded iPXE can inherit either class from the firmware that loaded it.
    let stage = if is_ipxe(request) { Stage::Ipxe } else { firmware };
    let (mac, arch) = (mac(request), arch(request, class));
    let maker = mac.map(|mac| {
        let [a, b, c, ..] = mac.octets();
        [a, b, c]
    });
    if stage == Stage::Pxe && arch == Arch::Bios && maker.is_some_and(|m| RASPBERRY_PI.contains(&m))
    {
        return Err(NotOurs::RaspberryPi);
    }
    Ok(Client {
        mac,
        arch: Some(arch),
        speaks_http: speaks_http(request),
        uuid: client_machine_id(request).and_then(uuid),
        ..Client::at(stage)
    })
}

/// What a client chose from a boot menu: sub-option 71 of option 43 (PXE 2.1 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootItem {
    kind: [u8; 2],
    layer: [u8; 2],
}

impl BootItem {
    /// Whether it asks for a boot server's credentials: the top bit of the layer.
    pub fn wants_credentials(self) -> bool {
        self.layer[0] & 0x80 != 0
    }

    /// The option 43 that takes note of it.
    pub fn echo(self) -> Vec<u8> {
        let Self { kind: [a, b], layer: [c, d] } = self;
        vec![71, 4, a, b, c, d, 0xff]
    }
}

/// The boot item in a request, where there is one.
pub fn boot_item(request: &Request) -> Option<BootItem> {
    let vendor_options = Options::read(request.options.get(option::VENDOR_OPTIONS)?);
    match vendor_options.get(71)? {
        [a, b, c, d] => Some(BootItem { kind: [*a, *b], layer: [*c, *d] }),
        _ => None,
    }
}

/// The MAC address, where `chaddr` holds one.
pub fn mac(request: &Request) -> Option<Mac> {
    let [a, b, c, d, e, f, ..] = request.chaddr;
    (request.hlen == 6).then(|| Mac::new([a, b, c, d, e, f]))
}

/// Whether iPXE asks. It sends its user class as four bare bytes; RFC 3004 has a length before each
/// class, which other loaders put there. gPXE is its ancestor. Option 175 is iPXE's own.
fn is_ipxe(request: &Request) -> bool {
    let classes = request.options.get(option::USER_CLASS).unwrap_or_default();
    let named =
        |name: &[u8]| classes == name || classes.windows(5).any(|w| w[0] == 4 && w[1..] == *name);
    named(b"iPXE") || named(b"gPXE") || request.options.get(option::IPXE).is_some()
}

/// Whether an iPXE has HTTP: its option 175 holds a flag for each of its features (sub-options 0x10 to
/// 0x4f), 0x13 for HTTP. One that tells of no feature at all is taken to have it.
fn speaks_http(request: &Request) -> bool {
    let told = Options::read(request.options.get(option::IPXE).unwrap_or_default());
    let mut features = told.codes().filter(|code| (0x10..=0x4f).contains(code)).peekable();
    features.peek().is_none() || features.any(|feature| feature == 0x13)
}

/// The first code of option 93 that is known; without one, what option 60 repeats
/// (`PXEClient:Arch:00007:UNDI:003016`); without that, BIOS, as the PXE 2.1 ROMs were that lacked it.
fn arch(request: &Request, class: &[u8]) -> Arch {
    let codes: Vec<u16> = match request.options.get(option::CLIENT_ARCH) {
        Some(data) => data.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect(),
        None => Vec::new(),
    };
    let repeated = || {
        let text = std::str::from_utf8(class).ok()?;
        text.split(':').skip_while(|part| *part != "Arch").nth(1)?.parse().ok()
    };
    let first = codes.first().copied().or_else(repeated).unwrap_or(0);
    let known = |arch: &Arch| !matches!(arch, Arch::Other(_));
    codes.into_iter().map(Arch::from_iana).find(known).unwrap_or(Arch::from_iana(first))
}

/// Option 97 as it must be echoed: type 0 and 16 bytes. A malformed one is left out of the reply.
pub fn client_machine_id(request: &Request) -> Option<&[u8]> {
    let data = request.options.get(option::CLIENT_MACHINE_ID)?;
    (data.len() == 17 && data[0] == 0).then_some(data)
}

/// The UUID of option 97, unless the board reports none.
fn uuid(data: &[u8]) -> Option<Uuid> {
    let uuid = Uuid::from_slice(data.get(1..)?).ok()?;
    (!uuid.is_nil() && !uuid.is_max()).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::dhcp::testing::{captured, request};

    fn read(options: &[(u8, &[u8])]) -> Result<Client, NotOurs> {
        client(&Request::decode(&request(1, options)).unwrap())
    }

    #[test]
    fn an_ipxe_tells_whether_it_has_http() {
        let table: [(&[u8], bool); 5] = [
            (b"", true),
            (b"\xb1\x05\x01\x1a\xf4\x10\x00", true),
            (b"\x15\x01\x01\x13\x01\x01\x18\x01\x01", true),
            (b"\x15\x01\x01\x18\x01\x01", false),
            (b"\x15\x01\x01\x13", false),
        ];
        for (features, speaks) in table {
            let client = read(&[(60, b"PXEClient"), (77, b"iPXE"), (175, features)]).unwrap();
            assert_eq!(client.speaks_http, speaks, "{features:02x?}");
        }
        for datagram in
            [captured!("bios-rom-ipxe-discover"), captured!("snponly-from-pxe-discover")]
        {
            assert!(client(&Request::decode(&datagram).unwrap()).unwrap().speaks_http);
        }
    }

    #[test]
    fn a_malformed_or_empty_machine_id_is_none() {
        let id = |data: &[u8]| {
            let datagram = request(1, &[(60, b"PXEClient"), (97, data)]);
            let request = Request::decode(&datagram).unwrap();
            (client_machine_id(&request).is_some(), client(&request).unwrap().uuid)
        };
        assert_eq!(id(&[0; 16]), (false, None));
        assert_eq!(id(&[1; 17]), (false, None));
        assert_eq!(id(&[0; 17]), (true, None), "echoed, but it names nobody");
        let mut real = [7; 17];
        real[0] = 0;
        assert_eq!(id(&real), (true, Some(Uuid::from_bytes([7; 16]))));
    }
}
