//! Talos' Image Factory: what an image is made of, and where it comes from.
//!
//! ```text
//!  version, extensions ──schematic──▶ YAML, id ──factory──▶ kernel, initramfs, cmdline-metal
//! ```

pub mod factory;
pub mod schematic;
