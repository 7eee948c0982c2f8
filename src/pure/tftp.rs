//! TFTP: how firmware fetches its NBP.
//!
//! ```text
//!  machine                        reveille
//!     │ RRQ undionly.kpxe, tsize 0, blksize 1432 ──▶ 69
//!     │ ◀── OACK tsize 74213, blksize 1432 ──────────┤ from a port of its own
//!     │ ACK 0 ──▶   ◀── DATA 1   ACK 1 ──▶   …       │
//! ```

pub(crate) mod errors;
pub mod history;
pub mod options;
pub mod packet;
pub(crate) mod pieces;
pub(crate) mod places;
pub mod transfer;

#[cfg(test)]
mod cases;
