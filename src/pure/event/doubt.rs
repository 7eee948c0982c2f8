//! Why a request does not count as evidence from its machine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::net::Ipv4Addr;

use crate::pure::client::Mac;
use crate::pure::client::boot_id::BootId;

/// Why a request is not taken for the machine's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It comes from this host: the operator, or `reveille simulate`.
    #[error("the request comes from this host")]
    ThisHost,
    /// `reveille simulate` asks.
    #[error("the request is a simulation")]
    Simulation,
    /// Another card has the address.
    #[error(
        "{address} belongs to {card} in the neighbour table, and that is no card of this machine; a second card belongs under `mac`, and machines behind one NAT address cannot be told apart"
    )]
    OtherCard {
        /// The sender's address.
        address: Ipv4Addr,
        /// Who has it.
        card: Mac,
    },
    /// Nobody is known to have the address.
    #[error("the neighbour table does not know who has {0}")]
    NoNeighbour(Ipv4Addr),
    /// Off-link, and no relay's DHCP was seen for it.
    #[error(
        "{0} is on no served network, and no DHCP request of this machine has come through a relay of that network in the last ten minutes"
    )]
    NotRelayed(Ipv4Addr),
    /// It was not seen to boot.
    #[error(
        "no DHCP request and no NBP fetch of this machine was seen in the last ten minutes, so it is not known to be booting"
    )]
    NotBooting,
    /// The machine's entry has only a UUID or a serial number, which anybody can claim.
    #[error(
        "only its UUID or serial number says that it is {0}, and anybody can claim those; `reveille confirm {0} {1}` makes this card the machine's"
    )]
    Unconfirmed(String, Mac),
    /// An answer file without the id of a boot, or with that of one that is too long ago.
    #[error(
        "it needs the file id of one of its machine's boots of the last two hours, as `files_url` has it"
    )]
    NoFiles,
    /// It is no script, which could open a boot, and has no id of one.
    #[error("it does not carry the id of an open boot")]
    NoBoot,
    /// It came over TFTP, and has not come back with the id that its machine was sent.
    #[error(
        "it came over TFTP, where anybody can forge a source, so the machine is sent an id, with which it asks again"
    )]
    Forgeable(BootId),
    /// The request only asks for the head of the response.
    #[error("the request asks for no content")]
    NoContent,
}

impl Doubt {
    /// Whether the request comes from the machine all the same, and only more is missing.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::NotBooting | Self::NoBoot | Self::NoFiles => true,
            // What only claims to be a machine was not located.
            Self::Unconfirmed(..)
            | Self::ThisHost
            | Self::Simulation
            | Self::OtherCard { .. }
            | Self::NoNeighbour(_)
            | Self::NotRelayed(_)
            | Self::Forgeable(_)
            | Self::NoContent => false,
        }
    }
}
