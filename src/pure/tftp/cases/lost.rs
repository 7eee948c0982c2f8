//! What happens where packets are lost, doubled or late.

use super::{Trace, ack, rrq};
use crate::pure::tftp::transfer::Outcome;

/// RFC 6298 section 2.1: before a round trip was measured, one second, then twice as long each time.
#[test]
fn what_is_lost_is_sent_again_after_a_second_and_then_after_twice_as_long() {
    let mut trace = Trace::new(&rrq(&[]), 2000);
    assert_eq!(trace.sends(), ["DATA 1: 512"]);
    assert_eq!(trace.at(999), [""; 0]);
    assert_eq!(trace.at(1000), ["DATA 1: 512"]);
    assert_eq!(trace.at(2999), [""; 0]);
    assert_eq!(trace.at(3000), ["DATA 1: 512"]);
}

/// RFC 6298 section 2: four times the measured round trip, where a fixed second would cost a boot minutes.
#[test]
fn the_wait_follows_the_measured_round_trip() {
    let mut trace = Trace::new(&rrq(&[]), 5000);
    trace.sends();
    trace.at(20);
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 512"]);
    assert_eq!(trace.at(99), [""; 0]);
    assert_eq!(trace.at(100), ["DATA 2: 512"]);
    assert_eq!(trace.at(259), [""; 0]);
    assert_eq!(trace.at(260), ["DATA 2: 512"]);
}

/// Firmware polls its card, some of it every few milliseconds: a wait of less would only double the load.
#[test]
fn the_wait_is_never_shorter_than_50_ms() {
    let mut trace = Trace::new(&rrq(&[]), 5000);
    trace.sends();
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 512"]);
    assert_eq!(trace.at(49), [""; 0]);
    assert_eq!(trace.at(50), ["DATA 2: 512"]);
}

/// RFC 6298 sections 3 and 5.7: an ACK of what went out twice measures nothing, and the longer wait
/// stays until one does: else a client that has become slow is sent every block several times, for ever.
#[test]
fn a_client_that_becomes_slow_is_waited_for() {
    let mut trace = Trace::new(&rrq(&[]), 512 * 1000);
    trace.sends();
    let mut now = 0;
    for block in 1..=500 {
        if block <= 100 {
            now += 1;
            trace.at(now);
        } else {
            for _ in 0..300 {
                now += 1;
                trace.at(now);
            }
        }
        trace.hears(&ack(block));
    }
    let again = trace.transfer.resent();
    assert!(again < 20, "{again} of 400 blocks were sent again");
}

/// RFC 1123 section 4.2.3.1: a duplicate ACK makes nobody send.
#[test]
fn a_duplicate_ack_is_not_answered() {
    let mut trace = Trace::new(&rrq(&[]), 1 << 20);
    trace.sends();
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 512"]);
    for _ in 0..5 {
        assert_eq!(trace.hears(&ack(1)), [""; 0]);
    }
}

/// RFC 1123 section 4.2.3.1, "Sorcerer's Apprentice Syndrome": each ACK twice, the second one late.
#[test]
fn delayed_duplicate_acks_over_50_blocks_double_nothing() {
    let mut trace = Trace::new(&rrq(&[]), 512 * 50 - 1);
    trace.sends();
    for block in 1..=50 {
        trace.hears(&ack(block));
        trace.hears(&ack(block));
        trace.hears(&ack(block.saturating_sub(1)));
    }
    assert_eq!(trace.sent.0, 50);
    assert_eq!(*trace.outcome(), Outcome::Complete);
}

/// RFC 7440 section 4: an ACK within the window says that what follows it is lost; edk2's Mtftp4Rrq.c
/// sends it for every packet that comes out of order, and it counts once.
#[test]
fn a_block_lost_in_a_window_is_resumed_from_once() {
    let mut trace = Trace::new(&rrq(&[("windowsize", "64")]), 512 * 100);
    trace.sends();
    assert_eq!(trace.hears(&ack(0)).len(), 16);
    // Block 17 + 5 is lost.
    assert_eq!(trace.hears(&ack(16)).len(), 16);
    let resumed = trace.hears(&ack(21));
    assert_eq!((resumed[0].as_str(), resumed.len()), ("DATA 22: 512", 16));
    for _ in 0..10 {
        assert_eq!(trace.hears(&ack(21)), [""; 0]);
    }
    assert_eq!(trace.transfer.resent(), 11);
    assert_eq!(trace.hears(&ack(37))[0], "DATA 38: 512");
}

