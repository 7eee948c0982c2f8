//! What happened, told once: the same value is the log line and the fact that decides the next boot.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::advice::Advice;
use super::diagnosis::Verdict;
use super::doubt::Doubt;
use crate::pure::catalog::image_set::{KERNEL_NAME, initrd_name};
use crate::pure::catalog::settings::{BootPolicy, LocalBoot, Option43};
use crate::pure::client::{Arch, Client, Mac, Stage};
use crate::pure::printable::name;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TFTP, and how it went.
    Tftp(Tftp),
    /// HTTP.
    Http,
}

/// How a TFTP transfer went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tftp {
    /// The options that were granted, as the OACK had them (RFC 2347).
    pub options: Vec<(&'static str, u64)>,
    /// How many packets were sent again.
    pub resent: u64,
    /// Whether less was granted than usual, since transfers to this client had gone badly.
    pub is_held_back: bool,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tftp(_) => "TFTP",
            Self::Http => "HTTP",
        })
    }
}

impl Transport {
    /// What there is to tell beyond the name, in brackets.
    fn details(&self) -> String {
        let Self::Tftp(Tftp { options, resent, is_held_back }) = self else {
            return String::new();
        };
        let options: Vec<String> =
            options.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let options = if options.is_empty() { "no options".to_owned() } else { options.join(", ") };
        let held_back = if *is_held_back { ", less than usual after failures" } else { "" };
        let resent = match resent {
            0 => String::new(),
            1 => "; 1 packet sent again".to_owned(),
            many => format!("; {many} packets sent again"),
        };
        format!(" ({options}{held_back}{resent})")
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

/// How much was sent, in what time and over what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the file.
    pub bytes: u64,
    /// From the request to the last byte.
    pub took: Duration,
    /// Over what.
    pub over: Transport,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, took, over } = self;
        write!(f, "{over}: {bytes} bytes in {:.2} s{}", took.as_secs_f64(), over.details())
    }
}

/// Why a transfer ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// TFTP: the client did not acknowledge this block; 0 is the OACK.
    Silent {
        /// Its number.
        block: u64,
    },
    /// TFTP: the client sent an ERROR.
    Error {
        /// Its code (RFC 1350 section 5).
        code: u16,
        /// Its text.
        text: String,
    },
    /// TFTP: the client asked anew, or for something else, from the same port.
    Replaced,
    /// TFTP: the client had acknowledged nothing yet, and another one needed the room.
    MadeRoom,
    /// HTTP: the client closed the connection.
    Closed,
    /// We could not go on.
    Failed(String),
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent { block: 0 } => f.write_str("the client did not acknowledge the options"),
            Self::Silent { block } => write!(f, "the client did not acknowledge block {block}"),
            Self::Error { code, text } => {
                write!(f, "the client ended it with error {code} `{}`", name(text))
            }
            Self::Replaced => f.write_str("the client asked anew from the same port"),
            Self::MadeRoom => {
                f.write_str("the client had acknowledged nothing, and another one needed the room")
            }
            Self::Closed => f.write_str("the client closed the connection"),
            Self::Failed(reason) => f.write_str(reason),
        }
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
        /// What option 43 said, where it is the firmware that asked.
        option_43: Option<Option43>,
        /// The interface that it asked on.
        interface: String,
        /// The relay that forwarded its request, if one did.
        relay: Option<Ipv4Addr>,
    },
    /// It took its lease from the router's DHCP server; seen, not answered.
    Leased {
        /// The server that it chose (option 54), where it said so.
        server: Option<Ipv4Addr>,
        /// The relay that forwarded its request, if one did.
        relay: Option<Ipv4Addr>,
    },
    /// A DHCPACK went out.
    Acknowledged {
        /// From which of our ports.
        port: u16,
        /// The file name or URL that it was given.
        boot_file: String,
        /// The relay that forwarded its request, if one did.
        relay: Option<Ipv4Addr>,
    },
    /// It asked for a file's size over TFTP and went away, as UEFI does before it fetches it.
    Probed {
        /// The file.
        file: String,
        /// Nothing of it.
        sent: Sent,
    },
    /// A whole NBP was fetched.
    NbpSent {
        /// Its name.
        file: String,
        /// The architecture that it is for.
        arch: Arch,
        /// How much.
        sent: Sent,
    },
    /// A whole file was fetched that an NBP other than iPXE loads by itself.
    CompanionSent {
        /// Its name, as `ldlinux.c32`.
        file: String,
        /// How much.
        sent: Sent,
    },
    /// It fetched the script that leads every iPXE to its own.
    AutoexecSent {
        /// The name that it asked for: `autoexec.ipxe`, or that of the NBP that it is.
        file: String,
        /// How much.
        sent: Sent,
    },
    /// It fetched its script.
    ScriptServed {
        /// What the script does.
        starts: Starts,
        /// The same in words.
        does: String,
        /// Whom it was for, with what iPXE told of its machine.
        client: Box<Client>,
        /// How much.
        sent: Sent,
    },
    /// It fetched a script that has it wait for its image, which is on its way.
    WaitServed {
        /// The image.
        image: String,
        /// Whom it was for, with what iPXE told of its machine.
        client: Box<Client>,
        /// How much.
        sent: Sent,
    },
    /// What it said of itself tells that it may not boot what its script starts.
    Advised {
        /// Why, and what would mend it.
        advice: Advice,
    },
    /// A whole kernel or initrd was fetched.
    ImageSent {
        /// The image's name and the part, as `talos/kernel`.
        file: String,
        /// How much.
        sent: Sent,
    },
    /// It fetched one of its own answer files.
    FileSent {
        /// Its name, as `files/preseed.cfg`.
        file: String,
        /// How much.
        sent: Sent,
    },
    /// Its script was shown to somebody who is not known to be the machine.
    ScriptShown {
        /// From where the request came.
        from: Ipv4Addr,
        /// Why it is not taken for the machine's own.
        doubt: Doubt,
    },
    /// Its script was withheld from somebody who is not known to be the machine.
    ScriptWithheld {
        /// From where the request came.
        from: Ipv4Addr,
        /// Why.
        reason: String,
    },
    /// The id of its boot came from a card that is not the machine's.
    BootIdMisused {
        /// From where the request came.
        from: Ipv4Addr,
        /// The card at that address.
        card: Mac,
    },
    /// The operator has confirmed that this card is the machine's.
    Confirmed {
        /// The card.
        card: Mac,
    },
    /// The operator has withdrawn that.
    ConfirmationWithdrawn {
        /// The card.
        card: Mac,
    },
    /// A transfer ended before its end.
    BrokenOff {
        /// Of what kind the file is.
        kind: File,
        /// The file.
        file: String,
        /// How much came.
        sent: Sent,
        /// The size of the file.
        of: u64,
        /// Why, as far as it is known.
        why: Break,
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
    /// It was left to its local disk: it got no answer, and goes on by itself.
    LeftToItsDisk {
        /// By what method.
        method: LocalBoot,
        /// At which stage it asked DHCP, and in which transaction, where it was DHCP.
        at: Option<(Stage, u32)>,
        /// Why.
        reason: String,
    },
    /// Its boot came to nothing.
    Stopped {
        /// Where, and the likely causes.
        verdict: Verdict,
    },
    /// It was ordered that the network boots it.
    Armed {
        /// What it boots, where it is not what the config says.
        profile: Option<String>,
        /// How often.
        times: u32,
    },
    /// What was ordered for it was withdrawn.
    Disarmed {},
    /// What was ordered for it was withdrawn, and its disk boots it until it is armed.
    KeptOnDisk {},
}

