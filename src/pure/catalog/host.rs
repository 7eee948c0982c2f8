//! The host that a request is for, and the names that the config has for this one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::{self, Display};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A host, by whatever port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// In lower case, without the trailing dot.
    Name(String),
}

/// Not `host[:port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no host name and no address")]
pub struct NoHost;

impl FromStr for Host {
    type Err = NoHost;

    /// The host of `uri-host [":" port]` (RFC 9110 section 7.2): user information is none of it.
    fn from_str(authority: &str) -> Result<Self, NoHost> {
        Self::read(authority).ok_or(NoHost)
    }
}

impl Host {
    fn read(authority: &str) -> Option<Self> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => {
                let (literal, rest) = literal.split_once(']')?;
                let address = IpAddr::V6(literal.parse::<Ipv6Addr>().ok()?).to_canonical();
                let port = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
                (Self::Address(address), port)
            }
            None => {
                let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
                (Self::of_name(name)?, port)
            }
        };
        let is_port = port.is_empty() || port.bytes().all(|b| b.is_ascii_digit());
        (is_port && port.len() <= 5).then_some(host)
    }

    fn of_name(name: &str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        if let Ok(address) = name.parse() {
            return Some(Self::Address(IpAddr::V4(address)));
        }
        let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let is_valid = !name.is_empty() && name.bytes().all(is_name);
        is_valid.then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}
