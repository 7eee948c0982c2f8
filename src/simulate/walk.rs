//! Walks the way of a machine, step by step: who names what (`naming`), the NBP (`nbp`), and the
//! scripts (`scripts`).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::journey::{At, Failure, Journey, Step};
use super::machine::{Asker, Firmware, Machine};
use super::web::Web;
use crate::pure::catalog::omni::redacted;
use crate::sys::interfaces::Interface;
use crate::sys::udp::Udp;

mod naming;
mod nbp;
mod scripts;

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
    let socket = naming::listen()?;
    let mut walk = Walk { machine, interface, web, steps: Vec::new(), tell };
    let end = walk.go(&socket).await;
    Ok(Journey { steps: walk.steps, end })
}

/// A number that nobody else uses now.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
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

    fn is_here(&self, address: Ipv4Addr) -> bool {
        self.interface.own_addresses().any(|own| own == address)
    }

    /// The address of ours that a server is asked from.
    fn address_towards(&self, server: Ipv4Addr) -> Ipv4Addr {
        let on_its_lan = |(own, mask): &&(Ipv4Addr, Ipv4Addr)| *own & *mask == server & *mask;
        let addresses = &self.interface.addresses;
        addresses.iter().find(on_its_lan).unwrap_or(&addresses[0]).0
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
}

fn is_url(boot_file: &str) -> bool {
    boot_file.starts_with("http://") || boot_file.starts_with("https://")
}
