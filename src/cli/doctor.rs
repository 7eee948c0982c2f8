//! `reveille doctor`

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};

use super::output::print;
use crate::config::loader::Source;
use crate::pure::config::snapshot::Config;
use crate::pure::dhcp::survey::{Answer, Prober, Us, findings, silence};
use crate::server::dhcp::probe::probe;
use crate::sys::interfaces::{self, Interface};

/// Asks each LAN where machines boot who answers them there, and says what to change.
pub(super) fn run(config: Option<PathBuf>) -> Result<ExitCode> {
    let source = Source::find(config)?;
    let config = source.load().with_context(|| format!("config: {source} cannot be used"))?;
    let served = interfaces::look(&config.server).map_err(|reason| anyhow!(reason))?;
    for reason in served.missing() {
        print(&format!("! {reason}\n"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let mut all_is_well = served.missing().is_empty();
    for interface in served.iter() {
        print(&format!("Asking on {} as BIOS, UEFI and iPXE, for 7 seconds …\n", interface.name))?;
        all_is_well &= match runtime.block_on(probe(interface, Prober::Doctor)) {
            Ok(answers) => report(interface, &answers, &config)?,
            Err(reason) => {
                print(&format!("! cannot ask on {}: {reason}\n", interface.name))?;
                false
            }
        };
    }
    Ok(if all_is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what came, and what is to be done about it; whether that is nothing.
fn report(interface: &Interface, answers: &[Answer], config: &Config) -> Result<bool> {
    for answer in answers {
        print(&format!("  {}\n", described(answer, interface)))?;
    }
    let us = Us::new(interface.own_addresses(), config.serving());
    let mut found = findings(answers, &BTreeSet::new(), &us);
    found.extend(silence(answers, &us));
    for finding in &found {
        print(&format!("! {finding}\n"))?;
    }
    if found.is_empty() {
        print(&format!("Nothing on {} stands in the way of a boot.\n", interface.name))?;
    }
    Ok(found.is_empty())
}

fn described(answer: &Answer, interface: &Interface) -> String {
    let Answer { asked, server, lease, vendor_class, boot_file, next_server, .. } = answer;
    let whose =
        if interface.own_addresses().any(|own| own == *server) { " (this host)" } else { "" };
    let lease =
        lease.map_or_else(|| "no address".to_owned(), |address| format!("the address {address}"));
    let class = vendor_class.as_ref().map_or_else(String::new, |class| format!(", as {class}"));
    let file = boot_file.as_ref().map_or_else(String::new, |file| {
        let from = next_server.as_ref().map_or_else(String::new, |from| format!(" on {from}"));
        format!(", and `{file}`{from}")
    });
    format!("{asked}: {server}{whose} offers {lease}{class}{file}")
}
