//! What happened: steps of a boot, of an image, and how each is worded.

pub mod advice;
pub mod boot;
pub mod diagnosis;
pub mod doubt;
pub mod image;
