//! Where a boot has stopped, and why, as far as can be told from outside: one sentence for the operator who
//! would have walked to the machine.
//!
//! The rules are data: at which step, on what firmware, what is said, and who saw it. The first that fits counts.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::progress::Journey;
use crate::pure::client::{Arch, Stage};
use crate::pure::event::diagnosis::{Reached, Verdict};

/// How soon a machine that has all that it boots, and is back in PXE, has not really booted. Talos that has
/// installed itself, and whose firmware has PXE first, is back as soon.
const SOON: Duration = Duration::from_mins(5);

/// What must be so beside the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Always,
    Bios,
    Uefi,
    HttpBoot,
    /// It was refused something.
    Refused,
    /// It was not seen to take an address.
    NoLease,
    /// A kernel or an initrd was broken off.
    BrokenOff,
    /// iPXE says so.
    Told,
}

/// One rule.
struct Rule {
    name: &'static str,
    at: &'static [Reached],
    when: When,
    /// What is seen. `{nbp}`, `{percent}`, `{size}`, `{file}`, `{image}`, `{fetched}`, `{refused}` and `{after}`
    /// are filled in.
    seen: &'static str,
    /// The likely causes, and what to do.
    causes: &'static str,
    source: &'static str,
}

/// That it has taken no address.
pub const NO_LEASE: &str = "no-lease";
/// That iPXE could not start the disk.
pub const SANBOOT_FAILED: &str = "sanboot-failed";
/// That iPXE could not start the kernel.
pub const KERNEL_DOES_NOT_START: &str = "kernel-does-not-start";

