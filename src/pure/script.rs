//! iPXE scripts: templates, kernel lines, and their rendering for one machine.

pub mod advice;
pub mod cmdline;
pub mod render;
pub mod templates;
