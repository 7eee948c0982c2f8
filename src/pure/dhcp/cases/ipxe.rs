//! iPXE asks for its script.

use super::{BIOS, CAPTURED_ID, IPXE, PXE, SCRIPT, X64, offer, offer_captured, offered};
use crate::pure::dhcp::testing::{captured, request};

/// iPXE net/udp/dhcp.c, dhcp_has_pxeopts: a siaddr even beside a URL, else it asks port 4011; and
/// core/settings.c: without a priority the router's file name wins (iPXE of 2019 and of 2026).
#[test]
fn an_ipxe_is_offered_its_script_with_priority_and_without_option_43() {
    let script = "http://10.77.0.2:8080/boot/52-54-00-77-00-01.ipxe";
    let options = format!("53=02 54=10.77.0.2 60=PXEClient {CAPTURED_ID} 175=010101");
    for (xid, datagram) in [
        (0x9d36_b64a, captured!("bios-rom-ipxe-discover")),
        (0x1d90_c15a, captured!("bios-undionly-chained-discover")),
        (0xf79a_fd15, captured!("snponly-from-pxe-discover")),
        (0xf79a_fd15, captured!("snponly-from-http-discover")),
    ] {
        assert_eq!(offered(&datagram), offer_captured(xid, script, &options));
    }
}

/// RFC 3004 puts a length before each class, and iPXE sends four bare bytes: the firmware counts. gPXE
/// is its ancestor, and one with a class of its own (smee's is `Tinkerbell`) still sends option 175.
#[test]
fn an_ipxe_is_known_by_either_spelling_of_its_class_or_by_its_own_option() {
    let offer = offer(SCRIPT, "53=02 54=10.77.0.2 60=PXEClient 175=010101");
    let classes = [&b"iPXE"[..], b"\x04iPXE", b"\x03foo\x04iPXE", b"gPXE", b"\x04gPXE"];
    for class in classes {
        for arch in [BIOS, X64] {
            assert_eq!(offered(&request(1, &[PXE, (77, class), arch])), offer, "{class:?}");
        }
    }
    let private = request(1, &[PXE, (77, b"Tinkerbell"), (175, &[0x13, 1, 1]), X64]);
    assert_eq!(offered(&private), offer, "never the NBP again");
    for other in [&b"iPXE-X"[..], b"\x06iPXE-X", b"iPX"] {
        let firmware = request(1, &[PXE, (77, other), X64]);
        assert_eq!(offered(&firmware).file, "snponly.efi", "{other:?}");
    }
}

/// iPXE include/ipxe/features.h: 0x13 is HTTP. A name without a scheme it fetches by TFTP from siaddr
/// (usr/autoboot.c), as firmware does, so that our NBP needs no `tftp://` in front of it.
#[test]
fn an_ipxe_without_http_is_offered_our_nbp_by_name() {
    let table = [(BIOS, "undionly.kpxe"), (X64, "snponly.efi")];
    for (arch, file) in table {
        let old = request(1, &[PXE, IPXE, arch, (175, &[0x15, 1, 1, 0x18, 1, 1])]);
        let options = "53=02 54=10.77.0.2 60=PXEClient 175=010101";
        assert_eq!(offered(&old), offer(file, options));
    }
}

/// iPXE net/udp/dhcp.c copies option 60 from the firmware that loaded it: seen chained from OVMF.
#[test]
fn a_chained_ipxe_that_inherited_a_bare_class_is_offered_its_script() {
    let chained = request(1, &[PXE, IPXE, X64, (97, &[0; 17])]);
    let id = "97=0000000000000000000000000000000000";
    let options = format!("53=02 54=10.77.0.2 60=PXEClient {id} 175=010101");
    assert_eq!(offered(&chained), offer(SCRIPT, &options));
}

/// iPXE net/udp/dhcp.c takes a proxy's offer with `PXEClient` only; one with `HTTPClient` it ignored.
#[test]
fn an_ipxe_that_inherited_the_class_of_http_boot_is_answered_as_a_pxe_client() {
    let chained = request(1, &[(60, b"HTTPClient:Arch:00016:UNDI:003001"), IPXE, (93, &[0, 16])]);
    let options = "53=02 54=10.77.0.2 60=PXEClient 175=010101";
    assert_eq!(offered(&chained), offer(SCRIPT, options));
}
