//! The machines as people ask for them: those of the config and those that were only seen, by whatever name
//! somebody has for one, and what each boots next.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use self::outdated::Outdated;
use super::explanation::entries;
use crate::pure::boot::admission::{UnconfirmedCard, is_for_its_machine_alone};
use crate::pure::boot::plan::{Selection, is_withheld, select};
use crate::pure::catalog::Catalog;
use crate::pure::catalog::release::needs_order;
use crate::pure::catalog::select::Boots;
use crate::pure::catalog::settings::{BootPolicy, NbpLadder};
use crate::pure::catalog::wipes::wipes;
use crate::pure::client::{Client, Mac, Stage};
use crate::pure::config::snapshot::Config;
use crate::pure::event::boot::{Step, Subject};
use crate::pure::event::diagnosis::{Reached, Verdict};
use crate::pure::machine::orders::{Because, Orders};
use crate::pure::machine::state::{Alarm, MachineState};
use crate::pure::nearest::nearest;
use crate::state::registry::machines::{Entry, KnownMachines};

pub mod outdated;
pub mod targets;

/// A machine, as it is told outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name in the config.
    pub name: Option<String>,
    /// Its cards, as the config names them and as they were seen, the last one last.
    pub macs: Vec<Mac>,
    /// The cards that the operator has confirmed as its own.
    #[serde(default)]
    pub confirmed: Vec<Mac>,
    /// Whether it still has no card of its own: its entry has no `mac`, and no card is confirmed.
    #[serde(default)]
    pub is_unconfirmed: bool,
    /// The address that it had last.
    pub address: Option<Ipv4Addr>,
    /// Its firmware, as DHCP told it.
    pub firmware: Option<String>,
    /// What iPXE told of it.
    pub vendor: Option<String>,
    /// See `vendor`.
    pub product: Option<String>,
    /// See `vendor`; else as the config says.
    pub serial: Option<String>,
    /// See `serial`.
    pub uuid: Option<String>,
    /// Its network card, as `lspci -n` would tell it.
    pub nic: Option<String>,
    /// When it was seen first, in seconds since 1970.
    pub first_seen: Option<u64>,
    /// When it was seen last.
    pub last_seen: Option<u64>,
    /// Which entries of the config are for it, and why: a word, and what there is to it.
    pub why: Vec<(String, String)>,
    /// What it boots next, and why.
    pub next: Next,
    /// What it has on its disk, where the config says another profile by now.
    #[serde(default)]
    pub outdated: Option<Outdated>,
    /// For how many boots it is armed.
    pub armed: u32,
    /// Boots that fetched all that they boot.
    pub boots: u64,
    /// When the last of them was complete.
    pub last_boot: Option<u64>,
    /// Boots in a row that came to nothing since then.
    pub failures: u32,
    /// Where the id of its boot came from a card that is not its own.
    pub alarm: Option<String>,
    /// Where the last boot has stopped, and why.
    pub verdict: Option<Box<Verdict>>,
    /// How far its last boot has come.
    pub reached: Option<Reached>,
    /// Whether it has stopped there.
    pub has_stopped: bool,
    /// Which NBP its firmware gets, and why that one.
    pub nbp: Option<String>,
}

/// What a machine boots next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// What.
    pub boots: What,
    /// The profile, where it is one.
    pub profile: Option<String>,
    /// Why, where that is no matter of the config alone.
    pub because: Option<Because>,
    /// Whether that erases a disk.
    #[serde(default)]
    pub wipes: bool,
    /// Whether `release: armed` withholds its script, which holds a secret.
    #[serde(default)]
    pub is_withheld: bool,
    /// The card that has to be confirmed before its machine receives that.
    #[serde(default)]
    pub unconfirmed: Option<UnconfirmedCard>,
}

/// What a machine can boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A profile, by the network.
    Profile,
    /// Its local disk.
    Disk,
    /// Nothing, until its disk is offered again or the operator decides.
    Hold,
    /// What somebody chooses.
    Menu,
    /// It is not answered.
    Nothing,
}

