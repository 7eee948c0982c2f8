//! The lab: real firmware in QEMU, and simulated firmware, against the built daemon on a LAN of
//! network namespaces with a real DHCP server for a router.
//!
//! Each test runs itself again inside namespaces of its own, so it needs no root where the kernel
//! allows user namespaces, leaves nothing behind, and sends nothing outside.

#![expect(clippy::unwrap_used, reason = "a test stops at what is not there")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../terminal/mod.rs"]
mod terminal;

mod answers;
mod attacks;
mod bad_input;
mod beside;
mod boots;
mod control;
mod delivery;
mod evidence;
mod fetching;
mod http_limits;
mod images;
mod interfaces;
mod journey;
mod kinds;
mod last_good;
mod machines;
mod option_43;
mod orders;
mod reload;
mod scripts;
mod secrets;
mod simulate;
mod state;
mod tftp;
mod tftp_clients;
mod tftp_limits;
