//! What TFTP needs sockets for, packet by packet as firmware sends it: which port and address answers,
//! who is answered and who is not, and how much. What one transfer says and when is in `src/tftp/cases`;
//! real clients are in `tftp_clients.rs`.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::in_lab;
use crate::journey::{folder, machine};
use crate::support::firmware::Firmware;
use crate::support::{Appliance, run};

/// Where requests go.
const SERVER: (&str, u16) = ("10.77.0.2", 69);
/// How long silence is listened to: a request is answered within a millisecond.
const SILENCE: Duration = Duration::from_millis(400);

/// A read request in mode octet.
pub fn rrq(name: &[u8], options: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = [b"\0\x01", name, b"\0octet\0"].concat();
    for (name, value) in options {
        datagram.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    datagram
}

pub fn ack(block: u16) -> Vec<u8> {
    [[0, 4], block.to_be_bytes()].concat()
}

/// A socket on any port of the machine.
pub fn socket(firmware: &Firmware) -> UdpSocket {
    firmware.socket(0)
}

/// The next datagram, and who sent it.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    receive_or_not(socket).expect("an answer comes")
}

pub fn receive_or_not(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 2048];
    let (len, from) = socket.recv_from(&mut buffer).ok()?;
    buffer.truncate(len);
    Some((buffer, from))
}

/// Asks, and returns the first answer and who sent it.
pub fn ask(socket: &UdpSocket, request: &[u8]) -> (Vec<u8>, SocketAddr) {
    socket.send_to(request, SERVER).unwrap();
    receive(socket)
}

/// Nothing comes.
pub fn silent(socket: &UdpSocket) {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let received = receive_or_not(socket);
    assert!(received.is_none(), "{received:?}");
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

/// The code of an ERROR, which has a short text of printable ASCII and a NUL.
pub fn error_code(datagram: &[u8]) -> u16 {
    let [0, 5, high, low, text @ .., 0] = datagram else { panic!("no ERROR: {datagram:?}") };
    assert!(text.len() < 100 && text.iter().all(|c| (b' '..=b'~').contains(c)), "{text:?}");
    assert!(!text.contains(&b'/'), "a path of this host: {}", String::from_utf8_lossy(text));
    u16::from_be_bytes([*high, *low])
}

/// Fetches a file in lock step to its end, from its first answer on.
pub fn finish(socket: &UdpSocket, first: (Vec<u8>, SocketAddr)) -> Vec<u8> {
    finish_from(1, socket, first)
}

/// The same from this block on.
pub fn finish_from(
    mut wanted: u16,
    socket: &UdpSocket,
    (mut answer, from): (Vec<u8>, SocketAddr),
) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        match answer.as_slice() {
            [0, 6, ..] => {
                socket.send_to(&ack(0), from).unwrap();
            }
            [0, 3, high, low, data @ ..] => {
                let block = u16::from_be_bytes([*high, *low]);
                socket.send_to(&ack(block), from).unwrap();
                if block == wanted {
                    content.extend(data);
                    wanted += 1;
                    if data.len() < 512 {
                        return content;
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        answer = receive(socket).0;
    }
}

/// RFC 1350 section 4: each transfer has a port of its own. iPXE and edk2 hear nothing from another
/// address than the one that they asked.
#[test]
fn each_transfer_comes_from_a_new_port_of_the_address_that_was_asked() {
    in_lab!(|lan| {
        run("ip", &["-n", "appliance", "addr", "add", "10.77.0.3/24", "dev", "eth0"]);
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let request = rrq(b"undionly.kpxe", &[]);
        let mut ports = vec![69];
        for address in ["10.77.0.2", "10.77.0.3", "10.77.0.2", "10.77.0.3"] {
            let socket = socket(&firmware);
            socket.send_to(&request, (address, 69)).unwrap();
            let (data, from) = receive(&socket);
            assert_eq!(data[..4], [0, 3, 0, 1]);
            assert_eq!(data.len(), 516);
            assert_eq!(from.ip().to_string(), address);
            assert!(!ports.contains(&from.port()), "{from} twice");
            ports.push(from.port());
            assert_eq!(finish(&socket, (data, from)).len(), 74_213);
        }
        let socket = socket(&firmware);
        socket.send_to(&rrq(b"gone.efi", &[]), ("10.77.0.3", 69)).unwrap();
        assert_eq!(receive(&socket).1.to_string(), "10.77.0.3:69", "and so does a refusal");
    });
}

/// RFC 1350 section 4: "an error packet should be sent" to a stranger, "while not disturbing" the
/// transfer; and an ERROR is never answered.
#[test]
fn a_stranger_on_a_transfers_port_is_told_so_and_the_transfer_goes_on() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        lan.attach("stranger", "10.77.0.51/24");
        let elsewhere = Firmware::new("stranger", [2; 6], Ipv4Addr::new(10, 77, 0, 51));
        let own = socket(&firmware);
        let (data, transfer) = ask(&own, &rrq(b"undionly.kpxe", &[]));
        for stranger in [socket(&firmware), socket(&elsewhere)] {
            for datagram in [ack(1), rrq(b"undionly.kpxe", &[]), b"garbage".to_vec(), vec![]] {
                stranger.send_to(&datagram, transfer).unwrap();
                let (error, from) = receive(&stranger);
                assert_eq!((error_code(&error), from), (5, transfer), "{datagram:?}");
            }
            stranger.send_to(b"\0\x05\0\0gone\0", transfer).unwrap();
            silent(&stranger);
        }
        // What is no packet from the client itself does not disturb it either.
        own.send_to(b"garbage", transfer).unwrap();
        own.send_to(b"", transfer).unwrap();
        assert_eq!(finish(&own, (data, transfer)).len(), 74_213);
    });
}

