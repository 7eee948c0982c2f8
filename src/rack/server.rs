//! The server: the calls that the shells of DHCP, TFTP and HTTP make, without their sockets.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::machine::SECOND;
use super::rng::Rng;
use super::site::{self, US};
use crate::pure::boot::served_names::{self, Asked};
use crate::pure::boot::urls::{self, NO_DISK, NOT_STARTED};
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::nbp::Nbp;
use crate::pure::client::boot_id::BootId;
use crate::pure::client::{Client, Mac};
use crate::pure::config::snapshot::{Config, Snapshot};
use crate::pure::dhcp::arrival::{Arrival, Port};
use crate::pure::dhcp::proxy::{Ignored, Outcome, Query, respond};
use crate::pure::event::boot::{Break, Event, Sent, Step, Subject, Tftp, Transport};
use crate::pure::machine::evidence::Neighbour;
use crate::pure::machine::state::MachineState;
use crate::pure::script::render;
use crate::server::http::boot;
use crate::server::machine_script::{
    self, Answer, Does, FileRequest, Links, Report, ScriptRequest,
};
use crate::state::journal::Journal;
use crate::state::registry::machines::{Entry, Id};
use crate::state::registry::{BootRequest, Registry, TestNature};

/// 2025, when the virtual time begins, in milliseconds since 1970.
const EPOCH: u64 = 1_735_689_600_000;
/// How long a change without an event in the journal waits to be written.
const LAZY: u64 = 5 * SECOND;

/// A fault that is planted in the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    /// The neighbour table is not asked: whoever names a card has it.
    SkipsTheNeighbourTable,
    /// A fetch needs no id: one that names a machine is of its open boot.
    DropsTheId,
    /// An offer arms the machine.
    ArmsAtDiscover,
    /// An order that was used is put back.
    PutsTheOrderBack,
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) registry: Registry,
    nature: TestNature,
    config: Arc<Config>,
    shelf: Shelf,
    /// What the disk has of each machine.
    durable: BTreeMap<Id, Entry>,
    /// Who has changed since, and when first.
    pending: BTreeMap<Id, u64>,
    pub(super) is_up: bool,
    /// Counts its starts: a transfer of an earlier one is gone.
    pub(super) start: u32,
    now: u64,
    /// How far its clock is from the true time, in milliseconds.
    pub(super) offset: i64,
    bug: Option<Bug>,
}

/// What a response has.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Text(String),
    File,
    Refused,
}

/// A response, and what is recorded once it has arrived.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) body: Body,
    pub(super) subject: Subject,
    pub(super) id: Option<BootId>,
    pub(super) steps: Vec<Step>,
    /// Whether a transfer that breaks off is recorded.
    pub(super) breaks: bool,
    /// What the script does that is given, if it is one.
    pub(super) does: Option<Does>,
}

impl Response {
    fn refused() -> Self {
        Self::with(Body::Refused, Subject::default(), Vec::new())
    }

    fn with(body: Body, subject: Subject, steps: Vec<Step>) -> Self {
        Self { body, subject, id: None, steps, breaks: false, does: None }
    }

    /// What is recorded if the client goes away before the end.
    pub(super) fn broken_off(&self) -> Option<Step> {
        let step = self.steps.first().filter(|_| self.breaks)?;
        Some(step.clone().broken_off(1 << 20, Break::Closed))
    }
}

/// A request over HTTP or TFTP.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub(super) from: Ipv4Addr,
    /// Who has that address when it is settled.
    pub(super) settled: Neighbour,
    /// Who the kernel knows to have it right now.
    pub(super) at: Neighbour,
}

impl Server {
    pub(super) fn new(bug: Option<Bug>) -> Self {
        let steady = Some((Instant::now(), Arc::default()));
        let nature = TestNature { steady, ..TestNature::default() };
        nature.next_id.store(1, Ordering::Relaxed);
        Self {
            registry: Registry::in_test(Vec::new(), nature.clone(), Arc::default()),
            nature,
            config: site::config(),
            shelf: Shelf::default(),
            durable: BTreeMap::new(),
            pending: BTreeMap::new(),
            is_up: true,
            start: 0,
            now: 0,
            offset: 0,
            bug,
        }
    }

    /// Sets the true time.
    pub(super) fn set_time(&mut self, now: u64) {
        self.now = now;
        let time = EPOCH.saturating_add(now).saturating_add_signed(self.offset);
        self.nature.millis.store(time, Ordering::Relaxed);
        if let Some((_, steady)) = &self.nature.steady {
            steady.store(now, Ordering::Relaxed);
        }
    }

