//! The command line: one file a command.

mod completions;
mod doctor;
mod init;
mod man;
mod nbps;
mod serve;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

/// Network boots a rack of servers: proxyDHCP beside your router, iPXE, and Linux with each machine's own kernel line.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the machines on the LAN, until stopped. SIGHUP reads the config again.
    Serve(ConfigFile),
    /// List the NBPs, which firmware loads first (iPXE), and what each machine gets; `nbps fetch` gets newer ones.
    Nbps(nbps::Arguments),
    /// Find out what stands in the way of a boot. Exit code 1 where something does.
    Doctor(Doctor),
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
            Command::Doctor(Doctor { file, dhcp: _ }) => doctor::run(file.config),
            Command::Nbps(arguments) => nbps::run(arguments).map(|()| ExitCode::SUCCESS),
            Command::Init(arguments) => init::run(arguments).map(|()| ExitCode::SUCCESS),
            Command::Completions(arguments) => {
                completions::run(&arguments).map(|()| ExitCode::SUCCESS)
            }
            Command::Man(arguments) => man::run(&arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Whoever reads this may have enough of it, as `head` has: that is no error.
fn print(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<()> {
    match io::stdout().write_all(text.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
