//! `make bench`: offers to machines that boot, ours beside dnsmasq as a proxy, in one run with one
//! generator; then ours while its other services are busy, and both while they are flooded.
//!
//! Each server has a network namespace of its own and two cables to that of the generator: one to the
//! machines and one to who floods. Both log as they do by default, to `/dev/null`: dnsmasq each offer, ours no
//! more of them in a second than `journal` lets through.
//!
//! These machines are noisy: the ratios count, not the times.

#[path = "../tests/support/mod.rs"]
mod lab;
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::appliance::Folder;
use lab::{inside, packaged, run};
use socket2::{Domain, Protocol, Socket, Type};
use support::{Server, at, fetch_http, fetch_tftp, in_namespaces, noise, start};

/// How many machines the config has. As many others ask too.
const MACHINES: usize = 10_000;
/// How many offers each server makes in a turn, and in how many turns.
const OFFERS: usize = 20_000;
const TURNS: usize = 3;
const OUTSTANDING: usize = 64;
/// How the machine asks whose delay is measured while others keep the server busy.
const PACE: Duration = Duration::from_millis(3);
const PACED: usize = 2_000;
/// What machines fetch meanwhile.
const IMAGE: usize = 80 << 20;
const IMAGE_CLIENTS: usize = 16;
const NBP: usize = 1 << 20;
const NBP_CLIENTS: usize = 50;
/// A machine that has no answer by then asks again.
const PATIENCE: Duration = Duration::from_secs(1);
/// A server that answers nobody for so long has ended.
const GIVEN_UP: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    in_namespaces(measure)
}

fn measure() {
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    std::fs::create_dir("/run/netns").expect("/run is ours");
    let folder = Folder::new();
    folder.write("files/initramfs", noise(IMAGE));
    folder.write("files/undionly.kpxe", noise(NBP));
    let ours = start_ours(&folder);
    let dnsmasq = start_dnsmasq();
    let both = [&ours, &dnsmasq];

    println!(
        "offers: {TURNS} times {OFFERS} machines ask each, {OUTSTANDING} at a time; ours knows {MACHINES} machines"
    );
    let mut rows = both.map(|_| Row::default());
    for turn in 0..TURNS {
        for (host, row) in both.iter().zip(&mut rows) {
            let machines: Vec<usize> = (0..OFFERS).collect();
            let when = When::Outstanding(OUTSTANDING);
            row.add(host, || ask(&host.machines(), turn, &machines, when));
        }
    }
    report(&both, &rows);

    println!("delay of a machine that asks every {} ms, in ms", PACE.as_millis());
    println!(
        "{:<38} {:>8} {:>8} {:>8} {:>8} {:>9} {:>13}",
        "", "median", "p99", "p99.9", "most", "asked >1x", "MiB from, to"
    );
    delays(&ours, "at rest", |ask| {
        ask();
        Vec::new()
    });
    delays(&ours, "TFTP and HTTP saturated", |ask| while_fetched_from(&ours, ask));
    for host in both {
        delays(host, "garbage", |ask| while_flooded(host, &[garbage], ask));
        delays(host, "DISCOVERs of random MACs", |ask| while_flooded(host, &[stranger], ask));
        delays(host, "both", |ask| while_flooded(host, &[garbage, stranger], ask));
    }
}

/// A server in its namespace.
struct Host {
    server: Server,
    /// The third byte of the network of its first cable, 10.77.x.0/24; the second has the next.
    network: u8,
}

impl Host {
    fn machines(&self) -> UdpSocket {
        socket(&device(self.network))
    }

    fn flood(&self) -> UdpSocket {
        socket(&device(self.network + 1))
    }
}

fn device(network: u8) -> String {
    format!("lan{network}")
}

/// Makes a namespace, and its two cables.
fn attach(host: &str, network: u8) {
    run("ip", &["netns", "add", host]);
    for (network, theirs) in [(network, "eth0"), (network + 1, "eth1")] {
        let ours = device(network);
        run("ip", &["link", "add", &ours, "type", "veth", "peer", "name", theirs, "netns", host]);
        run("ip", &["addr", "add", &format!("10.77.{network}.1/24"), "dev", &ours]);
        run("ip", &["link", "set", &ours, "up"]);
        let address = format!("10.77.{network}.2/24");
        run("ip", &["-n", host, "addr", "add", &address, "brd", "+", "dev", theirs]);
        run("ip", &["-n", host, "link", "set", theirs, "up"]);
    }
}

/// A socket where a machine's firmware has its own, on one cable.
fn socket(device: &str) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.bind_device(Some(device.as_bytes())).expect("the cable is there");
    socket.set_broadcast(true).expect("it is a socket");
    socket.set_recv_buffer_size(1 << 20).expect("it is a socket");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into()).expect("it is free");
    socket.into()
}