/// iPXE repeats its request after 0.26 s from the same port, OVMF after 4 s (both seen): two transfers
/// would race.
#[test]
fn a_repeated_request_is_answered_by_the_same_transfer_until_it_is_under_way() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        let request = rrq(b"undionly.kpxe", &[("tsize", "0"), ("blksize", "1432")]);
        let first = ask(&own, &request);
        assert_eq!(first.0, b"\0\x06tsize\x0074213\0blksize\x001432\0");
        for _ in 0..3 {
            assert_eq!(ask(&own, &request), first);
        }
        own.send_to(&ack(0), first.1).unwrap();
        assert_eq!(receive(&own).0.len(), 1436);
        // A copy that was late on its way ends nothing: DATA 1 goes on coming from where it came.
        let (data, from) = ask(&own, &request);
        assert_eq!((data.len(), from), (1436, first.1));
        let (oack, anew) = loop {
            let answer = ask(&own, &request);
            if answer.0.starts_with(&[0, 6]) {
                break answer;
            }
        };
        assert_eq!(oack, first.0);
        assert_ne!(anew, first.1, "of a client that says nothing else it is a new one");
        let (_, other) = ask(&own, &rrq(b"bin-x86_64-efi/snponly.efi", &[("tsize", "0")]));
        assert_ne!(other, anew, "and so is one for something else");
        let (oack, yet_another) =
            ask(&own, &rrq(b"bin-x86_64-efi/snponly.efi", &[("blksize", "1024")]));
        assert_eq!(oack, b"\0\x06blksize\x001024\0", "or with other options");
        assert_ne!(yet_another, other);
        own.send_to(&ack(0), yet_another).unwrap();
        assert_eq!(receive(&own).0.len(), 1028);
    });
}

/// RFC 1350 sections 4 and 5; dnsmasq's tftp.c refuses the same with the same code.
#[test]
fn writing_and_other_modes_are_refused_and_nothing_is_written() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        for request in [
            &b"\0\x02undionly.kpxe\0octet\0"[..],
            b"\0\x02new.efi\0octet\0tsize\x005\0",
            b"\0\x01undionly.kpxe\0mail\0",
            b"\0\x01undionly.kpxe\0netascii\0",
            b"\0\x01undionly.kpxe\0zzz\0",
        ] {
            let (error, from) = ask(&own, request);
            assert_eq!((error_code(&error), from.port()), (4, 69), "{request:?}");
        }
        appliance.wait_for("refused a write request: this server only reads");
        appliance.wait_for("refused undionly.kpxe: only mode octet is served");
        assert!(!folder.path().join("nbps/new.efi").exists());
        assert_eq!(ask(&own, b"\0\x01undionly.kpxe\0OCTET\0").0.len(), 516);
        assert!(!appliance.log().contains("panicked"));
    });
}

