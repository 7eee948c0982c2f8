//! HTTP where a neighbour means harm: thousands of connections, and browsers that are led here.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, InFolder, Lan, inside, run};

const SCRIPT: &str = "http://10.77.0.2:8080/boot/52-54-00-77-00-10.ipxe";
const IMAGE: &[u8] = b"GET /images/debian/kernel HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n";
const HALF_A_HEAD: &[u8] = b"GET /x HTTP/1.1\r\n";
/// With 1024 files the daemon serves so many connections.
const MOST: usize = 256;

/// A daemon with few connections.
fn start_small(folder: &Folder) -> Appliance {
    let mut command = inside("appliance", Path::new("/bin/sh"));
    let serve = concat!("ulimit -n 1024 && exec ", env!("CARGO_BIN_EXE_reveille"), " serve");
    command.args(["-c", serve]).in_folder(folder.path());
    let mut appliance = Appliance::spawn(command);
    appliance.wait_for("ready");
    appliance
}

/// A neighbour with this many addresses, from 10.77.0.100 on.
fn neighbour(lan: &Lan, addresses: u8) -> Vec<Ipv4Addr> {
    lan.attach("neighbour", "10.77.0.100/24");
    for last in 101..100 + addresses {
        let address = format!("10.77.0.{last}/24");
        run("ip", &["-n", "neighbour", "addr", "add", &address, "dev", "eth0"]);
    }
    (100..100 + addresses).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect()
}

/// Opens connections from each address of the neighbour, and sends this on each. What the daemon
/// closes at once is among them.
fn hold(addresses: &[Ipv4Addr], of_each: usize, sent: &'static [u8]) -> Vec<TcpStream> {
    let addresses = addresses.to_vec();
    let open = move || {
        let namespace = File::open("/run/netns/neighbour").unwrap();
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let all = addresses.iter().flat_map(|address| std::iter::repeat_n(*address, of_each));
        all.map(|address| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.bind(&SocketAddrV4::new(address, 0).into()).unwrap();
            let server = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 8080);
            socket.connect(&server.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            // The daemon may have closed it already.
            stream.write_all(sent).ok();
            stream
        })
        .collect()
    };
    std::thread::spawn(open).join().unwrap()
}

/// Whether the machine gets its script, booted or, where it did not ask DHCP before, only shown.
fn gets_its_script(firmware: &Firmware) -> bool {
    String::from_utf8(firmware.fetch(SCRIPT)).unwrap().contains("#!ipxe\n")
}

/// Whether no more than so many are open, once the daemon has come to the last of them.
fn are_at_most(most: usize, streams: &[TcpStream]) -> bool {
    (0..200).any(|_| {
        let is_so = streams.iter().filter(|stream| is_open(stream)).count() <= most;
        if !is_so {
            std::thread::sleep(Duration::from_millis(50));
        }
        is_so
    })
}

fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    peeked.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |count| count > 0)
}

#[test]
fn thousands_of_connections_of_a_neighbour_keep_no_machine_from_its_script_or_its_download() {
    in_lab!(alone, |lan| {
        let folder = folder();
        let mut appliance = start_small(&folder);
        let firmware = machine(&lan);
        let addresses = neighbour(&lan, 32);
        let mut download = firmware.connections(8080, 1).remove(0);
        download.write_all(IMAGE).unwrap();
        let mut received = vec![0; 1000];
        download.read_exact(&mut received).unwrap();

        let idle = hold(&addresses[..1], 2000, b"");
        assert!(gets_its_script(&firmware));
        appliance.wait_for("closed an idle connection of 10.77.0.100 for a new connection of 10.77.0.100: an address may have 64, all together 256");
        assert!(are_at_most(64, &idle));
        let idle = hold(&addresses, 64, b"");
        assert!(gets_its_script(&firmware));
        assert!(are_at_most(MOST, &idle));

        let mut dripping = hold(&addresses, 64, HALF_A_HEAD);
        assert!(gets_its_script(&firmware));
        for stream in &mut dripping {
            stream.write_all(b"X-a: b\r\n").ok();
        }
        assert!(gets_its_script(&firmware));

        let slow = hold(&addresses, 64, IMAGE);
        assert!(gets_its_script(&firmware));
        drop((dripping, slow, idle));
        download.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        while received.len() < 3_000_000 {
            let mut part = [0; 1 << 16];
            let count = download.read(&mut part).unwrap();
            assert!(count > 0, "the download was interrupted at {}", received.len());
            received.extend(&part[..count]);
        }
        assert!(gets_its_script(&firmware));
    });
}

