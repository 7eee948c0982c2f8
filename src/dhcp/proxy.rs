//! Who is answered, and with what: one `match` on port and message type, and five templates.
//!
//! The templates are those of the field: T1 BIOS ROM, T2 UEFI PXE, T3 the ACK on port 4011, T4 iPXE,
//! T5 UEFI HTTP Boot. They differ in `file`, option 43, option 60 and option 175 only.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::SystemTime;

use super::packet::{Malformed, MessageType, Reply, ReplyKind, Request, option};
use super::pxe::{self, NotOurs};
use crate::boot::event::Subject;
use crate::boot::{
    Answer, Arch, Client, Event, Mac, MachineState, Stage, Step, decide as decision,
};
use crate::config::Config;

/// Which of our two ports a datagram came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// 67, the DHCP server port.
    Dhcp,
    /// 4011, the PXE boot server port (PXE 2.1 section 2.2).
    BootServer,
}

/// Where a datagram came from, and where it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its sender.
    pub from: SocketAddrV4,
    /// Our port.
    pub port: Port,
    /// The interface's name.
    pub interface: String,
    /// The address that machines on this interface are told for us.
    pub local: Ipv4Addr,
}

/// A request, and who sent it.
#[derive(Clone, Debug)]
pub struct Query {
    request: Request,
    client: Client,
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
    /// Its sender does not network boot, or not on anything that runs here.
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    /// A message type that this port does not answer.
    #[error("nothing on this port answers it")]
    NotForThisPort,
    /// On port 4011, for another server.
    #[error("it is meant for {0}")]
    OtherServer(Ipv4Addr),
    /// The decision says so.
    #[error("{reason}")]
    Decided {
        /// Who gets no answer.
        subject: Subject,
        /// Why.
        reason: decision::Ignored,
    },
}

impl Query {
    /// Reads a datagram.
    ///
    /// # Errors
    /// It is malformed, or from nobody who network boots.
    pub fn read(datagram: &[u8]) -> Result<Self, Ignored> {
        let request = Request::decode(datagram)?;
        let client = pxe::client(&request)?;
        Ok(Self { request, client })
    }

    /// The machine to look up.
    pub fn mac(&self) -> Option<Mac> {
        self.client.mac
    }
}

/// Answers a query from the snapshot and from what is remembered of the machine.
pub fn respond(
    query: &Query,
    arrival: &Arrival,
    config: &Config,
    (state, now): (&MachineState, SystemTime),
) -> Outcome {
    let Query { request, client } = query;
    let kind = match (arrival.port, request.message_type) {
        (Port::Dhcp, MessageType::Discover) => ReplyKind::Offer,
        (Port::Dhcp, MessageType::Request) => return Outcome::Seen(leased(query, config)),
        (Port::BootServer, MessageType::Request | MessageType::Inform) => ReplyKind::Ack,
        (Port::Dhcp, MessageType::Inform | MessageType::Other)
        | (Port::BootServer, MessageType::Discover | MessageType::Other) => {
            return Outcome::Ignored(Ignored::NotForThisPort);
        }
    };
    if let (ReplyKind::Ack, Some(server)) = (kind, request.address(option::SERVER_ID))
        && server != arrival.local
    {
        return Outcome::Ignored(Ignored::OtherServer(server));
    }
    let subject = subject(query, config);
    let boot_file = match decision::decide(client, &config.catalog, state, now) {
        Answer::Nbp(nbp) if client.stage == Stage::HttpBoot => {
            format!("http://{}:{}/nbp/{}", arrival.local, config.server.http_port, nbp.name)
        }
        Answer::Nbp(nbp) => nbp.name.clone(),
        Answer::Script(mac) => script_url(arrival.local, config.server.http_port, mac),
        Answer::Ignore(reason) => {
            return Outcome::Ignored(Ignored::Decided { subject, reason });
        }
    };
    let reply = template(kind, query, arrival.local, boot_file.clone());
    Outcome::Reply {
        to: destination(kind, request, arrival),
        datagram: reply.encode(request),
        event: Event { subject, step: step(kind, client, boot_file, arrival) },
    }
}

fn script_url(local: Ipv4Addr, port: u16, mac: Mac) -> String {
    format!("http://{local}:{port}/boot/{}.ipxe", mac.hyphenated())
}

/// T1 to T5.
fn template(kind: ReplyKind, query: &Query, local: Ipv4Addr, boot_file: String) -> Reply {
    let Query { request, client } = query;
    let http_boot = client.stage == Stage::HttpBoot;
    Reply {
        kind,
        next_server: local,
        boot_file,
        vendor_class: if http_boot { pxe::HTTP_CLIENT } else { pxe::PXE_CLIENT },
        vendor_options: vendor_options(client),
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

/// Option 43, which BIOS ROMs want and UEFI must not see: before 2013 its PXE client took bit 3 for a
/// menu without entries and booted the disk (edk2 30a95d4d39); until 2017 it dropped such an offer
/// whole (edk2 8cdd559be6). Without it every generation asks on port 4011.
fn vendor_options(client: &Client) -> Option<Vec<u8>> {
    match (client.stage, client.arch) {
        (Stage::Pxe, Some(Arch::Bios)) => Some(JUST_DOWNLOAD.to_vec()),
        (Stage::Pxe | Stage::HttpBoot | Stage::Ipxe, _) => None,
    }
}

/// Where a reply goes (RFC 2131 section 4.1).
///
/// On port 67 a client has no address that it would answer ARP for, so it is reached by broadcast.
/// On port 4011 it has one, and listens only on the port that it sent from: UEFI on 4011 (elsewhere
/// it answers with an ICMP error), iPXE on 68, whatever its broadcast flag says.
fn destination(kind: ReplyKind, request: &Request, arrival: &Arrival) -> SocketAddrV4 {
    const CLIENT: u16 = 68;
    const SERVER: u16 = 67;
    let broadcast = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT);
    match kind {
        _ if !request.giaddr.is_unspecified() => SocketAddrV4::new(request.giaddr, SERVER),
        ReplyKind::Offer => broadcast,
        ReplyKind::Ack if arrival.from.ip().is_unspecified() => broadcast,
        ReplyKind::Ack => arrival.from,
    }
}

fn step(kind: ReplyKind, client: &Client, boot_file: String, arrival: &Arrival) -> Step {
    match kind {
        ReplyKind::Offer => Step::Offered {
            arch: client.arch,
            stage: client.stage,
            boot_file,
            interface: arrival.interface.clone(),
        },
        ReplyKind::Ack => Step::Acknowledged { boot_file },
    }
}

/// A machine takes its lease: the address is what its later TFTP requests are known by.
fn leased(query: &Query, config: &Config) -> Event {
    let Query { request, .. } = query;
    let subject =
        Subject { address: request.address(option::REQUESTED_ADDRESS), ..subject(query, config) };
    let server = request.address(option::SERVER_ID);
    Event { subject, step: Step::Leased { server } }
}

fn subject(query: &Query, config: &Config) -> Subject {
    let Query { request, client } = query;
    let address = request.ciaddr;
    Subject {
        mac: client.mac,
        name: config.catalog.identify(client).map(|machine| machine.name.clone()),
        address: (!address.is_unspecified()).then_some(address),
    }
}
