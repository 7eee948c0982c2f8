//! Machines: who there is, what becomes of one, what is ordered for them.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::admin::machine_view::targets::{Targets, bounded};
use crate::admin::machine_view::{self, Found, Machine, Next};
use crate::pure::checksum::Sha256;
use crate::pure::client::Mac;
use crate::pure::config::snapshot::Config;
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::machine::orders::Because;
use crate::pure::machine::state::{Alarm, MachineState};
use crate::pure::nearest::nearest;
use crate::state::journal::Journal;
use crate::state::journal::ring::Told;
use crate::state::registry::Registry;
use crate::state::registry::machines::KnownMachines;

/// How much of what was told is told of one machine.
const MOST_EVENTS: usize = 300;

/// A machine, and what was told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The machine.
    pub machine: Machine,
    /// What was told of it, the last last.
    pub events: Vec<Told>,
}

/// What was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// After which number to go on.
    pub last: u64,
    /// All of it, the last last.
    pub events: Vec<Told>,
}

/// What is ordered for machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// The network boots them.
    Arm {
        /// What, where it is not what the config says.
        profile: Option<String>,
        /// How often.
        times: u32,
    },
    /// Nothing any more: what the config says holds.
    Disarm {},
    /// Their disks boot them until they are armed.
    Disk {},
}

/// An order, and for which machines it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Give {
    /// The machines.
    pub targets: Targets,
    /// The order.
    pub order: Order,
    /// The [`Plan::id`] that the operator agreed to: if the order would do something else by now, it is rejected.
    pub agreed: Option<Sha256>,
}

/// What an order would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// With each machine, each once.
    pub machines: Vec<Planned>,
    /// The machines of a pattern, a group or `--all` that the order leaves out, and why, a line each.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Identifies it: two orders that do the same have the same.
    pub id: Sha256,
}

/// What an order does with a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Its name, or its MAC where it has none.
    pub machine: String,
    /// What it boots next by that, and why.
    pub next: Next,
    /// Whether the order has it boot a profile that erases a disk.
    pub erases: bool,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// In words.
    pub done: String,
    /// The machines, and what they boot next.
    pub machines: Vec<Planned>,
    /// See [`Plan::left_out`].
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Why it holds only until the daemon ends.
    pub not_kept: Option<String>,
}

/// All machines.
pub fn list(config: &Config, known: &KnownMachines) -> Vec<Machine> {
    machine_view::list(config, known).iter().map(|found| found.told(config)).collect()
}

/// One machine, with what was told of it by `after`.
///
/// # Errors
/// There is none of this name.
pub fn story(
    config: &Config,
    known: &KnownMachines,
    who: &str,
    told_of: impl FnOnce(&Found<'_>) -> Vec<Told>,
) -> Result<Story, String> {
    let found = machine_view::find(config, known, who).map_err(|error| error.to_string())?;
    Ok(Story { machine: found.told(config), events: told_of(&found) })
}

/// What was told of a machine.
pub fn told_of(journal: &Journal, found: &Found<'_>) -> Vec<Told> {
    let told = journal.after(0, Some(&found.macs), MOST_EVENTS);
    told.into_iter().map(|told| (*told).clone()).collect()
}

/// What the operator says of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// It is the machine's card.
    First,
    /// It is one more card of a machine that has others.
    Another,
    /// It is no card of the machine any more.
    Withdrawn,
}

/// A card, of which machine it is, and what the operator says of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardOrder {
    /// The machine's name.
    pub machine: String,
    /// The card.
    pub card: Mac,
    /// What is said of it.
    pub confirmation: Confirmation,
}

/// What a [`CardOrder`] would do.
///
/// # Errors
/// There is no such machine, the card is another's, or the machine has other cards.
pub fn plan_confirm(
    config: &Config,
    registry: &Registry,
    order: &CardOrder,
) -> Result<Plan, String> {
    let (event, _) = order.event(config, registry)?;
    Plan::of_machines(vec![order.planned(config, registry, &event)], Vec::new())
}

