//! TFTP packets (RFC 1350 section 5, RFC 2347).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::pure::printable;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// RFC 1350 section 1.
const MODES: [&[u8]; 3] = [b"octet", b"netascii", b"mail"];

/// How many options are read: there are six, and each is compared with those before it.
const MOST_OPTIONS: usize = 32;

/// A packet from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A read request.
    Rrq(Rrq),
    /// A write request, which is always refused.
    Wrq,
    /// The block number, as it stands on the wire.
    Ack(u16),
    /// The client gives up, with this code and text.
    Error(u16, String),
}

/// A read request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rrq {
    /// The file name, as it came: not always UTF-8, not always ended where it should be.
    pub file: Vec<u8>,
    /// The mode, in lower case.
    pub mode: String,
    /// Option names in lower case, and their values; of two with one name the first.
    pub options: Vec<(String, String)>,
}

/// Why a datagram is no TFTP packet that a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no TFTP packet")]
pub struct Malformed;

impl Packet {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is cut short, or of a kind that only servers send.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let (opcode, rest) = datagram.split_at_checked(2).ok_or(Malformed)?;
        let number = |bytes: &[u8]| match bytes {
            [high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(Malformed),
        };
        match number(opcode)? {
            RRQ => Rrq::decode(rest).map(Self::Rrq),
            WRQ => Ok(Self::Wrq),
            ACK => number(rest).map(Self::Ack),
            // Any code means that the client has gone: some send none that RFC 1350 knows.
            ERROR => Ok(Self::Error(number(rest)?, error_text(rest))),
            _ => Err(Malformed),
        }
    }
}

/// A packet from a server, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer<'a> {
    /// The options that it grants: names in lower case, and their values.
    Oack(Vec<(String, String)>),
    /// The block number, as it stands on the wire, and the block.
    Data(u16, &'a [u8]),
    /// It refuses or gives up, with this code and text.
    Error(u16, String),
}

impl<'a> FromServer<'a> {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is cut short, or of a kind that only clients send.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let [high, low, rest @ ..] = datagram else {
            return Err(Malformed);
        };
        match (u16::from_be_bytes([*high, *low]), rest) {
            (OACK, _) => Ok(Self::Oack(read_options(rest.split(|byte| *byte == 0)))),
            (DATA, [high, low, data @ ..]) => {
                Ok(Self::Data(u16::from_be_bytes([*high, *low]), data))
            }
            (ERROR, [high, low, ..]) => {
                Ok(Self::Error(u16::from_be_bytes([*high, *low]), error_text(rest)))
            }
            _ => Err(Malformed),
        }
    }
}

/// What an ERROR says behind its code.
fn error_text(rest: &[u8]) -> String {
    let text = rest.get(2..).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

/// Names and values; of two with one name the first.
fn read_options<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Vec<(String, String)> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let mut options: Vec<(String, String)> = Vec::new();
    // What follows the last NUL is an option's value all the same: some ROMs forget the NUL.
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let name = text(name).to_ascii_lowercase();
        if options.len() >= MOST_OPTIONS {
            break;
        }
        if options.iter().all(|(known, _)| *known != name) {
            options.push((name, text(value)));
        }
    }
    options
}

impl Rrq {
    fn decode(rest: &[u8]) -> Result<Self, Malformed> {
        let mut fields = rest.split(|byte| *byte == 0);
        let file = fields.next().ok_or(Malformed)?.to_vec();
        let is_mode = |field: &&[u8]| MODES.iter().any(|mode| field.eq_ignore_ascii_case(mode));
        // Firmware that reads its file name past the end may send a NUL in it: the mode comes later then.
        let mode = fields.clone().find(is_mode);
        let mode = match mode {
            Some(_) => fields.find(is_mode),
            None => fields.next(),
        };
        let mode = mode.filter(|mode| !mode.is_empty()).ok_or(Malformed)?;
        let mode = String::from_utf8_lossy(mode).to_ascii_lowercase();
        Ok(Self { file, mode, options: read_options(fields) })
    }

