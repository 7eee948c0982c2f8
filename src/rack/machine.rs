//! A machine: its firmware, the NBP that it loads, the script that it runs and the system that it starts.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::datagram::{Asker, DISCOVER, Message, REQUEST, Reply};
use super::rng::Rng;
use super::script;
use super::site::{Firmware, Loader, RELAY, SECRET, SPECS, STATIC, Spec, US, card, lease};
use crate::pure::client::Mac;
use crate::pure::dhcp::arrival::Port;
use crate::simulate::script::{Deed, End};

/// One second.
pub(super) const SECOND: u64 = 1000;
/// How often firmware asks before it tries its next device.
const MOST_TRIES: u32 = 3;

/// What leaves a machine.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Dhcp {
        port: Port,
        datagram: Vec<u8>,
        from: Ipv4Addr,
    },
    /// A request for a file over TFTP, or for its size only.
    Rrq {
        name: String,
        from: Ipv4Addr,
        is_probe: bool,
    },
    Get {
        url: String,
        from: Ipv4Addr,
        is_ipxe: bool,
    },
}

/// What reaches a machine.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Reply(Reply),
    Text(String),
    /// A file, whole.
    File,
    /// The server says no.
    Refused,
    /// The connection broke, or could not be made.
    Lost,
}

/// What a machine does about something.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Send(Packet),
    /// Something is due so many milliseconds from now, unless the machine does something else by then.
    Timer(u64),
    /// A kernel runs.
    Started(System),
    /// iPXE has all that it boots, and the kernel does not start.
    KernelFailed,
}

/// What a machine runs at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Installer,
    Talos,
    Rescue,
    Disk,
}

/// What a script does after a pause.
#[derive(Clone, Debug)]
enum Next {
    Script(String),
    /// DHCP, then this script.
    Lease(String),
    Part,
    /// The first disk; if that fails, this script.
    Sanboot(Option<String>),
    Exit,
    /// The menu: a script by the user's choice.
    Chosen(Option<String>),
}

#[derive(Clone, Debug)]
enum Doing {
    Off,
    Resets,
    Asks { asker: Asker, tries: u32, xid: u32, then: Option<String> },
    Leases { boot_file: String, is_final: bool, then: Option<String> },
    AsksBootServer { boot_file: String, tries: u32, xid: u32 },
    Probes { boot_file: String },
    Loads { boot_file: String, tries: u32 },
    Starts,
    FetchesAutoexec,
    FetchesPxelinuxConfig,
    FetchesScript { url: String, is_first: bool },
    FetchesPart,
    Pauses(Next),
    FetchesAnswers { tries: u32 },
    Installs,
    Runs(System),
    Stuck,
}

/// A machine.
#[derive(Debug)]
pub(super) struct Machine {
    number: usize,
    pub(super) spec: Spec,
    /// Counts what it does: an answer to something earlier is not heard.
    pub(super) turn: u32,
    doing: Doing,
    /// Which of its boot devices is tried: a card, or behind them the disk.
    device: u8,
    /// The script that it runs.
    text: String,
    parts: VecDeque<String>,
    /// The parts that its script boots; none if it runs no script.
    boots: Vec<String>,
    cmdline: String,
    /// Whether its disk boots.
    pub(super) has_system: bool,
    /// Whether what is installed on its disk never boots.
    pub(super) is_broken: bool,
    /// How often its kernel will not start.
    kernel_faults: u32,
    /// Whether nothing disturbs it any more.
    pub(super) is_quiet: bool,
}

impl Machine {
    pub(super) fn new(number: usize, rng: &mut Rng) -> Self {
        let spec = SPECS[number];
        Self {
            number,
            spec,
            turn: 0,
            doing: Doing::Off,
            device: 0,
            text: String::new(),
            parts: VecDeque::new(),
            boots: Vec::new(),
            cmdline: String::new(),
            has_system: spec.profile.is_none() || rng.chance(20),
            is_broken: rng.chance(6),
            // Over TFTP it could not report that, and the boot would count.
            kernel_faults: if rng.chance(10) && spec.loader != Loader::OverTftp {
                1 + u32::from(rng.chance(20))
            } else {
                0
            },
            is_quiet: false,
        }
    }