/// ipxe tftp.c asks again after 0.26, 0.55, 1.04, 2.0 s (seen), edk2 after 4 s: from the same port, and
/// what it then gets is the same OACK.
#[test]
fn a_request_that_is_repeated_gets_the_same_oack_once_more() {
    let mut trace = Trace::new(&rrq(&[("tsize", "0"), ("blksize", "1432")]), 74_213);
    let oack = ["OACK tsize=74213 blksize=1432"];
    assert_eq!(trace.sends(), oack);
    trace.at(260);
    assert_eq!(trace.hears_the_request_again(), oack);
    trace.at(550);
    assert_eq!(trace.hears_the_request_again(), oack);
    assert_eq!(trace.hears(&ack(0)), ["DATA 1: 1432"]);
    assert_eq!(trace.hears_the_request_again(), [""; 0], "it is too late to begin anew");
}

/// The same where nothing was agreed on: DATA 1 is what is repeated.
#[test]
fn a_request_that_is_repeated_gets_the_same_first_block_once_more() {
    let mut trace = Trace::new(&rrq(&[]), 74_213);
    assert_eq!(trace.sends(), ["DATA 1: 512"]);
    trace.at(260);
    assert_eq!(trace.hears_the_request_again(), ["DATA 1: 512"]);
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 512"]);
    assert_eq!(trace.hears(&ack(1)), [""; 0], "both copies are acknowledged");
}

/// ipxe tftp.c sends its last ACK once and closes; dnsmasq's tftp.c takes it for a success too.
#[test]
fn a_missing_last_ack_is_a_success() {
    for (options, acks) in [(&[][..], &[1][..]), (&[("windowsize", "4")], &[0, 1])] {
        let mut trace = Trace::new(&rrq(options), 600);
        trace.sends();
        acks.iter().for_each(|block| drop(trace.hears(&ack(*block))));
        assert!(trace.abandoned().len() <= 15);
        assert_eq!((trace.outcome(), trace.transfer.delivered()), (&Outcome::Complete, 600));
    }
}

/// Where frames of a block's size do not get through, the OACK does.
#[test]
fn who_acknowledges_the_options_and_no_block_has_nothing() {
    for len in [0, 600, 1468 * 15] {
        let options = [("blksize", "1468"), ("windowsize", "16")];
        let mut trace = Trace::new(&rrq(&options), len);
        trace.sends();
        trace.hears(&ack(0));
        trace.abandoned();
        assert_eq!(
            (trace.outcome(), trace.transfer.delivered()),
            (&Outcome::GaveUp { block: 1 }, 0)
        );
    }
}

/// danderson/netboot#21: BIOS ROMs ask from port 2070, then 2071; others from one port only, which need not
/// wait for an ACK that was lost.
#[test]
fn who_asks_for_the_next_file_has_all_of_the_last_one_that_was_sent() {
    let mut trace = Trace::new(&rrq(&[]), 1000);
    trace.sends();
    assert_eq!(trace.transfer.left_for_another(), Outcome::Replaced);
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 488"]);
    assert_eq!(trace.transfer.left_for_another(), Outcome::Complete);
}

/// A client that falls silent in the middle has not got its file.
#[test]
fn a_client_that_falls_silent_in_the_middle_is_given_up() {
    let mut trace = Trace::new(&rrq(&[]), 1 << 20);
    trace.sends();
    trace.hears(&ack(1));
    trace.abandoned();
    assert_eq!(*trace.outcome(), Outcome::GaveUp { block: 2 });
    let seconds = (trace.now - trace.start).as_secs();
    assert!((30..40).contains(&seconds), "after {seconds} s");
}

