//! TODO: what server is.

pub mod dhcp;
pub mod http;
pub mod machine_script;
pub(crate) mod shared_files;
pub mod tftp;
