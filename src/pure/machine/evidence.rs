//! Evidence before effect: what a request must prove before it changes what happens to a machine.
//!
//! Anybody on the LAN can write a machine's MAC into a DHCP message or a URL. What a neighbour cannot do,
//! unless he also answers ARP for it, is to have the machine's address ([`locate`]), and what he cannot
//! see is the id of its boot, which goes to that address only. [`Effect::requires`] is the table of which
//! effect needs which of the two: `boot::state` follows it, and the simulated rack compares the two.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::time::Time;
use crate::pure::client::{Mac, Stage};
use crate::pure::event::doubt::Doubt;

/// How long after its last DHCPREQUEST, port 4011 request or NBP fetch a machine still counts as booting.
/// iPXE on a link that spanning tree keeps shut, and a question in between, need a few minutes.
pub const BOOTING: Duration = Duration::from_mins(10);

/// How many of a machine's addresses are kept: firmware, iPXE and the system may each have a lease of their own.
const MOST_ADDRESSES: usize = 8;

/// The prefix length of a relay's subnet, unless `server.tftp.subnets` has it.
const RELAYED_PREFIX: u8 = 24;

/// How strong the evidence is that a request comes from the machine that it names, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The request says so: a `chaddr`, a URL, a UUID. Any neighbour can write that.
    Claim,
    /// The kernel's neighbour entry for the sender's address is a card of the machine.
    Address,
    /// The request belongs to an open boot: it has the boot's id, and comes from a card of the machine.
    Boot,
    /// The operator, over the control socket.
    Operator,
}

/// What a request can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Count a boot as completed, after which `boot: once` boots the disk.
    CompleteBoot,
    /// Use up one boot of an order.
    UseOrder,
    /// Take a completed boot back (`boot=failed`).
    UndoCompletion,
    /// Boot by the network again after the disk (`disk=failed`, back in PXE).
    ReportDiskFailure,
    /// Open a boot, which can receive secrets.
    OpenBoot,
    /// Take another option 43 for a machine that has never reached its script.
    ClimbOption43,
    /// Take another NBP, or another option 43 after the first success.
    ClimbNbp,
    /// Count an NBP fetch for the loop guard.
    CountNbpFetch,
    /// Learn what hardware the machine has.
    LearnFacts,
    /// Learn an address of the machine.
    LearnAddress,
    /// Receive an answer file.
    FetchAnswerFile,
    /// Show when the machine was heard last. It decides nothing.
    MarkSeen,
    /// Answer a machine with `local_boot: silent` again, which then opens a boot or does not.
    BreakSilence,
    /// Order a boot, withdraw an order, keep a machine on its disk, confirm a card.
    Order,
}

impl Effect {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::CompleteBoot,
        Self::UseOrder,
        Self::UndoCompletion,
        Self::ReportDiskFailure,
        Self::OpenBoot,
        Self::ClimbOption43,
        Self::ClimbNbp,
        Self::CountNbpFetch,
        Self::LearnFacts,
        Self::LearnAddress,
        Self::FetchAnswerFile,
        Self::MarkSeen,
        Self::BreakSilence,
        Self::Order,
    ];

    /// The weakest evidence that is enough.
    pub const fn requires(self) -> Evidence {
        match self {
            Self::Order => Evidence::Operator,
            Self::CompleteBoot
            | Self::UseOrder
            | Self::UndoCompletion
            | Self::ReportDiskFailure
            | Self::LearnFacts => Evidence::Boot,
            Self::OpenBoot
            | Self::ClimbNbp
            | Self::CountNbpFetch
            | Self::LearnAddress
            | Self::FetchAnswerFile => Evidence::Address,
            Self::ClimbOption43 | Self::MarkSeen | Self::BreakSilence => Evidence::Claim,
        }
    }
}

/// Who the kernel's neighbour table says is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// This card, on the served interface whose LAN holds the address.
    Card(Mac),
    /// Nobody, as far as the kernel knows.
    Unknown,
    /// The address is on no served LAN: its requests come through a router.
    OffLink,
    /// The address is this host's own.
    ThisHost,
}

/// When a machine was seen on its way to its script, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sightings {
    /// The last DHCPREQUEST of its firmware or its iPXE.
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<Time>,
    /// What sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    /// The relays that its requests came through, the last one last: a request adds one and replaces none, since
    /// any neighbour can send one without a relay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    relays: Vec<(Ipv4Addr, Time)>,
    /// From where it asked port 4011, or fetched an NBP or autoexec, the last one last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fetched: Vec<(Ipv4Addr, Time)>,
}

impl Sightings {
    /// Notes a DHCPREQUEST, with its relay where one forwarded it.
    pub(crate) fn request(&mut self, relay: Option<Ipv4Addr>, at: Time) {
        self.requested = Some(at);
        if let Some(relay) = relay {
            keep(&mut self.relays, relay, at);
        }
    }

    /// Notes at which stage firmware or iPXE asks DHCP.
    pub(crate) fn discover(&mut self, stage: Stage) {
        // The NBP that the firmware loaded is of the same start.
        if stage != Stage::Ipxe || self.stage.is_none() {
            self.stage = Some(stage);
        }
    }

