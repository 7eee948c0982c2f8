//! proxyDHCP: offers the boot file beside the router's DHCP server, and never a lease.
//!
//! ```text
//!  machine                 router            reveille
//!     │ DISCOVER (broadcast) ─┼─────────────────▶ 67    60 = PXEClient, 93 = arch
//!     │ ◀─ OFFER with a lease ┘                   │
//!     │ ◀─ OFFER without, with the boot file ─────┘     yiaddr 0, T1 to T5 in `proxy`
//!     │ REQUEST (broadcast) ──▶ router                  we watch, and stay silent
//!     │ REQUEST ────────────────────────────────▶ 4011  UEFI; BIOS where the ROM likes to
//!     │ ◀─ ACK with the boot file ────────────────┘
//! ```

pub mod arrival;
pub mod destination;
pub mod packet;
pub mod proxy;
pub mod pxe;
pub mod survey;

#[cfg(test)]
mod cases;

#[cfg(test)]
mod testing;
