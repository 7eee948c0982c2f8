//! The `reveille` command. The library holds everything; see its documentation.

use std::process::ExitCode;

use clap::Parser;
use reveille::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reveille: {error:#}");
            ExitCode::FAILURE
        }
    }
}