    /// The state of the machine with this card.
    pub(super) fn state(&self, card: Mac) -> Arc<MachineState> {
        self.registry.state(&self.registry.whose(card, &self.config.catalog))
    }

    /// Applies an event, and notes whether it is on the disk by now.
    pub(super) fn record(&mut self, event: Event, id: Option<BootId>, rng: &mut Rng) {
        let is_journalled = match &event.step {
            Step::ScriptServed { .. }
            | Step::ImageSent { .. }
            | Step::FileSent { .. }
            | Step::NbpSent { .. }
            | Step::AutoexecSent { .. }
            | Step::CompanionSent { .. }
            | Step::Probed { .. }
            | Step::Confirmed { .. }
            | Step::ConfirmationWithdrawn { .. }
            | Step::Armed { .. }
            | Step::Disarmed {}
            | Step::KeptOnDisk {} => true,
            // One too many, or the same once more, is not written down.
            Step::Offered { .. }
            | Step::Leased { .. }
            | Step::Acknowledged { .. }
            | Step::WaitServed { .. }
            | Step::Advised { .. }
            | Step::ScriptShown { .. }
            | Step::ScriptWithheld { .. }
            | Step::BootIdMisused { .. }
            | Step::BrokenOff { .. }
            | Step::Refused { .. }
            | Step::Ignored { .. }
            | Step::LeftToItsDisk { .. }
            | Step::Stopped { .. } => rng.chance(50),
        };
        match self.bug {
            Some(bug @ (Bug::ArmsAtDiscover | Bug::PutsTheOrderBack)) => {
                self.record_with(bug, event, (id, is_journalled));
            }
            Some(Bug::SkipsTheNeighbourTable | Bug::DropsTheId) | None => {
                let subject = event.subject.clone();
                self.registry.record_in(event, id);
                self.keep(&subject, is_journalled);
            }
        }
    }

    fn record_with(&mut self, bug: Bug, event: Event, (id, is_journalled): (Option<BootId>, bool)) {
        let (subject, step) = (event.subject.clone(), event.step.clone());
        let before = self.registry.state(&subject).orders.armed.clone();
        self.registry.record_in(event, id);
        self.keep(&subject, is_journalled);
        let is_used = before != self.registry.state(&subject).orders.armed;
        let again = match (bug, step) {
            (Bug::ArmsAtDiscover, Step::Offered { .. }) => Some((None, 1)),
            (Bug::PutsTheOrderBack, Step::ImageSent { .. }) if is_used => {
                before.map(|armed| (armed.profile, armed.times))
            }
            _ => None,
        };
        if let Some((profile, times)) = again {
            self.registry.record(Event { subject, step: Step::Armed { profile, times } });
        }
    }

    /// Notes that a machine has changed, whether what it is now is on the disk.
    fn keep(&mut self, subject: &Subject, is_journalled: bool) {
        let Some(entry) = self.registry.entry(subject) else {
            return;
        };
        if is_journalled {
            self.pending.remove(&entry.id);
            self.durable.insert(entry.id, entry);
        } else {
            self.pending.entry(entry.id).or_insert(self.now);
        }
    }

    /// Starts again: after a stop with all that was recorded, after a kill with what was on the disk.
    pub(super) fn restart(&mut self, was_killed: bool, rng: &mut Rng) {
        let mut entries = self.registry.machines();
        entries.sort_by_key(|entry| entry.id);
        let mut kept = Vec::new();
        for entry in entries {
            let since = self.pending.get(&entry.id).filter(|_| was_killed);
            let is_lost = since.is_some_and(|since| self.now < since + LAZY && rng.chance(60));
            if is_lost {
                kept.extend(self.durable.get(&entry.id).cloned());
            } else {
                kept.push(entry);
            }
        }
        self.pending.clear();
        self.durable = kept.iter().map(|entry| (entry.id, entry.clone())).collect();
        let journal = Arc::new(Journal::default());
        self.registry = Registry::in_test(kept, self.nature.clone(), journal);
        self.start += 1;
        self.is_up = true;
    }

    /// Looks for boots that have stalled.
    pub(super) fn look(&mut self) {
        self.registry.look(self.registry.now());
    }

