//! The files that the config names, as the loader read them from this host.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::schema::SecretSource;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::nbp::Nbps;
use crate::pure::catalog::secret::SecretText;

/// What the config names, as it was found on this host.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The folder that relative paths start at.
    pub base: PathBuf,
    /// The state folder, where the config names none.
    pub state: PathBuf,
    /// Each secret, or why it cannot be read and what would mend it.
    pub secrets: BTreeMap<SecretSource, Result<Secret, String>>,
    /// Paths that cannot be read, and why.
    pub unreadable: BTreeMap<PathBuf, String>,
    /// The folder of `server.boot_scripts`.
    pub boot_scripts: PathBuf,
    /// The templates in the folder of `server.boot_scripts`: name to source, or why it cannot be read.
    pub templates: BTreeMap<String, Result<String, String>>,
    /// Why that folder cannot be read.
    pub no_templates: Option<String>,
    /// The answer files: path to source, or why it cannot be read.
    pub answers: BTreeMap<PathBuf, Result<String, String>>,
    /// The NBPs that were found.
    pub nbps: Nbps,
    /// Folders and files that hold no NBP although they should: path, and why.
    pub bad_nbps: Vec<(PathBuf, String)>,
    /// Which of the images that are fetched are here.
    pub shelf: Shelf,
}

/// A secret as it was read.
#[derive(Clone, Debug)]
pub struct Secret {
    /// What was read, without blanks around it.
    pub text: SecretText,
    /// Where that was.
    pub from: String,
    /// Its mode, where it is a file that every user of this host can read or write.
    pub open_to_all: Option<u32>,
}