/// The spellings are in `src/files.rs`; here they go through the daemon, and nothing else is served.
#[test]
fn a_name_is_served_as_firmware_spells_it_and_everything_else_is_refused() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        for name in [
            &b"/undionly.kpxe"[..],
            b"\\undionly.kpxe",
            b"C:\\UNDIONLY.KPXE",
            b"tftp://10.77.0.2/undionly.kpxe",
            b"undionly.kpxe\xff",
            b"undionly.kpxe\xff\0junk\0",
        ] {
            let answer = ask(&socket(&firmware), &rrq(name, &[])).0;
            assert_eq!(answer[..2], [0, 3], "{name:?}");
        }
        for (name, code) in [
            (&b"../config.yaml"[..], 2),
            (b"nbps/../../config.yaml", 2),
            (b"a\x1b[2Jb", 2),
            (b"config.yaml", 1),
            (b"linux", 1),
            (b"/etc/passwd", 1),
            (b"%2e%2e/config.yaml", 1),
            (b"caf\xe9.efi", 1),
            (b"", 1),
        ] {
            let answer = ask(&socket(&firmware), &rrq(name, &[])).0;
            assert_eq!(error_code(&answer), code, "{name:?}");
        }
        appliance.wait_for("refused /etc/passwd: nothing is served under this name");
        assert!(!appliance.log().contains('\x1b'), "what a client says cannot disturb a terminal");
    });
}

/// RFC 2347 to 2349, RFC 7440: what is granted of odd requests; the same as in `src/tftp/cases/agreed.rs`,
/// on the wire.
#[test]
fn options_are_granted_taken_down_or_left_out_as_the_standards_say() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let answer = |options: &[(&str, &str)]| {
            let own = socket(&firmware);
            let (answer, from) = ask(&own, &rrq(b"undionly.kpxe", options));
            own.send_to(b"\0\x05\0\0\0", from).unwrap();
            match answer.as_slice() {
                [0, 3, 0, 1, data @ ..] => format!("DATA 1: {}", data.len()),
                [0, 6, options @ .., 0] => String::from_utf8_lossy(options).replace('\0', " "),
                other => panic!("{other:?}"),
            }
        };
        for (options, expected) in [
            (&[("blksize", "65464")][..], "blksize 1468"),
            (&[("blksize", "7")], "DATA 1: 512"),
            (&[("blksize", "abc"), ("tsize", "0")], "tsize 74213"),
            (&[("BLKSIZE", "1024")], "blksize 1024"),
            (&[("rollover", "0"), ("multicast", "")], "DATA 1: 512"),
            (&[("timeout", "0")], "DATA 1: 512"),
            (&[("timeout", "256")], "DATA 1: 512"),
            (&[("timeout", "3")], "timeout 3"),
            (&[("windowsize", "64"), ("tsize", "0")], "windowsize 16 tsize 74213"),
        ] {
            assert_eq!(answer(options), expected, "{options:?}");
        }
    });
}

