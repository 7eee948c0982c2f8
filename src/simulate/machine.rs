//! The machine that is played: what it asks by DHCP, and what it makes of an answer.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;

use dhcproto::{Encodable, v4};
use uuid::Uuid;

use crate::pure::client::{Mac, PciId};
use crate::pure::dhcp::packet::{Offer, Options, option};
use crate::pure::dhcp::pxe::{HTTP_CLIENT, PXE_CLIENT};
use crate::pure::dhcp::survey::Prober;

/// The firmware that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// A BIOS with a PXE ROM.
    Bios,
    /// x86-64 UEFI, by PXE.
    Uefi,
    /// 32-bit x86 UEFI, by PXE.
    UefiX86,
    /// x86-64 UEFI, by HTTP Boot.
    UefiHttp,
    /// A card whose ROM is an iPXE, in a BIOS.
    Ipxe,
}

impl Firmware {
    /// iPXE's `${platform}` on it.
    pub const fn platform(self) -> &'static str {
        match self {
            Self::Bios | Self::Ipxe => "pcbios",
            Self::Uefi | Self::UefiX86 | Self::UefiHttp => "efi",
        }
    }
}

impl Firmware {
    /// iPXE's `${buildarch}` on it.
    pub const fn buildarch(self) -> &'static str {
        match self {
            Self::UefiX86 => "i386",
            Self::Bios | Self::Ipxe | Self::Uefi | Self::UefiHttp => "x86_64",
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI x86-64",
            Self::UefiX86 => "UEFI x86",
            Self::UefiHttp => "UEFI x86-64 with HTTP Boot",
            Self::Ipxe => "a card's own iPXE",
        })
    }
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its hardware address.
    pub mac: Mac,
    /// Its firmware.
    pub firmware: Firmware,
    /// What its SMBIOS tables say.
    pub smbios: Smbios,
    /// Its network card.
    pub nic: Option<PciId>,
}

/// What a board says of itself; an absent fact is one that it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Smbios {
    /// The system's UUID.
    pub uuid: Option<Uuid>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its product name.
    pub product: Option<String>,
    /// Its manufacturer.
    pub vendor: Option<String>,
}

/// How far the boot has come when the machine asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Its firmware.
    Firmware,
    /// The iPXE that was fetched.
    FetchedIpxe,
}

/// iPXE's features, as its option 175 has them: it has HTTP (0x13), TFTP and menus.
const FEATURES: &[u8] = &[0x13, 1, 1, 0x18, 1, 1, 0x27, 1, 1];

impl Machine {
    /// The DISCOVER. Its broadcast flag is set: we have no socket that a unicast offer could reach.
    pub fn discover(&self, asker: Asker, xid: u32) -> Vec<u8> {
        let mut message = self.message(asker, (v4::MessageType::Discover, Ipv4Addr::UNSPECIFIED));
        message.set_xid(xid).set_flags(v4::Flags::default().set_broadcast());
        message.to_vec().expect("short options always fit")
    }

    /// The REQUEST to a boot server, on port 4011, from this address. Without option 54, as UEFI sends
    /// it (edk2 PxeBcDhcp4.c).
    pub fn request(&self, from: Ipv4Addr, xid: u32) -> Vec<u8> {
        let mut message = self.message(Asker::Firmware, (v4::MessageType::Request, from));
        message.set_xid(xid);
        message.to_vec().expect("short options always fit")
    }

