//! `make bench`: rendering each machine's own script for an HTTP request, ours beside nginx that sends a
//! file of the same size, in one run with one load generator, over veth. The rack that asks is in a config of
//! many machines; each has its own card and address, and opens its own boot.
//!
//! These machines are noisy: the ratios count, not the times.

#[path = "../tests/support/mod.rs"]
mod lab;
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use lab::appliance::Folder;
use lab::{Lan, inside, packaged, run};
use nix::sched::{CloneFlags, setns};
use support::{Server, in_namespaces, start};

const MACHINES: usize = 10_000;
/// How many of them ask.
const RACK: usize = 16;
const CLIENTS: usize = 32;
const REQUESTS: usize = 100_000;
const TURNS: usize = 3;

fn main() -> ExitCode {
    in_namespaces(compare)
}

fn compare() {
    let lan = Lan::new();
    for number in 0..RACK {
        let name = format!("m{number}");
        lan.attach(&name, &format!("10.77.0.{}/24", 100 + number));
        let mac = format!("02:00:00:00:00:{number:02x}");
        run("ip", &["-n", &name, "link", "set", "eth0", "address", &mac]);
    }
    // Apart: the daemon watches its folder, and nginx opens and writes files all the time.
    let (own, folder) = (Folder::new(), Folder::new());
    let ours = start_ours(&own);
    // As iPXE asks once it was asked what its machine is: then it gets what it boots.
    let script = |number: usize| {
        format!(
            "/boot/02-00-00-00-{:02x}-{:02x}.ipxe?uuid=4c4c4544-0031-3010-8032-b4c04f4a3132\
             &serial_hex=43-5a-31&product_hex=58-34-31-35-30&vendor_hex=53-75-6e\
             &platform=pcbios&arch=i386&cpu=x64&v2=yes&nic=01-80-86-10-0e",
            number >> 8,
            number & 255
        )
    };
    let len = from(7, || get(&mut connect("10.77.0.2:8080"), &script(7), &mut Vec::new()));
    folder.write("files/script.ipxe", vec![b'x'; len]);
    let logging = start_nginx(&folder, "nginx", 8081, "access_log logs/access.log");
    let silent = start_nginx(&folder, "nginx, no log", 8082, "access_log off");

    for (what, life) in [
        ("one connection for all requests of a client", Life::Long),
        ("a connection for each request", Life::Short),
    ] {
        println!(
            "scripts of {len} bytes for {RACK} of {MACHINES} machines, {CLIENTS} clients, {what}"
        );
        let mut rows = [
            (&ours, "10.77.0.2:8080", Row::default()),
            (&logging, "10.77.0.2:8081", Row::default()),
            (&silent, "10.77.0.2:8082", Row::default()),
        ];
        for _ in 0..TURNS {
            for (number, (server, address, row)) in rows.iter_mut().enumerate() {
                let path = |machine: usize| match number {
                    0 => script(machine),
                    _ => "/script.ipxe".to_owned(),
                };
                row.add(server, address, (len, life), path);
            }
        }
        report(&rows.map(|(server, _, row)| (server.name, row)));
    }
}

fn start_ours(folder: &Folder) -> Server {
    let mut config = "server: { interfaces: [eth0], dhcp: off, tftp: off, release: anyone }\n\
         images: { talos: { kernel: ./files/kernel, initrd: ./files/initrd, talos: { version: v1.11.2 } } }\n\
         omni: { lab: { api: https://x, join_token: { file: ./token } } }\n\
         profiles: { talos: { script: talos, image: talos, omni: lab, cmdline: [console=ttyS1] } }\n\
         machines:\n"
        .to_owned();
    for number in 0..MACHINES {
        let mac = format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 255);
        config += &format!(
            "  m{number}: {{ mac: '{mac}', profile: talos, cmdline: [talos.hostname=m{number}] }}\n"
        );
    }
    for file in ["files/kernel", "files/initrd", "token"] {
        folder.write(file, "x");
    }
    folder.write("config.yaml", config);
    let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
    command.args(["serve", "--config"]).arg(folder.path().join("config.yaml"));
    command.current_dir(folder.path()).env("STATE_DIRECTORY", folder.path().join("state"));
    start("reveille", &mut command, || is_reachable(8080))
}

