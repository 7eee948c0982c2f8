//! DHCP messages (RFC 2131 section 2), tolerant of what firmware sends.
//!
//! A [`Request`] comes from a machine, an [`Offer`] from another server, and a [`Reply`] goes out.
//!
//! Inbound goes through dhcproto's lazy option iterator, behind guards: its typed decoder stops at
//! the first option that it cannot parse, so that one odd host name would hide the whole machine.
//! Outbound goes through its `Message`; then what it leaves out is added: option 82 as it came,
//! as the last one (RFC 3046 section 2.2), End, and padding to the 300 bytes of RFC 1542 section 2.1.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use dhcproto::v4;
use dhcproto::v4::borrowed::DhcpOptionIterator;

mod offer;
mod reply;
mod request;

pub use self::offer::Offer;
pub use self::reply::{Reply, ReplyKind};
pub use self::request::{MessageType, Request};

/// The fixed part of a message, with the magic cookie.
const HEADER: usize = 240;
/// More than an Ethernet frame carries, and little enough for a thousand of them to wait.
const LONGEST: usize = 2048;
/// Where the fields are that dhcproto does not give as they came.
const CHADDR: Range<usize> = 28..44;
const SNAME: Range<usize> = 44..108;
const FILE: Range<usize> = 108..236;

/// Option codes that are read or written here.
pub mod option {
    /// PXE vendor options (RFC 2132 section 8.4).
    pub const VENDOR_OPTIONS: u8 = 43;
    /// The address that a client asks for (RFC 2132 section 9.1).
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// Which of `file` and `sname` hold options too (RFC 2132 section 9.3).
    pub const OVERLOAD: u8 = 52;
    /// DHCP message type (RFC 2132 section 9.6).
    pub const MESSAGE_TYPE: u8 = 53;
    /// Server identifier (RFC 2132 section 9.7).
    pub const SERVER_ID: u8 = 54;
    /// Vendor class identifier (RFC 2132 section 9.13).
    pub const VENDOR_CLASS: u8 = 60;
    /// Client identifier (RFC 2132 section 9.14).
    pub const CLIENT_ID: u8 = 61;
    /// TFTP server name (RFC 2132 section 9.4).
    pub const SERVER_NAME: u8 = 66;
    /// Boot file name (RFC 2132 section 9.5).
    pub const BOOT_FILE: u8 = 67;
    /// User class (RFC 3004).
    pub const USER_CLASS: u8 = 77;
    /// Relay agent information (RFC 3046).
    pub const RELAY_AGENT: u8 = 82;
    /// Client system architecture (RFC 4578 section 2.1).
    pub const CLIENT_ARCH: u8 = 93;
    /// Client machine identifier (RFC 4578 section 2.3).
    pub const CLIENT_MACHINE_ID: u8 = 97;
    /// iPXE's encapsulated options (Etherboot).
    pub const IPXE: u8 = 175;
}

/// Why a datagram is not the message that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for the fixed fields.
    #[error("{0} bytes are too few for a DHCP message")]
    Short(usize),
    /// Longer than any frame.
    #[error("{0} bytes are more than a DHCP message has")]
    Long(usize),
    /// No magic cookie.
    #[error("the magic cookie is missing")]
    Cookie,
    /// A hardware address that does not fit its field.
    #[error("a hardware address of {0} bytes does not fit its field of 16")]
    HardwareAddress(u8),
    /// From a server.
    #[error("it is a reply, not a request")]
    NotARequest,
    /// Not an offer.
    #[error("it is no offer")]
    NotAnOffer,
    /// Cut off, or with a length beyond its end.
    #[error("an option goes on beyond the end of the message")]
    Truncated,
    /// BOOTP without DHCP.
    #[error("option 53 is missing")]
    NoMessageType,
}

/// What must hold before dhcproto may look at a datagram: without it, one can make it panic.
fn guarded(datagram: &[u8]) -> Result<v4::borrowed::Message<'_>, Malformed> {
    if datagram.len() > LONGEST {
        return Err(Malformed::Long(datagram.len()));
    }
    let message =
        v4::borrowed::Message::new(datagram).map_err(|_| Malformed::Short(datagram.len()))?;
    if datagram[HEADER - v4::MAGIC.len()..HEADER] != v4::MAGIC {
        return Err(Malformed::Cookie);
    }
    if message.hlen() > 16 {
        return Err(Malformed::HardwareAddress(message.hlen()));
    }
    if !is_whole(&datagram[HEADER..]) {
        return Err(Malformed::Truncated);
    }
    Ok(message)
}

/// Whether every option ends within the field. A missing End is forgiven.
fn is_whole(mut field: &[u8]) -> bool {
    loop {
        field = match field {
            [] | [255, ..] => return true,
            [0, rest @ ..] => rest,
            [_, len, rest @ ..] if rest.len() >= usize::from(*len) => &rest[usize::from(*len)..],
            _ => return false,
        }
    }
}

/// Options by code, as the bytes that they are. What stands in several pieces is put together (RFC 3396
/// section 7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Reads a field of options, or what an option encapsulates in the same form. It ends where something
    /// is cut off.
    pub fn read(field: &[u8]) -> Self {
        let mut options = Self::default();
        options.read_more(field);
        options
    }

    /// All of a message's: in the option field and, where option 52 says so, in `file` and `sname`.
    fn of_message(datagram: &[u8]) -> Self {
        let mut options = Self::read(&datagram[HEADER..]);
        let overload = options.byte(option::OVERLOAD).unwrap_or(0);
        // RFC 2131 section 4.1: first `file`, then `sname`.
        if overload & 1 != 0 {
            options.read_more(&datagram[FILE]);
        }
        if overload & 2 != 0 {
            options.read_more(&datagram[SNAME]);
        }
        options
    }

    fn read_more(&mut self, field: &[u8]) {
        for found in DhcpOptionIterator::new(field) {
            self.0.entry(found.code().into()).or_default().extend_from_slice(found.data());
        }
    }

    /// The bytes of an option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// The first byte of an option.
    pub fn byte(&self, code: u8) -> Option<u8> {
        self.get(code)?.first().copied()
    }

    /// An option that is one IPv4 address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.get(code)?.try_into().ok()?;
        Some(octets.into())
    }

    /// Which there are.
    pub fn codes(&self) -> impl Iterator<Item = u8> {
        self.0.keys().copied()
    }
}
