//! DHCP messages (RFC 2131 section 2), tolerant of what firmware sends.
//!
//! Inbound goes through dhcproto's lazy option iterator, behind guards: its typed decoder stops at
//! the first option that it cannot parse, so that one odd host name would hide the whole machine.
//! Outbound goes through its `Message`; then what it leaves out is added: option 82 as it came,
//! as the last one (RFC 3046 section 2.2), End, and padding to the 300 bytes of RFC 1542 section 2.1.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::Encodable;
use dhcproto::v4;
use dhcproto::v4::borrowed::DhcpOptionIterator;

/// The fixed part of a message, with the magic cookie.
const HEADER: usize = 240;
/// RFC 1542 section 2.1: old clients and relays drop anything shorter.
const MIN_LEN: usize = 300;
/// More than an Ethernet frame carries, and little enough for a thousand of them to wait.
const MAX_REQUEST: usize = 2048;
/// What everybody takes, whatever option 57 says: an options field of 312 bytes (RFC 2131 section 2).
const MAX_LEN: usize = 548;
/// Where the fields are that dhcproto does not give as they came.
const CHADDR: std::ops::Range<usize> = 28..44;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

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

/// A message from a client, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// Length of the hardware address, at most 16.
    pub hlen: u8,
    /// The hardware address field, all of it.
    pub chaddr: [u8; 16],
    /// Transaction id.
    pub xid: u32,
    /// Flags; the top bit asks for a broadcast.
    pub flags: u16,
    /// The client's address, where it has one.
    pub ciaddr: Ipv4Addr,
    /// The relay agent's address, where there is one.
    pub giaddr: Ipv4Addr,
    /// Option 53.
    pub message_type: MessageType,
    options: BTreeMap<u8, Vec<u8>>,
}

/// The message types that a client sends (RFC 2132 section 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Who is there?
    Discover,
    /// I take this lease; or, on port 4011: what shall I boot?
    Request,
    /// I have an address, tell me more.
    Inform,
    /// DECLINE, RELEASE and what only servers send.
    Other,
}

/// Why a datagram is no DHCP request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for the fixed fields.
    #[error("{0} bytes are too few for a DHCP message")]
    Short(usize),
    /// Longer than anything that boots sends.
    #[error("{0} bytes are more than any DHCP message of a machine has")]
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

impl Request {
    /// Reads a datagram. One bad option does not hide the others.
    ///
    /// # Errors
    /// It is no DHCP request at all.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let message = guarded(datagram)?;
        if message.opcode() != v4::Opcode::BootRequest {
            return Err(Malformed::NotARequest);
        }
        let options = options(datagram);
        let message_type = match options.get(&option::MESSAGE_TYPE).and_then(|data| data.first()) {
            Some(1) => MessageType::Discover,
            Some(3) => MessageType::Request,
            Some(8) => MessageType::Inform,
            Some(_) => MessageType::Other,
            None => return Err(Malformed::NoMessageType),
        };
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(&datagram[CHADDR]);
        Ok(Self {
            htype: datagram[1],
            hlen: datagram[2],
            chaddr,
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            message_type,
            options,
        })
    }

    /// The bytes of an option.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// An option that is one IPv4 address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into())
    }
}

/// An offer from another server, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Transaction id.
    pub xid: u32,
    /// The address that it offers.
    pub yiaddr: Ipv4Addr,
    /// The address of the next server.
    pub siaddr: Ipv4Addr,
    /// The `file` field, unless it holds options.
    pub file: Vec<u8>,
    options: BTreeMap<u8, Vec<u8>>,
}

impl Offer {
    /// Reads a datagram. One bad option does not hide the others.
    ///
    /// # Errors
    /// It is no DHCPOFFER.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let message = guarded(datagram)?;
        let options = options(datagram);
        let kind = options.get(&option::MESSAGE_TYPE).and_then(|data| data.first());
        if message.opcode() != v4::Opcode::BootReply || kind != Some(&2) {
            return Err(Malformed::NotAnOffer);
        }
        let overload = options.get(&option::OVERLOAD).and_then(|data| data.first());
        let file = match overload {
            Some(fields) if fields & 1 != 0 => Vec::new(),
            _ => datagram[FILE].to_vec(),
        };
        let (yiaddr, siaddr) = (message.yiaddr(), message.siaddr());
        Ok(Self { xid: message.xid(), yiaddr, siaddr, file, options })
    }

    /// The bytes of an option.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// Option 54.
    pub fn server(&self) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(option::SERVER_ID)?.try_into().ok()?;
        Some(octets.into())
    }
}

