//! The command line: one file a command.

mod doctor;
mod nbps;
mod serve;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
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
    /// Serve the machines on the LAN, until stopped. What changes in the config is taken up by itself.
    Serve(ConfigFile),
    /// Tell how the running daemon is doing. Exit code 1 where the config as it is now does not serve, 3 where no daemon runs.
    Status(status::Arguments),
    /// Have the running daemon read its config at once, and tell what became of that. Exit codes as those of `status`.
    Reload(ConfigFile),
    /// List the NBPs, which firmware loads first (iPXE), and what each machine gets; `nbps fetch` gets newer ones.
    Nbps(nbps::Arguments),
    /// Find out what stands in the way of a boot. Exit code 1 where something does.
    Doctor(Doctor),
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
            Command::Status(arguments) => status::run(arguments),
            Command::Reload(file) => status::reload(file.config),
            Command::Doctor(Doctor { file, dhcp: _ }) => doctor::run(file.config),
            Command::Nbps(arguments) => nbps::run(arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}
