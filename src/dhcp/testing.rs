//! Datagrams for the tests: captured ones, and ones made to measure.

/// A captured UDP payload, from `tests/fixtures` (QEMU 7.2, Debian 12's iPXE and OVMF).
macro_rules! captured {
    ($name:literal) => {
        $crate::dhcp::testing::hex(include_str!(concat!("../../tests/fixtures/", $name, ".hex")))
    };
}
pub(crate) use captured;

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("hex digits are ASCII");
            u8::from_str_radix(pair, 16).expect("two hex digits are a byte")
        })
        .collect()
}

/// A request of this message type from 52:54:00:00:00:01, with these options and End.
pub(crate) fn request(message_type: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
    let mut datagram = vec![0; 240];
    datagram[..3].copy_from_slice(&[1, 1, 6]);
    datagram[4..8].copy_from_slice(&[0xca, 0xfe, 0, 1]);
    datagram[28..34].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1]);
    datagram[236..].copy_from_slice(&[99, 130, 83, 99]);
    let own: [(u8, &[u8]); 1] = [(53, &[message_type])];
    for (code, data) in own.iter().chain(options) {
        datagram.extend([*code, u8::try_from(data.len()).expect("a test's option is short")]);
        datagram.extend(*data);
    }
    datagram.push(255);
    datagram
}

/// The options of a reply, in their order.
pub(crate) fn options(datagram: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = &datagram[240..];
    while let [code, after @ ..] = rest {
        match *code {
            0 => rest = after,
            255 => return found,
            _ => {
                let len = usize::from(after[0]);
                found.push((*code, after[1..=len].to_vec()));
                rest = &after[1 + len..];
            }
        }
    }
    panic!("no End option in {datagram:02x?}");
}
