//! The sockets: proxyDHCP, TFTP, HTTP, and the files and scripts that they share.

pub mod dhcp;
pub mod http;
pub mod machine_script;
pub(crate) mod shared_files;
pub mod tftp;
