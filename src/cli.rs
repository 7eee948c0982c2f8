//! The command line: one file a command.

mod adopt;
mod backup;
mod check;
mod completions;
mod confirm;
mod consent;
mod doctor;
mod events;
mod images;
mod init;
mod machines;
mod man;
mod nbps;
mod orders;
mod output;
mod pull;
mod put;
mod render;
mod running;
mod schematic;
mod serve;
mod simulate;
mod state;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

pub use self::output::tell;

/// Network boots a rack of servers: proxyDHCP beside your router, iPXE, and Linux with each machine's own kernel line.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the machines on the LAN, until stopped. What changes in the config is taken up by itself.
    Serve(ConfigFile),
    /// Show the daemon's status. Exits with 1 if the config on disk was rejected or is served in part, if machines hold because the registry was lost, or if the registry cannot be written; with 3 if no daemon runs.
    Status(status::Arguments),
    /// Have the running daemon read its config at once, and tell what became of that. Exit code 1 where it is not taken up, 3 where no daemon runs.
    Reload(ConfigFile),
    /// List the NBPs, which firmware loads first (iPXE), and what each machine gets; `nbps fetch` gets newer ones.
    Nbps(nbps::Arguments),
    /// Fetch the images that the config names and that are not here: Talos' by version and extensions, others by their address. Exit code 1 where one is not to be had.
    ///
    /// The running daemon does it, as it does by itself in the background; where none runs, this command
    /// does. What is broken off is gone on with the next time. The proxy that $HTTPS_PROXY or $HTTP_PROXY
    /// names is used.
    Pull(pull::Arguments),
    /// List the images: what each is, its size and age, who needs it, when it was served the last time; `images prune` removes what nobody needs.
    Images(images::Arguments),
    /// Print an image's schematic, of which its factory makes it, and the id that follows from it.
    Schematic(schematic::Arguments),
    /// Tell everything that is wrong with a config and with what it names. Exit code 1 where a running daemon would not take it up: where anything is an error, and no mere warning.
    Check(check::Arguments),
    /// Print what a machine gets, and why: which entries are for it, the offers in words, its exact script.
    Render(render::Arguments),
    /// List the machines, those of the config and those that were only seen: what each is, when it was seen, how far it came, what it boots next.
    Machines(machines::List),
    /// Tell all of one machine: what it is, which entry is for it, what it boots next and why, and what became of its boots. It is named by its name, its MAC in any spelling, its serial number or its address.
    Machine(machines::One),
    /// Network boot machines with `boot: once` or `boot: local` once more. A boot that fetches all that it boots uses up the order.
    ///
    /// Machines are named by name, MAC, serial number or address; by patterns of names, as 'blade0*'; by
    /// group, as group:asgard, for the machines that name no profile of their own; or by --all, for those of
    /// the config. If one of them does not exist or cannot be ordered, nothing is ordered.
    ///
    /// On a terminal, an order that has a machine boot a profile that erases a disk asks for the machine's
    /// name. An order for several machines lists what each boots next and asks for a yes, or, if that erases
    /// the disk of one, for the number of machines listed. --yes answers that. Without a terminal, a machine
    /// that is named by itself needs no --yes; more than one do, and so does a pattern or a group whose
    /// machine gets its disk erased.
    Arm(orders::Arm),
    /// Withdraw what was ordered for machines: what the config says holds again. See also `disk`.
    Disarm(orders::Disarm),
    /// Boot this profile the next time, and then what the config says again. See `arm` for how machines are named.
    Boot(orders::Boot),
    /// Send machines to their disks for good: their disks boot them, whatever the config says, until they are armed. A profile that is ordered by `boot` meanwhile is an exception for its own boots. See `arm` for how machines are named.
    Disk(orders::Disk),
    /// Confirm that a card belongs to a machine whose entry has only a uuid or a serial. Anybody on the LAN can claim these; until then such a machine receives no secret and starts nothing that erases a disk.
    Confirm(confirm::Arguments),
    /// Show where the state folder is, why, and whether the registry was lost, or cannot be read or written. Exits with 1 if so.
    State(state::Arguments),
    /// Copy the registry, which is all that is known of machines, to a file. The daemon may run.
    ///
    /// The copy is complete, verified, and of mode 0600. The config, secrets, images and events are not in it.
    Backup(backup::Backup),
    /// Put a backup in place of the registry, while no daemon runs. What was lost is accepted by that.
    ///
    /// The file is verified first, and the registry before is kept beside the new one.
    Restore(backup::Restore),
    /// Enter a machine that was seen into the config file, as it stands: comments and order stay. The running daemon takes it up by itself.
    Adopt(adopt::Arguments),
    /// Print what was told of the machines: each step of each boot, and what became of config and images.
    Events(events::Arguments),
    /// Find out what stands in the way of a boot. Exit code 1 where something does.
    Doctor(Doctor),
    /// Play a machine against the running daemon, step by step. Exit code 1 where a step fails.
    ///
    /// It asks by DHCP as firmware does, fetches the NBP, asks again as the iPXE in it, runs its script, and
    /// looks at the first bytes of kernel and initrds; nothing is booted. Each step is printed with its
    /// time. It runs on the daemon's host, or on another host of the LAN with --interface.
    ///
    /// Nobody is disturbed: no lease is taken, the log has each step as a `simulation of` the machine, and
    /// nothing of it is remembered of the machine. Over TFTP this host is known by its address only. It
    /// takes root, for port 68.
    Simulate(simulate::Arguments),
    /// Write a config for this network: asks on a terminal, or takes flags.
    Init(init::Arguments),
    /// Print what makes a shell complete reveille's commands.
    Completions(completions::Arguments),
    /// Print the manual page, or write one for each command.
    Man(man::Arguments),
}

