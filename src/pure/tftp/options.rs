//! What a client asks of a transfer, and what it is granted (RFC 2347 to 2349, RFC 7440).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::packet::Rrq;

/// The largest block that goes out: what an Ethernet frame carries behind the IP, UDP and TFTP
/// headers. Many PXE ROMs cannot put fragments together, so more is never granted.
pub const MAX_BLKSIZE: u64 = 1468;
/// The most blocks that go out before an ACK: weak network chips drop longer bursts.
pub const MAX_WINDOWSIZE: u64 = 16;
/// The block size without the option (RFC 1350).
pub const DEFAULT_BLKSIZE: u64 = 512;

/// What may be granted at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Whether the client takes an OACK at all.
    pub takes_oack: bool,
    /// Whether it gets blocks of 512 bytes, one at a time. Its other options are granted: UEFI boots
    /// nothing whose size it was not told.
    pub is_plain: bool,
    /// Bytes in a block, from [`DEFAULT_BLKSIZE`] on.
    pub blksize: u64,
    /// Blocks before an ACK.
    pub windowsize: u64,
}

impl Most {
    /// What a way carries whose frames have room for this many bytes, the IP header included.
    pub fn over(mtu: u64) -> Self {
        const HEADERS: u64 = 20 + 8 + 4;
        let blksize = mtu.saturating_sub(HEADERS).clamp(DEFAULT_BLKSIZE, MAX_BLKSIZE);
        Self { takes_oack: true, is_plain: false, blksize, windowsize: MAX_WINDOWSIZE }
    }
}

/// The course of a transfer as it was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Bytes in a block.
    pub blksize: u64,
    /// Blocks before an ACK.
    pub windowsize: u64,
    /// What the OACK says: only what was asked for, since UEFI takes anything else for malformed.
    /// Empty means that there is none.
    pub oack: Vec<(&'static str, u64)>,
    /// Whether it is less than it would be without bad experience.
    pub is_held_back: bool,
}

/// Grants what can be granted of a request for a file of `len` bytes. A value that is none (a
/// blksize of 7, a timeout of 0) is as if the client had not asked.
pub fn negotiate(rrq: &Rrq, len: u64, most: Most) -> Granted {
    let usual = Most { blksize: most.blksize, ..Most::over(0) };
    let mut granted = grant(rrq, len, most);
    granted.is_held_back = granted != grant(rrq, len, usual);
    granted
}

fn grant(rrq: &Rrq, len: u64, most: Most) -> Granted {
    let mut granted =
        Granted { blksize: DEFAULT_BLKSIZE, windowsize: 1, oack: Vec::new(), is_held_back: false };
    if !most.takes_oack {
        return granted;
    }
    for (name, value) in &rrq.options {
        // Rust would also read a sign.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let Some(value) = value.parse::<u64>().ok().filter(|_| digits) else {
            continue;
        };
        match (name.as_str(), value) {
            ("blksize" | "windowsize", _) if most.is_plain => {}
            ("blksize", 8..=65464) => {
                granted.blksize = value.min(most.blksize);
                granted.oack.push(("blksize", granted.blksize));
            }
            ("tsize", _) => granted.oack.push(("tsize", len)),
            // Granted as it must be, unchanged; the pace follows the measured round trip all the same.
            ("timeout", 1..=255) => granted.oack.push(("timeout", value)),
            ("windowsize", 1..=65535) => {
                granted.windowsize = value.min(most.windowsize);
                granted.oack.push(("windowsize", granted.windowsize));
            }
            _ => {}
        }
    }
    granted
}
