//! The kernel arguments that Talos itself expects, by version.
//!
//! They are those of its own images (`talos/pkg/imager/imager_test.go`, and the version quirks that
//! the imager reads); a kernel that is booted without them does not know its platform.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A Talos release as far as its arguments depend on it: `v1.11.2` is 1.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TalosVersion {
    /// The major number.
    pub major: u16,
    /// The minor number.
    pub minor: u16,
}

/// The processor that a Talos image is for, by the name that Talos gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TalosArch {
    /// x86-64.
    #[default]
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

/// Why a text is not a Talos version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a Talos version; write it like v1.11.2")]
pub struct TalosVersionError(String);

impl TalosVersion {
    const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }

    /// The newest release whose arguments are known here.
    pub const NEWEST: Self = Self::new(1, 14);

    /// The arguments of the metal platform, in the order of Talos' own image.
    pub fn default_cmdline(self, arch: TalosArch) -> Vec<&'static str> {
        let since = |minor| self >= Self::new(1, minor);
        let until = |minor| self < Self::new(1, minor);
        let arm = arch == TalosArch::Arm64;
        [
            (true, "talos.platform=metal"),
            (arm, "console=ttyAMA0"),
            (!arm && until(8), "console=ttyS0"),
            (true, "console=tty0"),
            (until(14), "init_on_alloc=1"),
            (true, "slab_nomerge"),
            (true, "pti=on"),
            (true, "consoleblank=0"),
            (until(14), "nvme_core.io_timeout=4294967295"),
            (true, "printk.devkmsg=on"),
            (until(11), "ima_template=ima-ng"),
            (until(11), "ima_appraise=fix"),
            (until(11), "ima_hash=sha512"),
            (since(10), "selinux=1"),
            (since(12), "module.sig_enforce=1"),
            (since(13), "proc_mem.force_override=never"),
        ]
        .into_iter()
        .filter_map(|(holds, argument)| holds.then_some(argument))
        .collect()
    }
}

impl FromStr for TalosVersion {
    type Err = TalosVersionError;

    fn from_str(text: &str) -> Result<Self, TalosVersionError> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let mut parts = numbers.splitn(3, '.').map(str::parse);
        match (parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => Err(TalosVersionError(text.to_owned())),
        }
    }
}

impl fmt::Display for TalosArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        })
    }
}

impl fmt::Display for TalosVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The argument by which a machine has these labels in Omni once it has joined: Talos reads the META
/// value 0xc from it while it is not installed (`pkg/machinery/meta`, Omni's `client/pkg/meta`). Values of META are
/// joined by `;`, which no label has; a long one may come packed, and is read plain too.
pub fn labels(labels: &BTreeMap<&String, &String>) -> String {
    let mut value = "0xc=machineLabels:\n".to_owned();
    for (name, label) in labels {
        // What YAML would take for a number or a word of its own is a text here.
        let is_plain = label.starts_with(|c: char| c.is_ascii_alphabetic())
            && !["true", "false", "null", "yes", "no", "on", "off"].contains(&label.as_str());
        let quote = if is_plain { "" } else { "\"" };
        value += &format!("    {name}: {quote}{label}{quote}\n");
    }
    format!("talos.environment=INSTALLER_META_BASE64={}", BASE64.encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_the_line_of_its_own_imager() {
        let table = [
            (
                "v1.7.6",
                "talos.platform=metal console=ttyS0 console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on ima_template=ima-ng ima_appraise=fix ima_hash=sha512",
            ),
            (
                "1.9.0",
                "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on ima_template=ima-ng ima_appraise=fix ima_hash=sha512",
            ),
            (
                "v1.10.4",
                "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on ima_template=ima-ng ima_appraise=fix ima_hash=sha512 selinux=1",
            ),
            (
                "v1.11.2",
                "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on selinux=1",
            ),
            (
                "v1.12.0-beta.1",
                "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on selinux=1 module.sig_enforce=1",
            ),
            (
                "v1.13.0",
                "talos.platform=metal console=tty0 init_on_alloc=1 slab_nomerge pti=on consoleblank=0 nvme_core.io_timeout=4294967295 printk.devkmsg=on selinux=1 module.sig_enforce=1 proc_mem.force_override=never",
            ),
            (
                "v1.14.0",
                "talos.platform=metal console=tty0 slab_nomerge pti=on consoleblank=0 printk.devkmsg=on selinux=1 module.sig_enforce=1 proc_mem.force_override=never",
            ),
        ];
        for (version, line) in table {
            let version: TalosVersion = version.parse().unwrap();
            assert_eq!(version.default_cmdline(TalosArch::Amd64).join(" "), line, "{version}");
        }
    }

    #[test]
    fn arm64_has_a_serial_console_of_its_own() {
        for version in [TalosVersion::new(1, 7), TalosVersion::NEWEST] {
            let line = version.default_cmdline(TalosArch::Arm64).join(" ");
            let start = "talos.platform=metal console=ttyAMA0 console=tty0 ";
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn a_version_that_is_none_is_refused() {
        for text in ["", "latest", "v1", "1.x"] {
            assert!(text.parse::<TalosVersion>().is_err(), "{text}");
        }
    }
}
