//! `TCP_INFO`: the kernel's own figures of a connection.

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use nix::{getsockopt_impl, libc};
use tokio::net::TcpStream;
use tracing::warn;

/// How much of what was sent the client has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acknowledged {
    /// In bytes, since the start of the connection. An acknowledged FIN counts as one.
    pub(super) bytes: u64,
    /// Whether the connection is over, so that there will be no more.
    pub(super) is_over: bool,
}

impl Acknowledged {
    /// What the kernel reports of this connection. It does so until the socket is closed, also if the client has
    /// closed or reset the connection, or has vanished.
    pub(super) fn on(stream: &TcpStream) -> Self {
        match getsockopt(stream, TcpInfo) {
            Ok(info) => Self { bytes: info.bytes_acked, is_over: info.state == CLOSE },
            Err(error) => {
                warn!(
                    "http: cannot read TCP_INFO of a connection: {error}; what was sent counts as fetched"
                );
                Self { bytes: u64::MAX, is_over: true }
            }
        }
    }
}

/// `TCP_CLOSE` of the kernel's `net/tcp_states.h`.
const CLOSE: u8 = 7;

/// `struct tcp_info` of the kernel's `linux/tcp.h`, up to the field that is read, which is there since Linux 4.1. The
/// kernel fills in as much as it is given room for, and the structure only ever grows at its end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Info {
    state: u8,
    /// `tcpi_ca_state` to `tcpi_fastopen_client_fail`.
    _flags: [u8; 7],
    /// `tcpi_rto` to `tcpi_total_retrans`.
    _figures: [u32; 24],
    /// `tcpi_pacing_rate` and `tcpi_max_pacing_rate`.
    _pacing: [u64; 2],
    bytes_acked: u64,
}

#[derive(Clone, Copy, Debug)]
struct TcpInfo;

getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, Info, GetStruct<Info>);
