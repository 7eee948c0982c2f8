//! Decisions and formats. Nothing in here opens a socket or a file, reads a clock, or takes a lock.

pub mod boot;
pub mod catalog;
pub mod checksum;
pub mod client;
pub mod config;
pub mod dhcp;
pub mod event;
pub mod image_source;
pub mod machine;
pub mod nearest;
pub mod printable;
pub mod rate_limit;
pub mod redact;
pub mod script;
pub mod talos_schematic;
pub mod tftp;