/// RFC 1123 section 4.2.3.1 and RFC 7440 section 4, and what iPXE and edk2 do at the end; the same as in
/// `src/tftp/cases/lost.rs`, on the wire.
#[test]
fn what_is_lost_doubled_or_late_on_the_wire_costs_no_byte_and_no_flood() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        let block = |(datagram, _): &(Vec<u8>, SocketAddr)| match datagram.as_slice() {
            [0, 3, high, low, ..] => u16::from_be_bytes([*high, *low]),
            other => panic!("{other:?}"),
        };

        // Block 6 of a window is lost: the ACK of 5, many times over, brings what follows it once.
        let window = rrq(b"undionly.kpxe", &[("windowsize", "16")]);
        let (_, from) = ask(&own, &window);
        own.send_to(&ack(0), from).unwrap();
        let first: Vec<u16> = (0..16).map(|_| block(&receive(&own))).collect();
        assert_eq!(first, Vec::from_iter(1..=16));
        for _ in 0..10 {
            own.send_to(&ack(5), from).unwrap();
        }
        let again: Vec<u16> = (0..16).map(|_| block(&receive(&own))).collect();
        assert_eq!(again, Vec::from_iter(6..=21), "once for each distinct ACK");
        // ERROR ends it: nothing follows, not even a block that was due.
        own.send_to(b"\0\x05\0\0enough\0", from).unwrap();
        appliance.wait_for("the client ended it with error 0 `enough`");
        own.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        while receive_or_not(&own).is_some() {}
        silent(&own);

        // Each ACK twice: each block once.
        let own = socket(&firmware);
        let (mut datagram, from) = ask(&own, &rrq(b"undionly.kpxe", &[]));
        let mut blocks = Vec::new();
        while datagram.len() == 516 {
            blocks.push(block(&(datagram, from)));
            let last = ack(*blocks.last().unwrap());
            for _ in 0..2 {
                own.send_to(&last, from).unwrap();
            }
            datagram = receive(&own).0;
        }
        assert_eq!(blocks, Vec::from_iter(1..=144));

        // The last block comes, and its ACK never does: all was sent, and so it is a success.
        appliance.wait_for("fetched undionly.kpxe over TFTP: 74213 bytes");
    });
}

/// For boot loaders that know TFTP only: the names are those of the log.
#[test]
fn images_are_served_by_name() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        for (name, file) in [
            ("debian/kernel", "linux"),
            ("images/debian/initrd", "first"),
            ("debian/initrd.1", "second"),
        ] {
            let fetched = firmware.fetch(&format!("tftp://10.77.0.2/{name}"));
            assert!(fetched == std::fs::read(folder.path().join(file)).unwrap(), "{name}");
            let part = name.trim_start_matches("images/");
            appliance.wait_for(&format!("fetched {part} over TFTP: {} bytes", fetched.len()));
        }
        std::fs::remove_file(folder.path().join("linux")).unwrap();
        assert_eq!(error_code(&ask(&socket(&firmware), &rrq(b"debian/kernel", &[])).0), 2);
        appliance.wait_for("linux: there is no such file");
        let under_nbp = firmware.curl(&["--fail", "http://10.77.0.2:8080/nbp/debian/kernel"]);
        assert!(!under_nbp.status.success(), "over HTTP it has an address of its own");
    });
}

/// For an iPXE without HTTP: what its script names is served over TFTP too. iPXE's tftp.c sends nothing of a
/// URL's query.
#[test]
fn a_machines_script_over_tftp_names_what_comes_over_tftp() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        firmware.loads_ipxe();
        for name in ["52-54-00-77-00-10.ipxe", "boot/52-54-00-77-00-10.ipxe"] {
            let script = firmware.script_over_tftp(name);
            assert!(script.starts_with("#!ipxe\n") && !script.contains("http://"), "{script}");
            let loads = script
                .lines()
                .filter(|line| line.starts_with("kernel ") || line.starts_with("initrd "));
            let images: Vec<&str> = loads
                .flat_map(|line| line.split(' ').filter(|word| word.starts_with("tftp://")))
                .collect();
            assert_eq!(images.len(), 3, "{script}");
            for url in images {
                assert!(!firmware.fetch(url.split('?').next().unwrap()).is_empty(), "{url}");
            }
            let line = appliance
                .wait_for("INFO oden (52:54:00:77:00:10): runs its script, fetched over TFTP: ");
            assert!(line.contains(": profile debian"), "{line}");
            appliance.wait_for("INFO oden (52:54:00:77:00:10): fetched debian/initrd.1");
        }
        let stranger = firmware.fetch("tftp://10.77.0.2/02-00-00-00-00-01.ipxe");
        assert!(String::from_utf8(stranger).unwrap().contains("\nmenu reveille"));
        folder.write("config.yaml", "unknown: ignore\nserver: { nbps: [./nbps] }\n");
        appliance.wait_for("config: unknown: menu -> ignore");
        let own = socket(&firmware);
        assert_eq!(error_code(&ask(&own, &rrq(b"02-00-00-00-00-01.ipxe", &[])).0), 2);
    });
}

