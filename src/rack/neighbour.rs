//! A neighbour on the LAN: what he sends, from his own address unless he spoofs.

use std::net::Ipv4Addr;

use super::datagram::{Asker, DISCOVER, Message, REQUEST};
use super::machine::Packet;
use super::rng::Rng;
use super::site::{HIS_CARD, MACHINES, NEIGHBOUR, RELAY, SPECS, US, card, lease};
use crate::pure::client::Mac;
use crate::pure::dhcp::arrival::Port;

/// An id that he guesses.
fn guess(rng: &mut Rng) -> String {
    // The first ids of a run are small numbers: he may not guess those.
    format!("{:016x}{:016x}", rng.next() | 1 << 63, rng.next())
}

/// A victim: one of those that boot, if there are any, and sometimes himself.
fn victim(booting: &[usize], rng: &mut Rng) -> Mac {
    if rng.chance(8) {
        return HIS_CARD;
    }
    let machine = if booting.is_empty() || rng.chance(40) {
        usize::try_from(rng.within(0..MACHINES as u64)).expect("there are sixteen")
    } else {
        *rng.pick(booting)
    };
    let cards = u64::from(SPECS[machine].cards);
    card(machine, u8::try_from(rng.within(0..cards)).expect("there are two at most"))
}

/// What he sends next.
pub(super) fn packet(booting: &[usize], rng: &mut Rng) -> Packet {
    let mac = victim(booting, rng);
    let from = NEIGHBOUR;
    match rng.within(0..10) {
        0 | 1 => discover(mac, rng),
        2 => request(mac, rng),
        3 => boot_server(mac, from, rng),
        4 | 5 => Packet::Get { url: script(mac, rng), from, is_ipxe: rng.chance(70) },
        6 => Packet::Get { url: image(mac, rng), from, is_ipxe: rng.chance(70) },
        7 => {
            let id = if rng.chance(50) { guess(rng) + "/" } else { String::new() };
            let url = format!("http://{US}:8080/files/{}/{id}preseed.cfg", mac.hyphenated());
            Packet::Get { url, from, is_ipxe: false }
        }
        8 => {
            let name = *rng.pick(&["undionly.kpxe", "snponly.efi", "autoexec.ipxe"]);
            Packet::Get { url: format!("http://{US}:8080/nbp/{name}"), from, is_ipxe: false }
        }
        _ => over_tftp(mac, from, rng),
    }
}

/// What he sends with another's address as its source, to which he sees no answer.
pub(super) fn spoofed(booting: &[usize], rng: &mut Rng) -> Packet {
    let mac = victim(booting, rng);
    let owner = super::site::owner(mac);
    let [.., of, _] = mac.octets();
    let from = owner.map_or(NEIGHBOUR, |machine| lease(machine, of));
    if rng.chance(30) { boot_server(mac, from, rng) } else { over_tftp(mac, from, rng) }
}

fn message(kind: u8, mac: Mac, rng: &mut Rng) -> Message {
    let asker = *rng.pick(&[Asker::Bios, Asker::Uefi, Asker::HttpBoot, Asker::Ipxe]);
    let own = match super::site::owner(mac).map(|machine| SPECS[machine].firmware) {
        Some(super::site::Firmware::Uefi | super::site::Firmware::HttpBoot) => true,
        Some(super::site::Firmware::Bios | super::site::Firmware::RomIpxe) | None => false,
    };
    // Who claims the firmware that the machine has is the more convincing.
    let is_uefi = if rng.chance(80) { own } else { !own };
    let asker = match (asker, is_uefi) {
        (Asker::Bios, true) => Asker::Uefi,
        (Asker::Uefi, false) => Asker::Bios,
        (asker, _) => asker,
    };
    Message {
        kind,
        asker,
        is_uefi,
        mac,
        xid: u32::try_from(rng.next() >> 32).expect("it is 32 bits"),
        ciaddr: Ipv4Addr::UNSPECIFIED,
        takes: None,
        relay: rng.chance(10).then_some(RELAY),
    }
}

fn discover(mac: Mac, rng: &mut Rng) -> Packet {
    let datagram = message(DISCOVER, mac, rng).encode();
    Packet::Dhcp { port: Port::Dhcp, datagram, from: Ipv4Addr::UNSPECIFIED }
}

fn request(mac: Mac, rng: &mut Rng) -> Packet {
    let machine = usize::try_from(rng.within(0..MACHINES as u64)).expect("there are sixteen");
    let takes = Some(if rng.chance(60) { NEIGHBOUR } else { lease(machine, 0) });
    let ciaddr = if rng.chance(20) { NEIGHBOUR } else { Ipv4Addr::UNSPECIFIED };
    let datagram = Message { takes, ciaddr, ..message(REQUEST, mac, rng) }.encode();
    Packet::Dhcp { port: Port::Dhcp, datagram, from: Ipv4Addr::UNSPECIFIED }
}

fn boot_server(mac: Mac, from: Ipv4Addr, rng: &mut Rng) -> Packet {
    let message = Message { ciaddr: from, relay: None, ..message(REQUEST, mac, rng) };
    Packet::Dhcp { port: Port::BootServer, datagram: message.encode(), from }
}

fn script(mac: Mac, rng: &mut Rng) -> String {
    let mut url = format!("http://{US}:8080/boot/{}.ipxe?mac={mac}", mac.hyphenated());
    if rng.chance(40) {
        url += &format!("&id={}", guess(rng));
    }
    if rng.chance(40) {
        url += "&uuid=&serial_hex=5a-5a&product_hex=&vendor_hex=&platform=pcbios&arch=i386";
    }
    if rng.chance(40) {
        url += *rng.pick(&["&boot=failed", "&disk=failed", "&profile=install", "&profile=rescue"]);
    }
    url
}

fn image(mac: Mac, rng: &mut Rng) -> String {
    let image = *rng.pick(&["debian", "talos"]);
    let part = *rng.pick(&["kernel", "initrd"]);
    let id = if rng.chance(30) { format!("&id={}", guess(rng)) } else { String::new() };
    format!("http://{US}:8080/images/{image}/{part}?mac={mac}{id}")
}

fn over_tftp(mac: Mac, from: Ipv4Addr, rng: &mut Rng) -> Packet {
    let folder = if rng.chance(20) { format!("boot-{}/", guess(rng)) } else { String::new() };
    let name = match rng.within(0..5) {
        0 => "undionly.kpxe".to_owned(),
        1 => "autoexec.ipxe".to_owned(),
        2 => format!("{folder}images/debian/kernel"),
        3 => format!("{folder}images/debian/initrd"),
        _ => format!("{folder}{}.ipxe", mac.hyphenated()),
    };
    Packet::Rrq { name, from, is_probe: rng.chance(20) }
}
