//! What the wire demands of a proxyDHCP server: a datagram in, and the whole reply out, or the exact
//! reason for silence. Above each case stands who demands it: a standard, a firmware's source, or what
//! real firmware did when it was tried: QEMU's SeaBIOS with iPXE of 2019 and of 2026, and OVMF 2022.11.
//! Where firmware and a standard disagree, the firmware counts, and the case says so.
//!
//! From which port a reply leaves is the shell's: the socket that the request came in on. The lab looks
//! at that, in `tests/lab/journey.rs`.

use std::net::Ipv4Addr;

use super::packet::Malformed;
use super::proxy::{Arrival, Ignored, Outcome, Port, Query};
use super::pxe::NotOurs;
use super::testing::{
    CLIENT, Reply, US, answer, arrival, broadcast, captured, config, config_with, nbps, options,
    request, spelt_hex,
};
use crate::boot::event::{Event, Step, Subject};
use crate::boot::{Arch, Mac};
use crate::config::Config;
use crate::nbps::{Absence, find};

const PXE: (u8, &[u8]) = (60, b"PXEClient");
const HTTP: (u8, &[u8]) = (60, b"HTTPClient");
const IPXE: (u8, &[u8]) = (77, b"iPXE");
const BIOS: (u8, &[u8]) = (93, &[0, 0]);
const X64: (u8, &[u8]) = (93, &[0, 7]);
/// A client machine identifier: type 0, and a UUID.
const ID: (u8, &[u8]) = (97, b"\0 a client's UUID");
/// That of the machine in the captures, as a reply repeats it.
const CAPTURED_ID: &str = "97=00acd65b7d1f3a394c9f4e525400770001";
const SCRIPT: &str = "http://10.77.0.2:8080/boot/52-54-00-00-00-01.ipxe";

/// The offer to the machine of [`request`], as a broadcast.
fn offer(file: &str, options: &str) -> Reply {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    Reply {
        to: "255.255.255.255:68".into(),
        len: 300,
        head: [2, 1, 6],
        xid: 0xcafe_0001,
        flags: 0x8000,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        siaddr: US,
        giaddr: Ipv4Addr::UNSPECIFIED,
        chaddr,
        file: file.into(),
        options: options.into(),
    }
}

/// The same, to the machine in the captures.
fn offer_captured(xid: u32, file: &str, options: &str) -> Reply {
    let mut chaddr = [0; 16];
    chaddr[..6].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 1]);
    Reply { xid, chaddr, ..offer(file, options) }
}

/// The acknowledgement on port 4011 to a client that has an address and asks from this port.
fn ack(port: u16, file: &str, options: &str) -> Reply {
    Reply { to: format!("{CLIENT}:{port}"), flags: 0, ciaddr: CLIENT, ..offer(file, options) }
}

/// The reply to a broadcast on port 67.
fn offered(datagram: &[u8]) -> Reply {
    Reply::read(&answer(datagram, &broadcast(), &config("")))
}

/// Why a broadcast on port 67 gets none.
fn silence(datagram: &[u8]) -> Ignored {
    silence_of(answer(datagram, &broadcast(), &config("")))
}

fn silence_of(outcome: Outcome) -> Ignored {
    let Outcome::Ignored(reason) = outcome else { panic!("{outcome:?}") };
    reason
}

