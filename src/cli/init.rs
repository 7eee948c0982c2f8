//! `reveille init`

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::Ipv4Net;

use self::ask::Terminal;
use self::plan::{Extension, Name, NewMachine, Plan, Release, System};
use super::output::{print, tell};
use super::put::{Existing, Piece, put};
use crate::config::loader::Source;
use crate::pure::catalog::omni::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG, Pasted, Token, pasted};
use crate::pure::catalog::secret::SecretText;
use crate::pure::config::problem::Problem;
use crate::pure::config::resolve::within;
use crate::state::registry::loss;
use crate::state::registry::store::Store;
use crate::sys::files::{Bound, read_text, readable};
use crate::sys::interfaces::{self, Choice};

mod ask;
mod plan;
mod steps;
mod text;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the config goes; the join token goes into the folder `secrets` beside it
    #[arg(long, value_name = "FILE", default_value = "./config.yaml")]
    output: PathBuf,
    /// The interface that machines boot on [default: the one of the default route]
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// What Omni's "Copy Kernel Parameters" copies: a file with it, or `-` for standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["omni_api", "omni_token"])]
    omni_args: Option<PathBuf>,
    /// What to call the Omni instance
    #[arg(long, value_name = "NAME", default_value = "homelab")]
    omni_name: Name,
    /// The address of Omni's machine API: what stands before ?jointoken= in its kernel parameters
    #[arg(long, value_name = "URL", requires = "omni_token")]
    omni_api: Option<String>,
    /// The join token: a file with it, or `-` for standard input. Never the token itself: others can read arguments
    #[arg(long, value_name = "FILE|-", requires = "omni_api")]
    omni_token: Option<PathBuf>,
    /// Which release of Talos machines boot, as v1.11.2 [default: latest, the newest one]
    #[arg(long, value_name = "VERSION")]
    talos_version: Option<Release>,
    /// A machine, as oden=5c:f3:fc:00:00:01, or with its profile: oden=5c:f3:fc:00:00:01,disk; may be repeated
    #[arg(long = "machine", value_name = "NAME=MAC[,PROFILE]")]
    machines: Vec<NewMachine>,
    /// A system extension that Talos needs, as siderolabs/bnx2-bnx2x; may be repeated
    #[arg(long = "extension", value_name = "NAME", conflicts_with = "kernel")]
    extensions: Vec<Extension>,
    /// A kernel of your own, where Talos is not to be fetched. Without Omni and --talos-version it is no Talos
    #[arg(long, value_name = "FILE", requires = "initrd")]
    kernel: Option<PathBuf>,
    /// Its initial RAM disk
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// Replace a config and a token that are there
    #[arg(long)]
    force: bool,
    /// Ask nothing, also on a terminal
    #[arg(long)]
    yes: bool,
}

/// Finds out what the network is, and writes a config for it.
pub(super) fn run(arguments: Arguments) -> Result<()> {
    let existing = if arguments.force { Existing::IsReplaced } else { Existing::Stays };
    existing.look(&arguments.output)?;
    let terminal = if arguments.yes { None } else { Terminal::here() };
    let choice = interfaces::choice().map_err(|reason| anyhow!(reason))?;
    let plan = planned(arguments, &choice, terminal)?;
    plan.check().map_err(|reason| anyhow!(reason))?;
    if let Some(token) = plan.token() {
        existing.look(&token)?;
    }
    if let Some(terminal) = terminal {
        show(&plan);
        if !terminal.confirm("Write this?")? {
            bail!("nothing was written");
        }
    }
    write(&plan, existing)?;
    report(&plan)
}

