//! The boot decision: which NBP, script or files a client gets next.
//!
//! ```text
//!  Stage::Pxe ──────── Nbp ───┐                      BIOS ROM, UEFI PXE
//!  Stage::HttpBoot ─── Nbp ───┤                      UEFI HTTP Boot
//!                             ▼
//!  Stage::Ipxe ───── Script ──▶ kernel, initrd ──▶ Linux   iPXE, ours or the card's own
//! ```

pub mod admission;
pub mod decide;
pub mod plan;
pub mod served_names;
pub mod urls;
