//! Who is in a group: patterns on what a client tells of itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use ipnet::Ipv4Net;
use wildmatch::WildMatch;

use crate::pure::client::{Client, Cpu, Firmware};

/// All that is given must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern {
    /// The MAC address, with `*` and `?`.
    pub mac: Option<Wildcard>,
    /// The CPU.
    pub cpu: Option<Cpu>,
    /// The firmware.
    pub firmware: Option<Firmware>,
    /// The SMBIOS manufacturer, with `*` and `?`.
    pub vendor: Option<Wildcard>,
    /// The SMBIOS product name, with `*` and `?`.
    pub product: Option<Wildcard>,
    /// The SMBIOS serial number, with `*` and `?`.
    pub serial: Option<Wildcard>,
    /// Where the client is.
    pub subnet: Option<Ipv4Net>,
}

/// Whether a client fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It does not.
    No,
    /// It may: something that matters was not told yet.
    Open,
    /// It does.
    Yes,
}

/// A text with `*` for any characters and `?` for one. Case does not matter.
#[derive(Clone, Debug)]
pub struct Wildcard {
    written: String,
    compiled: WildMatch,
}

impl Wildcard {
    /// Of a text as it is told, blanks at its ends left out.
    pub fn new(written: &str) -> Self {
        let compiled = WildMatch::new_case_insensitive(&written.trim().to_lowercase());
        Self { written: written.to_owned(), compiled }
    }

    /// Of a MAC address in any spelling: what stands between its digits does not matter.
    pub fn of_mac(written: &str) -> Self {
        let digits: String = written.chars().filter(|c| !":-. ".contains(*c)).collect();
        Self { written: written.to_owned(), ..Self::new(&digits) }
    }

    /// Whether a text fits.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.matches(text)
    }

    /// As it is written.
    pub fn written(&self) -> &str {
        &self.written
    }
}

/// Two that fit the same are the same, however they are written.
impl PartialEq for Wildcard {
    fn eq(&self, other: &Self) -> bool {
        self.compiled == other.compiled
    }
}

impl fmt::Display for Wildcard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl Pattern {
    /// Whether a client fits, as far as it has told.
    pub fn fits(&self, client: &Client) -> Fit {
        let facts = client.facts.as_ref();
        // What was asked for and is not there fits nothing.
        let unknown = if facts.is_some() { Fit::No } else { Fit::Open };
        let text = |wanted: &Option<Wildcard>, told: Option<&String>| match (wanted, told) {
            (None, _) => Fit::Yes,
            (Some(_), None) => unknown,
            (Some(wanted), Some(told)) => fit(wanted.compiled.matches(told)),
        };
        let mac = client.mac.map(|mac| mac.to_string().replace(':', ""));
        [
            match (&self.mac, &mac) {
                (None, _) => Fit::Yes,
                (Some(_), None) => Fit::No,
                (Some(wanted), Some(mac)) => fit(wanted.compiled.matches(mac)),
            },
            match (self.subnet, client.address) {
                (None, _) => Fit::Yes,
                (Some(_), None) => Fit::No,
                (Some(subnet), Some(address)) => fit(subnet.contains(&address)),
            },
            match (self.firmware, client.firmware()) {
                (None, _) => Fit::Yes,
                (Some(_), None) => unknown,
                (Some(wanted), Some(told)) => fit(wanted == told),
            },
            match (self.cpu, client.cpu()) {
                (None, _) => Fit::Yes,
                (Some(_), None) => unknown,
                (Some(wanted), Some(told)) => fit(wanted == told),
            },
            text(&self.vendor, facts.and_then(|facts| facts.vendor.as_ref())),
            text(&self.product, facts.and_then(|facts| facts.product.as_ref())),
            text(&self.serial, facts.and_then(|facts| facts.serial.as_ref())),
        ]
        .into_iter()
        .min()
        .unwrap_or(Fit::Yes)
    }

    /// Whether a machine that nothing but its MAC address is known of fits: whatever else is asked for, it
    /// may have.
    pub fn may_fit(&self, client: &Client) -> Fit {
        let by_mac = Self { mac: self.mac.clone(), ..Self::default() };
        match by_mac.fits(client) {
            Fit::Yes if *self != by_mac => Fit::Open,
            // Known by its UUID or serial number only, it has some MAC address.
            Fit::No if client.mac.is_none() => Fit::Open,
            fit => fit,
        }
    }

