//! The `reveille` command. The library holds everything; see its documentation.

use std::process::ExitCode;

use clap::Parser;
use nix::sys::prctl;
use reveille::cli::{Cli, tell};
use reveille::sys::hardening;

/// musl's own allocator, in the static binary, is slow where several threads allocate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hardening::be();
    // Where the kernel gives huge pages to who asks for them, as this allocator does, each of its arenas takes 2 MiB
    // for what would be a few KiB: up to twice the memory, and no more pace. Where there are none it changes nothing.
    let _ = prctl::set_thp_disable(true);
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            tell(format_args!("reveille: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
