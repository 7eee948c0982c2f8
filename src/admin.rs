//! TODO: what admin is.

pub mod control;
pub mod explanation;
pub mod machine_view;
pub mod operations;
