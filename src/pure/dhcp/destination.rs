//! Where a reply goes, and where none may go: a request is one datagram, and whoever sends it can write any address
//! into it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};

use super::arrival::{Arrival, Port};
use super::packet::Request;

/// The port of DHCP clients.
const CLIENT: u16 = 68;

/// Why no reply goes to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoReply {
    /// A reply there would reach many hosts, or none.
    #[error("which is no address of one host (multicast, broadcast, loopback or reserved)")]
    NotAHost,
    /// A reply there would come back to this daemon.
    #[error("which is an address of this host")]
    Ours,
    /// A relay has an address, and sends from it.
    #[error("the relay that the datagram names; but no relay sends from 0.0.0.0")]
    RelayWithoutSource,
    /// A reply there would not leave this host.
    #[error("a relay to which this host has no route; add one, if the relay is yours")]
    NoRoute,
    /// More replies than a relay's machines need.
    #[error("a relay that gets at most {RELAY_REPLIES} answers a second")]
    TooMany,
}

/// How many replies a second go to one relay.
pub const RELAY_REPLIES: usize = 20;

/// The relay that a reply to this request goes through.
pub fn relay_of_reply(request: &Request, port: Port) -> Option<Ipv4Addr> {
    match port {
        Port::Dhcp => Some(request.giaddr).filter(|giaddr| !giaddr.is_unspecified()),
        // Machines ask here at their own address, through no relay.
        Port::BootServer => None,
    }
}

/// Where a reply goes (RFC 2131 section 4.1).
///
/// On port 67 a client has no address that it would answer ARP for, so it is reached by broadcast; unless it sent from
/// the address that it says it has.
/// On port 4011 it has one, and listens only on the port that it sent from: UEFI on 4011 (elsewhere
/// it answers with an ICMP error), iPXE on 68, whatever its broadcast flag says.
///
/// # Errors
/// The address is none that a reply may go to.
pub fn destination(
    request: &Request,
    arrival: &Arrival,
) -> Result<SocketAddrV4, (Ipv4Addr, NoReply)> {
    let source = *arrival.from.ip();
    let to = match (relay_of_reply(request, arrival.port), arrival.port) {
        (Some(relay), _) if source.is_unspecified() => {
            return Err((relay, NoReply::RelayWithoutSource));
        }
        (Some(relay), _) => SocketAddrV4::new(relay, Port::Dhcp.number()),
        (None, _) if source.is_unspecified() => {
            return Ok(SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT));
        }
        (None, Port::Dhcp) if request.ciaddr == source => SocketAddrV4::new(source, CLIENT),
        (None, Port::Dhcp) => return Ok(SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT)),
        (None, Port::BootServer) => arrival.from,
    };
    check(to, arrival).map_err(|why| (*to.ip(), why))?;
    Ok(to)
}

fn check(to: SocketAddrV4, arrival: &Arrival) -> Result<(), NoReply> {
    let address = *to.ip();
    // 0.0.0.0/8 and 240.0.0.0/4, in which 255.255.255.255 is.
    let is_reserved = address.octets()[0] == 0 || address.octets()[0] >= 240;
    // In a network of one or two addresses each is a host's (RFC 3021).
    let ends_a_lan = |(own, mask): &(Ipv4Addr, Ipv4Addr)| {
        mask.to_bits().count_zeros() > 1 && (address == own & mask || address == own | !*mask)
    };
    if is_reserved
        || address.is_loopback()
        || address.is_multicast()
        || arrival.own.iter().any(ends_a_lan)
    {
        return Err(NoReply::NotAHost);
    }
    // `reveille simulate` asks from this host, and from a port of its own.
    let is_a_daemons = [Port::Dhcp, Port::BootServer].map(Port::number).contains(&to.port());
    if is_a_daemons && arrival.own.iter().any(|(own, _)| *own == address) {
        return Err(NoReply::Ours);
    }
    Ok(())
}
