//! Where replies go, whatever addresses stand in a request: a datagram is one forged packet, and a reply to it must not
//! hit somebody else.

use std::net::Ipv4Addr;

use super::{PXE, X64, with};
use crate::pure::dhcp::arrival::Port;
use crate::pure::dhcp::destination::NoReply;
use crate::pure::dhcp::proxy::{Ignored, Outcome};
use crate::pure::dhcp::testing::{CLIENT, US, answer, arrival, config, request};

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const VICTIM: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);
const RELAY: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// Addresses that no client and no relay has.
const NO_HOSTS: [Ipv4Addr; 9] = [
    Ipv4Addr::new(224, 0, 0, 1),
    Ipv4Addr::new(239, 255, 255, 250),
    Ipv4Addr::BROADCAST,
    Ipv4Addr::new(240, 0, 0, 1),
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(127, 1, 2, 3),
    Ipv4Addr::new(0, 0, 0, 7),
    // Of our LAN, 10.77.0.0/24.
    Ipv4Addr::new(10, 77, 0, 255),
    Ipv4Addr::new(10, 77, 0, 0),
];

/// Where the reply goes to a request from `source`, with this `giaddr` and `ciaddr`.
fn goes(
    port: Port,
    source: (Ipv4Addr, u16),
    [giaddr, ciaddr]: [Ipv4Addr; 2],
) -> Result<String, NoReply> {
    let message_type = if port == Port::Dhcp { 1 } else { 3 };
    let datagram = with(request(message_type, &[PXE, X64]), 24, &giaddr.octets());
    let datagram = with(datagram, 12, &ciaddr.octets());
    match answer(&datagram, &arrival(port, source), &config("")) {
        Outcome::Reply { to, .. } => Ok(to.to_string()),
        Outcome::Ignored(Ignored::NoReply { why, .. }) => Err(why),
        other => panic!("{other:?}"),
    }
}

/// RFC 2131 section 4.1. Who has no address is reached by broadcast only; `ciaddr` is what a client says of itself, and
/// counts if it says so from there.
#[test]
fn a_client_on_port_67_is_answered_at_its_source_or_by_broadcast() {
    let everybody = Ok("255.255.255.255:68".to_owned());
    let table = [
        (NOBODY, NOBODY, everybody.clone()),
        (CLIENT, NOBODY, everybody.clone()),
        (CLIENT, CLIENT, Ok(format!("{CLIENT}:68"))),
        (FAR, FAR, Ok(format!("{FAR}:68"))),
        // Forged: somebody else's address.
        (NOBODY, VICTIM, everybody.clone()),
        (CLIENT, VICTIM, everybody.clone()),
        (CLIENT, US, everybody.clone()),
        (NOBODY, Ipv4Addr::LOCALHOST, everybody),
        (US, US, Ok(format!("{US}:68"))),
    ];
    for (source, ciaddr, expected) in table {
        assert_eq!(goes(Port::Dhcp, (source, 68), [NOBODY, ciaddr]), expected, "{source} {ciaddr}");
    }
    for address in NO_HOSTS {
        let outcome = goes(Port::Dhcp, (address, 68), [NOBODY, address]);
        assert_eq!(outcome, Err(NoReply::NotAHost), "{address}");
    }
}

/// RFC 1542 section 4.1: a relay puts its address into `giaddr`, and sends from one of its addresses.
#[test]
fn a_relay_is_answered_if_it_has_a_source_and_is_one_host_and_not_us() {
    let table = [
        (RELAY, RELAY, Ok(format!("{RELAY}:67"))),
        // It sends from the side that is nearer to us.
        (Ipv4Addr::new(10, 77, 0, 1), RELAY, Ok(format!("{RELAY}:67"))),
        (NOBODY, RELAY, Err(NoReply::RelayWithoutSource)),
        (NOBODY, Ipv4Addr::new(224, 0, 0, 1), Err(NoReply::RelayWithoutSource)),
        (CLIENT, US, Err(NoReply::Ours)),
        (US, US, Err(NoReply::Ours)),
    ];
    for (source, giaddr, expected) in table {
        for ciaddr in [NOBODY, VICTIM, CLIENT] {
            let outcome = goes(Port::Dhcp, (source, 67), [giaddr, ciaddr]);
            assert_eq!(outcome, expected, "{source} {giaddr} {ciaddr}");
        }
    }
    for giaddr in NO_HOSTS {
        let outcome = goes(Port::Dhcp, (RELAY, 67), [giaddr, NOBODY]);
        assert_eq!(outcome, Err(NoReply::NotAHost), "{giaddr}");
    }
}

/// PXE 2.1 section 2.2: a client asks on port 4011 from its own address.
#[test]
fn on_port_4011_the_answer_goes_to_the_source_whatever_the_request_says() {
    for giaddr in [NOBODY, RELAY, VICTIM, Ipv4Addr::BROADCAST] {
        for ciaddr in [NOBODY, CLIENT, VICTIM, Ipv4Addr::LOCALHOST] {
            let goes = |source| goes(Port::BootServer, source, [giaddr, ciaddr]);
            assert_eq!(goes((CLIENT, 4011)), Ok(format!("{CLIENT}:4011")));
            assert_eq!(goes((NOBODY, 68)), Ok("255.255.255.255:68".to_owned()));
            // `reveille simulate` on this host; and what would be a daemon that answers itself.
            assert_eq!(goes((US, 40_000)), Ok(format!("{US}:40000")));
            for port in [67, 4011] {
                assert_eq!(goes((US, port)), Err(NoReply::Ours));
            }
            for address in NO_HOSTS {
                assert_eq!(goes((address, 4011)), Err(NoReply::NotAHost), "{address}");
            }
        }
    }
}
