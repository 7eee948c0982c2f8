//! TODO: what script is.

pub mod advice;
pub mod cmdline;
pub mod render;
pub mod templates;