    /// What it runs, if it runs a system.
    pub(super) fn runs(&self) -> Option<System> {
        match self.doing {
            Doing::Runs(system) => Some(system),
            Doing::FetchesAnswers { .. } | Doing::Installs => Some(System::Installer),
            Doing::Off
            | Doing::Resets
            | Doing::Asks { .. }
            | Doing::Leases { .. }
            | Doing::AsksBootServer { .. }
            | Doing::Probes { .. }
            | Doing::Loads { .. }
            | Doing::Starts
            | Doing::FetchesAutoexec
            | Doing::FetchesPxelinuxConfig
            | Doing::FetchesScript { .. }
            | Doing::FetchesPart
            | Doing::Pauses(_)
            | Doing::Stuck => None,
        }
    }

    /// Whether it is on and runs no system yet.
    pub(super) fn is_booting(&self) -> bool {
        self.runs().is_none() && !matches!(self.doing, Doing::Off | Doing::Stuck)
    }

    pub(super) fn is_off(&self) -> bool {
        matches!(self.doing, Doing::Off)
    }

    /// What it does, in words for the trace.
    pub(super) fn does(&self) -> String {
        format!("{:?}", self.doing)
    }

    /// The card that it boots from.
    pub(super) fn card(&self) -> Mac {
        card(self.number, self.device.min(self.spec.cards - 1))
    }

    /// The address of that card.
    pub(super) fn address(&self) -> Ipv4Addr {
        lease(self.number, self.device.min(self.spec.cards - 1))
    }

    fn is_uefi(&self) -> bool {
        matches!(self.spec.firmware, Firmware::Uefi | Firmware::HttpBoot)
    }

    pub(super) fn power_off(&mut self) {
        self.turn += 1;
        self.doing = Doing::Off;
    }

    pub(super) fn power_on(&mut self, rng: &mut Rng) -> Vec<Output> {
        self.device = 0;
        self.wait(Doing::Resets, rng.within(5 * SECOND..40 * SECOND))
    }

    fn wait(&mut self, doing: Doing, time: u64) -> Vec<Output> {
        self.turn += 1;
        self.doing = doing;
        vec![Output::Timer(time)]
    }

    fn send(&mut self, doing: Doing, packet: Packet, patience: u64) -> Vec<Output> {
        let timer = self.wait(doing, patience);
        [Output::Send(packet)].into_iter().chain(timer).collect()
    }

    fn message(&self, kind: u8, asker: Asker, xid: u32) -> Message {
        let none = Ipv4Addr::UNSPECIFIED;
        let relay = self.spec.is_relayed.then_some(RELAY);
        let (mac, is_uefi) = (self.card(), self.is_uefi());
        Message { kind, asker, is_uefi, mac, xid, ciaddr: none, takes: None, relay }
    }

    fn broadcast(&self, message: Message) -> Packet {
        let from = if self.spec.is_relayed { RELAY } else { Ipv4Addr::UNSPECIFIED };
        Packet::Dhcp { port: Port::Dhcp, datagram: message.encode(), from }
    }

    /// Begins with the boot device whose turn it is.
    fn begin(&mut self, rng: &mut Rng) -> Vec<Output> {
        if self.device >= self.spec.cards {
            if self.has_system {
                return self.run(System::Disk);
            }
            return self.power_on(rng);
        }
        let asker = match self.spec.firmware {
            Firmware::Bios => Asker::Bios,
            Firmware::Uefi => Asker::Uefi,
            Firmware::HttpBoot => Asker::HttpBoot,
            Firmware::RomIpxe => Asker::Ipxe,
        };
        self.ask((asker, None), rng)
    }

    fn next_device(&mut self, rng: &mut Rng) -> Vec<Output> {
        self.device += 1;
        self.begin(rng)
    }

    fn ask(&mut self, (asker, then): (Asker, Option<String>), rng: &mut Rng) -> Vec<Output> {
        let xid = u32::try_from(rng.next() >> 32).expect("it is 32 bits");
        let packet = self.broadcast(self.message(DISCOVER, asker, xid));
        self.send(Doing::Asks { asker, tries: 1, xid, then }, packet, 4 * SECOND)
    }