    /// Answers a datagram: where to, and with what.
    pub(super) fn dhcp(
        &mut self,
        (port, datagram): (Port, &[u8]),
        (from, neighbour): (SocketAddrV4, Neighbour),
        rng: &mut Rng,
    ) -> Option<(SocketAddrV4, Vec<u8>)> {
        let query = Query::read(datagram).ok()?;
        let neighbour = match (port, query.mac()) {
            (Port::BootServer, Some(mac)) => self.neighbour(neighbour, mac),
            (Port::BootServer, None) => neighbour,
            (Port::Dhcp, _) => Neighbour::Unknown,
        };
        let interface = "eth0".to_owned();
        let own = std::sync::Arc::new([(US, Ipv4Addr::new(255, 255, 0, 0))]);
        let arrival = Arrival { from, port, interface, asked: US, local: US, neighbour, own };
        let config = Arc::clone(&self.config);
        let known = query.mac().map(|mac| self.registry.whose(mac, &config.catalog));
        let known = known.unwrap_or_default();
        let state = self.registry.state_at_boot(&known, &config.server);
        let query = query.confirmed_as(known.name);
        let outcome = respond(&query, &arrival, config.serving(), (&state, self.registry.now()));
        drop(state);
        match outcome {
            Outcome::Reply { to, datagram, event } => {
                self.record(event, None, rng);
                Some((to, datagram))
            }
            Outcome::Seen(event) => {
                self.record(event, None, rng);
                None
            }
            Outcome::Ignored(Ignored::Decided { subject, reason }) => {
                let step = Step::Ignored { reason: reason.to_string() };
                self.record(Event { subject, step }, None, rng);
                None
            }
            Outcome::Ignored(_) => None,
        }
    }

    fn neighbour(&self, neighbour: Neighbour, claimed: Mac) -> Neighbour {
        match self.bug {
            Some(Bug::SkipsTheNeighbourTable) => Neighbour::Card(claimed),
            Some(Bug::DropsTheId | Bug::ArmsAtDiscover | Bug::PutsTheOrderBack) | None => neighbour,
        }
    }

    fn id(&self, id: Option<BootId>, claimed: Mac) -> Option<BootId> {
        match self.bug {
            Some(Bug::DropsTheId) => self.state(claimed).open.as_ref().map(|open| open.id),
            Some(Bug::SkipsTheNeighbourTable | Bug::ArmsAtDiscover | Bug::PutsTheOrderBack)
            | None => id,
        }
    }

