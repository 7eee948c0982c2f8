//! One run: the events of a seed in their order, the network between machines and server, and its faults.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::datagram::Reply;
use super::machine::{Heard, Machine, Output, Packet, SECOND, System};
use super::neighbour;
use super::rng::Rng;
use super::server::{Asks, Body, Bug, Response, Server};
use super::site::{self, HIS_CARD, MACHINES, NEIGHBOUR, SECRET, SPECS, US};
use super::trace::Trace;
use super::watch::{By, Did, Mode, Watch};
use crate::pure::client::Mac;
use crate::pure::dhcp::arrival::Port;
use crate::pure::event::boot::{Event as Recorded, Step, Subject};
use crate::pure::machine::evidence::{Effect, Neighbour};

const MINUTE: u64 = 60 * SECOND;
/// How long after the last fault every machine is started once more.
const PAUSE: u64 = 3 * MINUTE;
/// How long after that a machine may need to come to its end.
const PATIENCE: u64 = 60 * MINUTE;
/// How often the server looks for stalled boots, and the run for its end.
const LOOK: u64 = 20 * SECOND;

/// Who has sent a request, and where the response goes.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Machine {
        number: usize,
        turn: u32,
    },
    /// A copy of a machine's datagram, which nobody waits for any more.
    Copy(usize),
    Tool(usize),
    Neighbour,
    /// The neighbour, with an address to which he sees nothing.
    Blind,
}

impl Origin {
    fn by(self) -> By {
        match self {
            Self::Machine { number, .. } | Self::Copy(number) => By::Machine(number),
            Self::Tool(number) => By::Tool(number),
            Self::Neighbour | Self::Blind => By::Neighbour,
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A packet comes to the server.
    Arrives(Origin, Packet),
    /// A response has come to its end.
    Ends {
        origin: Origin,
        start: u32,
        response: Box<Response>,
        is_broken: bool,
    },
    /// The server hears that a response has arrived.
    Acknowledged {
        origin: Origin,
        start: u32,
        response: Box<Response>,
    },
    /// A machine hears something; with its turn, if that tells an answer from an earlier one.
    Heard {
        number: usize,
        turn: Option<u32>,
        heard: Heard,
    },
    Timer {
        number: usize,
        turn: u32,
    },
    PowerOff(usize),
    PowerOn(usize),
    /// The server dies, and is back after a while.
    Stops {
        is_killed: bool,
    },
    Returns {
        is_killed: bool,
    },
    ClockJumps(i64),
    NeighbourActs,
    /// The neighbour claims an address by ARP.
    Claims(Ipv4Addr),
    Unclaims(Ipv4Addr),
    Operates,
    /// A user of a machine's system fetches something.
    Uses(usize),
    Looks,
    /// The last fault was.
    Quiet,
    /// Every machine starts once more.
    Last(usize),
}

#[derive(Debug)]
struct Queued {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// What a run is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) mode: Mode,
    pub(super) bug: Option<Bug>,
}

/// What has come of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) failure: Option<String>,
    pub(super) covered: [u64; Effect::ALL.len()],
    pub(super) trace: Trace,
    pub(super) events: u64,
}

struct World {
    plan: Plan,
    rng: Rng,
    now: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    server: Server,
    machines: Vec<Machine>,
    watch: Watch,
    trace: Trace,
    claims: BTreeMap<Ipv4Addr, Mac>,
    /// In per cent, of datagrams.
    loss: u64,
    copies: u64,
    /// In per cent, of connections.
    breaks: u64,
    is_quiet: bool,
    /// Whether the network is to boot a machine at its last start.
    due: [Option<bool>; MACHINES],
    /// Which machines were not started once more.
    has_no_end: [bool; MACHINES],
    /// What each machine has started since then.
    started: Vec<Vec<System>>,
    /// When the run is over at the latest.
    end: u64,
    /// When the neighbour gives up.
    silence: u64,
}

/// Runs a plan to its end.
pub(super) fn run(plan: Plan, is_traced: bool) -> Outcome {
    let mut world = World::new(plan, is_traced);
    let mut events = 0;
    let failure = loop {
        let Some(Reverse(Queued { at, event, .. })) = world.queue.pop() else {
            break Some("nothing happens any more".to_owned());
        };
        world.now = at;
        world.server.set_time(at);
        events += 1;
        if at > world.end {
            break world.judge().err();
        }
        let is_look = matches!(event, Event::Looks);
        if let Err(failure) = world.handle(event) {
            break Some(failure);
        }
        if is_look && world.is_over() {
            break world.judge().err();
        }
    };
    if let Some(failure) = &failure {
        world.note(|| format!("FAILS: {failure}"));
    }
    let Watch { covered, .. } = world.watch;
    Outcome { failure, covered, trace: world.trace, events }
}

impl World {
    fn new(plan: Plan, is_traced: bool) -> Self {
        let mut rng = Rng::new(plan.seed);
        let machines = (0..MACHINES).map(|number| Machine::new(number, &mut rng)).collect();
        let quiet = rng.within(5 * MINUTE..12 * MINUTE);
        let mut world = Self {
            plan,
            now: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            server: Server::new(plan.bug),
            machines,
            watch: Watch::new(plan.mode),
            trace: Trace::new(is_traced),
            claims: BTreeMap::new(),
            loss: rng.within(0..15),
            copies: rng.within(0..15),
            breaks: rng.within(0..4),
            is_quiet: false,
            due: [None; MACHINES],
            has_no_end: [false; MACHINES],
            started: vec![Vec::new(); MACHINES],
            end: quiet + PAUSE + PATIENCE,
            silence: quiet + PAUSE + 3 * MINUTE,
            rng,
        };
        world.server.set_time(0);
        world.schedule(quiet);
        world
    }