const RULES: &[Rule] = &[
    Rule {
        name: "refused",
        at: &[
            Reached::Offered,
            Reached::Asked,
            Reached::Nbp,
            Reached::Led,
            Reached::Ipxe,
            Reached::Question,
            Reached::Script,
            Reached::Kernel,
        ],
        when: When::Refused,
        seen: "it was refused",
        causes: "{refused}",
        source: "reveille's own answer",
    },
    Rule {
        name: NO_LEASE,
        at: &[Reached::Offered],
        when: When::NoLease,
        seen: "it was offered {nbp} and has taken no address",
        causes: "the router's DHCP does not answer it (`reveille doctor --dhcp` asks), has no address left, a switch drops its answers (DHCP snooping, VLAN), or its firmware takes our offer for none and asks no further (`option_43: bios` or `skip-prompt`)",
        source: "RFC 2131 section 3.1; PXE 2.1 section 2.2.1",
    },
    Rule {
        name: "no-fetch-http-boot",
        at: &[Reached::Offered, Reached::Asked],
        when: When::HttpBoot,
        seen: "it was offered {nbp} by UEFI HTTP Boot and has not fetched it",
        causes: "plain HTTP may be off in its firmware (`Allow HTTP connections`), or a firewall keeps it from our HTTP port",
        source: "edk2 NetworkPkg/HttpBootDxe; github.com/tinkerbell/smee/issues/210",
    },
    Rule {
        name: "no-fetch-uefi",
        at: &[Reached::Offered],
        when: When::Uefi,
        seen: "it was offered {nbp} and has done nothing more",
        causes: "a second proxyDHCP or PXE server answers it too (`reveille doctor` looks for one), a switch drops our offers (DHCP snooping), or its firmware wants another option 43 (`option_43: bios` or `skip-prompt`)",
        source: "github.com/siderolabs/booter/issues/10, tianocore/edk2#8149",
    },
    Rule {
        name: "no-fetch-bios",
        at: &[Reached::Offered],
        when: When::Always,
        seen: "it was offered {nbp} and has done nothing more",
        causes: "a second proxyDHCP or PXE server answers it too (`reveille doctor` looks for one), a switch drops our offers (DHCP snooping), or its ROM wants its REQUEST answered too (`answer_request_67: true`)",
        source: "github.com/siderolabs/booter/issues/4, danderson/pixiecore#21",
    },
    Rule {
        name: "no-fetch-after-4011",
        at: &[Reached::Asked],
        when: When::Always,
        seen: "it has asked for {nbp} and has not fetched it",
        causes: "a firewall may keep TFTP (UDP port 69 and the ports above 1024) from one of the two; `reveille doctor` tries that",
        source: "PXE 2.1 section 2.2; edk2 PxeBcBoot.c",
    },
    Rule {
        name: "nbp-broken-off-bios",
        at: &[Reached::PartOfNbp],
        when: When::Bios,
        seen: "it broke off {nbp} at {percent} % of {size} bytes",
        causes: "the NBP may be too large for what its ROM keeps free, or the network loses packets: undionly.kpxe is the smallest (`nbp: { bios: undionly.kpxe }`)",
        source: "github.com/danderson/netboot/issues/63",
    },
    Rule {
        name: "nbp-broken-off-uefi",
        at: &[Reached::PartOfNbp],
        when: When::Always,
        seen: "it broke off {nbp} at {percent} % of {size} bytes",
        causes: "its firmware has no room for it, or the network loses packets: try snponly.efi (`nbp: { uefi-x64: snponly.efi }`), or boot it by BIOS",
        source: "github.com/netbootxyz/netboot.xyz/issues/1302",
    },
    Rule {
        name: "nbp-without-ipxe-bios",
        at: &[Reached::Nbp],
        when: When::Bios,
        seen: "it has fetched {nbp}, and no iPXE has asked since",
        causes: "the NBP does not work with its network card: another build may (`nbp`; undionly.kkpxe keeps the ROM's driver, ipxe.pxe has its own)",
        source: "github.com/danderson/netboot/issues/63, netbootxyz/netboot.xyz#839",
    },
    Rule {
        name: "nbp-without-ipxe-uefi",
        at: &[Reached::Nbp],
        when: When::Always,
        seen: "it has fetched {nbp}, and no iPXE has asked since",
        causes: "its firmware does not start it: Secure Boot may refuse it (switch that off), the file may be damaged, or its card needs the other build (snponly.efi or ipxe.efi, `nbp`)",
        source: "github.com/netbootxyz/netboot.xyz/issues/1246, 1833",
    },
    Rule {
        name: "ipxe-without-our-offer",
        at: &[Reached::Ipxe],
        when: When::Always,
        seen: "its iPXE was offered its script and has not fetched it",
        causes: "the router's DHCP names a file or a next-server of its own that won (take that out of it), the switch port was shut by spanning tree (portfast), or HTTP is kept from it",
        source: "ipxe core/settings.c; github.com/netbootxyz/netboot.xyz/issues/736",
    },
    Rule {
        name: "led-without-script",
        at: &[Reached::Led],
        when: When::Always,
        seen: "its iPXE has asked for autoexec.ipxe over TFTP and has not fetched its script since",
        causes: "its DHCP or HTTP fails where TFTP works: the console says which",
        source: "github.com/tinkerbell/tinkerbell/issues/424",
    },
    Rule {
        name: "no-facts",
        at: &[Reached::Question],
        when: When::Always,
        seen: "its iPXE was asked what machine it is and has not answered",
        causes: "it stands in iPXE's shell, or was switched off",
        source: "ipxe's `chain`",
    },
    Rule {
        name: "waiting-broken-off",
        at: &[Reached::Waiting],
        when: When::Always,
        seen: "it waited for its image and asks no more",
        causes: "it was switched off, or stands in iPXE's shell",
        source: "waiting.ipxe",
    },
    Rule {
        name: "download-broken-off",
        at: &[Reached::Script, Reached::Kernel],
        when: When::BrokenOff,
        seen: "it broke off {file} at {percent} % of {size} bytes",
        causes: "it was switched off, its link went down, or it has not enough memory (a BIOS iPXE has under 3 GB of it)",
        source: "github.com/warewulf/warewulf/issues/497",
    },
    Rule {
        name: "script-without-kernel",
        at: &[Reached::Script],
        when: When::Always,
        seen: "it has its script and has not fetched the kernel",
        causes: "the script's own steps before that failed or wait (the console shows them), its CPU is too old for the image, or HTTP is kept from it",
        source: "github.com/siderolabs/talos/issues/7091",
    },
    Rule {
        name: "kernel-without-initrd",
        at: &[Reached::Kernel],
        when: When::Always,
        seen: "it has fetched {fetched} of {image}, and not the rest",
        causes: "the download takes very long, it has not enough memory for it, or it was switched off",
        source: "github.com/warewulf/warewulf/issues/582",
    },
    Rule {
        name: KERNEL_DOES_NOT_START,
        at: &[Reached::All],
        when: When::Told,
        seen: "it has all of {image}, and iPXE could not start the kernel",
        causes: "the image is for another CPU or another firmware, it is no kernel, or there is not enough memory",
        source: "ipxe.org/cmd/boot",
    },
    Rule {
        name: "back-in-pxe",
        at: &[Reached::All],
        when: When::Always,
        seen: "it had fetched all of {image} and was back in PXE after {after}",
        causes: "its kernel or system crashed (watch its console; on HP Gen8 with Talos 1.12 or later add intel_iommu=off), the image is not for this machine, or it has installed itself and its boot order has PXE first (`boot: once`)",
        source: "github.com/siderolabs/talos/issues/12619, poseidon/matchbox#429",
    },
    Rule {
        name: SANBOOT_FAILED,
        at: &[Reached::Disk],
        when: When::Told,
        seen: "iPXE could not start its local disk",
        causes: "there is no disk that BIOS shows to iPXE, or nothing bootable on it; with UEFI use `local_boot: exit`",
        source: "ipxe.org/cmd/sanboot",
    },
    Rule {
        name: "disk-does-not-boot",
        at: &[Reached::Disk],
        when: When::Always,
        seen: "it was sent to its local disk and was back in PXE after {after}",
        causes: "nothing on that disk boots (a system that was cut off before it was installed), the firmware has no disk in its boot order, or it wants another `local_boot`",
        source: "github.com/siderolabs/sidero/issues/1205, redhat-cip/edeploy#224",
    },
];

