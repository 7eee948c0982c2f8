//! What the tests of DHCP share: datagrams, captured ones and ones made to measure, what stands around
//! them, and a reply taken apart to be compared whole.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::arrival::{Arrival, Port};
use super::proxy::{Outcome, Query, respond};
use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::client::{Arch, Mac};
use crate::pure::config::problem::Problems;
use crate::pure::config::resolve::resolve;
use crate::pure::config::schema::File;
use crate::pure::config::snapshot::Config;
use crate::pure::config::surroundings::Surroundings;
use crate::pure::machine::evidence::Neighbour;
use crate::pure::machine::state::MachineState;

/// A captured UDP payload, from `tests/fixtures` (QEMU 7.2, Debian 12's iPXE and OVMF).
macro_rules! captured {
    ($name:literal) => {
        $crate::pure::dhcp::testing::hex(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/",
            $name,
            ".hex"
        )))
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

/// Our address, on the interface `eth0`.
pub(crate) const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The address that a client leased from the router.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);

/// One NBP for each architecture.
const NBPS: [(&str, Arch); 6] = [
    ("undionly.kpxe", Arch::Bios),
    ("i386/snponly.efi", Arch::UefiX86),
    ("snponly.efi", Arch::UefiX64),
    ("arm32/snponly.efi", Arch::UefiArm32),
    ("arm64/snponly.efi", Arch::UefiArm64),
    ("riscv64/snponly.efi", Arch::UefiRiscv64),
];

/// This config, with an NBP for each architecture.
pub(crate) fn config(yaml: &str) -> Config {
    config_with(nbps(&Arch::ALL), yaml)
}

/// An NBP for each of these.
pub(crate) fn nbps(archs: &[Arch]) -> Nbps {
    let mut nbps = Nbps::default();
    for (name, arch) in NBPS.into_iter().filter(|(_, arch)| archs.contains(arch)) {
        nbps.add(Nbp { name: name.into(), path: name.into(), arch, folder: 0 });
    }
    nbps
}

/// This config, with these NBPs.
pub(crate) fn config_with(nbps: Nbps, yaml: &str) -> Config {
    let found = Surroundings { nbps, ..Surroundings::default() };
    let mut problems = Problems::new(Path::new("config.yaml"), yaml);
    let file = File::parse(yaml, &mut problems).expect("it is YAML");
    resolve(file, found, problems).expect("a test's config has no error")
}

/// A datagram's arrival on `eth0`.
pub(crate) fn arrival(port: Port, from: (Ipv4Addr, u16)) -> Arrival {
    Arrival {
        from: SocketAddrV4::new(from.0, from.1),
        port,
        interface: "eth0".into(),
        asked: US,
        local: US,
        neighbour: Neighbour::Card(Mac::new([0x52, 0x54, 0, 0, 0, 1])),
        own: Arc::new([(US, Ipv4Addr::new(255, 255, 255, 0))]),
    }
}

/// A broadcast from a client without an address.
pub(crate) fn broadcast() -> Arrival {
    arrival(Port::Dhcp, (Ipv4Addr::UNSPECIFIED, 68))
}

/// What comes of a datagram, where nothing is remembered of the machine.
pub(crate) fn answer(datagram: &[u8], arrival: &Arrival, config: &Config) -> Outcome {
    let state = (&MachineState::default(), SystemTime::UNIX_EPOCH);
    match Query::read(datagram) {
        Ok(query) => respond(&query, arrival, config.serving(), state),
        Err(reason) => Outcome::Ignored(reason),
    }
}

/// A reply, taken apart. What has no field here is zero in every reply, and [`check_zeros`] sees to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub to: String,
    pub len: usize,
    /// `op`, `htype` and `hlen`.
    pub head: [u8; 3],
    pub xid: u32,
    pub flags: u16,
    pub ciaddr: Ipv4Addr,
    pub siaddr: Ipv4Addr,
    pub giaddr: Ipv4Addr,
    pub chaddr: [u8; 16],
    pub file: String,
    /// Every option, in the order in which they stand.
    pub options: String,
}

impl Reply {
    pub(crate) fn read(outcome: &Outcome) -> Self {
        let Outcome::Reply { to, datagram, .. } = outcome else { panic!("{outcome:?}") };
        let address = |at: usize| Ipv4Addr::from(u32_at(datagram, at));
        check_zeros(datagram);
        let options: Vec<String> = options(datagram).into_iter().map(spelt).collect();
        Self {
            to: to.to_string(),
            len: datagram.len(),
            head: [datagram[0], datagram[1], datagram[2]],
            xid: u32_at(datagram, 4),
            flags: u16::from_be_bytes([datagram[10], datagram[11]]),
            ciaddr: address(12),
            siaddr: address(20),
            giaddr: address(24),
            chaddr: datagram[28..44].try_into().expect("16 bytes"),
            file: String::from_utf8(name(datagram).to_vec()).expect("names are ASCII"),
            options: options.join(" "),
        }
    }
}

/// What is zero in every reply: `hops`, `secs`, `yiaddr` (never a lease), `sname`, what follows the name
/// in `file`. What follows End is the business of [`options`].
pub(crate) fn check_zeros(reply: &[u8]) {
    let file = name(reply).len();
    assert!(file < 128, "no NUL ends `file`");
    for (field, what) in [
        (3..4, "hops"),
        (8..10, "secs"),
        (16..20, "yiaddr"),
        (44..108, "sname"),
        (108 + file..236, "what follows the name in `file`"),
    ] {
        assert!(is_zero(&reply[field]), "{what} in {reply:02x?}");
    }
    assert_eq!(reply[236..240], [99, 130, 83, 99], "the magic cookie");
}

fn name(reply: &[u8]) -> &[u8] {
    let len = reply[108..236].iter().take_while(|byte| **byte != 0).count();
    &reply[108..108 + len]
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn u32_at(datagram: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(datagram[at..at + 4].try_into().expect("4 bytes"))
}

fn spelt((code, data): (u8, Vec<u8>)) -> String {
    match (code, data.as_slice()) {
        (54, [a, b, c, d]) => format!("54={a}.{b}.{c}.{d}"),
        (60, text) => format!("60={}", String::from_utf8_lossy(text)),
        (_, data) => format!("{code}={}", spelt_hex(data)),
    }
}

pub(crate) fn spelt_hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The options of a reply, in their order; what follows their End is zero.
pub(crate) fn options(datagram: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = &datagram[240..];
    while let [code, after @ ..] = rest {
        match *code {
            0 => rest = after,
            255 => {
                assert!(is_zero(after), "what follows End in {datagram:02x?}");
                return found;
            }
            _ => {
                let len = usize::from(after[0]);
                found.push((*code, after[1..=len].to_vec()));
                rest = &after[1 + len..];
            }
        }
    }
    panic!("no End option in {datagram:02x?}");
}
