//! What other servers send, and what it does to our boots.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use super::{BIOS, IPXE, PXE, X64, offer, silence_of};
use crate::pure::catalog::nbp::Nbps;
use crate::pure::catalog::server::Naming;
use crate::pure::client::{Arch, Mac};
use crate::pure::dhcp::packet::{Malformed, Offer, Request};
use crate::pure::dhcp::proxy::{Outcome, Query, respond};
use crate::pure::dhcp::survey::{Answer, Asked, Finding, Prober, Us, chosen, findings, silence};
use crate::pure::dhcp::testing::{Reply, US, broadcast, config, nbps, options, request};
use crate::pure::event::boot::{Event, Sent, Step, Subject, Transport};
use crate::pure::machine::state::MachineState;

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
const LEASE: [u8; 4] = [10, 77, 0, 100];

/// An offer from a server, with this address for the client.
fn offer_from(server: Ipv4Addr, yiaddr: [u8; 4], more: &[(u8, &[u8])]) -> Vec<u8> {
    let server = server.octets();
    let mut datagram = request(2, &[&[(54, &server[..])][..], more].concat());
    datagram[0] = 2;
    datagram[16..20].copy_from_slice(&yiaddr);
    datagram
}

fn read(asked: Asked, datagram: &[u8]) -> Answer {
    let from = Ipv4Addr::new(10, 77, 0, 77);
    Answer::new(asked, from, &Offer::decode(datagram).unwrap())
}

fn us(naming: Naming, nbps: &Nbps) -> Us<'_> {
    Us { addresses: vec![US], naming, nbps }
}

/// What a router's offer to a UEFI machine is found to be, beside our proxyDHCP.
fn found(more: &[(u8, &[u8])]) -> Vec<String> {
    found_by(Naming::ByUs, &offer_from(ROUTER, LEASE, more))
}

fn found_by(naming: Naming, datagram: &[u8]) -> Vec<String> {
    let answers = [read(Asked::Uefi, datagram)];
    findings(&answers, &BTreeSet::new(), &us(naming, &nbps(&Arch::ALL)))
        .iter()
        .map(Finding::to_string)
        .collect()
}

fn begins(found: &[String], beginnings: &[&str]) {
    assert_eq!(found.len(), beginnings.len(), "{found:#?}");
    for (found, beginning) in found.iter().zip(beginnings) {
        assert!(found.starts_with(beginning), "{found}");
    }
}

// RFC 2131 section 4.3.1: an ordinary offer, which is nobody's trouble.
#[test]
fn a_router_that_only_gives_leases_is_no_finding() {
    assert_eq!(found(&[]), [""; 0]);
    // dnsmasq names itself in `siaddr`, and no file.
    let mut datagram = offer_from(ROUTER, LEASE, &[]);
    datagram[20..24].copy_from_slice(&ROUTER.octets());
    assert_eq!(found_by(Naming::ByUs, &datagram), [""; 0]);
}

// edk2 PxeBcDhcp4.c and ipxe dhcp.c, both seen: OVMF asks the router's port 4011 and ends with PXE-E16,
// iPXE takes such an offer for the proxy's.
#[test]
fn an_option_60_from_the_router_is_told() {
    begins(
        &found(&[(60, b"PXEClient")]),
        &["the DHCP server 10.77.0.1 sends option 60 `PXEClient`"],
    );
    begins(&found(&[(60, b"MSFT 5.0")]), &[]);
}

// ipxe dhcp.c, seen: with it in the router's offer, iPXE boots what the router names.
#[test]
fn no_pxedhcp_from_the_router_is_told() {
    let told = ["the DHCP server 10.77.0.1 sends iPXE `no-pxedhcp`"];
    begins(&found(&[(175, &[0xb0, 1, 1])]), &told);
    begins(&found(&[(175, &[1, 1, 1, 0xb0, 1, 1])]), &told);
    begins(&found(&[(175, &[0xb0, 1, 0])]), &[]);
    begins(&found(&[(175, &[1, 9, 0xb0])]), &[]);
}

