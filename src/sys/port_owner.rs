//! Why a port cannot be had, and who should do what about it.

use std::io;

use procfs::process::{FDTarget, Process, all_processes};

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Says why `port` could not be bound, who has it, and what would mend it. `instead` is what else
/// would help.
pub fn explain((protocol, port): (Protocol, u16), instead: &str, error: &io::Error) -> String {
    let name = match protocol {
        Protocol::Udp => "UDP",
        Protocol::Tcp => "TCP",
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let holder = holder(protocol, port).unwrap_or_else(|| another_process(port));
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

fn another_process(port: u16) -> String {
    format!("another process (to see which: ss -lpn 'sport = {port}', as root)")
}

/// Who holds a port.
pub fn holder(protocol: Protocol, port: u16) -> Option<String> {
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
    // Whose processes may not be looked at is told as somebody.
    let holds = |process: &Process| {
        let mut fds = process.fd().into_iter().flatten().flatten();
        fds.any(|fd| matches!(fd.target, FDTarget::Socket(socket) if socket == inode))
    };
    let process = all_processes().into_iter().flatten().flatten().find(holds);
    Some(process.map_or_else(
        || another_process(port),
        |process| {
            let name = process.stat().map_or_else(|_| "a process".to_owned(), |stat| stat.comm);
            format!("{name} (process {})", process.pid())
        },
    ))
}
