//! The `reveille` command. The library holds everything; see its documentation.

use std::process::ExitCode;

use clap::Parser;
use reveille::cli::Cli;
use reveille::discreet;

/// musl's own allocator, in the static binary, is slow where several threads allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    discreet::be();
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("reveille: {error:#}");
            ExitCode::FAILURE
        }
    }
}