// RFC 2132 sections 9.4 and 9.5, and RFC 2131 section 2: in options or in the header.
#[test]
fn a_boot_file_from_the_router_is_told_in_whatever_field_it_stands() {
    let told =
        ["the DHCP server 10.77.0.1 names a boot file of its own, `pxelinux.0` on 10.77.0.1: "];
    begins(&found(&[(66, b"10.77.0.1"), (67, b"pxelinux.0\0")]), &told);
    let mut datagram = offer_from(ROUTER, LEASE, &[]);
    datagram[20..24].copy_from_slice(&ROUTER.octets());
    datagram[108..118].copy_from_slice(b"pxelinux.0");
    begins(&found_by(Naming::ByUs, &datagram), &told);
    // `file` holds options.
    let mut datagram = offer_from(ROUTER, LEASE, &[(52, &[1])]);
    datagram[108..122].copy_from_slice(b"\x43\x0bpxelinux.0\0\xff");
    let told = ["the DHCP server 10.77.0.1 names a boot file of its own, `pxelinux.0`: "];
    begins(&found_by(Naming::ByUs, &datagram), &told);
    // What it says about itself cannot disturb a terminal.
    begins(
        &found(&[(67, b"\x1b[2J\xff")]),
        &["the DHCP server 10.77.0.1 names a boot file of its own, `\\u{1b}[2J\u{fffd}`"],
    );
}

// PXE 2.1 section 2.2: it offers no address.
#[test]
fn another_proxy_is_told_once_and_we_are_none() {
    let other = offer_from(OTHER, [0; 4], &[(60, b"PXEClient"), (67, b"pxelinux.0")]);
    let ours = offer_from(US, [0; 4], &[(60, b"PXEClient")]);
    let router = offer_from(ROUTER, LEASE, &[]);
    let answers = [
        read(Asked::Bios, &other),
        read(Asked::Uefi, &other),
        read(Asked::Bios, &ours),
        read(Asked::Bios, &router),
    ];
    let found = findings(&answers, &BTreeSet::new(), &us(Naming::ByUs, &nbps(&Arch::ALL)));
    let found: Vec<String> = found.iter().map(Finding::to_string).collect();
    begins(
        &found,
        &["another proxyDHCP server, 10.77.0.9, answers machines and names `pxelinux.0`: "],
    );
}

// RFC 2131 section 3.1: a machine chooses among offers as it likes.
#[test]
fn no_dhcp_server_and_several_are_told_also_from_what_machines_choose() {
    let found = |answers: &[Answer], chosen: &[Ipv4Addr]| -> Vec<String> {
        let chosen = chosen.iter().copied().collect();
        findings(answers, &chosen, &us(Naming::ByUs, &nbps(&Arch::ALL)))
            .iter()
            .map(Finding::to_string)
            .collect()
    };
    let router = read(Asked::Uefi, &offer_from(ROUTER, LEASE, &[]));
    begins(&found(&[], &[]), &["no DHCP server answers"]);
    begins(&found(&[], &[ROUTER]), &[]);
    begins(&found(std::slice::from_ref(&router), &[ROUTER]), &[]);
    let several = ["several DHCP servers give leases, 10.77.0.1 and 10.77.0.9: "];
    begins(&found(&[router], &[OTHER]), &several);

    let choosing =
        |kind, more: &[(u8, &[u8])]| chosen(&Request::decode(&request(kind, more)).unwrap());
    let router = ROUTER.octets();
    assert_eq!(choosing(3, &[(54, &router)]), Some(ROUTER));
    assert_eq!(choosing(3, &[]), None, "after a reboot it names nobody");
    assert_eq!(choosing(4, &[(54, &router)]), None, "it declines");
    let mut relayed = request(3, &[(54, &router)]);
    relayed[24..28].copy_from_slice(&[10, 1, 2, 1]);
    assert_eq!(chosen(&Request::decode(&relayed).unwrap()), None, "that is another LAN");
}

