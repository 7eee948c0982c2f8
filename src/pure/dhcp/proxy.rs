//! Who is answered, and with what: one `match` on port and message type, and five templates.
//!
//! The templates are those of the field: T1 BIOS ROM, T2 UEFI PXE, T3 the ACK on port 4011, T4 iPXE,
//! T5 UEFI HTTP Boot. They differ in `file`, option 43, option 60 and option 175 only.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::SystemTime;

use super::arrival::{Arrival, Port};
use super::destination::{NoReply, destination, relay_of_reply};
use super::packet::{Malformed, MessageType, Reply, ReplyKind, Request, option};
use super::pxe::{self, NotOurs};
use crate::pure::boot::decide::Answer;
use crate::pure::boot::plan::select;
use crate::pure::boot::{decide as decision, urls};
use crate::pure::catalog::server::Serving;
use crate::pure::catalog::settings::Option43;
use crate::pure::client::{Arch, Client, Mac, Stage};
use crate::pure::event::boot::{Event, Offer, Step, Subject};
use crate::pure::machine::evidence::{Neighbour, is_from_relay};
use crate::pure::machine::state::MachineState;

/// A request, and who sent it.
#[derive(Clone, Debug)]
pub struct Query {
    request: Request,
    client: Client,
    /// The machine that the operator has confirmed its card to be of.
    confirmed_as: Option<String>,
}

/// What is to be done about a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Send this; once it is sent, this happened.
    Reply {
        /// Where to. A broadcast goes out on the interface that the request came in on.
        to: SocketAddrV4,
        /// What.
        datagram: Vec<u8>,
        /// The step that it is.
        event: Event,
    },
    /// No answer, but something was learnt.
    Seen(Event),
    /// No answer.
    Ignored(Ignored),
}

/// Why a datagram is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It is no DHCP request.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Its sender does not network boot.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// A message type that this port does not answer.
    #[error("nothing on this port answers it")]
    NotForThisPort,
    /// On port 4011, for another server.
    #[error("it is meant for {0}")]
    OtherServer(Ipv4Addr),
    /// It asks for a boot server's signed credentials (PXE 2.1 section 2.2.3), and there are none.
    #[error("it asks for boot server credentials, and there are none")]
    Credentials,
    /// The reply would go where none may.
    #[error("the answer would go to {to}, {why}")]
    NoReply {
        /// Where.
        to: Ipv4Addr,
        /// Why none may.
        why: NoReply,
    },
    /// The decision says so.
    #[error("{reason}")]
    Decided {
        /// Who gets no answer.
        subject: Subject,
        /// Why.
        reason: Reason,
    },
}

/// Why a machine that is ours gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The decision says so.
    #[error(transparent)]
    Decided(decision::Ignored),
    /// It needs a file over TFTP.
    #[error("it needs its NBP over TFTP, and the config says `tftp: off`")]
    NoTftp,
}

impl Query {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is malformed, or from nobody who network boots.
    pub fn read(datagram: &[u8]) -> Result<Self, Ignored> {
        Self::new(Request::decode(datagram)?)
    }

    /// Says who sent a request.
    ///
    /// # Errors
    /// It is from nobody who network boots.
    pub fn new(request: Request) -> Result<Self, Ignored> {
        let client = pxe::client(&request)?;
        Ok(Self { request, client, confirmed_as: None })
    }

    /// The relay that a reply on this port goes through.
    pub fn relay(&self, port: Port) -> Option<Ipv4Addr> {
        relay_of_reply(&self.request, port)
    }

    /// This query, from a card that the operator has confirmed to be of this machine.
    #[must_use]
    pub fn confirmed_as(self, name: Option<String>) -> Self {
        Self { confirmed_as: name, ..self }
    }

    /// Its sender's MAC.
    pub fn mac(&self) -> Option<Mac> {
        self.client.mac
    }
}

