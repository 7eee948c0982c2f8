//! Firmware's own client asks on port 67: PXE, then UEFI HTTP Boot.

use std::net::Ipv4Addr;

use super::{
    BIOS, CAPTURED_ID, HTTP, ID, PXE, X64, offer, offer_captured, offered, silence, told, with,
};
use crate::pure::client::{Arch, Mac};
use crate::pure::dhcp::proxy::{Ignored, Outcome};
use crate::pure::dhcp::pxe::NotOurs;
use crate::pure::dhcp::testing::{
    CLIENT, answer, broadcast, captured, config, config_with, nbps, request,
};
use crate::pure::event::boot::{Event, Step, Subject};

/// PXE 2.1 sections 2.2 and 2.5: an offer without an address; discovery control 8, "just download".
#[test]
fn a_bios_rom_is_offered_undionly_and_told_to_just_download_it() {
    let class = (60, &b"PXEClient:Arch:00000:UNDI:002001"[..]);
    let rom = request(1, &[class, BIOS, (94, &[1, 2, 1]), ID]);
    let options =
        "43=060108ff 53=02 54=10.77.0.2 60=PXEClient 97=00206120636c69656e7427732055554944";
    assert_eq!(offered(&rom), offer("undionly.kpxe", options));
}

/// edk2 8cdd559be6: until then it dropped an offer with option 43 whole. OVMF 2022.11 takes this one.
#[test]
fn uefi_is_offered_its_nbp_without_option_43() {
    let options = format!("53=02 54=10.77.0.2 60=PXEClient {CAPTURED_ID}");
    let offer = offer_captured(0x632f_e57e, "snponly.efi", &options);
    assert_eq!(offered(&captured!("ovmf-pxe-discover")), offer);
}

/// RFC 4578 errata 4624 and 4625, IANA "Processor Architecture Types", ipxe.org/cfg/platform for 9.
#[test]
fn each_architecture_is_offered_the_nbp_that_it_runs() {
    let table = [
        (6, "i386/snponly.efi"),
        (7, "snponly.efi"),
        (9, "snponly.efi"),
        (10, "arm32/snponly.efi"),
        (11, "arm64/snponly.efi"),
        (27, "riscv64/snponly.efi"),
    ];
    for (arch, file) in table {
        let options = "53=02 54=10.77.0.2 60=PXEClient";
        assert_eq!(offered(&request(1, &[PXE, (93, &[0, arch])])), offer(file, options), "{arch}");
    }
}

/// pixiecore dhcp.go: for what it has no file it says nothing.
#[test]
fn who_could_run_none_of_the_nbps_gets_silence_and_the_reason_is_told() {
    let riscv = request(1, &[PXE, (93, &[0, 27])]);
    let few = config_with(nbps(&[Arch::Bios, Arch::UefiX64]), "");
    assert_eq!(
        told(&riscv, &few),
        "no NBP for UEFI riscv64 was found; see `reveille nbps`, or put one into a folder of `server.nbps`"
    );
    let alien = request(1, &[PXE, (93, &[0, 99])]);
    assert_eq!(told(&alien, &config("")), "no NBP is known for architecture 99 (option 93)");
}

/// PXE 2.1 section 2.2: option 60 tells a PXE client. dnsmasq's is_pxe_client asks for this prefix.
#[test]
fn who_does_not_say_that_it_is_a_pxe_client_gets_silence() {
    assert_eq!(silence(&request(1, &[BIOS])), Ignored::NotOurs(NotOurs::NotPxe));
    for class in [&b"MSFT 5.0"[..], b"AAPLBSDPC/i386", b"udhcp 1.36.1", b"pxeclient", b"PXE", b""] {
        let datagram = request(1, &[(60, class), BIOS]);
        assert_eq!(silence(&datagram), Ignored::NotOurs(NotOurs::NotPxe), "{class:?}");
    }
}

/// RFC 4578 section 2.1 demands option 93; a ROM without it is older, and those were BIOS only.
#[test]
fn without_option_93_it_is_a_bios_rom_unless_option_60_says_otherwise() {
    let bios = offer("undionly.kpxe", "43=060108ff 53=02 54=10.77.0.2 60=PXEClient");
    let x64 = offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient");
    assert_eq!(offered(&request(1, &[PXE])), bios);
    assert_eq!(offered(&request(1, &[PXE, (93, &[7])])), bios, "half a code is none");
    assert_eq!(offered(&request(1, &[(60, b"PXEClient:Arch:00007:UNDI:003016")])), x64);
}

/// danderson/netboot#21: a ROM without a GUID. dnsmasq's rfc2131.c repeats one of 17 bytes only, and
/// pixiecore's dhcp.go wants type 0.
#[test]
fn option_97_is_repeated_if_it_is_well_formed_and_its_lack_stops_nothing() {
    let plain = "53=02 54=10.77.0.2 60=PXEClient";
    assert_eq!(offered(&request(1, &[PXE, X64])), offer("snponly.efi", plain));
    let zeros = format!("{plain} 97=0000000000000000000000000000000000");
    let table =
        [(&[0; 17][..], zeros.as_str()), (&[0; 16], plain), (&[1; 17], plain), (b"", plain)];
    for (id, options) in table {
        let datagram = request(1, &[PXE, X64, (97, id)]);
        assert_eq!(offered(&datagram), offer("snponly.efi", options), "{id:02x?}");
    }
}

