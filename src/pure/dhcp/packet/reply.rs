//! What we send.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;

use dhcproto::{Encodable, v4};

use super::request::Request;
use super::{CHADDR, option};

/// RFC 1542 section 2.1: old clients and relays drop anything shorter.
const MIN_LEN: usize = 300;
/// What everybody takes, whatever option 57 says: an options field of 312 bytes (RFC 2131 section 2).
const MAX_LEN: usize = 548;

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
        if let Some(relay_agent) = request.options.get(option::RELAY_AGENT)
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
