//! TODO: what dhcp is.

pub mod lan;
pub mod probe;
pub mod server;
