//! `reveille status` and `reveille reload`

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ConfigFile;
use super::output::{json, print, tell};
use super::running::{ask_running, none_runs};
use crate::admin::control::Request;
use crate::admin::operations::lost::Effect;
use crate::admin::operations::{ConfigStatus, Listener, Reloaded, ServedInterface, Status};
use crate::config::loader::Source;
use crate::pure::config::problem::{MOST_TOLD, more_told};

/// The exit code where no daemon runs.
const NO_DAEMON: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints how the daemon is doing.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.file.config)?;
    let Some((status, value)) = asked::<Status>(&source, Request::Status {})? else {
        return Ok(ExitCode::from(NO_DAEMON));
    };
    let text = if arguments.json { json(&value) } else { told(&status, now()) };
    print(&text)?;
    let holds = status.lost.as_ref().is_some_and(|lost| lost.effect == Effect::Hold);
    Ok(code(serves(&status.config) && !holds && status.not_kept.is_none()))
}

/// Whether the config serves as it is now, all of it.
fn serves(config: &ConfigStatus) -> bool {
    let ConfigStatus { refused, faults, hangs_seconds, .. } = config;
    refused.is_none() && faults.is_empty() && hangs_seconds.is_none()
}

/// Has the config read again.
pub(super) fn reload(config: Option<PathBuf>) -> Result<ExitCode> {
    let Some((reloaded, _)) = asked::<Reloaded>(&Source::find(config)?, Request::Reload {})? else {
        return Ok(ExitCode::from(NO_DAEMON));
    };
    let Reloaded { generation, changes, at_next_start, outdated, refused } = reloaded;
    if let Some(refused) = &refused {
        tell(format_args!("reveille: not reloaded, the last good config serves on:\n{refused}"));
        return Ok(code(false));
    }
    let mut text = format!("reloaded, generation {generation}\n");
    if changes.is_empty() {
        text.push_str("nothing that is served has changed\n");
    }
    for change in changes {
        text += &format!("{change}\n");
    }
    for change in at_next_start {
        text += &format!("{change} is taken up at the next start\n");
    }
    for machine in outdated {
        text += &format!("{machine}\n");
    }
    print(&text)?;
    Ok(code(true))
}

