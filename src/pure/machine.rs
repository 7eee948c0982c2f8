//! What the past of one machine decides about its next boot: evidence, orders, attempts.

pub mod attempt;
pub mod diagnosis;
pub mod evidence;
mod loop_guard;
pub mod nbp_fallback;
pub mod orders;
pub mod progress;
pub mod state;
pub mod time;
