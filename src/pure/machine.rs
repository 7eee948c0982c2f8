//! TODO: what machine is.

pub mod attempt;
pub mod diagnosis;
pub mod evidence;
mod loop_guard;
pub mod nbp_fallback;
pub mod orders;
pub mod progress;
pub mod state;
pub mod time;
