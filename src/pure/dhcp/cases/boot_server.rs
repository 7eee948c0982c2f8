//! Firmware and iPXE ask on port 4011.

use std::net::Ipv4Addr;

use super::{
    BIOS, CAPTURED_ID, IPXE, PXE, SCRIPT, X64, ack, acknowledged, boot_server_request, offer,
    offer_captured, silence_of, with,
};
use crate::pure::dhcp::arrival::Arrival;
use crate::pure::dhcp::cases::boot_server;
use crate::pure::dhcp::proxy::Ignored;
use crate::pure::dhcp::testing::{CLIENT, Reply, US, answer, captured, config, request, spelt_hex};

/// edk2 PxeBcDhcp4.c, PxeBcRequestBootService: it listens on 4011. RFC 2131 section 4.1 would have the
/// reply at port 68, which OVMF 2022.11 meets with an ICMP error and PXE-E16: the firmware counts. It
/// loads the file that this reply names, not the offer's.
#[test]
fn uefi_is_acknowledged_at_the_port_4011_that_it_asked_from() {
    let datagram = captured!("ovmf-pxe-request-4011");
    let options = format!("53=05 54=10.77.0.2 60=PXEClient {CAPTURED_ID}");
    let captured = offer_captured(0xba41_e107, "snponly.efi", &options);
    let ack = Reply { to: "10.77.0.100:4011".into(), flags: 0, ciaddr: CLIENT, ..captured };
    assert_eq!(acknowledged(&datagram, (CLIENT, 4011)), ack);
}

/// iPXE net/udp/dhcp.c, dhcp_pxebs_rx. It listens on 68 and sets the broadcast flag although it has an
/// address: RFC 2131 section 4.1 would have the address count anyway, and iPXE of 2019 takes it so.
#[test]
fn ipxe_is_acknowledged_at_the_port_68_that_it_asked_from_whatever_its_flag_says() {
    let asking = boot_server_request(&[PXE, IPXE, BIOS, (54, &US.octets())]);
    let options = "53=05 54=10.77.0.2 60=PXEClient 175=010101";
    assert_eq!(acknowledged(&asking, (CLIENT, 68)), ack(68, SCRIPT, options));
    let flagged = with(asking, 10, &[0x80, 0]);
    let flagged_ack = Reply { flags: 0x8000, ..ack(68, SCRIPT, options) };
    assert_eq!(acknowledged(&flagged, (CLIENT, 68)), flagged_ack);
}

/// PXE 2.1 section 2.2: a ROM that does not just download asks here, and gets what it was offered.
#[test]
fn a_bios_rom_is_acknowledged_with_what_it_was_offered() {
    let options = "43=060108ff 53=05 54=10.77.0.2 60=PXEClient";
    for message_type in [3, 8] {
        let datagram = with(request(message_type, &[PXE, BIOS]), 12, &CLIENT.octets());
        assert_eq!(acknowledged(&datagram, (CLIENT, 4011)), ack(4011, "undionly.kpxe", options));
    }
}

/// RFC 2131 section 4.3.2: option 54 names the server that is meant, by any address that it has told.
#[test]
fn what_is_meant_for_another_server_gets_silence() {
    let [asked, other] = [8, 9].map(|last| Ipv4Addr::new(10, 77, 0, last));
    let arrival = Arrival { asked, ..boot_server((CLIENT, 4011)) };
    let naming = |server: Ipv4Addr| {
        let datagram = boot_server_request(&[PXE, X64, (54, &server.octets())]);
        answer(&datagram, &arrival, &config(""))
    };
    assert_eq!(silence_of(naming(other)), Ignored::OtherServer(other));
    let ack = ack(4011, "snponly.efi", "53=05 54=10.77.0.2 60=PXEClient");
    assert_eq!([US, asked].map(|server| Reply::read(&naming(server))), [ack.clone(), ack]);
}

/// edk2 PxeBcDhcp4.c takes a new xid for this REQUEST, so nothing may depend on the DISCOVER's.
#[test]
fn a_request_of_another_transaction_than_the_discovers_is_answered() {
    let datagram = with(boot_server_request(&[PXE, X64]), 4, &[0xde, 0xad, 0xbe, 0xef]);
    let ack = ack(4011, "snponly.efi", "53=05 54=10.77.0.2 60=PXEClient");
    assert_eq!(acknowledged(&datagram, (CLIENT, 4011)), Reply { xid: 0xdead_beef, ..ack });
}

/// dnsmasq dhcp.c: who asks from 0.0.0.0 is reached by broadcast, on the interface that it came by.
#[test]
fn who_asks_port_4011_without_an_address_is_answered_by_broadcast() {
    let ack = offer("snponly.efi", "53=05 54=10.77.0.2 60=PXEClient");
    assert_eq!(acknowledged(&request(3, &[PXE, X64]), (Ipv4Addr::UNSPECIFIED, 68)), ack);
}

/// PXE 2.1 section 2.5, sub-option 71; dnsmasq's rfc2131.c answers with it and nothing else in 43.
#[test]
fn a_boot_item_is_repeated() {
    for item in [&[71, 4, 0, 0, 0, 0, 255][..], &[6, 1, 8, 0, 71, 4, 0x80, 1, 0, 2, 255]] {
        for (arch, file) in [(X64, "snponly.efi"), (BIOS, "undionly.kpxe")] {
            let datagram = boot_server_request(&[PXE, arch, (43, item)]);
            let at = item.iter().position(|byte| *byte == 71).unwrap();
            let item = spelt_hex(&item[at..]);
            let options = format!("43={item} 53=05 54=10.77.0.2 60=PXEClient");
            assert_eq!(acknowledged(&datagram, (CLIENT, 4011)), ack(4011, file, &options));
        }
    }
}

/// PXE 2.1 section 2.2.3: bit 15 of the layer asks for signed credentials. dnsmasq is silent as well.
#[test]
fn a_boot_item_with_credentials_gets_silence() {
    let datagram = boot_server_request(&[PXE, X64, (43, &[71, 4, 0, 0, 0x80, 0, 255])]);
    let outcome = answer(&datagram, &boot_server((CLIENT, 4011)), &config(""));
    assert_eq!(silence_of(outcome), Ignored::Credentials);
}

/// dnsmasq's rfc2131.c: the boot server port takes a REQUEST or an INFORM.
#[test]
fn what_is_no_request_gets_silence_on_port_4011() {
    for message_type in [1, 2, 4, 7] {
        let datagram = request(message_type, &[PXE, X64]);
        let outcome = answer(&datagram, &boot_server((CLIENT, 4011)), &config(""));
        assert_eq!(silence_of(outcome), Ignored::NotForThisPort, "{message_type}");
    }
}
