//! DHCP messages as firmware and iPXE write them, and what they read in a reply.

use std::net::Ipv4Addr;

use super::site::ROUTER;
use crate::pure::client::Mac;

/// Which software of a machine speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    Bios,
    Uefi,
    HttpBoot,
    Ipxe,
}

/// A message to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// Option 53.
    pub(super) kind: u8,
    pub(super) asker: Asker,
    /// Whether it runs on UEFI.
    pub(super) is_uefi: bool,
    pub(super) mac: Mac,
    pub(super) xid: u32,
    /// The address that the client has.
    pub(super) ciaddr: Ipv4Addr,
    /// The address that it takes.
    pub(super) takes: Option<Ipv4Addr>,
    pub(super) relay: Option<Ipv4Addr>,
}

pub(super) const DISCOVER: u8 = 1;
pub(super) const REQUEST: u8 = 3;

/// iPXE's features: HTTP, TFTP and menus.
const FEATURES: &[u8] = &[0x13, 1, 1, 0x18, 1, 1, 0x27, 1, 1];

impl Message {
    pub(super) fn encode(self) -> Vec<u8> {
        let Self { kind, asker, is_uefi, mac, xid, ciaddr, takes, relay } = self;
        let mut datagram = vec![0; 240];
        datagram[..3].copy_from_slice(&[1, 1, 6]);
        datagram[4..8].copy_from_slice(&xid.to_be_bytes());
        datagram[10] = 0x80;
        datagram[12..16].copy_from_slice(&ciaddr.octets());
        datagram[24..28].copy_from_slice(&relay.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        datagram[28..34].copy_from_slice(&mac.octets());
        datagram[236..].copy_from_slice(&[99, 130, 83, 99]);
        let mut add = |code: u8, data: &[u8]| {
            datagram.extend([code, u8::try_from(data.len()).expect("an option is short")]);
            datagram.extend(data);
        };
        add(53, &[kind]);
        let (class, arch): (&[u8], u8) = match (asker, is_uefi) {
            (Asker::HttpBoot, _) => (b"HTTPClient:Arch:00016:UNDI:003001", 16),
            (Asker::Bios | Asker::Uefi | Asker::Ipxe, true) => {
                (b"PXEClient:Arch:00007:UNDI:003016", 7)
            }
            (Asker::Bios | Asker::Uefi | Asker::Ipxe, false) => {
                (b"PXEClient:Arch:00000:UNDI:002001", 0)
            }
        };
        add(60, class);
        add(93, &[0, arch]);
        if asker == Asker::Ipxe {
            add(77, b"iPXE");
            add(175, FEATURES);
        }
        if let Some(address) = takes {
            add(50, &address.octets());
            add(54, &ROUTER.octets());
        }
        datagram.push(255);
        datagram
    }
}

/// What a client reads in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) xid: u32,
    pub(super) mac: Mac,
    pub(super) boot_file: String,
    /// Whether option 43 says to load that at once.
    pub(super) is_final: bool,
}

impl Reply {
    pub(super) fn read(datagram: &[u8]) -> Self {
        let file: Vec<u8> =
            datagram[108..236].iter().copied().take_while(|byte| *byte != 0).collect();
        let mut rest = &datagram[240..];
        let mut is_final = false;
        while let [code @ 1..=254, len, after @ ..] = rest {
            is_final |= *code == 43;
            rest = &after[usize::from(*len)..];
        }
        Self {
            xid: u32::from_be_bytes(datagram[4..8].try_into().expect("four bytes")),
            mac: Mac::new(datagram[28..34].try_into().expect("six bytes")),
            boot_file: String::from_utf8(file).expect("names are ASCII"),
            is_final,
        }
    }
}
