//! The command line: one file a command.

mod nbps;
mod serve;

use std::path::PathBuf;

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
    /// Serve the machines on the LAN, until stopped. SIGHUP reads the config again.
    Serve(ConfigFile),
    /// List the NBPs, which firmware loads first (iPXE), and what each machine gets; `nbps fetch` gets newer ones.
    Nbps(nbps::Arguments),
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
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Serve(file) => serve::run(file.config),
            Command::Nbps(arguments) => nbps::run(arguments),
        }
    }
}
