//! The rest of the LAN, as far as it decides a boot: who else answers machines, and what their answers
//! do to ours.
//!
//! Two things are known of others: which server machines were seen to choose (option 54 of their
//! REQUESTs, which are broadcast), and what answers a DISCOVER that we send as a machine would
//! ([`Asked`]), since the offers to real machines are seldom ours to see. [`findings`] makes of both
//! what an operator should know, each with its effect and its remedy.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4;

use super::packet::{MessageType, Offer, Request, option};
use super::pxe::PXE_CLIENT;
use crate::boot::catalog::Nbps;
use crate::boot::decide::Naming;
use crate::boot::{Arch, Mac};

/// The DHCP server of its own LAN that a client chooses (RFC 2131 section 4.3.2): a REQUEST that is
/// broadcast names it in option 54.
pub fn chosen(request: &Request) -> Option<Ipv4Addr> {
    let broadcast = request.giaddr.is_unspecified() && request.ciaddr.is_unspecified();
    let server = request.address(option::SERVER_ID)?;
    let chooses = request.message_type == MessageType::Request && broadcast;
    (chooses && !server.is_unspecified()).then_some(server)
}

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
}

impl Prober {
    /// The client identifier (option 61, of type 0: no hardware address) that tells a probe from a
    /// machine, and keeps its offers apart from this host's own lease.
    const fn mark(self) -> &'static [u8] {
        match self {
            Self::Daemon => b"\0reveille",
            Self::Doctor => b"\0reveille doctor",
        }
    }

    /// Who sent a request, if it is a probe.
    pub fn of(request: &Request) -> Option<Self> {
        let id = request.option(option::CLIENT_ID)?;
        [Self::Daemon, Self::Doctor].into_iter().find(|prober| prober.mark() == id)
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

/// An offer, and whom it was made to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// As whom we asked.
    pub asked: Asked,
    /// Who answered: option 54, else the sender.
    pub server: Ipv4Addr,
    /// Whether it offers an address.
    pub lease: Option<Ipv4Addr>,
    /// Option 60.
    pub vendor_class: Option<String>,
    /// The boot file: option 67, else `file`.
    pub boot_file: Option<String>,
    /// Where it is fetched from: `siaddr`, else option 66.
    pub next_server: Option<String>,
    /// Whether it tells iPXE to pay no heed to proxyDHCP (option 175, sub-option 176).
    pub no_pxe_dhcp: bool,
}

impl Answer {
    /// Reads an offer.
    pub fn new(asked: Asked, from: Ipv4Addr, offer: &Offer) -> Self {
        let text = |code| offer.option(code).map(told).filter(|text| !text.is_empty());
        let file = Some(told(&offer.file)).filter(|file| !file.is_empty());
        let address = |address: Ipv4Addr| (!address.is_unspecified()).then_some(address);
        Self {
            asked,
            server: offer.server().and_then(address).unwrap_or(from),
            lease: address(offer.yiaddr),
            vendor_class: text(option::VENDOR_CLASS),
            boot_file: text(option::BOOT_FILE).or(file),
            next_server: address(offer.siaddr)
                .map(|address| address.to_string())
                .or_else(|| text(option::SERVER_NAME)),
            no_pxe_dhcp: has_no_pxe_dhcp(offer.option(option::IPXE).unwrap_or_default()),
        }
    }

    fn is_pxe(&self) -> bool {
        self.vendor_class.as_deref().is_some_and(|class| class.starts_with(PXE_CLIENT))
    }

    fn names(&self) -> Option<Named> {
        let boot_file = self.boot_file.clone()?;
        Some(Named { boot_file, next_server: self.next_server.clone() })
    }
}

/// What a server wrote, up to its first NUL, without what could disturb a terminal.
fn told(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).chars().take(128).flat_map(char::escape_debug).collect()
}

fn has_no_pxe_dhcp(mut options: &[u8]) -> bool {
    const NO_PXE_DHCP: u8 = 176;
    while let [code, len, data @ ..] = options {
        let Some((value, rest)) = data.split_at_checked(usize::from(*len)) else {
            return false;
        };
        if *code == NO_PXE_DHCP {
            return value.iter().any(|byte| *byte != 0);
        }
        options = rest;
    }
    false
}

