//! The images that reveille fetches by itself.

pub mod download;
