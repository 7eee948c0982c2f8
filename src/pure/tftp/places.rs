//! Whether there is room for one more transfer, and which one makes room for it.
//!
//! Anybody can invent strangers: addresses that belong to no machine of the config. They share three quarters
//! of the places, and a machine of the config takes the place of a stranger that has acknowledged nothing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::pure::catalog::server::Tftp;

/// How long a client that has acknowledged nothing keeps its place where there are too many: its first
/// packet was then sent a second time.
const ITS_CHANCE: Duration = Duration::from_secs(1);
/// The part of all places that strangers cannot use.
const RESERVED: usize = 4;

/// A transfer's place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) peer: SocketAddrV4,
    /// Whether the client is a machine of the config.
    pub(crate) is_known: bool,
    /// Whether it has ever acknowledged anything.
    pub(crate) is_proven: bool,
    pub(crate) started: Instant,
}

impl Place {
    /// Whether this client had its time to acknowledge something, and did not.
    fn had_its_chance(&self, now: Instant) -> bool {
        !self.is_proven && now.duration_since(self.started) >= ITS_CHANCE
    }
}

/// Whether there is room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Free,
    /// If the transfer to this client ends.
    After(SocketAddrV4),
    /// None, for this reason.
    Full(&'static str),
}

/// How many places strangers have.
fn for_strangers(limits: &Tftp) -> usize {
    limits.max_transfers - limits.max_transfers / RESERVED
}

const BUSY: &str = "the server is busy: `server.tftp.max_transfers` are running";
const BUSY_WITH_STRANGERS: &str =
    "the server is busy: three quarters of `server.tftp.max_transfers` go to unknown machines";

/// Whether so many files may be read at once, and one more; or why not.
pub(crate) fn may_read(reading: usize, is_known: bool, limits: &Tftp) -> Result<(), &'static str> {
    let (most, full) = if is_known {
        (limits.max_transfers, BUSY)
    } else {
        (for_strangers(limits), BUSY_WITH_STRANGERS)
    };
    if reading < most { Ok(()) } else { Err(full) }
}

/// Whether there is room for one more transfer to this address.
pub(crate) fn room(
    places: impl Iterator<Item = Place>,
    (address, is_known): (Ipv4Addr, bool),
    limits: &Tftp,
    now: Instant,
) -> Room {
    const TOO_MANY: &str =
        "too many transfers to this address: `server.tftp.max_per_address` are running";
    let (mut all, mut strangers, mut to_address) = (0, 0, 0);
    let (mut at_address, mut stranger, mut known) = (None, None, None);
    for place in places {
        let is_here = *place.peer.ip() == address;
        all += 1;
        strangers += usize::from(!place.is_known);
        to_address += usize::from(is_here);
        if place.had_its_chance(now) && is_here {
            keep_older(&mut at_address, place);
        }
        if place.is_known && place.had_its_chance(now) {
            keep_older(&mut known, place);
        }
        // For a machine of the config a stranger's place is free until it has acknowledged something.
        if !place.is_known && (place.had_its_chance(now) || is_known && !place.is_proven) {
            keep_older(&mut stranger, place);
        }
    }
    let (makes_room, full) = if to_address >= limits.max_per_address {
        (at_address, TOO_MANY)
    } else if is_known && all >= limits.max_transfers {
        (stranger.or(known), BUSY)
    } else if !is_known && all >= limits.max_transfers {
        (stranger, BUSY)
    } else if !is_known && strangers >= for_strangers(limits) {
        (stranger, BUSY_WITH_STRANGERS)
    } else {
        return Room::Free;
    };
    makes_room.map_or(Room::Full(full), |place| Room::After(place.peer))
}

fn keep_older(kept: &mut Option<Place>, place: Place) {
    if kept.is_none_or(|kept| place.started < kept.started) {
        *kept = Some(place);
    }
}