/// What a script does with its machine, as far as it decides the next boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Starts {
    /// It boots this.
    Boot(Box<Boot>),
    /// It lets somebody choose.
    Menu,
    /// It goes to the local disk.
    Disk(LocalBoot),
    /// It offers the local disk again, after a pause.
    DiskAgain(LocalBoot),
    /// It waits for the operator.
    Hold,
    /// It has iPXE ask again.
    Question,
}

/// What a script boots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The profile.
    pub profile: String,
    /// The image, if it has one.
    pub image: Option<String>,
    /// How many initial RAM disks that has.
    pub initrds: usize,
    /// The policy of the machine.
    pub policy: BootPolicy,
    /// Whether it erases a disk.
    #[serde(default)]
    pub wipes: bool,
}

impl Boot {
    /// What must be fetched of its image, the kernel first.
    pub fn parts(&self) -> impl Iterator<Item = String> {
        [KERNEL_NAME.to_owned()].into_iter().chain((0..self.initrds).map(initrd_name))
    }
}

/// Of what kind a file is that is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// An NBP.
    Nbp,
    /// A kernel or an initrd.
    Image,
    /// Anything else.
    Other,
}

impl Step {
    /// What it is to have fetched only a part, of what it would be to have fetched the whole.
    pub fn broken_off(self, of: u64, why: Break) -> Self {
        let (kind, file, sent) = match self {
            Self::NbpSent { file, arch: _, sent } => (File::Nbp, file, sent),
            Self::ImageSent { file, sent } => (File::Image, file, sent),
            Self::CompanionSent { file, sent }
            | Self::AutoexecSent { file, sent }
            | Self::FileSent { file, sent } => (File::Other, file, sent),
            Self::ScriptServed { sent, .. } | Self::WaitServed { sent, .. } => {
                (File::Other, "its script".to_owned(), sent)
            }
            other @ (Self::Offered { .. }
            | Self::Leased { .. }
            | Self::Acknowledged { .. }
            | Self::Probed { .. }
            | Self::Advised { .. }
            | Self::BrokenOff { .. }
            | Self::Refused { .. }
            | Self::Ignored { .. }
            | Self::LeftToItsDisk { .. }
            | Self::Stopped { .. }
            | Self::Armed { .. }
            | Self::Disarmed {}
            | Self::KeptOnDisk {}
            | Self::BootIdMisused { .. }
            | Self::Confirmed { .. }
            | Self::ConfirmationWithdrawn { .. }
            | Self::ScriptWithheld { .. }
            | Self::ScriptShown { .. }) => return other,
        };
        Self::BrokenOff { kind, file, sent, of, why }
    }
}

