//! config
pub mod yaml;