fn start_nginx(folder: &Folder, name: &'static str, port: u16, log: &str) -> Server {
    let program = packaged("/usr/sbin/nginx", "nginx-light");
    let root = folder.path().display();
    folder.write("logs/access.log", "");
    let config = format!(
        "daemon off; user root; worker_processes auto; pid {root}/{port}.pid; error_log /dev/null;\n\
         events {{}}\n\
         http {{ sendfile on; tcp_nopush on; {log}; keepalive_requests 1000000;\n\
         server {{ listen {port}; root {root}/files; }} }}\n"
    );
    let config = folder.write(&format!("nginx-{port}.conf"), config);
    let mut command = inside("appliance", &program);
    command.arg("-p").arg(folder.path()).arg("-c").arg(config);
    start(name, &mut command, move || is_reachable(port))
}

/// Runs this as a machine of the rack does.
fn from<T: Send>(machine: usize, run: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/m{machine}")).expect("it was made");
    let there = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may");
        run()
    };
    thread::scope(|scope| scope.spawn(there).join().expect("it runs"))
}

fn is_reachable(port: u16) -> bool {
    from(0, || TcpStream::connect(("10.77.0.2", port)).is_ok())
}

/// How long a client keeps its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Long,
    Short,
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("it is a socket");
    stream
}

/// Sends a request and reads the response; how long its body is.
fn get(stream: &mut TcpStream, path: &str, buffer: &mut Vec<u8>) -> usize {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 10.77.0.2\r\nUser-Agent: iPXE/1.0.0+\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    buffer.resize(16 << 10, 0);
    let mut received = 0;
    loop {
        let count = stream.read(&mut buffer[received..]).expect("the server sends");
        assert!(count > 0, "the server closed the connection");
        received += count;
        let Some(end) = buffer[..received].windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let len: usize = len.and_then(|len| len.parse().ok()).expect("it has a length");
        if received >= end + 4 + len {
            return len;
        }
    }
}

#[derive(Default)]
struct Row {
    requests: usize,
    seconds: f64,
    cpu: f64,
    peak_mib: f64,
}

impl Row {
    fn add(
        &mut self,
        server: &Server,
        address: &str,
        (len, life): (usize, Life),
        path: impl Fn(usize) -> String + Sync,
    ) {
        let before = server.cpu_seconds();
        let began = Instant::now();
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (next, path) = (&next, &path);
                scope.spawn(move || {
                    let machine = client % RACK;
                    let namespace =
                        File::open(format!("/run/netns/m{machine}")).expect("it was made");
                    setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root may");
                    let mut stream = connect(address);
                    let mut buffer = Vec::new();
                    loop {
                        let request = next.fetch_add(1, Ordering::Relaxed);
                        if request >= REQUESTS {
                            return;
                        }
                        let got = get(&mut stream, &path(machine), &mut buffer);
                        assert!(got.abs_diff(len) < 32, "{got} bytes and not about {len}");
                        if life == Life::Short {
                            stream = connect(address);
                        }
                    }
                });
            }
        });
        self.seconds += began.elapsed().as_secs_f64();
        self.cpu += server.cpu_seconds() - before;
        self.requests += REQUESTS;
        self.peak_mib = self.peak_mib.max(server.peak_mib());
    }
}

/// A table, the first row ours; the ratios are ours to each.
fn report(rows: &[(&str, Row); 3]) {
    println!(
        "{:<14} {:>10} {:>14} {:>9}   ours / its: {:>10} {:>14}",
        "", "requests/s", "requests/CPU s", "peak MiB", "requests/s", "requests/CPU s"
    );
    let pace = |row: &Row| row.requests as f64 / row.seconds;
    let worth = |row: &Row| row.requests as f64 / row.cpu;
    for (name, row) in rows {
        println!(
            "{name:<14} {:>10.0} {:>14.0} {:>9.1}   {:>22.2} {:>14.2}",
            pace(row),
            worth(row),
            row.peak_mib,
            pace(&rows[0].1) / pace(row),
            worth(&rows[0].1) / worth(row),
        );
    }
    println!();
}