/// Confirms that a card is a machine's, or withdraws that, and waits until that is on the disk.
///
/// # Errors
/// As [`plan_confirm`], or it would do something else than was agreed.
pub fn confirm(
    config: &Config,
    registry: &Registry,
    (order, agreed): (&CardOrder, Option<Sha256>),
) -> Result<Given, String> {
    let (event, done) = order.event(config, registry)?;
    let planned = order.planned(config, registry, &event);
    let Plan { machines, left_out, id } = Plan::of_machines(vec![planned], Vec::new())?;
    if agreed.is_some_and(|agreed| agreed != id) {
        return Err("nothing was confirmed: the config or the machine has changed since you were asked, and it would boot something else now; confirm it again".to_owned());
    }
    let subject = event.subject.clone();
    registry.record(event);
    let not_kept = registry.flush().err();
    let state = registry.state_at_boot(&subject, &config.server);
    let next = order.found(subject, &state).told(config).next;
    let machines =
        machines.into_iter().map(|planned| Planned { next: next.clone(), ..planned }).collect();
    Ok(Given { done, machines, left_out, not_kept })
}

impl CardOrder {
    /// As it is recorded, and in words.
    fn event(&self, config: &Config, registry: &Registry) -> Result<(Event, String), String> {
        let Self { machine, card, confirmation } = self;
        let card = *card;
        let catalog = &config.catalog;
        let Some(known) = catalog.machines().get(machine) else {
            let near = nearest(machine, catalog.machines().keys().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(format!("the config has no machine `{machine}`{hint}"));
        };
        if let Some(owner) = catalog.machine(card) {
            return match owner.name == known.name {
                true => Err(format!("{card} stands under `mac` of {machine} already")),
                false => {
                    Err(format!("{card} stands under `mac` of {}, another machine", owner.name))
                }
            };
        }
        let subject = Subject { name: Some(machine.clone()), ..Subject::default() };
        let confirmed = registry.state(&subject).confirmed.clone();
        match confirmation {
            Confirmation::Withdrawn if !confirmed.contains(&card) => {
                Err(format!("{card} was not confirmed as a card of {machine}"))
            }
            Confirmation::Withdrawn => Ok((
                Event { subject, step: Step::ConfirmationWithdrawn { card } },
                format!("{card} is no card of it any more"),
            )),
            Confirmation::First | Confirmation::Another => {
                if !card.is_of_one_card() {
                    return Err(format!(
                        "cannot confirm {card} as a card of {machine}: it is a multicast address or all zero, which no card has; give the MAC address that the machine boots from"
                    ));
                }
                if let Some(owner) =
                    registry.whose(card, catalog).name.filter(|name| name != machine)
                {
                    return Err(format!(
                        "{card} is confirmed as a card of {owner}; `reveille confirm --withdraw {owner} {card}` takes that back"
                    ));
                }
                let mut others = known.macs.iter().chain(&confirmed).filter(|own| **own != card);
                if let (Confirmation::First, Some(other)) = (confirmation, others.next()) {
                    return Err(format!(
                        "{machine} has the card {other} already; with `--another`, {card} is one more card of it"
                    ));
                }
                Ok((
                    Event {
                        subject: Subject { mac: Some(card), ..subject },
                        step: Step::Confirmed { card },
                    },
                    format!("{card} is its card from now on"),
                ))
            }
        }
    }

    fn found<'a>(&self, subject: Subject, state: &'a MachineState) -> Found<'a> {
        Found { subject, state, macs: vec![self.card] }
    }

    fn planned(&self, config: &Config, registry: &Registry, event: &Event) -> Planned {
        let is_its = registry.state(&event.subject).confirmed.contains(&self.card);
        // As for an order, a fault of the registry hides nothing that the machine erases after it.
        let after = registry.state_after(event);
        let next = self.found(event.subject.clone(), &after).told(config).next;
        let is_new = match self.confirmation {
            Confirmation::First | Confirmation::Another => !is_its,
            Confirmation::Withdrawn => false,
        };
        Planned { machine: self.machine.clone(), erases: next.wipes && is_new, next }
    }
}

/// Where the id of a boot came from a card that is not the machine's.
pub fn alarms(known: &KnownMachines) -> Vec<String> {
    let told = known.entries.iter().filter_map(|entry| {
        let Alarm { from, card, .. } = entry.state.alarm?;
        let step = Step::BootIdMisused { from, card };
        Some(format!("{}: {step}", entry.subject()))
    });
    told.collect()
}

