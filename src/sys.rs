//! Linux: sockets, interfaces, files, processes.

pub mod files;
pub mod hardening;
pub mod interfaces;
pub mod log_writer;
pub mod neighbours;
pub mod port_owner;
pub mod tally;
pub mod udp;
