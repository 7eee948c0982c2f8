//! Watches the rest of the LAN, and says in the log what an operator should know of it: each finding
//! when it is new, and when it has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::probe::probe;
use crate::pure::config::snapshot::Config;
use crate::pure::dhcp::survey::{Answer, Finding, Prober, Us, findings, leasing};
use crate::sys::interfaces::{Interface, Served};

/// How often we ask: what machines choose is seen at once, but another proxy is not.
const ASK: Duration = Duration::from_hours(1);
/// How soon we ask again where nobody gives leases: after a power cut the router may need longer than
/// we. Each time in vain doubles it.
const ASK_AGAIN: Duration = Duration::from_mins(1);
/// How soon we ask after the last time because a machine was seen to choose a server that is new.
const ASK_FOR_A_SERVER: Duration = Duration::from_secs(30);
/// How long a server counts that a machine was seen to choose: some give leases only to machines that
/// they know, and do not answer us.
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
#[derive(Debug)]
struct Known {
    interface: Interface,
    /// When we ask next; none while a question is out.
    next: Option<Instant>,
    asked: Instant,
    in_vain: u32,
    answers: Vec<Answer>,
    chosen: BTreeMap<Ipv4Addr, Instant>,
    told: BTreeSet<Finding>,
    /// Why we could not ask, as it was told.
    failed: Option<String>,
}

/// An interface as it was asked on, and what came.
#[derive(Debug)]
struct Asked {
    interface: Interface,
    answers: Result<Vec<Answer>, String>,
}

/// The watcher.
#[derive(Debug)]
pub struct Lan {
    config: watch::Receiver<Arc<Config>>,
    served: watch::Receiver<Arc<Served>>,
    sightings: mpsc::Receiver<Sighting>,
    known: BTreeMap<u32, Known>,
}

impl Lan {
    /// Watches the served interfaces. Sightings go to the sender; those that come too fast are lost.
    pub fn new(
        (config, served): (watch::Receiver<Arc<Config>>, watch::Receiver<Arc<Served>>),
    ) -> (Self, mpsc::Sender<Sighting>) {
        let (sender, sightings) = mpsc::channel(16);
        (Self { config, served, sightings, known: BTreeMap::new() }, sender)
    }

    /// Watches, for ever.
    pub async fn run(mut self) {
        let mut asked = JoinSet::new();
        self.follow();
        loop {
            let next = self.known.values().filter_map(|known| known.next).min();
            tokio::select! {
                () = until(next) => self.ask(&mut asked),
                Ok(()) = self.served.changed() => self.follow(),
                Some(Ok(answered)) = asked.join_next() => self.answered(answered),
                Some(sighting) = self.sightings.recv() => self.sighted(sighting),
            }
        }
    }

    /// Takes up the served interfaces: what is new or has changed is asked on at once.
    fn follow(&mut self) {
        let served = Arc::clone(&self.served.borrow_and_update());
        self.known.retain(|index, known| served.at(*index) == Some(&known.interface));
        for interface in served.iter() {
            self.known.entry(interface.index).or_insert_with(|| Known::new(interface.clone()));
        }
    }

    fn ask(&mut self, asked: &mut JoinSet<Asked>) {
        let now = Instant::now();
        for known in self.known.values_mut() {
            if known.next.is_some_and(|next| next <= now) {
                (known.next, known.asked) = (None, now);
                let interface = known.interface.clone();
                asked.spawn(async move {
                    let answers = probe(&interface, Prober::Daemon).await;
                    Asked { interface, answers }
                });
            }
        }
    }

    fn answered(&mut self, Asked { interface, answers }: Asked) {
        // What came on an interface that has changed since is not about this one.
        let known = self.known.get_mut(&interface.index).filter(|k| k.interface == interface);
        let Some(known) = known else {
            return;
        };
        known.next = Some(Instant::now() + ASK);
        match answers {
            Ok(answers) => {
                known.failed = None;
                known.take(answers);
                let config = Arc::clone(&self.config.borrow());
                known.tell(&config);
                known.in_vain = if known.is_without_leases() { known.in_vain + 1 } else { 0 };
                if known.in_vain > 0 {
                    let pause = ASK_AGAIN * 2_u32.pow(known.in_vain.min(7) - 1);
                    known.next = Some(Instant::now() + pause.min(ASK));
                }
            }
            Err(reason) => {
                if known.failed.as_ref() != Some(&reason) {
                    warn!("cannot ask who else answers machines on {}: {reason}", interface.name);
                }
                known.failed = Some(reason);
            }
        }
    }

    fn sighted(&mut self, Sighting { interface, server }: Sighting) {
        let Some(known) = self.known.get_mut(&interface) else {
            return;
        };
        let is_new = !known.chosen.contains_key(&server);
        if !is_new || known.chosen.len() < MOST {
            known.chosen.insert(server, Instant::now());
        }
        // The router may have changed its address: who answers now decides what there is to tell.
        if is_new && !leasing(&known.answers).contains(&server) {
            let soon = Instant::now().max(known.asked + ASK_FOR_A_SERVER);
            known.next = known.next.map(|next| next.min(soon));
        }
    }
}

impl Known {
    fn new(interface: Interface) -> Self {
        let now = Instant::now();
        Self {
            interface,
            next: Some(now),
            asked: now,
            in_vain: 0,
            answers: Vec::new(),
            chosen: BTreeMap::new(),
            told: BTreeSet::new(),
            failed: None,
        }
    }

    /// Takes up new answers. Who gave leases and gives none now has gone, although it was chosen.
    fn take(&mut self, answers: Vec<Answer>) {
        let (old, new) = (leasing(&self.answers), leasing(&answers));
        if let (Some(server), 1, true) = (new.first(), new.len(), new != old) {
            info!("on {}: the DHCP server is {server}", self.interface.name);
        }
        let gone = |server: &Ipv4Addr| old.contains(server) && !new.contains(server);
        self.chosen.retain(|server, seen| {
            (!gone(server) || *seen >= self.asked) && seen.elapsed() < CHOSEN
        });
        self.answers = answers;
    }

    fn is_without_leases(&self) -> bool {
        self.told.contains(&Finding::NoDhcpServer)
    }

    fn tell(&mut self, config: &Config) {
        let name = &self.interface.name;
        let chosen = self.chosen.keys().copied().collect();
        let us = Us::new(self.interface.own_addresses(), config.serving());
        let found = findings(&self.answers, &chosen, &us);
        for finding in found.difference(&self.told) {
            warn!("on {name}: {finding}");
        }
        for gone in self.told.difference(&found) {
            info!("on {name}: it is no longer so that {}", gone.fact());
        }
        self.told = found;
    }
}

/// Waits until then, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
