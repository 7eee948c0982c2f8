//! What is odd or damaged.

use super::{PXE, X64, offer, offered, silence, with};
use crate::pure::dhcp::packet::Malformed;
use crate::pure::dhcp::proxy::Ignored;
use crate::pure::dhcp::testing::request;

/// RFC 2131 section 4.1: option 52 says that `file` and `sname` hold options too, in this order.
/// RFC 3396 section 7: an option in pieces is put together.
#[test]
fn an_option_in_pieces_is_put_together_also_out_of_the_overloaded_fields() {
    let whole = offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient");
    let split = request(1, &[(60, b"PXECl"), X64, (60, b"ient")]);
    assert_eq!(offered(&split), whole);
    let within_file = with(request(1, &[X64, (52, &[1])]), 108, b"\x3c\x09PXEClient\xff");
    assert_eq!(offered(&within_file), whole);
    let within_name = with(request(1, &[X64, (52, &[2])]), 44, b"\x3c\x09PXEClient\xff");
    assert_eq!(offered(&within_name), whole);
    let both = request(1, &[(60, b"PXE"), X64, (60, b"Cli"), (52, &[3])]);
    let both = with(with(both, 108, b"\x3c\x02en\xff"), 44, b"\x3c\x01t\xff");
    assert_eq!(offered(&both), whole);
}

/// dhcproto's typed decoder stops at each of these, of which a host name in Latin-1 is the likeliest
/// (RFC 2132 section 3.14 has ASCII), and all that follows would be lost.
#[test]
fn one_bad_option_does_not_hide_the_others() {
    let odd: [(u8, &[u8]); 4] = [(12, b"caf\xe9"), (94, &[1, 2]), (22, &[1]), (97, &[0; 3])];
    let datagram = request(1, &[&odd[..], &[PXE, X64]].concat());
    assert_eq!(offered(&datagram), offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient"));
}

/// RFC 2131 section 2: the fixed fields; section 3: the magic cookie; RFC 951 section 3: `op`.
#[test]
fn what_is_no_dhcp_request_gets_silence() {
    let good = request(1, &[PXE]);
    let table = [
        (Vec::new(), Malformed::Short(0)),
        (good[..239].to_vec(), Malformed::Short(239)),
        (with(good.clone(), 236, &[0]), Malformed::Cookie),
        // dhcproto 0.15 would read past the field.
        (with(good.clone(), 2, &[17]), Malformed::HardwareAddress(17)),
        (with(good.clone(), 0, &[2]), Malformed::NotARequest),
        (with(good.clone(), 240, &[61]), Malformed::NoMessageType),
        (good[..250].to_vec(), Malformed::Truncated),
        (good[..244].to_vec(), Malformed::Truncated),
        (with(good.clone(), 244, &[200]), Malformed::Truncated),
    ];
    for (datagram, malformed) in table {
        assert_eq!(silence(&datagram), Ignored::Malformed(malformed));
    }
    let without_end = &good[..good.len() - 1];
    assert_eq!(offered(without_end), offered(&good), "a missing End is forgiven");
}
