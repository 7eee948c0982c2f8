//! Asks the LAN as a machine would, and listens for who answers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::pure::dhcp::packet::Offer;
use crate::pure::dhcp::survey::{Answer, Asked, Prober};
use crate::sys::interfaces::Interface;
use crate::sys::port_owner::{Protocol, explain};
use crate::sys::udp::Udp;

/// The port that machines are answered on.
const CLIENT_PORT: u16 = 68;

/// How often we ask, and how long we listen each time: a server that first looks with a ping whether
/// the address is free takes up to 3 seconds (dnsmasq).
const ROUNDS: u32 = 2;
const LISTEN: Duration = Duration::from_millis(3500);

/// Asks on one interface, as every kind of machine; what comes more than once is told once.
///
/// # Errors
/// Why it cannot ask, and what would mend it.
pub async fn probe(interface: &Interface, prober: Prober) -> Result<Vec<Answer>, String> {
    let mac = interface.mac.ok_or("it has no hardware address of 6 bytes")?;
    let instead =
        ", unless this host has its own address from it: then ask from another host of the LAN";
    let socket = Udp::bind_beside_others(Ipv4Addr::BROADCAST, CLIENT_PORT)
        .map_err(|error| explain((Protocol::Udp, CLIENT_PORT), instead, &error))?;
    let first = first_xid();
    // Every offer that we ourselves broadcast comes here too.
    socket.keep_only(XID, (first, !EACH)).map_err(|error| format!("filtering: {error}"))?;
    let mut answers = Vec::new();
    for _ in 0..ROUNDS {
        for (asked, xid) in Asked::ALL.into_iter().zip(first..) {
            let discover = asked.discover(prober, mac, xid);
            let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
            let from = (interface.addresses[0].0, interface.index);
            socket.send(&discover, to, from).await.map_err(|error| {
                format!(
                    "a DISCOVER cannot be sent: {error}; is the interface up, with a cable in it?"
                )
            })?;
        }
        listen(&socket, interface, first, &mut answers).await;
    }
    answers.sort();
    answers.dedup();
    Ok(answers)
}

async fn listen(socket: &Udp, interface: &Interface, first: u32, answers: &mut Vec<Answer>) {
    let mut buffer = [0; 2048];
    let until = Instant::now() + LISTEN;
    while let Ok(received) = timeout_at(until, socket.receive(&mut buffer)).await {
        match received {
            Ok(received) if received.interface == interface.index => {
                let offer = Offer::decode(&buffer[..received.len]);
                let ours = |offer: &Offer| {
                    Asked::ALL.into_iter().zip(first..).find(|(_, xid)| offer.xid == *xid)
                };
                if let Ok(offer) = offer
                    && let Some((asked, _)) = ours(&offer)
                {
                    answers.push(Answer::new(asked, *received.from.ip(), &offer));
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!("dhcp: listening for offers: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Where the transaction id stands in a message (RFC 2131 section 2).
const XID: u32 = 4;
/// The bits of it that tell as whom we ask.
const EACH: u32 = 3;

/// A transaction id that nobody else uses now.
fn first_xid() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.subsec_nanos() | 0x4000_0000) & !EACH
}
