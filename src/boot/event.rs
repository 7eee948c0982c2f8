//! What happened, told once: the same value is the log line and the fact that decides the next boot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::client::Stage;
use super::{Arch, Mac};

/// One step of one machine's boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose step it is.
    pub subject: Subject,
    /// What happened.
    pub step: Step,
}

/// As much as is known of who an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The hardware address.
    pub mac: Option<Mac>,
    /// The name in the config.
    pub name: Option<String>,
    /// The IPv4 address.
    pub address: Option<Ipv4Addr>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.mac, self.address) {
            (Some(name), Some(mac), _) => write!(f, "{name} ({mac})"),
            (Some(name), None, _) => f.write_str(name),
            (None, Some(mac), _) => mac.fmt(f),
            (None, None, Some(address)) => address.fmt(f),
            (None, None, None) => f.write_str("somebody"),
        }
    }
}

/// Over what a file was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tftp => "TFTP",
            Self::Http => "HTTP",
        })
    }
}

/// What a DHCPOFFER names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// A network bootstrap program.
    Nbp,
    /// A script.
    Script,
}

/// How much was sent, and in what time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the file.
    pub bytes: u64,
    /// From the request to the last byte.
    pub took: Duration,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {:.2} s", self.bytes, self.took.as_secs_f64())
    }
}

/// What can happen on the way to a booted machine, in the order in which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A DHCPOFFER went out.
    Offered {
        /// The client's architecture, where it told one.
        arch: Option<Arch>,
        /// How far the client is.
        stage: Stage,
        /// What it was offered.
        what: Offer,
        /// The DHCP transaction: a repeated DISCOVER has that of the first.
        xid: u32,
        /// The file name or URL that it was given.
        boot_file: String,
        /// The interface that it asked on.
        interface: String,
    },
    /// It took its lease from the router's DHCP server; seen, not answered.
    Leased {
        /// The server that it chose (option 54), where it said so.
        server: Option<Ipv4Addr>,
    },
    /// A DHCPACK went out.
    Acknowledged {
        /// From which of our ports.
        port: u16,
        /// The file name or URL that it was given.
        boot_file: String,
    },
    /// It asked for a file's size over TFTP and went away, as UEFI does before it fetches it.
    Probed {
        /// The file.
        file: String,
    },
    /// A whole NBP was fetched.
    NbpSent {
        /// Its name.
        file: String,
        /// Over what.
        over: Transport,
        /// How much.
        sent: Sent,
    },
    /// It fetched the script that leads every iPXE to its own.
    AutoexecSent {
        /// The name that it asked for: `autoexec.ipxe`, or that of the NBP that it is.
        file: String,
    },
    /// It fetched its script.
    ScriptServed {
        /// What the script does, in words.
        does: String,
    },
    /// A whole kernel or initrd was fetched.
    ImageSent {
        /// The image's name and the part, as `talos/kernel`.
        file: String,
        /// How much.
        sent: Sent,
    },
    /// A transfer ended before its end.
    BrokenOff {
        /// The file.
        file: String,
        /// Over what.
        over: Transport,
        /// How far it came, of how many bytes.
        at: Sent,
        /// The size of the file.
        of: u64,
        /// Why, as far as it is known.
        reason: String,
    },
    /// It asked for something that it cannot have.
    Refused {
        /// What it asked for.
        what: String,
        /// Why not, and what would mend it.
        reason: String,
    },
    /// It deliberately got no answer.
    Ignored {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered { arch, stage, what: _, xid: _, boot_file, interface } => {
                let arch = arch.map_or_else(|| "?".to_owned(), |arch| arch.to_string());
                write!(f, "offered {boot_file} ({arch}, {stage}, on {interface})")
            }
            Self::Leased { server: Some(server) } => write!(f, "takes its lease from {server}"),
            Self::Leased { server: None } => f.write_str("takes its lease"),
            Self::Acknowledged { port, boot_file } => {
                write!(f, "acknowledged {boot_file} on port {port}")
            }
            Self::Probed { file } => write!(f, "asked for the size of {file}"),
            Self::NbpSent { file, over, sent } => write!(f, "fetched {file} over {over}: {sent}"),
            Self::AutoexecSent { file } => {
                write!(f, "fetched {file}, as which it gets the script that leads to its own")
            }
            Self::ScriptServed { does } => write!(f, "runs its script: {does}"),
            Self::ImageSent { file, sent } => write!(f, "fetched {file}: {sent}"),
            Self::BrokenOff { file, over, at, of, reason } => {
                write!(f, "broke off {file} over {over} at {at} of {of} bytes: {reason}")
            }
            Self::Refused { what, reason } => write!(f, "refused {what}: {reason}"),
            Self::Ignored { reason } => write!(f, "not answered: {reason}"),
        }
    }
}
