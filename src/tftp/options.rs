//! What a client asks of a transfer, and what it is granted (RFC 2347 to 2349, RFC 7440).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::packet::Rrq;

/// The largest block that goes out: what an Ethernet frame carries behind the IP, UDP and TFTP
/// headers. Many PXE ROMs cannot put fragments together, so more is never granted.
pub const MAX_BLKSIZE: u64 = 1468;
/// The most blocks that go out before an ACK: weak network chips drop longer bursts.
pub const MAX_WINDOWSIZE: u64 = 16;
/// The block size without the option (RFC 1350).
const DEFAULT_BLKSIZE: u64 = 512;

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
}

/// Grants what can be granted of a request for a file of `len` bytes. A value that is none (a
/// blksize of 7, a timeout of 0) is as if the client had not asked.
pub fn negotiate(rrq: &Rrq, len: u64) -> Granted {
    let mut granted = Granted { blksize: DEFAULT_BLKSIZE, windowsize: 1, oack: Vec::new() };
    for (name, value) in &rrq.options {
        // Rust would also read a sign.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        let Some(value) = value.parse::<u64>().ok().filter(|_| digits) else {
            continue;
        };
        match (name.as_str(), value) {
            ("blksize", 8..=65464) => {
                granted.blksize = value.min(MAX_BLKSIZE);
                granted.oack.push(("blksize", granted.blksize));
            }
            ("tsize", _) => granted.oack.push(("tsize", len)),
            // Granted as it must be, unchanged; the pace follows the measured round trip all the same.
            ("timeout", 1..=255) => granted.oack.push(("timeout", value)),
            ("windowsize", 1..=65535) => {
                granted.windowsize = value.min(MAX_WINDOWSIZE);
                granted.oack.push(("windowsize", granted.windowsize));
            }
            _ => {}
        }
    }
    granted
}
