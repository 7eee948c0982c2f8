//! reveille
pub mod boot;
pub mod config;
pub mod nbps;
pub mod dhcp;
pub mod interfaces;
pub mod journal;
pub mod registry;
pub mod udp;
pub mod files;
pub mod tftp;