#[derive(Debug, clap::Args)]
struct Doctor {
    /// Ask the LAN, as machines do, who answers them: the DHCP server and what it names, other proxyDHCP servers, this host's own. It is all that there is yet, and the default. It takes root, for port 68
    #[arg(long)]
    dhcp: bool,
    #[command(flatten)]
    file: ConfigFile,
}

/// Which config file a command reads.
#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The config file [default: ./config.yaml, then /etc/reveille/config.yaml, then built-in defaults]
    #[arg(long, value_name = "FILE", env = "REVEILLE_CONFIG", global = true)]
    config: Option<PathBuf>,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What the operator should read.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Serve(file) => serve::run(file.config).map(|()| ExitCode::SUCCESS),
            Command::Check(arguments) => check::run(arguments),
            Command::Render(arguments) => render::run(arguments),
            Command::Status(arguments) => status::run(arguments),
            Command::Reload(file) => status::reload(file.config),
            Command::Machines(arguments) => machines::list(arguments),
            Command::Machine(arguments) => machines::one(arguments),
            Command::Arm(arguments) => orders::arm(arguments),
            Command::Disarm(arguments) => orders::disarm(arguments),
            Command::Boot(arguments) => orders::boot(arguments),
            Command::Disk(arguments) => orders::disk(arguments),
            Command::Confirm(arguments) => confirm::run(arguments),
            Command::State(arguments) => state::run(arguments),
            Command::Backup(arguments) => backup::backup(arguments),
            Command::Restore(arguments) => backup::restore(arguments),
            Command::Adopt(arguments) => adopt::run(arguments),
            Command::Events(arguments) => events::run(arguments),
            Command::Doctor(Doctor { file, dhcp: _ }) => doctor::run(file.config),
            Command::Pull(arguments) => pull::run(arguments),
            Command::Images(arguments) => images::run(arguments),
            Command::Schematic(arguments) => schematic::run(arguments),
            Command::Simulate(arguments) => simulate::run(arguments),
            Command::Nbps(arguments) => nbps::run(arguments).map(|()| ExitCode::SUCCESS),
            Command::Init(arguments) => init::run(arguments).map(|()| ExitCode::SUCCESS),
            Command::Completions(arguments) => {
                completions::run(&arguments).map(|()| ExitCode::SUCCESS)
            }
            Command::Man(arguments) => man::run(&arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}
