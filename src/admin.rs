//! What operators ask for: operations, machine views, the control socket.

pub mod control;
pub mod explanation;
pub mod machine_view;
pub mod operations;
