//! What a machine would get, and why: the offers in words, the entries of the config that are for it, and
//! the exact script. All of it comes from what answers machines, so that it cannot say something else.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::SystemTime;

use crate::pure::boot::admission::{UnconfirmedCard, is_for_its_machine_alone};
use crate::pure::boot::decide::{Kind, Script, decide_script};
use crate::pure::boot::plan::{Selection, select};
use crate::pure::boot::urls;
use crate::pure::catalog::pattern::Fit;
use crate::pure::catalog::release::secrets;
use crate::pure::catalog::select::Boots;
use crate::pure::catalog::settings::{Release, Settings};
use crate::pure::catalog::wipes::{on_disk_failure, wipes};
use crate::pure::catalog::{Catalog, Unknown};
use crate::pure::client::{Arch, Client, swapped};
use crate::pure::config::snapshot::{Config, Snapshot};
use crate::pure::dhcp::arrival::{Arrival, Port};
use crate::pure::dhcp::packet::{Offer, option};
use crate::pure::dhcp::proxy::{Ignored, Outcome, Query, respond};
use crate::pure::event::boot::{Event, Step};
use crate::pure::machine::evidence::Neighbour;
use crate::pure::machine::orders::Orders;
use crate::pure::machine::state::MachineState;
use crate::pure::script::render::{self, Rendered, Scene};
use crate::simulate::machine::{Asker, Firmware, Machine};

