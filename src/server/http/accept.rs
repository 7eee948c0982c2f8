//! Admits new connections, and logs which are closed for it.

use std::net::Ipv4Addr;

use socket2::SockRef;
use tokio::net::TcpListener;
use tracing::warn;

use super::connections::{Admission, Closed, Connections, Evicted, PER_ADDRESS, Place};
use crate::sys::tally::Tally;

/// How much the kernel holds of a response that a client has not acknowledged, in bytes: twice this, with
/// its overhead. At 10 Gbit/s and 0.4 ms there and back, 512 KiB are on the way.
const SEND_BUFFER: usize = 512 << 10;

/// How much of that may be unsent, in bytes, which is all that the kernel holds for a client that does not
/// read: 500 of them took 480 MiB with the send buffer alone, and take 80.
const MOST_UNSENT: u32 = 128 << 10;

/// How many connections may wait to be accepted, if `net.core.somaxconn` allows as many: with the usual
/// 128, a burst of a neighbour's has the kernel drop a machine's SYN, which comes again after a second.
const BACKLOG: i32 = 4096;

/// Bounds the send buffers, and lets many connections wait to be accepted.
pub(super) fn set_up(listener: &TcpListener) {
    let socket = SockRef::from(listener);
    // Each connection inherits the options. To listen again only changes the backlog.
    let set_up = [
        socket.set_send_buffer_size(SEND_BUFFER),
        socket.set_tcp_notsent_lowat(MOST_UNSENT),
        socket.listen(BACKLOG),
    ];
    for error in set_up.into_iter().filter_map(Result::err) {
        warn!(
            "http: cannot set an option of the listening socket: {error}; the kernel's default stays"
        );
    }
}

/// Waits for room for a new connection from this address, or refuses it.
pub(super) async fn admit(
    connections: &Connections,
    from: Ipv4Addr,
    tallies: &mut Tallies,
) -> Option<(Place, Closed)> {
    loop {
        match connections.admit(from) {
            Admission::Admitted { place, closed, evicted } => {
                if let Some(evicted) = evicted {
                    tallies.evicted(evicted, from);
                }
                return Some((place, closed));
            }
            Admission::Refused => {
                tallies.refused(from);
                return None;
            }
            Admission::Full => {
                tallies.full();
                connections.room().await;
            }
        }
    }
}

/// What is logged of connections, each at most once a minute.
#[derive(Default)]
pub(super) struct Tallies {
    most: usize,
    failed: Tally,
    evicted: Tally,
    refused: Tally,
    full: Tally,
}

impl Tallies {
    /// Of at most so many connections.
    pub(super) fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    pub(super) fn failed(&mut self, error: &std::io::Error) {
        if let Some(count) = self.failed.tell() {
            warn!("http: cannot accept a connection: {error} ({count} since the start)");
        }
    }

    fn evicted(&mut self, Evicted { address, is_idle, .. }: Evicted, from: Ipv4Addr) {
        let Some(count) = self.evicted.tell() else {
            return;
        };
        let what = if is_idle { "an idle connection" } else { "a download" };
        let most = self.most;
        warn!(
            "http: closed {what} of {address} for a new connection of {from}: an address may have {PER_ADDRESS}, all together {most}; see what runs at {address} ({count} since the start)"
        );
    }

    fn refused(&mut self, from: Ipv4Addr) {
        if let Some(count) = self.refused.tell() {
            let most = self.most;
            warn!(
                "http: closed a new connection of {from}: an address may have {PER_ADDRESS}, all together {most}, and a request is under way on each of its others; see what runs at {from} ({count} since the start)"
            );
        }
    }

    fn full(&mut self) {
        if self.full.tell().is_some() {
            warn!("http: all of {} connections are in use; more wait", self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn accepted_connections_have_bounded_send_buffers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        set_up(&listener);
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), MOST_UNSENT);
        // The kernel doubles it, and has a limit of its own: `net.core.wmem_max`.
        let size = socket.send_buffer_size().unwrap();
        assert!((100 << 10..=2 * SEND_BUFFER).contains(&size), "{size}");
    }
}