fn code(all_is_well: bool) -> ExitCode {
    if all_is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Asks the daemon of this config. Where there is none, that is told.
fn asked<T: DeserializeOwned>(source: &Source, request: Request) -> Result<Option<(T, Value)>> {
    if let Some(answer) = ask_running(source, &request)? {
        return Ok(Some(answer));
    }
    tell(format_args!("reveille: {}", none_runs(source)));
    Ok(None)
}

pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The status as people read it: a word, and what is to be told of it.
fn told(status: &Status, now: u64) -> String {
    let Status { version, pid, uptime_seconds, config, listeners, counts, events, .. } = status;
    let Status { interfaces, missing_interfaces, missing_images, .. } = status;
    let mut rows = vec![(
        "reveille",
        format!("{version}, process {pid}, runs for {}", duration(*uptime_seconds)),
    )];
    rows.extend(config_rows(config, now));
    rows.push(("listens on", joined(listeners.iter().map(listener))));
    let served = joined(interfaces.iter().map(interface));
    let served = if served.is_empty() { "no interface".to_owned() } else { served };
    let served: Vec<String> = [served].into_iter().chain(missing_interfaces.clone()).collect();
    rows.push(("boots on", served.join("\n")));
    rows.push((
        "knows",
        format!(
            "{}, {}, {}, {}, {}",
            counted(counts.machines, "machine"),
            counted(counts.groups, "group"),
            counted(counts.profiles, "profile"),
            counted(counts.images, "image"),
            counted(counts.nbps, "NBP")
        ),
    ));
    if !missing_images.is_empty() {
        rows.push(("waits for", missing_images.join("\n")));
    }
    if let Some(reason) = &status.not_kept {
        let until = "what is remembered of machines holds until this daemon ends";
        rows.push(("not kept", format!("{until}: {reason}")));
    }
    if !status.alarms.is_empty() {
        rows.push(("alarms", status.alarms.join("\n")));
    }
    if !status.held.is_empty() {
        rows.push(("held", status.held.join("\n")));
    }
    if !status.unconfirmed.is_empty() {
        rows.push(("unconfirmed", status.unconfirmed.join("\n")));
    }
    rows.push(("state", status.state.clone()));
    if let Some(lost) = &status.lost {
        rows.push(("lost", lost.line("")));
    }
    rows.push(("sends", counted(counts.tftp_transfers, "file") + " over TFTP"));
    let events = joined(events.iter().map(|(kind, count)| format!("{kind} {count}")));
    rows.push(("since then", if events.is_empty() { "nothing".to_owned() } else { events }));
    let mut text = String::new();
    for (word, what) in rows {
        for (at, line) in what.lines().enumerate() {
            let word = if at == 0 { word } else { "" };
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{word:<14}{line}");
        }
    }
    text
}

fn config_rows(config: &ConfigStatus, now: u64) -> Vec<(&'static str, String)> {
    let ConfigStatus { file, generation, loaded_at, read_at, hangs_seconds, refused, .. } = config;
    let ConfigStatus { at_next_start, faults, warnings, .. } = config;
    let source = file.as_deref().unwrap_or("the built-in defaults");
    let ago = |at: u64| format!("{} ago", duration(now.saturating_sub(at)));
    let mut rows = Vec::new();
    match refused {
        None => {
            let text = format!("{source}, taken up {}, generation {generation}", ago(*loaded_at));
            rows.push(("config", text));
        }
        Some(refused) => {
            rows.push((
                "config",
                format!(
                    "{source} is refused since {}; generation {generation}, taken up {}, serves on\n{}",
                    duration(now.saturating_sub(refused.at)),
                    ago(*loaded_at),
                    refused.text
                ),
            ));
        }
    }
    if let Some(hangs) = hangs_seconds {
        rows.push((
            "file system",
            format!(
                "has not answered for {}: no change is seen until it does; the config was read {}",
                duration(*hangs),
                ago(*read_at)
            ),
        ));
    }
    if !at_next_start.is_empty() {
        rows.push(("at next start", at_next_start.join("\n")));
    }
    for (word, problems) in [("errors", faults), ("warnings", warnings)] {
        if !problems.is_empty() {
            let first = problems.iter().take(MOST_TOLD).map(|problem| problem.text.clone());
            let more = more_told(problems.len().saturating_sub(MOST_TOLD));
            let lines: Vec<String> = first.chain(more).collect();
            rows.push((word, lines.join("\n")));
        }
    }
    rows
}

fn listener(listener: &Listener) -> String {
    let Listener { name, transport, port, runs } = listener;
    match port {
        Some(port) if *runs => format!("{name} ({transport} {port})"),
        Some(port) => format!("{name} ({transport} {port}, not running)"),
        None => format!("{name} (off)"),
    }
}

fn interface(interface: &ServedInterface) -> String {
    let ServedInterface { name, addresses, advertised } = interface;
    let own = joined(addresses.iter().map(ToString::to_string));
    let is_told = addresses.first() == Some(advertised);
    if is_told { format!("{name} ({own})") } else { format!("{name} ({own}; tells {advertised})") }
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

pub(super) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}

/// As `3 h 20 min`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::operations::{Counts, Problem, Refused};

    fn status() -> Status {
        let listener = |name: &str, transport: &str, port| Listener {
            name: name.into(),
            transport: transport.into(),
            port,
            runs: port.is_some(),
        };
        Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_seconds: 12_000,
            config: ConfigStatus {
                file: Some("./config.yaml".into()),
                generation: 3,
                loaded_at: 1000,
                read_at: 1000,
                hangs_seconds: None,
                refused: None,
                at_next_start: Vec::new(),
                faults: Vec::new(),
                warnings: Vec::new(),
            },
            listeners: vec![listener("DHCP", "udp", None), listener("HTTP", "tcp", Some(8080))],
            interfaces: vec![ServedInterface {
                name: "eth0".into(),
                addresses: vec!["192.168.1.2".parse().unwrap()],
                advertised: "192.168.1.2".parse().unwrap(),
            }],
            missing_interfaces: vec!["interface eth7 has no IPv4 address".into()],
            missing_images: vec!["talos: 43 % of 99 MiB are here".into()],
            not_kept: Some("state/registry.db: the disk is full".into()),
            alarms: Vec::new(),
            held: vec!["oden: its disk does not boot".into()],
            unconfirmed: vec!["ymer: profile talos; its card has to be confirmed first".into()],
            state: "/var/lib/reveille".into(),
            lost: None,
            counts: Counts {
                machines: 16,
                groups: 2,
                profiles: 1,
                images: 2,
                nbps: 4,
                tftp_transfers: 0,
            },
            events: BTreeMap::from([("offered".into(), 12), ("refused".into(), 1)]),
        }
    }

    #[test]
    fn a_daemon_that_is_well_is_told_in_a_few_lines() {
        assert_eq!(
            told(&status(), 1090),
            "\
reveille      0.1.0, process 7, runs for 3 h 20 min
config        ./config.yaml, taken up 1 min 30 s ago, generation 3
listens on    DHCP (off), HTTP (tcp 8080)
boots on      eth0 (192.168.1.2)
              interface eth7 has no IPv4 address
knows         16 machines, 2 groups, 1 profile, 2 images, 4 NBPs
waits for     talos: 43 % of 99 MiB are here
not kept      what is remembered of machines holds until this daemon ends: state/registry.db: the disk is full
held          oden: its disk does not boot
unconfirmed   ymer: profile talos; its card has to be confirmed first
state         /var/lib/reveille
sends         0 files over TFTP
since then    offered 12, refused 1
"
        );
    }

    #[test]
    fn what_is_broken_and_a_file_system_that_hangs_is_told_and_makes_an_exit_code() {
        let sound = status();
        assert!(serves(&sound.config));
        let mut broken = sound.clone();
        broken.config.faults = vec![Problem {
            is_error: true,
            is_fault: true,
            file: None,
            line: None,
            column: None,
            key: "k".into(),
            message: "m".into(),
            text: "k: m".into(),
        }];
        let mut hanging = sound;
        hanging.config.hangs_seconds = Some(75);
        for (status, line) in [
            (broken, "errors        k: m"),
            (
                hanging,
                "file system   has not answered for 1 min 15 s: no change is seen until it does; the config was read 1 min 30 s ago",
            ),
        ] {
            assert!(!serves(&status.config));
            assert_eq!(told(&status, 1090).lines().nth(2), Some(line));
        }
    }

    #[test]
    fn what_is_refused_and_what_waits_is_told_with_its_lines() {
        let mut status = status();
        status.config.refused =
            Some(Refused { at: 1050, text: "a:1:1: one\na:2:1: two".into(), problems: Vec::new() });
        status.config.at_next_start = vec!["server.http.port: 8080 -> 8081".into()];
        let told = told(&status, 1090);
        let lines: Vec<&str> = told.lines().skip(1).take(4).collect();
        assert_eq!(
            lines,
            [
                "config        ./config.yaml is refused since 40 s; generation 3, taken up 1 min 30 s ago, serves on",
                "              a:1:1: one",
                "              a:2:1: two",
                "at next start server.http.port: 8080 -> 8081",
            ]
        );
    }
}
