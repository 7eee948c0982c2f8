//! What the wire demands of a proxyDHCP server: a datagram in, and the whole reply out, or the exact
//! reason for silence. Above each case stands who demands it: a standard, a firmware's source, or what
//! real firmware did when it was tried: QEMU's SeaBIOS with iPXE of 2019 and of 2026, and OVMF 2022.11.
//! Where firmware and a standard disagree, the firmware counts, and the case says so.
//!
//! First as a boot goes: firmware asks to [`discover`] us on port 67, then our [`boot_server`] on port
//! 4011, and [`ipxe`] asks for its script. Then what the [`settings`] change, what is [`copied`] from a
//! request, what comes of a [`damaged`] one, the [`destination`] of a reply, and what is [`sound`] in every reply. Last, what [`others`]
//! on the LAN do to a boot.
//!
//! From which port a reply leaves is the shell's: the socket that the request came in on. The lab looks
//! at that, in `tests/lab/journey.rs`.

mod boot_server;
mod copied;
mod damaged;
mod destination;
mod discover;
mod ipxe;
mod others;
mod settings;
mod sound;

use std::net::Ipv4Addr;

use super::arrival::{Arrival, Port};
use super::proxy::{Ignored, Outcome};
use super::testing::{CLIENT, Reply, US, answer, arrival, broadcast, config, request};
use crate::pure::config::snapshot::Config;

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