impl Next {
    /// What, in a few words.
    pub fn what(&self) -> String {
        match self.boots {
            What::Profile => format!("profile {}", self.profile.as_deref().unwrap_or_default()),
            What::Disk => "its local disk".to_owned(),
            What::Hold => "nothing, it is held".to_owned(),
            What::Menu => "the menu".to_owned(),
            What::Nothing => "nothing".to_owned(),
        }
    }
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        match self.because {
            Some(because) => write!(f, ": {because}")?,
            None if self.boots == What::Nothing => f.write_str(": it is not answered")?,
            None => {}
        }
        f.write_str(if self.wipes { "; it erases a disk" } else { "" })?;
        f.write_str(match self.is_withheld {
            true => {
                "; its script holds a secret, and `release: armed` withholds it until `reveille arm`"
            }
            false => "",
        })?;
        match &self.unconfirmed {
            Some(card) => write!(f, "; {card}"),
            None => Ok(()),
        }
    }
}

/// Why there is no machine of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// Nobody has it.
    #[error(
        "there is no machine `{who}`: none in the config has this name, and none in it or seen so far this MAC, serial number or address{}", hint.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
    )]
    Nobody {
        /// What was asked for.
        who: String,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// Several have it.
    #[error("`{who}` is the {what} of several machines: {}; name one by its MAC", machines.join(", "))]
    Several {
        /// What was asked for.
        who: String,
        /// What it is.
        what: &'static str,
        /// Whose it is.
        machines: Vec<String>,
    },
}

/// A machine that was found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// As events are about it.
    pub subject: Subject,
    /// What is remembered of it.
    pub state: &'a MachineState,
    /// Its cards: those of the config, then those that were seen.
    pub macs: Vec<Mac>,
}

/// All machines: those of the config by name, then the others, the one that was seen last first.
pub fn list<'a>(config: &Config, known: &'a KnownMachines) -> Vec<Found<'a>> {
    let KnownMachines { entries, unseen } = known;
    let catalog = &config.catalog;
    let (mut by_mac, mut by_name) = (HashMap::new(), HashMap::<&str, Vec<&Entry>>::new());
    for entry in entries {
        by_mac.extend(entry.macs.iter().map(|mac| (*mac, entry)));
        if let Some(name) = &entry.name {
            by_name.entry(name).or_default().push(entry);
        }
    }
    let mut used = HashSet::new();
    let named = catalog.machines().values().map(|machine| {
        let mut own = by_name.get(machine.name.as_str()).cloned().unwrap_or_default();
        own.extend(machine.macs.iter().filter_map(|mac| by_mac.get(mac).copied()));
        used.extend(own.iter().map(|entry| entry.id));
        // The rest of two that will be one, once it is seen again, comes behind.
        own.sort_by_key(|entry| {
            (entry.name.is_none(), std::cmp::Reverse(entry.state.last_seen), entry.id)
        });
        own.dedup_by_key(|entry| entry.id);
        // Each once, where it stands last.
        let all = machine.macs.iter().chain(own.iter().flat_map(|entry| &entry.macs));
        let all: Vec<Mac> = all.copied().collect();
        let mut is_new = HashSet::new();
        let mut macs: Vec<Mac> = all.into_iter().rev().filter(|mac| is_new.insert(*mac)).collect();
        macs.reverse();
        let state = own.first().map_or(unseen, |entry| &entry.state);
        let subject = Subject {
            mac: macs.last().copied(),
            name: Some(machine.name.clone()),
            address: state.address,
        };
        Found { subject, state, macs }
    });
    let mut all: Vec<Found<'_>> = named.collect();
    let mut others: Vec<&Entry> =
        entries.iter().filter(|entry| !used.contains(&entry.id)).collect();
    others.sort_by_key(|entry| std::cmp::Reverse(entry.state.last_seen));
    all.extend(others.into_iter().map(|entry| Found {
        // What the config has no more has no name.
        subject: Subject { name: None, ..entry.subject() },
        state: &entry.state,
        macs: entry.macs.clone(),
    }));
    all
}

/// The machine that somebody means by its name, its MAC in any spelling, its serial number or its address.
///
/// # Errors
/// There is none, or more than one.
pub fn find<'a>(
    config: &Config,
    known: &'a KnownMachines,
    who: &str,
) -> Result<Found<'a>, NotFound> {
    find_among(config, &list(config, known), who)
}

