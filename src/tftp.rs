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
//! transfer without a socket or a clock; `course` gives it both, and [`server`] takes the requests.
//! The standards are RFC 1350, RFC 2347 to 2349 (options) and RFC 7440 (windows).

mod course;
pub mod options;
pub mod packet;
pub mod server;
pub mod transfer;

#[cfg(test)]
mod cases;
