//! TODO: what config is.

pub mod followed;
pub mod loader;
pub mod reloader;
pub mod state_folder;
pub mod watcher;
