//! Any bytes, wherever they arrive, under configs that set all that an answer depends on: no reply
//! holds a lease, or is anything that old firmware chokes on.
#![no_main]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use reveille::pure::catalog::nbp::{Nbp, Nbps};
use reveille::pure::client::Arch;
use reveille::pure::config::problem::Problems;
use reveille::pure::config::resolve::resolve;
use reveille::pure::config::schema::File;
use reveille::pure::config::snapshot::Config;
use reveille::pure::config::surroundings::Surroundings;
use reveille::pure::dhcp::arrival::{Arrival, Port};
use reveille::pure::dhcp::proxy::{Outcome, Query, respond};
use reveille::pure::event::boot::{Event, Sent, Step, Subject, Transport};
use reveille::pure::machine::evidence::Neighbour;
use reveille::pure::machine::state::MachineState;

/// The captured requests that it starts from come from 52:54:00:77:00:01.
const CONFIGS: [&str; 4] = [
    "unknown: menu",
    "\
profiles:
  plain: { script: menu }
  quiet: { script: local-disk, option_43: none, nbp: { bios: ipxe.pxe } }
  loud: { script: menu, option_43: skip-prompt, replace_ipxe: true, answer_request_67: true }
machines:
  a: { mac: 52:54:00:77:00:01, profile: plain, option_43: bios, answer_request_67: true }
  b: { mac: 52:54:00:77:00:02, profile: quiet, replace_ipxe: true }
  c: { mac: 52:54:00:77:00:03, profile: loud, nbp: { uefi-x64: missing.efi } }
  d: { mac: 52:54:00:77:00:00, profile: loud, option_43: default }
  e: { uuid: 00112233-4455-6677-8899-aabbccddeeff, profile: quiet }
  f: { serial: CZ1, profile: plain }
unknown: ignore
",
    "\
server: { tftp: off, http: { port: 65535 } }
profiles: { p: { script: menu, option_43: skip-prompt } }
machines: { a: { mac: 52:54:00:77:00:01, profile: p, replace_ipxe: true } }
unknown: p
",
    "\
server: { http: { port: 65535 } }
profiles: { p: { script: menu, option_43: skip-prompt, replace_ipxe: true, answer_request_67: true } }
unknown: p
",
];

static SNAPSHOTS: LazyLock<Vec<Config>> = LazyLock::new(|| CONFIGS.map(snapshot).into());

fn snapshot(yaml: &str) -> Config {
    let mut problems = Problems::new(Path::new("config.yaml"), yaml);
    let file = File::parse(yaml, &mut problems).expect("it is YAML");
    let mut nbps = Nbps::default();
    let longest = format!("snponly-{:n<82}.efi", "");
    assert_eq!(longest.len(), 94, "no longer name is taken, see `nbps`");
    for (name, arch) in [
        ("undionly.kpxe", Arch::Bios),
        ("ipxe.pxe", Arch::Bios),
        ("snponly.efi", Arch::UefiX64),
        ("arm64/snponly.efi", Arch::UefiArm64),
        (longest.as_str(), Arch::UefiX86),
    ] {
        nbps.add(Nbp { name: name.into(), path: name.into(), arch, folder: 0 });
    }
    let found = Surroundings { nbps, ..Surroundings::default() };
    resolve(file, found, problems).expect("it is a config")
}

/// Where a datagram may have arrived: on each port, from a client with and without an address.
fn arrivals() -> [Arrival; 4] {
    let local = Ipv4Addr::new(255, 255, 255, 254);
    let leased = Ipv4Addr::new(10, 77, 0, 100);
    let at = |port, from, asked| {
        let (own, neighbour) = ([].into(), Neighbour::Unknown);
        Arrival { from, port, interface: "eth0".into(), asked, local, neighbour, own }
    };
    [
        at(Port::Dhcp, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), local),
        at(Port::Dhcp, SocketAddrV4::new(leased, 67), local),
        at(Port::BootServer, SocketAddrV4::new(leased, 4011), Ipv4Addr::new(10, 77, 0, 2)),
        at(Port::BootServer, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), local),
    ]
}