    /// Notes a port 4011 request, or a fetch of an NBP or autoexec, from this address.
    pub(crate) fn fetch(&mut self, address: Ipv4Addr, at: Time) {
        keep(&mut self.fetched, address, at);
    }

    /// Keeps the age of what was seen when the clock is set by so many milliseconds.
    pub(crate) fn shift(&mut self, by: i64) {
        let seen = self.fetched.iter_mut().chain(&mut self.relays).map(|(_, at)| at);
        self.requested.iter_mut().chain(seen).for_each(|at| *at = at.shifted(by));
    }

    /// The stage of the start that was seen last.
    pub(crate) fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// When the machine was last seen to boot, as far as that concerns this address.
    pub fn last(&self, address: Ipv4Addr) -> Option<Time> {
        let fetched = self.fetched.iter().find(|(known, _)| *known == address).map(|(_, at)| *at);
        self.requested.max(fetched)
    }

    /// Whether the machine, at this address, is booting.
    pub fn is_booting(&self, address: Ipv4Addr, now: Time) -> bool {
        self.last(address).is_some_and(|last| now.is_within(BOOTING, last))
    }

    /// Whether a relay of the network of this address has forwarded the machine's DHCPREQUEST lately.
    fn is_relayed(&self, address: Ipv4Addr, subnets: &[Ipv4Net], now: Time) -> bool {
        let recent = self.relays.iter().filter(|(_, at)| now.is_within(BOOTING, *at));
        recent.into_iter().any(|(relay, _)| is_behind(*relay, address, subnets))
    }

    /// Whether an address is in the network of a relay that forwarded a DHCPREQUEST of the machine.
    pub fn is_behind_relay(&self, address: Ipv4Addr, subnets: &[Ipv4Net]) -> bool {
        self.relays.iter().any(|(relay, _)| is_behind(*relay, address, subnets))
    }
}

/// Adds an address to those that were seen, as the last one.
fn keep(seen: &mut Vec<(Ipv4Addr, Time)>, address: Ipv4Addr, at: Time) {
    seen.retain(|(known, _)| *known != address);
    if seen.len() == MOST_ADDRESSES {
        seen.remove(0);
    }
    seen.push((address, at));
}

/// Whether a datagram from this source can have come through the relay that it names.
///
/// Relays send from their own addresses. A host of the relay's network that names it in a DHCP message of its own does not,
/// unless it forges its source, which routers drop.
pub fn is_from_relay(relay: Ipv4Addr, source: Ipv4Addr, subnets: &[Ipv4Net]) -> bool {
    source == relay || !is_behind(relay, source, subnets)
}

/// Whether an address is in the network of a relay.
fn is_behind(relay: Ipv4Addr, address: Ipv4Addr, subnets: &[Ipv4Net]) -> bool {
    let configured = subnets.iter().find(|subnet| subnet.contains(&relay));
    let usual = || Ipv4Net::new(relay, RELAYED_PREFIX).ok();
    configured.copied().or_else(usual).is_some_and(|subnet| subnet.contains(&address))
}

/// A request whose sender is to be located.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The address that it comes from.
    pub address: Ipv4Addr,
    /// Who has that address.
    pub neighbour: Neighbour,
    /// The card that the request names.
    pub claimed: Mac,
    /// The cards that the machine is known to have.
    pub cards: &'a [Mac],
    /// The networks behind routers that the config names.
    pub subnets: &'a [Ipv4Net],
}

