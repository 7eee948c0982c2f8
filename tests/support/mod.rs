//! What the tests build a lab from.

// Each program that builds a lab uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod appliance;
pub mod factory;
pub mod firmware;
pub mod guest;
pub mod lan;
pub mod router;

pub use appliance::Appliance;
pub use guest::{Disk, Guest, Hardware, Machine, Screen};
pub use lan::{Lan, in_lab};
pub use router::{Dhcp, Router};

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where Debian keeps what a plain user's PATH may lack.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A file that one of Debian's packages brings.
///
/// Panics with the package's name where it is missing: no test is skipped for it.
pub fn packaged(path: &str, package: &str) -> PathBuf {
    let path = PathBuf::from(path);
    assert!(
        path.exists(),
        "{} is missing: apt-get install {package} (dev/setup test does it)",
        path.display()
    );
    path
}

/// Runs a command to its end; it must succeed.
pub fn run(program: &str, arguments: &[&str]) {
    let output =
        Command::new(program).args(arguments).env("PATH", PATH).output().unwrap_or_else(|error| {
            panic!("cannot run {program}: {error} (dev/setup test installs it)")
        });
    assert!(
        output.status.success(),
        "{program} {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A command that runs in a folder, with its state folder in it: never in that of this host.
pub trait InFolder {
    fn in_folder(&mut self, folder: &Path) -> &mut Self;
}

impl InFolder for Command {
    fn in_folder(&mut self, folder: &Path) -> &mut Self {
        let state = folder.join("state");
        self.current_dir(folder).env_remove("REVEILLE_CONFIG").env("STATE_DIRECTORY", state)
    }
}

/// A command inside a network namespace of the lab.
pub fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.env("PATH", PATH).args(["netns", "exec", namespace]).arg(program);
    command
}
