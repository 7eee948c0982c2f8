//! Names of the files in an image set, and the id of a set.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::sync::Arc;

/// The kernel's name in a set of Talos.
pub const KERNEL: &str = "kernel";

/// The initramfs' name in a set of Talos.
pub const INITRAMFS: &str = "initramfs.xz";

/// The name of the kernel line in a set of Talos.
pub const CMDLINE: &str = "cmdline";

/// The name of the one file of an address.
pub const FILE: &str = "file";

/// The iPXE name of the kernel. On UEFI the kernel sees it as the first word of its line.
pub const KERNEL_NAME: &str = "kernel";

/// The iPXE name of the initial RAM disk at `index`: `initrd`, `initrd.1`, …
pub fn initrd_name(index: usize) -> String {
    match index {
        0 => "initrd".to_owned(),
        n => format!("initrd.{n}"),
    }
}

/// What a set is known by: its folder's path, below that of all images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(Arc<str>);

impl SetId {
    /// A set by the path of its folder. Whoever makes one sees to it that this is a plain relative path.
    pub fn new(path: &str) -> Self {
        Self(path.into())
    }

    /// The path of its folder, below that of all images.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