fn start_ours(folder: &Folder) -> Host {
    let network = 0;
    attach("ours", network);
    let mut config = "server:\n  interfaces: [eth0, eth1]\n  nbps: [./files, /usr/lib/ipxe]\n  \
                      tftp: { max_per_address: 1000 }\n\
                      images: { talos: { kernel: ./files/undionly.kpxe, initrd: ./files/initramfs } }\n\
                      profiles: { rack: { script: menu } }\nmachines:\n"
        .to_owned();
    for machine in 0..MACHINES {
        let [a, b, c, d, e, f] = mac(2 * machine);
        let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        writeln!(config, "  node{machine}: {{ mac: '{mac}', profile: rack }}").expect("memory");
    }
    let config = folder.write("config.yaml", config);
    let mut command = inside("ours", env!("CARGO_BIN_EXE_reveille").as_ref());
    command
        .args(["serve", "--config"])
        .arg(config)
        .current_dir(folder.path())
        .env("STATE_DIRECTORY", folder.path().join("state"));
    let socket = socket(&device(network));
    Host { server: start("reveille", &mut command, || answers(&socket)), network }
}

fn start_dnsmasq() -> Host {
    let network = 2;
    attach("dnsmasq", network);
    let mut command = inside("dnsmasq", &packaged("/usr/sbin/dnsmasq", "dnsmasq-base"));
    command.args(["-d", "--conf-file=/dev/null", "--user=root", "--port=0", "--pid-file="]);
    command.args(["--log-facility=/dev/null", "--dhcp-leasefile=/dev/null"]);
    command.args(["--dhcp-range=10.77.2.0,proxy", "--dhcp-range=10.77.3.0,proxy"]);
    command.args(["--pxe-service=x86PC,reveille,undionly"]);
    command.args(["--pxe-service=X86-64_EFI,reveille,snponly.efi"]);
    let socket = socket(&device(network));
    Host { server: start("dnsmasq", &mut command, || answers(&socket)), network }
}

fn answers(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
    socket.send_to(&discover(0, 0), (Ipv4Addr::BROADCAST, 67)).is_ok()
        && socket.recv(&mut [0; 2048]).is_ok()
}

/// The machine of this number. Those of an even number are in the config.
fn mac(number: usize) -> [u8; 6] {
    let [a, b, c] = [number >> 16, number >> 8, number].map(|part| part as u8);
    [0x52, 0x54, 0x77, a, b, c]
}

/// What the firmware of a machine broadcasts: every other two of them are UEFI.
fn discover(xid: u32, number: usize) -> Vec<u8> {
    let (class, arch): (&[u8], u8) = match number / 2 % 2 {
        0 => (b"PXEClient:Arch:00007:UNDI:003016", 7),
        _ => (b"PXEClient:Arch:00000:UNDI:002001", 0),
    };
    let uuid = [&[0; 11][..], &mac(number)].concat();
    let options: [(u8, &[u8]); 7] = [
        (53, &[1]),
        (57, &[5, 0xc0]),
        (55, b"\x01\x02\x03\x05\x06\x0b\x0c\x0d\x0f\x10\x11\x12\x2b\x36\x3c\x43\x61\x80\x81\x82\x83\x84\x85\x86\x87"),
        (97, &uuid),
        (94, &[1, 3, 16]),
        (93, &[0, arch]),
        (60, class),
    ];
    let mut datagram = vec![0; 240];
    datagram[..3].copy_from_slice(&[1, 1, 6]);
    datagram[4..8].copy_from_slice(&xid.to_be_bytes());
    datagram[10] = 0x80;
    datagram[28..34].copy_from_slice(&mac(number));
    datagram[236..].copy_from_slice(&[99, 130, 83, 99]);
    for (code, data) in options {
        datagram.extend([code, data.len() as u8]);
        datagram.extend(data);
    }
    datagram.push(255);
    datagram
}

/// When the next machine asks.
#[derive(Clone, Copy)]
enum When {
    /// As soon as fewer than so many wait for an answer.
    Outstanding(usize),
    /// So long after the one before it, whatever becomes of that one.
    Every(Duration),
}

/// How machines were answered.
#[derive(Default)]
struct Answered {
    seconds: f64,
    /// Of each machine, from its first DISCOVER to its first offer.
    times: Vec<f64>,
    repeated: usize,
}

