//! Which datagrams may be answered at all: what is sent to a forged address should not leave the LAN, or
//! reach more than one host.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::pure::catalog::server::Tftp;
use crate::sys::interfaces::Interface;
use crate::sys::udp::Received;

/// Whether a datagram is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    /// No host sends from there.
    Impossible,
    /// The interface is not served.
    NotServed,
    /// The address is on no subnet of the interface.
    Far(String),
}

/// Whether a request to port 69 is answered. `is_known` is whether DHCP has seen the machine with this address.
pub(crate) fn access(
    received: Received,
    served: &[&Interface],
    limits: &Tftp,
    is_known: impl FnOnce() -> bool,
) -> Access {
    let from = *received.from.ip();
    if is_no_host(received.from, served) {
        return Access::Impossible;
    }
    let Some(interface) = served.iter().find(|served| served.index == received.interface) else {
        let by_loopback = is_own(from, served) && is_own(received.local, served);
        return if by_loopback { Access::Granted } else { Access::NotServed };
    };
    // What this host sends to itself names the interface of the address. The kernel drops it if it comes in
    // from elsewhere, and an ERROR is never answered: nothing can go back and forth.
    let is_loopback = || interface.addresses.iter().any(|(own, _)| own.is_loopback());
    if from.is_loopback() && !is_loopback() {
        return Access::Impossible;
    }
    // A machine behind a DHCP relay was seen by DHCP.
    if interface.is_on_lan(from) || is_in_subnets(from, limits) || is_known() {
        return Access::Granted;
    }
    Access::Far(format!(
        "its TFTP request came from no subnet of {}; if machines boot from there, name theirs in `server.tftp.subnets`",
        interface.name
    ))
}

/// Whether a datagram to the port of a transfer that is not its sender's may be answered.
pub(crate) fn is_near(
    from: SocketAddrV4,
    served: &[&Interface],
    limits: &Tftp,
    is_known: impl FnOnce() -> bool,
) -> bool {
    let address = *from.ip();
    let is_near = || {
        is_own(address, served)
            || served.iter().any(|interface| interface.is_on_lan(address))
            || is_in_subnets(address, limits)
            || is_known()
    };
    !is_no_host(from, served) && is_near()
}

fn is_in_subnets(address: Ipv4Addr, limits: &Tftp) -> bool {
    limits.subnets.iter().any(|subnet| subnet.contains(&address))
}

fn is_own(address: Ipv4Addr, served: &[&Interface]) -> bool {
    let has = |interface: &&Interface| interface.addresses.iter().any(|(own, _)| *own == address);
    address.is_loopback() || served.iter().any(has)
}

/// Whether an answer would go to no host, or to many. The broadcast address of a LAN is its last one, and
/// for some old hosts its first one (RFC 1122 section 3.3.6).
fn is_no_host(from: SocketAddrV4, served: &[&Interface]) -> bool {
    let address = *from.ip();
    let is_broadcast_on = |interface: &&Interface| {
        interface.addresses.iter().any(|(own, mask)| {
            // A link of two hosts has no broadcast address (RFC 3021).
            let has_one = mask.to_bits().trailing_zeros() >= 2;
            let is_an_end = [*own & *mask, *own | !*mask].contains(&address);
            has_one && is_an_end && *own != address
        })
    };
    from.port() == 0
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || served.iter().any(is_broadcast_on)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LO: u32 = 1;
    const ETH0: u32 = 2;
    const ETH1: u32 = 3;
    const TUN0: u32 = 4;

    fn interface(index: u32, name: &str, (own, prefix): ([u8; 4], u8)) -> Interface {
        let own = Ipv4Addr::from(own);
        let mask = ipnet::Ipv4Net::new(own, prefix).unwrap().netmask();
        let addresses = vec![(own, mask)];
        Interface { index, name: name.into(), mac: None, addresses, advertised: own }
    }

    /// Whether a request is answered that comes from there, by an interface, at one of our addresses.
    fn asked(from: &str, by: u32, local: [u8; 4]) -> Access {
        let served = [
            interface(ETH0, "eth0", ([10, 77, 0, 2], 24)),
            interface(ETH1, "eth1", ([172, 16, 5, 130], 25)),
            interface(TUN0, "tun0", ([192, 0, 2, 1], 31)),
        ];
        let subnets = vec!["10.20.0.0/16".parse().unwrap()];
        let limits = Tftp {
            port: 69,
            max_transfers: 10,
            max_per_address: 8,
            max_unanswered: 5,
            max_errors: 100,
            subnets,
        };
        let from: SocketAddrV4 = from.parse().unwrap();
        let received = Received { len: 20, from, interface: by, local: local.into() };
        let served: Vec<&Interface> = served.iter().collect();
        let is_known = || *from.ip() == Ipv4Addr::new(198, 51, 100, 7);
        let access = access(received, &served, &limits, is_known);
        // The port of a transfer does not know by which interface a datagram came.
        if access == Access::Granted {
            assert!(is_near(from, &served, &limits, is_known), "{from}");
        } else if by == ETH0 && access == Access::Impossible {
            assert!(
                !is_near(from, &served, &limits, is_known) || is_own(*from.ip(), &served),
                "{from}"
            );
        }
        access
    }

    const HERE: [u8; 4] = [10, 77, 0, 2];

    #[test]
    fn answers_hosts_of_the_lan_of_named_subnets_and_behind_a_relay() {
        for from in ["10.77.0.50:1024", "10.20.3.4:1024", "198.51.100.7:1024", "10.77.0.254:1"] {
            assert_eq!(asked(from, ETH0, HERE), Access::Granted, "{from}");
        }
        assert_eq!(asked("192.0.2.0:1024", TUN0, [192, 0, 2, 1]), Access::Granted, "RFC 3021");
        assert!(matches!(asked("203.0.113.9:1024", ETH0, HERE), Access::Far(_)));
        assert!(matches!(asked("172.16.5.200:1024", ETH0, HERE), Access::Far(_)));
    }

    #[test]
    fn never_answers_multicast_broadcast_or_loopback_from_the_lan() {
        for from in [
            "224.0.0.1:1024",
            "239.1.2.3:69",
            "255.255.255.255:1024",
            "0.0.0.0:1024",
            "10.77.0.50:0",
            "10.77.0.255:1024",
            "10.77.0.0:1024",
            "172.16.5.255:1024",
            "172.16.5.128:1024",
            "127.0.0.1:69",
        ] {
            assert_eq!(asked(from, ETH0, HERE), Access::Impossible, "{from}");
        }
    }

    #[test]
    fn answers_this_host_as_an_operator_tries_it() {
        assert_eq!(asked("10.77.0.2:1024", ETH0, HERE), Access::Granted);
        assert_eq!(asked("127.0.0.1:1024", LO, [127, 0, 0, 1]), Access::Granted);
        assert_eq!(asked("10.77.0.2:1024", LO, HERE), Access::Granted);
        assert_eq!(asked("10.77.0.50:1024", LO, HERE), Access::NotServed);
        assert_eq!(asked("10.77.0.50:1024", 9, HERE), Access::NotServed);
    }
}
