//! Walks the way of a machine, step by step.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use tokio::net::UdpSocket;
use tokio::time::timeout_at;

use super::download::{Action, Broken, Download, Fetched, Wish};
use super::journey::{At, Failure, Journey, Step};
use super::machine::{Asker, Firmware, Heard, Machine, Named};
use super::payload::{Kernel, beginning, packing};
use super::script::{Deed, End, Run};
use super::web::{Agent, Much, Web};
use crate::boot::omni::redacted;
use crate::dhcp::packet::Offer;
use crate::interfaces::Interface;
use crate::ports::{Protocol, explain, holder};
use crate::udp::Udp;

/// How long each DISCOVER waits for an offer.
const PATIENCE: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long others may take to offer something too.
const OTHERS: Duration = Duration::from_millis(250);
/// How many scripts may lead to one another.
const MOST_SCRIPTS: usize = 10;
/// The most that a TFTP transfer may take.
const LONGEST_TRANSFER: Duration = Duration::from_mins(2);

/// The way of one machine.
struct Walk<'a, Tell> {
    machine: &'a Machine,
    interface: &'a Interface,
    web: Web,
    steps: Vec<Step>,
    tell: Tell,
}

/// Plays a machine on this interface. Each step is told when it is done.
///
/// # Errors
/// Why it cannot be played at all.
pub async fn walk(
    machine: &Machine,
    interface: &Interface,
    tell: impl FnMut(&Step),
) -> Result<Journey, String> {
    let web = Web::new().map_err(|error| format!("cannot set up an HTTP client: {error}"))?;
    let socket = listen()?;
    let mut walk = Walk { machine, interface, web, steps: Vec::new(), tell };
    let end = walk.go(&socket).await;
    Ok(Journey { steps: walk.steps, end })
}

/// Port 68, where offers are broadcast to.
fn listen() -> Result<Udp, String> {
    const CLIENT_PORT: u16 = 68;
    let instead =
        ", unless this host has its own address from it: then ask from another host of the LAN";
    Udp::bind_beside_others(Ipv4Addr::BROADCAST, CLIENT_PORT)
        .map_err(|error| explain((Protocol::Udp, CLIENT_PORT), instead, &error))
}

/// A transaction id that nobody else uses now.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn xid() -> u32 {
    (random() >> 32) as u32
}