/// Answers a query from the snapshot and from what is remembered of the machine.
pub fn respond(
    query: &Query,
    arrival: &Arrival,
    config: Serving<'_>,
    (state, now): (&MachineState, SystemTime),
) -> Outcome {
    let Query { request, .. } = query;
    let catalog = config.catalog;
    let client = &located(query, arrival);
    let is_start = (arrival.port, request.message_type) == (Port::Dhcp, MessageType::Discover);
    let start = client.mac.map(|mac| (mac, client.stage, request.xid));
    let selection = select(client, catalog).now(catalog, &state.orders(start, now));
    // That a client claims the UUID of a machine makes its card none of the machine's.
    let named = client.mac.and_then(|mac| catalog.machine(mac));
    let name = named.map(|machine| machine.name.as_str()).or(query.confirmed_as.as_deref());
    let subject = subject(query, arrival, name);
    // The one ROM that wants its REQUEST to the router answered by us too.
    let answers_request_67 = client.stage == Stage::Pxe
        && selection.first(|said| said.answer_request_67).unwrap_or(false);
    let kind = match (arrival.port, request.message_type) {
        (Port::Dhcp, MessageType::Discover) => ReplyKind::Offer,
        (Port::Dhcp, MessageType::Request) if answers_request_67 => ReplyKind::Ack,
        (Port::Dhcp, MessageType::Request) => {
            let answer =
                crate::pure::boot::decide::decide(client, &selection, catalog, (state, now));
            return watched(query, subject, &answer, seen_relay(request, arrival, config));
        }
        (Port::BootServer, MessageType::Request | MessageType::Inform) => ReplyKind::Ack,
        (Port::Dhcp, MessageType::Inform | MessageType::Other)
        | (Port::BootServer, MessageType::Discover | MessageType::Other) => {
            return Outcome::Ignored(Ignored::NotForThisPort);
        }
    };
    if let (Port::BootServer, Some(server)) =
        (arrival.port, request.options.address(option::SERVER_ID))
        && server != arrival.local
        && server != arrival.asked
    {
        return Outcome::Ignored(Ignored::OtherServer(server));
    }
    let item = match pxe::boot_item(request) {
        Some(item) if item.wants_credentials() => {
            return Outcome::Ignored(Ignored::Credentials);
        }
        item => item,
    };
    let base = urls::base(arrival.local, config.server.http_port);
    let (what, boot_file) =
        match crate::pure::boot::decide::decide(client, &selection, catalog, (state, now)) {
            Answer::Nbp(nbp) if client.stage == Stage::HttpBoot => {
                (Offer::Nbp, urls::nbp(&base, &nbp.name))
            }
            Answer::Nbp(_) if config.server.tftp.is_none() => {
                return Outcome::Ignored(Ignored::Decided { subject, reason: Reason::NoTftp });
            }
            Answer::Nbp(nbp) => (Offer::Nbp, nbp.name.clone()),
            Answer::Script(mac) => (Offer::Script, urls::script(&base, mac)),
            Answer::Ignore(decision::Ignored::ToItsDisk(method, because)) => {
                let reason = decision::Ignored::ToItsDisk(method, because).to_string();
                let at = is_start.then_some((client.stage, request.xid));
                return Outcome::Seen(Event {
                    subject,
                    step: Step::LeftToItsDisk { method, at, reason },
                });
            }
            Answer::Ignore(reason) => {
                let reason = Reason::Decided(reason);
                return Outcome::Ignored(Ignored::Decided { subject, reason });
            }
        };
    let to = match destination(request, arrival) {
        Ok(to) => to,
        Err((to, why)) => return Outcome::Ignored(Ignored::NoReply { to, why }),
    };
    let option_43 = decision::option_43(&selection, state);
    let vendor_options = match item {
        Some(item) => Some(item.echo()),
        None => vendor_options(client, option_43),
    };
    let reply = template((kind, query), arrival.local, boot_file.clone(), vendor_options);
    Outcome::Reply {
        to,
        datagram: reply.encode(request),
        event: Event {
            subject,
            step: step(kind, query, (what, boot_file, option_43), (arrival, config)),
        },
    }
}

/// T1 to T5.
fn template(
    (kind, query): (ReplyKind, &Query),
    local: Ipv4Addr,
    boot_file: String,
    vendor_options: Option<Vec<u8>>,
) -> Reply {
    let Query { request, client, .. } = query;
    let http_boot = client.stage == Stage::HttpBoot;
    Reply {
        kind,
        next_server: local,
        boot_file,
        vendor_class: if http_boot { pxe::HTTP_CLIENT } else { pxe::PXE_CLIENT },
        vendor_options,
        client_machine_id: pxe::client_machine_id(request).map(<[u8]>::to_vec),
        ipxe: (client.stage == Stage::Ipxe).then(|| PRIORITY.to_vec()),
    }
}

/// Option 175: sub-option 1, priority, of one more than a router's file name has. At equal priority
/// iPXE takes the router's (`core/settings.c`; seen with iPXE of 2019 and of 2026).
const PRIORITY: [u8; 3] = [1, 1, 1];