/// From what was given, and, on a terminal, from what is answered.
fn planned(arguments: Arguments, choice: &Choice, terminal: Option<Terminal>) -> Result<Plan> {
    let (interface, subnets) = interface(arguments.interface.as_deref(), choice, terminal)?;
    let omni = match omni_given(&arguments)? {
        Some(pasted) => Some(pasted),
        None => terminal.map(ask_omni).transpose()?.flatten(),
    };
    for doubt in omni.iter().flat_map(Pasted::doubts) {
        tell(format_args!("note: {doubt}"));
    }
    let system = match (arguments.talos_version, &arguments.kernel, &omni) {
        (Some(release), _, _) => System::Talos(release),
        (None, Some(_), None) => System::Linux,
        (None, Some(_), Some(_)) => System::Talos(Release::newest_known()),
        (None, None, _) => {
            System::Talos(terminal.map(ask_release).transpose()?.unwrap_or_default())
        }
    };
    let mut extensions = arguments.extensions;
    if let (Some(terminal), None, true) = (terminal, &arguments.kernel, extensions.is_empty()) {
        extensions = ask_extensions(terminal)?;
    }
    let mut machines = arguments.machines;
    if let (Some(terminal), true) = (terminal, machines.is_empty()) {
        machines.extend(ask_machine(terminal)?);
    }
    let files = match (&arguments.kernel, &arguments.initrd) {
        (Some(kernel), Some(initrd)) => {
            Some((named(kernel, &arguments.output)?, named(initrd, &arguments.output)?))
        }
        (Some(_) | None, _) => None,
    };
    Ok(Plan {
        state: state_key(&arguments.output)?,
        files,
        extensions,
        config: arguments.output,
        interface,
        subnets,
        omni: omni.map(|pasted| (arguments.omni_name.as_ref().to_owned(), pasted)),
        system,
        machines,
    })
}

/// The state folder as the config names it. A config that is replaced keeps its registry: machines that are installed
/// would not be known in another one.
fn state_key(config: &Path) -> Result<String> {
    let path = std::path::absolute(config)?;
    let beside = path.with_file_name("state");
    if path.exists() {
        let state = Source::File(path.clone()).places().chosen.folder;
        if state != beside && Store::path(&state).exists() {
            let text =
                state.to_str().with_context(|| format!("{} is not UTF-8", state.display()))?;
            return Ok(text.to_owned());
        }
        if Store::path(&beside).exists() {
            return Ok("./state".to_owned());
        }
    }
    // What changes by itself has no place in /etc.
    let is_of_host = path.starts_with("/etc");
    Ok(if is_of_host { "/var/lib/reveille" } else { "./state" }.to_owned())
}

/// Permits the first registry of this config, and says so if that fails.
fn permit_registry(state: &Path) {
    let is_used = [Store::path(state), Store::previous(state)].iter().any(|path| path.exists());
    if !is_used && let Err(error) = loss::permit(state) {
        tell(format_args!(
            "note: cannot write {}: {error}; before the first start type `reveille state new` as the user who runs the daemon",
            loss::marker(state).display()
        ));
    }
}

/// The interface that machines boot on, and the subnets of this host there.
fn interface(
    given: Option<&str>,
    choice: &Choice,
    terminal: Option<Terminal>,
) -> Result<(String, Vec<Ipv4Net>)> {
    let known = |name: &str| match choice.interfaces.get(name) {
        Some(subnets) => Ok((name.to_owned(), subnets.clone())),
        None => Err(format!(
            "there is no interface `{name}` with an IPv4 address; there is: {}",
            listed(&choice.interfaces)
        )),
    };
    let default = choice.of_default_route.as_deref();
    match (given, default, terminal) {
        (Some(name), _, _) => known(name).map_err(|reason| anyhow!("--interface: {reason}")),
        (None, default, Some(terminal)) => {
            tell(format_args!("This host has: {}", listed(&choice.interfaces)));
            terminal.ask_for("Interface that machines boot on", default.unwrap_or(""), known)
        }
        (None, Some(name), None) => known(name).map_err(|reason| anyhow!(reason)),
        (None, None, None) => bail!(
            "there is no default route that would tell which interface machines boot on; name it with --interface (there is: {})",
            listed(&choice.interfaces)
        ),
    }
}