/// The whole answer.
#[derive(Debug)]
pub struct Explanation {
    /// Which entry, group, profile, template, and what they say: a word, and what there is to it.
    pub why: Vec<(&'static str, String)>,
    /// What DHCP answers: to whom, and what.
    pub offers: Vec<(&'static str, String)>,
    /// The script, or why there is none.
    pub script: Result<Rendered, String>,
}

/// Explains what `machine` gets from a daemon that machines reach at `local`. `client` is its iPXE, once it
/// has told all that it can.
pub fn explain(
    Snapshot { config, shelf }: Snapshot<'_>,
    (machine, client): (&Machine, &Client),
    local: Ipv4Addr,
) -> Explanation {
    let catalog = &config.catalog;
    let untold = Client { facts: None, uuid: None, ..client.clone() };
    let orders = &Orders::default();
    let first = decide_script(&untold, catalog, config.templates.needs_facts(), (shelf, orders));
    let is_asked = matches!(first, Ok(Script { kind: Kind::AskFacts, .. }));
    let client = if is_asked { client } else { &untold };
    let selection = select(client, catalog).now(catalog, orders);
    let mut why = entries(&selection, client, catalog);
    let base = urls::base(local, config.server.http_port);
    let script =
        match decide_script(client, catalog, config.templates.needs_facts(), (shelf, orders)) {
            Ok(mut script) => {
                // What it will boot is what somebody wants to see, and how long that takes.
                if let Kind::Waiting(profile, coming) = script.kind {
                    let until = "until it is here the machine gets a script that waits for it";
                    why.push(("image", format!("not here yet: {coming}; {until}")));
                    script.kind = Kind::Profile(profile);
                }
                why.push(("template", template(&script, config)));
                let (base, mac) = (base.as_str(), machine.mac);
                let scene = Scene { client, mac, base, http: base, id: None, file_id: None, shelf };
                let rendered = render::render(&config.templates, &script, catalog, scene);
                rendered.map_err(|refusal| refusal.to_string())
            }
            Err(reason) => Err(reason.to_string()),
        };
    if let Ok(Rendered { advice, .. }) = &script
        && !advice.is_empty()
    {
        let advice: Vec<String> = advice.iter().map(ToString::to_string).collect();
        why.push(("advice", advice.join("; ")));
    }
    if let Some(named) = &selection.who.machine
        && named.macs.is_empty()
        && is_for_its_machine_alone(&selection, config.server.release)
    {
        let card = UnconfirmedCard { machine: named.name.clone(), card: None, is_another: false };
        why.push(("card", card.to_string()));
    }
    let says = said(&selection, config.server.release);
    if !says.is_empty() {
        why.push(("settings", says));
    }
    if is_asked {
        let asked = "its iPXE is first asked what machine it is, since Talos, an entry or the template needs to know; then this is decided";
        why.push(("facts", asked.to_owned()));
    }
    Explanation { why, offers: offers(config, machine, local), script }
}

/// Which machine, group and profile.
pub fn entries(
    selection: &Selection,
    client: &Client,
    catalog: &Catalog,
) -> Vec<(&'static str, String)> {
    let machine = match &selection.who.machine {
        None => "no entry has its MAC address, its UUID or its serial number".to_owned(),
        Some(machine) => {
            let by = match client.mac {
                Some(mac) if machine.macs.contains(&mac) => format!("its MAC address {mac}"),
                _ if machine.uuid.is_some() && machine.uuid == client.uuid => "its UUID".to_owned(),
                _ if machine.uuid.is_some() && machine.uuid == client.uuid.map(swapped) => {
                    "its UUID, in the other byte order".to_owned()
                }
                _ => "its serial number".to_owned(),
            };
            format!("{}, found by {by}", machine.name)
        }
    };
    let names_a_profile =
        selection.who.machine.as_ref().is_some_and(|machine| machine.profile.is_some());
    let group = match &selection.who.group {
        Some(group) => {
            let unseen = match group.pattern.untold_by_dhcp().is_empty() {
                true => "",
                false => "; DHCP does not tell all of that, so it has no say in the offers",
            };
            Some(format!("{}, the first that fits: {}{unseen}", group.name, group.pattern))
        }
        None if names_a_profile || catalog.groups.is_empty() => None,
        None => {
            let open = catalog.groups.iter().any(|group| group.pattern.fits(client) == Fit::Open);
            let hint = if open { "; some ask for what was not told here" } else { "" };
            Some(format!("none of {} fits{hint}", catalog.groups.len()))
        }
    };
    let by = match (&selection.who.group, &catalog.unknown) {
        _ if names_a_profile => "its own entry says so",
        (Some(_), _) => "its group says so",
        (None, Unknown::Profile(_) | Unknown::Menu | Unknown::Local | Unknown::Ignore) => {
            "`unknown` says so"
        }
    };
    let boots = match &selection.boots {
        Boots::Profile(profile) => match &profile.image {
            Some(image) => format!("profile {}, image {}: {by}", profile.name, image.name),
            None => format!("profile {}: {by}", profile.name),
        },
        Boots::Menu => format!("the menu: {by}"),
        Boots::Local(Some(profile)) => {
            let because = selection.because.map(|because| format!(": {because}"));
            let because = because.unwrap_or_default();
            format!("its local disk, and profile {} where it is armed{because}", profile.name)
        }
        Boots::Hold(profile) => {
            let because = selection.because.map(|because| because.to_string()).unwrap_or_default();
            format!(
                "nothing until the operator decides, instead of profile {}: {because}",
                profile.name
            )
        }
        Boots::Local(None) => format!("its local disk: {by}"),
        Boots::Ignore => format!("nothing, it is not answered: {by}"),
    };
    let mut entries = vec![("machine", machine)];
    entries.extend(group.map(|group| ("group", group)));
    entries.push(("boots", boots));
    entries
}

/// Which template, and from where.
fn template(script: &Script, config: &Config) -> String {
    let name = match &script.kind {
        Kind::Profile(profile) => profile.script.as_str(),
        Kind::Waiting(..) => "waiting",
        Kind::Menu(_) => "menu",
        Kind::LocalDisk(_) => "local-disk",
        Kind::Hold(_) => "hold",
        Kind::AskFacts => "ask-facts",
    };
    let from = if config.templates.is_own(name) {
        "from the folder of `server.boot_scripts`"
    } else {
        "built in"
    };
    format!("{name}.ipxe, {from}")
}

/// What is said for it, each with who says it: what decides about its disk and its secrets always, the rest
/// where it is not the default.
fn said(selection: &Selection, server: Release) -> String {
    let who = &selection.who;
    let layers: Vec<(String, &Settings)> = [
        who.machine.as_ref().map(|m| (format!("machine {}", m.name), &m.settings)),
        who.group.as_ref().map(|g| (format!("group {}", g.name), &g.settings)),
        selection.profile().map(|p| (format!("profile {}", p.name), &p.settings)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let first = |name: &str, said: &dyn Fn(&Settings) -> Option<String>| {
        let (layer, value) =
            layers.iter().find_map(|(layer, settings)| Some((layer, said(settings)?)))?;
        Some(format!("{name}: {value} ({layer})"))
    };
    let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
    let decided = selection.profile().map(|profile| {
        let wiping = |said: &Settings| flag(said.wipes);
        let failing = |said: &Settings| said.on_disk_failure.map(|word| word.word().to_owned());
        let releasing = |said: &Settings| said.release.map(|word| word.word().to_owned());
        let erases = wipes(profile, who);
        let failure = on_disk_failure(profile, who).word();
        let own = if profile.has_own_script { "own " } else { "" };
        let kind = if erases { "what wipes" } else { "what does not wipe" };
        [
            first("wipes", &wiping)
                .or_else(|| Some(format!("wipes: {erases} ({own}script {})", profile.script))),
            first("on_disk_failure", &failing)
                .or_else(|| Some(format!("on_disk_failure: {failure} (default of {kind})"))),
            first("release", &releasing).or_else(|| {
                secrets(profile, who)?;
                Some(format!("release: {} (server)", server.word()))
            }),
        ]
    });
    let mut told = vec![
        first("boot", &|said| said.boot.map(|policy| policy.word().to_owned())),
        first("local_boot", &|said| said.local_boot.map(|method| method.word().to_owned())),
        first("nbp_ladder", &|said| said.nbp_ladder.map(|ladder| ladder.word().to_owned())),
        first("option_43", &|said| said.option_43.map(|mode| mode.word().to_owned())),
        first("answer_request_67", &|said| flag(said.answer_request_67)),
        first("replace_ipxe", &|said| flag(said.replace_ipxe)),
        first("talos.halt_if_installed", &|said| flag(said.halt_if_installed)),
    ];
    told.splice(1..1, decided.into_iter().flatten());
    // Each architecture's NBP is a word of its own, and so is each label.
    let arches: BTreeSet<&Arch> = layers.iter().flat_map(|(_, said)| said.nbp.keys()).collect();
    for arch in arches {
        told.push(first(&format!("nbp for {arch}"), &|said| said.nbp.get(arch).cloned()));
    }
    let labels: BTreeSet<&String> =
        layers.iter().flat_map(|(_, said)| said.labels.keys()).collect();
    for label in labels {
        told.push(first(&format!("label {label}"), &|said| said.labels.get(label).cloned()));
    }
    let mut told: Vec<String> = told.into_iter().flatten().collect();
    for (layer, settings) in &layers {
        for (name, path) in &settings.files {
            told.push(format!("file {name}: {} ({layer})", path.display()));
        }
        let vars: Vec<&str> = settings.vars.keys().map(String::as_str).collect();
        if !vars.is_empty() {
            told.push(format!("vars: {} ({layer})", vars.join(", ")));
        }
    }
    told.join("; ")
}

/// What DHCP answers to its firmware, and then to the iPXE in it.
fn offers(config: &Config, machine: &Machine, local: Ipv4Addr) -> Vec<(&'static str, String)> {
    if config.server.dhcp.is_none() {
        let off = "`server.dhcp` is off: the router tells it what to load".to_owned();
        return vec![("DHCP", off)];
    }
    let ask = |port, datagram: &[u8], from| {
        let arrival = Arrival {
            from,
            port,
            interface: "the LAN".to_owned(),
            asked: local,
            local,
            neighbour: Neighbour::Unknown,
            own: Arc::default(),
        };
        match Query::read(datagram) {
            Ok(query) => {
                let state = (&MachineState::default(), SystemTime::UNIX_EPOCH);
                in_words(&respond(&query, &arrival, config.serving(), state))
            }
            Err(reason) => format!("no answer: {reason}"),
        }
    };
    let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let mut offers = Vec::new();
    if machine.firmware != Firmware::Ipxe {
        let asked = ask(Port::Dhcp, &machine.discover(Asker::Firmware, 1), nowhere);
        offers.push(("its firmware", asked));
    }
    if matches!(machine.firmware, Firmware::Uefi | Firmware::UefiX86) {
        let leased = SocketAddrV4::new(local, 4011);
        let asked = ask(Port::BootServer, &machine.request(local, 2), leased);
        offers.push(("on port 4011", asked));
    }
    let asker =
        if machine.firmware == Firmware::Ipxe { Asker::Firmware } else { Asker::FetchedIpxe };
    offers.push(("its iPXE", ask(Port::Dhcp, &machine.discover(asker, 3), nowhere)));
    offers
}

/// A reply, as its bytes have it.
fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply { datagram, .. } => {
            let read = Offer::decode(datagram).or_else(|_| Offer::decode_ack(datagram));
            let Ok(Offer { siaddr, file, options, .. }) = read else {
                return "a reply that cannot be read".to_owned();
            };
            let file = file.split(|byte| *byte == 0).next().unwrap_or_default();
            let file = String::from_utf8_lossy(file);
            let from = if file.contains("://") { String::new() } else { format!(" on {siaddr}") };
            let class = options.get(option::VENDOR_CLASS).unwrap_or_default();
            let class = String::from_utf8_lossy(class).into_owned();
            let vendor_options = match options.get(option::VENDOR_OPTIONS) {
                None => "no option 43".to_owned(),
                Some(bytes) => {
                    let bytes: Vec<String> =
                        bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    format!("option 43 is {}", bytes.join(" "))
                }
            };
            format!("{file}{from} (option 60 {class}, {vendor_options})")
        }
        Outcome::Ignored(Ignored::Decided { reason, .. }) => format!("no answer: {reason}"),
        Outcome::Ignored(reason) => format!("no answer: {reason}"),
        Outcome::Seen(Event { step: Step::LeftToItsDisk { reason, .. }, .. }) => {
            format!("no answer: {reason}")
        }
        Outcome::Seen(_) => "no answer: its REQUEST is for the router".to_owned(),
    }
}