/// Sub-option 6, discovery control, with bit 3: "if a boot file name is present, just download it"
/// (PXE 2.1 section 2.5); then the end.
const JUST_DOWNLOAD: [u8; 4] = [6, 1, 8, 0xff];

/// The same, and sub-option 10: a prompt that is over at once, `PXE` (edk2#8149).
const JUST_DOWNLOAD_AND_PROMPT: [u8; 10] = [6, 1, 8, 10, 4, 0, b'P', b'X', b'E', 0xff];

/// Option 43, which BIOS ROMs want and UEFI must not see: before 2013 its PXE client took bit 3 for a
/// menu without entries and booted the disk (edk2 30a95d4d39); until 2017 it dropped such an offer
/// whole (edk2 8cdd559be6). Without it every generation asks on port 4011. Firmware that disagrees has
/// its own setting. iPXE and HTTP Boot never get one.
fn vendor_options(client: &Client, option_43: Option43) -> Option<Vec<u8>> {
    match (client.stage, option_43) {
        (Stage::HttpBoot | Stage::Ipxe, _) | (Stage::Pxe, Option43::None) => None,
        (Stage::Pxe, Option43::Bios) => Some(JUST_DOWNLOAD.to_vec()),
        (Stage::Pxe, Option43::SkipPrompt) => Some(JUST_DOWNLOAD_AND_PROMPT.to_vec()),
        (Stage::Pxe, Option43::Default) => {
            (client.arch == Some(Arch::Bios)).then(|| JUST_DOWNLOAD.to_vec())
        }
    }
}