    /// Takes a reply or a response.
    pub(super) fn hear(&mut self, heard: Heard, rng: &mut Rng) -> Vec<Output> {
        match (self.doing.clone(), heard) {
            (Doing::Asks { asker, xid, then, .. }, Heard::Reply(reply)) if reply.xid == xid => {
                let takes = Some(self.address());
                let request = Message { takes, ..self.message(REQUEST, asker, xid) };
                let Reply { boot_file, is_final, .. } = reply;
                let packet = self.broadcast(request);
                let leases = Doing::Leases { boot_file, is_final, then };
                self.send(leases, packet, rng.within(200..1500))
            }
            (Doing::AsksBootServer { xid, .. }, Heard::Reply(reply)) if reply.xid == xid => {
                let (name, from) = (reply.boot_file.clone(), self.address());
                let packet = Packet::Rrq { name, from, is_probe: true };
                self.send(Doing::Probes { boot_file: reply.boot_file }, packet, SECOND)
            }
            (Doing::Probes { boot_file }, Heard::File | Heard::Refused) => self.load(boot_file, 1),
            (Doing::Loads { .. }, Heard::File) => {
                self.wait(Doing::Starts, rng.within(SECOND..6 * SECOND))
            }
            (Doing::Loads { .. }, Heard::Refused | Heard::Lost) => self.next_device(rng),
            (Doing::FetchesAutoexec, Heard::Text(text)) => self.run_script(text, rng),
            (Doing::FetchesAutoexec, Heard::Refused) => self.ask((Asker::Ipxe, None), rng),
            (Doing::FetchesPxelinuxConfig, Heard::Refused) => {
                let parts = ["images/debian/kernel", "images/debian/initrd"];
                self.parts = parts.into_iter().map(str::to_owned).collect();
                (self.boots, self.cmdline) = (Vec::new(), String::new());
                self.fetch_part()
            }
            (Doing::FetchesScript { .. }, Heard::Text(text)) => self.run_script(text, rng),
            (Doing::FetchesScript { is_first: true, .. }, Heard::Refused | Heard::Lost) => {
                self.next_device(rng)
            }
            (Doing::FetchesScript { url, .. }, Heard::Refused | Heard::Lost) => self.retry(url),
            (Doing::FetchesPart, Heard::File) => {
                self.parts.pop_front();
                self.fetch_part()
            }
            (Doing::FetchesPart, Heard::Refused | Heard::Lost) => {
                self.wait(Doing::Pauses(Next::Part), 10 * SECOND)
            }
            (Doing::FetchesAnswers { .. }, Heard::Text(text)) if text.contains(SECRET) => {
                self.wait(Doing::Installs, rng.within(100 * SECOND..240 * SECOND))
            }
            _ => Vec::new(),
        }
    }

    /// Time is up.
    pub(super) fn time_out(&mut self, rng: &mut Rng) -> Vec<Output> {
        match self.doing.clone() {
            Doing::Off | Doing::Stuck => Vec::new(),
            Doing::Resets => self.begin(rng),
            Doing::Asks { asker, tries, xid, then } if tries < MOST_TRIES => {
                let packet = self.broadcast(self.message(DISCOVER, asker, xid));
                let patience = (4 * SECOND) << tries;
                self.send(Doing::Asks { asker, tries: tries + 1, xid, then }, packet, patience)
            }
            Doing::Asks { then: Some(url), .. } => self.fetch_script(url, false),
            Doing::Asks { .. } => self.next_device(rng),
            Doing::Leases { then: Some(url), .. } => self.fetch_script(url, false),
            Doing::Leases { boot_file, .. } if boot_file.contains("/boot/") => {
                self.fetch_script(boot_file, true)
            }
            Doing::Leases { boot_file, is_final, .. } => {
                let asks = self.spec.firmware == Firmware::Uefi && !is_final;
                if asks { self.ask_boot_server(boot_file, 1, rng) } else { self.load(boot_file, 1) }
            }
            Doing::AsksBootServer { boot_file, tries, .. } if tries < MOST_TRIES => {
                self.ask_boot_server(boot_file, tries + 1, rng)
            }
            Doing::AsksBootServer { .. } => self.next_device(rng),
            Doing::Probes { boot_file } => self.load(boot_file, 1),
            Doing::Loads { boot_file, tries } if tries < MOST_TRIES => {
                self.load(boot_file, tries + 1)
            }
            Doing::Loads { .. } => self.next_device(rng),
            Doing::Starts => self.start_nbp(rng),
            Doing::FetchesAutoexec => self.ask((Asker::Ipxe, None), rng),
            Doing::FetchesPxelinuxConfig => self.fetch_pxelinux_config(),
            Doing::FetchesScript { is_first: true, .. } => self.next_device(rng),
            Doing::FetchesScript { url, .. } => self.retry(url),
            Doing::FetchesPart => self.fetch_part(),
            Doing::Pauses(next) => self.go_on(next, rng),
            Doing::FetchesAnswers { tries } if tries < 2 * MOST_TRIES => {
                self.fetch_answers(tries + 1)
            }
            Doing::FetchesAnswers { .. } => self.wait(Doing::Stuck, SECOND),
            Doing::Installs => {
                self.has_system = !self.is_broken;
                self.power_on(rng)
            }
            Doing::Runs(System::Talos) => {
                self.has_system = !self.is_broken;
                if rng.chance(50) { self.power_on(rng) } else { Vec::new() }
            }
            Doing::Runs(System::Installer | System::Rescue | System::Disk) => Vec::new(),
        }
    }

