//! What holds for every reply, whatever becomes of the datagrams that real firmware sent.

use super::boot_server;
use crate::pure::dhcp::arrival::Arrival;
use crate::pure::dhcp::proxy::Outcome;
use crate::pure::dhcp::testing::{
    CLIENT, answer, broadcast, captured, check_zeros, config, options,
};

/// The captured datagrams that are answered, and where each came in.
fn answered() -> [(Vec<u8>, Arrival); 6] {
    [
        (captured!("bios-rom-ipxe-discover"), broadcast()),
        (captured!("bios-undionly-chained-discover"), broadcast()),
        (captured!("ovmf-pxe-discover"), broadcast()),
        (captured!("ovmf-pxe-request-4011"), boot_server((CLIENT, 4011))),
        (captured!("ovmf-http-discover"), broadcast()),
        (captured!("snponly-from-pxe-discover"), broadcast()),
    ]
}

/// Those by which a machine takes its lease.
fn watched() -> [(Vec<u8>, Arrival); 5] {
    [
        captured!("bios-rom-ipxe-request"),
        captured!("bios-undionly-chained-request"),
        captured!("ovmf-http-request-main"),
        captured!("ovmf-pxe-request-main"),
        captured!("snponly-from-pxe-request"),
    ]
    .map(|datagram| (datagram, broadcast()))
}

/// RFC 2131 section 2 and RFC 1542 section 2.1 for the length; a proxy grants no lease and overloads
/// nothing; edk2's Dhcp4Io.c and OVMF 2022.11 ignore an offer without option 53 or 54.
fn check(outcome: &Outcome, datagram: &[u8]) {
    let Outcome::Reply { datagram: reply, .. } = outcome else { return };
    assert!((300..=548).contains(&reply.len()), "{} bytes", reply.len());
    assert_eq!(reply[0], 2, "op");
    assert_eq!(reply[1..3], datagram[1..3], "htype and hlen");
    assert_eq!(reply[4..8], datagram[4..8], "xid");
    assert_eq!(reply[24..44], datagram[24..44], "giaddr and chaddr");
    check_zeros(reply);
    let options = options(reply);
    let count = |code| options.iter().filter(|(found, _)| *found == code).count();
    assert_eq!([1, 3, 6, 51, 52, 67].map(count), [0; 6], "a lease, or what overloads: {options:?}");
    assert_eq!([53, 54, 60].map(count), [1; 3], "what firmware demands: {options:?}");
}

/// What a bad cable makes of a datagram. That replies come at all, the other cases see to.
#[test]
fn no_cut_off_datagram_is_too_much_and_each_reply_to_one_is_sound() {
    let config = config("");
    for (datagram, arrival) in answered().into_iter().chain(watched()) {
        for len in 0..=datagram.len() {
            check(&answer(&datagram[..len], &arrival, &config), &datagram);
        }
    }
}

/// What a bad ROM or a bad neighbour makes of it: every value of every byte, but for `sname` and `file`,
/// which nobody reads.
#[test]
fn no_changed_byte_is_too_much_and_each_reply_to_it_is_sound() {
    let config = config("");
    let check_all = |(datagram, arrival): (Vec<u8>, Arrival)| {
        let mut changed = datagram.clone();
        for at in 0..datagram.len() {
            let values = if (44..236).contains(&at) { u8::MAX..=u8::MAX } else { 0..=u8::MAX };
            for byte in values {
                changed[at] = byte;
                check(&answer(&changed, &arrival, &config), &changed);
            }
            changed[at] = datagram[at];
        }
    };
    std::thread::scope(|scope| {
        for capture in answered() {
            scope.spawn(|| check_all(capture));
        }
    });
}
