//! What a machine reads in its iPXE script beside what [`crate::simulate::script`] runs: how long it pauses, and
//! where it asks again after something has failed.

use super::site::Firmware;
use crate::pure::client::Mac;
use crate::simulate::machine::{Firmware as Played, Machine, Smbios};
use crate::simulate::script::Run;

/// Begins a script on this machine; none if iPXE takes the text for no script.
pub(super) fn run(text: &str, mac: Mac, firmware: Firmware) -> Option<Run> {
    let firmware = match firmware {
        Firmware::Bios => Played::Bios,
        Firmware::Uefi => Played::Uefi,
        Firmware::HttpBoot => Played::UefiHttp,
        Firmware::RomIpxe => Played::Ipxe,
    };
    Run::new(text, &Machine { mac, firmware, smbios: Smbios::default(), nic: None })
}

/// For how many seconds it sleeps before it does anything.
pub(super) fn pause(text: &str) -> u64 {
    let does = ["chain ", "sanboot ", "exit", "iseq ", "kernel ", "menu "];
    let first = text.lines().find(|line| {
        line.starts_with("sleep ") || does.iter().any(|command| line.starts_with(command))
    });
    let seconds = first.and_then(|line| line.strip_prefix("sleep ")?.split(' ').next());
    seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

/// The address of the first `chain` behind a label.
pub(super) fn chain_behind(text: &str, label: &str) -> Option<String> {
    let mut lines = text.lines().skip_while(|line| line.strip_prefix(':') != Some(label));
    let chain = lines.find_map(|line| line.strip_prefix("chain --replace --autofree "))?;
    chain.split(' ').next().map(str::to_owned)
}