fn listed(interfaces: &BTreeMap<String, Vec<Ipv4Net>>) -> String {
    let each = interfaces.iter().map(|(name, subnets)| {
        let subnets: Vec<String> = subnets.iter().map(Ipv4Net::to_string).collect();
        format!("{name} ({})", subnets.join(", "))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What the flags say about Omni.
fn omni_given(arguments: &Arguments) -> Result<Option<Pasted>> {
    if let Some(from) = &arguments.omni_args {
        let text = secret_from("--omni-args", "Omni's kernel parameters", from)?;
        let read = pasted::parse(text.expose());
        return read.map(Some).context("--omni-args: it cannot be used");
    }
    let (Some(api), Some(from)) = (&arguments.omni_api, &arguments.omni_token) else {
        return Ok(None);
    };
    // Neither repeats what was given: it may be the token.
    let api = pasted::address(api).map_err(|error| anyhow!("--omni-api: the address {error}"))?;
    let text = secret_from("--omni-token", "the join token", from)?;
    let text = text.expose().trim();
    if text.contains("jointoken=") {
        bail!(
            "--omni-token: it holds more than the token; give all that Omni copies to --omni-args"
        );
    }
    Ok(Some(Pasted {
        api,
        token: Token::parse(text).context("--omni-token: it cannot be used")?,
        tunnel: false,
        events: Some(DEFAULT_EVENTS.to_owned()),
        kernel_log: Some(DEFAULT_KERNEL_LOG.to_owned()),
        others: 0,
    }))
}

/// Reads a secret from a file or from standard input. A path that leads nowhere is not repeated: it may
/// be the secret itself.
fn secret_from(flag: &str, what: &str, from: &Path) -> Result<SecretText> {
    if from == Path::new("-") {
        return ask::secret(what);
    }
    read_text(from, Bound::SECRET).map(SecretText::from).map_err(|reason| {
        anyhow!(
            "{flag}: {reason}; it takes the path of a file with {what}, or `-` for standard input"
        )
    })
}

fn ask_omni(terminal: Terminal) -> Result<Option<Pasted>> {
    if !terminal.confirm("Shall machines join Sidero Omni?")? {
        return Ok(None);
    }
    loop {
        let text = ask::secret("what Omni's \"Copy Kernel Parameters\" copies")?;
        if ask::is_empty(&text) {
            tell("Without Omni, then.");
            return Ok(None);
        }
        match pasted::parse(text.expose()) {
            Ok(pasted) => {
                let tunnel = if pasted.tunnel { ", through a gRPC tunnel" } else { "" };
                let kind = pasted.token.kind();
                tell(format_args!("Omni at {}{tunnel}; the join token is {kind}.", pasted.api));
                return Ok(Some(pasted));
            }
            Err(mistakes) => {
                for mistake in &mistakes.0 {
                    tell(format_args!("  {mistake}"));
                }
            }
        }
    }
}

fn ask_release(terminal: Terminal) -> Result<Release> {
    let default = Release::default();
    terminal.ask_for("Talos version", default.as_ref(), |answer| answer.parse())
}

fn ask_extensions(terminal: Terminal) -> Result<Vec<Extension>> {
    let question = "System extensions, as siderolabs/bnx2-bnx2x (Enter: none)";
    terminal.ask_for(question, "", |answer| {
        let names = answer.split([',', ' ']).filter(|name| !name.is_empty());
        names.map(str::parse).collect()
    })
}

fn ask_machine(terminal: Terminal) -> Result<Option<NewMachine>> {
    let name = terminal.ask_for("Name of the first machine (Enter: none yet)", "", |answer| {
        if answer.is_empty() { Ok(None) } else { answer.parse::<Name>().map(Some) }
    })?;
    let Some(name) = name else {
        return Ok(None);
    };
    let question = format!("MAC address of {}", name.as_ref());
    let mac = terminal.ask_for(&question, "", |answer| {
        answer.parse().map_err(|error: crate::pure::client::mac::MacError| error.to_string())
    })?;
    Ok(Some(NewMachine { name, mac, profile: None }))
}

/// A file as the config names it: relative paths start there at the config, here at this folder.
fn named(path: &Path, config: &Path) -> Result<String> {
    let at_config =
        config.parent().is_none_or(|folder| [Path::new(""), Path::new(".")].contains(&folder));
    let path = if at_config { path.to_owned() } else { std::path::absolute(path)? };
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// What will be written. The token is not in the config.
fn show(plan: &Plan) {
    tell(format_args!("\n{}:\n", plan.config.display()));
    for line in plan.yaml().lines() {
        tell(format_args!("  {line}"));
    }
    tell("");
    if let Some((path, (_, pasted))) = plan.token().zip(plan.omni.as_ref()) {
        tell(format_args!("{}, mode 0600:\n\n  *** ({})\n", path.display(), pasted.token.kind()));
    }
}

/// Writes all of it, once the loader takes it.
fn write(plan: &Plan, existing: Existing) -> Result<()> {
    let (yaml, token) = (plan.yaml(), plan.token());
    let secret = plan
        .omni
        .as_ref()
        .map(|(_, pasted)| SecretText::from(format!("{}\n", pasted.token.secret().expose())));
    let mut pieces =
        vec![Piece { path: &plan.config, content: &yaml, mode: 0o644, folder_mode: 0o755 }];
    if let Some((path, secret)) = token.as_ref().zip(secret.as_ref()) {
        let content = secret.expose();
        pieces.push(Piece { path, content, mode: 0o600, folder_mode: 0o700 });
    }
    put(&pieces, existing, |path| match Source::File(path.to_owned()).load() {
        Ok(_) => Ok(()),
        Err(error) => {
            let own = plan.config.display().to_string();
            let told = error.to_string().replace(&path.display().to_string(), &own);
            bail!("nothing was written, since it would not be taken up:\n{told}")
        }
    })
}

/// Tells what was written and what is left to do.
fn report(plan: &Plan) -> Result<()> {
    let mut text = format!("wrote {}\n", plan.config.display());
    if let Some(token) = plan.token() {
        text += &format!("wrote {}, mode 0600\n", token.display());
        let folder = token.parent().unwrap_or(Path::new("."));
        let mode = folder.metadata().map_or(0, |metadata| metadata.mode() & 0o777);
        if mode & 0o077 != 0 {
            tell(format_args!("note: {} has mode {mode:04o}: `chmod 700 {0}`", folder.display()));
        }
    }
    // What is not there yet is in the steps below.
    let told = |problem: &&Problem| {
        !["images.", "server.nbps"].iter().any(|key| problem.key.starts_with(key))
    };
    let config = Source::File(plan.config.clone()).load()?;
    permit_registry(&config.server.state);
    for problem in config.problems.iter().filter(told) {
        tell(format_args!("config: {problem}"));
    }
    let files = plan.files.iter().flat_map(|(kernel, initrd)| [kernel.as_str(), initrd]);
    let missing: Vec<&str> =
        files.filter(|named| readable(&within(plan.folder(), named)).is_err()).collect();
    text += &plan.next(&missing);
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(of_default_route: Option<&str>) -> Choice {
        let subnets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let interfaces = [
            ("eth0".to_owned(), subnets(&["192.168.1.2/24", "10.0.0.1/8"])),
            ("lo".to_owned(), subnets(&["127.0.0.1/8"])),
        ];
        let of_default_route = of_default_route.map(str::to_owned);
        Choice { interfaces: interfaces.into(), of_default_route }
    }

    fn chosen(given: Option<&str>, of_default_route: Option<&str>) -> Result<String, String> {
        let chosen = interface(given, &choice(of_default_route), None);
        chosen.map(|(name, _)| name).map_err(|error| error.to_string())
    }

    #[test]
    fn the_interface_is_the_one_that_was_named_else_that_of_the_default_route() {
        assert_eq!(chosen(None, Some("eth0")), Ok("eth0".to_owned()));
        assert_eq!(chosen(Some("lo"), Some("eth0")), Ok("lo".to_owned()));
        let there_is = "eth0 (192.168.1.2/24, 10.0.0.1/8), lo (127.0.0.1/8)";
        assert_eq!(
            chosen(Some("eth1"), Some("eth0")),
            Err(format!(
                "--interface: there is no interface `eth1` with an IPv4 address; there is: {there_is}"
            ))
        );
        assert_eq!(
            chosen(None, None),
            Err(format!(
                "there is no default route that would tell which interface machines boot on; name it with --interface (there is: {there_is})"
            ))
        );
    }

    #[test]
    fn a_file_that_is_named_here_is_named_from_where_the_config_is() {
        let named = |path: &str, config: &str| named(Path::new(path), Path::new(config)).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(named("images/linux", "config.yaml"), "images/linux");
        assert_eq!(named("./images/linux", "./config.yaml"), "./images/linux");
        assert_eq!(named("/srv/linux", "etc/config.yaml"), "/srv/linux");
        assert_eq!(named("linux", "etc/config.yaml"), here.join("linux").to_str().unwrap());
    }
}