/// RFC 4578 section 2.2 has 3 bytes; dhcproto's typed decoder asserts it, so that it is not used.
#[test]
fn an_option_94_of_the_wrong_length_stops_nothing() {
    for interface in [&[1, 3][..], &[], &[1, 3, 16, 0]] {
        let datagram = request(1, &[(94, interface), PXE, X64]);
        assert_eq!(offered(&datagram), offer("snponly.efi", "53=02 54=10.77.0.2 60=PXEClient"));
    }
}

/// RFC 4578 section 2.1: option 93 is a list.
#[test]
fn of_several_architectures_the_first_known_one_counts() {
    let options = "53=02 54=10.77.0.2 60=PXEClient";
    let both = request(1, &[PXE, (93, &[0, 7, 0, 16])]);
    assert_eq!(offered(&both), offer("snponly.efi", options));
    let second = request(1, &[PXE, (93, &[0, 99, 0, 11])]);
    assert_eq!(offered(&second), offer("arm64/snponly.efi", options));
}

/// RFC 2131 section 4.3.2: a REQUEST is for the server in its option 54. Captured: OVMF's, to a router.
#[test]
fn the_request_by_which_a_machine_takes_its_lease_is_watched_and_not_answered() {
    let datagram = captured!("ovmf-pxe-request-main");
    let subject = Subject {
        mac: Some(Mac::new([0x52, 0x54, 0, 0x77, 0, 1])),
        name: None,
        address: Some(CLIENT),
    };
    let step = Step::Leased { server: Some(Ipv4Addr::new(10, 77, 0, 1)), relay: None };
    let seen = Outcome::Seen(Event { subject, step });
    assert_eq!(answer(&datagram, &broadcast(), &config("")), seen);
}

/// pixiecore dhcp.go: on port 67 only a DISCOVER is answered.
#[test]
fn an_inform_and_what_only_servers_send_get_silence_on_port_67() {
    for message_type in [2, 4, 5, 6, 7, 8, 9] {
        let datagram = request(message_type, &[PXE, BIOS]);
        assert_eq!(silence(&datagram), Ignored::NotForThisPort, "{message_type}");
    }
}

/// smee dhcp.go: a Raspberry Pi's ROM says that it is an x86 BIOS. One that runs UEFI says what it is.
#[test]
fn a_raspberry_pis_rom_gets_silence() {
    let rom = request(1, &[(60, b"PXEClient:Arch:00000:UNDI:002001"), BIOS]);
    let rom = with(rom, 28, &[0xdc, 0xa6, 0x32]);
    assert_eq!(silence(&rom), Ignored::NotOurs(NotOurs::RaspberryPi));
    let uefi = with(request(1, &[PXE, (93, &[0, 11])]), 28, &[0xdc, 0xa6, 0x32]);
    assert_eq!(offered(&uefi).file, "arm64/snponly.efi");
}

/// edk2 HttpBootDxe/HttpBootDhcp4.c: `HTTPClient` and a URI, else the offer is dropped.
#[test]
fn http_boot_is_offered_a_url_that_ends_in_efi() {
    let url = "http://10.77.0.2:8080/nbp/snponly.efi";
    let options = format!("53=02 54=10.77.0.2 60=HTTPClient {CAPTURED_ID}");
    let expected = offer_captured(0xd258_9a9c, url, &options);
    assert_eq!(offered(&captured!("ovmf-http-discover")), expected);

    let table = [(15, "i386/"), (17, ""), (18, "arm32/"), (19, "arm64/"), (28, "riscv64/")];
    for (arch, folder) in table {
        let url = format!("http://10.77.0.2:8080/nbp/{folder}snponly.efi");
        let expected = offer(&url, "53=02 54=10.77.0.2 60=HTTPClient");
        assert_eq!(offered(&request(1, &[HTTP, (93, &[0, arch])])), expected, "{arch}");
    }
}

/// Nothing turns HTTP Boot off but the lack of a UEFI NBP, or a name that is not there; pixiecore is
/// silent where it has no file, and so the firmware goes on with its boot order.
#[test]
fn http_boot_without_an_nbp_gets_silence_and_the_reason_is_told() {
    let datagram = request(1, &[HTTP, (93, &[0, 16])]);
    let bios_only = config_with(nbps(&[Arch::Bios]), "");
    assert_eq!(
        told(&datagram, &bios_only),
        "no NBP for UEFI x86-64 was found; see `reveille nbps`, or put one into a folder of `server.nbps`"
    );
    let elsewhere = config(
        "profiles: {p: {script: menu, nbp: {uefi-x64: off}}}\n\
         machines: {m: {mac: 52:54:00:00:00:01, profile: p}}",
    );
    assert_eq!(
        told(&datagram, &elsewhere),
        "the config gives it the NBP `off`, which was not found; put it into a folder of `server.nbps`"
    );
}
