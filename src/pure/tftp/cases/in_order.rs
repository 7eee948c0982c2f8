//! How the blocks go out where nothing is lost.

use super::{Trace, ack, error, rrq};
use crate::pure::tftp::packet::{acknowledged, on_the_wire};
use crate::pure::tftp::transfer::Outcome;

/// RFC 1350 section 6: the block that is not full is the last, so a file of whole blocks has an empty one.
#[test]
fn a_file_of_whole_blocks_ends_with_an_empty_one() {
    let mut trace = Trace::new(&rrq(&[]), 1024);
    assert_eq!(trace.sends(), ["DATA 1: 512"]);
    assert_eq!(trace.hears(&ack(1)), ["DATA 2: 512"]);
    assert_eq!(trace.hears(&ack(2)), ["DATA 3: 0"]);
    assert_eq!(trace.hears(&ack(3)), [""; 0]);
    assert_eq!(*trace.outcome(), Outcome::Complete);
    assert_eq!(trace.transfer.delivered(), 1024);
}

/// RFC 1350 section 6.
#[test]
fn a_last_block_is_as_long_as_what_is_left() {
    for (len, last) in [(1, "DATA 1: 1"), (511, "DATA 1: 511")] {
        let mut trace = Trace::new(&rrq(&[]), len);
        assert_eq!(trace.sends(), [last]);
        trace.hears(&ack(1));
        assert_eq!(*trace.outcome(), Outcome::Complete);
    }
}

/// RFC 1350 section 6.
#[test]
fn an_empty_file_is_one_empty_block() {
    let mut trace = Trace::new(&rrq(&[]), 0);
    assert_eq!(trace.sends(), ["DATA 1: 0"]);
    trace.hears(&ack(1));
    assert_eq!(*trace.outcome(), Outcome::Complete);
}

/// RFC 7440 section 4: a window, one ACK, the next; the last window is as long as what is left.
#[test]
fn windows_go_out_whole_and_wait_for_one_ack_each() {
    let mut trace = Trace::new(&rrq(&[("windowsize", "4")]), 512 * 5);
    assert_eq!(trace.sends(), ["OACK windowsize=4"]);
    let window = ["DATA 1: 512", "DATA 2: 512", "DATA 3: 512", "DATA 4: 512"];
    assert_eq!(trace.hears(&ack(0)), window);
    assert_eq!(trace.hears(&ack(4)), ["DATA 5: 512", "DATA 6: 0"]);
    assert_eq!(trace.hears(&ack(6)), [""; 0]);
    assert_eq!(*trace.outcome(), Outcome::Complete);
}

/// iPXE's tftp.c and edk2 count 65535, 0, 1, as tftp-hpa's server does by default: no standard says it.
/// 40 MB in blocks of 512 bytes roll over once, a window of 16 in blocks of 8 goes across it.
#[test]
fn the_block_number_rolls_over_to_0() {
    for (options, len) in
        [(&[][..], 40_000_000), (&[("blksize", "8"), ("windowsize", "16")], 1_200_000)]
    {
        let mut trace = Trace::new(&rrq(options), len);
        let mut sent = trace.sends();
        if !options.is_empty() {
            sent = trace.hears(&ack(0));
        }
        let (mut block, mut bytes) = (0_u64, 0_u64);
        while trace.outcome.is_none() {
            for packet in &sent {
                block += 1;
                let (number, len) = packet["DATA ".len()..].split_once(": ").unwrap();
                assert_eq!(number, (block % 65_536).to_string());
                bytes += len.parse::<u64>().unwrap();
            }
            sent = trace.hears(&ack((block % 65_536) as u16));
        }
        assert_eq!((bytes, trace.transfer.resent()), (len, 0));
        assert!(block > 70_000, "{block} blocks");
        assert_eq!(*trace.outcome(), Outcome::Complete);
    }
}

/// The same numbers, where a window spans the rollover.
#[test]
fn sixteen_bits_name_the_block_across_the_rollover() {
    assert_eq!((on_the_wire(65_535), on_the_wire(65_536), on_the_wire(65_537)), (65_535, 0, 1));
    assert_eq!(acknowledged(0, 65_530, 65_540), Some(65_536));
    assert_eq!(acknowledged(65_535, 65_530, 65_540), Some(65_535));
    assert_eq!(acknowledged(4, 65_530, 65_540), Some(65_540));
    assert_eq!(acknowledged(5, 65_530, 65_540), None);
    assert_eq!(acknowledged(65_529, 65_530, 65_540), None);
    assert_eq!(acknowledged(0, 0, 1), Some(0));
}

/// RFC 1350 section 7: an ERROR ends it, and is not answered.
#[test]
fn an_error_among_the_data_ends_it_at_once_without_a_word() {
    let mut trace = Trace::new(&rrq(&[("windowsize", "4")]), 1 << 20);
    trace.sends();
    assert_eq!(trace.hears(&ack(0)).len(), 4);
    assert_eq!(trace.hears(&error(3, "disk full")), [""; 0]);
    assert_eq!(*trace.outcome(), Outcome::Aborted { code: 3, text: "disk full".into() });
    assert_eq!(trace.at(60_000), [""; 0]);
    assert_eq!(trace.hears(&ack(4)), [""; 0]);
}

/// RFC 1350 section 4: an ACK for what was never sent, or for what is long past, means nothing.
#[test]
fn an_ack_for_a_block_that_is_not_out_is_ignored() {
    let mut trace = Trace::new(&rrq(&[]), 1 << 20);
    trace.sends();
    trace.hears(&ack(1));
    for block in [0, 1, 3, 4, 65_535] {
        assert_eq!(trace.hears(&ack(block)), [""; 0], "ACK {block}");
    }
    assert_eq!(trace.hears(&ack(2)), ["DATA 3: 512"]);
}