    /// Draws what disturbs the run.
    fn schedule(&mut self, quiet: u64) {
        for number in 0..MACHINES {
            if self.rng.chance(65) {
                let at = self.rng.within(0..quiet / 2);
                self.at(at, Event::PowerOn(number));
            }
            if self.rng.chance(40) {
                let at = self.rng.within(MINUTE..quiet);
                self.at(at, Event::PowerOff(number));
            }
            if self.rng.chance(40) {
                let at = self.rng.within(MINUTE..quiet);
                self.at(at, Event::Uses(number));
            }
        }
        for _ in 0..self.rng.within(0..4) {
            let at = self.rng.within(0..quiet);
            let is_killed = self.rng.chance(70);
            self.at(at, Event::Stops { is_killed });
        }
        for _ in 0..self.rng.within(0..3) {
            let at = self.rng.within(0..quiet);
            let far = i64::try_from(self.rng.within(SECOND..120 * MINUTE)).expect("it is hours");
            let jump = if self.rng.chance(50) { far } else { -far };
            self.at(at, Event::ClockJumps(jump));
        }
        for _ in 0..self.rng.within(0..8) {
            let at = self.rng.within(0..quiet);
            self.at(at, Event::Operates);
        }
        if self.plan.mode == Mode::Spoofing {
            for _ in 0..self.rng.within(0..6) {
                let at = self.rng.within(0..quiet);
                let machine =
                    usize::try_from(self.rng.within(0..MACHINES as u64)).expect("sixteen");
                self.at(at, Event::Claims(site::lease(machine, 0)));
            }
        }
        self.at(quiet, Event::Quiet);
        self.at(LOOK, Event::Looks);
        self.at(SECOND, Event::NeighbourActs);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, number: self.queued, event }));
    }

    fn after(&mut self, time: u64, event: Event) {
        self.at(self.now + time, event);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(self.now, line);
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Arrives(origin, packet) => return self.arrive(origin, packet),
            Event::Ends { origin, start, response, is_broken } => {
                return self.end_response(origin, start, (*response, is_broken));
            }
            Event::Acknowledged { origin, start, response } => {
                if start == self.server.start && self.server.is_up {
                    return self.record(origin, *response);
                }
            }
            Event::Heard { number, turn, heard } => {
                if turn.is_none_or(|turn| turn == self.machines[number].turn) {
                    let outputs = self.machines[number].hear(heard, &mut self.rng);
                    self.put_out(number, outputs);
                }
            }
            Event::Timer { number, turn } => {
                if turn == self.machines[number].turn {
                    let outputs = self.machines[number].time_out(&mut self.rng);
                    self.put_out(number, outputs);
                }
            }
            Event::PowerOff(number) => {
                self.machines[number].power_off();
                self.note(|| format!("{} loses its power", SPECS[number].name));
                let pause = self.rng.within(SECOND..90 * SECOND);
                self.after(pause, Event::PowerOn(number));
            }
            Event::PowerOn(number) => {
                if self.machines[number].is_off() && !self.is_quiet {
                    let outputs = self.machines[number].power_on(&mut self.rng);
                    self.put_out(number, outputs);
                }
            }
            Event::Stops { is_killed } => {
                if self.server.is_up {
                    self.server.is_up = false;
                    self.note(|| format!("the server stops (killed: {is_killed})"));
                    let pause = self.rng.within(200..20 * SECOND);
                    self.after(pause, Event::Returns { is_killed });
                }
            }
            Event::Returns { is_killed } => {
                self.server.restart(is_killed, &mut self.rng);
                self.note(|| "the server is back".to_owned());
                return self.check_all((By::Server, &Did::Restarted));
            }
            Event::ClockJumps(jump) => {
                self.server.offset += jump;
                self.server.set_time(self.now);
                self.note(|| format!("the server's clock jumps by {} s", jump / 1000));
            }
            Event::NeighbourActs => self.neighbour_acts(),
            Event::Claims(address) => {
                let pause = self.rng.within(10 * SECOND..3 * MINUTE);
                self.claims.insert(address, HIS_CARD);
                self.note(|| format!("the neighbour claims {address}"));
                self.after(pause, Event::Unclaims(address));
            }
            Event::Unclaims(address) => {
                self.claims.remove(&address);
            }
            Event::Operates => return self.operate(),
            Event::Uses(number) => self.use_system(number),
            Event::Looks => {
                if self.server.is_up {
                    self.server.look();
                }
                self.after(LOOK, Event::Looks);
                if self.now.is_multiple_of(10 * LOOK) {
                    return self.check_all((By::Server, &Did::Looked));
                }
            }
            Event::Quiet => {
                self.is_quiet = true;
                (self.loss, self.copies, self.breaks) = (0, 0, 0);
                self.note(|| "no more faults".to_owned());
                for number in 0..MACHINES {
                    self.go_dark(number);
                    let at = self.rng.within(PAUSE..PAUSE + MINUTE);
                    self.after(at, Event::Last(number));
                }
            }
            Event::Last(number) => self.start_last(number),
        }
        Ok(())
    }

    /// What a machine does goes out.
    fn put_out(&mut self, number: usize, outputs: Vec<Output>) {
        let turn = self.machines[number].turn;
        for output in outputs {
            match output {
                Output::Timer(time) => self.after(time, Event::Timer { number, turn }),
                Output::Send(packet) => {
                    self.send(Origin::Machine { number, turn }, packet);
                }
                Output::Started(system) => {
                    self.note(|| format!("{} runs {system:?}", SPECS[number].name));
                    self.started[number].push(system);
                }
                Output::KernelFailed => {
                    self.note(|| format!("the kernel of {} does not start", SPECS[number].name));
                }
            }
        }
        if self.trace.is_kept() {
            let does = self.machines[number].does();
            self.note(|| format!("{}: {does}", SPECS[number].name));
        }
    }

    /// A packet leaves for the server.
    fn send(&mut self, origin: Origin, packet: Packet) {
        let is_datagram = !matches!(packet, Packet::Get { .. });
        if let (Origin::Machine { number, .. }, Packet::Dhcp { port: Port::Dhcp, .. }) =
            (origin, &packet)
            && self.plan.mode == Mode::Spoofing
            && !self.is_quiet
            && self.rng.chance(4)
        {
            // The neighbour's DHCP answers first, and leads it away.
            self.machines[number].power_off();
            let pause = self.rng.within(MINUTE..3 * MINUTE);
            return self.after(pause, Event::PowerOn(number));
        }
        if is_datagram {
            if !self.rng.chance(self.loss) {
                let delay = self.delay();
                self.after(delay, Event::Arrives(origin, packet.clone()));
            }
            if self.rng.chance(self.copies) {
                let delay = self.delay() + 1;
                let copy = match origin {
                    Origin::Machine { number, .. } => Origin::Copy(number),
                    Origin::Copy(_) | Origin::Tool(_) | Origin::Neighbour | Origin::Blind => origin,
                };
                self.after(delay, Event::Arrives(copy, packet));
            }
        } else if self.rng.chance(self.breaks) {
            self.tell(origin, Heard::Lost, 3 * SECOND);
        } else {
            let delay = self.rng.within(1..80);
            self.after(delay, Event::Arrives(origin, packet));
        }
    }

    /// How long a datagram is on its way: some overtake others.
    fn delay(&mut self) -> u64 {
        if self.rng.chance(if self.is_quiet { 0 } else { 5 }) {
            self.rng.within(100..4 * SECOND)
        } else {
            self.rng.within(1..30)
        }
    }

    /// A machine hears the answer to what it has asked last.
    fn tell(&mut self, origin: Origin, heard: Heard, time: u64) {
        match origin {
            Origin::Machine { number, turn, .. } => {
                self.after(time, Event::Heard { number, turn: Some(turn), heard });
            }
            Origin::Copy(_) | Origin::Tool(_) | Origin::Neighbour | Origin::Blind => {}
        }
    }

    fn settled(&self, address: Ipv4Addr) -> Neighbour {
        let claimed = self.claims.get(&address).map(|card| Neighbour::Card(*card));
        claimed.unwrap_or_else(|| site::holder(address))
    }

    /// A packet has come to the server.
    fn arrive(&mut self, origin: Origin, packet: Packet) -> Result<(), String> {
        if !self.server.is_up {
            if let Packet::Get { .. } = packet {
                self.tell(origin, Heard::Lost, 20);
            }
            return Ok(());
        }
        self.note(|| format!("{origin:?} sends {}", shown(&packet)));
        let from = match &packet {
            Packet::Dhcp { from, .. } | Packet::Rrq { from, .. } | Packet::Get { from, .. } => {
                *from
            }
        };
        let settled = self.settled(from);
        // Without traffic the kernel does not always know who has an address.
        let is_forgotten = !self.is_quiet && self.rng.chance(3) && settled != Neighbour::OffLink;
        let at = if is_forgotten { Neighbour::Unknown } else { settled };
        let asks = Asks { from, settled, at };
        match packet {
            Packet::Dhcp { port, datagram, from } => {
                self.arrive_dhcp(origin, (port, &datagram), (from, settled))
            }
            Packet::Rrq { name, is_probe, .. } => {
                if let Origin::Copy(_) = origin
                    && self.rng.chance(70)
                {
                    // The transfer that it asks for runs already.
                    return Ok(());
                }
                let claimed = name.rsplit('/').next().and_then(|file| file.strip_suffix(".ipxe"));
                let claimed = claimed.and_then(|mac| mac.parse().ok());
                let response = self.server.rrq(&asks, (&name, is_probe), &mut self.rng);
                self.respond((origin, from, true), response, (claimed, false))
            }
            Packet::Get { url, is_ipxe, .. } => {
                let parts = url.split(['/', '?', '=', '&', '.']);
                let claimed = parts.filter_map(|part| part.parse::<Mac>().ok()).next();
                let response = self.server.get(&asks, (&url, is_ipxe), &mut self.rng);
                let is_failure = url.contains("boot=failed");
                self.respond((origin, from, false), response, (claimed, is_failure))
            }
        }
    }

    fn arrive_dhcp(
        &mut self,
        origin: Origin,
        (port, datagram): (Port, &[u8]),
        (from, settled): (Ipv4Addr, Neighbour),
    ) -> Result<(), String> {
        let source = SocketAddrV4::new(from, 68);
        let asked = Reply::read(datagram);
        let machine = site::owner(asked.mac);
        let was_silent = machine.is_some_and(|machine| self.is_left_in_silence(machine));
        let answer = self.server.dhcp((port, datagram), (source, settled), &mut self.rng);
        if let Some(machine) = machine {
            self.check(machine, (origin.by(), &Did::Dhcp))?;
            if was_silent && answer.is_some() {
                self.watch.cover(Effect::BreakSilence);
            }
        }
        let Some((to, answer)) = answer else {
            return Ok(());
        };
        // A broadcast is seen by all, and what goes to an address by who has it.
        let is_seen = to.ip().is_broadcast() || *to.ip() == NEIGHBOUR;
        if is_seen {
            self.watch.check_leak(&answer)?;
        }
        let reply = Reply::read(&answer);
        let is_lost = self.rng.chance(self.loss);
        let reaches = to.ip().is_broadcast()
            || *to.ip() == site::RELAY
            || self.settled(*to.ip()) == Neighbour::Card(reply.mac)
            || self.settled(*to.ip()) == Neighbour::OffLink;
        if let Some(number) = site::owner(reply.mac)
            && reaches
            && !is_lost
            && self.machines[number].card() == reply.mac
        {
            let delay = self.delay();
            self.after(delay, Event::Heard { number, turn: None, heard: Heard::Reply(reply) });
        }
        Ok(())
    }

    /// Whether DHCP leaves a machine to its disk by silence.
    fn is_left_in_silence(&self, machine: usize) -> bool {
        let orders = &self.watch.state(machine).orders;
        let is_silent = SPECS[machine].settings.contains("local_boot: silent");
        is_silent
            && orders.armed.is_none()
            && orders.completed.is_some()
            && orders.disk_failed.is_none()
    }

    /// A response goes out; `claimed` is the card that its request names.
    fn respond(
        &mut self,
        (origin, from, is_datagram): (Origin, Ipv4Addr, bool),
        response: Response,
        (claimed, is_failure): (Option<Mac>, bool),
    ) -> Result<(), String> {
        let by = origin.by();
        let did = if is_failure { Did::AnsweredKernelFailed } else { Did::Answered };
        let of = |mac: Option<Mac>| mac.and_then(site::owner);
        let own = match by {
            By::Machine(number) | By::Tool(number) => Some(number),
            By::Neighbour | By::Operator(_) | By::Server => None,
        };
        for machine in [of(claimed), of(response.subject.mac), own].into_iter().flatten() {
            self.check(machine, (by, &did))?;
        }
        if let Some(does) = &response.does {
            let machine = of(claimed);
            self.watch.check_grant(by, machine, does)?;
        }
        // Who claims an address by ARP receives what goes there.
        let is_diverted = match origin {
            Origin::Machine { .. } | Origin::Copy(_) | Origin::Tool(_) => {
                self.claims.contains_key(&from)
            }
            Origin::Neighbour => true,
            Origin::Blind => false,
        };
        if let (Body::Text(text), true) = (&response.body, is_diverted) {
            if text.starts_with("#!ipxe") && text.contains(" url=http") {
                return Err("the neighbour has a script that installs".to_owned());
            }
            self.watch.check_leak(text.as_bytes())?;
        }
        if let (Body::Text(text), Step::FileSent { .. }) =
            (&response.body, response.steps.first().unwrap_or(&Step::Disarmed {}))
            && text.contains(SECRET)
        {
            self.watch.cover(Effect::FetchAnswerFile);
        }
        let time = match &response.body {
            Body::Refused => {
                let is_lost = is_datagram && self.rng.chance(self.loss) || is_diverted;
                if !is_lost {
                    self.tell(origin, Heard::Refused, 10);
                }
                return Ok(());
            }
            Body::Text(_) => self.rng.within(2..60),
            Body::File
                if response.steps.iter().any(|step| matches!(step, Step::ImageSent { .. })) =>
            {
                self.rng.within(SECOND..40 * SECOND)
            }
            Body::File => self.rng.within(50..2 * SECOND),
        };
        let is_broken = self.rng.chance(self.breaks)
            || matches!(origin, Origin::Blind | Origin::Copy(_))
            || is_diverted && !matches!(origin, Origin::Neighbour)
            || is_datagram && self.rng.chance(self.loss / 4);
        let (start, response) = (self.server.start, Box::new(response));
        self.after(time, Event::Ends { origin, start, response, is_broken });
        Ok(())
    }

    /// A response has come to its end, or not.
    fn end_response(
        &mut self,
        origin: Origin,
        start: u32,
        (response, is_broken): (Response, bool),
    ) -> Result<(), String> {
        if start != self.server.start || !self.server.is_up {
            // All of it may have gone out before the server died.
            let is_whole = self.rng.chance(20);
            let heard = if is_whole { heard(&response) } else { Heard::Lost };
            self.tell(origin, heard, 1);
            return Ok(());
        }
        let has_left = match origin {
            Origin::Machine { number, turn, .. } => self.machines[number].turn != turn,
            Origin::Copy(_) | Origin::Tool(_) | Origin::Neighbour | Origin::Blind => false,
        };
        if is_broken || has_left {
            self.tell(origin, Heard::Lost, 1);
            return match response.broken_off() {
                Some(step) => {
                    let steps = vec![step];
                    self.record(origin, Response { steps, ..response })
                }
                None => Ok(()),
            };
        }
        if let (By::Machine(_), Some(id), Some(Step::ImageSent { file, .. })) =
            (origin.by(), response.id, response.steps.first())
        {
            self.watch.receive(id, file);
        }
        let is_text = matches!(response.body, Body::Text(_));
        if is_text {
            // What is sent at once is recorded before it arrives.
            self.tell(origin, heard(&response), 1);
            return self.record(origin, response);
        }
        self.tell(origin, heard(&response), 0);
        let delay = self.rng.within(0..20);
        self.after(delay, Event::Acknowledged { origin, start, response: Box::new(response) });
        Ok(())
    }

    /// The server records what has become of a response.
    fn record(&mut self, origin: Origin, response: Response) -> Result<(), String> {
        let Response { subject, id, steps, .. } = response;
        for step in steps {
            self.note(|| format!("recorded of {subject}: {}", step.kind()));
            let event = Recorded { subject: subject.clone(), step: step.clone() };
            self.server.record(event, id, &mut self.rng);
            if let Some(machine) = subject.mac.and_then(site::owner) {
                self.check(machine, (origin.by(), &Did::Recorded(&step, id)))?;
            }
        }
        Ok(())
    }

    fn check(&mut self, machine: usize, (by, did): (By, &Did<'_>)) -> Result<(), String> {
        self.watch.check(&self.server, machine, (by, did))
    }

    fn check_all(&mut self, (by, did): (By, &Did<'_>)) -> Result<(), String> {
        (0..MACHINES).try_for_each(|machine| self.check(machine, (by, did)))
    }

    fn neighbour_acts(&mut self) {
        let numbers = 0..MACHINES;
        let booting: Vec<usize> = numbers.filter(|n| self.machines[*n].is_booting()).collect();
        let is_spoofed = self.plan.mode == Mode::Spoofing && self.rng.chance(40);
        let (origin, packet) = if is_spoofed {
            (Origin::Blind, neighbour::spoofed(&booting, &mut self.rng))
        } else {
            (Origin::Neighbour, neighbour::packet(&booting, &mut self.rng))
        };
        self.send(origin, packet);
        let pause = self.rng.within(SECOND..30 * SECOND);
        if self.now + pause < self.silence {
            self.after(pause, Event::NeighbourActs);
        }
    }

    /// The operator gives an order, or takes one back.
    fn operate(&mut self) -> Result<(), String> {
        let machine = usize::try_from(self.rng.within(0..MACHINES as u64)).expect("sixteen");
        let is_counted = matches!(SPECS[machine].profile, Some("install" | "talos"));
        if !is_counted || !self.server.is_up {
            return Ok(());
        }
        let (step, times) = if self.rng.chance(15) {
            (Step::Disarmed {}, 0)
        } else if self.rng.chance(10) {
            (Step::KeptOnDisk {}, 0)
        } else {
            let times = if self.rng.chance(70) { 1 } else { 2 };
            let profile = self.rng.chance(20).then(|| "rescue".to_owned());
            (Step::Armed { profile, times }, times)
        };
        self.note(|| format!("the operator orders for {}: {step}", SPECS[machine].name));
        let subject: Subject = self.watch.subject(machine).clone();
        self.server.record(Recorded { subject, step }, None, &mut self.rng);
        self.check(machine, (By::Operator(machine), &Did::Ordered(times)))
    }

    /// A user of the system that a machine runs fetches its image, or looks at its script, without an id.
    fn use_system(&mut self, number: usize) {
        let machine = &self.machines[number];
        if machine.runs().is_none() || machine.spec.is_relayed {
            return;
        }
        let (mac, from) = (machine.card(), machine.address());
        let image = if machine.spec.profile == Some("talos") { "talos" } else { "debian" };
        let urls = [
            format!("http://{US}:8080/images/{image}/kernel?mac={mac}"),
            format!("http://{US}:8080/images/{image}/initrd?mac={mac}"),
            format!("http://{US}:8080/boot/{}.ipxe?mac={mac}&boot=failed", mac.hyphenated()),
        ];
        let is_look = self.rng.chance(40);
        for url in if is_look { &urls[2..] } else { &urls[..2] } {
            let packet = Packet::Get { url: url.clone(), from, is_ipxe: false };
            self.send(Origin::Tool(number), packet);
        }
    }

    /// A machine loses its power with all others, until its last start.
    fn go_dark(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if machine.runs() == Some(System::Installer) {
            machine.has_system = false;
        }
        machine.is_quiet = true;
        machine.power_off();
    }

    /// A machine is started for the last time.
    fn start_last(&mut self, number: usize) {
        let orders = &self.watch.state(number).orders;
        let profile = SPECS[number].profile;
        let is_first = orders.completed.is_none() && !orders.is_kept_on_disk;
        let is_once = matches!(profile, Some("install" | "talos"));
        let is_due = profile.is_some() && (!is_once || orders.armed.is_some() || is_first);
        self.due[number] = Some(is_due);
        self.started[number].clear();
        self.note(|| format!("{} starts for the last time, due: {is_due}", SPECS[number].name));
        let machine = &self.machines[number];
        // What never boots has no end.
        let never_ends =
            machine.is_broken || profile == Some("install") && !machine.has_system && !is_due;
        // Half of them are enough for a seed.
        if profile.is_some() && never_ends || self.rng.chance(50) {
            self.has_no_end[number] = true;
            return;
        }
        let outputs = self.machines[number].power_on(&mut self.rng);
        self.put_out(number, outputs);
    }

    /// Whether all machines are at their end.
    fn is_over(&self) -> bool {
        (0..MACHINES).all(|number| self.due[number].is_some() && self.is_at_end(number).is_ok())
    }

    /// Whether a machine is where it should be.
    fn is_at_end(&self, number: usize) -> Result<(), String> {
        let machine = &self.machines[number];
        let Some(is_due) = self.due[number] else {
            return Err("it was not started for the last time".to_owned());
        };
        if self.has_no_end[number] {
            return Ok(());
        }
        let is_network = |system: &System| *system != System::Disk;
        if is_due && !self.started[number].iter().any(is_network) {
            return Err(format!("the network does not boot it: {}", machine.does()));
        }
        let has_ended = match machine.runs() {
            Some(System::Disk | System::Talos | System::Rescue) => true,
            // The operator has to say what becomes of it.
            Some(System::Installer) | None => self.watch.state(number).orders.held.is_some(),
        };
        if has_ended { Ok(()) } else { Err(format!("it comes to no end: {}", machine.does())) }
    }

    /// What has become of the machines at the end.
    fn judge(&self) -> Result<(), String> {
        if self.plan.mode == Mode::Spoofing {
            return Ok(());
        }
        (0..MACHINES).try_for_each(|number| {
            self.is_at_end(number).map_err(|why| format!("{}: {why}", SPECS[number].name))
        })
    }
}

fn heard(response: &Response) -> Heard {
    match &response.body {
        Body::Text(text) => Heard::Text(text.clone()),
        Body::File => Heard::File,
        Body::Refused => Heard::Refused,
    }
}

fn shown(packet: &Packet) -> String {
    match packet {
        Packet::Dhcp { port, datagram, from } => {
            let Reply { xid, mac, .. } = Reply::read(datagram);
            let kind = datagram.get(242).copied().unwrap_or_default();
            format!("DHCP {kind} of {mac} ({xid:08x}) from {from} to {port:?}")
        }
        Packet::Rrq { name, from, is_probe } => {
            format!("RRQ {name} from {from}{}", if *is_probe { ", its size" } else { "" })
        }
        Packet::Get { url, from, .. } => format!("GET {url} from {from}"),
    }
}