    /// The datagram that a client sends.
    pub fn encode(&self) -> Vec<u8> {
        let mut packet = RRQ.to_be_bytes().to_vec();
        let options = self.options.iter().flat_map(|(name, value)| [name, value]);
        let texts = [&self.mode].into_iter().chain(options).map(String::as_bytes);
        for field in [self.file.as_slice()].into_iter().chain(texts) {
            packet.extend(field);
            packet.push(0);
        }
        packet
    }

    /// The file name as a log can show it.
    pub fn shown(&self) -> String {
        printable::name(&String::from_utf8_lossy(&self.file))
    }

    /// The value of an option.
    pub fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Error codes (RFC 1350 section 5, RFC 2347).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// See the message.
    Undefined = 0,
    /// There is no such file.
    NotFound = 1,
    /// It may not be read.
    AccessViolation = 2,
    /// An operation that is none, or not this server's.
    IllegalOperation = 4,
    /// A packet that belongs to no transfer from there.
    UnknownTransferId = 5,
    /// A client ends a transfer for its options; UEFI so ends its question for the size.
    Options = 8,
}

/// An ERROR packet. The text is for the machine's console: short, and without a path of this host.
pub fn error(code: ErrorCode, text: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(5 + text.len());
    packet.extend(ERROR.to_be_bytes());
    packet.extend((code as u16).to_be_bytes());
    packet.extend(text.as_bytes());
    packet.push(0);
    packet
}

/// An OACK packet.
pub fn oack(options: &[(&'static str, u64)]) -> Vec<u8> {
    let mut packet = OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        packet.extend(name.as_bytes());
        packet.push(0);
        packet.extend(value.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

/// An ACK packet.
pub fn ack(block: u64) -> Vec<u8> {
    [ACK.to_be_bytes(), on_the_wire(block).to_be_bytes()].concat()
}

/// The four bytes before the data of a block.
pub fn data_header(block: u64) -> [u8; 4] {
    let [high, low] = on_the_wire(block).to_be_bytes();
    [0, DATA as u8, high, low]
}

/// A block's number as the wire has it: 65535 is followed by 0.
pub fn on_the_wire(block: u64) -> u16 {
    (block & 0xffff) as u16
}

/// Which block an ACK means, when `lowest..=highest` are those that it can mean: none of them is
/// more than a window away, so the 16 bits are enough.
pub fn acknowledged(wire: u16, lowest: u64, highest: u64) -> Option<u64> {
    let distance = u64::from(wire.wrapping_sub(on_the_wire(lowest)));
    Some(lowest + distance).filter(|block| *block <= highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_is_read_as_it_was_meant() {
        let options = vec![("tsize".into(), "0".into()), ("blksize".into(), "1468".into())];
        let rrq = Rrq { file: b"snponly.efi".into(), mode: "octet".into(), options };
        let datagram = rrq.encode();
        assert_eq!(datagram, b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0");
        assert_eq!(Packet::decode(&datagram), Ok(Packet::Rrq(rrq)));
        assert_eq!(Packet::decode(&ack(65_537)), Ok(Packet::Ack(1)));
        let gone = error(ErrorCode::Options, "gone");
        assert_eq!(Packet::decode(&gone), Ok(Packet::Error(8, "gone".into())));
    }

    #[test]
    fn what_a_server_sends_is_read_as_it_was_meant() {
        let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let options = vec![option("tsize", "7"), option("blksize", "1468")];
        let datagram = oack(&[("tsize", 7), ("blksize", 1468)]);
        assert_eq!(FromServer::decode(&datagram), Ok(FromServer::Oack(options)));
        let block = [&data_header(65_538)[..], b"abc"].concat();
        assert_eq!(FromServer::decode(&block), Ok(FromServer::Data(2, b"abc")));
        let refusal = error(ErrorCode::NotFound, "none");
        assert_eq!(FromServer::decode(&refusal), Ok(FromServer::Error(1, "none".into())));
        for other in [&b""[..], &[0], &[0, 3, 0], &[0, 5, 0], &ack(1), b"\0\x01x\0octet\0"] {
            assert_eq!(FromServer::decode(other), Err(Malformed), "{other:?}");
        }
    }
}
