//! How far a boot has come, and the diagnosis of one that stopped.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

impl Reached {
    /// In words, of a machine.
    pub fn words(self) -> &'static str {
        match self {
            Self::Offered => "offered an NBP",
            Self::Asked => "asked for its NBP",
            Self::PartOfNbp => "broke off its NBP",
            Self::Nbp => "has its NBP",
            Self::Led => "in iPXE",
            Self::Ipxe => "in iPXE",
            Self::Question => "asked what it is",
            Self::Waiting => "waits for its image",
            Self::Menu => "in the menu",
            Self::Held => "held",
            Self::Script => "has its script",
            Self::Kernel => "has its kernel",
            Self::All => "booted",
            Self::Disk => "at its disk",
        }
    }
}

/// How far a boot has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reached {
    /// Its firmware was offered an NBP.
    #[default]
    Offered,
    /// It has asked the boot server port, or for the size of the NBP.
    Asked,
    /// It has begun to fetch its NBP, and broke off.
    PartOfNbp,
    /// It has its NBP.
    Nbp,
    /// Its NBP has asked for the way to its script.
    Led,
    /// Its iPXE was offered its script.
    Ipxe,
    /// Its iPXE was asked what machine it is.
    Question,
    /// It waits for its image.
    Waiting,
    /// It shows the menu.
    Menu,
    /// It waits for the operator.
    Held,
    /// It has its script.
    Script,
    /// It has the kernel.
    Kernel,
    /// It has all that its script boots.
    All,
    /// It was sent to its local disk.
    Disk,
}

impl Reached {
    /// Whether iPXE has come as far as its script.
    pub fn is_scripted(self) -> bool {
        self >= Self::Question
    }
}

/// Where a boot has stopped, and the likely causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How far it had come.
    pub reached: Reached,
    /// The rule that says so, by its name.
    pub rule: Cow<'static, str>,
    /// One sentence.
    pub words: String,
    /// Who saw it.
    pub source: Cow<'static, str>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.words, self.source)
    }
}
