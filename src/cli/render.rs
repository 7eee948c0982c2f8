//! `reveille render`

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::ConfigFile;
use super::output::{json, print, print_file};
use super::simulate::{Board, Kind};
use crate::admin::explanation::{Explanation, explain};
use crate::config::loader::Source;
use crate::pure::boot::urls;
use crate::pure::catalog::omni::hidden;
use crate::pure::client::{Arch, Client, Cpu, Facts, Mac, Stage};
use crate::pure::config::snapshot::{Config, Snapshot};
use crate::pure::machine::orders::Orders;
use crate::server::machine_script;
use crate::simulate::machine::{Machine, Smbios};
use crate::state::images::store::Store;
use crate::sys::interfaces;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A machine of the config by its name, or any by its MAC address
    #[arg(value_name = "MACHINE")]
    machine: Option<String>,
    /// Its MAC address, in any common spelling
    #[arg(long)]
    mac: Option<Mac>,
    #[command(flatten)]
    board: Board,
    /// Its firmware: a BIOS with a PXE ROM, UEFI by PXE, 32-bit UEFI, UEFI by HTTP Boot, or a card whose ROM is an iPXE
    #[arg(long, value_enum, default_value_t = Kind::Bios)]
    firmware: Kind,
    /// What its CPU can run, where the firmware does not tell; x64-v1 is an x86-64 of before 2009
    #[arg(long, value_enum, default_value_t = Bits::X64)]
    arch: Bits,
    /// Its IPv4 address, for groups by subnet [default: this host's]
    #[arg(long)]
    address: Option<Ipv4Addr>,
    /// The profile that somebody chose from its menu
    #[arg(long)]
    choice: Option<String>,
    /// The address that machines reach this host at [default: as `serve` would tell it]
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    /// Print one of its answer files instead, by its name in `files`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["script", "json"])]
    file: Option<String>,
    /// Print the script and nothing else
    #[arg(long)]
    script: bool,
    /// Print join tokens too, instead of ***
    #[arg(long)]
    show_secrets: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "script")]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bits {
    X86,
    #[value(name = "x64-v1")]
    X64V1,
    X64,
}

