//! Which options are granted, and what goes out first.

use super::{Trace, ack, error, rrq};
use crate::pure::tftp::transfer::Outcome;

const LEN: u64 = 300_000;

/// What a request with these options is answered with at once.
fn answer(options: &[(&str, &str)]) -> Vec<String> {
    Trace::new(&rrq(options), LEN).sends()
}

/// RFC 1350 section 4.
#[test]
fn a_request_without_options_gets_the_first_512_bytes() {
    assert_eq!(answer(&[]), ["DATA 1: 512"]);
}

/// RFC 2349 section 3. edk2 boots nothing whose size it was not told (PXE-E53, seen).
#[test]
fn tsize_is_answered_with_the_size_and_with_nothing_else() {
    assert_eq!(answer(&[("tsize", "0")]), ["OACK tsize=300000"]);
    assert_eq!(Trace::new(&rrq(&[("tsize", "0")]), 0).sends(), ["OACK tsize=0"]);
    let five_gib = 5 << 30;
    assert_eq!(Trace::new(&rrq(&[("tsize", "0")]), five_gib).sends(), ["OACK tsize=5368709120"]);
}

/// edk2 Mtftp4Rrq.c: an OACK with more than was asked for, or a larger value, ends the boot (PXE-E23, seen).
#[test]
fn the_oack_holds_what_was_asked_for_and_never_a_larger_value() {
    let probe = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
    assert_eq!(answer(&probe), ["OACK tsize=300000 blksize=1468 windowsize=4"]);
    assert_eq!(answer(&probe[1..]), ["OACK blksize=1468 windowsize=4"]);
    assert_eq!(answer(&[("blksize", "1024")]), ["OACK blksize=1024"]);
    assert_eq!(answer(&[("blksize", "8")]), ["OACK blksize=8"]);
}

/// dnsmasq's tftp.c takes the interface's MTU less 32; edk2 of 2010 asked for 32768. Many ROMs cannot
/// put fragments together.
#[test]
fn a_block_fits_into_an_ethernet_frame_whatever_was_asked_for() {
    assert_eq!(answer(&[("blksize", "1469")]), ["OACK blksize=1468"]);
    assert_eq!(answer(&[("blksize", "32768")]), ["OACK blksize=1468"]);
    assert_eq!(answer(&[("blksize", "65464")]), ["OACK blksize=1468"]);
}

/// RFC 2348: from 8 to 65464. Another value is as if it had not been asked for: DATA of 512 bytes.
#[test]
fn a_block_size_that_is_none_is_ignored() {
    for value in [
        "7",
        "0",
        "65465",
        "-1",
        "+1024",
        "0x400",
        "1e3",
        " 512",
        "big",
        "",
        "99999999999999999999",
    ] {
        assert_eq!(answer(&[("blksize", value)]), ["DATA 1: 512"], "{value:?}");
        let beside = answer(&[("blksize", value), ("tsize", "0")]);
        assert_eq!(beside, ["OACK tsize=300000"], "{value:?}");
    }
}

/// RFC 2347: names are told in any case; the OACK has them as the standards write them.
#[test]
fn an_options_name_counts_in_any_case() {
    assert_eq!(answer(&[("BLKSIZE", "1024"), ("TSize", "0")]), ["OACK blksize=1024 tsize=300000"]);
}

/// RFC 2347: "not acknowledged" is how an option is refused. `multicast` (RFC 2090) would have others
/// listen in; `blksize2`, `rollover` and `utimeout` are tftp-hpa's own.
#[test]
fn options_that_are_not_granted_alone_lead_to_data_at_once() {
    for option in ["multicast", "blksize2", "rollover", "utimeout", "windowwait", "x-unknown", ""] {
        assert_eq!(answer(&[(option, "1")]), ["DATA 1: 512"], "{option:?}");
        let beside = answer(&[(option, "1"), ("blksize", "1432")]);
        assert_eq!(beside, ["OACK blksize=1432"], "{option:?}");
    }
}

/// RFC 2349 section 2: from 1 to 255, and the server answers with the same value or not at all.
#[test]
fn a_timeout_is_repeated_or_ignored() {
    for value in ["0", "256", "-1", "soon"] {
        assert_eq!(answer(&[("timeout", value)]), ["DATA 1: 512"], "{value:?}");
    }
    for value in ["1", "3", "255"] {
        assert_eq!(answer(&[("timeout", value)]), [format!("OACK timeout={value}")]);
    }
}

/// RFC 7440 section 3: from 1 to 65535, and the server may answer with less. Weak cards drop long bursts.
#[test]
fn a_window_is_granted_up_to_16_blocks() {
    assert_eq!(answer(&[("windowsize", "64")]), ["OACK windowsize=16"]);
    assert_eq!(answer(&[("windowsize", "65535")]), ["OACK windowsize=16"]);
    assert_eq!(answer(&[("windowsize", "1")]), ["OACK windowsize=1"]);
    for value in ["0", "65536", "many"] {
        assert_eq!(answer(&[("windowsize", value)]), ["DATA 1: 512"], "{value:?}");
    }
}

/// RFC 2347: data waits for ACK 0; whatever else is acknowledged then means nothing.
#[test]
fn after_an_oack_data_waits_for_ack_0() {
    let mut trace = Trace::new(&rrq(&[("blksize", "1468"), ("windowsize", "4")]), LEN);
    assert_eq!(trace.sends(), ["OACK blksize=1468 windowsize=4"]);
    assert_eq!(trace.hears(&ack(7)), [""; 0]);
    assert_eq!(
        trace.hears(&ack(0)),
        ["DATA 1: 1468", "DATA 2: 1468", "DATA 3: 1468", "DATA 4: 1468"]
    );
}

/// edk2 (ERROR 8, "User aborted the transfer") and BIOS ROMs (ERROR 0) ask for the size first; pin/tftp#125,
/// danderson/netboot#21. The second request of edk2 has no `tsize`, and its OACK must have none.
#[test]
fn a_probe_for_the_size_is_no_failure_and_the_request_after_it_stands_alone() {
    for code in [0, 8] {
        let probe = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
        let mut trace = Trace::new(&rrq(&probe), LEN);
        assert_eq!(trace.sends(), ["OACK tsize=300000 blksize=1468 windowsize=4"]);
        assert_eq!(trace.hears(&error(code, "User aborted the transfer")), [""; 0]);
        assert_eq!(*trace.outcome(), Outcome::Probed);
        assert_eq!(answer(&probe[1..]), ["OACK blksize=1468 windowsize=4"]);
    }
}

/// RFC 2347: a client that cannot live with what is granted says ERROR 8; after DATA that is no probe.
#[test]
fn an_error_after_data_is_no_probe() {
    let mut trace = Trace::new(&rrq(&[]), LEN);
    trace.sends();
    assert_eq!(trace.hears(&error(8, "")), [""; 0]);
    assert_eq!(*trace.outcome(), Outcome::Aborted { code: 8, text: String::new() });
}