/// The machines that boot nothing until the operator decides, or the registry is written, a line each.
pub fn held(config: &Config, known: &KnownMachines) -> Vec<String> {
    let all = machine_view::list(config, known);
    let held = all.iter().filter_map(|found| {
        let because = found.told(config).next.because?;
        let is_held = because.is_hold() && because != Because::DiskAgain;
        let name = found.label();
        is_held.then(|| format!("{name}: {}", because.of(&name)))
    });
    bounded(held.collect())
}

/// The machines of the config whose cards have to be confirmed before their next boots, a line each.
pub fn unconfirmed(config: &Config, known: &KnownMachines) -> Vec<String> {
    let machines = config.catalog.machines();
    let all = machine_view::list(config, known);
    let unconfirmed = all.iter().filter_map(|found| {
        machines.get(found.subject.name.as_ref()?).filter(|entry| entry.macs.is_empty())?;
        let next = found.told(config).next;
        next.unconfirmed.as_ref()?;
        Some(format!("{}: {next}", found.label()))
    });
    bounded(unconfirmed.collect())
}

/// What an order would do.
///
/// # Errors
/// A machine does not exist, or cannot be ordered.
pub fn plan(
    config: &Config,
    known: &KnownMachines,
    targets: &Targets,
    order: &Order,
) -> Result<Plan, String> {
    let (found, left_out) = ordered(config, known, targets, order)?;
    Plan::of(config, (&found, left_out), order)
}

/// Gives an order to all of its machines, or to none, and waits until it is on the disk.
///
/// # Errors
/// A machine does not exist, or cannot be ordered, or it would do something else than was agreed.
pub fn order(config: &Config, registry: &Registry, give: &Give) -> Result<Given, String> {
    let Give { targets, order, agreed } = give;
    let known = registry.machines_at_boot(&config.server);
    let (found, left_out) = ordered(config, &known, targets, order)?;
    let Plan { machines, left_out, id } = Plan::of(config, (&found, left_out), order)?;
    if agreed.is_some_and(|agreed| agreed != id) {
        return Err("nothing was ordered: the config or the machines have changed since this order was listed, and it would do something else now; give it again".to_owned());
    }
    let step = order.step();
    let events = found.iter().map(|found| found.subject.clone());
    registry.record_all(events.map(|subject| Event { subject, step: step.clone() }));
    let not_kept = registry.flush().err();
    let after = found.iter().zip(machines).map(|(found, planned)| {
        let state = registry.state_at_boot(&found.subject, &config.server);
        Planned { next: Found { state: &state, ..found.clone() }.told(config).next, ..planned }
    });
    Ok(Given { done: step.to_string(), machines: after.collect(), left_out, not_kept })
}

