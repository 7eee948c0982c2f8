//! `reveille nbps` and `reveille nbps fetch`

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::ConfigFile;
use super::output::{self, columns, print, tell};
use super::running::{own_state, state_of_daemon};
use crate::config::loader::{Inventory, Source, own_nbps};
use crate::nbps::fetch::{NEWEST, Origin, Progress, fetch};
use crate::nbps::{archive, facts, store};
use crate::pure::catalog::nbp::{Nbp, Nbps};
use crate::pure::checksum::Sha256;
use crate::pure::client::Arch;
use crate::pure::config::problem::{Problem, Severity};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<NbpsCommand>,
}

#[derive(Debug, Subcommand)]
enum NbpsCommand {
    /// Fetch a release of iPXE into the state folder, in place of the one fetched before.
    ///
    /// What is fetched goes to nbps/fetched in the state folder, whole or not at all. It comes before
    /// the distribution's NBPs, and after what you put into nbps yourself. A running daemon takes it up
    /// by itself.
    ///
    /// The proxy that $HTTPS_PROXY or $HTTP_PROXY names is used. Who is trusted is what this host
    /// trusts: its CA certificates, or $SSL_CERT_FILE.
    ///
    /// Why a newer iPXE is worth it:
    ///
    /// * Builds as old as Debian 12's (2019) wait 15 seconds for an IPv6 router at each boot, on a LAN
    ///   that has none.
    /// * undionly.kpxe drives the card by the firmware's own driver, UNDI. Since July 2025 it takes
    ///   interrupts of PCI Express cards for broken and polls instead; with some firmware it stalled.
    ///   Since April 2026, that is after 2.0.0, it pads short frames, which some cards do not do
    ///   themselves.
    /// * EFI builds since January 2022 look for autoexec.ipxe where they came from, and reveille leads
    ///   them by it to the machine's script: that works whatever DHCP says.
    /// * A release has builds for 32-bit UEFI, ARM and RISC-V, which Debian 12 has not.
    #[command(verbatim_doc_comment)]
    Fetch(FetchArguments),
}

#[derive(Debug, Args)]
struct FetchArguments {
    /// A .tar.gz archive of NBPs: an http(s) URL, or a file on this host
    #[arg(value_name = "URL|FILE", default_value = NEWEST)]
    origin: Origin,
    /// Refuse an archive with another SHA-256 sum; the sum of what was fetched is printed
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256>,
}

/// Runs the command. What it found goes to standard output, what is wrong to standard error.
pub(super) fn run(arguments: Arguments) -> Result<()> {
    let source = Source::find(arguments.file.config)?;
    match arguments.command {
        None => {
            let inventory = inventory(&source)?;
            tell_of(&inventory, Severity::Error);
            tell_of(&inventory, Severity::Warning);
            list(&inventory, arguments.json)
        }
        Some(NbpsCommand::Fetch(_)) if arguments.json => bail!("--json is for the list alone"),
        Some(NbpsCommand::Fetch(fetch)) => run_fetch(&source, fetch),
    }
}

fn run_fetch(source: &Source, arguments: FetchArguments) -> Result<()> {
    let FetchArguments { origin, sha256 } = arguments;
    let before = inventory(source)?;
    tell_of(&before, Severity::Error);
    let own = match state_of_daemon(&source.places())? {
        Some(state) => own_nbps(&state),
        None => own_nbps(&own_state(source, Path::exists)?),
    };

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    tell(format_args!("fetching {origin}"));
    let bar = bar();
    let fetched = runtime.block_on(fetch(&origin, sha256, |progress| show(&bar, progress)));
    bar.finish_and_clear();
    let (content, sum) = fetched?;
    let size = HumanBytes(content.len() as u64);
    tell(format_args!("{size} with SHA-256 {sum}"));

    let unpacked =
        archive::unpack(&content).with_context(|| format!("cannot use {origin} ({size})"))?;
    let folder = store::replace(&own, &unpacked.nbps)?;
    let (kept, left_out) = (unpacked.nbps.len(), unpacked.left_out);
    tell(format_args!("NBPs in {}: {kept}; left out of the archive: {left_out}", folder.display()));

    let after = inventory(source)?;
    tell_of(&after, Severity::Warning);
    print(&format!("{}\nA running daemon takes them up by itself.\n", offers(&after.nbps)))
}

