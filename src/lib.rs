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
//! [`pure`] holds the decisions and the formats. Nothing in it opens a socket or a file, reads a clock, or takes a
//! lock. At each step the protocol asks [`pure::boot::decide`] what this client should load next. The answer comes
//! from one snapshot of the config and from [`pure::machine::state`], what the past of the machine decides. Only
//! events ([`pure::event`]) change that state.
//!
//! [`daemon`] binds each socket and runs the shells: [`server`] (proxyDHCP, TFTP, HTTP), [`state`] (what survives a
//! restart), [`config`] (loading and reloading), [`admin`] (what operators ask for), [`sys`] (Linux). [`nbps`] and
//! [`factory`] download NBPs and Talos images, [`simulate`] boots like a machine, [`cli`] is the command line.

// They panic where whoever reads has gone: `cli::output` is there for it, and the log.
#![warn(clippy::print_stderr, clippy::print_stdout)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod factory;
pub mod http_client;
pub mod nbps;
pub mod pure;
#[cfg(test)]
mod rack;
pub mod server;
pub mod simulate;
pub mod state;
pub mod sys;