/// The machines that an order is given to, and which of a pattern, a group or `--all` it leaves out, a line each.
///
/// # Errors
/// A machine does not exist, one that is named singly cannot be ordered, or none is left.
fn ordered<'a>(
    config: &Config,
    known: &'a KnownMachines,
    targets: &Targets,
    order: &Order,
) -> Result<(Vec<Found<'a>>, Vec<String>), String> {
    let found = targets.find(config, known)?;
    let profile = match order {
        Order::Arm { profile, .. } => profile.as_deref(),
        Order::Disarm {} | Order::Disk {} => return Ok((found, Vec::new())),
    };
    let single = targets.named_singly(config, known);
    let (mut armed, mut left_out, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for found in found {
        match found.may_be_armed(config, profile) {
            Ok(()) => armed.push(found),
            Err(why) if single.iter().any(|named| named.subject == found.subject) => {
                refused.push(why);
            }
            Err(why) => left_out.push(why),
        }
    }
    if refused.is_empty() && armed.is_empty() {
        refused.append(&mut left_out);
    }
    if refused.is_empty() {
        return Ok((armed, bounded(left_out)));
    }
    // A profile that does not exist is one mistake, for however many machines.
    refused.dedup();
    Err(bounded(refused).join("\n"))
}

impl Order {
    /// As it is recorded of each machine.
    fn step(&self) -> Step {
        match self {
            Self::Arm { profile, times } => {
                Step::Armed { profile: profile.clone(), times: (*times).max(1) }
            }
            Self::Disarm {} => Step::Disarmed {},
            Self::Disk {} => Step::KeptOnDisk {},
        }
    }
}

impl Plan {
    fn of(
        config: &Config,
        (found, left_out): (&[Found<'_>], Vec<String>),
        order: &Order,
    ) -> Result<Self, String> {
        Self::of_machines(
            found.iter().map(|found| found.planned(config, order)).collect(),
            left_out,
        )
    }

    fn of_machines(machines: Vec<Planned>, left_out: Vec<String>) -> Result<Self, String> {
        let text = serde_json::to_vec(&machines).map_err(|error| error.to_string())?;
        Ok(Self { machines, left_out, id: Sha256::of(&text) })
    }
}

impl Found<'_> {
    fn planned(&self, config: &Config, order: &Order) -> Planned {
        let event = Event { subject: self.subject.clone(), step: order.step() };
        // A fault of the registry holds a machine for a while. What it erases after that is what the operator is asked.
        let mut before = self.state.clone();
        before.orders.registry_fault = None;
        let mut after = before.clone();
        after.apply(&event, None, SystemTime::now());
        let next = |state| Found { state, ..self.clone() }.told(config).next;
        let (before, after) = (next(&before), next(&after));
        let is_new = match order {
            Order::Arm { .. } => true,
            // It may end an order that keeps a machine from its first boot.
            Order::Disarm {} => after.profile != before.profile,
            Order::Disk {} => false,
        };
        Planned { machine: self.label(), erases: after.wipes && is_new, next: after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::machine_view::What;
    use crate::admin::machine_view::tests::{CONFIG, config};
    use crate::pure::machine::orders::RegistryFault;
    use crate::pure::machine::time::Time;

    fn targets(names: &[&str]) -> Targets {
        Targets { names: names.iter().map(|&name| name.to_owned()).collect(), all: false }
    }

    fn arm(profile: Option<&str>) -> Order {
        Order::Arm { profile: profile.map(str::to_owned), times: 1 }
    }

    fn give(names: &[&str], order: Order) -> Give {
        Give { targets: targets(names), order, agreed: None }
    }

    #[test]
    fn an_order_for_several_machines_is_for_all_of_them_or_for_none() {
        let config = config(CONFIG);
        let registry = Registry::default();
        let rejected = |names: &[&str], order_of: Order| {
            order(&config, &registry, &give(names, order_of)).unwrap_err()
        };
        let unknown = rejected(&["blade01", "odin"], arm(None));
        assert!(unknown.contains("there is no machine `odin`"), "{unknown}");
        let always = rejected(&["blade0*", "blade02"], arm(None));
        assert!(always.contains("blade02 (52:54:00:77:00:02) boots by the network"), "{always}");
        let unknown = rejected(&["blade0*"], arm(Some("debain")));
        assert_eq!(unknown, "the config has no profile `debain`; did you mean `debian`?");
        assert!(registry.machines().is_empty(), "nothing was ordered");

        let given = order(&config, &registry, &give(&["blade01", "freja"], arm(None))).unwrap();
        assert_eq!(given.done, "armed: the network boots it once, what the config says");
        let told: Vec<String> = given.machines.iter().map(|one| one.next.to_string()).collect();
        assert_eq!(
            told,
            [
                "profile talos: it is armed; it erases a disk",
                "profile debian: it is armed; it erases a disk"
            ]
        );
        let armed =
            registry.machines().iter().filter(|one| one.state.orders.armed.is_some()).count();
        assert_eq!(armed, 2);
    }

    #[test]
    fn machines_of_a_pattern_that_cannot_be_armed_are_left_out() {
        let config = config(CONFIG);
        let registry = Registry::default();
        let always = "blade02 (52:54:00:77:00:02) boots by the network whenever it asks (`boot: always`): there is nothing to arm; --profile has it boot another one";
        let entries = registry.machines_at_boot(&config.server);
        let planned = plan(&config, &entries, &targets(&["blade0*"]), &arm(None)).unwrap();
        assert_eq!(planned.left_out, [always]);
        let give = Give { agreed: Some(planned.id), ..give(&["blade0*"], arm(None)) };
        let given = order(&config, &registry, &give).unwrap();
        let armed: Vec<&str> = given.machines.iter().map(|one| one.machine.as_str()).collect();
        assert_eq!((armed, given.left_out), (vec!["blade01"], vec![always.to_owned()]));
        let rejected =
            |names: &[&str]| plan(&config, &entries, &targets(names), &arm(None)).unwrap_err();
        assert_eq!(rejected(&["blade02"]), always, "it is named");
        assert_eq!(rejected(&["blade*2"]), always, "none is left");
        let all = Targets { names: vec![], all: true };
        let planned = plan(&config, &entries, &all, &arm(None)).unwrap();
        let labels: Vec<&str> = planned.machines.iter().map(|one| one.machine.as_str()).collect();
        assert_eq!(labels, ["blade01", "freja"]);
        assert_eq!(planned.left_out.len(), 2, "oden boots no profile by itself");
        let all_by_name = plan(&config, &entries, &all, &arm(Some("rescue"))).unwrap();
        assert_eq!((all_by_name.machines.len(), all_by_name.left_out.len()), (4, 0));
    }

    #[test]
    fn an_order_erases_where_it_brings_about_a_boot_that_wipes() {
        let config = config(CONFIG);
        let registry = Registry::default();
        let planned = |who: &str, order: Order| {
            let known = registry.machines_at_boot(&config.server);
            plan(&config, &known, &targets(&[who]), &order).unwrap().machines.remove(0)
        };
        for (who, order, erases) in [
            ("blade01", arm(None), true),
            ("blade01", arm(Some("rescue")), false),
            ("blade02", arm(Some("debian")), true),
            ("blade01", Order::Disk {}, false),
            // Its first boot is due with or without that.
            ("blade01", Order::Disarm {}, false),
        ] {
            assert_eq!(planned(who, order.clone()).erases, erases, "{who} {order:?}");
        }
        order(&config, &registry, &give(&["blade01"], arm(Some("rescue")))).unwrap();
        let withdrawn = planned("blade01", Order::Disarm {});
        assert!(withdrawn.erases, "the order has kept it from its first boot");
        order(&config, &registry, &give(&["blade01"], Order::Disk {})).unwrap();
        let kept = planned("blade01", Order::Disarm {});
        assert_eq!((kept.next.boots, kept.erases), (What::Disk, false));
    }

    #[test]
    fn what_was_agreed_to_is_what_is_ordered() {
        let old = config(CONFIG);
        let registry = Registry::default();
        let agreed =
            plan(&old, &KnownMachines::default(), &targets(&["blade0*"]), &arm(Some("rescue")))
                .unwrap()
                .id;
        let agreed = Some(agreed);
        let give = Give { agreed, ..give(&["blade0*"], arm(Some("rescue"))) };
        // Meanwhile another machine has such a name, and the profile erases a disk.
        let machine = "  blade03: { mac: 52:54:00:77:00:05, profile: talos }\n";
        for new in [
            format!("{CONFIG}{machine}"),
            CONFIG.replace("image: linux, wipes: false", "image: linux, boot: once, wipes: true"),
        ] {
            let rejected = order(&config(&new), &registry, &give).unwrap_err();
            assert!(rejected.starts_with("nothing was ordered: "), "{rejected}");
        }
        assert!(registry.machines().is_empty());
        assert_eq!(order(&old, &registry, &give).unwrap().machines.len(), 2);
    }

    /// The registry's fault may hold a machine now; the order erases its disk all the same, later.
    #[test]
    fn an_order_that_erases_a_disk_is_listed_so_while_the_registry_is_lost_or_cannot_be_written() {
        let config = config(CONFIG);
        for fault in [
            RegistryFault::Lost(SystemTime::now().into()),
            RegistryFault::Unwritable("the disk is full".into()),
        ] {
            let known = KnownMachines::new(Vec::new(), Some(&fault));
            let planned = plan(&config, &known, &targets(&["blade01"]), &arm(None)).unwrap();
            assert!(planned.machines[0].erases, "{fault:?}");
        }
    }

    #[test]
    fn held_machines_are_listed_with_the_commands_that_end_that() {
        let config = config(CONFIG);
        let lost = KnownMachines::new(Vec::new(), Some(&RegistryFault::Lost(Time::default())));
        let held = held(&config, &lost);
        assert_eq!(held.len(), 2, "{held:?}");
        for command in ["`reveille disk blade01`", "`reveille arm blade01`"] {
            assert!(held[0].starts_with("blade01: ") && held[0].contains(command), "{held:?}");
        }
        assert!(super::held(&config, &KnownMachines::default()).is_empty());
    }

    const BY_SERIAL: &str = "  ymer: { serial: CZ1, profile: talos }\n";

    #[test]
    fn a_confirmation_erases_where_it_brings_about_a_boot_that_wipes() {
        let config = config(&format!("{CONFIG}{BY_SERIAL}"));
        let registry = Registry::default();
        let card: Mac = "52:54:00:77:00:09".parse().unwrap();
        let of = |card, confirmation| CardOrder { machine: "ymer".into(), card, confirmation };
        let planned = |order: &CardOrder| {
            let mut plan = plan_confirm(&config, &registry, order).unwrap();
            (plan.machines.remove(0), plan.id)
        };
        let first = of(card, Confirmation::First);
        let (ymer, agreed) = planned(&first);
        let told = "profile talos: it has not completed a boot yet; it erases a disk";
        assert_eq!((ymer.next.to_string().as_str(), ymer.erases), (told, true));
        assert_eq!(unconfirmed(&config, &registry.machines_at_boot(&config.server)).len(), 1);
        let given = confirm(&config, &registry, (&first, Some(agreed))).unwrap();
        assert_eq!(given.done, "52:54:00:77:00:09 is its card from now on");
        assert_eq!(given.machines[0].next.to_string(), told);
        let known = registry.machines_at_boot(&config.server);
        assert_eq!(unconfirmed(&config, &known), [""; 0]);
        assert!(!planned(&first).0.erases, "it is its card already");
        let another = of("52:54:00:77:00:0a".parse().unwrap(), Confirmation::Another);
        assert!(planned(&another).0.erases, "another card may be another machine's");
        let (withdrawn, _) = planned(&of(card, Confirmation::Withdrawn));
        assert!(!withdrawn.erases && withdrawn.next.unconfirmed.is_some());

        // What has changed since is asked again.
        order(&config, &registry, &give(&["ymer"], Order::Disk {})).unwrap();
        let rejected = confirm(&config, &registry, (&another, Some(agreed))).unwrap_err();
        assert!(rejected.starts_with("nothing was confirmed: "), "{rejected}");
        assert!(!planned(&another).0.erases, "it is kept on its disk");
    }

    /// The card may bring an installed disk with it.
    #[test]
    fn a_confirmation_counts_what_was_completed_by_the_card() {
        let config = config(&format!("{CONFIG}{BY_SERIAL}"));
        let registry = Registry::default();
        let card: Mac = "52:54:00:77:00:09".parse().unwrap();
        let subject = Subject { mac: Some(card), ..Subject::default() };
        registry.record(Event { subject, step: Step::KeptOnDisk {} });
        // Its entry exists already.
        order(&config, &registry, &give(&["ymer"], Order::Disarm {})).unwrap();
        let first = CardOrder { machine: "ymer".into(), card, confirmation: Confirmation::First };
        let planned = plan_confirm(&config, &registry, &first).unwrap().machines.remove(0);
        assert_eq!((planned.next.boots, planned.erases), (What::Disk, false));
        let given = confirm(&config, &registry, (&first, None)).unwrap();
        assert_eq!(given.machines[0].next, planned.next);
    }

    #[test]
    fn an_address_that_no_card_has_is_not_confirmed() {
        let config = config(&format!("{CONFIG}{BY_SERIAL}"));
        let registry = Registry::default();
        for card in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"] {
            let order = CardOrder {
                machine: "ymer".into(),
                card: card.parse().unwrap(),
                confirmation: Confirmation::First,
            };
            let rejected = confirm(&config, &registry, (&order, None)).unwrap_err();
            assert!(
                rejected.starts_with(&format!("cannot confirm {card} as a card of ymer: ")),
                "{rejected}"
            );
        }
        assert!(registry.machines().is_empty());
    }
}