    /// What it asks for that DHCP never tells, so that at DHCP nobody is in it. A BIOS starts on more than one
    /// kind of CPU, and does not tell on which.
    pub fn untold_by_dhcp(&self) -> Vec<&'static str> {
        let asks = [
            ("vendor", self.vendor.is_some()),
            ("product name", self.product.is_some()),
            ("serial number", self.serial.is_some()),
            ("CPU of a BIOS machine", self.cpu.is_some() && self.firmware == Some(Firmware::Bios)),
        ];
        asks.into_iter().filter_map(|(what, does)| does.then_some(what)).collect()
    }

    /// Whether it asks for nothing, and so fits everybody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn fit(does: bool) -> Fit {
    if does { Fit::Yes } else { Fit::No }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |name: &str, wanted: &Option<Wildcard>| {
            wanted.as_ref().map(|wanted| format!("{name} {wanted}"))
        };
        let parts = [
            text("mac", &self.mac),
            self.cpu.map(|cpu| format!("arch {cpu}")),
            self.firmware.map(|firmware| format!("firmware {firmware}")),
            text("vendor", &self.vendor),
            text("product", &self.product),
            text("serial", &self.serial),
            self.subnet.map(|subnet| format!("subnet {subnet}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::client::{Arch, Facts, Mac, Stage};

    fn client() -> Client {
        Client {
            mac: Some(Mac::new([0x9c, 0x8e, 0x99, 0, 0, 1])),
            arch: Some(Arch::Bios),
            address: Some([192, 168, 1, 50].into()),
            ..Client::at(Stage::Pxe)
        }
    }

    fn told() -> Client {
        let facts = Facts {
            serial: Some("CZ3123ABCD".into()),
            product: Some("ProLiant BL460c Gen8".into()),
            vendor: Some("HP".into()),
            cpu: Some(Cpu::X64),
            ..Facts::default()
        };
        Client { facts: Some(facts), ..client() }
    }

    #[test]
    fn a_mac_pattern_means_the_same_in_every_spelling() {
        for written in
            ["9c:8e:99:*", "9C-8E-99-*", "9c8e.99*", "9c8e99*", "*:01", "9c:8e:99:00:00:0?"]
        {
            let pattern = Pattern { mac: Some(Wildcard::of_mac(written)), ..Pattern::default() };
            assert_eq!(pattern.fits(&client()), Fit::Yes, "{written}");
        }
        let other = Pattern { mac: Some(Wildcard::of_mac("9c:8e:98:*")), ..Pattern::default() };
        assert_eq!(other.fits(&client()), Fit::No);
    }

    #[test]
    fn what_dhcp_does_not_tell_is_named() {
        let serial = Pattern { serial: Some(Wildcard::new("CZ*")), ..Pattern::default() };
        assert_eq!(serial.untold_by_dhcp(), ["serial number"]);
        assert_eq!(serial.fits(&client()), Fit::Open);
        let cpu = |firmware| Pattern { cpu: Some(Cpu::X64), firmware, ..Pattern::default() };
        assert_eq!(cpu(Some(Firmware::Bios)).untold_by_dhcp(), ["CPU of a BIOS machine"]);
        assert_eq!(cpu(Some(Firmware::Bios)).fits(&client()), Fit::Open);
        assert!(cpu(None).untold_by_dhcp().is_empty(), "UEFI tells it");
        let mac = Pattern { mac: Some(Wildcard::of_mac("9c:*")), ..Pattern::default() };
        assert!(mac.untold_by_dhcp().is_empty());
    }

    #[test]
    fn all_that_is_given_must_fit_and_what_is_not_told_yet_is_open() {
        let pattern = Pattern {
            mac: Some(Wildcard::of_mac("9c:8e:99:*")),
            cpu: Some(Cpu::X64),
            firmware: Some(Firmware::Bios),
            vendor: Some(Wildcard::new("hp")),
            product: Some(Wildcard::new("ProLiant BL460c*")),
            serial: Some(Wildcard::new("CZ*")),
            subnet: Some("192.168.1.0/24".parse().unwrap()),
        };
        assert_eq!(pattern.fits(&told()), Fit::Yes);
        assert_eq!(pattern.fits(&client()), Fit::Open, "BIOS does not tell its CPU");
        let elsewhere = Client { address: Some([10, 0, 0, 1].into()), ..client() };
        assert_eq!(pattern.fits(&elsewhere), Fit::No, "whatever it will tell");
        let uefi = Client { arch: Some(Arch::UefiX64), ..told() };
        assert_eq!(pattern.fits(&uefi), Fit::No);
        let mute = Client { facts: Some(Facts::default()), ..client() };
        assert_eq!(pattern.fits(&mute), Fit::No, "it was asked, and has none");
    }
}
