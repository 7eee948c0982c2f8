//! `make bench`: serving an image over HTTP, ours beside nginx, in one run with one load generator, on the
//! loopback of a network namespace.
//!
//! These machines are noisy: the ratios count, not the times.

#[path = "../tests/support/mod.rs"]
mod lab;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::appliance::Folder;
use lab::{packaged, run};
use socket2::{Domain, Socket, Type};
use support::{Server, at, fetch_http, in_namespaces, noise, start};

/// An initramfs of Talos is about this large.
const IMAGE: usize = 80 << 20;
const IMAGE_CLIENTS: usize = 16;
const IMAGE_DOWNLOADS: usize = 96;
/// And another one, whose size shall not matter.
const LARGE: usize = 400 << 20;
const LARGE_DOWNLOADS: usize = 24;
/// Clients that hardly read.
const SLOW_CLIENTS: usize = 500;
const SLOW_READS: usize = 4096;
/// What is asked of memory, whatever the image and however many fetch it.
const MOST_MIB: f64 = 96.0;

fn main() -> ExitCode {
    in_namespaces(compare)
}

fn compare() {
    run("ip", &["link", "set", "lo", "up"]);
    let folder = Folder::new();
    folder.write("files/initramfs", noise(IMAGE));
    folder.write("files/kernel", "no kernel");
    folder.write("files/large", noise(LARGE));
    let ours = start_ours(&folder);
    let nginx = start_nginx(&folder);

    println!(
        "HTTP: {IMAGE_CLIENTS} clients fetch an image of {} MiB, {IMAGE_DOWNLOADS} times",
        IMAGE >> 20
    );
    let images = [
        (&ours, "127.0.0.1:8080", "/images/talos/initrd"),
        (&nginx, "127.0.0.1:8081", "/initramfs"),
    ]
    .map(|(server, address, path)| {
        measure(server, IMAGE, IMAGE_DOWNLOADS, IMAGE_CLIENTS, |buffer| {
            fetch_http(address, path, IMAGE, buffer);
        })
    });
    report(&images);

    println!("\nours, beside {SLOW_CLIENTS} clients that read {SLOW_READS} bytes a second");
    let crowd = beside_slow_ones(&ours, "/images/talos/initrd", IMAGE);
    println!("\nours, with an image of {} MiB", LARGE >> 20);
    ours.forget_peak();
    let large = measure(&ours, LARGE, LARGE_DOWNLOADS, IMAGE_CLIENTS, |buffer| {
        fetch_http("127.0.0.1:8080", "/images/large/initrd", LARGE, buffer);
    });
    report(&[large]);
    for (what, peak) in [("16 clients", images[0].peak_mib), ("500 slow ones too", crowd)] {
        let met = if peak < MOST_MIB { "met" } else { "NOT MET" };
        println!("{what}: peak {peak:.1} MiB, asked for under {MOST_MIB} MiB: {met}");
    }
}

/// Slow clients that hold their connections while quick ones fetch: the peak of memory.
fn beside_slow_ones(ours: &Server, path: &str, len: usize) -> f64 {
    ours.forget_peak();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut slow: Vec<TcpStream> = (0..SLOW_CLIENTS)
                .map(|n| {
                    // An address has 64 connections at most.
                    let from = Ipv4Addr::new(127, 0, 0, 2 + (n / 50) as u8);
                    let mut stream = connect_from(from);
                    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
                    stream.write_all(request.as_bytes()).expect("it is connected");
                    stream
                })
                .collect();
            let mut buffer = [0; SLOW_READS];
            while !ended.load(Ordering::Relaxed) {
                for stream in &mut slow {
                    // What has ended is as slow as can be.
                    let _ = stream.read(&mut buffer).unwrap_or(0);
                }
                thread::sleep(Duration::from_secs(1));
            }
        });
        // All of them have what the kernel's buffers take.
        thread::sleep(Duration::from_secs(3));
        let measured = measure(ours, len, IMAGE_DOWNLOADS, IMAGE_CLIENTS, |buffer| {
            fetch_http("127.0.0.1:8080", path, len, buffer);
        });
        ended.store(true, Ordering::Relaxed);
        let peak = measured.peak_mib;
        report(&[measured]);
        peak
    })
}