/// A boot file, and where it is fetched from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    boot_file: String,
    next_server: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.boot_file)?;
        self.next_server.as_ref().map_or(Ok(()), |server| write!(f, " on {server}"))
    }
}

/// Who we are on this LAN.
#[derive(Clone, Debug)]
pub struct Us<'a> {
    /// Our addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Who tells machines their boot file.
    pub naming: Naming,
    /// What there is to name.
    pub nbps: &'a Nbps,
}

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

/// What there is to know of one LAN: from the answers to our DISCOVERs, and from the servers that
/// machines there were seen to choose.
pub fn findings(answers: &[Answer], chosen: &BTreeSet<Ipv4Addr>, us: &Us<'_>) -> BTreeSet<Finding> {
    let (leasing, proxies): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.lease.is_some());
    let servers: BTreeSet<Ipv4Addr> =
        leasing.iter().map(|answer| answer.server).chain(chosen.iter().copied()).collect();
    let mut found = BTreeSet::new();
    match servers.len() {
        0 => {
            found.insert(Finding::NoDhcpServer);
        }
        1 => {}
        _ => {
            found.insert(Finding::SeveralDhcpServers(servers));
        }
    }
    // Of several names that one proxy has, the first tells enough.
    let mut others = BTreeMap::new();
    for proxy in proxies.iter().filter(|proxy| !us.addresses.contains(&proxy.server)) {
        others.entry(proxy.server).or_insert_with(|| proxy.names());
    }
    found.extend(others.into_iter().map(|(server, named)| Finding::OtherProxy(server, named)));
    found.extend(leasing.into_iter().flat_map(|answer| of_a_lease(answer, us)));
    found
}

/// Whom we ourselves do not answer although we should, where everybody was asked.
pub fn silence(answers: &[Answer], us: &Us<'_>) -> Option<Finding> {
    let answered = |asked: &Asked| {
        let ours = |answer: &&Answer| answer.asked == *asked && answer.lease.is_none();
        answers.iter().filter(ours).any(|answer| us.addresses.contains(&answer.server))
    };
    let silent: BTreeSet<Asked> = Asked::ALL.into_iter().filter(|asked| !answered(asked)).collect();
    (us.naming == Naming::ByUs && !silent.is_empty()).then_some(Finding::WeAreSilent(silent))
}

/// What an offer with a lease does to our boots.
fn of_a_lease(answer: &Answer, us: &Us<'_>) -> Vec<Finding> {
    let (server, asked) = (answer.server, answer.asked);
    let mut found = Vec::new();
    if answer.is_pxe() {
        found.push(Finding::ClaimsPxe(server));
    }
    if answer.no_pxe_dhcp && us.naming == Naming::ByUs {
        found.push(Finding::NoPxeDhcp(server));
    }
    let next_server = answer.next_server.as_ref().and_then(|next| next.parse().ok());
    let names_us = next_server.is_some_and(|next| us.addresses.contains(&next));
    found.extend(match (us.naming, answer.names()) {
        (Naming::ByUs, Some(named)) if !names_us => Some(Finding::NamesAnother(server, named)),
        (Naming::ByUs, _) => None,
        (Naming::ByTheRouter, None) => Some(Finding::NamesNothing(server, asked)),
        (Naming::ByTheRouter, Some(named)) if !names_us => {
            Some(Finding::NamesNotUs(server, asked, named))
        }
        (Naming::ByTheRouter, Some(named)) => of_a_name(answer, named, us),
    });
    found
}

/// What it does that the router names this boot file of ours.
fn of_a_name(answer: &Answer, named: Named, us: &Us<'_>) -> Option<Finding> {
    let (server, asked) = (answer.server, answer.asked);
    // A URL is HTTP's, and an iPXE takes it whole.
    if named.boot_file.contains("://") {
        return None;
    }
    match us.nbps.named(named.boot_file.trim_start_matches('/')) {
        None => Some(Finding::NamesUnknown(server, asked, named)),
        Some(nbp) if nbp.arch != asked.arch() => {
            Some(Finding::NamesWrong(server, asked, named, nbp.arch))
        }
        Some(_) => None,
    }
}
