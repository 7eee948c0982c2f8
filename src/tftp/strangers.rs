//! The requests of strangers, which wait until those of the machines of the config are answered.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;

use super::packet::Packet;
use crate::udp::Received;

/// How many requests wait at most: some 10 ms of work.
const MOST: usize = 1024;
/// How many of one address: one host cannot keep all others out.
const MOST_OF_AN_ADDRESS: usize = 8;

/// Those that wait, the first first.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    waiting: VecDeque<(Packet, Received)>,
    by_address: HashMap<Ipv4Addr, usize>,
}

impl Strangers {
    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Lets one wait; whether there is room for it.
    pub(super) fn push(&mut self, packet: Packet, received: Received) -> bool {
        if self.waiting.len() >= MOST {
            return false;
        }
        let count = self.by_address.entry(*received.from.ip()).or_default();
        if *count >= MOST_OF_AN_ADDRESS {
            return false;
        }
        *count += 1;
        self.waiting.push_back((packet, received));
        true
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<(Packet, Received)> {
        let (packet, received) = self.waiting.pop_front()?;
        let address = *received.from.ip();
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
        Some((packet, received))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV4;

    use super::*;

    fn received(address: u32, port: u16) -> Received {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x0a4d_0000 + address), port);
        Received { len: 2, from, interface: 1, local: Ipv4Addr::new(10, 77, 0, 2) }
    }

    #[test]
    fn strangers_are_served_in_turn_and_no_more_wait_than_there_is_room_for() {
        let mut strangers = Strangers::default();
        let accepted = (0..5000).filter(|n| strangers.push(Packet::Wrq, received(*n, 1))).count();
        assert_eq!(accepted, MOST);
        let order = std::iter::from_fn(|| strangers.pop()).map(|(_, received)| received.from);
        assert!(order.eq((0..1024).map(|n| received(n, 1).from)));
        assert!(strangers.is_empty() && strangers.by_address.is_empty());
    }

    #[test]
    fn a_host_that_floods_leaves_room_for_others() {
        let mut strangers = Strangers::default();
        let accepted = (0..5000).filter(|n| strangers.push(Packet::Wrq, received(7, *n))).count();
        assert_eq!(accepted, MOST_OF_AN_ADDRESS);
        assert!(strangers.push(Packet::Wrq, received(8, 1)));
        strangers.pop();
        assert!(strangers.push(Packet::Wrq, received(7, 9)), "one of its own was served");
        assert!(!strangers.push(Packet::Wrq, received(7, 10)));
    }
}
