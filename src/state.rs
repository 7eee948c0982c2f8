//! What survives a restart: machine registry, journal, image cache.

pub mod images;
pub mod journal;
pub mod registry;
pub mod sqlite;