// With `dhcp: off` the router's name is all that machines have.
#[test]
fn with_dhcp_off_the_router_must_name_us() {
    let names = |next: &[u8]| {
        let more: &[(u8, &[u8])] = &[(66, next), (67, b"snponly.efi")];
        found_by(Naming::ByTheRouter, &offer_from(ROUTER, LEASE, more))
    };
    begins(&names(b"10.77.0.2"), &[]);
    begins(
        &names(b"10.77.0.1"),
        &[
            "the config says `dhcp: off`, and the DHCP server 10.77.0.1 names `snponly.efi` on 10.77.0.1 to UEFI machines, which is not this host",
        ],
    );
    let wrong = |asked, file: &[u8]| {
        let more: &[(u8, &[u8])] = &[(66, b"10.77.0.2"), (67, file)];
        let answers = [read(asked, &offer_from(ROUTER, LEASE, more))];
        let all = nbps(&Arch::ALL);
        let found = findings(&answers, &BTreeSet::new(), &us(Naming::ByTheRouter, &all));
        found.iter().map(Finding::to_string).collect::<Vec<_>>()
    };
    begins(
        &wrong(Asked::Uefi, b"undionly.kpxe"),
        &[
            "the DHCP server 10.77.0.1 names `undionly.kpxe` on 10.77.0.2 to UEFI machines, and that NBP is for BIOS: ",
        ],
    );
    begins(
        &wrong(Asked::Bios, b"nosuch.0"),
        &[
            "the DHCP server 10.77.0.1 names `nosuch.0` on 10.77.0.2 to BIOS machines, and no NBP of that name is here: ",
        ],
    );
    begins(&wrong(Asked::Bios, b"/UNDIONLY.KPXE"), &[]);
    begins(&wrong(Asked::Ipxe, b"http://10.77.0.2/x.ipxe"), &[]);
    // OVMF then asks our port 4011, where nobody listens: seen.
    let claims: &[(u8, &[u8])] = &[(60, b"PXEClient"), (66, b"10.77.0.2"), (67, b"snponly.efi")];
    let claims = found_by(Naming::ByTheRouter, &offer_from(ROUTER, LEASE, claims));
    begins(&claims, &["the DHCP server 10.77.0.1 sends option 60 `PXEClient`: "]);
    let nothing = found_by(Naming::ByTheRouter, &offer_from(ROUTER, LEASE, &[]));
    begins(
        &nothing,
        &[
            "the config says `dhcp: off`, and the DHCP server 10.77.0.1 names no boot file to UEFI machines",
        ],
    );
}

// Each does its own harm, and is mended in a field of its own.
#[test]
fn everything_that_a_router_does_is_told() {
    let all: &[(u8, &[u8])] = &[(60, b"PXEClient"), (67, b"x"), (175, &[0xb0, 1, 1])];
    let told = ["sends option 60", "sends iPXE `no-pxedhcp`", "names a boot file of its own, `x`"];
    let told = told.map(|what| format!("the DHCP server 10.77.0.1 {what}"));
    begins(&found(all), &told.each_ref().map(String::as_str));
}

// PXE 2.1 section 2.2: without our offer there is no boot by proxyDHCP.
#[test]
fn our_own_silence_is_told() {
    let all = nbps(&Arch::ALL);
    let ours = |asked| read(asked, &offer_from(US, [0; 4], &[(60, b"PXEClient")]));
    let silent = |answers: &[Answer]| silence(answers, &us(Naming::ByUs, &all)).map(|f| f.fact());
    let told = "this host offers nothing to a machine as BIOS, nor as UEFI, nor as iPXE";
    assert_eq!(silent(&[]).as_deref(), Some(told));
    let router = read(Asked::Uefi, &offer_from(ROUTER, LEASE, &[]));
    assert_eq!(silent(&[router]).as_deref(), Some(told));
    let some = [ours(Asked::Bios), ours(Asked::Ipxe)];
    assert_eq!(silent(&some).as_deref(), Some("this host offers nothing to a machine as UEFI"));
    assert_eq!(silent(&Asked::ALL.map(ours)), None);
    assert_eq!(silence(&[], &us(Naming::ByTheRouter, &all)), None, "then it is the router's");
}

