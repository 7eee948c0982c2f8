//! A finished download counts, however its client closes the connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::Duration;

use socket2::SockRef;

use crate::in_lab;
use crate::support::appliance::Folder;
use crate::support::firmware::Firmware;
use crate::support::{Appliance, Lan};

const MACHINE: [u8; 6] = [0x52, 0x54, 0, 0x77, 0, 0x10];
/// Larger than what the send buffers of the kernel hold.
const SIZE: usize = 3_000_000;

const CONFIG: &str = "
server: { nbps: [./nbps] }
images: { linux: { kernel: ./linux, initrd: ./first } }
profiles: { install: { script: linux, image: linux, boot: once, wipes: true } }
machines: { oden: { mac: '52:54:00:77:00:10', profile: install } }
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("config.yaml", CONFIG);
    folder.write("nbps/undionly.kpxe", vec![0xea; 70_000]);
    folder.write("linux", vec![1; SIZE]);
    folder.write("first", vec![2; SIZE]);
    folder
}

/// How a client ends its connection.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// As curl does with these options.
    Curl(&'static [&'static str]),
    /// It closes its side after the request, and reads until the daemon closes.
    HalfClose,
    /// It resets the connection with half of the file unread.
    Reset,
}

const KEEP_ALIVE: Ending = Ending::Curl(&[]);
const CLOSE: Ending = Ending::Curl(&["--header", "Connection: close"]);
const HTTP_1_0: Ending = Ending::Curl(&["--http1.0"]);

/// Fetches a URL, and throws it away at once: who writes it elsewhere closes the connection later.
fn fetch(firmware: &Firmware, url: &str, ending: Ending) {
    if let Ending::Curl(options) = ending {
        let discard = ["--fail", "--output", "/dev/null", "--write-out", "%{size_download}", url];
        let output = firmware.curl(&[&discard, options].concat());
        assert_eq!(String::from_utf8_lossy(&output.stdout), SIZE.to_string(), "{ending:?}");
        return;
    }
    let path = url.strip_prefix("http://10.77.0.2:8080").unwrap();
    let mut stream = firmware.connections(8080, 1).remove(0);
    // A kernel with a larger buffer acknowledges what its program never reads.
    SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 10.77.0.2\r\n\r\n").unwrap();
    let mut received = vec![0; SIZE / 2];
    if matches!(ending, Ending::Reset) {
        stream.read_exact(&mut received).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        return;
    }
    stream.shutdown(Shutdown::Write).unwrap();
    received.clear();
    stream.read_to_end(&mut received).unwrap();
    assert!(received.len() > SIZE, "{ending:?}: {}", received.len());
}

/// A machine that boots once for each of these, and whether that counted.
fn boots(lan: &Lan, endings: &[(Ending, bool)]) {
    let folder = folder();
    let mut appliance = Appliance::start(&folder);
    lan.attach("machine", "10.77.0.50/24");
    let firmware = Firmware::new("machine", MACHINE, Ipv4Addr::new(10, 77, 0, 50));
    for (ending, counts) in endings {
        firmware.loads_ipxe();
        let script = firmware.script("");
        assert!(script.contains("boots install"), "{ending:?}: {script}");
        let loads = |line: &&str| line.starts_with("kernel ") || line.starts_with("initrd ");
        for line in script.lines().filter(loads) {
            let url = line.split(' ').find(|word| word.contains("://")).unwrap();
            fetch(&firmware, url, *ending);
            let line = appliance.wait_for(&format!(" linux/{} over HTTP", &line[..6]));
            assert_eq!(line.contains(": fetched "), *counts, "{ending:?}: {line}");
        }
        let before = folder.next("oden");
        assert_eq!(before == "done", *counts, "{ending:?}: {before}");
        if *counts {
            folder.reveille(&["arm", "oden"]);
        }
    }
}

#[test]
fn a_boot_counts_however_its_client_closes_and_not_if_it_resets_early() {
    in_lab!(|lan| {
        let counts = |ending| (ending, true);
        let round = [CLOSE, HTTP_1_0, Ending::HalfClose, KEEP_ALIVE].map(counts);
        boots(&lan, &[&[(Ending::Reset, false)], &round[..], &round[..3]].concat());
    });
}
