//! `make bench`: an NBP over TFTP, ours beside the servers that a user would pick instead, in one run with
//! one generator: in lock step, in windows, with losses, and a thousand at once.
//!
//! Each server has a network namespace of its own and a cable to that of the generator, and all they do
//! is counted by a control group, tftpd-hpa's short-lived processes included. Not every kernel has
//! netem, so the generator loses packets itself: of those it would send and of those that come, by
//! dice that fall the same for every server.
//!
//! These machines are noisy: the ratios count, not the times.

#[path = "../tests/support/mod.rs"]
mod lab;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lab::appliance::Folder;
use lab::{inside, packaged, run};
use support::{BLKSIZE, Server, at, in_namespaces, noise, start};
use tokio::net::UdpSocket;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

/// An NBP with all drivers.
const NBP: usize = 1 << 20;
const NAME: &str = "ipxe.pxe";
/// A download that takes longer has failed.
const GIVEN_UP: Duration = Duration::from_secs(120);
/// Of a hundred packets each way, where there is loss.
const LOST: u64 = 1;

/// How long firmware waits before it repeats what it sent last.
#[derive(Clone, Copy)]
struct Patience {
    first: Duration,
    /// It doubles up to here.
    most: Duration,
    tries: u32,
}

/// UEFI's (edk2: `PxeBcMtftp.h`), and about that of BIOS ROMs: these are who fetches an NBP.
const FIRMWARE: Patience =
    Patience { first: Duration::from_secs(4), most: Duration::from_secs(4), tries: 6 };
/// iPXE's (`net/retry.c`).
const IPXE: Patience =
    Patience { first: Duration::from_millis(250), most: Duration::from_secs(10), tries: 8 };

/// What is asked of every server.
#[derive(Clone, Copy)]
struct Load {
    what: &'static str,
    window: u16,
    at_once: usize,
    downloads: usize,
    turns: u64,
    patience: Patience,
    is_lossy: bool,
}

const LOCK_STEP: Load = Load {
    what: "lock step",
    window: 1,
    at_once: 100,
    downloads: 250,
    turns: 2,
    patience: FIRMWARE,
    is_lossy: false,
};
const WINDOWS: Load = Load { what: "windowsize 16", window: 16, ..LOCK_STEP };
const LOSSES: Load = Load {
    what: "lock step, 1 % lost each way",
    at_once: 50,
    downloads: 100,
    turns: 1,
    is_lossy: true,
    ..LOCK_STEP
};
const LOSSES_IPXE: Load = Load { what: "the same with iPXE's patience", patience: IPXE, ..LOSSES };
const CROWD: Load =
    Load { what: "lock step", at_once: 1000, downloads: 1000, turns: 1, ..LOCK_STEP };

fn main() -> ExitCode {
    in_namespaces(compare)
}

fn compare() {
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    for folder in ["/run/netns", GROUPS] {
        fs::create_dir(folder).expect("/run is ours");
    }
    run("mount", &["-t", "cgroup2", "none", GROUPS]);
    remove_old_groups();
    let folder = Folder::new();
    let content: Arc<[u8]> = noise(NBP).into();
    folder.write(&format!("files/{NAME}"), &content);
    let hosts = [
        start_ours(&folder),
        start_dnsmasq(&folder),
        start_hpa(&folder),
        start_atftpd(&folder),
        start_crate(&folder),
    ];

    println!("TFTP: an NBP of {} MiB, blksize {BLKSIZE}\n", NBP >> 20);
    let lock_step = measure(&hosts, &content, LOCK_STEP);
    let windows = measure(&hosts, &content, WINDOWS);
    let losses = measure(&hosts, &content, LOSSES);
    measure(&hosts, &content, LOSSES_IPXE);
    let crowd = measure(&hosts, &content, CROWD);

    let (ours, dnsmasq) = (0, 1);
    let cpu = lock_step[ours].cost() / lock_step[dnsmasq].cost();
    claim("lock step: CPU per GiB of dnsmasq's", cpu, 1.0, &lock_step[ours]);
    let cpu = windows[ours].cost() / lock_step[dnsmasq].cost();
    claim(
        "windowsize 16: CPU per GiB of dnsmasq's in lock step, all it has",
        cpu,
        0.3,
        &windows[0],
    );
    let best = losses[1..].iter().map(|row| row.median()).fold(f64::INFINITY, f64::min);
    let median = losses[ours].median() / best;
    claim("1 % lost: median of the best peer's", median, 0.1, &losses[ours]);
    claim("1000 at once: peak MiB", crowd[ours].peak_mib, 48.0, &crowd[ours]);
}

