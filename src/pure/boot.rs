//! TODO: what boot is.

pub mod admission;
pub mod decide;
pub mod plan;
pub mod served_names;
pub mod urls;