// RFC 2131 section 3.1: only an OFFER is one.
#[test]
fn what_is_no_offer_is_not_taken_for_one() {
    let whole = offer_from(ROUTER, LEASE, &[]);
    assert_eq!(Offer::decode(&request(1, &[])).unwrap_err(), Malformed::NotAnOffer);
    let mut ack = whole.clone();
    ack[242] = 5;
    assert_eq!(Offer::decode(&ack).unwrap_err(), Malformed::NotAnOffer);
    for len in 0..243 {
        assert!(Offer::decode(&whole[..len]).is_err(), "{len} bytes");
    }
}

// We ask as firmware does, and are answered like it.
#[test]
fn our_own_question_is_a_machines_and_is_known_for_a_probe() {
    let mac = Mac::new([2, 0, 0, 0, 0, 1]);
    for (asked, file) in [
        (Asked::Bios, "undionly.kpxe"),
        (Asked::Uefi, "snponly.efi"),
        (Asked::Ipxe, "http://10.77.0.2:8080/boot/02-00-00-00-00-01.ipxe"),
    ] {
        let datagram = asked.discover(Prober::Doctor, mac, 7);
        assert_eq!(datagram[10], 0x80, "by broadcast");
        assert!(options(&datagram).iter().any(|(code, data)| *code == 55 && data.contains(&67)));
        let request = Request::decode(&datagram).unwrap();
        assert_eq!(Prober::of(&request), Some(Prober::Doctor));
        let state = (&MachineState::default(), SystemTime::UNIX_EPOCH);
        let query = Query::new(request).unwrap();
        assert_eq!(query.mac(), Some(mac));
        let reply = Reply::read(&respond(&query, &broadcast(), config("").serving(), state));
        assert_eq!((reply.xid, reply.file.as_str()), (7, file));
    }
    let machine = Request::decode(&request(1, &[PXE, (61, b"\x01\x02\0\0\0\0\x01")])).unwrap();
    assert_eq!(Prober::of(&machine), None);
}

// Seen with iPXE that is always served itself: a turn takes 2.5 to 3 seconds, for ever.
#[test]
fn who_loops_is_offered_no_nbp_but_still_its_script() {
    let mut state = MachineState::default();
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for turn in 0..3 {
        let sent = Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http };
        let step = Step::NbpSent { file: "snponly.efi".into(), arch: Arch::UefiX64, sent };
        let subject = Subject { mac: Some(Mac::new([2; 6])), ..Subject::default() };
        // Each turn has a DISCOVER.
        let query = Query::read(&request(1, &[PXE, X64])).unwrap();
        let outcome = respond(&query, &broadcast(), config("").serving(), (&state, at(3 * turn)));
        let Outcome::Reply { event, .. } = outcome else { panic!("{outcome:?}") };
        state.apply(&event, None, at(3 * turn));
        state.apply(&Event { subject, step }, None, at(3 * turn));
    }
    let config = config("");
    let answered = |options: &[(u8, &[u8])]| {
        let query = Query::read(&request(1, options)).unwrap();
        respond(&query, &broadcast(), config.serving(), (&state, at(9)))
    };
    let reason = silence_of(answered(&[PXE, X64])).to_string();
    let told = "it fetched snponly.efi three times within a minute and never its script";
    assert!(reason.starts_with(told), "{reason}");
    let other = Reply::read(&answered(&[PXE, BIOS]));
    assert_eq!(other.file, "undionly.kpxe", "that one has not led nowhere");
    let script = Reply::read(&answered(&[PXE, IPXE, X64]));
    assert_eq!(script.file, offer(super::SCRIPT, "").file);
}
