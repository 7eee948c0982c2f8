//! The `server` section of the config, as the protocols use it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use super::entries::Catalog;
use super::host::Host;
use super::settings::Release;

/// What a protocol answers from.
#[derive(Clone, Copy, Debug)]
pub struct Serving<'a> {
    /// Where and how we serve.
    pub server: &'a Server,
    /// What there is to boot, and who boots it.
    pub catalog: &'a Catalog,
}

/// Where and how we serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where machines boot.
    pub interfaces: Interfaces,
    /// The address that machines are told, where it is not the interface's own first one.
    pub advertise: Option<Ipv4Addr>,
    /// proxyDHCP, unless it is off.
    pub dhcp: Option<Dhcp>,
    /// TFTP, unless it is off.
    pub tftp: Option<Tftp>,
    /// The TCP port that booting machines fetch from.
    pub http_port: u16,
    /// The names by which booting machines may address the HTTP server, besides its addresses.
    pub http_hosts: Vec<Host>,
    /// To whom a response that contains a secret is given, unless an entry of the config says otherwise.
    pub release: Release,
    /// What happens to machines whose profile wipes, after the registry was lost or while it cannot be written.
    pub on_lost_state: OnLostState,
    /// The folder for what is kept.
    pub state: PathBuf,
}

impl Server {
    /// Who tells machines their boot file.
    pub fn naming(&self) -> Naming {
        if self.dhcp.is_some() { Naming::ByUs } else { Naming::ByTheRouter }
    }

    /// The same, but with what is bound at the start as `running` has it: ports, and the state folder.
    pub fn with_bound_of(self, running: &Self) -> Self {
        let tftp = running.tftp.as_ref().map(|bound| {
            let limits = self.tftp.unwrap_or_else(|| bound.clone());
            Tftp { port: bound.port, ..limits }
        });
        let Self { dhcp, http_port, state, .. } = running.clone();
        Self {
            interfaces: self.interfaces,
            advertise: self.advertise,
            dhcp,
            tftp,
            http_port,
            http_hosts: self.http_hosts,
            release: self.release,
            on_lost_state: self.on_lost_state,
            state,
        }
    }
}

/// What happens to machines whose profile wipes, after the registry was lost or while it cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLostState {
    /// They wait until the operator accepts the loss, or the registry is written.
    #[default]
    Hold,
    /// They boot as if they had never booted before.
    Boot,
}

impl OnLostState {
    /// The word for it in the config.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Boot => "boot",
        }
    }
}

/// Which interfaces are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// The one that the default route goes through.
    OfDefaultRoute,
    /// These.
    Named(Vec<String>),
}

/// The UDP ports of proxyDHCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dhcp {
    /// The DHCP server port, 67.
    pub port: u16,
    /// The PXE boot server port, 4011.
    pub boot_server_port: u16,
}

/// The TFTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tftp {
    /// The UDP port, 69.
    pub port: u16,
    /// Transfers at once, in all.
    pub max_transfers: usize,
    /// Transfers at once to one address.
    pub max_per_address: usize,
    /// Packets to a client that has never acknowledged one.
    pub max_unanswered: u32,
    /// ERROR replies a second.
    pub max_errors: u32,
    /// Who may fetch besides the machines on the served interfaces' own LANs.
    pub subnets: Vec<Ipv4Net>,
}

/// Who tells machines which boot file to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// We do, by proxyDHCP: an iPXE is told its script, and never an NBP's name unless it needs one.
    ByUs,
    /// The router, which tells a machine's ROM and the NBP that it loads the same name.
    ByTheRouter,
}
