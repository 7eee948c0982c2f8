//! What came of a simulation: its steps, and its end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::time::Duration;

/// A step of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The firmware's DISCOVER, and the offer of a boot file.
    Offer,
    /// UEFI's REQUEST on port 4011, and the ACK.
    BootServer,
    /// The NBP, over TFTP.
    Tftp,
    /// The NBP, over HTTP.
    HttpBoot,
    /// The iPXE's DISCOVER, and the offer of its script.
    IpxeOffer,
    /// A script.
    Script,
    /// The head of a kernel.
    Kernel,
    /// The head of an initrd, or of another file that a script fetches.
    Initrd,
    /// The head of a program that a script hands over to.
    Program,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Offer => "DHCP offer",
            Self::BootServer => "port 4011",
            Self::Tftp => "TFTP",
            Self::HttpBoot => "HTTP Boot",
            Self::IpxeOffer => "iPXE's offer",
            Self::Script => "script",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Program => "program",
        })
    }
}

/// A step that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub at: At,
    /// What came.
    pub told: String,
    /// What else is worth knowing, a line each.
    pub notes: Vec<String>,
    /// From the question to the end of the answer.
    pub took: Duration,
}

/// The step that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub at: At,
    /// What happened.
    pub reason: String,
    /// What was waited for.
    pub waited_for: String,
    /// Where to look, and what would mend it.
    pub look_at: Vec<String>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The steps that went well.
    pub steps: Vec<Step>,
    /// What the machine then does, or why it does not come there.
    pub end: Result<String, Failure>,
}

impl Journey {
    /// What the steps took together. A machine's own start, and its lease, are not in it.
    pub fn took(&self) -> Duration {
        self.steps.iter().map(|step| step.took).sum()
    }
}
