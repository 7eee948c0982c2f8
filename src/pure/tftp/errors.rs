//! How many ERROR replies go out. Each answers a datagram of about its size, whose sender may be forged: one
//! address gets a few, strangers together most of the total, and machines of the config the rest at least.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;
use std::time::Instant;

use crate::pure::rate_limit::{Budget, Budgets};

/// ERRORs to one address at once, and a second: PXELINUX asks for some twelve files that do not exist before
/// it finds its config, and GRUB for more.
const OF_AN_ADDRESS: (u32, u32) = (30, 5);
/// How many addresses are kept.
const ADDRESSES: usize = 4096;
/// The part of all ERRORs that strangers cannot use up.
const RESERVED: u32 = 4;

/// The budgets of ERROR replies.
#[derive(Debug)]
pub(crate) struct Errors {
    all: Budget,
    strangers: Budget,
    addresses: Budgets<Ipv4Addr>,
}

impl Errors {
    /// At most this many a second in all.
    pub(crate) fn new(max: u32) -> Self {
        Self {
            all: Budget::new((max, max)),
            strangers: Budget::new((max, max - max / RESERVED)),
            addresses: Budgets::new(OF_AN_ADDRESS, ADDRESSES),
        }
    }

    /// One more to this address: whether it goes out.
    pub(crate) fn spend(&mut self, (to, is_known): (Ipv4Addr, bool), now: Instant) -> bool {
        // Those that do not go out in any case need no budget of their own: so few addresses are kept.
        let has_one = self.all.has_one(now) && (is_known || self.strangers.has_one(now));
        if !has_one || !self.addresses.spend(to, now) {
            return false;
        }
        if !is_known {
            self.strangers.spend(now);
        }
        self.all.spend(now).is_some()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test starts at some moment, no matter which")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(number: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 + number)
    }

    /// How many of `a_second` go out in `seconds`, to the addresses that `to` returns.
    fn sent(
        errors: &mut Errors,
        (seconds, a_second): (u32, u32),
        to: impl Fn(u32) -> (Ipv4Addr, bool),
    ) -> usize {
        let start = Instant::now();
        let at = |n| start + Duration::from_secs_f64(f64::from(n) / f64::from(a_second));
        (0..seconds * a_second).filter(|n| errors.spend(to(*n), at(*n))).count()
    }

    /// A forged sender is a victim.
    #[test]
    fn one_address_gets_a_few_however_many_are_asked_for_in_its_name() {
        let mut errors = Errors::new(100);
        let sent = sent(&mut errors, (10, 10_000), |_| (address(1), false));
        assert!((75..=80).contains(&sent), "{sent} in ten seconds");
    }

    #[test]
    fn a_noisy_host_does_not_use_up_the_errors_of_others() {
        let mut errors = Errors::new(100);
        let to = |n: u32| (if n.is_multiple_of(1000) { address(n) } else { address(1) }, false);
        let start = Instant::now();
        let at = |n: u32| start + Duration::from_micros(u64::from(n) * 100);
        let others =
            (0..100_000).filter(|n| errors.spend(to(*n), at(*n)) && n.is_multiple_of(1000));
        assert_eq!(others.count(), 100);
    }

    #[test]
    fn strangers_leave_a_quarter_to_machines_of_the_config() {
        let mut errors = Errors::new(100);
        let strangers = sent(&mut errors, (1, 50_000), |n| (address(1000 + n), false));
        assert!((170..=180).contains(&strangers), "{strangers}: 100 at once, and 75 a second");
        let mut errors = Errors::new(100);
        let start = Instant::now();
        let at = |n: u32| start + Duration::from_micros(u64::from(n) * 20);
        let known = (0..100_000_u32).filter(|n| {
            let is_known = n.is_multiple_of(5000);
            let to = if is_known { address(n / 5000 % 4) } else { address(1000 + n) };
            errors.spend((to, is_known), at(*n)) && is_known
        });
        assert_eq!(known.count(), 20, "four machines that ask for ten files a second in a flood");
    }

    #[test]
    fn none_go_out_where_none_may() {
        let mut errors = Errors::new(0);
        assert_eq!(sent(&mut errors, (2, 100), |n| (address(n), true)), 0);
    }
}
