//! What the benches share: servers that are measured, and clients that fetch from them.

// Each bench uses its own part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::PATH;
use crate::lab::lan::{again_inside_with_users, is_inside};

/// Runs a bench in namespaces of its own.
pub fn in_namespaces(bench: impl FnOnce()) -> ExitCode {
    if is_inside() {
        bench();
        return ExitCode::SUCCESS;
    }
    let status = again_inside_with_users().status().expect("unshare (package util-linux) runs");
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Bytes that do not compress and are not zero.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// A server that is measured, with its processes.
pub struct Server {
    pub name: &'static str,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Server {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Has the peak of its memory count from now on.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("root may");
    }

    /// The CPU time of it and of all that it started, those that have ended included.
    pub fn cpu_seconds(&self) -> f64 {
        let ticks: u64 = family(self.child.id())
            .iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .map(|stat| {
                let fields: Vec<&str> =
                    stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
                // utime, stime, cutime, cstime
                fields[12..16].iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
            })
            .sum();
        ticks as f64 / 100.0
    }

    /// The most memory that it had.
    pub fn peak_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    /// The memory that it has now.
    pub fn resident_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    fn memory_mib(&self, field: &str) -> f64 {
        let of = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with(field))?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        };
        family(self.child.id()).iter().filter_map(of).sum::<f64>() / 1024.0
    }
}

/// Starts a server and waits until it serves.
pub fn start(name: &'static str, command: &mut Command, reachable: impl Fn() -> bool) -> Server {
    command.env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server { name, child: command.spawn().expect("the server starts") };
    let begun = Instant::now();
    while !reachable() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{name} does not answer");
        thread::sleep(Duration::from_millis(50));
    }
    server
}

/// The time that this share of the others does not exceed.
pub fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// A process and its descendants that run now.
fn family(pid: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("it is mounted").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
        let parent = stat
            .ok()
            .and_then(|stat| stat.rsplit(')').next()?.split(' ').nth(2)?.parse::<u32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let parent = family[at];
        family.extend(parents.iter().filter(|(_, p)| **p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    family
}

/// Fetches `len` bytes over HTTP, and throws them away.
pub fn fetch_http(address: &str, path: &str, len: usize, buffer: &mut Vec<u8>) {
    buffer.resize(1 << 18, 0);
    let mut stream = TcpStream::connect(address).expect("the server listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut received = 0;
    loop {
        match stream.read(buffer).expect("the server sends") {
            0 => break,
            count => received += count,
        }
    }
    assert!((len..len + 1000).contains(&received), "{received} bytes of {len} and a header");
}

/// How much a block of a TFTP transfer holds.
pub const BLKSIZE: usize = 1468;

/// Fetches `len` bytes over TFTP, in lock step, and throws them away.
pub fn fetch_tftp(server: SocketAddr, name: &str, len: usize, buffer: &mut Vec<u8>) {
    buffer.resize(2048, 0);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is a socket");
    let mut request = b"\0\x01".to_vec();
    for field in [name, "octet", "blksize", &BLKSIZE.to_string()] {
        request.extend(field.as_bytes());
        request.push(0);
    }
    let mut last: (Vec<u8>, SocketAddr) = (request, server);
    let (mut block, mut received) = (0_u16, 0);
    loop {
        socket.send_to(&last.0, last.1).expect("loopback takes it");
        let (count, from) = loop {
            match socket.recv_from(buffer) {
                Ok(received) => break received,
                Err(_) => {
                    socket.send_to(&last.0, last.1).expect("loopback takes it");
                }
            }
        };
        match buffer[1] {
            6 => last = (vec![0, 4, 0, 0], from),
            3 if buffer[2..4] == block.wrapping_add(1).to_be_bytes() => {
                block = block.wrapping_add(1);
                received += count - 4;
                last = (vec![0, 4, buffer[2], buffer[3]], from);
                if count < BLKSIZE + 4 {
                    socket.send_to(&last.0, last.1).expect("loopback takes it");
                    break;
                }
            }
            3 => {}
            _ => panic!("refused: {}", String::from_utf8_lossy(&buffer[4..count])),
        }
    }
    assert_eq!(received, len);
}
