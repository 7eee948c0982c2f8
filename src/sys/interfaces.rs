//! The network interfaces that machines boot on, and the address that each is told there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockaddrStorage;
use procfs::ProcResult;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use crate::pure::catalog::server::{Interfaces, Server};
use crate::pure::client::Mac;
use crate::pure::config::snapshot::Config;

mod changes;

/// One served interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address, where it is one of 6 bytes.
    pub mac: Option<Mac>,
    /// Its IPv4 addresses, each with the mask of its LAN.
    pub addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// What machines on it are told: the first address, unless `server.advertise` names another.
    pub advertised: Ipv4Addr,
}

impl Interface {
    /// Whether this address is on its LAN, or on one of them.
    pub fn is_on_lan(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|(own, mask)| own & mask == address & mask)
    }

    /// Every address that is ours on it.
    pub fn own_addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.addresses.iter().map(|(address, _)| *address).chain([self.advertised])
    }
}

/// The served interfaces, and what is not there of those that the config names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    by_index: BTreeMap<u32, Interface>,
    missing: Vec<String>,
    own: Arc<[(Ipv4Addr, Ipv4Addr)]>,
}

impl Served {
    /// The served interface of this index.
    pub fn at(&self, index: u32) -> Option<&Interface> {
        self.by_index.get(&index)
    }

    /// The served interface that has this address.
    pub fn with_address(&self, address: Ipv4Addr) -> Option<&Interface> {
        let has =
            |interface: &&Interface| interface.addresses.iter().any(|(own, _)| *own == address);
        self.by_index.values().find(has)
    }

    /// The served interface on whose LAN this address is.
    pub fn on_lan(&self, address: Ipv4Addr) -> Option<&Interface> {
        self.by_index.values().find(|interface| interface.is_on_lan(address))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Interface> {
        self.by_index.values()
    }

    /// All addresses of this host, on served interfaces and on others, each with the mask of its LAN.
    pub fn own(&self) -> Arc<[(Ipv4Addr, Ipv4Addr)]> {
        Arc::clone(&self.own)
    }

    /// What is not there, and what would mend it, a line each.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }
}

/// How often the interfaces are looked at again without any word of a change: the kernel tells of each
/// change, but a container may be kept from hearing it.
const LOOK: Duration = Duration::from_secs(10);

/// How long the rest of a change may take.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows the interfaces: an address that comes later, from the router's DHCP say, is served then, and an
/// interface that the config names anew.
#[derive(Debug)]
pub struct Watcher {
    config: watch::Receiver<Arc<Config>>,
    served: watch::Sender<Arc<Served>>,
}

impl Watcher {
    /// Looks for the interfaces that the config names.
    pub fn new(config: watch::Receiver<Arc<Config>>) -> Self {
        let mut watcher = Self { config, served: watch::channel(Arc::default()).0 };
        watcher.look();
        watcher
    }

    /// A view of the served interfaces.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Served>> {
        self.served.subscribe()
    }

