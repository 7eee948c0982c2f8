//! The config on this host: finds and reads the files, watches them, and reloads.

pub mod followed;
pub mod loader;
pub mod reloader;
pub mod state_folder;
pub mod watcher;
