//! What can be asked of the running daemon, each as one function with one result: the control socket offers
//! them, and whatever else leads to the daemon offers the same.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use self::lost::LostState;
use self::machines::{CardOrder, Events, Give, Given, Order, Plan, Story};
use super::machine_view::targets::Targets;
use super::machine_view::{self, Machine, outdated};
use crate::config::loader::Source;
use crate::config::reloader::Reloader;
use crate::pure::catalog::Image;
use crate::pure::catalog::image_status::{Lack, Standing};
use crate::pure::checksum::Sha256;
use crate::pure::config::problem::{self, Severity};
use crate::pure::config::reload::{LoadError, Reload};
use crate::pure::config::snapshot::Config;
use crate::state::images::Images;
use crate::state::images::image_fetcher::{self, Errand, NotFetched};
use crate::state::images::inventory::{self, IsMeant, Pruned, Row};
use crate::state::images::job::Job;
use crate::state::images::pull::Ask;
use crate::state::journal::Journal;
use crate::state::journal::ring::Told;
use crate::state::registry::Registry;
use crate::sys::interfaces::Served;

pub mod lost;
pub mod machines;

/// How the daemon is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// For how long it runs.
    pub uptime_seconds: u64,
    /// How the config stands.
    pub config: ConfigStatus,
    /// Its ports.
    pub listeners: Vec<Listener>,
    /// Where machines boot.
    pub interfaces: Vec<ServedInterface>,
    /// What is not there of the interfaces that the config names, a line each.
    pub missing_interfaces: Vec<String>,
    /// What is not here of the images that profiles name, a line each.
    pub missing_images: Vec<String>,
    /// Why what is remembered of machines is not kept, where it is not.
    pub not_kept: Option<String>,
    /// Where the id of a machine's boot came from a card that is not its own, a line each.
    pub alarms: Vec<String>,
    /// The machines that boot nothing until the operator decides, a line each; of many the first.
    #[serde(default)]
    pub held: Vec<String>,
    /// The machines whose cards have to be confirmed before their next boots, a line each; of many the first.
    #[serde(default)]
    pub unconfirmed: Vec<String>,
    /// The state folder.
    pub state: String,
    /// What was lost of the registry, unless the operator has accepted it.
    pub lost: Option<LostState>,
    /// How many of what there are.
    pub counts: Counts,
    /// How many events of each kind there were since the start.
    pub events: BTreeMap<String, u64>,
}

/// How the config stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The file, or none where there is none and the defaults serve.
    pub file: Option<String>,
    /// How many configs have been taken up, that of the start included.
    pub generation: u64,
    /// When the running one was, in seconds since 1970.
    pub loaded_at: u64,
    /// When it was read the last time, taken up or not, in seconds since 1970.
    pub read_at: u64,
    /// For how many seconds the file system has not answered, where it hangs: what changes is not seen.
    pub hangs_seconds: Option<u64>,
    /// Why what is written there now does not serve.
    pub refused: Option<Refused>,
    /// What has changed in it and is taken up at the next start.
    pub at_next_start: Vec<String>,
    /// What is broken in the running one since the start: the boots that need it are refused.
    pub faults: Vec<Problem>,
    /// What else is wrong in the running one, but keeps nothing else from serving.
    pub warnings: Vec<Problem>,
}

/// Why a config was not taken up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When that was found, in seconds since 1970.
    pub at: u64,
    /// All of it, as it is in the log.
    pub text: String,
    /// Each problem, where the file could be read.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong in a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether it is told as an error.
    pub is_error: bool,
    /// Whether it is an error that a daemon starts with all the same: only the boots that need what is broken
    /// are refused.
    pub is_fault: bool,
    /// The file.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Its column, from 1.
    pub column: Option<u32>,
    /// The key, as `profiles.talos.image`.
    pub key: String,
    /// What is wrong, and what would mend it.
    pub message: String,
    /// All of it, as it is in the log.
    pub text: String,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// What is served there.
    pub name: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// Its number; none where the config has it off.
    pub port: Option<u16>,
    /// Whether it is served.
    pub runs: bool,
}

/// An interface that machines boot on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedInterface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The one that machines are told.
    pub advertised: Ipv4Addr,
}

/// How many of what there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// In the config.
    pub machines: u64,
    /// In the config.
    pub groups: u64,
    /// In the config.
    pub profiles: u64,
    /// In the config.
    pub images: u64,
    /// On this host.
    pub nbps: u64,
    /// TFTP transfers under way.
    pub tftp_transfers: u64,
}

/// What became of a config that was read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// How many configs have been taken up, that of the start included.
    pub generation: u64,
    /// What has changed for who is served, a line each.
    pub changes: Vec<String>,
    /// What waits for the next start and was not told before, a line each.
    pub at_next_start: Vec<String>,
    /// The installed machines for which it says another profile than before and which boot their disks all the same,
    /// a line each.
    pub outdated: Vec<String>,
    /// Why it was not taken up.
    pub refused: Option<String>,
}