fn inventory(source: &Source) -> Result<Inventory> {
    source.inventory().with_context(|| format!("config: {source} does not tell where NBPs are"))
}

/// Tells what is wrong in the config: every error, but only such warnings as concern NBPs.
fn tell_of(inventory: &Inventory, severity: Severity) {
    let concerns = |problem: &&Problem| match problem.severity {
        Severity::Error => severity == Severity::Error,
        Severity::Fault | Severity::Warning => {
            severity == Severity::Warning && problem.key.contains("nbp")
        }
    };
    for problem in inventory.problems.iter().filter(concerns) {
        tell(format_args!("config: {problem}"));
    }
}

/// On a terminal a bar; elsewhere lines are enough.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "{bytes} of {total_bytes} {wide_bar} {bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress) {
    if let Some(total) = progress.total {
        bar.set_length(total);
    }
    bar.set_position(progress.received);
}

fn list(inventory: &Inventory, as_json: bool) -> Result<()> {
    let mut nbps: Vec<&Nbp> = inventory.nbps.iter().collect();
    nbps.sort_by_key(|nbp| nbp.folder);
    if as_json {
        let nbps: Vec<_> = nbps.into_iter().map(as_value).collect();
        let offered: serde_json::Map<_, _> = Arch::ALL
            .into_iter()
            .map(|arch| {
                let name = inventory.nbps.for_arch(arch).map(|nbp| nbp.name.as_str());
                (arch.to_string(), name.into())
            })
            .collect();
        let value = json!({ "nbps": nbps, "offered": offered });
        return print(&output::json(&value));
    }
    if nbps.is_empty() {
        return print(&offers(&inventory.nbps));
    }
    let mut rows = vec![["NAME", "FOR", "IPXE", "SIZE", "FOLDER"].map(str::to_owned)];
    rows.extend(nbps.into_iter().map(row));
    print(&format!("{}\n{}", columns(&rows).concat(), offers(&inventory.nbps)))
}

fn row(nbp: &Nbp) -> [String; 5] {
    let (size, version) = match facts(&nbp.path) {
        Ok(facts) => (HumanBytes(facts.size).to_string(), facts.version),
        Err(_) => ("-".to_owned(), None),
    };
    let version = match version {
        Some(version) => version,
        None if nbp.is_shim() => "- (a Secure Boot shim)".to_owned(),
        None => "-".to_owned(),
    };
    let folder = nbp.path.parent().unwrap_or(Path::new("")).display().to_string();
    [nbp.name.clone(), nbp.arch.to_string(), version, size, folder]
}

fn as_value(nbp: &Nbp) -> serde_json::Value {
    let facts = facts(&nbp.path).ok();
    json!({
        "name": nbp.name,
        "path": nbp.path.display().to_string(),
        "arch": nbp.arch.to_string(),
        "shim": nbp.is_shim(),
        "ipxe": facts.as_ref().and_then(|facts| facts.version.as_deref()),
        "size": facts.as_ref().map(|facts| facts.size),
    })
}

/// What each kind of machine gets, or what to do that it gets one.
fn offers(nbps: &Nbps) -> String {
    let mut rows = vec![["FIRMWARE", "GETS"].map(str::to_owned)];
    for arch in Arch::ALL {
        let gets = nbps.for_arch(arch).map_or(remedy(arch), |nbp| nbp.name.as_str());
        rows.push([arch.to_string(), gets.to_owned()]);
    }
    columns(&rows).concat()
}

/// What to do where there is no NBP for an architecture.
fn remedy(arch: Arch) -> &'static str {
    match arch {
        Arch::Bios | Arch::UefiX64 => {
            "none: `reveille nbps fetch`, or on Debian `apt-get install ipxe`"
        }
        Arch::UefiX86 | Arch::UefiArm32 | Arch::UefiArm64 | Arch::UefiRiscv64 | Arch::Other(_) => {
            "none: `reveille nbps fetch`"
        }
    }
}
