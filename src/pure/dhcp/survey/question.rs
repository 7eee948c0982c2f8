//! What we ask the LAN.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;

use dhcproto::{Encodable, v4};

use crate::pure::client::{Arch, Mac};
use crate::pure::dhcp::packet::{Request, option};

/// As whom we ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// A BIOS ROM.
    Bios,
    /// x86-64 UEFI.
    Uefi,
    /// An iPXE.
    Ipxe,
}

/// On whose behalf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prober {
    /// The daemon, for its log.
    Daemon,
    /// The command, for who runs it.
    Doctor,
    /// `reveille simulate`, as a machine's firmware. It is answered as that machine is.
    Simulation,
    /// The same, as the iPXE that it has fetched.
    SimulatedIpxe,
}

impl Prober {
    /// The client identifier (option 61, of type 0: no hardware address) that tells a probe from a
    /// machine, and keeps its offers apart from this host's own lease.
    pub const fn mark(self) -> &'static [u8] {
        match self {
            Self::Daemon => b"\0reveille",
            Self::Doctor => b"\0reveille doctor",
            Self::Simulation => b"\0reveille simulate",
            Self::SimulatedIpxe => b"\0reveille simulate ipxe",
        }
    }

    /// Who sent a request, if it is a probe.
    pub fn of(request: &Request) -> Option<Self> {
        let id = request.options.get(option::CLIENT_ID)?;
        let all = [Self::Daemon, Self::Doctor, Self::Simulation, Self::SimulatedIpxe];
        all.into_iter().find(|prober| prober.mark() == id)
    }
}

impl Asked {
    /// Everybody whom we ask as.
    pub const ALL: [Self; 3] = [Self::Bios, Self::Uefi, Self::Ipxe];

    /// What it can run.
    pub const fn arch(self) -> Arch {
        match self {
            Self::Bios | Self::Ipxe => Arch::Bios,
            Self::Uefi => Arch::UefiX64,
        }
    }

    /// The DISCOVER. Its broadcast flag is set: we have no socket that a unicast offer could reach.
    pub fn discover(self, prober: Prober, mac: Mac, xid: u32) -> Vec<u8> {
        let none = Ipv4Addr::UNSPECIFIED;
        let mut message = v4::Message::new_with_id(xid, none, none, none, none, &mac.octets());
        message.set_flags(v4::Flags::default().set_broadcast());
        let (class, arch) = match self.arch() {
            Arch::UefiX64 => ("PXEClient:Arch:00007:UNDI:003000", 7),
            _ => ("PXEClient:Arch:00000:UNDI:002001", 0),
        };
        // What firmware asks for (RFC 4578 section 2.4, and iPXE's own), so that a server that sends
        // only what is asked for shows all that it would send.
        let wanted = [1, 3, 6, 43, 54, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135, 175];
        let mut machine_id = [0; 17];
        machine_id[1..7].copy_from_slice(&mac.octets());
        let options = message.opts_mut();
        options.insert(v4::DhcpOption::MessageType(v4::MessageType::Discover));
        options.insert(v4::DhcpOption::ParameterRequestList(
            wanted.into_iter().map(v4::OptionCode::from).collect(),
        ));
        options.insert(v4::DhcpOption::MaxMessageSize(1472));
        options.insert(v4::DhcpOption::ClassIdentifier(class.into()));
        options.insert(v4::DhcpOption::ClientIdentifier(prober.mark().to_vec()));
        options.insert(v4::DhcpOption::ClientSystemArchitecture(v4::Architecture(arch)));
        options.insert(v4::DhcpOption::ClientNetworkInterface(1, 2, 1));
        options.insert(v4::DhcpOption::ClientMachineIdentifier(machine_id.to_vec()));
        if self == Self::Ipxe {
            options.insert(v4::DhcpOption::UserClass(b"iPXE".to_vec()));
        }
        message.to_vec().expect("short options always fit")
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bios => "BIOS",
            Self::Uefi => "UEFI",
            Self::Ipxe => "iPXE",
        })
    }
}