/// These machines ask; each is answered in the end.
fn ask(socket: &UdpSocket, turn: usize, machines: &[usize], when: When) -> Answered {
    let xid = |at: usize| (turn << 24 | at) as u32;
    let send = |at: usize| {
        let to = (Ipv4Addr::BROADCAST, 67);
        socket.send_to(&discover(xid(at), machines[at]), to).expect("the cable is up");
    };
    let started = Instant::now();
    let mut answered = Answered::default();
    // Of each machine that waits: when it asked first, and last.
    let mut waiting: BTreeMap<usize, (Instant, Instant)> = BTreeMap::new();
    let mut asked = 0;
    let (mut looked, mut heard) = (started, started);
    let mut buffer = [0; 2048];
    while answered.times.len() < machines.len() {
        let now = Instant::now();
        let is_due = |waiting: usize, asked: usize| match when {
            When::Outstanding(most) => waiting < most,
            When::Every(pace) => now >= started + pace * asked as u32,
        };
        while asked < machines.len() && is_due(waiting.len(), asked) {
            let now = Instant::now();
            waiting.insert(asked, (now, now));
            send(asked);
            asked += 1;
        }
        if now.duration_since(looked) > PATIENCE / 10 {
            looked = now;
            for (at, (_, last)) in &mut waiting {
                if now.duration_since(*last) > PATIENCE {
                    *last = now;
                    answered.repeated += 1;
                    send(*at);
                }
            }
        }
        // The kernel rounds it up to one of its ticks.
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("it is a socket");
        let Ok(len) = socket.recv(&mut buffer) else {
            assert!(heard.elapsed() < GIVEN_UP, "the server has stopped to answer");
            continue;
        };
        let of: [u8; 4] = buffer[4..8].try_into().expect("four bytes");
        let at = u32::from_be_bytes(of).wrapping_sub(xid(0)) as usize;
        if len > 240
            && buffer[0] == 2
            && machines.get(at).is_some_and(|machine| buffer[28..34] == mac(*machine))
            && let Some((first, _)) = waiting.remove(&at)
        {
            answered.times.push(first.elapsed().as_secs_f64());
            heard = Instant::now();
        }
    }
    answered.seconds = started.elapsed().as_secs_f64();
    answered.times.sort_by(f64::total_cmp);
    answered
}

/// All turns of one server.
#[derive(Default)]
struct Row {
    answered: Answered,
    cpu: f64,
}

impl Row {
    fn add(&mut self, host: &Host, ask: impl FnOnce() -> Answered) {
        let before = host.server.cpu_seconds();
        let answered = ask();
        self.cpu += host.server.cpu_seconds() - before;
        self.answered.seconds += answered.seconds;
        self.answered.repeated += answered.repeated;
        self.answered.times.extend(answered.times);
        self.answered.times.sort_by(f64::total_cmp);
    }

    fn pace(&self) -> f64 {
        self.answered.times.len() as f64 / self.answered.seconds
    }

    fn per_cpu_second(&self) -> f64 {
        self.answered.times.len() as f64 / self.cpu
    }

    /// In milliseconds.
    fn at(&self, share: f64) -> f64 {
        at(&self.answered.times, share) * 1e3
    }
}

/// A table, the first row ours; the ratios are ours to each.
fn report(hosts: &[&Host], rows: &[Row]) {
    println!(
        "{:<10} {:>9} {:>9} {:>9} {:>7} {:>8} {:>9} {:>9}   ours / its: {:>8} {:>12} {:>6}",
        "",
        "offers/s",
        "CPU µs",
        "median ms",
        "p99 ms",
        "p99.9 ms",
        "asked >1x",
        "peak MiB",
        "offers/s",
        "offers/CPU s",
        "p99"
    );
    for (host, row) in hosts.iter().zip(rows) {
        println!(
            "{:<10} {:>9.0} {:>9.1} {:>9.2} {:>7.2} {:>8.2} {:>9} {:>9.1}   {:>20.2} {:>12.2} {:>6.2}",
            host.server.name,
            row.pace(),
            1e6 / row.per_cpu_second(),
            row.at(0.5),
            row.at(0.99),
            row.at(0.999),
            row.answered.repeated,
            host.server.peak_mib(),
            rows[0].pace() / row.pace(),
            rows[0].per_cpu_second() / row.per_cpu_second(),
            rows[0].at(0.99) / row.at(0.99),
        );
    }
    println!();
}

/// One line: how long a machine waits while something else goes on.
fn delays(host: &Host, what: &str, during: impl FnOnce(&mut dyn FnMut()) -> Vec<String>) {
    let socket = host.machines();
    let before = host.server.resident_mib();
    let mut answered = Answered::default();
    let notes = during(&mut || {
        // A machine is another computer: nothing that runs here delays it.
        run("chrt", &["--fifo", "--pid", "1", &thread_id()]);
        // Those of the config.
        let machines: Vec<usize> = (0..PACED).map(|number| 2 * number).collect();
        answered = ask(&socket, TURNS, &machines, When::Every(PACE));
        run("chrt", &["--other", "--pid", "0", &thread_id()]);
    });
    let at = |share| at(&answered.times, share) * 1e3;
    println!(
        "{:<38} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>9} {:>6.1} {:>6.1}   {}",
        format!("{}, {what}", host.server.name),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        answered.repeated,
        before,
        host.server.resident_mib(),
        notes.join(", ")
    );
}

fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").expect("it is mounted");
    link.file_name().expect("a thread has an id").to_string_lossy().into_owned()
}

/// Runs `ask` while machines fetch as fast as they get it.
fn while_fetched_from(host: &Host, ask: &mut dyn FnMut()) -> Vec<String> {
    let address = Ipv4Addr::new(10, 77, host.network, 2);
    let (http, tftp) = (format!("{address}:8080"), SocketAddrV4::new(address, 69).into());
    let (images, nbps) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let image = |is_over: &AtomicBool| {
        let mut buffer = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            fetch_http(&http, "/images/talos/initrd", IMAGE, &mut buffer);
            images.fetch_add(1, Ordering::Relaxed);
        }
    };
    let nbp = |is_over: &AtomicBool| {
        let mut buffer = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            fetch_tftp(tftp, "undionly.kpxe", NBP, &mut buffer);
            nbps.fetch_add(1, Ordering::Relaxed);
        }
    };
    let began = Instant::now();
    let (images_wanted, nbps_wanted) =
        ([&image as Other; IMAGE_CLIENTS], [&nbp as Other; NBP_CLIENTS]);
    meanwhile(&[&images_wanted[..], &nbps_wanted].concat(), ask);
    let seconds = began.elapsed().as_secs_f64();
    [(images, IMAGE, "HTTP"), (nbps, NBP, "TFTP")]
        .map(|(count, len, over)| {
            let mib = ((count.into_inner() * len) >> 20) as f64;
            format!("{over} {:.0} MiB/s", mib / seconds)
        })
        .into()
}

/// Runs `ask` while these datagrams are sent as fast as it goes, over the second cable.
fn while_flooded(host: &Host, makers: &[fn(u64) -> Vec<u8>], ask: &mut dyn FnMut()) -> Vec<String> {
    let socket = host.flood();
    let sent = AtomicUsize::new(0);
    let (device, began) = (device(host.network + 1), Instant::now());
    let before = packets_received(&device);
    let flood = |make: fn(u64) -> Vec<u8>| {
        let (socket, sent) = (&socket, &sent);
        move |is_over: &AtomicBool| {
            // Made before, so that making them takes nobody's time.
            let datagrams: Vec<_> = (1..=50_000).map(make).collect();
            for datagram in datagrams.iter().cycle() {
                socket.send_to(datagram, (Ipv4Addr::BROADCAST, 67)).ok();
                sent.fetch_add(1, Ordering::Relaxed);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        }
    };
    let floods: Vec<_> = makers.iter().map(|make| flood(*make)).collect();
    meanwhile(&floods.iter().map(|flood| flood as Other).collect::<Vec<_>>(), ask);
    let seconds = began.elapsed().as_secs_f64();
    let per_second = |count: usize| count as f64 / seconds / 1e3;
    vec![format!(
        "{:.0} thousand/s sent, {:.1} answered",
        per_second(sent.into_inner()),
        per_second(packets_received(&device) - before)
    )]
}

/// What goes on while a machine asks.
type Other<'a> = &'a (dyn Fn(&AtomicBool) + Sync);

/// Runs all of these until `ask` has ended. They are on a LAN of their own, and take no CPU time that
/// the server wants.
fn meanwhile(others: &[Other<'_>], ask: &mut dyn FnMut()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for other in others {
            let is_over = &is_over;
            scope.spawn(move || {
                run("renice", &["-n", "19", "-p", &thread_id()]);
                other(is_over);
            });
        }
        thread::sleep(Duration::from_secs(1));
        ask();
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Bytes that look more and less like DHCP.
fn garbage(seed: u64) -> Vec<u8> {
    let mut datagram = discover(seed as u32, seed as usize);
    let at = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match seed % 4 {
        0 => datagram.truncate(at as usize % 240),
        1 => datagram[2] = 255,
        2 => datagram.truncate(241 + at as usize % 60),
        _ => datagram = at.to_le_bytes().repeat(40),
    }
    datagram
}

/// A DISCOVER of a machine that nobody knows.
fn stranger(seed: u64) -> Vec<u8> {
    let mut datagram = discover(seed as u32, seed as usize);
    let mac = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    datagram[28] = 2;
    datagram[29..34].copy_from_slice(&mac[..5]);
    datagram
}

/// How many packets came over a cable.
fn packets_received(device: &str) -> usize {
    let all = std::fs::read_to_string("/proc/net/dev").expect("it is mounted");
    let line = all.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    packets.expect("the cable is there")
}
