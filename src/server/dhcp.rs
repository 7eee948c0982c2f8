//! The DHCP server's sockets, on ports 67 and 4011.

pub mod lan;
pub mod probe;
pub mod server;
