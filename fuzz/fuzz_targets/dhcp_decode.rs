//! Any bytes: the decoder and all that reads a decoded request.
#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use reveille::pure::dhcp::packet::{Offer, Request, option};
use reveille::pure::dhcp::pxe;
use reveille::pure::dhcp::survey::{Answer, Asked};

fuzz_target!(|datagram: &[u8]| {
    if let Ok(offer) = Offer::decode(datagram) {
        let answer = Answer::new(Asked::Uefi, Ipv4Addr::LOCALHOST, &offer);
        let texts = [answer.boot_file, answer.next_server, answer.vendor_class];
        assert!(texts.iter().flatten().all(|text| !text.chars().any(char::is_control)));
    }
    let Ok(request) = Request::decode(datagram) else { return };
    assert!(request.hlen <= 16);
    assert_eq!(request.xid.to_be_bytes(), datagram[4..8]);
    assert_eq!(request.chaddr, datagram[28..44]);
    assert!(request.options.get(option::MESSAGE_TYPE).is_some_and(|kind| !kind.is_empty()));
    let all = (0..=u8::MAX).filter_map(|code| request.options.get(code)).map(<[u8]>::len);
    assert!(all.sum::<usize>() <= datagram.len());
    let id = pxe::client_machine_id(&request);
    assert!(id.is_none_or(|id| id.len() == 17 && id[0] == 0));
    if let Some(item) = pxe::boot_item(&request) {
        assert_eq!(item.echo().len(), 7);
    }
    if let Ok(client) = pxe::client(&request) {
        assert_eq!(client.mac, pxe::mac(&request));
        assert_eq!(client.mac.is_some(), request.hlen == 6);
    }
});
