//! What the transfers before it have taught: a bad one is followed by one that gets through.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Trace, ack, error, rrq};
use crate::pure::tftp::history::History;
use crate::pure::tftp::options::Most;
use crate::pure::tftp::transfer::Outcome;

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 50);
const LEN: u64 = 100_000;

/// What iPXE and edk2 ask for together.
fn options() -> Vec<u8> {
    rrq(&[("tsize", "0"), ("blksize", "1468"), ("windowsize", "16")])
}

/// A server and its one client.
struct Experience {
    history: History,
    clock: Trace,
}

impl Experience {
    fn new() -> Self {
        Self { history: History::default(), clock: Trace::new(&rrq(&[]), 1) }
    }

    /// The client asks, after so many seconds; what it is answered, and the transfer.
    fn asks(&mut self, request: &[u8], seconds: u64) -> (Vec<String>, Trace) {
        self.clock.now += Duration::from_secs(seconds);
        let now = self.clock.now;
        let most = self.history.most(CLIENT, Most::over(1500), now);
        let mut trace = Trace::begun(request, LEN, (most, now));
        (trace.sends(), trace)
    }

    /// How its transfer ends, and that this is so known.
    fn learns(&mut self, trace: &Trace) -> Outcome {
        self.clock.now = self.clock.now.max(trace.now);
        let (times, outcome) = ((trace.start, trace.now), trace.outcome().clone());
        self.history.learn(CLIENT, times, (&trace.transfer, &outcome));
        outcome
    }

    /// The client gets the options, and then never a block.
    fn fails_in_its_data(&mut self) -> Outcome {
        let (_, mut trace) = self.asks(&options(), 1);
        trace.hears(&ack(0));
        trace.abandoned();
        self.learns(&trace)
    }

    /// All goes well, but for so many windows that are lost once.
    fn fetches(&mut self, request: &[u8], losses: u16) -> Outcome {
        let (mut first, mut trace) = self.asks(request, 1);
        if first[0].starts_with("OACK") {
            first = trace.hears(&ack(0));
        }
        let mut had = 0;
        let mut losses_left = losses;
        let mut came = first.len();
        while trace.outcome.is_none() {
            if losses_left > 0 && came > 1 {
                losses_left -= 1;
                // All but the first are lost.
                had += 1;
            } else {
                had += u16::try_from(came).unwrap();
            }
            came = trace.hears(&ack(had)).len();
        }
        self.learns(&trace)
    }
}

/// RFC 1350 without what came later; but UEFI takes an answer that lacks the size it asked for as an error
/// (seen: OVMF 2022.11), and so it still gets that.
#[test]
fn who_fails_twice_in_its_data_gets_blocks_of_512_one_at_a_time() {
    let mut it = Experience::new();
    let usual = ["OACK tsize=100000 blksize=1468 windowsize=16"];
    assert_eq!(it.fails_in_its_data(), Outcome::GaveUp { block: 1 });
    assert_eq!(it.asks(&options(), 1).0, usual, "once is an accident");
    it.fails_in_its_data();
    let (oack, mut trace) = it.asks(&options(), 1);
    assert_eq!(oack, ["OACK tsize=100000"]);
    assert!(trace.transfer.granted().is_held_back);
    assert_eq!(trace.hears(&ack(0)), ["DATA 1: 512"]);
    let last = u16::try_from(LEN / 512 + 1).unwrap();
    (1..=last).for_each(|block| drop(trace.hears(&ack(block))));
    assert_eq!(it.learns(&trace), Outcome::Complete);
    assert_eq!(it.asks(&options(), 3599).0, ["OACK tsize=100000"], "what works stays");
    assert_eq!(it.asks(&options(), 3600).0, usual, "for an hour");
}

/// RFC 2347: a client that knows no options ignores an OACK; then the server has to do without.
#[test]
fn who_twice_does_not_take_an_oack_is_sent_none() {
    let mut it = Experience::new();
    for _ in 0..2 {
        let (oack, mut trace) = it.asks(&options(), 1);
        assert!(oack[0].starts_with("OACK"), "{oack:?}");
        trace.abandoned();
        assert_eq!(it.learns(&trace), Outcome::GaveUp { block: 0 });
    }
    let (data, trace) = it.asks(&options(), 1);
    assert_eq!(data, ["DATA 1: 512"]);
    assert!(trace.transfer.granted().is_held_back);
    assert!(!it.asks(&rrq(&[]), 1).1.transfer.granted().is_held_back, "it did not ask for any");
}