/// Sieklik, Macfarlane and Buchanan, 2016: whoever forges an address has the server send to it. Five packets,
/// of one block at the most, whatever window was asked for.
#[test]
fn who_never_answers_gets_five_packets() {
    let mut plain = Trace::new(&rrq(&[]), 1 << 20);
    assert_eq!(plain.sends(), ["DATA 1: 512"]);
    assert_eq!(plain.abandoned(), [1000, 3000, 7000, 11_000]);
    assert_eq!((plain.sent, plain.outcome()), ((5, 5 * 516), &Outcome::GaveUp { block: 1 }));

    let mut insistent = Trace::new(&rrq(&[]), 1 << 20);
    insistent.sends();
    let sent: usize = (1..300).map(|_| insistent.hears_the_request_again().len()).sum();
    assert_eq!(sent, 4, "who only asks again and again gets no more");
    assert_eq!(insistent.abandoned(), [0; 0]);
    assert_eq!(*insistent.outcome(), Outcome::GaveUp { block: 1 });

    let mut greedy = Trace::new(&rrq(&[("blksize", "65464"), ("windowsize", "65535")]), 1 << 20);
    assert_eq!(greedy.sends(), ["OACK blksize=1468 windowsize=16"]);
    greedy.abandoned();
    assert_eq!((greedy.sent.0, greedy.outcome()), (5, &Outcome::GaveUp { block: 0 }));
}

/// A LAN that loses one packet in eight both ways, and doubles another: a client as edk2's Mtftp4Rrq.c is,
/// which acknowledges whole windows, and says again what it has when something else comes. That cannot be
/// told from a loss where a packet was doubled, and to go back is then quicker than to wait.
#[test]
fn a_bad_lan_is_got_over_at_the_price_of_packets() {
    for (window, seed) in
        [1, 4, 16].into_iter().flat_map(|window| (1..20).map(move |n| (window, n)))
    {
        let mut luck = seed * 0x9e37_79b9_u64;
        let mut copies = || {
            luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            [0, 2, 1, 1, 1, 1, 1, 1][(luck >> 61) as usize]
        };
        let blocks = 200_u16;
        let size = window.to_string();
        let mut trace = Trace::new(&rrq(&[("windowsize", &size)]), u64::from(blocks) * 512 - 1);
        let (mut had, mut in_window) = (0, 0);
        let mut on_the_way = trace.sends();
        let mut now = 0;
        while trace.outcome.is_none() {
            now += 1;
            let mut acks = Vec::new();
            for packet in on_the_way.drain(..) {
                for _ in 0..copies() {
                    let data = packet.strip_prefix("DATA ").and_then(|rest| rest.split_once(':'));
                    match data.map(|(block, _)| block.parse::<u16>().unwrap()) {
                        None => acks.push(0),
                        Some(block) if block == had + 1 => {
                            had = block;
                            in_window += 1;
                            if in_window == window || had == blocks {
                                in_window = 0;
                                acks.push(had);
                            }
                        }
                        Some(_) => {
                            in_window = 0;
                            acks.push(had);
                        }
                    }
                }
            }
            on_the_way.extend(trace.at(now));
            for block in acks {
                for _ in 0..copies() {
                    on_the_way.extend(trace.hears(&ack(block)));
                }
            }
        }
        assert_eq!((trace.outcome(), had), (&Outcome::Complete, blocks), "{window}, {seed}");
        let (sent, most) = (trace.sent.0, usize::from(blocks) * (2 + window / 2));
        assert!(sent < most, "window {window}, seed {seed}: {sent} packets in {now} ms");
    }
}

/// Nothing in RFC 1350 shows that an ACK was sent by whoever received the data: a neighbour with the client's address
/// and both ports can send each block's number without having seen one. No ACK gets ahead of what has gone out.
#[test]
fn acks_that_are_sent_without_sight_of_the_data_complete_a_transfer() {
    let mut trace = Trace::new(&rrq(&[]), 512 * 4 + 1);
    assert_eq!(trace.sends(), ["DATA 1: 512"]);
    assert_eq!(trace.hears(&ack(5)), [""; 0], "it has not gone out");
    (1..=5).for_each(|block| drop(trace.hears(&ack(block))));
    assert_eq!(trace.outcome(), &Outcome::Complete);
}
