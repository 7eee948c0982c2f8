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
/// RFC 2131 section 2: no client need take a datagram of more than 576 bytes, headers included.
const MAX_LEN: usize = 548;
/// Where the fields are that are copied as they came.
const CHADDR: std::ops::Range<usize> = 28..44;

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
    /// No magic cookie.
    #[error("the magic cookie is missing")]
    Cookie,
    /// A hardware address that does not fit its field.
    #[error("a hardware address of {0} bytes does not fit its field of 16")]
    HardwareAddress(u8),
    /// From a server.
    #[error("it is a reply, not a request")]
    NotARequest,
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
        let message =
            v4::borrowed::Message::new(datagram).map_err(|_| Malformed::Short(datagram.len()))?;
        if datagram[HEADER - v4::MAGIC.len()..HEADER] != v4::MAGIC {
            return Err(Malformed::Cookie);
        }
        if message.hlen() > 16 {
            return Err(Malformed::HardwareAddress(message.hlen()));
        }
        if message.opcode() != v4::Opcode::BootRequest {
            return Err(Malformed::NotARequest);
        }
        if !is_whole(&datagram[HEADER..]) {
            return Err(Malformed::Truncated);
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
        take(&datagram[108..236]);
    }
    if overload & 2 != 0 {
        take(&datagram[44..108]);
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
            let end = datagram.pop();
            let without = datagram.len();
            for piece in relay_agent.chunks(255) {
                datagram.push(option::RELAY_AGENT);
                datagram.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
                datagram.extend_from_slice(piece);
            }
            // RFC 3046 section 2.2: where there is no room for all of it, the reply goes without.
            if datagram.len() >= MAX_LEN {
                datagram.truncate(without);
            }
            datagram.extend(end);
        }
        datagram.resize(datagram.len().max(MIN_LEN), 0);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{captured, options, request};
    use super::*;

    fn reply() -> Reply {
        Reply {
            kind: ReplyKind::Offer,
            next_server: Ipv4Addr::new(10, 0, 0, 2),
            boot_file: "undionly.kpxe".into(),
            vendor_class: "PXEClient",
            vendor_options: None,
            client_machine_id: None,
            ipxe: None,
        }
    }

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

    #[test]
    fn what_is_no_request_is_told_apart_and_none_of_it_panics() {
        let good = request(1, &[(60, b"PXEClient")]);
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bad = good.clone();
            change(&mut bad);
            Request::decode(&bad).unwrap_err()
        };
        assert_eq!(with(|d| d.truncate(239)), Malformed::Short(239));
        assert_eq!(with(|d| d.clear()), Malformed::Short(0));
        assert_eq!(with(|d| d[236] = 0), Malformed::Cookie);
        // dhcproto 0.15 would read past the field.
        assert_eq!(with(|d| d[2] = 17), Malformed::HardwareAddress(17));
        assert_eq!(with(|d| d[0] = 2), Malformed::NotARequest);
        assert_eq!(with(|d| d[240] = 60), Malformed::NoMessageType);
        assert_eq!(with(|d| d.truncate(250)), Malformed::Truncated);
        assert_eq!(with(|d| d[244] = 200), Malformed::Truncated);
        let mut without_end = good.clone();
        without_end.pop();
        assert!(Request::decode(&without_end).is_ok());
    }

    #[test]
    fn one_bad_option_does_not_hide_the_others() {
        let odd: &[(u8, &[u8])] =
            &[(12, b"caf\xe9"), (94, &[1, 2]), (22, &[1]), (60, b"PXEClient"), (93, &[0, 7])];
        let request = Request::decode(&request(1, odd)).unwrap();
        assert_eq!(request.option(60), Some(&b"PXEClient"[..]));
        assert_eq!(request.option(93), Some(&[0, 7][..]));
    }

    #[test]
    fn an_option_in_pieces_is_put_together_also_out_of_the_overloaded_fields() {
        let mut datagram = request(1, &[(60, b"PXE"), (93, &[0, 0]), (60, b"Cli"), (52, &[3])]);
        datagram[108..113].copy_from_slice(&[60, 2, b'e', b'n', 255]);
        datagram[44..48].copy_from_slice(&[60, 1, b't', 255]);
        let request = Request::decode(&datagram).unwrap();
        assert_eq!(request.option(60), Some(&b"PXEClient"[..]));
    }

    #[test]
    fn a_reply_holds_no_lease_and_is_300_bytes_with_zeros_behind_its_end() {
        let request = Request::decode(&request(1, &[])).unwrap();
        let datagram = reply().encode(&request);
        assert_eq!(datagram.len(), 300);
        assert_eq!(datagram[..4], [2, 1, 6, 0]);
        assert_eq!(datagram[4..8], [0xca, 0xfe, 0, 1]);
        assert_eq!(datagram[10..12], [0x80, 0]);
        assert_eq!(datagram[12..20], [0; 8], "ciaddr and yiaddr");
        assert_eq!(datagram[20..24], [10, 0, 0, 2], "siaddr");
        assert_eq!(datagram[28..34], [0x52, 0x54, 0, 0, 0, 1]);
        assert_eq!(&datagram[108..122], b"undionly.kpxe\0");
        assert_eq!(
            options(&datagram),
            [(53, vec![2]), (54, vec![10, 0, 0, 2]), (60, b"PXEClient".to_vec()),]
        );
    }

    #[test]
    fn option_82_goes_back_verbatim_as_the_last_one_to_a_relay_only() {
        let relay_agent: &[u8] = &[2, 2, 0xbe, 0xef, 1, 1, 7];
        let mut datagram = request(1, &[(82, relay_agent), (60, b"PXEClient")]);
        let direct = reply().encode(&Request::decode(&datagram).unwrap());
        assert!(options(&direct).iter().all(|(code, _)| *code != 82));
        datagram[24..28].copy_from_slice(&[10, 1, 2, 1]);
        let relayed = reply().encode(&Request::decode(&datagram).unwrap());
        assert_eq!(options(&relayed).last(), Some(&(82, relay_agent.to_vec())));
        assert_eq!(relayed[24..28], [10, 1, 2, 1]);
    }

    #[test]
    fn an_option_82_that_makes_the_reply_longer_than_clients_take_is_left_out() {
        let piece: &[u8] = &[7; 255];
        let answered = |rest: usize| {
            let options = [(82, piece), (82, &piece[..rest])];
            let mut datagram = request(1, &options);
            datagram[24..28].copy_from_slice(&[10, 1, 2, 1]);
            reply().encode(&Request::decode(&datagram).unwrap())
        };
        let most = answered(28);
        assert_eq!((most.len(), most.last()), (548, Some(&255)));
        assert_eq!(options(&most).last(), Some(&(82, vec![7; 28])));
        assert_eq!(options(&answered(29)).last(), Some(&(60, b"PXEClient".to_vec())));
    }

    #[test]
    fn an_ack_keeps_the_clients_address_and_every_byte_of_its_hardware_address() {
        let mut datagram = request(3, &[]);
        datagram[2] = 16;
        datagram[28..44].copy_from_slice(b"0123456789abcdef");
        datagram[12..16].copy_from_slice(&[10, 0, 0, 50]);
        let reply = Reply { kind: ReplyKind::Ack, ..reply() };
        let ack = reply.encode(&Request::decode(&datagram).unwrap());
        assert_eq!(ack[12..16], [10, 0, 0, 50]);
        assert_eq!(ack[2], 16);
        assert_eq!(&ack[28..44], b"0123456789abcdef");
        assert_eq!(ack[10..12], [0, 0], "a client with an address needs no broadcast");
    }
}
