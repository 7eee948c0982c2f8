//! TODO: what tftp is.

pub(crate) mod errors;
pub mod history;
pub mod options;
pub mod packet;
pub(crate) mod pieces;
pub(crate) mod places;
pub mod transfer;

#[cfg(test)]
mod cases;