/// How long nothing may be heard of a boot before it has stopped there. A download is heard of at its end.
pub fn patience(journey: &Journey) -> Option<Duration> {
    match journey.reached {
        Reached::Offered | Reached::Asked | Reached::PartOfNbp => Some(Duration::from_secs(90)),
        Reached::Nbp | Reached::Led | Reached::Ipxe | Reached::Question | Reached::Waiting => {
            Some(Duration::from_mins(2))
        }
        Reached::Script if journey.boot.as_ref().is_some_and(|boot| boot.image.is_none()) => None,
        Reached::Script | Reached::Kernel => Some(Duration::from_mins(10)),
        // It boots, or somebody decides.
        Reached::Menu | Reached::Held | Reached::All | Reached::Disk => None,
    }
}

/// What is to be said of a boot that has come no further: for so long nothing was heard of it, or after so long
/// the machine was started anew.
pub fn verdict(journey: &Journey, arch: Option<Arch>, after: Duration) -> Option<Verdict> {
    match journey.reached {
        Reached::Menu | Reached::Held => return None,
        Reached::All if after > SOON || journey.is_expected_back() => return None,
        // A script without an image boots what is not seen.
        Reached::Script if journey.boot.as_ref().is_some_and(|boot| boot.image.is_none()) => {
            return None;
        }
        Reached::Offered
        | Reached::Asked
        | Reached::PartOfNbp
        | Reached::Nbp
        | Reached::Led
        | Reached::Ipxe
        | Reached::Question
        | Reached::Waiting
        | Reached::Script
        | Reached::Kernel
        | Reached::All
        | Reached::Disk => {}
    }
    let rule = RULES
        .iter()
        .find(|rule| rule.at.contains(&journey.reached) && is_so(rule.when, journey, arch))?;
    Some(rule.of(journey, journey.reached, after))
}

/// What iPXE has told, by the rule's name.
pub fn told(name: &str, journey: &Journey) -> Option<Verdict> {
    let rule = RULES.iter().find(|rule| rule.name == name && rule.when == When::Told)?;
    Some(rule.of(journey, *rule.at.first()?, Duration::ZERO))
}

impl Rule {
    fn of(&self, journey: &Journey, reached: Reached, after: Duration) -> Verdict {
        let [seen, causes] = [self.seen, self.causes].map(|text| filled(text, journey, after));
        Verdict {
            reached,
            rule: self.name.into(),
            words: format!("{seen}: {causes}"),
            source: self.source.into(),
        }
    }
}

fn is_so(when: When, journey: &Journey, arch: Option<Arch>) -> bool {
    let is_bios = arch == Some(Arch::Bios);
    match when {
        When::Always => true,
        When::Bios => is_bios,
        When::Uefi => !is_bios,
        When::HttpBoot => journey.start.is_some_and(|start| start.stage == Stage::HttpBoot),
        When::Refused => journey.refused.is_some(),
        When::NoLease => !journey.has_lease,
        When::BrokenOff => journey.broken_off.is_some(),
        When::Told => false,
    }
}

fn filled(text: &str, journey: &Journey, after: Duration) -> String {
    let part = journey.broken_off.as_ref();
    let image = journey.boot.as_ref().and_then(|boot| boot.image.as_deref());
    let fetched: Vec<&str> = journey.fetched.iter().map(String::as_str).collect();
    let seconds = after.as_secs();
    let after =
        if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds / 60) };
    let mut text = text.to_owned();
    for (name, value) in [
        (
            "{nbp}",
            journey.nbp.clone().or(part.map(|part| part.file.clone())).unwrap_or("its NBP".into()),
        ),
        ("{percent}", part.map_or(0, super::progress::Part::percent).to_string()),
        ("{size}", part.map_or(0, |part| part.of).to_string()),
        ("{file}", part.map_or("a file", |part| &part.file).to_owned()),
        ("{image}", image.map_or("its image".to_owned(), |image| format!("image {image}"))),
        ("{fetched}", if fetched.is_empty() { "nothing".to_owned() } else { fetched.join(", ") }),
        ("{refused}", journey.refused.clone().unwrap_or_default()),
        ("{after}", after),
    ] {
        text = text.replace(name, &value);
    }
    text
}