/// RFC 1350 section 4 and sense: what is no request to port 69 is not answered, an ERROR above all.
#[test]
fn what_is_no_request_is_not_answered_and_harms_nothing() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        let mut longest = rrq(b"undionly.kpxe", &[]);
        longest.truncate(15);
        longest.resize(65_507, b'x');
        for datagram in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01undionly.kpxe",
            b"\0\x01undionly.kpxe\0",
            b"\0\x03\0\x01data",
            b"\0\x04\0\x01",
            b"\0\x05\0\x01no\0",
            b"\0\x06tsize\x000\0",
            &longest,
        ] {
            own.send_to(datagram, SERVER).unwrap();
        }
        silent(&own);
        assert_eq!(ask(&own, &rrq(b"undionly.kpxe", &[])).0.len(), 516);
        assert!(!appliance.log().contains("panicked"));
    });
}

/// Newer EFI builds of iPXE ask for it before their own DHCP, in the folder that they came from, and wait
/// (seen): it comes at once, or at once is told not to, and its first command needs no DHCP.
#[test]
fn autoexec_is_answered_at_once_from_whatever_folder_and_needs_no_dhcp() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        for name in [&b"x64/autoexec.ipxe"[..], b"autoexec.ipxe", b"gone.ipxe"] {
            let own = socket(&firmware);
            // The first request is answered: whoever asks again has waited.
            let (_, from) = ask(&own, &rrq(name, &[("tsize", "0"), ("blksize", "1432")]));
            own.send_to(b"\0\x05\0\x08\0", from).unwrap();
        }
        let url = "http://10.77.0.2:8080/nbp/bin-x86_64-efi/autoexec.ipxe";
        let by_http = String::from_utf8(firmware.fetch(url)).unwrap();
        let first = "#!ipxe\nchain --replace --autofree http://10.77.0.2:8080/boot/${netX/mac:hexhyp}.ipxe ";
        assert!(by_http.starts_with(first), "{by_http}");
        appliance.wait_for(", the script that leads it to its own, over ");
        for name in [&b"autoexec.ipxe"[..], b"bin-x86_64-efi/autoexec.ipxe", b"/x/y/AUTOEXEC.IPXE"]
        {
            let own = socket(&firmware);
            let script = finish(&own, ask(&own, &rrq(name, &[])));
            assert_eq!(String::from_utf8(script).unwrap(), by_http, "{name:?}");
            appliance.wait_for(", the script that leads it to its own, over ");
        }
    });
}

/// Sieklik, Macfarlane and Buchanan, 2016: an address that was forged is sent little, whatever was asked for.
#[test]
fn who_never_acknowledges_is_sent_five_packets() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let (plain, greedy) = (socket(&firmware), socket(&firmware));
        plain.send_to(&rrq(b"undionly.kpxe", &[]), SERVER).unwrap();
        let options = [("blksize", "65464"), ("windowsize", "65535"), ("tsize", "0")];
        greedy.send_to(&rrq(b"undionly.kpxe", &options), SERVER).unwrap();
        appliance.wait_for("the client did not acknowledge ");
        appliance.wait_for("the client did not acknowledge ");
        for (socket, bytes) in [(plain, 5 * 516), (greedy, 5 * 48)] {
            socket.set_read_timeout(Some(SILENCE)).unwrap();
            let sent: Vec<usize> = std::iter::from_fn(|| receive_or_not(&socket))
                .map(|(data, _)| data.len())
                .collect();
            assert_eq!(sent.len(), 5, "{sent:?}");
            assert!(sent.iter().sum::<usize>() <= bytes, "{sent:?}");
        }
    });
}