    fn ask_boot_server(&mut self, boot_file: String, tries: u32, rng: &mut Rng) -> Vec<Output> {
        let xid = u32::try_from(rng.next() >> 32).expect("it is 32 bits");
        let address = self.address();
        let message = self.message(REQUEST, Asker::Uefi, xid);
        let message = Message { ciaddr: address, relay: None, ..message };
        let datagram = message.encode();
        let packet = Packet::Dhcp { port: Port::BootServer, datagram, from: address };
        self.send(Doing::AsksBootServer { boot_file, tries, xid }, packet, 3 * SECOND)
    }

    fn load(&mut self, boot_file: String, tries: u32) -> Vec<Output> {
        let from = self.address();
        let packet = if boot_file.starts_with("http://") {
            Packet::Get { url: boot_file.clone(), from, is_ipxe: false }
        } else {
            Packet::Rrq { name: boot_file.clone(), from, is_probe: false }
        };
        self.send(Doing::Loads { boot_file, tries }, packet, 8 * SECOND)
    }

    fn start_nbp(&mut self, rng: &mut Rng) -> Vec<Output> {
        match self.spec.loader {
            Loader::Ipxe => self.ask((Asker::Ipxe, None), rng),
            Loader::Autoexec => {
                let (name, from) = ("autoexec.ipxe".to_owned(), self.address());
                let packet = Packet::Rrq { name, from, is_probe: false };
                self.send(Doing::FetchesAutoexec, packet, 5 * SECOND)
            }
            Loader::OverTftp => {
                let url = format!("tftp://{US}:69/{}.ipxe", self.card().hyphenated());
                self.fetch_script(url, true)
            }
            Loader::Pxelinux => self.fetch_pxelinux_config(),
        }
    }

    fn fetch_pxelinux_config(&mut self) -> Vec<Output> {
        let name = format!("pxelinux.cfg/01-{}", self.card().hyphenated());
        let packet = Packet::Rrq { name, from: self.address(), is_probe: false };
        self.send(Doing::FetchesPxelinuxConfig, packet, 5 * SECOND)
    }

    /// A request for an address of a script, over HTTP or TFTP.
    fn fetch(&self, url: &str) -> Packet {
        let from = self.address();
        match url.strip_prefix(&format!("tftp://{US}:69/")) {
            Some(name) => {
                // Over TFTP iPXE sends nothing that stands behind a `?`.
                let name = name.split('?').next().unwrap_or_default().to_owned();
                Packet::Rrq { name, from, is_probe: false }
            }
            None if url.starts_with("http://") => {
                Packet::Get { url: url.to_owned(), from, is_ipxe: true }
            }
            None => Packet::Rrq { name: url.to_owned(), from, is_probe: false },
        }
    }

    fn fetch_script(&mut self, url: String, is_first: bool) -> Vec<Output> {
        let packet = self.fetch(&url);
        self.send(Doing::FetchesScript { url, is_first }, packet, 8 * SECOND)
    }

    /// What the scripts do if the next one cannot be fetched: a pause, where they say so DHCP, and the same again.
    fn retry(&mut self, url: String) -> Vec<Output> {
        let asks_dhcp = self.text.lines().any(|line| line.starts_with("dhcp"));
        let next = if asks_dhcp { Next::Lease(url) } else { Next::Script(url) };
        self.wait(Doing::Pauses(next), 10 * SECOND)
    }

    fn fetch_part(&mut self) -> Vec<Output> {
        let Some(url) = self.parts.front().cloned() else {
            return self.boot();
        };
        let packet = self.fetch(&url);
        self.send(Doing::FetchesPart, packet, 180 * SECOND)
    }