    fn message(&self, asker: Asker, (kind, ciaddr): (v4::MessageType, Ipv4Addr)) -> v4::Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new(ciaddr, none, none, none, &self.mac.octets());
        let ipxe = asker == Asker::FetchedIpxe || self.firmware == Firmware::Ipxe;
        let (class, arch) = match self.firmware {
            Firmware::Bios | Firmware::Ipxe => ("PXEClient:Arch:00000:UNDI:002001", 0),
            Firmware::UefiHttp if !ipxe => ("HTTPClient:Arch:00016:UNDI:003001", 16),
            Firmware::Uefi | Firmware::UefiHttp => ("PXEClient:Arch:00007:UNDI:003016", 7),
            Firmware::UefiX86 => ("PXEClient:Arch:00006:UNDI:003016", 6),
        };
        let prober = match asker {
            Asker::Firmware => Prober::Simulation,
            Asker::FetchedIpxe => Prober::SimulatedIpxe,
        };
        // What firmware asks for (RFC 4578 section 2.4, and iPXE's own).
        let wanted = [1, 3, 6, 43, 54, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135, 175];
        let mut machine_id = vec![0];
        machine_id.extend(self.smbios.uuid.unwrap_or_default().as_bytes());
        let options = message.opts_mut();
        options.insert(v4::DhcpOption::MessageType(kind));
        options.insert(v4::DhcpOption::ParameterRequestList(
            wanted.into_iter().map(v4::OptionCode::from).collect(),
        ));
        options.insert(v4::DhcpOption::MaxMessageSize(1472));
        options.insert(v4::DhcpOption::ClassIdentifier(class.into()));
        options.insert(v4::DhcpOption::ClientIdentifier(prober.mark().to_vec()));
        options.insert(v4::DhcpOption::ClientSystemArchitecture(v4::Architecture(arch)));
        options.insert(v4::DhcpOption::ClientNetworkInterface(1, 2, 1));
        options.insert(v4::DhcpOption::ClientMachineIdentifier(machine_id));
        if ipxe {
            options.insert(v4::DhcpOption::UserClass(b"iPXE".to_vec()));
            let features = v4::UnknownOption::new(option::IPXE.into(), FEATURES.to_vec());
            options.insert(v4::DhcpOption::Unknown(features));
        }
        message
    }

    /// Option 60 of an offer that its firmware, or its iPXE, takes.
    pub fn takes_class(&self, asker: Asker) -> &'static str {
        match (self.firmware, asker) {
            (Firmware::UefiHttp, Asker::Firmware) => HTTP_CLIENT,
            (
                Firmware::Bios
                | Firmware::Uefi
                | Firmware::UefiX86
                | Firmware::UefiHttp
                | Firmware::Ipxe,
                _,
            ) => PXE_CLIENT,
        }
    }
}

/// What a boot server named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who: option 54, else the sender.
    pub server: Ipv4Addr,
    /// Where it is fetched from: `siaddr`, else the server.
    pub next_server: Ipv4Addr,
    /// The file's name, or its URL: option 67, else `file`.
    pub boot_file: String,
    /// Whether it says that this is all that there is to ask: bit 3 of sub-option 6 of option 43 (PXE 2.1
    /// section 2.5).
    pub is_final: bool,
}

/// What an offer is to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A boot file.
    Boots(Named),
    /// A lease: that of the LAN's DHCP server.
    Lease(Ipv4Addr),
    /// Neither, and why.
    Other(Ipv4Addr, &'static str),
}

