//! proxyDHCP: beside the router's DHCP server we tell machines what to boot, and offer no lease.
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
//!
//! [`packet`] turns bytes into a [`packet::Request`] and a [`packet::Reply`] into bytes, [`pxe`]
//! says who is asking, [`proxy`] answers; [`server`] owns the sockets. Beside that, [`lan`] keeps an eye
//! on who else answers machines: [`probe`] asks as a machine would, and [`survey`] says what the answers
//! do to a boot and what to change.
//!
//! The standards are RFC 2131 (DHCP), RFC 4578 (its PXE options) and Intel's PXE 2.1.

pub mod destination;
pub mod lan;
pub mod packet;
pub mod probe;
pub mod proxy;
pub mod pxe;
pub mod server;
pub mod survey;

#[cfg(test)]
mod cases;
#[cfg(test)]
mod testing;
