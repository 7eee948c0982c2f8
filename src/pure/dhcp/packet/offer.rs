//! What other servers send.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;

use dhcproto::v4;

use super::reply::ReplyKind;
use super::{FILE, Malformed, Options, guarded, option};

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
    /// All of its options.
    pub options: Options,
}

impl Offer {
    /// Reads a datagram. One bad option does not hide the others.
    ///
    /// # Errors
    /// It is no DHCPOFFER.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        Self::of_type(datagram, ReplyKind::Offer)
    }

    /// Reads what answers a REQUEST on port 4011, which says no more than an offer does.
    ///
    /// # Errors
    /// It is no DHCPACK.
    pub fn decode_ack(datagram: &[u8]) -> Result<Self, Malformed> {
        Self::of_type(datagram, ReplyKind::Ack)
    }

    fn of_type(datagram: &[u8], kind: ReplyKind) -> Result<Self, Malformed> {
        let message = guarded(datagram)?;
        let options = Options::of_message(datagram);
        let message_type = match kind {
            ReplyKind::Offer => 2,
            ReplyKind::Ack => 5,
        };
        let is_it = options.byte(option::MESSAGE_TYPE) == Some(message_type);
        if message.opcode() != v4::Opcode::BootReply || !is_it {
            return Err(Malformed::NotAnOffer);
        }
        let holds_options = options.byte(option::OVERLOAD).is_some_and(|fields| fields & 1 != 0);
        let file = if holds_options { Vec::new() } else { datagram[FILE].to_vec() };
        let (yiaddr, siaddr) = (message.yiaddr(), message.siaddr());
        Ok(Self { xid: message.xid(), yiaddr, siaddr, file, options })
    }
}
