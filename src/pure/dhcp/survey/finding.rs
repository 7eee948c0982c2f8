//! What is found, in words: the fact, what it does to a boot, and what to change.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use super::answer::Named;
use super::question::Asked;
use crate::pure::client::Arch;

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Nobody gives leases.
    NoDhcpServer,
    /// Several do.
    SeveralDhcpServers(BTreeSet<Ipv4Addr>),
    /// Another proxyDHCP server.
    OtherProxy(Ipv4Addr, Option<Named>),
    /// The DHCP server sends option 60 `PXEClient`.
    ClaimsPxe(Ipv4Addr),
    /// The DHCP server tells iPXE to pay no heed to us.
    NoPxeDhcp(Ipv4Addr),
    /// The DHCP server names a boot file beside ours.
    NamesAnother(Ipv4Addr, Named),
    /// `dhcp: off`, and the DHCP server names what is not here.
    NamesNotUs(Ipv4Addr, Asked, Named),
    /// `dhcp: off`, and the DHCP server names nothing.
    NamesNothing(Ipv4Addr, Asked),
    /// `dhcp: off`, and the DHCP server names an NBP that is not here.
    NamesUnknown(Ipv4Addr, Asked, Named),
    /// `dhcp: off`, and the DHCP server names an NBP for other machines.
    NamesWrong(Ipv4Addr, Asked, Named, Arch),
    /// We offer such machines nothing.
    WeAreSilent(BTreeSet<Asked>),
}

/// The fields of OPNsense that name a boot file.
const BOOT_FILE_FIELDS: &str = "OPNsense: Dnsmasq: DHCP boot; Kea: Subnets: Next server, TFTP server, TFTP bootfile name, and Options, Set Code 67; ISC: Network booting, TFTP server";

impl Finding {
    /// What is so.
    pub fn fact(&self) -> String {
        match self {
            Self::NoDhcpServer => "no DHCP server answers".to_owned(),
            Self::SeveralDhcpServers(servers) => {
                let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                format!("several DHCP servers give leases, {}", servers.join(" and "))
            }
            Self::OtherProxy(server, None) => {
                format!("another proxyDHCP server, {server}, answers machines")
            }
            Self::OtherProxy(server, Some(named)) => {
                format!("another proxyDHCP server, {server}, answers machines and names {named}")
            }
            Self::ClaimsPxe(server) => {
                format!("the DHCP server {server} sends option 60 `PXEClient`")
            }
            Self::NoPxeDhcp(server) => format!(
                "the DHCP server {server} sends iPXE `no-pxedhcp` (option 175, sub-option 176)"
            ),
            Self::NamesAnother(server, named) => {
                format!("the DHCP server {server} names a boot file of its own, {named}")
            }
            Self::NamesNotUs(server, asked, named) => format!(
                "the config says `dhcp: off`, and the DHCP server {server} names {named} to {asked} machines, which is not this host"
            ),
            Self::NamesNothing(server, asked) => format!(
                "the config says `dhcp: off`, and the DHCP server {server} names no boot file to {asked} machines"
            ),
            Self::NamesUnknown(server, asked, named) => format!(
                "the DHCP server {server} names {named} to {asked} machines, and no NBP of that name is here"
            ),
            Self::NamesWrong(server, asked, named, arch) => format!(
                "the DHCP server {server} names {named} to {asked} machines, and that NBP is for {arch}"
            ),
            Self::WeAreSilent(asked) => {
                let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
                format!("this host offers nothing to a machine as {}", asked.join(", nor as "))
            }
        }
    }

    /// What that does to a boot, and what to change.
    pub fn advice(&self) -> String {
        match self {
            Self::NoDhcpServer => "machines get no address and do not boot; switch on the router's for this LAN; if it is on, a firewall or a switch (DHCP snooping, VLAN) keeps its answers away".to_owned(),
            Self::SeveralDhcpServers(_) => "a machine takes whichever comes first, with its gateway and its boot file; switch off all but one, unless they are a failover pair".to_owned(),
            Self::OtherProxy(..) => "machines take whichever offer they like, so some boot there; stop it (another reveille, FOG, WDS, dnsmasq with `dhcp-range=…,proxy`)".to_owned(),
            Self::ClaimsPxe(_) => "UEFI asks on port 4011 the server that it names, in vain (PXE-E16), and iPXE takes its offer for ours; remove that option (OPNsense: Dnsmasq: DHCP options; Kea: Options, Set Code 60; ISC: Additional Options, Number 60)".to_owned(),
            Self::NoPxeDhcp(_) => "iPXE ignores us and boots what that server names; remove it (OPNsense: Dnsmasq: DHCP options; Kea: Options, Set Code 175; ISC: Additional Options, Number 175)".to_owned(),
            Self::NamesAnother(..) => format!("UEFI and iPXE take ours all the same, but firmware that is deaf to proxyDHCP fetches that one; leave it empty ({BOOT_FILE_FIELDS})"),
            Self::NamesNotUs(..) => format!("they boot there or not at all; name this host there ({BOOT_FILE_FIELDS})"),
            Self::NamesNothing(..) => format!("they do not boot; name this host and an NBP there ({BOOT_FILE_FIELDS}), or say `dhcp: proxy`"),
            Self::NamesUnknown(..) | Self::NamesWrong(..) => format!("they do not boot; see what there is with `reveille nbps`, and name that ({BOOT_FILE_FIELDS})"),
            Self::WeAreSilent(_) => "such machines are left to others; is `reveille serve` running, with this config, without `unknown: ignore`, and with an NBP for them (`reveille nbps`)? A firewall on this host may drop UDP 67".to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.fact(), self.advice())
    }
}