fn step(
    kind: ReplyKind,
    Query { request, client, .. }: &Query,
    (what, boot_file, option_43): (Offer, String, Option43),
    (arrival, config): (&Arrival, Serving<'_>),
) -> Step {
    match kind {
        ReplyKind::Offer => Step::Offered {
            arch: client.arch,
            stage: client.stage,
            what,
            xid: request.xid,
            boot_file,
            option_43: (client.stage == Stage::Pxe).then_some(option_43),
            interface: arrival.interface.clone(),
            relay: relay(request),
        },
        ReplyKind::Ack => {
            let port = arrival.port.number();
            Step::Acknowledged { boot_file, port, relay: seen_relay(request, arrival, config) }
        }
    }
}

/// A machine takes its lease: the address is what its later TFTP requests are known by.
fn watched(
    Query { request, .. }: &Query,
    subject: Subject,
    answer: &Answer<'_>,
    relay: Option<Ipv4Addr>,
) -> Outcome {
    if let Answer::Ignore(_) = answer {
        return Outcome::Ignored(Ignored::NotForThisPort);
    }
    let server = request.options.address(option::SERVER_ID);
    Outcome::Seen(Event { subject, step: Step::Leased { server, relay } })
}

/// The client, and where it is: at an address of its own, behind its relay, or on the LAN of the address
/// that it asked at.
fn located(Query { request, client, .. }: &Query, arrival: &Arrival) -> Client {
    let at = [request.ciaddr, request.giaddr, arrival.local];
    let address = at.into_iter().find(|address| !address.is_unspecified());
    Client { address, ..client.clone() }
}

/// The relay that forwarded a request.
fn relay(request: &Request) -> Option<Ipv4Addr> {
    Some(request.giaddr).filter(|relay| !relay.is_unspecified())
}

/// The same, unless the request comes from a host of the relay's network instead.
fn seen_relay(request: &Request, arrival: &Arrival, config: Serving<'_>) -> Option<Ipv4Addr> {
    let subnets = config.server.tftp.as_ref().map(|tftp| tftp.subnets.as_slice());
    let is_from =
        |relay: &Ipv4Addr| is_from_relay(*relay, *arrival.from.ip(), subnets.unwrap_or_default());
    relay(request).filter(is_from)
}

fn subject(
    Query { request, client, .. }: &Query,
    arrival: &Arrival,
    name: Option<&str>,
) -> Subject {
    if arrival.port == Port::BootServer {
        // Whoever writes another's address into a message does not have it.
        let is_its = match arrival.neighbour {
            Neighbour::Card(card) => client.mac == Some(card),
            Neighbour::OffLink => true,
            Neighbour::Unknown | Neighbour::ThisHost => false,
        };
        let address = Some(*arrival.from.ip()).filter(|_| is_its);
        return Subject { mac: client.mac, name: name.map(str::to_owned), address };
    }
    // In a DISCOVER option 50 is a wish; a REQUEST takes that address.
    let taken = match request.message_type {
        MessageType::Request => request.options.address(option::REQUESTED_ADDRESS),
        MessageType::Discover | MessageType::Inform | MessageType::Other => None,
    };
    let address = taken.unwrap_or(request.ciaddr);
    Subject {
        mac: client.mac,
        name: name.map(str::to_owned),
        address: (!address.is_unspecified()).then_some(address),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pure::dhcp::arrival::Arrival;
    use crate::pure::dhcp::testing::{Reply, broadcast, config, request};
    use crate::pure::event::boot::{Sent, Starts, Transport};

    #[test]
    fn whose_request_on_67_is_answered_is_known_by_its_address_and_an_ipxe_is_not_answered() {
        let config = config(
            "profiles: {p: {script: menu}}\n\
             machines: {m: {mac: 52:54:00:00:00:01, profile: p, answer_request_67: true}}",
        );
        let lease: &[u8] = &[10, 77, 0, 100];
        let outcome = |more: &[(u8, &[u8])]| {
            let own: [(u8, &[u8]); 3] = [(60, b"PXEClient"), (93, &[0, 0]), (50, lease)];
            let query = Query::read(&request(3, &[&own, more].concat())).unwrap();
            let state = (&MachineState::default(), SystemTime::UNIX_EPOCH);
            respond(&query, &broadcast(), config.serving(), state)
        };
        let Outcome::Reply { event, .. } = outcome(&[]) else { panic!("{:?}", outcome(&[])) };
        assert_eq!(event.subject.address, Some(Ipv4Addr::new(10, 77, 0, 100)));
        assert!(matches!(outcome(&[(77, b"iPXE")]), Outcome::Seen(_)));
    }

    #[test]
    fn an_ipxe_that_is_to_be_replaced_gets_the_nbp_until_it_has_fetched_it() {
        let config = config(
            "profiles: {p: {script: menu}}\n\
             machines: {m: {mac: 52:54:00:00:00:01, profile: p, replace_ipxe: true}}",
        );
        let datagram = request(1, &[(60, b"PXEClient"), (77, b"iPXE"), (93, &[0, 0])]);
        let query = Query::read(&datagram).unwrap();
        let arrival = broadcast();
        let now = SystemTime::UNIX_EPOCH;
        let mut state = MachineState::default();
        let file = |state: &MachineState, now| {
            Reply::read(&respond(&query, &arrival, config.serving(), (state, now))).file
        };
        let script = "http://10.77.0.2:8080/boot/52-54-00-00-00-01.ipxe";
        assert_eq!(file(&state, now), "undionly.kpxe");
        assert_eq!(file(&state, now), "undionly.kpxe", "a repeated DISCOVER");

        let mut unseen = MachineState::default();
        let mut offered = |xid: u8| {
            let mut datagram = datagram.clone();
            datagram[7] = xid;
            // A relay's: who fetches over TFTP behind it is not seen.
            datagram[24..28].copy_from_slice(&[10, 78, 0, 1]);
            let query = Query::read(&datagram).unwrap();
            let from = SocketAddrV4::new(Ipv4Addr::new(10, 78, 0, 1), 67);
            let outcome =
                respond(&query, &Arrival { from, ..broadcast() }, config.serving(), (&unseen, now));
            if let Outcome::Reply { event, .. } = &outcome {
                unseen.apply(event, None, now);
            }
            Reply::read(&outcome).file
        };
        let turns = [1, 1, 1, 1, 1, 1, 2, 3, 4].map(&mut offered);
        assert_eq!(turns[..8], ["undionly.kpxe"; 8], "what it fetches is not seen to be its own");
        assert_eq!(turns[8], script, "but there is an end to it");

        let step = |step| Event { subject: Subject::default(), step };
        let sent = Sent { bytes: 1, took: Duration::ZERO, over: Transport::Http };
        let fetched =
            Step::NbpSent { file: "undionly.kpxe".into(), arch: Arch::Bios, sent: sent.clone() };
        state.apply(&step(fetched), None, now);
        assert_eq!(file(&state, now), script, "the NBP asks");
        state.apply(
            &step(Step::ScriptServed {
                starts: Starts::Menu,
                does: "boot".into(),
                client: Box::new(query.client.clone()),
                sent,
            }),
            None,
            now,
        );
        assert_eq!(file(&state, now), "undionly.kpxe", "the next power-on");
    }
}