/// The same among all machines.
fn find_among<'a>(config: &Config, all: &[Found<'a>], who: &str) -> Result<Found<'a>, NotFound> {
    let serial = |found: &Found<'_>| {
        let told =
            found.state.client.as_ref().and_then(|client| client.facts.as_ref()?.serial.clone());
        let name = found.subject.name.as_ref();
        let said = name.and_then(|name| config.catalog.machines().get(name)?.serial.clone());
        told.or(said)
    };
    let is_name = |found: &Found<'_>| found.subject.name.as_deref() == Some(who);
    let mac = who.parse::<Mac>().ok();
    let is_mac = |found: &Found<'_>| mac.is_some_and(|mac| found.macs.contains(&mac));
    let is_serial =
        |found: &Found<'_>| serial(found).is_some_and(|serial| serial.eq_ignore_ascii_case(who));
    let address = who.parse::<Ipv4Addr>().ok();
    let is_address = |found: &Found<'_>| address.is_some() && found.subject.address == address;
    let is_named_so = |found: &Found<'_>| {
        found.subject.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(who))
    };
    type Way<'a> = (&'static str, &'a dyn Fn(&Found<'_>) -> bool);
    let ways: [Way<'_>; 5] = [
        ("name", &is_name),
        ("MAC address", &is_mac),
        ("serial number", &is_serial),
        ("address", &is_address),
        ("name", &is_named_so),
    ];
    for (what, is_it) in ways {
        let found: Vec<&Found<'_>> = all.iter().filter(|found| is_it(found)).collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok((*one).clone()),
            // An address goes from one machine to the next: it is that of the last.
            several if what == "address" => {
                let last = several.iter().max_by_key(|found| found.state.last_seen);
                return Ok((**last.unwrap_or(&several[0])).clone());
            }
            several => {
                let machines = several.iter().map(|found| found.subject.to_string()).collect();
                return Err(NotFound::Several { who: who.to_owned(), what, machines });
            }
        }
    }
    let names = config.catalog.machines().keys().map(String::as_str);
    let hint = nearest(who, names).map(str::to_owned);
    Err(NotFound::Nobody { who: who.to_owned(), hint })
}