/// Tells whether ours is at most this much, and without a failure.
fn claim(what: &str, is: f64, most: f64, row: &Row) {
    let failures: usize = row.failures.values().sum();
    let held = if is <= most && failures == 0 { "held" } else { "NOT HELD" };
    println!("{what}: {is:.2}, at most {most}, {failures} failures: {held}");
}

/// A server in its namespace, and its control group.
struct Host {
    server: Server,
    /// Of 10.77.x.0/24.
    network: u8,
    group: PathBuf,
}

/// Where the control groups are, and how ours are named.
const GROUPS: &str = "/run/cgroup";
const GROUP: &str = "reveille-bench-";

/// Removes what a bench has left that was killed.
fn remove_old_groups() {
    for entry in fs::read_dir(GROUPS).expect("it is mounted").flatten() {
        if entry.file_name().to_string_lossy().starts_with(GROUP) {
            // The kernel keeps those that somebody is in.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

impl Host {
    /// Makes the namespace and its cable, and starts a server there.
    fn start(name: &'static str, network: u8, program: &Path, arguments: &[&str]) -> Self {
        let host = format!("host{network}");
        let device = format!("lan{network}");
        run("ip", &["netns", "add", &host]);
        run(
            "ip",
            &["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &host],
        );
        run("ip", &["addr", "add", &format!("10.77.{network}.1/24"), "dev", &device]);
        run("ip", &["link", "set", &device, "up"]);
        let address = format!("10.77.{network}.2/24");
        run("ip", &["-n", &host, "addr", "add", &address, "brd", "+", "dev", "eth0"]);
        run("ip", &["-n", &host, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &host, "link", "set", "lo", "up"]);
        let mut command: Command = inside(&host, program);
        let server = start(name, command.args(arguments), || answers(network));
        // Another bench may run, and in its namespace has the same process id.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is not 1970");
        let group = Path::new(GROUPS).join(format!("{GROUP}{}", now.as_nanos()));
        fs::create_dir(&group).expect("root makes control groups");
        fs::write(group.join("cgroup.procs"), server.id().to_string()).expect("it runs");
        Self { server, network, group }
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(self.group.join("cpu.stat")).expect("every group has it");
        let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
        usage.and_then(|usage| usage.parse::<f64>().ok()).expect("it is a number") / 1e6
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.stop();
        // What it has started ends a moment later.
        fs::write(self.group.join("cgroup.kill"), "1").ok();
        for _ in 0..50 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn answers(network: u8) -> bool {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("it is a socket");
    socket.send_to(b"\0\x01none\0octet\0", (Ipv4Addr::new(10, 77, network, 2), 69)).ok();
    socket.recv_from(&mut [0; 600]).is_ok()
}

fn start_ours(folder: &Folder) -> Host {
    let config = folder.write(
        "config.yaml",
        "server: { interfaces: [eth0], nbps: [./files], state: ./state, tftp: { max_per_address: 2000 } }\n",
    );
    let config = config.display().to_string();
    let program = env!("CARGO_BIN_EXE_reveille");
    Host::start("reveille", 0, program.as_ref(), &["serve", "--config", &config])
}

fn start_dnsmasq(folder: &Folder) -> Host {
    let root = format!("--tftp-root={}", files(folder));
    let arguments = ["-d", "--conf-file=/dev/null", "--user=root", "--port=0", "--pid-file="];
    let tftp = ["--enable-tftp", "--tftp-max=2000", "--log-facility=/dev/null", &root];
    let program = packaged("/usr/sbin/dnsmasq", "dnsmasq-base");
    Host::start("dnsmasq", 1, &program, &[&arguments[..], &tftp].concat())
}

fn start_hpa(folder: &Folder) -> Host {
    let root = files(folder);
    let arguments =
        ["--foreground", "--address", "10.77.2.2:69", "--user", "root", "--secure", &root];
    Host::start("tftpd-hpa", 2, &packaged("/usr/sbin/in.tftpd", "tftpd-hpa"), &arguments)
}

fn start_atftpd(folder: &Folder) -> Host {
    let root = files(folder);
    let user = ["--user", "root", "--group", "root", "--logfile", "/dev/null"];
    let arguments = ["--daemon", "--no-fork", "--maxthread", "2000", &root];
    let program = peer("usr/sbin/atftpd");
    Host::start("atftpd", 3, &program, &[&user[..], &arguments].concat())
}

fn start_crate(folder: &Folder) -> Host {
    let root = files(folder);
    let arguments = ["-i", "10.77.4.2", "-p", "69", "-r", "-q", "-d", &root];
    Host::start("tftpd crate", 4, &peer("bin/tftpd"), &arguments)
}

fn files(folder: &Folder) -> String {
    folder.path().join("files").display().to_string()
}

/// A server that `dev/setup bench` has put beside what is built.
fn peer(path: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers").join(path);
    assert!(program.exists(), "{} is missing: dev/setup bench installs it", program.display());
    program
}

/// All turns of one server.
#[derive(Default)]
struct Row {
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
    /// Of the whole downloads.
    times: Vec<f64>,
    /// How many downloads failed, by why.
    failures: BTreeMap<String, usize>,
    /// What it makes of the windowsize that it was asked for.
    window: u16,
}

impl Row {
    fn gib(&self) -> f64 {
        (NBP * self.times.len()) as f64 / f64::from(1 << 30)
    }

    fn pace(&self) -> f64 {
        self.gib() * 1024.0 / self.seconds
    }

    fn cost(&self) -> f64 {
        self.cpu / self.gib()
    }

    fn median(&self) -> f64 {
        self.at(0.5)
    }

    fn at(&self, share: f64) -> f64 {
        if self.times.is_empty() { f64::INFINITY } else { at(&self.times, share) }
    }
}

/// Puts a load on every server, turn about, and prints a table.
fn measure(hosts: &[Host; 5], content: &Arc<[u8]>, load: Load) -> [Row; 5] {
    let Load { what, at_once, downloads, turns, .. } = load;
    println!("{what}, {at_once} at once, {turns} times {downloads} downloads");
    let mut rows = hosts.each_ref().map(|_| Row::default());
    for turn in 0..turns {
        for (host, row) in hosts.iter().zip(&mut rows) {
            fetch(host, content, load, turn, row);
        }
    }
    report(hosts, &rows);
    rows
}

/// One turn of one server.
fn fetch(host: &Host, content: &Arc<[u8]>, load: Load, turn: u64, row: &mut Row) {
    host.server.forget_peak();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(250));
                peak = peak.max(host.server.peak_mib());
            }
            peak
        });
        let before = host.cpu_seconds();
        let began = Instant::now();
        let clients = clients(host.network, Arc::clone(content), load, turn);
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        for (took, ended) in runtime.expect("a runtime starts").block_on(clients) {
            match ended {
                Ok(window) => {
                    row.window = window;
                    row.times.push(took.as_secs_f64());
                }
                Err(why) => *row.failures.entry(why).or_default() += 1,
            }
        }
        row.seconds += began.elapsed().as_secs_f64();
        row.cpu += host.cpu_seconds() - before;
        row.times.sort_by(f64::total_cmp);
        is_over.store(true, Ordering::Relaxed);
        row.peak_mib = row.peak_mib.max(watched.join().expect("it only looks"));
    });
}

