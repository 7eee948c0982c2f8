//! The TFTP server's sockets and running transfers.

mod access;
mod ports;
pub mod server;
mod sessions;
mod strangers;