impl Found<'_> {
    /// Who it is to the config: as its iPXE would ask.
    fn client(&self, catalog: &Catalog) -> Client {
        let machine = self.subject.name.as_ref().and_then(|name| catalog.machines().get(name));
        let told = self.state.client.as_deref().cloned();
        let mut client = told.unwrap_or_else(|| Client::at(Stage::Ipxe));
        client.mac = self.subject.mac;
        client.arch = client.arch.or(self.state.arch);
        client.uuid = client.uuid.or_else(|| machine?.uuid);
        client.address = self.subject.address;
        client.choice = None;
        client.has_no_disk = false;
        let facts = client.facts.get_or_insert_default();
        facts.serial = facts.serial.clone().or_else(|| machine?.serial.clone());
        client
    }

    /// As it is told outside.
    pub fn told(&self, config: &Config) -> Machine {
        let catalog = &config.catalog;
        let client = self.client(catalog);
        let facts = client.facts.clone().unwrap_or_default();
        let orders = self.state.orders.clone();
        let said = select(&client, catalog);
        let why = entries(&said, &client, catalog);
        let why = why.into_iter().map(|(word, what)| (word.to_owned(), what)).collect();
        let selection = said.now(catalog, &orders);
        let (boots, profile) = match &selection.boots {
            Boots::Profile(profile) => (What::Profile, Some(profile.name.clone())),
            Boots::Local(_) => (What::Disk, None),
            Boots::Hold(_) => (What::Hold, None),
            Boots::Menu => (What::Menu, None),
            Boots::Ignore => (What::Nothing, None),
        };
        let erases = match &selection.boots {
            Boots::Profile(profile) => wipes(profile, &selection.who),
            Boots::Hold(_) | Boots::Local(_) | Boots::Menu | Boots::Ignore => false,
        };
        let is_withheld = is_withheld(&selection, config.server.release);
        let next = Next {
            boots,
            profile,
            because: selection.because,
            wipes: erases,
            is_withheld,
            unconfirmed: self.unconfirmed(&selection, config),
        };
        let nbp = client.arch.and_then(|arch| {
            let pinned = selection.first(|said| said.nbp.get(&arch).cloned());
            let is_off = selection.first(|said| said.nbp_ladder) == Some(NbpLadder::Off);
            let mode = match selection.first(|said| said.option_43) {
                Some(mode) => format!("option_43 {}, as the config says", mode.word()),
                None if is_off => "option_43 default".to_owned(),
                None => format!("option_43 {}", self.state.option_43().word()),
            };
            let name = pinned.clone().or_else(|| {
                let ladder = &self.state.ladder;
                let nbps = &catalog.nbps;
                let nbp = if is_off { nbps.for_arch(arch) } else { ladder.nbp(nbps, arch) };
                nbp.map(|nbp| nbp.name.clone())
            })?;
            let why = match &self.state.ladder.worked {
                _ if pinned.is_some() => "as the config says",
                _ if is_off => "the usual one",
                _ if self.state.ladder.has_climbed() => "the next one, after failures",
                Some(worked) if worked.nbp == name => "it brought it to its script",
                Some(_) | None => "the usual one",
            };
            Some(format!("{name} ({why}; {mode})"))
        });
        let seconds = |time: crate::pure::machine::time::Time| time.millis() / 1000;
        let journey = self.state.journey.as_deref();
        let entry = self.subject.name.as_ref().and_then(|name| catalog.machines().get(name));
        Machine {
            name: self.subject.name.clone(),
            macs: self.macs.clone(),
            confirmed: self.state.confirmed.clone(),
            is_unconfirmed: entry.is_some_and(|entry| entry.macs.is_empty())
                && self.state.confirmed.is_empty(),
            address: self.subject.address,
            firmware: client.arch.map(|arch| arch.to_string()),
            vendor: facts.vendor,
            product: facts.product,
            serial: facts.serial,
            uuid: client.uuid.map(|uuid| uuid.to_string()),
            nic: facts.nic.map(|nic| nic.to_string()),
            first_seen: self.state.first_seen.map(seconds),
            last_seen: self.state.last_seen.map(seconds),
            why,
            next,
            outdated: self.outdated(&selection),
            armed: orders.armed.map_or(0, |armed| armed.times),
            boots: self.state.boots,
            last_boot: self.state.orders.completed.as_ref().map(|completed| seconds(completed.at)),
            failures: self.state.failures,
            alarm: self
                .state
                .alarm
                .map(|Alarm { from, card, .. }| Step::BootIdMisused { from, card }.to_string()),
            verdict: self.state.verdict.clone().filter(|_| self.state.failures > 0),
            reached: journey.map(|journey| journey.reached),
            has_stopped: self.state.failures > 0 && journey.is_some_and(|journey| journey.is_told),
            nbp,
        }
    }

    /// The card that has to be confirmed before this boot, if that is for its machine alone.
    fn unconfirmed(&self, selection: &Selection, config: &Config) -> Option<UnconfirmedCard> {
        let machine = selection.who.machine.as_ref()?;
        let is_its = self.subject.name.as_ref() == Some(&machine.name)
            && !(machine.macs.is_empty() && self.state.confirmed.is_empty());
        if is_its || !is_for_its_machine_alone(selection, config.server.release) {
            return None;
        }
        Some(UnconfirmedCard {
            machine: machine.name.clone(),
            card: self.subject.mac,
            is_another: !machine.macs.is_empty(),
        })
    }

    /// Its name, or its MAC where it has none: what a command names it by.
    pub fn label(&self) -> String {
        let mac = || self.subject.mac.map(|mac| mac.to_string());
        self.subject.name.clone().or_else(mac).unwrap_or_else(|| self.subject.to_string())
    }

    /// What keeps an order to boot it from being given.
    ///
    /// # Errors
    /// That.
    pub fn may_be_armed(&self, config: &Config, profile: Option<&str>) -> Result<(), String> {
        let catalog = &config.catalog;
        if let Some(profile) = profile {
            if catalog.profiles.contains_key(profile) {
                return Ok(());
            }
            let near = nearest(profile, catalog.profiles.keys().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(format!("the config has no profile `{profile}`{hint}"));
        }
        let orders = Orders::default();
        let selection = select(&self.client(catalog), catalog).now(catalog, &orders);
        let needs_order = |profile| needs_order(profile, &selection.who, config.server.release);
        match (&selection.boots, selection.policy) {
            // That is what is to end.
            _ if self.state.orders.keeps_to_disk(selection.policy) => Ok(()),
            (Boots::Menu | Boots::Ignore | Boots::Local(None), _) => Err(format!(
                "{} boots no profile by itself: say which one by --profile",
                self.subject
            )),
            (Boots::Profile(profile), BootPolicy::Always) if needs_order(profile) => Ok(()),
            (Boots::Profile(_), BootPolicy::Always) => Err(format!(
                "{} boots by the network whenever it asks (`boot: always`): there is nothing to arm; --profile has it boot another one",
                self.subject
            )),
            (Boots::Profile(_) | Boots::Local(Some(_)) | Boots::Hold(_), _) => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
