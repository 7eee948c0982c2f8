//! Renders what each machine would boot, to report problems before a machine meets them.

mod affected;
pub(crate) mod combinations;
pub(crate) mod kernel_lines;
pub(crate) mod places;
pub(crate) mod release;
mod rendering;
pub(crate) mod templates;
pub(crate) mod wipes;
