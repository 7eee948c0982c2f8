//! Why a port cannot be had, and who should do what about it.

use std::io;

use procfs::process::{FDTarget, all_processes};

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Says why `port` could not be bound, who has it, and what would mend it. `instead` is the key that
/// names another, where that would help: firmware asks 67, 69 and 4011 only.
pub fn explain(
    (protocol, port): (Protocol, u16),
    instead: Option<&str>,
    error: &io::Error,
) -> String {
    let name = match protocol {
        Protocol::Udp => "UDP",
        Protocol::Tcp => "TCP",
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder(protocol, port).unwrap_or_else(|| {
                format!("another process (to see which: ss -lpn 'sport = {port}', as root)")
            });
            let instead = instead.map_or_else(String::new, |key| format!(", or set `{key}`"));
            format!("{name} port {port} is taken by {holder}: stop that{instead}")
        }
        io::ErrorKind::PermissionDenied => {
            let program = std::env::current_exe()
                .map_or_else(|_| "reveille".to_owned(), |path| path.display().to_string());
            format!(
                "{name} port {port} is not allowed for this user: run as root, or grant the capability: setcap cap_net_bind_service=+ep {program}"
            )
        }
        _ => format!("{name} port {port} cannot be bound: {error}"),
    }
}

/// Who holds a port, as far as this user may see.
fn holder(protocol: Protocol, port: u16) -> Option<String> {
    // A socket on `[::]` takes the IPv4 port too.
    let inode = match protocol {
        Protocol::Udp => {
            [procfs::net::udp(), procfs::net::udp6()]
                .into_iter()
                .flatten()
                .flatten()
                .find(|entry| entry.local_address.port() == port)?
                .inode
        }
        Protocol::Tcp => {
            [procfs::net::tcp(), procfs::net::tcp6()]
                .into_iter()
                .flatten()
                .flatten()
                .find(|entry| entry.local_address.port() == port && entry.inode != 0)?
                .inode
        }
    };
    for process in all_processes().ok()?.flatten() {
        let mut fds = process.fd().into_iter().flatten().flatten();
        if fds.any(|fd| matches!(fd.target, FDTarget::Socket(socket) if socket == inode)) {
            let name = process.stat().map_or_else(|_| "a process".to_owned(), |stat| stat.comm);
            return Some(format!("{name} (process {})", process.pid()));
        }
    }
    None
}
