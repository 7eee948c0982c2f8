//! The kernel's word that something about the interfaces has changed (rtnetlink(7)). What it is, is
//! not read: the interfaces are looked at again, which cannot get out of step.

use std::io;
use std::os::fd::AsRawFd;
use std::thread;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Links, IPv4 addresses and IPv4 routes: `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40;

/// Hears of changes from now on. Those that nobody has taken yet are one.
///
/// It takes a thread that waits in the kernel: tokio drives a descriptor that it does not know only by
/// what is deprecated or `unsafe`, and here nothing hurries.
pub(super) fn listen() -> io::Result<mpsc::Receiver<()>> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::NetlinkRoute),
    )?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
    let (tell, changes) = mpsc::channel(1);
    thread::Builder::new().name("interfaces".to_owned()).spawn(move || {
        let mut ignored = [0; 4096];
        loop {
            match recv(netlink.as_raw_fd(), &mut ignored, MsgFlags::empty()) {
                // More came than the kernel kept: that too is a change.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return,
            }
            if let Err(TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
    })?;
    Ok(changes)
}
