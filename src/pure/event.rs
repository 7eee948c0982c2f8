//! TODO: what event is.

pub mod advice;
pub mod boot;
pub mod diagnosis;
pub mod doubt;
pub mod image;
