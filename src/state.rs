//! TODO: what state is.

pub mod images;
pub mod journal;
pub mod registry;
pub mod sqlite;