impl<Tell: FnMut(&Step)> Walk<'_, Tell> {
    fn done(&mut self, at: At, told: String, (notes, took): (Vec<String>, Duration)) {
        let step = Step { at, told, notes, took };
        (self.tell)(&step);
        self.steps.push(step);
    }

    /// All of it; what the machine then does.
    async fn go(&mut self, socket: &Udp) -> Result<String, Failure> {
        let mut named = self.offer(socket, Asker::Firmware).await?;
        if self.machine.firmware != Firmware::Ipxe || !is_url(&named.boot_file) {
            self.nbp(&named).await?;
            named = self.offer(socket, Asker::FetchedIpxe).await?;
        }
        if !is_url(&named.boot_file) {
            return Err(Failure {
                at: At::IpxeOffer,
                reason: format!("{} offers the iPXE `{}`", named.server, named.boot_file),
                waited_for: "the URL of the machine's script".to_owned(),
                look_at: vec![format!(
                    "{} leads the iPXE back to an NBP: is it reveille? `reveille doctor --dhcp` tells who answers",
                    named.server
                )],
            });
        }
        self.scripts(named.boot_file).await
    }

    /// Asks who boots the machine, and takes the first offer.
    async fn offer(&mut self, socket: &Udp, asker: Asker) -> Result<Named, Failure> {
        let at = match (asker, self.machine.firmware) {
            (Asker::Firmware, Firmware::Bios | Firmware::Uefi | Firmware::UefiHttp) => At::Offer,
            (Asker::FetchedIpxe, _) | (Asker::Firmware, Firmware::Ipxe) => At::IpxeOffer,
        };
        let failed = |reason: String, look_at| Failure {
            at,
            reason,
            waited_for: format!(
                "an offer with a boot file and no address (proxyDHCP), with `{}` as its option 60",
                self.machine.takes_class(asker)
            ),
            look_at,
        };
        let Ears { boots, leases, others } =
            self.discover(socket, asker).await.map_err(|error| {
                failed(error, vec!["the interface: is it up, with a cable in it?".to_owned()])
            })?;
        let mut boots = boots.into_iter();
        let Some((named, took)) = boots.next() else {
            let waited: Duration = PATIENCE.iter().sum();
            let reason = format!("no such offer came within {} s", waited.as_secs());
            return Err(failed(reason, self.why_silent(&leases, &others)));
        };
        let mut notes: Vec<String> = boots
            .map(|(other, _)| {
                format!(
                    "{} offers `{}` too; the first offer was taken",
                    other.server, other.boot_file
                )
            })
            .collect();
        notes.extend(others.iter().map(|(server, why)| {
            format!("an offer of {server} without an address was left: {why}")
        }));
        let whose = if self.is_here(named.server) { " (this host)" } else { "" };
        let told = format!("{} from {}{whose}", named.boot_file, named.server);
        self.done(at, told, (notes, took));
        Ok(named)
    }

    async fn discover(&self, socket: &Udp, asker: Asker) -> Result<Ears, String> {
        let xid = xid();
        // Every offer that a daemon on this host broadcasts comes here too.
        socket.keep_only(4, (xid, u32::MAX)).map_err(|error| format!("filtering: {error}"))?;
        let discover = self.machine.discover(asker, xid);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let from = (self.interface.addresses[0].0, self.interface.index);
        let (mut ears, start) = (Ears::default(), Instant::now());
        for patience in PATIENCE {
            socket
                .send(&discover, to, from)
                .await
                .map_err(|error| format!("a DISCOVER cannot be sent: {error}"))?;
            let mut until = Instant::now() + patience;
            let mut buffer = [0; 2048];
            while let Ok(received) = timeout_at(until.into(), socket.receive(&mut buffer)).await {
                let received = received.map_err(|error| format!("listening: {error}"))?;
                let Ok(offer) = Offer::decode(&buffer[..received.len]) else { continue };
                if received.interface != self.interface.index || offer.xid != xid {
                    continue;
                }
                let class = self.machine.takes_class(asker);
                ears.hear(Heard::new(&offer, *received.from.ip(), class), start.elapsed());
                if ears.boots.len() == 1 {
                    until = until.min(Instant::now() + OTHERS);
                }
            }
            if !ears.boots.is_empty() {
                break;
            }
        }
        Ok(ears)
    }

    fn why_silent(&self, leases: &[Ipv4Addr], others: &[(Ipv4Addr, &'static str)]) -> Vec<String> {
        let mut look_at = Vec::new();
        look_at.extend(
            others.iter().map(|(server, why)| {
                format!("{server} offers no address, but is not taken: {why}")
            }),
        );
        if holder(Protocol::Udp, 67).is_none() {
            look_at.push(
                "nobody on this host has UDP port 67: if reveille is to run here, start it (`reveille serve`)"
                    .to_owned(),
            );
        }
        look_at.push(format!(
            "the log of the daemon: where it deliberately gives no answer, it says why, as of a `simulation of` {}",
            self.machine.mac
        ));
        look_at.push(match leases {
            [] => format!(
                "the LAN: nobody at all answered on {}, no DHCP server either; another VLAN, a firewall (UDP 67 and 68), or a switch that drops DHCP",
                self.interface.name
            ),
            [server, ..] => format!(
                "the config: `server.dhcp` must not be off, and `server.interfaces` name this LAN, on which the DHCP server {server} answered; `reveille doctor --dhcp` on the daemon's host tells more"
            ),
        });
        look_at
    }

    fn is_here(&self, address: Ipv4Addr) -> bool {
        self.interface.own_addresses().any(|own| own == address)
    }

    /// Fetches the NBP, as the firmware does.
    async fn nbp(&mut self, named: &Named) -> Result<(), Failure> {
        if self.machine.firmware == Firmware::UefiHttp {
            return self.http_boot(&named.boot_file).await;
        }
        // Who is not told to just download asks the boot server, and takes what that names.
        let named = if named.is_final || self.machine.firmware == Firmware::Ipxe {
            named.clone()
        } else {
            self.boot_server(named).await?
        };
        let server = named.next_server;
        let start = Instant::now();
        let fetched =
            match self.machine.firmware {
                Firmware::Bios | Firmware::Ipxe => {
                    self.tftp(server, &named.boot_file, Wish::Bios).await
                }
                Firmware::Uefi | Firmware::UefiHttp => {
                    match self.tftp(server, &named.boot_file, Wish::UefiSize).await {
                        Ok(size) => self.tftp(server, &named.boot_file, Wish::Uefi).await.and_then(
                            |fetched| match size.tsize.filter(|tsize| *tsize != fetched.bytes) {
                                None => Ok(Fetched { tsize: size.tsize, ..fetched }),
                                Some(tsize) => {
                                    Err(Broken::WrongSize { bytes: fetched.bytes, tsize }
                                        .to_string())
                                }
                            },
                        ),
                        Err(broken) => Err(broken),
                    }
                }
            };
        let fetched = fetched.map_err(|reason| Failure {
            at: At::Tftp,
            reason,
            waited_for: format!("{} from {server}, UDP port 69", named.boot_file),
            look_at: vec![
                "the log of the daemon, and `reveille nbps` on its host: is the file there?".to_owned(),
                format!("firewalls between here and {server}: UDP 69, and any UDP port from which the blocks come"),
            ],
        })?;
        let granted: Vec<String> =
            fetched.granted.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let granted = if granted.is_empty() { "no options".to_owned() } else { granted.join(", ") };
        let mut notes = Vec::new();
        if fetched.resent > 0 || fetched.out_of_order > 0 {
            notes.push(format!(
                "{} requests were said again, and {} blocks came out of order: packets are lost on the way",
                fetched.resent, fetched.out_of_order
            ));
        }
        let told = format!("{}: {} bytes ({granted})", named.boot_file, fetched.bytes);
        self.done(At::Tftp, told, (notes, start.elapsed()));
        Ok(())
    }

    /// Asks on port 4011, from this host's own address.
    async fn boot_server(&mut self, offered: &Named) -> Result<Named, Failure> {
        let to = SocketAddrV4::new(offered.next_server, 4011);
        let failed = |reason: String| Failure {
            at: At::BootServer,
            reason,
            waited_for: format!("an ACK with a boot file from {to}"),
            look_at: vec![
                format!("firewalls between here and {}: UDP 4011", to.ip()),
                "the log of the daemon".to_owned(),
            ],
        };
        let local = self.address_towards(*to.ip());
        let socket = UdpSocket::bind((local, 0))
            .await
            .map_err(|error| failed(format!("no port can be had at {local}: {error}")))?;
        let (xid, start) = (xid(), Instant::now());
        let request = self.machine.request(local, xid);
        for patience in PATIENCE {
            socket
                .send_to(&request, to)
                .await
                .map_err(|error| failed(format!("a REQUEST cannot be sent: {error}")))?;
            let until = Instant::now() + patience;
            let mut buffer = [0; 2048];
            while let Ok(received) = timeout_at(until.into(), socket.recv_from(&mut buffer)).await {
                let Ok((len, SocketAddr::V4(from))) = received else { continue };
                let ack = Offer::decode_ack(&buffer[..len]).ok().filter(|ack| ack.xid == xid);
                let class = self.machine.takes_class(Asker::Firmware);
                match ack.map(|ack| Heard::new(&ack, *from.ip(), class)) {
                    Some(Heard::Boots(named)) => {
                        let told = format!("{} from {from}", named.boot_file);
                        self.done(At::BootServer, told, (Vec::new(), start.elapsed()));
                        return Ok(named);
                    }
                    Some(Heard::Other(_, why)) => {
                        return Err(failed(format!("the ACK is not taken: {why}")));
                    }
                    Some(Heard::Lease(_)) | None => {}
                }
            }
        }
        let waited: Duration = PATIENCE.iter().sum();
        Err(failed(format!("no answer within {} s", waited.as_secs())))
    }

    /// The address of ours that a server is asked from.
    fn address_towards(&self, server: Ipv4Addr) -> Ipv4Addr {
        let on_its_lan = |(own, mask): &&(Ipv4Addr, Ipv4Addr)| *own & *mask == server & *mask;
        let addresses = &self.interface.addresses;
        addresses.iter().find(on_its_lan).unwrap_or(&addresses[0]).0
    }

    /// One TFTP transfer.
    async fn tftp(&self, server: Ipv4Addr, file: &str, wish: Wish) -> Result<Fetched, String> {
        let local = self.address_towards(server);
        let socket = UdpSocket::bind((local, 0))
            .await
            .map_err(|error| format!("no port can be had at {local}: {error}"))?;
        let start = Instant::now();
        let mut download = Download::new(file, wish, start);
        let mut peer = SocketAddr::from((server, 69));
        let mut buffer = vec![0; 1 << 16];
        loop {
            match download.poll() {
                Action::Send(datagram) => {
                    socket
                        .send_to(&datagram, peer)
                        .await
                        .map_err(|error| format!("{peer} cannot be reached: {error}"))?;
                }
                Action::Done(end) => return end.map_err(|broken| broken.to_string()),
                Action::Wait(_) if start.elapsed() > LONGEST_TRANSFER => {
                    return Err(format!("it takes more than {} s", LONGEST_TRANSFER.as_secs()));
                }
                Action::Wait(until) => {
                    match timeout_at(until.into(), socket.recv_from(&mut buffer)).await {
                        Err(_) => download.handle_timeout(Instant::now()),
                        // An ICMP error, as where nobody has the port: the time-out tells it.
                        Ok(Err(_)) => tokio::time::sleep_until(until.into()).await,
                        Ok(Ok((len, from))) => {
                            let is_its = if download.is_answered() {
                                from == peer
                            } else {
                                from.ip() == peer.ip()
                            };
                            if is_its {
                                peer = from;
                                download.handle(&buffer[..len], Instant::now());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Fetches the NBP as UEFI HTTP Boot does.
    async fn http_boot(&mut self, url: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Uefi, Much::All).await;
        let got = got.and_then(|got| match got.of {
            Some(of) if of == got.bytes => Ok(got),
            Some(of) => Err(format!("{} bytes came, and the server said {of}", got.bytes)),
            None => Err("the server does not tell the file's size (Content-Length)".to_owned()),
        });
        let got = got.and_then(|got| match Kernel::of(&got.kept) {
            Some(Kernel::Efi(_) | Kernel::BzImage { has_efi_stub: true, .. }) => Ok(got),
            Some(_) | None => {
                Err(format!("it is no UEFI program: it begins with {}", beginning(&got.kept)))
            }
        });
        let got = got.map_err(|reason| self.not_fetched(At::HttpBoot, url, reason))?;
        let told = format!("{url}: {} bytes", got.bytes);
        self.done(At::HttpBoot, told, (Vec::new(), start.elapsed()));
        Ok(())
    }

    fn not_fetched(&self, at: At, url: &str, reason: String) -> Failure {
        Failure {
            at,
            reason,
            waited_for: redacted(url).into_owned(),
            look_at: vec![
                "the log of the daemon".to_owned(),
                "whether a firewall lets this host come in at the TCP port of the URL".to_owned(),
            ],
        }
    }

    /// Runs the script, and those that it leads to.
    async fn scripts(&mut self, first: String) -> Result<String, Failure> {
        let mut url = first;
        for _ in 0..MOST_SCRIPTS {
            let start = Instant::now();
            let got = self.web.get(&url, Agent::Ipxe, Much::Script).await;
            let got = got.map_err(|reason| self.not_fetched(At::Script, &url, reason))?;
            let took = start.elapsed();
            let text = String::from_utf8_lossy(&got.kept);
            let Some(mut run) = Run::new(&text, self.machine) else {
                return self.program(&url, &got.kept, (got.of, took));
            };
            let told = format!("{}: {} bytes", redacted(&url), got.bytes);
            self.done(At::Script, told, (Vec::new(), took));
            match self.script(&mut run, &url).await? {
                Next::Script(next) => url = next,
                Next::End(end) => return Ok(end),
            }
        }
        Err(Failure {
            at: At::Script,
            reason: format!("{MOST_SCRIPTS} scripts lead to one another"),
            waited_for: "a script that boots something".to_owned(),
            look_at: vec!["the `chain` commands of the boot scripts".to_owned()],
        })
    }

    /// A script has led to something else.
    fn program(
        &mut self,
        url: &str,
        head: &[u8],
        (of, took): (Option<u64>, Duration),
    ) -> Result<String, Failure> {
        let size = of.map_or_else(String::new, |of| format!(", {}", HumanBytes(of)));
        let what = match Kernel::of(head) {
            Some(program) => match program.misfit(self.machine.firmware) {
                Some(misfit) => {
                    let reason = format!("it is a {program}; {misfit}");
                    return Err(self.not_fetched(At::Program, url, reason));
                }
                None => program.to_string(),
            },
            // Any bytes are a program to a BIOS.
            None if self.machine.firmware.platform() == "pcbios" => "an NBP for BIOS".to_owned(),
            None => {
                let reason = format!(
                    "it is neither a script nor a UEFI program: it begins with {}",
                    beginning(head)
                );
                return Err(self.not_fetched(At::Program, url, reason));
            }
        };
        self.done(At::Program, format!("{}: {what}{size}", redacted(url)), (Vec::new(), took));
        Ok(format!("goes over to {}", redacted(url)))
    }

    /// Runs one script.
    async fn script(&mut self, run: &mut Run, at: &str) -> Result<Next, Failure> {
        loop {
            match run.go_on() {
                Deed::Kernel { url, cmdline } => self.kernel(&absolute(&url, at), &cmdline).await?,
                Deed::Initrd { url } => self.initrd(&absolute(&url, at)).await?,
                Deed::Chain { url, has_waited } => {
                    let url = absolute(&url, at);
                    if has_waited && same_path(&url, at) {
                        return Err(refused(run.echoed()));
                    }
                    return Ok(Next::Script(url));
                }
                Deed::End(end) => return ended(end, run.echoed()).map(Next::End),
            }
        }
    }

    async fn kernel(&mut self, url: &str, cmdline: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Ipxe, Much::Head).await;
        let got = got.map_err(|reason| self.not_fetched(At::Kernel, url, reason))?;
        let took = start.elapsed();
        let size = self.size(At::Kernel, url, got.of)?;
        let kernel = Kernel::of(&got.kept).ok_or_else(|| {
            let begins = beginning(&got.kept);
            let reason = format!("it is no kernel that iPXE can start: it begins with {begins}");
            self.wrong_file(At::Kernel, url, reason)
        })?;
        if let Some(misfit) = kernel.misfit(self.machine.firmware) {
            let reason = format!("it is a {kernel}; {misfit}");
            return Err(self.wrong_file(At::Kernel, url, reason));
        }
        let notes = vec![format!("its command line: {}", redacted(cmdline))];
        self.done(At::Kernel, format!("{kernel}, {size}"), (notes, took));
        Ok(())
    }

    async fn initrd(&mut self, url: &str) -> Result<(), Failure> {
        let start = Instant::now();
        let got = self.web.get(url, Agent::Ipxe, Much::Head).await;
        let got = got.map_err(|reason| self.not_fetched(At::Initrd, url, reason))?;
        let size = self.size(At::Initrd, url, got.of)?;
        let packing = packing(&got.kept)
            .map_or_else(|| format!("begins with {}", beginning(&got.kept)), str::to_owned);
        let file = url.split('?').next().unwrap_or(url).rsplit('/').next().unwrap_or(url);
        let told = format!("{file}: {packing}, {size}");
        self.done(At::Initrd, told, (Vec::new(), start.elapsed()));
        Ok(())
    }

    fn size(&self, at: At, url: &str, of: Option<u64>) -> Result<HumanBytes, Failure> {
        let of = of.ok_or_else(|| "the server does not tell its size".to_owned());
        let of = of.and_then(|of| if of > 0 { Ok(of) } else { Err("it is empty".to_owned()) });
        of.map(HumanBytes).map_err(|reason| self.wrong_file(at, url, reason))
    }

    fn wrong_file(&self, at: At, url: &str, reason: String) -> Failure {
        Failure {
            look_at: vec!["the file that the config names for it, under `images`".to_owned()],
            ..self.not_fetched(at, url, reason)
        }
    }
}

/// What was heard.
#[derive(Debug, Default)]
struct Ears {
    boots: Vec<(Named, Duration)>,
    leases: Vec<Ipv4Addr>,
    others: Vec<(Ipv4Addr, &'static str)>,
}

impl Ears {
    /// Who answers each DISCOVER counts once.
    fn hear(&mut self, heard: Heard, after: Duration) {
        match heard {
            Heard::Boots(named) if self.boots.iter().all(|(known, _)| *known != named) => {
                self.boots.push((named, after));
            }
            Heard::Lease(server) if !self.leases.contains(&server) => self.leases.push(server),
            Heard::Other(server, why) if !self.others.contains(&(server, why)) => {
                self.others.push((server, why));
            }
            Heard::Boots(_) | Heard::Lease(_) | Heard::Other(..) => {}
        }
    }
}

/// Where a script leads.
enum Next {
    Script(String),
    End(String),
}

fn is_url(boot_file: &str) -> bool {
    boot_file.starts_with("http://") || boot_file.starts_with("https://")
}

/// A URL in the script that came from `at`.
fn absolute(url: &str, at: &str) -> String {
    let base = reqwest::Url::parse(at);
    base.and_then(|base| base.join(url)).map_or_else(|_| url.to_owned(), Into::into)
}

fn same_path(url: &str, at: &str) -> bool {
    url.split('?').next() == at.split('?').next()
}

/// The script says why it boots nothing, waits and asks again.
fn refused(echoed: &[String]) -> Failure {
    Failure {
        at: At::Script,
        reason: format!("the machine is refused; its console shows: {}", echoed.join(" / ")),
        waited_for: "a script that boots something".to_owned(),
        look_at: vec!["what the console shows names what is missing; `reveille check` and the daemon's log say where".to_owned()],
    }
}

/// What the machine does at the end of its script.
fn ended(end: End, echoed: &[String]) -> Result<String, Failure> {
    let failed = |reason: String| Failure {
        at: At::Script,
        reason,
        waited_for: "a script that boots something".to_owned(),
        look_at: vec!["the boot script's template".to_owned()],
    };
    let said = match echoed {
        [] => String::new(),
        _ => format!(", after its console shows: {}", echoed.join(" / ")),
    };
    match end {
        End::Boots => Ok("boots this kernel".to_owned()),
        End::Menu { title, items, default } => {
            let then = default.map_or_else(
                || "and waits for somebody".to_owned(),
                |label| format!("and takes `{label}` when nobody chooses"),
            );
            Ok(format!("shows the menu `{title}` ({}) {then}", items.join(", ")))
        }
        End::Disk(drive) => Ok(format!("starts its disk {drive} from iPXE{said}")),
        End::Firmware => Ok(format!("goes back to its firmware, for its local disk{said}")),
        End::Waits => Ok(format!("waits for somebody{said}")),
        End::Power(what) => Ok(format!("{what}{said}")),
        End::Endless => Err(failed("it goes round and round without booting anything".to_owned())),
        End::NoLabel(label) => Err(failed(format!("it has no label `{label}` to go to"))),
    }
}