fn connect_from(address: Ipv4Addr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("it may have sockets");
    socket.bind(&SocketAddrV4::new(address, 0).into()).expect("the address is local");
    let server = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080);
    socket.connect(&server.into()).expect("it listens");
    socket.into()
}

fn answers_http(address: &'static str) -> impl Fn() -> bool {
    move || TcpStream::connect(address).is_ok()
}

fn start_ours(folder: &Folder) -> Server {
    folder.write(
        "config.yaml",
        "server: { interfaces: [lo], tftp: off }\n\
         images:\n\
         \x20 talos: { kernel: ./files/kernel, initrd: ./files/initramfs }\n\
         \x20 large: { kernel: ./files/kernel, initrd: ./files/large }\n",
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
    command.args(["serve", "--config"]).arg(folder.path().join("config.yaml"));
    command.current_dir(folder.path()).env("STATE_DIRECTORY", folder.path().join("state"));
    // What a service logs goes somewhere; the others log as they do by default.
    start("reveille", &mut command, answers_http("127.0.0.1:8080"))
}

fn start_nginx(folder: &Folder) -> Server {
    let program = packaged("/usr/sbin/nginx", "nginx-light");
    let root = folder.path().display();
    let config = format!(
        "daemon off; user root; worker_processes auto; pid {root}/nginx.pid; error_log /dev/null;\n\
         events {{}}\n\
         http {{ sendfile on; tcp_nopush on; access_log off;\n\
         server {{ listen 127.0.0.1:8081; root {root}/files; }} }}\n"
    );
    let config = folder.write("nginx.conf", config);
    let mut command = Command::new(program);
    start("nginx", command.arg("-c").arg(config), answers_http("127.0.0.1:8081"))
}

/// What one run of the load showed.
struct Measured {
    name: &'static str,
    seconds: f64,
    gib: f64,
    cpu: f64,
    peak_mib: f64,
    times: Vec<f64>,
}

fn measure(
    server: &Server,
    len: usize,
    downloads: usize,
    clients: usize,
    fetch: impl Fn(&mut Vec<u8>) + Sync,
) -> Measured {
    // Once, so that the file is in the page cache for everybody.
    fetch(&mut Vec::new());
    let before = server.cpu_seconds();
    let started = Instant::now();
    let left = AtomicUsize::new(downloads);
    let times: Vec<f64> = thread::scope(|scope| {
        let client = || {
            let mut buffer = Vec::new();
            let mut times = Vec::new();
            let take = |left: usize| left.checked_sub(1);
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                let begun = Instant::now();
                fetch(&mut buffer);
                times.push(begun.elapsed().as_secs_f64());
            }
            times
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("every fetch is whole"))
            .collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    let mut measured = Measured {
        name: server.name,
        seconds,
        gib: (len * downloads) as f64 / f64::from(1 << 30),
        cpu: server.cpu_seconds() - before,
        peak_mib: server.peak_mib(),
        times,
    };
    measured.times.sort_by(f64::total_cmp);
    measured
}

/// A table, the first row ours; the ratios are ours to each.
fn report(rows: &[Measured]) {
    println!(
        "{:<10} {:>9} {:>10} {:>9} {:>9} {:>9}   ours / its: {:>8} {:>8}",
        "", "MiB/s", "CPU s/GiB", "median s", "p99 s", "peak MiB", "MiB/s", "CPU/GiB"
    );
    let pace = |row: &Measured| row.gib * 1024.0 / row.seconds;
    let cost = |row: &Measured| row.cpu / row.gib;
    for row in rows {
        println!(
            "{:<10} {:>9.0} {:>10.2} {:>9.3} {:>9.3} {:>9.1}   {:>20.2} {:>8.2}",
            row.name,
            pace(row),
            cost(row),
            at(&row.times, 0.5),
            at(&row.times, 0.99),
            row.peak_mib,
            pace(&rows[0]) / pace(row),
            cost(&rows[0]) / cost(row),
        );
    }
    println!();
}
