//! Who names what: DHCP, and port 4011.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::{Walk, random};
use crate::pure::dhcp::packet::Offer;
use crate::simulate::journey::{At, Failure, Step};
use crate::simulate::machine::{Asker, Firmware, Heard, Named};
use crate::sys::port_owner::{Protocol, explain, holder};
use crate::sys::udp::Udp;

/// How long each DISCOVER waits for an offer.
const PATIENCE: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long others may take to offer something too.
const OTHERS: Duration = Duration::from_millis(250);

/// Port 68, where offers are broadcast to.
pub(super) fn listen() -> Result<Udp, String> {
    const CLIENT_PORT: u16 = 68;
    let instead =
        ", unless this host has its own address from it: then ask from another host of the LAN";
    Udp::bind_beside_others(Ipv4Addr::BROADCAST, CLIENT_PORT)
        .map_err(|error| explain((Protocol::Udp, CLIENT_PORT), instead, &error))
}

fn xid() -> u32 {
    (random() >> 32) as u32
}

impl<Tell: FnMut(&Step)> Walk<'_, Tell> {
    /// Asks who boots the machine, and takes the first offer.
    pub(super) async fn offer(&mut self, socket: &Udp, asker: Asker) -> Result<Named, Failure> {
        let at = match (asker, self.machine.firmware) {
            (
                Asker::Firmware,
                Firmware::Bios | Firmware::Uefi | Firmware::UefiX86 | Firmware::UefiHttp,
            ) => At::Offer,
            (Asker::FetchedIpxe, _) | (Asker::Firmware, Firmware::Ipxe) => At::IpxeOffer,
        };
        let failed = |reason: String, look_at| Failure {
            at,
            reason,
            waited_for: format!(
                "an offer with a boot file and no address (proxyDHCP), with `{}` as its option 60",
                self.machine.takes_class(asker)
            ),
            look_at,
        };
        let Ears { boots, leases, others } =
            self.discover(socket, asker).await.map_err(|error| {
                failed(error, vec!["the interface: is it up, with a cable in it?".to_owned()])
            })?;
        let mut boots = boots.into_iter();
        let Some((named, took)) = boots.next() else {
            let waited: Duration = PATIENCE.iter().sum();
            let reason = format!("no such offer came within {} s", waited.as_secs());
            return Err(failed(reason, self.why_silent(&leases, &others)));
        };
        let mut notes: Vec<String> = boots
            .map(|(other, _)| {
                format!(
                    "{} offers `{}` too; the first offer was taken",
                    other.server, other.boot_file
                )
            })
            .collect();
        notes.extend(others.iter().map(|(server, why)| {
            format!("an offer of {server} without an address was left: {why}")
        }));
        let whose = if self.is_here(named.server) { " (this host)" } else { "" };
        let told = format!("{} from {}{whose}", named.boot_file, named.server);
        self.done(at, told, (notes, took));
        Ok(named)
    }

    async fn discover(&self, socket: &Udp, asker: Asker) -> Result<Ears, String> {
        let xid = xid();
        // Every offer that a daemon on this host broadcasts comes here too.
        socket.keep_only(4, (xid, u32::MAX)).map_err(|error| format!("filtering: {error}"))?;
        let discover = self.machine.discover(asker, xid);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let from = (self.interface.addresses[0].0, self.interface.index);
        let (mut ears, start) = (Ears::default(), Instant::now());
        for patience in PATIENCE {
            socket
                .send(&discover, to, from)
                .await
                .map_err(|error| format!("a DISCOVER cannot be sent: {error}"))?;
            let mut until = Instant::now() + patience;
            let mut buffer = [0; 2048];
            while let Ok(received) = timeout_at(until.into(), socket.receive(&mut buffer)).await {
                let received = received.map_err(|error| format!("listening: {error}"))?;
                let Ok(offer) = Offer::decode(&buffer[..received.len]) else { continue };
                if received.interface != self.interface.index || offer.xid != xid {
                    continue;
                }
                let class = self.machine.takes_class(asker);
                ears.hear(Heard::new(&offer, *received.from.ip(), class), start.elapsed());
                if ears.boots.len() == 1 {
                    until = until.min(Instant::now() + OTHERS);
                }
            }
            if !ears.boots.is_empty() {
                break;
            }
        }
        Ok(ears)
    }

    fn why_silent(&self, leases: &[Ipv4Addr], others: &[(Ipv4Addr, &'static str)]) -> Vec<String> {
        let mut look_at = Vec::new();
        look_at.extend(
            others.iter().map(|(server, why)| {
                format!("{server} offers no address, but is not taken: {why}")
            }),
        );
        if holder(Protocol::Udp, 67).is_none() {
            look_at.push(
                "nobody on this host has UDP port 67: if reveille is to run here, start it (`reveille serve`)"
                    .to_owned(),
            );
        }
        look_at.push(format!(
            "the log of the daemon: where it deliberately gives no answer, it says why, as of a `simulation of` {}",
            self.machine.mac
        ));
        look_at.push(match leases {
            [] => format!(
                "the LAN: nobody at all answered on {}, no DHCP server either; another VLAN, a firewall (UDP 67 and 68), or a switch that drops DHCP",
                self.interface.name
            ),
            [server, ..] => format!(
                "the config: `server.dhcp` must not be off, and `server.interfaces` name this LAN, on which the DHCP server {server} answered; `reveille doctor --dhcp` on the daemon's host tells more"
            ),
        });
        look_at
    }

    /// Asks on port 4011, from this host's own address.
    pub(super) async fn boot_server(&mut self, offered: &Named) -> Result<Named, Failure> {
        let to = SocketAddrV4::new(offered.next_server, 4011);
        let failed = |reason: String| Failure {
            at: At::BootServer,
            reason,
            waited_for: format!("an ACK with a boot file from {to}"),
            look_at: vec![
                format!("firewalls between here and {}: UDP 4011", to.ip()),
                "the log of the daemon".to_owned(),
            ],
        };
        let local = self.address_towards(*to.ip());
        let socket = UdpSocket::bind((local, 0))
            .await
            .map_err(|error| failed(format!("no port can be had at {local}: {error}")))?;
        let (xid, start) = (xid(), Instant::now());
        let request = self.machine.request(local, xid);
        for patience in PATIENCE {
            socket
                .send_to(&request, to)
                .await
                .map_err(|error| failed(format!("a REQUEST cannot be sent: {error}")))?;
            let until = Instant::now() + patience;
            let mut buffer = [0; 2048];
            while let Ok(received) = timeout_at(until.into(), socket.recv_from(&mut buffer)).await {
                let Ok((len, SocketAddr::V4(from))) = received else { continue };
                let ack = Offer::decode_ack(&buffer[..len]).ok().filter(|ack| ack.xid == xid);
                let class = self.machine.takes_class(Asker::Firmware);
                match ack.map(|ack| Heard::new(&ack, *from.ip(), class)) {
                    Some(Heard::Boots(named)) => {
                        let told = format!("{} from {from}", named.boot_file);
                        self.done(At::BootServer, told, (Vec::new(), start.elapsed()));
                        return Ok(named);
                    }
                    Some(Heard::Other(_, why)) => {
                        return Err(failed(format!("the ACK is not taken: {why}")));
                    }
                    Some(Heard::Lease(_)) | None => {}
                }
            }
        }
        let waited: Duration = PATIENCE.iter().sum();
        Err(failed(format!("no answer within {} s", waited.as_secs())))
    }
}

/// What was heard.
#[derive(Debug, Default)]
struct Ears {
    boots: Vec<(Named, Duration)>,
    leases: Vec<Ipv4Addr>,
    others: Vec<(Ipv4Addr, &'static str)>,
}

impl Ears {
    /// Who answers each DISCOVER counts once.
    fn hear(&mut self, heard: Heard, after: Duration) {
        match heard {
            Heard::Boots(named) if self.boots.iter().all(|(known, _)| *known != named) => {
                self.boots.push((named, after));
            }
            Heard::Lease(server) if !self.leases.contains(&server) => self.leases.push(server),
            Heard::Other(server, why) if !self.others.contains(&(server, why)) => {
                self.others.push((server, why));
            }
            Heard::Boots(_) | Heard::Lease(_) | Heard::Other(..) => {}
        }
    }
}