/// One host cannot take every transfer there is; a rack that is switched on at once gets all of them.
#[test]
fn each_address_has_eight_transfers_and_a_rack_has_room() {
    in_lab!(|lan| {
        let folder = folder();
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let request = rrq(b"undionly.kpxe", &[]);
        let mut running: Vec<_> = (0..8)
            .map(|_| {
                let own = socket(&firmware);
                let answer = ask(&own, &request);
                assert_eq!(answer.0[..2], [0, 3]);
                (own, answer)
            })
            .collect();
        let ninth = socket(&firmware);
        assert_eq!(error_code(&ask(&ninth, &request).0), 0);

        // 25 hosts with eight each.
        let others: Vec<Firmware> = (100..125)
            .map(|last| {
                let address = Ipv4Addr::new(10, 77, 0, last);
                run(
                    "ip",
                    &["-n", "machine", "addr", "add", &format!("{address}/24"), "dev", "eth0"],
                );
                Firmware::new("machine", firmware.mac, address)
            })
            .collect();
        let sockets: Vec<UdpSocket> =
            others.iter().flat_map(|other| (0..8).map(|_| socket(other))).collect();
        std::thread::scope(|scope| {
            for own in &sockets {
                scope.spawn(|| assert_eq!(finish(own, ask(own, &request)).len(), 74_213));
            }
        });

        let (own, answer) = running.pop().unwrap();
        assert_eq!(finish(&own, answer).len(), 74_213);
        let served_again = (0..50).any(|_| {
            let (answer, from) = ask(&ninth, &request);
            answer[..2] == [0, 3] && finish(&ninth, (answer, from)).len() == 74_213
        });
        assert!(served_again, "who has finished has room again");
    });
}

/// What comes in where nobody is to be served is not even refused.
#[test]
fn who_asks_from_a_network_that_is_not_served_hears_nothing() {
    in_lab!(|lan| {
        let folder = folder();
        folder.write("config.yaml", "server: { interfaces: [eth0], nbps: [./nbps] }\n");
        let _appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        lan.attach_elsewhere("elsewhere");
        let stranger = Firmware::new("elsewhere", [2; 6], Ipv4Addr::new(10, 88, 0, 50));
        let own = socket(&stranger);
        for address in ["10.77.0.2", "10.88.0.2"] {
            for request in
                [rrq(b"undionly.kpxe", &[]), rrq(b"gone", &[]), b"\0\x02x\0octet\0".to_vec()]
            {
                own.send_to(&request, (address, 69)).unwrap();
            }
        }
        silent(&own);
        assert_eq!(ask(&socket(&firmware), &rrq(b"undionly.kpxe", &[])).0.len(), 516);
    });
}

/// udp(7): a window that is cut apart by the kernel must fit into the frames of the way; where it does not,
/// its blocks go out one by one, in pieces of IP.
#[test]
fn a_window_gets_through_frames_that_are_smaller_than_its_blocks() {
    in_lab!(|lan| {
        let folder = folder();
        let mut appliance = Appliance::start(&folder);
        let firmware = machine(&lan);
        let own = socket(&firmware);
        let options = [("blksize", "1468"), ("windowsize", "4")];
        let (oack, from) = ask(&own, &rrq(b"undionly.kpxe", &options));
        assert_eq!(oack, b"\0\x06blksize\x001468\0windowsize\x004\0");
        for host in ["appliance", "machine"] {
            run("ip", &["-n", host, "link", "set", "eth0", "mtu", "1000"]);
        }
        own.send_to(&ack(0), from).unwrap();
        for block in 1..=4_u16 {
            let (data, _) = receive(&own);
            assert_eq!(
                (&data[..4], data.len()),
                (&[[0, 3], block.to_be_bytes()].concat()[..], 1472)
            );
        }
        appliance.wait_for("tftp: sending to 10.77.0.50");
        let oack = ask(&socket(&firmware), &rrq(b"undionly.kpxe", &options)).0;
        assert_eq!(
            oack, b"\0\x06blksize\x00968\0windowsize\x004\0",
            "who asks now gets smaller ones"
        );
    });
}
