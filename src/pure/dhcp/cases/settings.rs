//! What the config and the interface change.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{BIOS, HTTP, IPXE, PXE, X64, offer, silence_of, told, with};
use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::client::Arch;
use crate::pure::dhcp::arrival::Arrival;
use crate::pure::dhcp::proxy::Ignored;
use crate::pure::dhcp::testing::{
    CLIENT, Reply, US, answer, broadcast, config, config_with, request,
};

/// RFC 2131 section 2: 128 bytes of `file`, with the NUL. The longest URL has the longest address.
#[test]
fn the_longest_name_of_an_nbp_fits_and_a_longer_one_is_never_offered() {
    let named = |len: usize| format!("{}.efi", "n".repeat(len - 4));
    let mut found = Nbps::default();
    let name = named(94);
    found.add(Nbp { path: name.clone().into(), name, arch: Arch::UefiX64, folder: 0 });
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
    let warning = config.problems.last().unwrap().to_string();
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

/// Nobody on the wire demands it: the config's own word. The journal's tests have how often it is told.
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

/// danderson/netboot#21: one old ROM asks again until its REQUEST is answered by the proxy too.
#[test]
fn the_request_of_a_machine_that_wants_it_is_answered() {
    let config = config(
        "profiles: {p: {script: menu}}\n\
         machines: {m: {mac: 52:54:00:00:00:01, profile: p, answer_request_67: true}}",
    );
    let asking = request(3, &[PXE, BIOS, (54, &[10, 77, 0, 1])]);
    let ack = offer("undionly.kpxe", "43=060108ff 53=05 54=10.77.0.2 60=PXEClient");
    assert_eq!(Reply::read(&answer(&asking, &broadcast(), &config)), ack);
    // RFC 2131 section 4.1: who has an address already is reached there.
    let renewing = with(asking, 12, &CLIENT.octets());
    let ack = Reply { to: format!("{CLIENT}:68"), ciaddr: CLIENT, flags: 0, ..ack };
    let from_its_address = Arrival { from: SocketAddrV4::new(CLIENT, 68), ..broadcast() };
    assert_eq!(Reply::read(&answer(&renewing, &from_its_address, &config)), ack);
}
