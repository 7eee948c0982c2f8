//! reveille boots machines over the network.
//!
//! The journey of one machine, and where each step lives:
//!
//! ```text
//!  machine                       reveille
//!
//!  power on
//!   │ DHCPDISCOVER, PXEClient ──▶ dhcp   "load undionly.kpxe / snponly.efi from me"
//!   │ RRQ snponly.efi ──────────▶ tftp   (UEFI HTTP Boot: GET /nbp/snponly.efi ▶ http)
//!   ▼
//!  iPXE
//!   │ DHCPDISCOVER, iPXE ───────▶ dhcp   "your script is http://…/boot/<mac>.ipxe"
//!   │ GET /boot/<mac>.ipxe ─────▶ http   its own script, with its own kernel line
//!   │ GET /images/…/kernel ─────▶ http
//!   │ GET /images/…/initrd ─────▶ http
//!   ▼
//!  Linux, with the join token on its command line
//! ```
//!
//! At each step the protocol asks [`boot::decide()`] what this client should load next; the answer
//! comes from one snapshot of the [`config`], and each step leaves an [`boot::Event`] in the
//! [`journal`].
//!
//! What decides the next boot of a machine is its [`boot::MachineState`], which those events change and the
//! [`registry`] keeps: the boot that is under way ([`boot::state::journey`]), what was ordered
//! ([`boot::state::orders`]), which NBP it gets ([`boot::state::ladder`]). It is on the disk before the event is
//! told. Where a boot comes to nothing, [`boot::verdict`] says where and why. [`roster`] tells of the machines.
//!
//! The images come from elsewhere: [`images`] sees to it that what the config names is here, whole and
//! undamaged, [`talos`] knows what they are made of and asks the factory that makes them, [`web`] fetches. What
//! is here is on the [`boot::Shelf`], which a decision looks at.
//!
//! [`explain`] says what a machine would get and why, [`simulate`] asks a running daemon for it.
//!
//! The parts, from the start of the program to the middle of it: [`cli`] reads the command line,
//! [`daemon`] binds every socket and runs the shells ([`dhcp::server`], [`dhcp::lan`],
//! [`tftp::server`], [`http`], [`interfaces`]). A shell decodes, looks up the machine in the
//! [`registry`], and calls the pure logic beside it ([`dhcp::proxy`], [`tftp::transfer`]), which knows
//! the config's types and [`boot`]; and [`boot`] knows nobody. Beside them [`config::watch`] has a config that
//! has changed taken up, and [`control`] offers the [`operations`] to commands. [`simulate`] is the other
//! end: it plays a machine against a running daemon.

// They panic where whoever reads has gone: `cli::output` is there for it, and the log.
#![warn(clippy::print_stderr, clippy::print_stdout)]

pub mod admin;
pub mod cli;
pub mod daemon;
pub mod factory;
pub mod http_client;
pub mod pure;
pub mod server;
pub mod state;
pub mod sys;

pub mod nbps;
#[cfg(test)]
mod rack;
pub mod simulate;

pub mod config;