/// What is being fetched, and how the last attempt of each set ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jobs {
    /// By set.
    pub jobs: BTreeMap<String, Job>,
    /// What was asked for and is here already, a line each.
    pub here: Vec<String>,
}

/// The operations, and what they need.
#[derive(Clone, Debug)]
pub struct Operations {
    /// The config.
    pub reloader: Arc<Reloader>,
    /// The served interfaces.
    pub served: watch::Receiver<Arc<Served>>,
    /// The events.
    pub journal: Arc<Journal>,
    /// What is remembered of machines.
    pub registry: Registry,
    /// The ports.
    pub listeners: Vec<Listener>,
    /// The TFTP transfers under way.
    pub transfers: Arc<AtomicUsize>,
    /// The images that are fetched.
    pub images: Images,
    /// The way to have one fetched.
    pub errands: mpsc::UnboundedSender<Errand>,
    /// When the daemon was started.
    pub started: Instant,
}

impl Operations {
    /// How the daemon is doing.
    pub fn status(&self) -> Status {
        let config = self.running_config();
        let served = Arc::clone(&self.served.borrow());
        let interfaces = served.iter().map(|interface| ServedInterface {
            name: interface.name.clone(),
            addresses: interface.addresses.iter().map(|(address, _)| *address).collect(),
            advertised: interface.advertised,
        });
        let events = self.journal.counts();
        let known = self.registry.machines_at_boot(&config.server);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: self.config(&config),
            listeners: self.listeners.clone(),
            interfaces: interfaces.collect(),
            missing_interfaces: served.missing().to_vec(),
            missing_images: self.missing_images(&config),
            not_kept: self.registry.trouble(),
            alarms: machines::alarms(&known),
            held: machines::held(&config, &known),
            unconfirmed: machines::unconfirmed(&config, &known),
            state: config.server.state.display().to_string(),
            lost: LostState::of(&self.registry, &config),
            counts: self.counts(&config),
            events: events.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect(),
        }
    }

    /// Accepts what was lost of the registry; what that was.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn accept_loss(&self) -> Result<Option<LostState>, String> {
        let lost = LostState::of(&self.registry, &self.running_config());
        if lost.is_some() {
            self.registry.accept_loss()?;
        }
        Ok(lost)
    }

    fn config(&self, config: &Config) -> ConfigStatus {
        let standing = self.reloader.standing();
        ConfigStatus {
            file: match &standing.source {
                Source::File(path) => Some(path.display().to_string()),
                Source::Defaults => None,
            },
            generation: standing.generation,
            loaded_at: seconds(standing.since),
            read_at: seconds(standing.read),
            hangs_seconds: self.reloader.hangs().map(|hangs| hangs.as_secs()),
            refused: standing.refused.as_ref().map(|(error, at)| Refused {
                at: seconds(*at),
                text: error.to_string(),
                problems: match &**error {
                    LoadError::Invalid(problems) => problems.iter().map(Problem::of).collect(),
                    LoadError::Unreadable { .. } => Vec::new(),
                },
            }),
            at_next_start: standing.at_next_start.clone(),
            faults: config.faults().map(Problem::of).collect(),
            warnings: config
                .problems
                .iter()
                .filter(|problem| problem.severity == Severity::Warning)
                .map(Problem::of)
                .collect(),
        }
    }

    fn missing_images(&self, config: &Config) -> Vec<String> {
        let shelf = self.images.shelf();
        let named = config.catalog.profiles.values().filter_map(|profile| profile.image.as_ref());
        let named: BTreeMap<&str, &Image> = named.map(|image| (&*image.name, &**image)).collect();
        let lacks = named.into_iter().filter_map(|(name, image)| match shelf.has(image) {
            Err(Lack::Coming(coming)) => Some(format!("{name}: {coming}")),
            // That is a warning of the config.
            Err(Lack::Missing(_)) | Ok(()) => None,
        });
        lacks.collect()
    }

    fn counts(&self, config: &Config) -> Counts {
        let catalog = &config.catalog;
        Counts {
            machines: catalog.machines().len() as u64,
            groups: catalog.groups.len() as u64,
            profiles: catalog.profiles.len() as u64,
            images: catalog.images.len() as u64,
            nbps: catalog.nbps.iter().count() as u64,
            tftp_transfers: self.transfers.load(Ordering::Relaxed) as u64,
        }
    }

    /// Has images fetched, all that a profile names where none is named: what is missing, or what is newer.
    ///
    /// # Errors
    /// There is no such image, or it is the operator's own.
    pub fn pull(&self, images: &[String], ask: Ask) -> Result<Jobs, NotFetched> {
        let config = self.running_config();
        let errands = image_fetcher::asked_for(&config, images)?;
        let shelf = self.images.shelf();
        let mut jobs = Jobs::default();
        for errand in errands {
            let set = errand.wanted.set.clone();
            let is_here = matches!(shelf.sets.get(&set), Some(Standing::Here(_)));
            if is_here && (ask == Ask::Missing || !errand.wanted.is_latest()) {
                jobs.here.push(format!("{} is here already", errand.images.join(", ")));
                continue;
            }
            let job = self.images.asked(&set, &errand.images.join(", "));
            jobs.jobs.insert(set.to_string(), job);
            // The keeper ends with the daemon only.
            self.errands.send(Errand { ask, ..errand }).ok();
        }
        Ok(jobs)
    }

    /// All machines, those of the config and those that were only seen.
    pub fn machines(&self) -> Vec<Machine> {
        machines::list(
            &self.running_config(),
            &self.registry.machines_at_boot(&self.running_config().server),
        )
    }

    /// One of them, with what was told of it.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn machine(&self, who: &str) -> Result<Story, String> {
        let known = self.registry.machines_at_boot(&self.running_config().server);
        machines::story(&self.running_config(), &known, who, |found| {
            machines::told_of(&self.journal, found)
        })
    }

    /// What an order would do.
    ///
    /// # Errors
    /// There is no such machine, or it cannot be ordered.
    pub fn plan(&self, targets: &Targets, order: &Order) -> Result<Plan, String> {
        machines::plan(
            &self.running_config(),
            &self.registry.machines_at_boot(&self.running_config().server),
            targets,
            order,
        )
    }

    /// Gives an order.
    ///
    /// # Errors
    /// There is no such machine, or it cannot be ordered: then nothing is.
    pub fn order(&self, give: &Give) -> Result<Given, String> {
        machines::order(&self.running_config(), &self.registry, give)
    }

    /// What a confirmation would do.
    ///
    /// # Errors
    /// As [`machines::plan_confirm`].
    pub fn plan_confirm(&self, order: &CardOrder) -> Result<Plan, String> {
        machines::plan_confirm(&self.running_config(), &self.registry, order)
    }

    /// Confirms that a card is a machine's, or withdraws that.
    ///
    /// # Errors
    /// As [`machines::confirm`].
    pub fn confirm(&self, order: &CardOrder, agreed: Option<Sha256>) -> Result<Given, String> {
        machines::confirm(&self.running_config(), &self.registry, (order, agreed))
    }

    /// What was told after this number, of a machine or of all: the last so many.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn events(&self, after: u64, who: Option<&str>, most: usize) -> Result<Events, String> {
        let last = *self.journal.subscribe().borrow();
        let macs = match who {
            Some(who) => {
                let known = self.registry.machines_at_boot(&self.running_config().server);
                let found = machine_view::find(&self.running_config(), &known, who);
                Some(found.map_err(|error| error.to_string())?.macs)
            }
            None => None,
        };
        let told = self.journal.after(after, macs.as_deref(), most);
        let events: Vec<Told> = told.into_iter().map(|told| (*told).clone()).collect();
        // What came in between is not passed over.
        let last = events.last().map_or(last, |told| told.id.max(last));
        Ok(Events { last, events })
    }

    fn running_config(&self) -> Arc<Config> {
        Arc::clone(&self.reloader.subscribe().borrow())
    }

    /// What is being fetched.
    pub fn jobs(&self) -> Jobs {
        let jobs = self.images.jobs().into_iter().map(|(set, job)| (set.to_string(), job));
        Jobs { jobs: jobs.collect(), here: Vec::new() }
    }

    /// All images.
    pub fn images(&self) -> Vec<Row> {
        let config = self.running_config();
        inventory::list(&config, self.images.store(), &self.images.jobs())
    }

    /// Removes what no profile names, or only says what that is.
    pub fn prune(&self, is_meant: IsMeant) -> Pruned {
        let config = self.running_config();
        let pruned = inventory::prune(&config, self.images.store(), is_meant);
        self.images.look();
        pruned
    }

    /// Reads the config again, and has it written down what became of that. It takes as long as the disk does.
    pub fn reload(&self) -> Reloaded {
        let outdated = |old: &Config, new: &Config| {
            outdated::outdated_by(
                old,
                new,
                &self.registry.machines_at_boot(&self.running_config().server),
            )
        };
        let reload = self.reloader.reload(outdated);
        self.journal.publish_reload(&reload);
        match reload {
            Reload::TakenUp { generation, changes, at_next_start, outdated, .. } => {
                Reloaded { generation, changes, at_next_start, outdated, refused: None }
            }
            Reload::Refused { error, again: _ } => Reloaded {
                generation: self.reloader.standing().generation,
                changes: Vec::new(),
                at_next_start: Vec::new(),
                outdated: Vec::new(),
                refused: Some(error.to_string()),
            },
        }
    }
}

impl Problem {
    /// As it is told outside.
    pub fn of(problem: &problem::Problem) -> Self {
        let place = problem.at.as_ref();
        Self {
            is_error: problem.severity.is_error(),
            is_fault: problem.severity == Severity::Fault,
            file: place.map(|(file, _)| file.display().to_string()),
            line: place.map(|(_, place)| place.line),
            column: place.map(|(_, place)| place.column),
            key: problem.key.clone(),
            message: problem.message.clone(),
            text: problem.to_string(),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
