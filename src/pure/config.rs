//! The config language: from YAML text to the [`snapshot::Config`] that each request takes, with all
//! problems at once.
//!
//! ```text
//!  text ──yaml──▶ tree ──schema──▶ as written ──resolve──▶ Config
//!                          surroundings (secrets, templates, NBPs, images) ──▲
//! ```

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