    fn run_script(&mut self, text: String, rng: &mut Rng) -> Vec<Output> {
        let pause = script::pause(&text) * SECOND;
        let asks_dhcp = text.lines().any(|line| line.starts_with("dhcp"));
        let run = script::run(&text, self.card(), self.spec.firmware);
        self.text = text;
        let Some(mut run) = run else {
            return self.next_device(rng);
        };
        self.parts.clear();
        loop {
            match run.go_on() {
                Deed::Kernel { url, cmdline } => {
                    self.cmdline = cmdline;
                    self.parts.push_back(url);
                }
                Deed::Initrd { url } => self.parts.push_back(url),
                Deed::Chain { url, has_waited } => {
                    let next =
                        if asks_dhcp && has_waited { Next::Lease(url) } else { Next::Script(url) };
                    return self.wait(Doing::Pauses(next), pause + 50);
                }
                Deed::End(end) => return self.end_script(end, pause, rng),
            }
        }
    }

    fn end_script(&mut self, end: End, pause: u64, rng: &mut Rng) -> Vec<Output> {
        match end {
            End::Boots => {
                self.boots = self.parts.iter().cloned().collect();
                self.fetch_part()
            }
            End::Menu { .. } => {
                let chosen = script::chain_behind(&self.text, "profile-rescue");
                let chosen = chosen.filter(|_| rng.chance(25) && !self.is_quiet);
                self.wait(Doing::Pauses(Next::Chosen(chosen)), 30 * SECOND)
            }
            End::Disk(_) => {
                let failed = script::chain_behind(&self.text, "failed");
                self.wait(Doing::Pauses(Next::Sanboot(failed)), pause + SECOND)
            }
            End::Firmware => self.wait(Doing::Pauses(Next::Exit), pause + SECOND),
            End::Waits | End::Power(_) | End::Endless | End::NoLabel(_) => {
                self.wait(Doing::Stuck, SECOND)
            }
        }
    }

    fn go_on(&mut self, next: Next, rng: &mut Rng) -> Vec<Output> {
        match next {
            Next::Script(url) | Next::Chosen(Some(url)) => self.fetch_script(url, false),
            Next::Lease(url) => self.ask((Asker::Ipxe, Some(url)), rng),
            Next::Part => self.fetch_part(),
            Next::Sanboot(_) if self.has_system => self.run(System::Disk),
            Next::Sanboot(Some(url)) => self.fetch_script(url, false),
            Next::Sanboot(None) | Next::Exit | Next::Chosen(None) => self.next_device(rng),
        }
    }

    /// It has all that it boots.
    fn boot(&mut self) -> Vec<Output> {
        let has_script = !self.boots.is_empty();
        if has_script && self.kernel_faults > 0 {
            self.kernel_faults -= 1;
            let url = script::chain_behind(&self.text, "boot_failed");
            let next = url.map_or(Next::Exit, Next::Script);
            let mut outputs = self.wait(Doing::Pauses(next), 60 * SECOND);
            outputs.push(Output::KernelFailed);
            return outputs;
        }
        let system = if self.cmdline.contains("url=http") {
            System::Installer
        } else if self.boots.iter().any(|part| part.contains("images/talos/")) {
            System::Talos
        } else {
            System::Rescue
        };
        let mut outputs = match system {
            System::Installer => {
                self.has_system = false;
                self.wait(Doing::FetchesAnswers { tries: 0 }, 20 * SECOND)
            }
            System::Talos => self.wait(Doing::Runs(system), 120 * SECOND),
            System::Rescue | System::Disk => self.wait(Doing::Runs(system), SECOND),
        };
        outputs.push(Output::Started(system));
        outputs
    }

    fn run(&mut self, system: System) -> Vec<Output> {
        let mut outputs = self.wait(Doing::Runs(system), SECOND);
        outputs.push(Output::Started(system));
        outputs
    }

    fn fetch_answers(&mut self, tries: u32) -> Vec<Output> {
        let words = self.cmdline.split_whitespace();
        let url = words.filter_map(|word| word.strip_prefix("url=")).next().unwrap_or_default();
        let from = if self.spec.is_static { STATIC } else { self.address() };
        let packet = Packet::Get { url: url.to_owned(), from, is_ipxe: false };
        self.send(Doing::FetchesAnswers { tries }, packet, 15 * SECOND)
    }
}
