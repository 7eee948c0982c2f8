//! Simulated firmware: it asks as firmware does, byte for byte, and fetches what it was offered with
//! a real client (curl). It shares no code with the daemon.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Output;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt,
};

use super::{Appliance, inside, packaged, run};

/// A host on the LAN from which firmware asks.
#[derive(Debug)]
pub struct Firmware {
    namespace: String,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The address that it leased.
    pub address: Ipv4Addr,
}

/// An answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// Where it came from.
    pub from: SocketAddrV4,
    /// All of it.
    pub datagram: Vec<u8>,
}

impl Answer {
    /// The `file` field.
    pub fn file(&self) -> String {
        let file = self.datagram[108..236].split(|byte| *byte == 0).next().expect("one piece");
        String::from_utf8(file.to_vec()).expect("names are ASCII")
    }
}

impl Firmware {
    /// Asks from this namespace, which `Lan::attach` made, and gives its card this hardware address: the
    /// neighbour table of the appliance says so then. The hosts of the lab keep their own.
    pub fn new(namespace: &str, mac: [u8; 6], address: Ipv4Addr) -> Self {
        let firmware = Self { namespace: namespace.to_owned(), mac, address };
        if !["appliance", "router"].contains(&namespace) {
            let mac = firmware.hyphenated().replace('-', ":");
            run("ip", &["-n", namespace, "link", "set", "eth0", "address", &mac]);
        }
        firmware
    }

    /// The same host, which asks in the name of this card: its own stays as it is.
    pub fn in_the_name_of(self, mac: [u8; 6]) -> Self {
        Self { mac, ..self }
    }

    /// Another client of this host, which asks in the name of this card.
    pub fn as_if_from(&self, mac: [u8; 6]) -> Self {
        Self { namespace: self.namespace.clone(), mac, address: self.address }
    }

    /// The MAC as iPXE writes it into a path.
    pub fn hyphenated(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join("-")
    }

