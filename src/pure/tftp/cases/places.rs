//! Who has a place where there are more requests than places.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::pure::catalog::server::Tftp;
use crate::pure::tftp::places::{Place, Room, room};

/// The transfers of a server that has eight places, two to an address.
struct Server {
    places: Vec<Place>,
    start: Instant,
}

/// Machines of the config.
const ODEN: u8 = 1;
const BALDER: u8 = 2;
/// From here on everybody is a stranger.
const STRANGERS: u8 = 100;

impl Server {
    #[expect(clippy::disallowed_methods, reason = "a trace starts at some moment, no matter which")]
    fn new() -> Self {
        Self { places: Vec::new(), start: Instant::now() }
    }

    /// A request comes so many milliseconds after the start: whose transfer ended for it, if any did; or why it was
    /// refused.
    fn asks(&mut self, host: u8, ms: u64) -> Result<Option<u8>, &'static str> {
        let limits = Tftp {
            port: 69,
            max_transfers: 8,
            max_per_address: 2,
            max_unanswered: 5,
            max_errors: 100,
            subnets: Vec::new(),
        };
        let now = self.start + Duration::from_millis(ms);
        let address = Ipv4Addr::new(10, 0, 0, host);
        let is_known = host < STRANGERS;
        let made_room = match room(self.places.iter().copied(), (address, is_known), &limits, now) {
            Room::Free => None,
            Room::After(peer) => {
                self.places.retain(|place| place.peer != peer);
                Some(peer.ip().octets()[3])
            }
            Room::Full(why) => return Err(why),
        };
        let peer = SocketAddrV4::new(address, 1000 + ms as u16);
        self.places.push(Place { peer, is_known, is_proven: false, started: now });
        Ok(made_room)
    }

    /// Every transfer to this host is acknowledged.
    fn acknowledges(&mut self, host: u8) {
        let its = |place: &&mut Place| place.peer.ip().octets()[3] == host;
        self.places.iter_mut().filter(its).for_each(|place| place.is_proven = true);
    }
}

#[test]
fn strangers_leave_a_quarter_of_the_places_to_machines_of_the_config() {
    let mut server = Server::new();
    for n in 0..6 {
        assert_eq!(server.asks(STRANGERS + n, 0), Ok(None));
        server.acknowledges(STRANGERS + n);
    }
    let why =
        "the server is busy: three quarters of `server.tftp.max_transfers` go to unknown machines";
    assert_eq!(server.asks(STRANGERS + 6, 5000), Err(why));
    assert_eq!(server.asks(ODEN, 5000), Ok(None));
    assert_eq!(server.asks(BALDER, 5000), Ok(None));
}

#[test]
fn a_stranger_that_acknowledged_nothing_makes_room_for_a_machine_of_the_config_at_once() {
    let mut server = Server::new();
    for n in 0..6 {
        assert_eq!(server.asks(STRANGERS + n, u64::from(n)), Ok(None));
    }
    server.acknowledges(STRANGERS);
    server.acknowledges(STRANGERS + 1);
    for host in [ODEN, BALDER] {
        assert_eq!(server.asks(host, 10), Ok(None));
        server.acknowledges(host);
    }
    assert_eq!(server.asks(3, 11), Ok(Some(STRANGERS + 2)));
    assert_eq!(server.asks(4, 11), Ok(Some(STRANGERS + 3)));
}

/// Strangers displace each other, and no machine of the config.
#[test]
fn a_flood_of_strangers_takes_no_place_from_a_machine_of_the_config() {
    let mut server = Server::new();
    assert_eq!(server.asks(ODEN, 0), Ok(None));
    for ms in 1..10_000 {
        let host = STRANGERS + (ms % 150) as u8;
        assert_ne!(server.asks(host, ms), Ok(Some(ODEN)), "after {ms} ms");
    }
    assert_eq!(server.places.len(), 7);
    for ms in 10_000..10_002 {
        assert!(server.asks(BALDER, ms).is_ok());
    }
    assert!(server.places.iter().any(|place| place.peer.ip().octets()[3] == ODEN));
}

#[test]
fn a_stranger_has_a_second_before_it_makes_room_for_another() {
    let mut server = Server::new();
    for n in 0..6 {
        assert_eq!(server.asks(STRANGERS + n, 0), Ok(None));
    }
    assert!(server.asks(STRANGERS + 6, 999).is_err());
    assert_eq!(server.asks(STRANGERS + 6, 1000).map(|made| made.is_some()), Ok(true));
}

#[test]
fn one_address_has_its_share_and_makes_room_for_itself() {
    let mut server = Server::new();
    assert_eq!(server.asks(ODEN, 0), Ok(None));
    assert_eq!(server.asks(ODEN, 1), Ok(None));
    let why = "too many transfers to this address: `server.tftp.max_per_address` are running";
    assert_eq!(server.asks(ODEN, 2), Err(why));
    assert_eq!(server.asks(ODEN, 1000), Ok(Some(ODEN)));
    server.acknowledges(ODEN);
    assert_eq!(server.asks(ODEN, 3000), Err(why));
}

/// Where all places are taken by machines of the config, they are their own judges.
#[test]
fn machines_of_the_config_make_room_for_each_other_after_a_second() {
    let mut server = Server::new();
    for host in 1..=8 {
        assert_eq!(server.asks(host, 0), Ok(None));
    }
    let why = "the server is busy: `server.tftp.max_transfers` are running";
    assert_eq!(server.asks(9, 500), Err(why));
    assert_eq!(server.asks(STRANGERS, 1500), Err(why));
    assert!(matches!(server.asks(9, 1500), Ok(Some(_))));
}
