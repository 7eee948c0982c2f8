//! What may be booted, by which machine: the config after it was resolved.

mod entries;
pub mod host;
pub mod image_set;
pub mod image_status;
pub(crate) mod ipxe_word;
pub mod nbp;
pub mod needs_facts;
pub mod omni;
pub mod pattern;
pub mod release;
pub mod secret;
pub mod select;
pub mod server;
pub mod settings;
pub mod talos;
pub mod wipes;

pub use self::entries::{
    Catalog, Files, Group, Image, LOCAL_DISK, MENU, Machine, Menu, Network, Part, Profile,
    STARTING_A_KERNEL, Talos, Unknown,
};
