//! TODO: what config is.

pub mod diff;
pub mod dry_run;
pub mod edit;
pub mod fields;
pub mod problem;
pub mod reload;
pub mod resolve;
pub mod schema;
pub mod snapshot;
pub mod snippet;
pub mod surroundings;
pub mod yaml;