    /// Looks again at every change, for ever.
    pub async fn run(mut self) {
        let mut changes = changes::listen().unwrap_or_else(|error| {
            debug!("interfaces: cannot hear of changes: {error}");
            mpsc::channel(1).1
        });
        // One may have come between the first look and the first listening.
        self.look();
        loop {
            tokio::select! {
                // The rest of a change comes with messages of its own: addresses, routes. Where there is
                // nobody to tell, this is none of the branches.
                Some(()) = changes.recv() => tokio::time::sleep(SETTLE).await,
                Ok(()) = self.config.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            self.look();
        }
    }

    fn look(&mut self) {
        let config = Arc::clone(&self.config.borrow_and_update());
        let before = Arc::clone(&self.served.borrow());
        let served = match look(&config.server) {
            Ok(looked) => looked,
            // What could not be looked at has not changed.
            Err(reason) => Served { missing: vec![reason], ..Served::clone(&before) },
        };
        if served.by_index != before.by_index {
            let list: Vec<String> = served
                .iter()
                .map(|interface| format!("{} ({})", interface.name, interface.advertised))
                .collect();
            for gone in before.iter().filter(|old| served.at(old.index).is_none()) {
                warn!("machines on {} are not served any more", gone.name);
            }
            if !list.is_empty() {
                info!("serving machines on {}", list.join(", "));
            }
        }
        if served.missing != before.missing && !served.missing.is_empty() {
            warn!("{}; reveille looks again at every change", served.missing.join("; "));
        }
        if served != *before {
            self.served.send_replace(Arc::new(served));
        }
    }
}

/// What is there to serve, and what is missing.
///
/// # Errors
/// Why that cannot be told.
pub fn look(server: &Server) -> Result<Served, String> {
    let mut missing = Vec::new();
    let entries = getifaddrs().map_err(|error| format!("cannot list the interfaces: {error}"))?;
    let entries: Vec<InterfaceAddress> = entries.collect();
    let (addresses, macs) = (addresses(&entries), macs(&entries));
    let names = match &server.interfaces {
        Interfaces::Named(names) => names.clone(),
        Interfaces::OfDefaultRoute => {
            let name = of_default_route(&macs).map_err(|error| {
                format!("cannot read the default route from /proc/net/route: {error}; name the interface in `server.interfaces`")
            })?;
            if name.is_none() {
                missing.push("there is no default route that would tell which interface machines boot on; name it in `server.interfaces`".to_owned());
            }
            name.into_iter().collect()
        }
    };
    if let Some(advertised) = server.advertise
        && !addresses.values().flatten().any(|(address, _)| *address == advertised)
    {
        missing.push(format!(
            "no interface of this host has {advertised}, which `server.advertise` tells machines"
        ));
    }
    let mut by_index = BTreeMap::new();
    for name in names {
        match (if_nametoindex(name.as_str()), addresses.get(&name)) {
            (Ok(index), Some(addresses)) => {
                let advertised = server.advertise.unwrap_or(addresses[0].0);
                let (addresses, mac) = (addresses.clone(), macs.get(&name).copied());
                by_index.insert(index, Interface { index, name, mac, addresses, advertised });
            }
            (Ok(_), None) => missing.push(format!("interface {name} has no IPv4 address")),
            (Err(_), _) => {
                let known: Vec<&str> = addresses.keys().map(String::as_str).collect();
                missing
                    .push(format!("there is no interface {name} (there is: {})", known.join(", ")));
            }
        }
    }
    let own = addresses.into_values().flatten().collect();
    Ok(Served { by_index, missing, own })
}

/// Whether this is an address of any interface of this host, served or not.
pub fn is_own_address(address: IpAddr) -> bool {
    let is_own = |entry: InterfaceAddress| {
        let own = entry.address?;
        let v4 = own.as_sockaddr_in().map(|own| IpAddr::V4(own.ip()));
        Some(v4.or_else(|| own.as_sockaddr_in6().map(|own| IpAddr::V6(own.ip())))? == address)
    };
    // The kernel routes all of 127.0.0.0/8 to this host.
    address.is_loopback()
        || getifaddrs().is_ok_and(|mut entries| entries.any(|entry| is_own(entry) == Some(true)))
}

/// What `reveille init` has to choose from.
#[derive(Debug)]
pub struct Choice {
    /// The interfaces that have an IPv4 address, each with the subnets that it is in.
    pub interfaces: BTreeMap<String, Vec<Ipv4Net>>,
    /// The one of the default route.
    pub of_default_route: Option<String>,
}

/// What there is to choose from.
///
/// # Errors
/// Why the interfaces cannot be listed.
pub fn choice() -> Result<Choice, String> {
    let entries = getifaddrs().map_err(|error| format!("cannot list the interfaces: {error}"))?;
    let entries: Vec<InterfaceAddress> = entries.collect();
    let subnet = |(address, mask)| Ipv4Net::with_netmask(address, mask).ok();
    let interfaces = addresses(&entries)
        .into_iter()
        .map(|(name, addresses)| (name, addresses.into_iter().filter_map(subnet).collect()))
        .collect();
    // Without /proc there is still a choice, only none that suggests itself.
    let of_default_route = of_default_route(&macs(&entries)).unwrap_or_default();
    Ok(Choice { interfaces, of_default_route })
}

/// The IPv4 addresses of each interface that has any, with their masks.
fn addresses(entries: &[InterfaceAddress]) -> BTreeMap<String, Vec<(Ipv4Addr, Ipv4Addr)>> {
    let mut all: BTreeMap<String, Vec<(Ipv4Addr, Ipv4Addr)>> = BTreeMap::new();
    for entry in entries {
        let v4 = |address: Option<SockaddrStorage>| Some(address?.as_sockaddr_in()?.ip());
        // A labelled address, as `eth0:1`, is one of eth0.
        let name = entry.interface_name.split(':').next().unwrap_or_default().to_owned();
        if let Some(address) = v4(entry.address) {
            let mask = v4(entry.netmask).unwrap_or(Ipv4Addr::BROADCAST);
            all.entry(name).or_default().push((address, mask));
        }
    }
    all
}

/// The hardware address of each interface that has one of 6 bytes, but for the loopback's zeros.
fn macs(entries: &[InterfaceAddress]) -> BTreeMap<String, Mac> {
    let mac = |entry: &InterfaceAddress| {
        let octets = entry.address.as_ref()?.as_link_addr()?.addr()?;
        (octets != [0; 6]).then(|| (entry.interface_name.clone(), Mac::new(octets)))
    };
    entries.iter().filter_map(mac).collect()
}

/// The interface of the default route with the lowest metric, among those that machines can be on: a
/// VPN's has no hardware address.
fn of_default_route(macs: &BTreeMap<String, Mac>) -> ProcResult<Option<String>> {
    let routes = procfs::net::route()?;
    let default = routes
        .into_iter()
        .filter(|route| route.destination.is_unspecified() && route.mask.is_unspecified())
        .filter(|route| macs.contains_key(&route.iface))
        .min_by_key(|route| route.metrics);
    Ok(default.map(|route| route.iface))
}