    /// Answers a GET.
    pub(super) fn get(
        &mut self,
        asks: &Asks,
        (url, is_ipxe): (&str, bool),
        rng: &mut Rng,
    ) -> Response {
        let rest = url.strip_prefix("http://").and_then(|rest| rest.split_once('/'));
        let rest = rest.map_or("", |(_, rest)| rest);
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["boot", file] => self.http_script(asks, (file, query), is_ipxe, rng),
            ["files", mac, file_id, name] => self.file(asks, (mac, Some(file_id), name), rng),
            ["files", mac, name] => self.file(asks, (mac, None, name), rng),
            ["nbp", name] => self.nbp(asks, name, rng),
            ["images", image, part] => self.image(asks, (image, part), query, rng),
            _ => Response::refused(),
        }
    }

    fn http_script(
        &mut self,
        asks: &Asks,
        (file, query): (&str, &str),
        is_ipxe: bool,
        rng: &mut Rng,
    ) -> Response {
        let Some(mac) = file.strip_suffix(".ipxe").and_then(|name| name.parse::<Mac>().ok()) else {
            return Response::refused();
        };
        let config = Arc::clone(&self.config);
        let told = urls::told(query);
        let known = self.state(mac);
        let client = boot::client(mac, asks.from, &told, known.arch);
        let client = Client { may_be_asked: is_ipxe, ..client };
        drop(known);
        let is_told =
            |(name, value): (&str, &str)| told.get(name).is_some_and(|told| told == value);
        let report = if is_told(NO_DISK) {
            Some(Report::DiskFailed)
        } else {
            is_told(NOT_STARTED).then_some(Report::KernelFailed)
        };
        let id = told.get(urls::ID).and_then(|digits| digits.parse().ok());
        let sender = (asks.from, self.neighbour(asks.settled, mac));
        let request = ScriptRequest {
            boot: BootRequest { id: self.id(id, mac), ..BootRequest::new(mac, sender, &config) },
            client: &client,
            report,
            is_ipxe,
            links: Links::Http(SocketAddrV4::new(US, config.server.http_port)),
        };
        let now = Snapshot { config: &config, shelf: &self.shelf };
        let (subject, answer) = machine_script::answer(&self.registry, now, &request);
        self.keep(&subject, false);
        match answer {
            Answer::Given(text, does, id) => {
                let steps = does.clone().steps(sent(Transport::Http));
                let body = Body::Text(text);
                Response { id: Some(id), does: Some(does), ..Response::with(body, subject, steps) }
            }
            Answer::Apart(text, step) => Response::with(Body::Text(text), subject, vec![step]),
            Answer::Nothing(reason, id) => {
                if id.is_some() {
                    self.record(Event { subject, step: reason.step() }, id, rng);
                }
                Response::refused()
            }
        }
    }

    fn file(
        &mut self,
        asks: &Asks,
        (mac, file_id, name): (&str, Option<&str>, &str),
        rng: &mut Rng,
    ) -> Response {
        let Ok(mac) = mac.parse::<Mac>() else {
            return Response::refused();
        };
        let config = Arc::clone(&self.config);
        let known = self.registry.whose(mac, &config.catalog);
        let sender = (asks.from, self.neighbour(asks.settled, mac));
        let request = FileRequest {
            boot: BootRequest::new(mac, sender, &config),
            file_id: file_id.and_then(|digits| digits.parse().ok()),
            name,
            base: &urls::base(US, config.server.http_port),
        };
        let subject = Subject { address: Some(asks.from), ..known };
        let now = Snapshot { config: &config, shelf: &self.shelf };
        match machine_script::answer_file(&self.registry, now, &request) {
            Ok(text) => {
                let file = format!("files/{name}");
                let step = Step::FileSent { file, sent: sent(Transport::Http) };
                Response::with(Body::Text(text), subject, vec![step])
            }
            Err(reason) => {
                let who = self.registry.subject_at(asks.from, asks.settled, &config.catalog);
                self.refuse(who, &format!("files/{name}"), reason, rng)
            }
        }
    }

    fn nbp(&mut self, asks: &Asks, name: &str, rng: &mut Rng) -> Response {
        let config = Arc::clone(&self.config);
        let subject = self.registry.subject_at(asks.from, asks.at, &config.catalog);
        let state = self.registry.state(&subject);
        let now = Snapshot { config: &config, shelf: &self.shelf };
        let asked =
            served_names::asked(name.as_bytes(), now.served(), (&state, self.registry.now()));
        drop(state);
        match asked {
            Ok(Asked::Autoexec(file)) => self.autoexec(subject, file, Transport::Http),
            Ok(Asked::Nbp(Nbp { name: file, arch, .. })) => {
                let step = Step::NbpSent { file, arch, sent: sent(Transport::Http) };
                Response { breaks: true, ..Response::with(Body::File, subject, vec![step]) }
            }
            Ok(Asked::Companion(file, _)) => {
                let step = Step::CompanionSent { file, sent: sent(Transport::Http) };
                Response { breaks: true, ..Response::with(Body::File, subject, vec![step]) }
            }
            Ok(Asked::Image(..) | Asked::Script(..)) => {
                self.refuse(subject, name, served_names::Refusal::Unknown.to_string(), rng)
            }
            Err(refusal) => self.refuse(subject, name, refusal.to_string(), rng),
        }
    }

    fn autoexec(&self, subject: Subject, file: String, over: Transport) -> Response {
        let base = urls::base(US, self.config.server.http_port);
        let text = render::render_autoexec(&self.config.templates, &base).expect("it is built in");
        let breaks = over != Transport::Http;
        let step = Step::AutoexecSent { file, sent: sent(over) };
        Response { breaks, ..Response::with(Body::Text(text), subject, vec![step]) }
    }

    fn image(
        &mut self,
        asks: &Asks,
        (image, part): (&str, &str),
        query: &str,
        rng: &mut Rng,
    ) -> Response {
        let config = Arc::clone(&self.config);
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(own, _)| *own == name).map(|(_, value)| value).next()
        };
        let mac: Option<Mac> = value("mac").and_then(|mac| mac.parse().ok());
        let mut id = value(urls::ID).and_then(|digits| digits.parse().ok());
        let mut at = asks.at;
        if let Some(mac) = mac {
            (id, at) = (self.id(id, mac), self.neighbour(at, mac));
        }
        let sender = (asks.from, at);
        let (subject, id) = machine_script::image_fetch(&self.registry, &config, (mac, id), sender);
        self.keep(&subject, false);
        let now = Snapshot { config: &config, shelf: &self.shelf };
        let name = format!("{image}/{part}");
        match served_names::image_part(image, part, value("set"), now.served()) {
            Ok(_) => {
                let step = Step::ImageSent { file: name, sent: sent(Transport::Http) };
                let response = Response::with(Body::File, subject, vec![step]);
                Response { id, breaks: true, ..response }
            }
            Err(refusal) => self.refuse(subject, &name, refusal.to_string(), rng),
        }
    }

    /// Answers a read request over TFTP.
    pub(super) fn rrq(
        &mut self,
        asks: &Asks,
        (name, is_probe): (&str, bool),
        rng: &mut Rng,
    ) -> Response {
        let config = Arc::clone(&self.config);
        let tftp = config.server.tftp.as_ref().expect("it is on");
        let is_near = asks.from.octets()[..3] == US.octets()[..3]
            || tftp.subnets.iter().any(|net| net.contains(&asks.from));
        let mut subject = self.registry.subject_at(asks.from, asks.at, &config.catalog);
        if !is_near && self.registry.leased_by(asks.from).is_none() {
            let reason = "its TFTP request came from no subnet".to_owned();
            self.record(Event { subject, step: Step::Ignored { reason } }, None, rng);
            return Response::refused();
        }
        let state = self.registry.state(&subject);
        let now = Snapshot { config: &config, shelf: &self.shelf };
        let asked =
            served_names::asked(name.as_bytes(), now.served(), (&state, self.registry.now()));
        drop(state);
        let over = Transport::Tftp(Tftp::default());
        let asked = match asked {
            Ok(asked) => asked,
            Err(refusal) => return self.refuse(subject, name, refusal.to_string(), rng),
        };
        let mut id = served_names::boot_of(name.as_bytes());
        if let Asked::Image(..) = &asked {
            let mut at = asks.at;
            if let Some(mac) = subject.mac {
                (id, at) = (self.id(id, mac), self.neighbour(at, mac));
            }
            let sender = (asks.from, at);
            (subject, id) =
                machine_script::image_fetch(&self.registry, &config, (subject.mac, id), sender);
            self.keep(&subject, false);
        }
        let response = match asked {
            Asked::Nbp(Nbp { name: file, arch, .. }) => {
                let step = if is_probe {
                    Step::Probed { file, sent: sent(over) }
                } else {
                    Step::NbpSent { file, arch, sent: sent(over) }
                };
                Response::with(Body::File, subject, vec![step])
            }
            Asked::Image(file, _) => {
                let step = Step::ImageSent { file, sent: sent(over) };
                Response { id, ..Response::with(Body::File, subject, vec![step]) }
            }
            Asked::Companion(file, _) => {
                let step = Step::CompanionSent { file, sent: sent(over) };
                Response::with(Body::File, subject, vec![step])
            }
            Asked::Script(mac) => return self.tftp_script(asks, (mac, id), rng),
            Asked::Autoexec(file) => self.autoexec(subject, file, over),
        };
        Response { breaks: true, ..response }
    }

    fn tftp_script(
        &mut self,
        asks: &Asks,
        (mac, id): (Mac, Option<BootId>),
        rng: &mut Rng,
    ) -> Response {
        let config = Arc::clone(&self.config);
        let sender = (asks.from, self.neighbour(asks.settled, mac));
        let client = machine_script::client_without_http(mac, asks.from);
        let request = ScriptRequest {
            boot: BootRequest {
                id: self.id(id, mac),
                is_forgeable: true,
                ..BootRequest::new(mac, sender, &config)
            },
            client: &client,
            report: None,
            is_ipxe: true,
            links: Links::Tftp(SocketAddrV4::new(US, 69)),
        };
        let now = Snapshot { config: &config, shelf: &self.shelf };
        let (subject, answer) = machine_script::answer(&self.registry, now, &request);
        self.keep(&subject, false);
        let over = sent(Transport::Tftp(Tftp::default()));
        let (text, steps, id, does) = match answer {
            Answer::Given(text, does, id) => {
                (text, vec![does.clone().step(over)], Some(id), Some(does))
            }
            Answer::Apart(text, step) => (text, vec![step], None, None),
            Answer::Nothing(reason, _) => {
                let peer = self.registry.subject_at(asks.from, asks.at, &config.catalog);
                self.record(Event { subject: peer, step: reason.step() }, None, rng);
                return Response::refused();
            }
        };
        let response = Response::with(Body::Text(text), subject, steps);
        Response { id, does, breaks: true, ..response }
    }

    fn refuse(&mut self, subject: Subject, what: &str, reason: String, rng: &mut Rng) -> Response {
        let step = Step::Refused { what: what.to_owned(), reason };
        self.record(Event { subject, step }, None, rng);
        Response::refused()
    }
}

fn sent(over: Transport) -> Sent {
    Sent { bytes: 1 << 20, took: Duration::from_secs(1), over }
}
