//! What a boot is: the decision, and nothing that knows a protocol or a file format.
//!
//! ```text
//!  Stage::Pxe ──────── Nbp ───┐                      BIOS ROM, UEFI PXE
//!  Stage::HttpBoot ─── Nbp ───┤                      UEFI HTTP Boot
//!                             ▼
//!  Stage::Ipxe ───── Script ──▶ kernel, initrd ──▶ Linux   iPXE, ours or the card's own
//! ```
//!
//! [`select()`] says which entries of the config are for a [`Client`]: its machine's, its group's, its
//! profile's. [`decide()`] answers the one question, "what should this [`Client`] load next?", from the
//! [`Catalog`] (what the config says), the [`MachineState`] (what is remembered) and the [`Shelf`] (which
//! of the images that are fetched are here);
//! [`decide_by_name`] says what is under a file's name, [`decide_script`] which script it is.
//! [`script`] and [`cmdline`] turn a decided script into text, [`links`] says where things are fetched.
//! [`verdict`] says where a boot has stopped, [`advice`] knows what old hardware needs, [`event`] has the words for what happened,
//! [`printable`] makes a line of text from elsewhere.

pub mod admission;
pub mod advice;
pub mod arch;
pub mod boot_id;
pub mod catalog;
pub mod client;
pub mod cmdline;
pub mod decide;
pub mod event;
pub mod evidence;
pub mod host;
pub mod links;
pub mod mac;
pub mod names;
pub mod nbp;
pub mod needs_facts;
pub mod omni;
pub mod pattern;
pub mod pci;
pub mod printable;
pub mod release;
pub mod script;
pub mod secret;
pub mod select;
pub mod settings;
pub mod shelf;
pub mod state;
pub mod talos;
pub mod templates;
pub mod time;
pub mod verdict;
pub mod wipes;

pub use arch::Arch;
pub use catalog::Catalog;
pub use client::{Client, Stage};
pub use decide::{Answer, decide, decide_by_name, decide_script};
pub use event::{Event, Step};
pub use mac::Mac;
pub use pci::PciId;
pub use select::{Selection, select};
pub use shelf::Shelf;
pub use state::MachineState;
