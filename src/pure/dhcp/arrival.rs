//! Where a DHCP datagram came from, and on which interface and port it arrived.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use crate::pure::machine::evidence::Neighbour;

/// Which of our two ports a datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67, the DHCP server port.
    Dhcp,
    /// 4011, the PXE boot server port (PXE 2.1 section 2.2).
    BootServer,
}

impl Port {
    /// Its number.
    pub const fn number(self) -> u16 {
        match self {
            Self::Dhcp => 67,
            Self::BootServer => 4011,
        }
    }
}

/// Where a datagram came from, and where it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its sender.
    pub from: SocketAddrV4,
    /// Our port.
    pub port: Port,
    /// The interface's name.
    pub interface: String,
    /// The address of ours that was asked.
    pub asked: Ipv4Addr,
    /// The address that machines on this interface are told for us.
    pub local: Ipv4Addr,
    /// Who has the sender's address, where it asks the boot server port.
    pub neighbour: Neighbour,
    /// All addresses of this host, each with the mask of its LAN.
    pub own: Arc<[(Ipv4Addr, Ipv4Addr)]>,
}