    /// A socket in the namespace. It stays there although the thread that made it does not.
    pub fn socket(&self, port: u16) -> UdpSocket {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).expect("it is there");
        let address = if port == 68 { Ipv4Addr::UNSPECIFIED } else { self.address };
        let make = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root inside may");
            // A program that another thread is just starting holds a copy of each socket until it runs.
            let socket = (0..100).find_map(|_| {
                let socket = UdpSocket::bind(SocketAddrV4::new(address, port));
                socket.inspect_err(|_| std::thread::sleep(Duration::from_millis(10))).ok()
            });
            let socket = socket.expect("it is free within a second");
            socket.set_broadcast(true).expect("it is a socket");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("it is a socket");
            socket
        };
        std::thread::spawn(make).join().expect("the socket is made")
    }

    /// Opens TCP connections to the appliance and sends nothing.
    pub fn connections(&self, port: u16, count: usize) -> Vec<TcpStream> {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).expect("it is there");
        let open = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root inside may");
            (0..count).map_while(|_| TcpStream::connect(("10.77.0.2", port)).ok()).collect()
        };
        std::thread::spawn(open).join().expect("the connections are made")
    }

    /// Broadcasts a DISCOVER with these options, up to four times as firmware does, and returns the
    /// offer, if one comes.
    pub fn discover(&self, options: &[(u8, &[u8])]) -> Option<Answer> {
        self.ask(&self.datagram(1, Ipv4Addr::UNSPECIFIED, options))
    }

    /// Broadcasts a datagram up to four times, and returns the answer, if one comes.
    pub fn ask(&self, datagram: &[u8]) -> Option<Answer> {
        let socket = self.socket(68);
        (0..4).find_map(|_| {
            socket.send_to(datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
            receive(&socket)
        })
    }

    /// Sends datagrams from this port to one of the appliance's, and waits for no answer.
    pub fn send(&self, from: u16, to: (Ipv4Addr, u16), datagrams: &[Vec<u8>]) {
        let socket = self.socket(from);
        for datagram in datagrams {
            socket.send_to(datagram, to).expect("the LAN is up");
        }
    }

    /// Sends datagrams with another host's address as their source: answers go to that host.
    pub fn spoof(&self, source: SocketAddrV4, to: (Ipv4Addr, u16), datagrams: &[Vec<u8>]) {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).expect("it is there");
        let make = move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("root inside may");
            let kind = (AddressFamily::Inet, SockType::Datagram, SockFlag::empty());
            let socket = socket(kind.0, kind.1, kind.2, None).expect("it is a socket");
            setsockopt(&socket, sockopt::IpTransparent, &true).expect("root inside may");
            bind(socket.as_raw_fd(), &SockaddrIn::from(source)).expect("any address will do");
            UdpSocket::from(socket)
        };
        let socket = std::thread::spawn(make).join().expect("the socket is made");
        for datagram in datagrams {
            socket.send_to(datagram, to).expect("the LAN is up");
        }
    }

    /// Broadcasts a DISCOVER with these options, and returns every offer that comes within a second of
    /// the one before.
    pub fn offers(&self, options: &[(u8, &[u8])]) -> Vec<Answer> {
        let socket = self.socket(68);
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("it is a socket");
        let mut datagram = self.datagram(1, Ipv4Addr::UNSPECIFIED, options);
        // The interface's own hardware address is another: what is sent to this one does not come.
        datagram[10] = 0x80;
        socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
        std::iter::from_fn(|| receive(&socket)).collect()
    }

    /// Broadcasts a thousand DISCOVERs, in tens, each from another machine; how many offers come.
    pub fn flood(&self, options: &[(u8, &[u8])]) -> usize {
        let socket = self.socket(68);
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("it is a socket");
        let mut offers = 0;
        for round in 0..100_u8 {
            for number in 0..10 {
                let mut datagram = self.datagram(1, Ipv4Addr::UNSPECIFIED, options);
                datagram[32..34].copy_from_slice(&[round, number]);
                socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
            }
            offers += (0..10).map_while(|_| receive(&socket)).count();
        }
        // None may come beyond one for each.
        offers + std::iter::from_fn(|| receive(&socket)).count()
    }

    /// Broadcasts the first DISCOVER of a BIOS ROM, waits a moment for its answer, and takes its lease.
    pub fn powers_on(&self) {
        let options: [(u8, &[u8]); 2] = [(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
        let datagram = self.datagram(1, Ipv4Addr::UNSPECIFIED, &options);
        let socket = self.socket(68);
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("it is a socket");
        socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
        while let Some(answer) = receive(&socket) {
            if answer.datagram[28..34] == self.mac {
                break;
            }
        }
        drop(socket);
        self.take_lease(&options);
    }

    /// Broadcasts a DISCOVER from each of so many other machines, as fast as they are answered; how many are.
    pub fn invent(&self, count: u32, options: &[(u8, &[u8])]) -> usize {
        let socket = self.socket(68);
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("it is a socket");
        let mut offers = 0;
        for first in (0..count).step_by(100) {
            for number in first..first + 100 {
                let mut datagram = self.datagram(1, Ipv4Addr::UNSPECIFIED, options);
                datagram[30..34].copy_from_slice(&number.to_be_bytes());
                socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
            }
            offers += (0..100).map_while(|_| receive(&socket)).count();
        }
        offers
    }

    /// Powers on as a BIOS ROM: it asks, is offered an NBP, takes its lease and loads iPXE, which takes it once
    /// more. Then it is seen to boot.
    pub fn loads_ipxe(&self) {
        let rom: &[(u8, &[u8])] = &[(60, b"PXEClient:Arch:00000:UNDI:002001"), (93, &[0, 0])];
        self.discover(rom);
        self.take_lease(rom);
        let ipxe: &[(u8, &[u8])] = &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])];
        self.discover(ipxe).expect("its iPXE is offered its script");
        self.take_lease(ipxe);
    }

    /// Fetches a URL as iPXE does: the status, and the text.
    pub fn fetch_as_ipxe(&self, url: &str) -> (String, String) {
        let output =
            self.curl(&["--user-agent", "iPXE/1.21.1", "--write-out", "\n%{http_code}", url]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, status) = text.rsplit_once('\n').expect("curl writes the status");
        (status.to_owned(), body.to_owned())
    }

    /// Fetches its own script as iPXE does that was asked what machine it is, with more behind the address.
    pub fn script(&self, more: &str) -> String {
        let facts = "uuid=&serial=&product=&vendor=&platform=pcbios&arch=i386&cpu=x64&v2=yes";
        let own = self.hyphenated();
        self.fetch_as_ipxe(&format!("http://10.77.0.2:8080/boot/{own}.ipxe?{facts}{more}")).1
    }

    /// Fetches a script over TFTP: first the one that leads to it, with an id that its machine alone receives.
    pub fn script_over_tftp(&self, name: &str) -> String {
        let text = |url: &str| String::from_utf8(self.fetch(url)).expect("a script is text");
        let first = text(&format!("tftp://10.77.0.2/{name}"));
        let mut words = first.lines().flat_map(|line| line.split(' '));
        match words.find(|word| word.contains("/boot-") && word.ends_with(".ipxe")) {
            Some(url) => text(url),
            None => first,
        }
    }

    /// Powers on, and fetches its own script; the id of the boot, which is another each time, is left out.
    pub fn boots_to_its_script(&self) -> String {
        self.loads_ipxe();
        let own = self.hyphenated();
        let script = self.fetch(&format!("http://10.77.0.2:8080/boot/{own}.ipxe"));
        let script = String::from_utf8(script).expect("a script is text");
        let mut parts = script.split("&id=");
        let first = parts.next().expect("there is one").to_owned();
        parts.fold(first, |text, part| text + &part[32..])
    }

    /// Where the answer files of the boot are, of which this is the script.
    pub fn files_of(&self, script: &str) -> String {
        let folder = format!("/files/{}/", self.hyphenated());
        let (_, rest) = script.split_once(&folder).expect("the script names an answer file");
        let (id, _) = rest.split_once('/').expect("it stands behind the id of its boot");
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        format!("{folder}{id}")
    }

    /// Fetches the kernel and the initrds that a script names, as far as it names any.
    pub fn fetch_all_of(&self, script: &str) {
        let loads = |line: &&str| line.starts_with("kernel ") || line.starts_with("initrd ");
        for line in script.lines().filter(loads) {
            let url = line.split(' ').find(|word| word.contains("://")).expect("it has a URL");
            self.fetch(url);
        }
    }

    /// Powers on and installs, by a profile named `install` and an image named `linux`: its boot counts.
    pub fn installs(&self, appliance: &mut Appliance) {
        self.loads_ipxe();
        let script = self.script("");
        assert!(script.contains("boots install"), "{script}");
        self.fetch_all_of(&script);
        appliance.wait_for("fetched linux/initrd");
    }

    /// Broadcasts the REQUEST by which it takes its lease from another server.
    pub fn take_lease(&self, options: &[(u8, &[u8])]) {
        self.take_lease_from([10, 77, 0, 1], options);
    }

    /// The same, from this server.
    pub fn take_lease_from(&self, server: [u8; 4], options: &[(u8, &[u8])]) {
        let own: [(u8, &[u8]); 2] = [(50, &self.address.octets()), (54, &server)];
        let datagram = self.datagram(3, Ipv4Addr::UNSPECIFIED, &[&own, options].concat());
        let socket = self.socket(68);
        socket.send_to(&datagram, (Ipv4Addr::BROADCAST, 67)).expect("the LAN is up");
    }

    /// Renews its lease: a REQUEST to the server that gave it, and the answer.
    pub fn renew(&self, server: Ipv4Addr) -> Option<Answer> {
        let socket = self.socket(68);
        let datagram = self.datagram(3, self.address, &[]);
        socket.send_to(&datagram, (server, 67)).expect("the LAN is up");
        receive(&socket)
    }

    /// Asks the boot server from its leased address, as UEFI does after the offer.
    pub fn request_boot_server(&self, options: &[(u8, &[u8])]) -> Option<Answer> {
        self.request_boot_server_at(Ipv4Addr::new(10, 77, 0, 2), options)
    }

    /// The same, at another of the appliance's addresses.
    pub fn request_boot_server_at(&self, at: Ipv4Addr, options: &[(u8, &[u8])]) -> Option<Answer> {
        let socket = self.socket(4011);
        let datagram = self.datagram(3, self.address, options);
        socket.send_to(&datagram, (at, 4011)).expect("the LAN is up");
        receive(&socket)
    }

    /// A DHCP message of this type in its name.
    pub fn datagram(&self, kind: u8, ciaddr: Ipv4Addr, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut datagram = vec![0; 240];
        datagram[..3].copy_from_slice(&[1, 1, 6]);
        datagram[4..8].copy_from_slice(b"boot");
        datagram[12..16].copy_from_slice(&ciaddr.octets());
        datagram[28..34].copy_from_slice(&self.mac);
        datagram[236..].copy_from_slice(&[99, 130, 83, 99]);
        let own: [(u8, &[u8]); 1] = [(53, &[kind])];
        for (code, data) in own.iter().chain(options) {
            datagram.extend([*code, u8::try_from(data.len()).expect("it is short")]);
            datagram.extend(*data);
        }
        datagram.push(255);
        datagram
    }

    /// Sends the appliance DISCOVERs as a relay does, each of another machine, with this `giaddr`; how many are answered
    /// here.
    pub fn relay(&self, giaddr: Ipv4Addr, count: u8, options: &[(u8, &[u8])]) -> usize {
        let socket = self.socket(67);
        socket.set_read_timeout(Some(Duration::from_millis(300))).expect("it is a socket");
        for number in 0..count {
            let mut datagram = self.datagram(1, Ipv4Addr::UNSPECIFIED, options);
            datagram[24..28].copy_from_slice(&giaddr.octets());
            datagram[33] = number;
            socket.send_to(&datagram, ("10.77.0.2", 67)).expect("the LAN is up");
        }
        std::iter::from_fn(|| receive(&socket)).count()
    }

    /// Fetches a URL with curl, which must succeed.
    pub fn fetch(&self, url: &str) -> Vec<u8> {
        let output = self.curl(&["--fail", url]);
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Runs curl.
    pub fn curl(&self, arguments: &[&str]) -> Output {
        let mut curl = inside(&self.namespace, &packaged("/usr/bin/curl", "curl"));
        let always = ["--silent", "--show-error", "--max-time", "60"];
        curl.args(always).args(arguments).output().expect("curl runs")
    }
}

fn receive(socket: &UdpSocket) -> Option<Answer> {
    loop {
        let mut buffer = vec![0; 2048];
        let (len, from) = socket.recv_from(&mut buffer).ok()?;
        buffer.truncate(len);
        // What is broadcast to others is not ours.
        match from {
            std::net::SocketAddr::V4(from) if buffer.get(4..8) == Some(b"boot") => {
                return Some(Answer { from, datagram: buffer });
            }
            _ => {}
        }
    }
}

/// The smallest file that is a UEFI program for this PE machine type, and tells itself from others.
pub fn uefi_program(machine: u16, mark: &str) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[..2].copy_from_slice(b"MZ");
    file[60] = 64;
    file.extend(b"PE\0\0");
    file.extend(machine.to_le_bytes());
    file.extend(mark.as_bytes());
    file.extend((0..100_000_u32).flat_map(u32::to_le_bytes));
    file
}
