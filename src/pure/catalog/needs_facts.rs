//! Which boot scripts and answer files print what only iPXE can tell of its machine: it is asked for that before.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Those of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeedsFacts {
    scripts: BTreeSet<String>,
    answers: BTreeSet<PathBuf>,
}

impl NeedsFacts {
    /// These boot scripts, by name, and these answer files.
    pub fn new(scripts: BTreeSet<String>, answers: BTreeSet<PathBuf>) -> Self {
        Self { scripts, answers }
    }

    /// Whether a boot script prints what only iPXE can tell of its machine.
    pub fn script(&self, name: &str) -> bool {
        self.scripts.contains(name)
    }

    /// Whether an answer file does.
    pub fn answer(&self, path: &Path) -> bool {
        self.answers.contains(path)
    }
}
