//! The client of a request: MAC, architecture, firmware, and the facts that iPXE reports.

pub mod arch;
pub mod boot_id;
mod identity;
pub mod mac;
pub mod pci;

pub use self::arch::Arch;
pub use self::identity::{Client, Cpu, Facts, Firmware, Stage, swapped};
pub use self::mac::Mac;
pub use self::pci::PciId;