#[test]
fn an_address_with_64_downloads_gets_no_more_and_an_idle_connection_of_it_is_closed_first() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let addresses = neighbour(&lan, 1);
        let mut slow = hold(&addresses, 63, IMAGE);
        for stream in &mut slow {
            stream.read_exact(&mut [0; 100]).unwrap();
        }
        let mut idle = hold(&addresses, 1, b"").remove(0);
        slow.extend(hold(&addresses, 1, IMAGE));
        assert_eq!(idle.read(&mut [0; 100]).unwrap(), 0);
        slow[63].read_exact(&mut [0; 100]).unwrap();

        let mut refused = hold(&addresses, 1, b"").remove(0);
        assert_eq!(refused.read(&mut [0; 100]).unwrap(), 0);
        appliance.wait_for("closed a new connection of 10.77.0.100: an address may have 64");
        assert!(slow.iter().all(is_open));
        assert!(gets_its_script(&firmware));
    });
}

#[test]
fn idle_connections_end_sooner_once_three_quarters_are_in_use() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = start_small(&folder);
        let firmware = machine(&lan);
        let addresses = neighbour(&lan, 32);
        let idle = hold(&addresses, 7, HALF_A_HEAD);
        appliance.wait_for("closed a connection that others need");
        assert!(gets_its_script(&firmware));
        for mut stream in idle {
            // It is closed with what was sent unread, or read.
            assert!(!matches!(stream.read(&mut [0; 100]), Ok(1..)));
        }
        assert!(!appliance.log().contains("warn"), "none was closed for another");
    });
}

/// The statuses of the responses to requests with these arguments of curl.
fn statuses(firmware: &Firmware, url: &str, requests: &[&[&str]]) -> Vec<String> {
    let always = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let status = |arguments: &&[&str]| {
        let output = firmware.curl(&[&always, *arguments, &[url]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    requests.iter().map(status).collect()
}

#[test]
fn a_browser_is_refused_whatever_name_it_was_led_by_and_a_machine_is_served() {
    in_lab!(|lan| {
        let folder = folder();
        let config = "server: { nbps: [./nbps], http: { hosts: [boot.lan] } }\n";
        folder.write("config.yaml", config);
        run("ip", &["-n", "appliance", "addr", "add", "10.99.9.9/32", "dev", "lo"]);
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let served: [&[&str]; 7] = [
            &[],
            &["--http1.0", "--header", "Host:"],
            &["--header", "Host:"],
            &["--header", "Host: BOOT.lan.:8080"],
            &["--header", "Host: 10.99.9.9"],
            &["--header", "Host: 127.0.0.1"],
            &["--request-target", "http://boot.lan/boot/52-54-00-77-00-10.ipxe"],
        ];
        assert_eq!(statuses(&firmware, SCRIPT, &served), ["200"; 7]);
        let foreign: [&[&str]; 5] = [
            &["--header", "Host: evil.example:8080"],
            &["--header", "Host: 10.77.0.3:8080"],
            &["--header", "Host: localhost"],
            &["--header", "Host: 0.0.0.0:8080"],
            &["--request-target", "http://evil.example/boot/52-54-00-77-00-10.ipxe"],
        ];
        let nothing = SCRIPT.replace("/boot/", "/nothing/");
        let nbp = "http://10.77.0.2:8080/nbp/undionly.kpxe";
        for url in [SCRIPT, &nothing, nbp] {
            assert_eq!(statuses(&firmware, url, &foreign), ["421"; 5], "{url}");
        }
        appliance.wait_for("10.77.0.50: refused /boot/52-54-00-77-00-10.ipxe: its host `evil.example` is neither an address of this host nor a name in `server.http.hosts`; if machines use this name, add it there");
        let browsers: [&[&str]; 4] = [
            &["--header", "Origin: null"],
            &["--referer", "http://10.77.0.2:8080/"],
            &["--header", "Sec-Fetch-Site: same-origin"],
            &["--request", "OPTIONS", "--header", "Origin: http://10.77.0.2:8080"],
        ];
        for url in [SCRIPT, &nothing, nbp] {
            assert_eq!(statuses(&firmware, url, &browsers), ["403"; 4], "{url}");
        }
        appliance.wait_for("its header `origin` comes from a browser");
        let malformed: [&[&str]; 2] =
            [&["--header", "Host: x@10.77.0.2"], &["--header", "Host: 10.77.0.2, evil.example"]];
        assert_eq!(statuses(&firmware, SCRIPT, &malformed), ["400"; 2]);
        let mut two = firmware.connections(8080, 1).remove(0);
        let hosts = "Host: 10.77.0.2\r\nHost: evil.example\r\n";
        write!(two, "GET /boot/52-54-00-77-00-10.ipxe HTTP/1.1\r\n{hosts}\r\n").unwrap();
        let mut status = [0; 12];
        two.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 400");

        // A name is taken up, and given up, without a restart.
        folder.write("config.yaml", config.replace("boot.lan", "evil.example"));
        appliance.wait_for("server.http.hosts");
        assert_eq!(statuses(&firmware, SCRIPT, &[served[3], foreign[0]]), ["421", "200"]);
    });
}
