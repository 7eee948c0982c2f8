//! What machines send.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;

use dhcproto::v4;

use super::{CHADDR, Malformed, Options, guarded, option};

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
    /// All of its options.
    pub options: Options,
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
        let options = Options::of_message(datagram);
        let message_type = match options.byte(option::MESSAGE_TYPE) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::dhcp::testing::captured;

    #[test]
    fn a_captured_discover_is_read_field_by_field() {
        let request = Request::decode(&captured!("ovmf-pxe-discover")).unwrap();
        assert_eq!((request.htype, request.hlen, request.flags), (1, 6, 0x8000));
        assert_eq!(request.message_type, MessageType::Discover);
        assert!(request.ciaddr.is_unspecified() && request.giaddr.is_unspecified());
        let class = &b"PXEClient:Arch:00007:UNDI:003000"[..];
        assert_eq!(request.options.get(option::VENDOR_CLASS), Some(class));
        assert_eq!(request.options.get(option::CLIENT_ARCH), Some(&[0, 7][..]));
        assert_eq!(request.options.get(option::USER_CLASS), None);
    }
}
