//! The requests of unknown machines, which wait until those of the machines of the config are answered.
//!
//! Addresses take turns, and if the queue is full, the address with the most requests in it loses one: one
//! host cannot keep the others out, and a burst from one address (machines behind NAT) waits like any other.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use crate::pure::tftp::packet::Packet;
use crate::sys::udp::Received;

/// Limit of waiting requests: some 10 ms of work.
const LIMIT: usize = 1024;

/// The waiting requests, by address.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    /// No queue in it is empty.
    by_address: HashMap<Ipv4Addr, VecDeque<(Packet, Received)>>,
    /// Each address that has a queue, once, in the order of their turns.
    turns: VecDeque<Ipv4Addr>,
    waiting: usize,
}

impl Strangers {
    /// Whether no request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Queues a request. Returns the sender whose request was dropped for it, if the queue is full.
    pub(super) fn push(&mut self, packet: Packet, received: Received) -> Option<SocketAddrV4> {
        let address = *received.from.ip();
        let dropped = if self.waiting < LIMIT {
            None
        } else {
            let own = self.by_address.get(&address).map_or(0, VecDeque::len);
            let longest = self.by_address.values_mut().max_by_key(|queue| queue.len());
            let longest = longest.filter(|queue| queue.len() > own + 1);
            let Some((_, dropped)) = longest.and_then(VecDeque::pop_back) else {
                return Some(received.from);
            };
            self.waiting -= 1;
            Some(dropped.from)
        };
        let queue = self.by_address.entry(address).or_default();
        if queue.is_empty() {
            self.turns.push_back(address);
        }
        queue.push_back((packet, received));
        self.waiting += 1;
        dropped
    }

    /// The next request of the address whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<(Packet, Received)> {
        let address = self.turns.pop_front()?;
        let queue = self.by_address.get_mut(&address)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.by_address.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        self.waiting -= usize::from(next.is_some());
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(address: u32, port: u16) -> Received {
        let from = SocketAddrV4::new(Ipv4Addr::from(0x0a4d_0000 + address), port);
        Received { len: 2, from, interface: 1, local: Ipv4Addr::new(10, 77, 0, 2) }
    }

    fn order(queue: &mut Strangers) -> Vec<SocketAddrV4> {
        std::iter::from_fn(|| queue.pop()).map(|(_, received)| received.from).collect()
    }

    #[test]
    fn a_burst_from_one_address_waits_as_a_whole() {
        let mut queue = Strangers::default();
        assert!((0..1000).all(|port| queue.push(Packet::Wrq, received(7, port)).is_none()));
        assert!(order(&mut queue).into_iter().eq((0..1000).map(|port| received(7, port).from)));
        assert!(queue.is_empty() && queue.by_address.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn addresses_take_turns() {
        let mut queue = Strangers::default();
        for (address, port) in [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2)] {
            assert_eq!(queue.push(Packet::Wrq, received(address, port)), None);
        }
        let expected = [(1, 1), (2, 1), (3, 1), (1, 2), (3, 2), (1, 3)];
        assert_eq!(order(&mut queue), expected.map(|(address, port)| received(address, port).from));
    }

    #[test]
    fn a_full_queue_drops_requests_of_the_address_that_has_the_most() {
        let mut queue = Strangers::default();
        let is_accepted = |port: &u16| queue.push(Packet::Wrq, received(7, *port)).is_none();
        let accepted = (0..5000).filter(is_accepted).count();
        assert_eq!(accepted, LIMIT);
        let newest = received(7, LIMIT as u16 - 1).from;
        assert_eq!(queue.push(Packet::Wrq, received(8, 1)), Some(newest));
        assert_eq!(queue.push(Packet::Wrq, received(7, 1)), Some(received(7, 1).from));
        let order = order(&mut queue);
        assert_eq!(order.len(), LIMIT);
        assert_eq!(order[1], received(8, 1).from);
    }

    #[test]
    fn a_full_queue_of_many_addresses_keeps_one_request_of_each() {
        let mut queue = Strangers::default();
        let is_accepted = |n: &u32| queue.push(Packet::Wrq, received(*n, 1)).is_none();
        let accepted = (0..5000).filter(is_accepted).count();
        assert_eq!(accepted, LIMIT);
        let order = order(&mut queue);
        assert!(order.into_iter().eq((0..LIMIT as u32).map(|n| received(n, 1).from)));
        assert!(queue.is_empty() && queue.by_address.is_empty());
    }
}