/// What the journal is told of a machine that is ours and gets no answer.
fn told(datagram: &[u8], config: &Config) -> String {
    match silence_of(answer(datagram, &broadcast(), config)) {
        reason @ Ignored::Decided { .. } => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A REQUEST to port 4011 from a client that has an address.
fn boot_server_request(options: &[(u8, &[u8])]) -> Vec<u8> {
    with(request(3, options), 12, &CLIENT.octets())
}

fn boot_server(from: (Ipv4Addr, u16)) -> Arrival {
    arrival(Port::BootServer, from)
}

fn acknowledged(datagram: &[u8], from: (Ipv4Addr, u16)) -> Reply {
    Reply::read(&answer(datagram, &boot_server(from), &config("")))
}

/// A datagram with these bytes of its fixed part written over.
fn with(mut datagram: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
    datagram
}

// Firmware that asks on port 67.

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

/// pixiecore dhcp.go: for what it has no file it says nothing, so that another server may.
#[test]
fn who_could_run_none_of_the_nbps_gets_silence_and_the_reason_is_told() {
    let riscv = request(1, &[PXE, (93, &[0, 27])]);
    let few = config_with(nbps(&[Arch::Bios, Arch::UefiX64]), "");
    assert_eq!(
        told(&riscv, &few),
        "no NBP for UEFI riscv64 was found; put one into a folder of `server.nbps` (Debian: package ipxe)"
    );
    let alien = request(1, &[PXE, (93, &[0, 99])]);
    assert_eq!(
        told(&alien, &config("")),
        "no NBP for architecture 99 (option 93) was found; put one into a folder of `server.nbps` (Debian: package ipxe)"
    );
}

/// PXE 2.1 section 2.2.1: option 60 tells a PXE client. dnsmasq's is_pxe_client asks for this prefix.
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
    let table: [(&[(u8, &[u8])], &str); 5] = [
        (&[], ""),
        (&[(97, &[0; 16])], ""),
        (&[(97, &[1; 17])], ""),
        (&[(97, b"")], ""),
        (&[(97, &[0; 17])], " 97=0000000000000000000000000000000000"),
    ];
    for (id, repeated) in table {
        let datagram = request(1, &[&[PXE, X64], id].concat());
        assert_eq!(offered(&datagram), offer("snponly.efi", &format!("{plain}{repeated}")));
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
    let step = Step::Leased { server: Some(Ipv4Addr::new(10, 77, 0, 1)) };
    let seen = Outcome::Seen(Event { subject, step });
    assert_eq!(answer(&datagram, &broadcast(), &config("")), seen);
}

/// danderson/netboot#21: one old ROM asks again until its REQUEST is answered by the proxy too.
#[test]
fn the_request_of_a_machine_that_wants_it_is_answered() {
    let config = config(
        "profiles: {p: {script: menu}}\n\
         machines: {m: {mac: 52:54:00:00:00:01, profile: p, answer_request_67: true}}",
    );
    let datagram = request(3, &[PXE, BIOS, (54, &[10, 77, 0, 1])]);
    let ack = offer("undionly.kpxe", "43=060108ff 53=05 54=10.77.0.2 60=PXEClient");
    assert_eq!(Reply::read(&answer(&datagram, &broadcast(), &config)), ack);
}

/// pixiecore dhcp.go: on port 67 only a DISCOVER is answered.
#[test]
fn an_inform_and_what_only_servers_send_get_silence_on_port_67() {
    for message_type in [2, 4, 5, 6, 7, 8, 9] {
        let datagram = request(message_type, &[PXE, BIOS]);
        assert_eq!(silence(&datagram), Ignored::NotForThisPort, "{message_type}");
    }
}

// Firmware that asks on port 4011.

/// edk2 PxeBcDhcp4.c, PxeBcRequestBootService: it listens on 4011. OVMF 2022.11 meets a reply to port
/// 68 with an ICMP error and PXE-E16, and loads the file that this reply names, not the offer's.
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

/// RFC 2131 section 4.3.2: option 54 names the server that is meant.
#[test]
fn what_is_meant_for_another_server_gets_silence() {
    let other = Ipv4Addr::new(10, 77, 0, 9);
    let datagram = boot_server_request(&[PXE, X64, (54, &other.octets())]);
    let outcome = answer(&datagram, &boot_server((CLIENT, 4011)), &config(""));
    assert_eq!(silence_of(outcome), Ignored::OtherServer(other));
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

/// PXE 2.1 section 2.2: the boot server port takes a REQUEST or an INFORM.
#[test]
fn what_is_no_request_gets_silence_on_port_4011() {
    for message_type in [1, 2, 4, 7] {
        let datagram = request(message_type, &[PXE, X64]);
        let outcome = answer(&datagram, &boot_server((CLIENT, 4011)), &config(""));
        assert_eq!(silence_of(outcome), Ignored::NotForThisPort, "{message_type}");
    }
}

// iPXE.

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

/// RFC 3004 puts a length before each class; iPXE sends four bare bytes; gPXE is its ancestor; and a
/// build with a class of its own, as Tinkerbell's, still has option 175.
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

/// iPXE core/features.c, features.h: 0x13 is HTTP. Without a scheme it fetches the name by TFTP from
/// siaddr (usr/autoboot.c), so our NBP needs no `tftp://` in front, and older builds take that as well.
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

// UEFI HTTP Boot.

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
        "no NBP for UEFI x86-64 was found; put one into a folder of `server.nbps` (Debian: package ipxe)"
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

// What the config changes.

/// RFC 2131 section 2: 128 bytes of `file`, with the NUL. The longest URL has the longest address.
#[test]
fn the_longest_name_of_an_nbp_fits_and_a_longer_one_is_never_offered() {
    let folder = tempfile::tempdir().unwrap();
    let named = |len: usize| format!("{}.efi", "n".repeat(len - 4));
    let mut program = [&b"MZ"[..], &[0; 58], &[64, 0, 0, 0], b"PE\0\0"].concat();
    program.extend(0x8664_u16.to_le_bytes());
    for len in [94, 95, 128] {
        std::fs::write(folder.path().join(named(len)), &program).unwrap();
    }
    let (found, mut bad) = find(&[(folder.path().to_owned(), Absence::IsAProblem)]);
    bad.sort();
    let reason = "its name is not offered: at most 94 letters, digits, `.`, `_`, `-` and `/` fit DHCP and a URL";
    let refused = [95, 128].map(|len| (folder.path().join(named(len)), reason.to_owned()));
    assert_eq!(bad, refused);

    let naming = |len| {
        let yaml = format!(
            "server: {{http: {{port: 65535}}}}\n\
             profiles: {{p: {{script: menu, nbp: {{uefi-x64: {}}}}}}}\n\
             machines: {{m: {{mac: 52:54:00:00:00:01, profile: p}}}}",
            named(len)
        );
        config_with(found.clone(), &yaml)
    };
    let arrival = Arrival { local: Ipv4Addr::BROADCAST, ..broadcast() };
    let datagram = request(1, &[HTTP, (93, &[0, 16])]);
    let reply = Reply::read(&answer(&datagram, &arrival, &naming(94)));
    assert_eq!(reply.file, format!("http://255.255.255.255:65535/nbp/{}", named(94)));
    assert_eq!(reply.file.len(), 127);

    let config = naming(128);
    let warning = config.warnings.last().unwrap().to_string();
    assert!(warning.contains(&format!("there is no NBP named `{}`", named(128))), "{warning}");
    assert!(told(&datagram, &config).contains(&named(128)));
}

/// pixiecore, interfaceIP: each machine is told the address on its own LAN.
#[test]
fn a_machine_is_told_our_address_on_the_interface_that_it_asked_on() {
    let other = Ipv4Addr::new(10, 88, 0, 2);
    let lans = [(US, "eth0"), (other, "eth1")];
    for (local, name) in lans {
        let arrival = Arrival { interface: name.into(), local, asked: local, ..broadcast() };
        let reply = |options| Reply::read(&answer(&request(1, options), &arrival, &config("")));
        let expected =
            |file: &str, options: String| Reply { siaddr: local, ..offer(file, &options) };
        assert_eq!(
            reply(&[PXE, X64]),
            expected("snponly.efi", format!("53=02 54={local} 60=PXEClient"))
        );
        assert_eq!(
            reply(&[HTTP, (93, &[0, 16])]),
            expected(
                &format!("http://{local}:8080/nbp/snponly.efi"),
                format!("53=02 54={local} 60=HTTPClient")
            )
        );
        assert_eq!(
            reply(&[PXE, IPXE, X64]),
            expected(
                &format!("http://{local}:8080/boot/52-54-00-00-00-01.ipxe"),
                format!("53=02 54={local} 60=PXEClient 175=010101")
            )
        );
    }
}

/// edk2#8149: firmware that wants a prompt. OVMF 2022.11 takes every one of these.
#[test]
fn a_machine_may_have_its_own_option_43() {
    let (x64, bios) = (request(1, &[PXE, X64]), request(1, &[PXE, BIOS]));
    let ipxe = request(1, &[PXE, IPXE, BIOS]);
    let http = request(1, &[HTTP, (93, &[0, 16])]);
    let table = [
        ("default", &x64, ""),
        ("default", &bios, "43=060108ff "),
        ("none", &x64, ""),
        ("none", &bios, ""),
        ("bios", &x64, "43=060108ff "),
        ("bios", &bios, "43=060108ff "),
        ("skip-prompt", &x64, "43=0601080a0400505845ff "),
        ("skip-prompt", &bios, "43=0601080a0400505845ff "),
    ];
    let reply = |mode: &str, datagram: &[u8]| {
        let config = config(&format!(
            "profiles: {{p: {{script: menu, option_43: bios}}}}\n\
             machines: {{m: {{mac: 52:54:00:00:00:01, profile: p, option_43: {mode}}}}}"
        ));
        Reply::read(&answer(datagram, &broadcast(), &config)).options
    };
    for (mode, datagram, option_43) in table {
        let options = format!("{option_43}53=02 54=10.77.0.2 60=PXEClient");
        assert_eq!(reply(mode, datagram), options, "{mode}");
    }
    for mode in ["default", "none", "bios", "skip-prompt"] {
        assert_eq!(reply(mode, &ipxe), "53=02 54=10.77.0.2 60=PXEClient 175=010101", "{mode}");
        assert_eq!(reply(mode, &http), "53=02 54=10.77.0.2 60=HTTPClient", "{mode}");
    }
}

/// pixiecore's `-n` and smee's allow-list do the same. The journal tells each reason once in 10 minutes.
#[test]
fn who_is_denied_gets_silence_and_the_reason_is_told() {
    let x64 = request(1, &[PXE, X64]);
    let denied = "it is not in the config, which says `unknown: ignore`";
    for options in [&[PXE, X64][..], &[HTTP, (93, &[0, 16])], &[PXE, IPXE, X64]] {
        assert_eq!(told(&request(1, options), &config("unknown: ignore")), denied);
    }
    let no_tftp = config("server: { tftp: off }");
    assert_eq!(told(&x64, &no_tftp), "it needs its NBP over TFTP, and the config says `tftp: off`");
    let taking_its_lease = request(3, &[PXE, X64, (54, &[10, 77, 0, 1])]);
    let outcome = answer(&taking_its_lease, &broadcast(), &config("unknown: ignore"));
    assert_eq!(silence_of(outcome), Ignored::NotForThisPort);
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

// What is copied from the request.

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
        offered(&with(datagram, 24, &[10, 1, 2, 1]))
    };
    let (whole, rest) = ([7; 255], [7; 28]);
    let most = relayed(&[&whole, &rest[..28]]);
    assert_eq!(most.len, 548);
    let echoed = format!(" 82={} 82={}", spelt_hex(&whole), spelt_hex(&rest));
    assert_eq!(most.options, format!("53=02 54=10.77.0.2 60=PXEClient{echoed}"));
    let beyond = relayed(&[&whole, &[7; 29]]);
    assert_eq!(beyond.len, 300);
    assert_eq!(beyond.options, "53=02 54=10.77.0.2 60=PXEClient");
    assert_eq!(relayed(&[&whole[..]; 200]), beyond);
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

// What is odd or damaged.

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

/// RFC 2132 section 3.14 wants ASCII, and machines were named otherwise; dhcproto's typed decoder stops
/// there, and at each of the others here.
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

// What holds for every reply.

/// All that was captured, and the port that it came to.
fn captures() -> [(Vec<u8>, Arrival); 12] {
    let on_4011 = boot_server((CLIENT, 4011));
    [
        (captured!("bios-rom-ipxe-discover"), broadcast()),
        (captured!("bios-rom-ipxe-request"), broadcast()),
        (captured!("bios-undionly-chained-discover"), broadcast()),
        (captured!("bios-undionly-chained-request"), broadcast()),
        (captured!("ovmf-http-discover"), broadcast()),
        (captured!("ovmf-http-request-main"), broadcast()),
        (captured!("ovmf-pxe-discover"), broadcast()),
        (captured!("ovmf-pxe-request-main"), broadcast()),
        (captured!("ovmf-pxe-request-4011"), on_4011),
        (captured!("snponly-from-http-discover"), broadcast()),
        (captured!("snponly-from-pxe-discover"), broadcast()),
        (captured!("snponly-from-pxe-request"), broadcast()),
    ]
}

/// RFC 2131 section 2 and RFC 1542 section 2.1 for the length; a proxy grants no lease and overloads
/// nothing; edk2's Dhcp4Io.c and OVMF 2022.11 ignore an offer without option 53 or 54.
fn is_sound(outcome: &Outcome, datagram: &[u8]) {
    let Outcome::Reply { datagram: reply, .. } = outcome else { return };
    assert!((300..=548).contains(&reply.len()), "{} bytes", reply.len());
    assert_eq!(reply[1..3], datagram[1..3], "htype and hlen");
    assert_eq!(reply[4..8], datagram[4..8], "xid");
    assert_eq!(reply[24..44], datagram[24..44], "giaddr and chaddr");
    // `Reply::read` looks at the zeros, `options` at End and at what follows it.
    Reply::read(outcome);
    let codes: Vec<u8> = options(reply).into_iter().map(|(code, _)| code).collect();
    for lease in [1, 3, 6, 51, 52] {
        assert!(!codes.contains(&lease), "option {lease}");
    }
    for demanded in [53, 54, 60] {
        assert_eq!(codes.iter().filter(|code| **code == demanded).count(), 1, "option {demanded}");
    }
}

/// What a bad cable, a bad ROM or a bad neighbour makes of a datagram.
#[test]
fn no_cut_off_datagram_is_too_much_and_each_reply_to_one_is_sound() {
    let config = config("");
    for (datagram, arrival) in captures() {
        for len in 0..=datagram.len() {
            is_sound(&answer(&datagram[..len], &arrival, &config), &datagram);
        }
    }
}

/// The same.
#[test]
fn no_changed_byte_is_too_much_and_each_reply_to_it_is_sound() {
    let config = config("");
    for (datagram, arrival) in captures() {
        let mut changed = datagram.clone();
        for at in 0..datagram.len() {
            for byte in 0..=u8::MAX {
                changed[at] = byte;
                is_sound(&answer(&changed, &arrival, &config), &changed);
            }
            changed[at] = datagram[at];
        }
    }
}