/// Prints what a machine gets, and why. Exit code 1 where it gets no script.
pub(super) fn run(arguments: Arguments) -> Result<ExitCode> {
    let source = Source::find(arguments.config.config.clone())?;
    let config = source.load().with_context(|| format!("config: {source} cannot be used"))?;
    let machine = machine(&arguments, &config)?;
    let local = match arguments.server {
        Some(address) => address,
        None => own_address(&config)?,
    };
    let client = client(&arguments, &machine, local);
    let shelf = Store::new(&config.server.state).shelf();
    let now = Snapshot { config: &config, shelf: &shelf };
    if let Some(name) = &arguments.file {
        let base = urls::base(local, config.server.http_port);
        let text = machine_script::render_file(
            (now, &Orders::default()),
            name,
            (machine.mac, &client),
            (&base, None),
        );
        let text = text.map_err(|reason| anyhow!("{name}: {reason}"))?;
        print_file(&shown(&text, (&config, &arguments)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let explanation = explain(now, (&machine, &client), local);
    let text = if arguments.script {
        match &explanation.script {
            Ok(rendered) => shown(&rendered.text, (&config, &arguments)),
            Err(reason) => bail!("there is no script: {reason}"),
        }
    } else if arguments.json {
        json(&as_value(&explanation, (&config, &arguments)))
    } else {
        in_words(&explanation, (&config, &arguments))
    };
    if arguments.script {
        print_file(&text)?
    } else {
        print(&text)?
    }
    Ok(if explanation.script.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The machine that is meant, with what the config knows of it where the command line does not say it.
fn machine(arguments: &Arguments, config: &Config) -> Result<Machine> {
    let mut mac = arguments.mac;
    let mut smbios = Smbios::from(arguments.board.clone());
    if let Some(name) = &arguments.machine {
        let machines = config.catalog.machines();
        if let Some(machine) = machines.get(name) {
            mac = mac.or(machine.macs.first().copied());
            smbios.uuid = smbios.uuid.or(machine.uuid);
            smbios.serial = smbios.serial.or_else(|| machine.serial.clone());
        } else if let Ok(named) = name.parse() {
            mac = Some(named);
        } else {
            let known = machines.keys().map(String::as_str);
            bail!("{}", crate::pure::config::fields::no_such("machine", name, known));
        }
    }
    if mac.is_none() && smbios.uuid.is_none() && smbios.serial.is_none() {
        bail!("name a machine of the config, or say --mac, --uuid or --serial");
    }
    Ok(Machine {
        // One that nobody has.
        mac: mac.unwrap_or(Mac::new([2, 0, 0, 0, 0, 0])),
        firmware: arguments.firmware.into(),
        smbios,
        nic: arguments.board.nic,
    })
}

/// What its iPXE is to the server, once it has told all that it can.
fn client(arguments: &Arguments, machine: &Machine, local: Ipv4Addr) -> Client {
    let Smbios { uuid, serial, product, vendor } = machine.smbios.clone();
    let cpu = match arguments.arch {
        Bits::X86 => Cpu::X86,
        Bits::X64 | Bits::X64V1 => Cpu::X64,
    };
    let has_v2 = match arguments.arch {
        Bits::X86 | Bits::X64V1 => false,
        Bits::X64 => true,
    };
    let arch = match arguments.firmware {
        Kind::Bios | Kind::Ipxe => Arch::Bios,
        Kind::UefiX86 => Arch::UefiX86,
        Kind::Uefi | Kind::UefiHttp => Arch::UefiX64,
    };
    Client {
        mac: Some(machine.mac),
        arch: Some(arch),
        uuid,
        address: Some(arguments.address.unwrap_or(local)),
        facts: Some(Facts {
            serial,
            product,
            vendor,
            cpu: Some(cpu),
            has_v2: Some(has_v2),
            nic: machine.nic,
        }),
        choice: arguments.choice.clone(),
        ..Client::at(Stage::Ipxe)
    }
}

/// The address that machines on the first served interface are told.
fn own_address(config: &Config) -> Result<Ipv4Addr> {
    let served = interfaces::look(&config.server).map_err(|reason| anyhow!(reason))?;
    match (served.iter().next(), config.server.advertise) {
        (Some(interface), _) => Ok(interface.advertised),
        (None, Some(address)) => Ok(address),
        (None, None) => bail!(
            "it is not known at which address machines reach this host, say it by `--server`: {}",
            served.missing().join("; ")
        ),
    }
}

fn shown(text: &str, (config, arguments): (&Config, &Arguments)) -> String {
    if arguments.show_secrets {
        return text.to_owned();
    }
    hidden(text, config.catalog.omni.values().map(|omni| &**omni))
}

fn in_words(
    Explanation { why, offers, script }: &Explanation,
    asked: (&Config, &Arguments),
) -> String {
    let mut text = String::new();
    for (word, told) in why.iter().chain(offers) {
        text += &format!("{word:<13} {told}\n");
    }
    match script {
        Ok(rendered) => {
            text += &format!("{:<13} {}\n\n", "script", rendered.does);
            text += &shown(&rendered.text, asked);
        }
        Err(reason) => text += &format!("{:<13} none: {reason}\n", "script"),
    }
    text
}

fn as_value(
    Explanation { why, offers, script }: &Explanation,
    asked: (&Config, &Arguments),
) -> serde_json::Value {
    let object = |pairs: &[(&str, String)]| -> serde_json::Value {
        pairs.iter().map(|(word, told)| ((*word).to_owned(), json!(told))).collect()
    };
    json!({
        "why": object(why),
        "offers": object(offers),
        "does": script.as_ref().ok().map(|rendered| &rendered.does),
        "script": script.as_ref().ok().map(|rendered| shown(&rendered.text, asked)),
        "refused": script.as_ref().err(),
    })
}
