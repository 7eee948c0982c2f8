//! TODO: what tftp is.

mod access;
mod ports;
pub mod server;
mod sessions;
mod strangers;
