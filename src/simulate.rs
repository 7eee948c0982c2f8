//! Plays a machine against a running daemon, as `reveille simulate` does: every step that firmware and
//! iPXE take up to the first bytes of kernel and initrd, each with its time.
//!
//! ```text
//!  Machine ──DISCOVER──▶ Named ──RRQ──▶ Download     the NBP; UEFI asks port 4011 before it
//!     │ as the iPXE in it
//!     └─────DISCOVER──▶ URL ──GET──▶ Script ──▶ kernel, initrd: Payload
//! ```
//!
//! [`machine`] writes what a machine asks and reads what it is told, [`download`] is a TFTP client,
//! [`script`] runs an iPXE script as far as it can be seen from outside, [`payload`] recognises kernels
//! and initrds, all without a socket or a clock; [`journey`] is what comes of it. [`walk`] has the
//! sockets, and [`web`] the HTTP client.
//!
//! No lease is taken: the router is only heard, and a simulation asks from this host's own address.

pub mod download;
pub mod journey;
pub mod machine;
pub mod payload;
pub mod script;
pub mod walk;
pub mod web;