impl Heard {
    /// Reads an offer, or an ACK of port 4011, that came from there.
    pub fn new(offer: &Offer, from: Ipv4Addr, class: &str) -> Self {
        const DISCOVERY_CONTROL: u8 = 6;
        const JUST_DOWNLOAD: u8 = 8;
        let set = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
        let server = offer.options.address(option::SERVER_ID).and_then(set).unwrap_or(from);
        if set(offer.yiaddr).is_some() {
            return Self::Lease(server);
        }
        let vendor_class = offer.options.get(option::VENDOR_CLASS).unwrap_or_default();
        if !vendor_class.starts_with(class.as_bytes()) {
            return Self::Other(server, "its option 60 is not the machine's");
        }
        let text = |bytes: &[u8]| {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            Some(String::from_utf8_lossy(text).into_owned()).filter(|text| !text.is_empty())
        };
        let option_67 = offer.options.get(option::BOOT_FILE).and_then(text);
        let Some(boot_file) = option_67.or_else(|| text(&offer.file)) else {
            return Self::Other(server, "it names no boot file");
        };
        let vendor_options = offer.options.get(option::VENDOR_OPTIONS).unwrap_or_default();
        let control = Options::read(vendor_options).byte(DISCOVERY_CONTROL).unwrap_or(0);
        Self::Boots(Named {
            server,
            next_server: set(offer.siaddr).unwrap_or(server),
            boot_file,
            is_final: control & JUST_DOWNLOAD != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::client::{Arch, Stage};
    use crate::pure::dhcp::packet::{Reply, ReplyKind, Request};
    use crate::pure::dhcp::pxe;

    fn machine(firmware: Firmware) -> Machine {
        let uuid = Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        let smbios = Smbios { uuid: Some(uuid), ..Smbios::default() };
        Machine { mac: Mac::new([2, 0, 0, 0, 0, 1]), firmware, smbios, nic: None }
    }

    #[test]
    fn each_firmware_is_read_as_what_it_plays() {
        for (firmware, asker, stage, arch) in [
            (Firmware::Bios, Asker::Firmware, Stage::Pxe, Arch::Bios),
            (Firmware::Uefi, Asker::Firmware, Stage::Pxe, Arch::UefiX64),
            (Firmware::UefiX86, Asker::Firmware, Stage::Pxe, Arch::UefiX86),
            (Firmware::UefiHttp, Asker::Firmware, Stage::HttpBoot, Arch::UefiX64),
            (Firmware::Ipxe, Asker::Firmware, Stage::Ipxe, Arch::Bios),
            (Firmware::Bios, Asker::FetchedIpxe, Stage::Ipxe, Arch::Bios),
            (Firmware::UefiHttp, Asker::FetchedIpxe, Stage::Ipxe, Arch::UefiX64),
        ] {
            let machine = machine(firmware);
            let request = Request::decode(&machine.discover(asker, 7)).unwrap();
            let client = pxe::client(&request).unwrap();
            assert_eq!((client.stage, client.arch), (stage, Some(arch)), "{firmware}");
            assert_eq!((client.mac, client.uuid), (Some(machine.mac), machine.smbios.uuid));
            assert!(client.speaks_http);
            let prober = match asker {
                Asker::Firmware => Prober::Simulation,
                Asker::FetchedIpxe => Prober::SimulatedIpxe,
            };
            assert_eq!(Prober::of(&request), Some(prober));
        }
    }

    #[test]
    fn an_answer_is_a_boot_file_a_lease_or_neither() {
        let datagram = machine(Firmware::Bios).request(Ipv4Addr::new(10, 0, 0, 9), 7);
        let request = Request::decode(&datagram).unwrap();
        let us = Ipv4Addr::new(10, 0, 0, 2);
        let reply = Reply {
            kind: ReplyKind::Ack,
            next_server: us,
            boot_file: "undionly.kpxe".into(),
            vendor_class: PXE_CLIENT,
            vendor_options: Some(vec![6, 1, 8, 255]),
            client_machine_id: None,
            ipxe: None,
        };
        let heard = |reply: &Reply, class| {
            let offer = Offer::decode_ack(&reply.encode(&request)).unwrap();
            Heard::new(&offer, Ipv4Addr::new(10, 0, 0, 3), class)
        };
        let named = Named {
            server: us,
            next_server: us,
            boot_file: "undionly.kpxe".into(),
            is_final: true,
        };
        assert_eq!(heard(&reply, PXE_CLIENT), Heard::Boots(named));
        assert!(matches!(heard(&reply, HTTP_CLIENT), Heard::Other(..)));
        let nameless = Reply { boot_file: String::new(), ..reply };
        assert!(matches!(heard(&nameless, PXE_CLIENT), Heard::Other(..)));
        let mut lease = Offer::decode_ack(&nameless.encode(&request)).unwrap();
        lease.yiaddr = Ipv4Addr::new(10, 0, 0, 100);
        assert_eq!(Heard::new(&lease, us, PXE_CLIENT), Heard::Lease(us));
    }
}
