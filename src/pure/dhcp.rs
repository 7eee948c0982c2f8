//! TODO: what dhcp is.

pub mod arrival;
pub mod destination;
pub mod packet;
pub mod proxy;
pub mod pxe;
pub mod survey;

#[cfg(test)]
mod cases;

#[cfg(test)]
mod testing;