/// Seen with OVMF 2022.11: it ends a transfer with error 8 whose OACK lacks the size, and boots nothing. A
/// machine that was switched off twice must not be kept from its boot by that.
#[test]
fn who_gets_no_further_without_an_oack_is_sent_one_again() {
    let mut it = Experience::new();
    for _ in 0..2 {
        let (_, mut trace) = it.asks(&options(), 1);
        trace.abandoned();
        it.learns(&trace);
    }
    let (data, mut trace) = it.asks(&options(), 1);
    assert_eq!(data, ["DATA 1: 512"]);
    trace.hears(&error(8, "no size"));
    it.learns(&trace);
    assert_eq!(it.asks(&options(), 1).0, ["OACK tsize=100000 blksize=1468 windowsize=16"]);
}

/// What was only taken for a success, since all of it was sent, is no reason to go on as before.
#[test]
fn a_last_ack_that_never_came_makes_up_for_no_failure() {
    let mut it = Experience::new();
    it.fails_in_its_data();
    let (_, mut trace) = it.asks(&options(), 1);
    trace.hears(&ack(0));
    (1..=4).for_each(|window| drop(trace.hears(&ack(16 * window))));
    trace.abandoned();
    assert_eq!(it.learns(&trace), Outcome::Complete);
    it.fails_in_its_data();
    assert_eq!(it.asks(&options(), 1).0, ["OACK tsize=100000"]);
}

/// Some ROMs ask for the size and say no more; what they ask for next, they fetch.
#[test]
fn who_leaves_after_the_size_and_fetches_the_file_has_not_failed() {
    let mut it = Experience::new();
    for request in [options(), rrq(&[])].iter().cycle().take(6) {
        let (_, mut probe) = it.asks(&rrq(&[("tsize", "0")]), 1);
        it.fetches(request, 0);
        probe.abandoned();
        assert_eq!(it.learns(&probe), Outcome::GaveUp { block: 0 });
    }
    assert_eq!(it.asks(&options(), 1).0, ["OACK tsize=100000 blksize=1468 windowsize=16"]);
}

/// edk2 ends its probe with code 8, BIOS ROMs with 0, some of them after they have taken the OACK.
#[test]
fn who_ends_it_before_the_first_block_has_only_asked_for_the_size() {
    let mut it = Experience::new();
    for code in [0, 8, 0, 8] {
        let (_, mut trace) = it.asks(&options(), 1);
        trace.hears(&ack(0));
        trace.hears(&error(code, "enough"));
        it.learns(&trace);
    }
    assert_eq!(it.asks(&options(), 1).0, ["OACK tsize=100000 blksize=1468 windowsize=16"]);
    for code in [4, 3] {
        let (_, mut trace) = it.asks(&options(), 1);
        trace.hears(&ack(0));
        trace.hears(&error(code, "too large"));
        it.learns(&trace);
    }
    assert_eq!(it.asks(&options(), 1).0, ["OACK tsize=100000"], "another code says what is wrong");
}

/// RFC 7440 section 4: a loss costs what is left of its window. A shorter one then carries more.
#[test]
fn who_loses_much_gets_half_of_the_window_the_next_time_and_more_again_after_a_good_one() {
    let mut it = Experience::new();
    let mut window = |losses| {
        assert_eq!(it.fetches(&options(), losses), Outcome::Complete);
        it.asks(&options(), 1).1.transfer.granted().windowsize
    };
    // Each loss has one block less than a window sent twice, of 69 blocks.
    assert_eq!([window(0), window(1), window(1)], [16, 8, 4]);
    assert_eq!(window(1), 8, "3 of 69 are few");
    assert_eq!([window(1), window(9), window(9)], [4, 2, 1]);
    assert_eq!([window(0), window(0), window(0), window(0), window(0)], [2, 4, 8, 16, 16]);
}

/// Whoever can invent addresses can have them all remembered, for a while.
#[test]
fn no_more_clients_are_remembered_than_there_is_room_for() {
    let mut it = Experience::new();
    for client in 0..10_000_u32 {
        let (_, mut trace) = it.asks(&options(), 1);
        trace.abandoned();
        let times = (trace.start, trace.now);
        it.history.learn(client.into(), times, (&trace.transfer, trace.outcome()));
    }
    assert!(it.history.clients() <= 4096, "{}", it.history.clients());
}