/// How long a download took, and the windowsize that was granted or why it failed.
type Ended = (Duration, Result<u16, String>);

async fn clients(network: u8, content: Arc<[u8]>, load: Load, turn: u64) -> Vec<Ended> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.at_once {
        let (next, content) = (Arc::clone(&next), Arc::clone(&content));
        clients.spawn(async move {
            let mut ended = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= load.downloads {
                    return ended;
                }
                let began = Instant::now();
                let mut client = Client::new(network, load, turn << 32 | number as u64).await;
                let download = tokio::time::timeout(GIVEN_UP, client.download(&content));
                let how = download.await.unwrap_or_else(|_| Err("too slow".to_owned()));
                ended.push((began.elapsed(), how));
            }
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// A TFTP client (RFC 1350, 2347, 2348 and 7440), as firmware is one.
struct Client {
    socket: UdpSocket,
    load: Load,
    dice: u64,
    /// What was sent last, and where to.
    last: (Vec<u8>, SocketAddr),
    /// The server's port for this download, once it has answered.
    peer: Option<SocketAddr>,
    blksize: usize,
    window: u16,
    /// How many blocks have come.
    blocks: usize,
    /// How many of them are not acknowledged.
    pending: u16,
    /// Whether the server was told of the gap that there is now.
    is_gap_told: bool,
}

impl Client {
    async fn new(network: u8, load: Load, seed: u64) -> Self {
        let address = SocketAddrV4::new(Ipv4Addr::new(10, 77, network, 1), 0);
        let mut request = b"\0\x01".to_vec();
        let (blksize, window) = (BLKSIZE.to_string(), load.window.to_string());
        let mut fields = vec![NAME, "octet", "blksize", &blksize];
        if load.window > 1 {
            fields.extend(["windowsize", &window]);
        }
        for field in fields {
            request.extend(field.as_bytes());
            request.push(0);
        }
        Self {
            socket: UdpSocket::bind(address).await.expect("a port is free"),
            load,
            dice: (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            last: (request, SocketAddrV4::new(Ipv4Addr::new(10, 77, network, 2), 69).into()),
            peer: None,
            blksize: 512,
            window: 1,
            blocks: 0,
            pending: 0,
            is_gap_told: false,
        }
    }

    /// Fetches the NBP and compares each byte; returns the windowsize that was granted.
    async fn download(&mut self, content: &[u8]) -> Result<u16, String> {
        let Patience { first, most, tries } = self.load.patience;
        let mut buffer = [0; 2048];
        let (mut wait, mut tried) = (first, 1);
        self.repeat().await;
        let mut until = tokio::time::Instant::now() + wait;
        loop {
            let Ok(received) = timeout_at(until, self.socket.recv_from(&mut buffer)).await else {
                if tried == tries {
                    return Err(format!("no answer to {tries} tries"));
                }
                tried += 1;
                wait = (wait * 2).min(most);
                until = tokio::time::Instant::now() + wait;
                self.repeat().await;
                continue;
            };
            let (len, from) = received.map_err(|error| error.to_string())?;
            if self.is_lost() || self.peer.is_some_and(|peer| peer != from) {
                continue;
            }
            let before = self.blocks;
            let is_new = self.peer.is_none();
            self.peer = Some(from);
            if self.take(&buffer[..len], from, content).await? {
                return Ok(self.window);
            }
            if is_new || self.blocks > before {
                (wait, tried) = (first, 1);
                until = tokio::time::Instant::now() + wait;
            }
        }
    }

    /// Takes up a packet; returns whether it was the last.
    async fn take(
        &mut self,
        packet: &[u8],
        from: SocketAddr,
        content: &[u8],
    ) -> Result<bool, String> {
        match packet {
            [0, 3, high, low, data @ ..] => {
                let number = u16::from_be_bytes([*high, *low]);
                let ahead = number.wrapping_sub(self.blocks as u16);
                if ahead == 1 {
                    let begin = self.blocks * self.blksize;
                    let end = (begin + self.blksize).min(content.len());
                    if content.get(begin..end) != Some(data) {
                        return Err("wrong bytes".to_owned());
                    }
                    self.blocks += 1;
                    self.pending += 1;
                    self.is_gap_told = false;
                    let is_last = data.len() < self.blksize;
                    if is_last || self.pending == self.window {
                        self.acknowledge(from).await;
                    }
                    return Ok(is_last);
                }
                // The last of those that are here, once more: our ACK is lost. One further on: what is
                // between is lost, and RFC 7440 section 4 has it told at once.
                if ahead == 0 || (ahead <= self.window && !self.is_gap_told) {
                    self.is_gap_told = ahead != 0;
                    self.acknowledge(from).await;
                }
            }
            [0, 6, options @ ..] if self.blocks == 0 => {
                let mut fields = options.split(|byte| *byte == 0);
                while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
                    let value = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    match name.to_ascii_lowercase().as_slice() {
                        b"blksize" => self.blksize = value.ok_or("a bad blksize")?,
                        b"windowsize" => self.window = value.ok_or("a bad windowsize")? as u16,
                        _ => {}
                    }
                }
                self.acknowledge(from).await;
            }
            [0, 5, _, _, text @ ..] => return Err(String::from_utf8_lossy(text).into_owned()),
            _ => {}
        }
        Ok(false)
    }

    async fn acknowledge(&mut self, to: SocketAddr) {
        let [high, low] = (self.blocks as u16).to_be_bytes();
        self.pending = 0;
        self.last = (vec![0, 4, high, low], to);
        self.repeat().await;
    }

    async fn repeat(&mut self) {
        if !self.is_lost() {
            self.socket.send_to(&self.last.0, self.last.1).await.ok();
        }
    }

    fn is_lost(&mut self) -> bool {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.load.is_lossy && self.dice % 100 < LOST
    }
}

/// A table, the first row ours; the ratios are ours to each.
fn report(hosts: &[Host; 5], rows: &[Row; 5]) {
    println!(
        "{:<12} {:>6} {:>7} {:>9} {:>8} {:>8} {:>8} {:>6}   ours / its: {:>5} {:>7} {:>6}",
        "",
        "window",
        "MiB/s",
        "CPU s/GiB",
        "median s",
        "p99 s",
        "peak MiB",
        "failed",
        "MiB/s",
        "CPU/GiB",
        "median",
    );
    let ours = &rows[0];
    for (host, row) in hosts.iter().zip(rows) {
        println!(
            "{:<12} {:>6} {:>7.1} {:>9.2} {:>8.3} {:>8.3} {:>8.1} {:>6}   {:>17.2} {:>7.2} {:>6.3}   {}",
            host.server.name,
            row.window,
            row.pace(),
            row.cost(),
            row.median(),
            row.at(0.99),
            row.peak_mib,
            row.failures.values().sum::<usize>(),
            ours.pace() / row.pace(),
            ours.cost() / row.cost(),
            ours.median() / row.median(),
            row.failures.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        );
    }
    println!();
}
