//! `reveille simulate`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::json;
use uuid::Uuid;

use super::ConfigFile;
use super::output::{self, print};
use crate::config::loader::Source;
use crate::pure::catalog::server::Interfaces;
use crate::pure::client::{Mac, PciId};
use crate::pure::printable;
use crate::simulate::journey::{Failure, Journey, Step};
use crate::simulate::machine::{Firmware, Machine, Smbios};
use crate::simulate::walk::{random, walk};
use crate::sys::interfaces::{self, Interface};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The machine that is played, as 52:54:00:12:34:56 [default: one that nobody has]
    #[arg(long)]
    mac: Option<Mac>,
    /// Its firmware: a BIOS with a PXE ROM, UEFI by PXE, 32-bit UEFI, UEFI by HTTP Boot, or a card whose ROM is an iPXE
    #[arg(long, value_enum, default_value_t = Kind::Bios)]
    firmware: Kind,
    /// The interface on whose LAN it is [default: the first that the config has served]. With it no config is read, as on a host that has none
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    #[command(flatten)]
    board: Board,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// What a machine's SMBIOS tables say, and its card.
#[derive(Clone, Debug, Args)]
pub(super) struct Board {
    /// Its UUID, as SMBIOS has it
    #[arg(long)]
    uuid: Option<Uuid>,
    /// Its serial number
    #[arg(long)]
    serial: Option<String>,
    /// Its product name
    #[arg(long)]
    product: Option<String>,
    /// Its manufacturer
    #[arg(long)]
    vendor: Option<String>,
    /// Its network card, as `lspci -n` writes it: 14e4:1639
    #[arg(long, value_name = "VENDOR:DEVICE")]
    pub(super) nic: Option<PciId>,
}

impl From<Board> for Smbios {
    fn from(Board { uuid, serial, product, vendor, nic: _ }: Board) -> Self {
        Self { uuid, serial, product, vendor }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Bios,
    Uefi,
    UefiX86,
    UefiHttp,
    Ipxe,
}

impl From<Kind> for Firmware {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Bios => Self::Bios,
            Kind::Uefi => Self::Uefi,
            Kind::UefiX86 => Self::UefiX86,
            Kind::UefiHttp => Self::UefiHttp,
            Kind::Ipxe => Self::Ipxe,
        }
    }
}

/// Plays the machine, prints each step when it is done, and how it ends.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let interface = interface(&arguments)?;
    let Arguments { mac, firmware, board, json, .. } = arguments;
    let (nic, smbios) = (board.nic, board.into());
    let mac = mac.unwrap_or_else(made_up);
    let machine = Machine { mac, firmware: firmware.into(), smbios, nic };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    if !json {
        let Interface { name, addresses, .. } = &interface;
        let (mac, firmware, address) = (machine.mac, machine.firmware, addresses[0].0);
        print(&format!("{mac} as {firmware}, on {name} (from {address})\n"))?;
    }
    let mut printed = Ok(());
    let tell = |step: &Step| {
        if !json && printed.is_ok() {
            printed = print(&line(step));
        }
    };
    let journey = runtime.block_on(walk(&machine, &interface, tell));
    let journey = journey
        .map_err(|reason| anyhow!("cannot play a machine on {}: {reason}", interface.name))?;
    printed?;
    if json {
        print(&output::json(&as_value(&machine, &interface, &journey)))?;
    } else {
        print(&conclusion(&journey))?;
    }
    Ok(if journey.end.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The interface to ask on.
fn interface(arguments: &Arguments) -> Result<Interface> {
    let source = Source::find(arguments.file.config.clone())?;
    let source = if arguments.interface.is_some() { Source::Defaults } else { source };
    let config = source.load().with_context(|| {
        format!(
            "config: {source} cannot be used to find the interface; `--interface NAME` needs none"
        )
    })?;
    let mut server = config.server;
    if let Some(name) = &arguments.interface {
        (server.interfaces, server.advertise) = (Interfaces::Named(vec![name.clone()]), None);
    }
    let served = interfaces::look(&server).map_err(|reason| anyhow!(reason))?;
    match served.iter().next() {
        Some(interface) => Ok(interface.clone()),
        None => bail!(
            "there is no interface to play a machine on, name one by `--interface`: {}",
            served.missing().join("; ")
        ),
    }
}

/// A hardware address that nobody has: locally administered (IEEE 802, bit 1 of the first byte).
fn made_up() -> Mac {
    let [_, a, b, c, d, e, ..] = random().to_be_bytes();
    Mac::new([2, a, b, c, d, e])
}

fn ms(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn line(Step { at, told, notes, took }: &Step) -> String {
    let mut lines = format!("  {at:<13} {:>10}  {}\n", ms(*took), printable::line(told));
    for note in notes {
        lines += &format!("  {:<13} {:>10}  {}\n", "", "", printable::line(note));
    }
    lines
}

fn conclusion(journey: &Journey) -> String {
    let total = format!("  {:<13} {:>10}", "total", ms(journey.took()));
    match &journey.end {
        Ok(end) => format!("{total}  the machine {}\n", printable::line(end)),
        Err(Failure { at, reason, waited_for, look_at }) => {
            let mut lines = format!(
                "{total}\n! {at}: {}\n  waited for: {}\n",
                printable::line(reason),
                printable::line(waited_for)
            );
            for place in look_at {
                lines += &format!("  look at: {}\n", printable::line(place));
            }
            lines
        }
    }
}

fn as_value(machine: &Machine, interface: &Interface, journey: &Journey) -> serde_json::Value {
    let ms = |took: Duration| took.as_micros() as f64 / 1000.0;
    let step = |Step { at, told, notes, took }: &Step| json!({ "step": at.to_string(), "told": told, "notes": notes, "ms": ms(*took) });
    let (does, failure) = match &journey.end {
        Ok(end) => (Some(end), None),
        Err(Failure { at, reason, waited_for, look_at }) => {
            let failure = json!({
                "step": at.to_string(),
                "reason": reason,
                "waited_for": waited_for,
                "look_at": look_at,
            });
            (None, Some(failure))
        }
    };
    json!({
        "mac": machine.mac.to_string(),
        "firmware": machine.firmware.to_string(),
        "interface": interface.name,
        "steps": journey.steps.iter().map(step).collect::<Vec<_>>(),
        "ms": ms(journey.took()),
        "does": does,
        "failure": failure,
    })
}
