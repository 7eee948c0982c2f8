//! Watches the rest of the LAN, and says in the log what an operator should know of it: each finding
//! when it is new, and when it has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::probe::probe;
use super::survey::{Answer, Finding, Prober, Us, findings};
use crate::boot::decide::Naming;
use crate::interfaces::{Interface, Served};

/// How often we ask: what machines choose is seen at once, but another proxy is not.
const ASK: Duration = Duration::from_hours(1);
/// How often, while nobody gives leases: after a power cut the router may need longer than we.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// How long a server counts that a machine was seen to choose.
const CHOSEN: Duration = Duration::from_hours(1);
/// How many such servers are remembered for each interface.
const MOST: usize = 16;

/// A machine was seen to choose a DHCP server.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// The interface's index.
    pub interface: u32,
    /// The server.
    pub server: Ipv4Addr,
}

/// What is known of one LAN.
#[derive(Debug, Default)]
struct Known {
    name: String,
    answers: Vec<Answer>,
    chosen: BTreeMap<Ipv4Addr, Instant>,
    told: BTreeSet<Finding>,
}

/// The watcher.
#[derive(Debug)]
pub struct Lan {
    naming: Naming,
    served: watch::Receiver<Arc<Served>>,
    sightings: mpsc::Receiver<Sighting>,
    known: BTreeMap<u32, Known>,
}

impl Lan {
    /// Watches the served interfaces. Sightings go to the sender; those that come too fast are lost.
    pub fn new(
        naming: Naming,
        served: watch::Receiver<Arc<Served>>,
    ) -> (Self, mpsc::Sender<Sighting>) {
        let (sender, sightings) = mpsc::channel(16);
        (Self { naming, served, sightings, known: BTreeMap::new() }, sender)
    }

    /// Watches, for ever.
    pub async fn run(mut self) {
        let mut asked = JoinSet::new();
        let mut again = Instant::now();
        loop {
            tokio::select! {
                // Not while the last questions are out: what has changed since is asked after them.
                () = tokio::time::sleep_until(again), if asked.is_empty() => {
                    self.ask(&mut asked);
                    again = Instant::now() + ASK;
                }
                Ok(()) = self.served.changed() => again = Instant::now(),
                Some(Ok((interface, answers))) = asked.join_next() => {
                    self.answered(&interface, answers);
                    if asked.is_empty() && self.nobody_leases() {
                        again = again.min(Instant::now() + ASK_AGAIN);
                    }
                }
                Some(sighting) = self.sightings.recv() => self.sighted(sighting),
            }
        }
    }

    /// Asks on every served interface.
    fn ask(&mut self, asked: &mut JoinSet<(Interface, Result<Vec<Answer>, String>)>) {
        let served = Arc::clone(&self.served.borrow_and_update());
        self.known.retain(|index, _| served.at(*index).is_some());
        for interface in served.iter().cloned() {
            asked.spawn(async move {
                let answers = probe(&interface, Prober::Daemon).await;
                (interface, answers)
            });
        }
    }

    fn answered(&mut self, interface: &Interface, answers: Result<Vec<Answer>, String>) {
        match answers {
            Ok(answers) => {
                let known = self.known.entry(interface.index).or_default();
                known.name.clone_from(&interface.name);
                known.answers = answers;
                self.tell(interface.index);
            }
            Err(reason) => {
                debug!("cannot ask who else answers machines on {}: {reason}", interface.name);
            }
        }
    }

    fn sighted(&mut self, Sighting { interface, server }: Sighting) {
        // Before the first answers it is not known who else is there.
        let Some(known) = self.known.get_mut(&interface) else {
            return;
        };
        if known.chosen.len() < MOST || known.chosen.contains_key(&server) {
            known.chosen.insert(server, Instant::now());
            self.tell(interface);
        }
    }

    fn tell(&mut self, index: u32) {
        let served = Arc::clone(&self.served.borrow());
        let (Some(interface), Some(known)) = (served.at(index), self.known.get_mut(&index)) else {
            return;
        };
        known.chosen.retain(|_, seen| seen.elapsed() < CHOSEN);
        let chosen = known.chosen.keys().copied().collect();
        let us = Us { addresses: interface.own_addresses().collect(), naming: self.naming };
        let found = findings(&known.answers, &chosen, &us);
        for finding in found.difference(&known.told) {
            warn!("on {}: {finding}", known.name);
        }
        for gone in known.told.difference(&found) {
            info!("on {}: it is no longer so that {}", known.name, gone.fact());
        }
        known.told = found;
    }

    fn nobody_leases(&self) -> bool {
        self.known.values().any(|known| known.told.contains(&Finding::NoDhcpServer))
    }
}