/// What may be remembered of a machine: nothing, or that it has just fetched its NBP.
fn states(now: SystemTime) -> [MachineState; 2] {
    let mut fetched = MachineState::default();
    let sent = Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http };
    let step = Step::NbpSent { file: "undionly.kpxe".into(), arch: Arch::Bios, sent };
    fetched.apply(&Event { subject: Subject::default(), step }, None, now);
    [MachineState::default(), fetched]
}

fuzz_target!(|datagram: &[u8]| {
    let query = match Query::read(datagram) {
        Ok(query) => query,
        Err(reason) => return assert!(!reason.to_string().is_empty()),
    };
    let now = SystemTime::UNIX_EPOCH;
    for config in SNAPSHOTS.iter() {
        for arrival in arrivals() {
            for state in states(now) {
                match respond(&query, &arrival, config.serving(), (&state, now)) {
                    Outcome::Reply { to, datagram: reply, event } => {
                        assert_ne!(to.port(), 0);
                        assert!(!told(&event).is_empty());
                        check(&reply, datagram, &arrival);
                    }
                    Outcome::Seen(event) => {
                        assert!(!told(&event).is_empty());
                    }
                    Outcome::Ignored(reason) => assert!(!reason.to_string().is_empty()),
                }
            }
        }
    }
});

/// The line of the log.
fn told(event: &Event) -> String {
    format!("{}: {}", event.subject, event.step)
}

/// What holds for every reply.
fn check(reply: &[u8], request: &[u8], arrival: &Arrival) {
    // RFC 1542 section 2.1; RFC 2131 section 2: what every client must take.
    assert!((300..=548).contains(&reply.len()), "{} bytes", reply.len());
    assert_eq!(reply[0], 2);
    assert_eq!(reply[1..3], request[1..3], "htype and hlen");
    assert_eq!(reply[4..8], request[4..8], "xid");
    assert_eq!(reply[16..20], [0; 4], "yiaddr: never a lease");
    assert_eq!(reply[20..24], arrival.local.octets(), "siaddr");
    assert_eq!(reply[24..28], request[24..28], "giaddr");
    assert_eq!(reply[28..44], request[28..44], "chaddr");
    assert_eq!(reply[44..108], [0; 64], "sname");
    let end = reply[108..236].iter().position(|byte| *byte == 0).expect("a NUL ends `file`");
    assert!(end > 0 && reply[108 + end..236].iter().all(|byte| *byte == 0));
    assert_eq!(reply[236..240], [99, 130, 83, 99]);

    let options = options(&reply[240..]);
    let once = |code| options.iter().filter(|(found, _)| *found == code).count() == 1;
    assert!([53, 54, 60].into_iter().all(once), "{options:?}");
    let of = |wanted| options.iter().find(|(code, _)| *code == wanted).map(|(_, data)| *data);
    assert!(matches!(of(53), Some([2 | 5])));
    assert_eq!(of(54), Some(&arrival.local.octets()[..]));
    assert!(matches!(of(60), Some(b"PXEClient" | b"HTTPClient")));
    for code in [1, 3, 6, 50, 51, 52, 66, 67] {
        assert_eq!(of(code), None, "option {code}");
    }
    let is_relayed = reply[24..28] != [0; 4];
    assert!(is_relayed || of(82).is_none());
    let first_82 = options.iter().position(|(code, _)| *code == 82).unwrap_or(options.len());
    assert!(options[first_82..].iter().all(|(code, _)| *code == 82), "option 82 is the last one");
}

/// The options up to End, which is there; only padding follows it.
fn options(mut field: &[u8]) -> Vec<(u8, &[u8])> {
    let mut options = Vec::new();
    loop {
        match field {
            [255, padding @ ..] => {
                assert!(padding.iter().all(|byte| *byte == 0));
                return options;
            }
            [code, len, rest @ ..] if *code != 0 && rest.len() >= usize::from(*len) => {
                let (data, rest) = rest.split_at(usize::from(*len));
                options.push((*code, data));
                field = rest;
            }
            _ => panic!("not whole: {field:02x?}"),
        }
    }
}
