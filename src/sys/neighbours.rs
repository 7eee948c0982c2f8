//! Who has an address: the kernel's neighbour table, asked over netlink (rtnetlink(7), RTM_GETNEIGH).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use tokio::sync::watch;
use tracing::warn;

use super::interfaces::Served;
use super::tally::Tally;
use crate::pure::client::Mac;
use crate::pure::machine::evidence::Neighbour;

/// How long an entry that is just being resolved may take.
const RESOLVING: Duration = Duration::from_millis(200);

/// The message types of rtnetlink(7) and netlink(7) that are used here.
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
const NLM_F_REQUEST: u16 = 1;
/// `struct nlmsghdr` and `struct ndmsg`, in bytes.
const HEADER: usize = 16;
const NEIGHBOUR: usize = 12;
/// The attributes of `struct ndmsg`: the address, and the link-layer address.
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// The states in which an entry says who has the address: REACHABLE, STALE, DELAY, PROBE, PERMANENT.
const KNOWN: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// A view of the neighbour table, as far as it concerns the served interfaces.
#[derive(Clone, Debug)]
pub struct Neighbours {
    served: watch::Receiver<Arc<Served>>,
    table: Arc<Mutex<Table>>,
}

/// A netlink socket, made when it is first needed.
#[derive(Debug, Default)]
struct Table {
    socket: Option<OwnedFd>,
    failed: Tally,
}

impl Neighbours {
    /// Watches the neighbours of these interfaces.
    pub fn new(served: watch::Receiver<Arc<Served>>) -> Self {
        Self { served, table: Arc::default() }
    }

    /// Who has this address now.
    pub fn at(&self, address: Ipv4Addr) -> Neighbour {
        let served = Arc::clone(&self.served.borrow());
        if address.is_loopback() || served.with_address(address).is_some() {
            return Neighbour::ThisHost;
        }
        let Some(interface) = served.on_lan(address) else {
            return Neighbour::OffLink;
        };
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.ask(interface.index, address) {
            Ok(Some(card)) => Neighbour::Card(card),
            Ok(None) => Neighbour::Unknown,
            Err(error) => {
                table.socket = None;
                if let Some(count) = table.failed.tell() {
                    warn!(
                        "neighbours: cannot ask the kernel who has {address}: {error}; machines whose address it does not know receive no secret ({count} since the start)"
                    );
                }
                Neighbour::Unknown
            }
        }
    }

    /// The same, after a moment if the kernel does not know it yet.
    pub async fn settled(&self, address: Ipv4Addr) -> Neighbour {
        match self.at(address) {
            Neighbour::Unknown => {
                tokio::time::sleep(RESOLVING).await;
                self.at(address)
            }
            known @ (Neighbour::Card(_) | Neighbour::OffLink | Neighbour::ThisHost) => known,
        }
    }
}

impl Table {
    fn ask(&mut self, interface: u32, address: Ipv4Addr) -> io::Result<Option<Mac>> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => self.socket.insert(open()?),
        };
        sendto(
            socket.as_raw_fd(),
            &question(interface, address),
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        )?;
        let mut answer = [0; 1024];
        let len = loop {
            match recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Ok(len) => break len,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        Ok(read(&answer[..len]))
    }
}

fn open() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::NetlinkRoute),
    )
}

/// `struct nlmsghdr`, `struct ndmsg` and an attribute with the address, in the byte order of this host.
fn question(interface: u32, address: Ipv4Addr) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + NEIGHBOUR + 8);
    let len = (HEADER + NEIGHBOUR + 8) as u32;
    message.extend(len.to_ne_bytes());
    message.extend(RTM_GETNEIGH.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // AF_INET, padding, the interface, no state, no flags.
    message.extend([2, 0, 0, 0]);
    message.extend(interface.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(8_u16.to_ne_bytes());
    message.extend(NDA_DST.to_ne_bytes());
    message.extend(address.octets());
    message
}

/// The card in the kernel's answer, if it knows one.
fn read(answer: &[u8]) -> Option<Mac> {
    let number = |at: usize| Some(u16::from_ne_bytes(*answer.get(at..)?.first_chunk()?));
    if number(4)? != RTM_NEWNEIGH || number(HEADER + 8)? & KNOWN == 0 {
        return None;
    }
    let mut at = HEADER + NEIGHBOUR;
    loop {
        let len = usize::from(number(at)?);
        if len < 4 {
            return None;
        }
        if number(at + 2)? == NDA_LLADDR {
            let card: [u8; 6] = answer.get(at + 4..at + len)?.try_into().ok()?;
            return Some(Mac::new(card));
        }
        at += len.next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_any_bytes_without_a_panic() {
        let mut answer = question(1, Ipv4Addr::LOCALHOST);
        answer[4..6].copy_from_slice(&RTM_NEWNEIGH.to_ne_bytes());
        answer[HEADER + 8..HEADER + 10].copy_from_slice(&0x02_u16.to_ne_bytes());
        assert_eq!(read(&answer), None, "no link-layer address");
        answer.extend([10, 0, 2, 0, 0x52, 0x54, 0, 0, 0, 1, 0, 0]);
        assert_eq!(read(&answer), Some(Mac::new([0x52, 0x54, 0, 0, 0, 1])));
        for state in [0x00_u16, 0x01, 0x20, 0x40] {
            let mut other = answer.clone();
            other[HEADER + 8..HEADER + 10].copy_from_slice(&state.to_ne_bytes());
            assert_eq!(read(&other), None, "state {state:#x}");
        }
        for end in 0..answer.len() {
            let _ = read(&answer[..end]);
            let mut short = answer[..end].to_vec();
            short.extend([0, 0, 2, 0]);
            let _ = read(&short);
        }
    }

    #[test]
    fn asks_the_kernel_of_this_host() {
        let mut table = Table::default();
        let nobody = table.ask(1, Ipv4Addr::new(192, 0, 2, 77)).unwrap();
        assert_eq!(nobody, None);
        // The next answer is that to the next question.
        assert_eq!(table.ask(1, Ipv4Addr::new(192, 0, 2, 78)).unwrap(), None);
    }
}