/// The card of the machine that is at the sender's address ([`Evidence::Address`]).
///
/// # Errors
/// Why the sender is not taken for the machine.
pub fn locate(sender: Sender<'_>, sightings: &Sightings, now: Time) -> Result<Mac, Doubt> {
    let Sender { address, neighbour, claimed, cards, subnets } = sender;
    match neighbour {
        Neighbour::ThisHost => Err(Doubt::ThisHost),
        Neighbour::Card(card) if cards.contains(&card) => Ok(card),
        Neighbour::Card(card) => Err(Doubt::OtherCard { address, card }),
        Neighbour::Unknown => Err(Doubt::NoNeighbour(address)),
        Neighbour::OffLink if sightings.is_relayed(address, subnets, now) => Ok(claimed),
        Neighbour::OffLink => Err(Doubt::NotRelayed(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::event::doubt::Doubt;

    #[test]
    fn a_host_of_a_relays_network_is_not_taken_for_the_relay() {
        let relay = Ipv4Addr::new(10, 78, 0, 1);
        let wide = ["10.78.0.0/16".parse().unwrap()];
        for (source, subnets, expected) in [
            ([10, 78, 0, 1], &[][..], true),
            // The relay's address on the network of the server, or beyond.
            ([10, 77, 0, 1], &[], true),
            ([172, 16, 0, 9], &[], true),
            ([10, 78, 0, 66], &[], false),
            ([10, 78, 3, 66], &[], true),
            ([10, 78, 3, 66], &wide, false),
        ] {
            assert_eq!(is_from_relay(relay, source.into(), subnets), expected, "{source:?}");
        }
    }

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
    const RELAY: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

    fn second(seconds: u64) -> Time {
        Time::from_millis(1_000_000 + 1000 * seconds)
    }

    fn located(
        (address, neighbour): (Ipv4Addr, Neighbour),
        subnets: &[Ipv4Net],
        (sightings, now): (&Sightings, Time),
    ) -> Result<Mac, Doubt> {
        let sender = Sender { address, neighbour, claimed: OWN, cards: &[OWN], subnets };
        locate(sender, sightings, now)
    }

    #[test]
    fn every_effect_on_a_disk_an_order_or_a_secret_needs_more_than_a_claim() {
        let claims: Vec<Effect> =
            Effect::ALL.into_iter().filter(|effect| effect.requires() == Evidence::Claim).collect();
        assert_eq!(claims, [Effect::ClimbOption43, Effect::MarkSeen, Effect::BreakSilence]);
        assert_eq!(Effect::Order.requires(), Evidence::Operator);
        for effect in [Effect::CompleteBoot, Effect::UseOrder, Effect::UndoCompletion] {
            assert_eq!(effect.requires(), Evidence::Boot);
        }
    }

    #[test]
    fn only_the_card_that_has_the_address_is_located() {
        let nothing = (&Sightings::default(), second(0));
        let at = |neighbour| located((ADDRESS, neighbour), &[], nothing);
        assert_eq!(at(Neighbour::Card(OWN)), Ok(OWN));
        let other = Doubt::OtherCard { address: ADDRESS, card: OTHER };
        assert_eq!(at(Neighbour::Card(OTHER)), Err(other));
        assert_eq!(at(Neighbour::Unknown), Err(Doubt::NoNeighbour(ADDRESS)));
        assert_eq!(at(Neighbour::ThisHost), Err(Doubt::ThisHost));
        assert_eq!(at(Neighbour::OffLink), Err(Doubt::NotRelayed(ADDRESS)));
    }

    #[test]
    fn behind_a_relay_the_machine_is_in_the_network_whose_relay_forwarded_its_request() {
        let mut sightings = Sightings::default();
        sightings.request(Some(RELAY), second(0));
        let at = |address: [u8; 4], subnets: &[Ipv4Net], now| {
            located((address.into(), Neighbour::OffLink), subnets, (&sightings, second(now)))
                .is_ok()
        };
        assert!(at([10, 78, 0, 50], &[], 599));
        assert!(!at([10, 78, 0, 50], &[], 600));
        assert!(!at([10, 78, 1, 50], &[], 1));
        let subnet: Ipv4Net = "10.78.0.0/16".parse().unwrap();
        assert!(at([10, 78, 1, 50], &[subnet], 1));
        assert!(!at([10, 79, 0, 50], &[subnet], 1));
        // A neighbour sends one without a relay.
        sightings.request(None, second(1));
        let address = Ipv4Addr::new(10, 78, 0, 50);
        let now = (&sightings, second(2));
        assert_eq!(located((address, Neighbour::OffLink), &[], now), Ok(OWN));
    }

    #[test]
    fn eight_forged_relays_push_the_true_one_out_until_the_machine_asks_again() {
        let mut sightings = Sightings::default();
        let is_located = |sightings: &Sightings| {
            let address = Ipv4Addr::new(10, 78, 0, 50);
            located((address, Neighbour::OffLink), &[], (sightings, second(20))).is_ok()
        };
        sightings.request(Some(RELAY), second(0));
        let forge = |sightings: &mut Sightings, count: u8| {
            (0..count).for_each(|n| sightings.request(Some([10, 79, n, 1].into()), second(1)));
        };
        forge(&mut sightings, 7);
        assert!(is_located(&sightings));
        forge(&mut sightings, 8);
        assert!(!is_located(&sightings));
        sightings.request(Some(RELAY), second(2));
        assert!(is_located(&sightings));
    }

    #[test]
    fn a_machine_is_booting_for_ten_minutes_after_it_was_seen_to() {
        let mut sightings = Sightings::default();
        assert!(!sightings.is_booting(ADDRESS, second(0)));
        sightings.fetch(ADDRESS, second(0));
        assert!(sightings.is_booting(ADDRESS, second(599)));
        assert!(!sightings.is_booting(ADDRESS, second(600)));
        assert!(!sightings.is_booting(Ipv4Addr::new(10, 0, 0, 51), second(1)));
        sightings.request(None, second(600));
        assert!(sightings.is_booting(Ipv4Addr::new(10, 0, 0, 51), second(601)));
    }

    #[test]
    fn a_request_adds_an_address_and_replaces_none() {
        let mut sightings = Sightings::default();
        for host in 0..20 {
            sightings.fetch(Ipv4Addr::new(10, 0, 0, host), second(host.into()));
        }
        let known = (0..20).filter(|host| sightings.last(Ipv4Addr::new(10, 0, 0, *host)).is_some());
        assert_eq!(known.collect::<Vec<u8>>(), (12..20).collect::<Vec<u8>>());
    }
}