impl Step {
    /// What kind of step it is, in a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Offered { .. } => "offered",
            Self::Leased { .. } => "leased",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Probed { .. } => "asked for a size",
            Self::NbpSent { .. } => "fetched an NBP",
            Self::CompanionSent { .. } => "fetched what its NBP loads",
            Self::AutoexecSent { .. } => "fetched autoexec",
            Self::ScriptServed { .. } => "runs its script",
            Self::WaitServed { .. } => "waits for its image",
            Self::Advised { .. } => "advised",
            Self::ImageSent { .. } => "fetched of an image",
            Self::FileSent { .. } => "fetched an answer file",
            Self::BrokenOff { .. } => "broke off",
            Self::Refused { .. } => "refused",
            Self::Ignored { .. } => "not answered",
            Self::LeftToItsDisk { .. } => "left to its disk",
            Self::Stopped { .. } => "stopped",
            Self::Armed { .. } => "armed",
            Self::Disarmed {} => "disarmed",
            Self::KeptOnDisk {} => "kept on its disk",
            Self::ScriptShown { .. } => "looked at",
            Self::ScriptWithheld { .. } => "script withheld",
            Self::BootIdMisused { .. } => "boot id misused",
            Self::Confirmed { .. } => "confirmed",
            Self::ConfirmationWithdrawn { .. } => "confirmation withdrawn",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offered {
                arch,
                stage,
                boot_file,
                interface,
                what: _,
                xid: _,
                option_43: _,
                relay: _,
            } => {
                let arch = arch.map_or_else(|| "?".to_owned(), |arch| arch.to_string());
                write!(f, "offered {boot_file} ({arch}, {stage}, on {interface})")
            }
            Self::Leased { server: Some(server), relay: _ } => {
                write!(f, "takes its lease from {server}")
            }
            Self::Leased { server: None, relay: _ } => f.write_str("takes its lease"),
            Self::Acknowledged { port, boot_file, relay: _ } => {
                write!(f, "acknowledged {boot_file} on port {port}")
            }
            Self::Probed { file, sent: Sent { over, .. } } => {
                write!(f, "asked for the size of {} over {over}{}", name(file), over.details())
            }
            Self::NbpSent { file, arch: _, sent }
            | Self::CompanionSent { file, sent }
            | Self::ImageSent { file, sent }
            | Self::FileSent { file, sent } => {
                write!(f, "fetched {} over {sent}", name(file))
            }
            Self::AutoexecSent { file, sent } => {
                let file = name(file);
                write!(f, "fetched {file}, the script that leads it to its own, over {sent}")
            }
            Self::ScriptServed { does, sent: Sent { over: Transport::Http, .. }, .. } => {
                write!(f, "runs its script: {does}")
            }
            Self::ScriptServed { does, sent, starts: _, client: _ } => {
                write!(f, "runs its script, fetched over {sent}: {does}")
            }
            Self::WaitServed { image, client: _, sent: _ } => {
                write!(f, "waits for image {image}, which is on its way")
            }
            Self::Advised { advice } => write!(f, "advice: {advice}"),
            Self::BrokenOff { kind: _, file, sent: Sent { bytes, took, over }, of, why } => {
                let (seconds, details, file) = (took.as_secs_f64(), over.details(), name(file));
                write!(
                    f,
                    "broke off {file} over {over} at {bytes} of {of} bytes after {seconds:.2} s{details}: {why}"
                )
            }
            Self::Refused { what, reason } => write!(f, "refused {}: {reason}", name(what)),
            Self::Ignored { reason } => write!(f, "not answered: {reason}"),
            Self::LeftToItsDisk { method: _, at: _, reason } => {
                write!(f, "left to its local disk: {reason}")
            }
            Self::Stopped { verdict } => write!(f, "stopped: {verdict}"),
            Self::Armed { profile, times } => {
                let what = match profile {
                    Some(profile) => format!("profile {profile}"),
                    None => "what the config says".to_owned(),
                };
                let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
                write!(f, "armed: the network boots it {times}, {what}")
            }
            Self::ScriptShown { from, doubt: Doubt::Forgeable(_) } => {
                write!(f, "asked for its script over TFTP, and {from} was sent an id to ask with")
            }
            Self::ScriptShown { from, doubt } => {
                write!(f, "showed its script to {from}, which is no step of its boot: {doubt}")
            }
            Self::ScriptWithheld { from, reason } => {
                write!(f, "refused {from} its script: {reason}")
            }
            Self::BootIdMisused { from, card } => write!(
                f,
                "alarm: {from} ({card}) has the id of its boot, and {card} is not its card; somebody reads its traffic, or two machines share an address"
            ),
            Self::Confirmed { card } => write!(f, "the operator has confirmed {card} as its card"),
            Self::ConfirmationWithdrawn { card } => {
                write!(f, "the operator withdrew {card} as its card")
            }
            Self::Disarmed {} => f.write_str("disarmed: no boot is ordered for it any more"),
            Self::KeptOnDisk {} => {
                f.write_str("kept on its disk: its disk boots it, whatever the config says")
            }
        }
    }
}
