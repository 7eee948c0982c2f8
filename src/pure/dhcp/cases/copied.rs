//! What is copied from the request.

use std::net::Ipv4Addr;

use super::{ID, IPXE, PXE, SCRIPT, X64, offer, offered, with};
use crate::pure::dhcp::arrival::Port;
use crate::pure::dhcp::proxy::Query;
use crate::pure::dhcp::testing::{Reply, answer, arrival, config, request, spelt_hex};

/// RFC 2131 section 4.1, RFC 3046 section 2.2; bootimus#129: a relay that was answered by broadcast.
#[test]
fn a_relay_is_answered_at_its_port_67_with_its_option_82_last_and_verbatim() {
    let relay_agent: &[u8] = &[2, 2, 0xbe, 0xef, 1, 1, 7];
    let relayed = with(request(1, &[(82, relay_agent), PXE, IPXE, X64, ID]), 24, &[10, 1, 2, 1]);
    let arrival = arrival(Port::Dhcp, (Ipv4Addr::new(10, 1, 2, 1), 67));
    let id = "97=00206120636c69656e7427732055554944";
    let options = format!("53=02 54=10.77.0.2 60=PXEClient {id} 175=010101 82=0202beef010107");
    let expected = Reply {
        to: "10.1.2.1:67".into(),
        giaddr: Ipv4Addr::new(10, 1, 2, 1),
        ..offer(SCRIPT, &options)
    };
    assert_eq!(Reply::read(&answer(&relayed, &arrival, &config(""))), expected);
}

/// RFC 3046 section 2.2: what cannot be copied in full is left out; RFC 2131 section 2: 548 bytes fit.
#[test]
fn an_option_82_that_does_not_fit_is_left_out() {
    let relayed = |pieces: &[&[u8]]| {
        let pieces: Vec<(u8, &[u8])> = pieces.iter().map(|piece| (82, *piece)).collect();
        let datagram = request(1, &[&[PXE, X64], &pieces[..]].concat());
        let arrival = arrival(Port::Dhcp, (Ipv4Addr::new(10, 1, 2, 1), 67));
        Reply::read(&answer(&with(datagram, 24, &[10, 1, 2, 1]), &arrival, &config("")))
    };
    let (whole, rest) = ([7; 255], [7; 28]);
    let most = relayed(&[&whole, &rest[..28]]);
    assert_eq!(most.len, 548);
    let echoed = format!(" 82={} 82={}", spelt_hex(&whole), spelt_hex(&rest));
    assert_eq!(most.options, format!("53=02 54=10.77.0.2 60=PXEClient{echoed}"));
    let beyond = relayed(&[&whole, &[7; 29]]);
    assert_eq!(beyond.len, 300);
    assert_eq!(beyond.options, "53=02 54=10.77.0.2 60=PXEClient");
    assert_eq!(relayed(&[&whole[..]; 6]), beyond);
}

/// RFC 3046 section 2.1: option 82 is a relay's, and without `giaddr` there was none.
#[test]
fn an_option_82_that_no_relay_put_in_is_left_out() {
    let datagram = request(1, &[(82, &[1, 1, 7]), PXE, X64]);
    assert_eq!(offered(&datagram), offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient"));
}

/// dnsmasq's rfc2131.c sets the flag for a proxy: who has no address is only reached so. iPXE asks
/// without it and takes the broadcast, as all firmware does.
#[test]
fn a_reply_has_the_broadcast_flag_whatever_the_request_said() {
    for flags in [[0, 0], [0x80, 0]] {
        let datagram = with(request(1, &[PXE, X64]), 10, &flags);
        assert_eq!(offered(&datagram), offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient"));
    }
}

/// edk2 PxeBcDhcp4.c, SendGUID: the system's GUID stands in `chaddr`, of length 16, and is no MAC.
#[test]
fn a_hardware_address_of_16_bytes_goes_back_as_it_came() {
    let guid = *b"0123456789abcdef";
    let datagram = with(with(request(1, &[PXE, X64]), 2, &[16]), 28, &guid);
    assert_eq!(Query::read(&datagram).unwrap().mac(), None);
    let offer = offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient");
    assert_eq!(offered(&datagram), Reply { head: [2, 1, 16], chaddr: guid, ..offer });
}
