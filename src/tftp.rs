//! TFTP: how firmware fetches its NBP.
//!
//! ```text
//!  machine                        reveille
//!     │ RRQ undionly.kpxe, tsize 0, blksize 1432 ──▶ 69
//!     │ ◀── OACK tsize 74213, blksize 1432 ──────────┤ from a port of its own
//!     │ ACK 0 ──▶   ◀── DATA 1   ACK 1 ──▶   …       │
//! ```
//!
//! [`packet`] knows the bytes, [`options`] what may be granted, [`transfer`] the course of one
//! transfer and [`history`] what was learned from those before it, all without a socket or a clock.
//! [`server`] has both: it takes the requests, keeps the running `sessions`, and sends from its `ports`.
//! `access`, `places`, `strangers` and `errors` bound what anybody on the LAN can have it do, and `pieces` the
//! memory that large files take.
//! The standards are RFC 1350, RFC 2347 to 2349 (options) and RFC 7440 (windows).

mod access;
mod errors;
pub mod history;
pub mod options;
pub mod packet;
mod pieces;
mod places;
mod ports;
pub mod server;
mod sessions;
mod strangers;
pub mod transfer;

#[cfg(test)]
mod cases;
