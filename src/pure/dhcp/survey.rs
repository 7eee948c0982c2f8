//! The rest of the LAN, as far as it decides a boot: who else answers machines, and what their answers
//! do to ours.
//!
//! Two things are known of others: which server machines were seen to choose (option 54 of their
//! REQUESTs, which are broadcast), and what answers a DISCOVER that we send as a machine would
//! ([`Asked`]), since the offers to real machines are seldom ours to see. [`findings`] makes of both
//! what an operator should know, each with its effect and its remedy.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::packet::{MessageType, Request, option};
use crate::pure::catalog::nbp::Nbps;
use crate::pure::catalog::server::{Naming, Serving};

mod answer;
mod finding;
mod question;

pub use self::answer::{Answer, Named};
pub use self::finding::Finding;
pub use self::question::{Asked, Prober};

/// The DHCP server of its own LAN that a client chooses (RFC 2131 section 4.3.2): a REQUEST that is
/// broadcast names it in option 54.
pub fn chosen(request: &Request) -> Option<Ipv4Addr> {
    let broadcast = request.giaddr.is_unspecified() && request.ciaddr.is_unspecified();
    let server = request.options.address(option::SERVER_ID)?;
    let chooses = request.message_type == MessageType::Request && broadcast;
    (chooses && !server.is_unspecified()).then_some(server)
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

impl<'a> Us<'a> {
    /// Who has these addresses and this config.
    pub fn new(addresses: impl Iterator<Item = Ipv4Addr>, config: Serving<'a>) -> Self {
        let nbps = &config.catalog.nbps;
        Self { addresses: addresses.collect(), naming: config.server.naming(), nbps }
    }
}

/// Who gives leases.
pub fn leasing(answers: &[Answer]) -> BTreeSet<Ipv4Addr> {
    answers.iter().filter(|answer| answer.lease.is_some()).map(|answer| answer.server).collect()
}

/// What there is to know of one LAN: from the answers to our DISCOVERs, and from the servers that
/// machines there were seen to choose.
pub fn findings(answers: &[Answer], chosen: &BTreeSet<Ipv4Addr>, us: &Us<'_>) -> BTreeSet<Finding> {
    let servers = &leasing(answers) | chosen;
    let mut found = BTreeSet::new();
    found.extend(match servers.len() {
        0 => Some(Finding::NoDhcpServer),
        1 => None,
        _ => Some(Finding::SeveralDhcpServers(servers)),
    });
    let (leases, proxies): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.lease.is_some());
    // Of several names that one proxy has, the first tells enough.
    let mut others = BTreeMap::new();
    for proxy in proxies.iter().filter(|proxy| !us.addresses.contains(&proxy.server)) {
        others.entry(proxy.server).or_insert_with(|| proxy.names());
    }
    found.extend(others.into_iter().map(|(server, named)| Finding::OtherProxy(server, named)));
    found.extend(leases.into_iter().flat_map(|answer| of_a_lease(answer, us)));
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