/// What must hold before dhcproto may look at a datagram: without it, one can make it panic.
fn guarded(datagram: &[u8]) -> Result<v4::borrowed::Message<'_>, Malformed> {
    if datagram.len() > MAX_REQUEST {
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

/// All options by code, in the option field and, where option 52 says so, in `file` and `sname`.
/// What stands in several pieces is put together (RFC 3396 section 7).
fn options(datagram: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    let mut take = |field: &[u8]| {
        for found in DhcpOptionIterator::new(field) {
            let code = u8::from(found.code());
            let data: &mut Vec<u8> = options.entry(code).or_default();
            data.extend_from_slice(found.data());
        }
        options.get(&option::OVERLOAD).and_then(|data| data.first().copied())
    };
    let overload = take(&datagram[HEADER..]).unwrap_or(0);
    // RFC 2131 section 4.1: first `file`, then `sname`.
    if overload & 1 != 0 {
        take(&datagram[FILE]);
    }
    if overload & 2 != 0 {
        take(&datagram[SNAME]);
    }
    options
}

/// A message to a client. What it does not hold is zero or absent: no address, no lease, no router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// OFFER or ACK.
    pub kind: ReplyKind,
    /// Us: `siaddr` and option 54.
    pub next_server: Ipv4Addr,
    /// The `file` field, at most 127 bytes. Option 67 is not used: old firmware reads past its end.
    pub boot_file: String,
    /// Option 60.
    pub vendor_class: &'static str,
    /// Option 43.
    pub vendor_options: Option<Vec<u8>>,
    /// Option 97, as it came.
    pub client_machine_id: Option<Vec<u8>>,
    /// Option 175.
    pub ipxe: Option<Vec<u8>>,
}

/// Which reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// DHCPOFFER, to a DISCOVER.
    Offer,
    /// DHCPACK, on port 4011.
    Ack,
}

impl Reply {
    /// The datagram that answers `request`: its hardware address, `xid`, `giaddr` and, where a relay
    /// put one in, option 82 go back as they came.
    pub fn encode(&self, request: &Request) -> Vec<u8> {
        let (message_type, ciaddr) = match self.kind {
            ReplyKind::Offer => (v4::MessageType::Offer, Ipv4Addr::UNSPECIFIED),
            ReplyKind::Ack => (v4::MessageType::Ack, request.ciaddr),
        };
        let mut message = v4::Message::new_with_id(
            request.xid,
            ciaddr,
            Ipv4Addr::UNSPECIFIED,
            self.next_server,
            request.giaddr,
            &[],
        );
        // Without an address the client can only be reached by broadcast, and a relay must know.
        let broadcast = if ciaddr.is_unspecified() { 0x8000 } else { 0 };
        message
            .set_opcode(v4::Opcode::BootReply)
            .set_flags((request.flags | broadcast).into())
            .set_fname_str(&self.boot_file);
        let options = message.opts_mut();
        options.insert(v4::DhcpOption::MessageType(message_type));
        options.insert(v4::DhcpOption::ServerIdentifier(self.next_server));
        options.insert(v4::DhcpOption::ClassIdentifier(self.vendor_class.into()));
        if let Some(bytes) = &self.vendor_options {
            options.insert(v4::DhcpOption::VendorExtensions(bytes.clone()));
        }
        if let Some(bytes) = &self.client_machine_id {
            options.insert(v4::DhcpOption::ClientMachineIdentifier(bytes.clone()));
        }
        if let Some(bytes) = &self.ipxe {
            let unknown = v4::UnknownOption::new(option::IPXE.into(), bytes.clone());
            options.insert(v4::DhcpOption::Unknown(unknown));
        }

        let mut datagram = message
            .to_vec()
            .expect("a file name of at most 127 bytes and short options always fit");
        datagram[1] = request.htype;
        datagram[2] = request.hlen;
        datagram[CHADDR].copy_from_slice(&request.chaddr);
        if let Some(relay_agent) = request.option(option::RELAY_AGENT)
            && !request.giaddr.is_unspecified()
        {
            append(relay_agent, &mut datagram);
        }
        datagram.resize(datagram.len().max(MIN_LEN), 0);
        datagram
    }
}

/// Puts option 82 before the End. One that does not fit is left out (RFC 3046 section 2.2).
fn append(relay_agent: &[u8], datagram: &mut Vec<u8>) {
    let mut pieces = Vec::new();
    for piece in relay_agent.chunks(255) {
        pieces.extend([option::RELAY_AGENT, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
        pieces.extend(piece);
    }
    if datagram.len() + pieces.len() <= MAX_LEN {
        datagram.pop();
        datagram.append(&mut pieces);
        datagram.push(u8::from(v4::OptionCode::End));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::captured;
    use super::*;

    #[test]
    fn a_captured_discover_is_read_field_by_field() {
        let request = Request::decode(&captured!("ovmf-pxe-discover")).unwrap();
        assert_eq!((request.htype, request.hlen, request.flags), (1, 6, 0x8000));
        assert_eq!(request.message_type, MessageType::Discover);
        assert!(request.ciaddr.is_unspecified() && request.giaddr.is_unspecified());
        let class = &b"PXEClient:Arch:00007:UNDI:003000"[..];
        assert_eq!(request.option(option::VENDOR_CLASS), Some(class));
        assert_eq!(request.option(option::CLIENT_ARCH), Some(&[0, 7][..]));
        assert_eq!(request.option(option::USER_CLASS), None);
    }
}
