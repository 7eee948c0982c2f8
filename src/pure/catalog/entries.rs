//! What there is to boot, and who boots it: machines, groups, profiles and images.
//!
//! A catalog is made by `config::resolve`, which links every name: a [`Machine`] holds its
//! [`Profile`], so a dangling name cannot exist here. Which of it is for whom is `boot::plan::select`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use uuid::Uuid;

use super::image_set::SetId;
use super::nbp::Nbps;
use super::omni::Omni;
use super::pattern::Pattern;
use super::settings::Settings;
use super::talos::{TalosArch, TalosVersion};
use crate::pure::client::{Client, Mac, swapped};

/// A known box.
#[derive(Debug)]
pub struct Machine {
    /// Its name in the config.
    pub name: String,
    /// Its network cards.
    pub macs: Vec<Mac>,
    /// Its SMBIOS UUID.
    pub uuid: Option<Uuid>,
    /// Its SMBIOS serial number.
    pub serial: Option<String>,
    /// What it boots; where it does not say so, that of the first group that it fits.
    pub profile: Option<Arc<Profile>>,
    /// Its address on the kernel line.
    pub network: Network,
    /// What it says for itself, which comes before what its group and its profile say.
    pub settings: Settings,
}

/// The kernel's own way to an address (`ip=`, Linux `Documentation/admin-guide/nfs/nfsroot.rst`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its address, with the prefix of its network: without one there is no `ip=`.
    pub ip: Option<Ipv4Net>,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// The network interface that has the address.
    pub nic: Option<String>,
    /// The host name.
    pub hostname: Option<String>,
    /// Name servers, at most two.
    pub dns: Vec<Ipv4Addr>,
}

/// Machines that have no entry of their own, or one that names no profile.
#[derive(Debug)]
pub struct Group {
    /// Its name in the config.
    pub name: String,
    /// Who is in it.
    pub pattern: Pattern,
    /// What they boot.
    pub profile: Arc<Profile>,
    /// What it says for them, which comes before what its profile says.
    pub settings: Settings,
}

/// What to boot.
#[derive(Debug)]
pub struct Profile {
    /// Its name in the config.
    pub name: String,
    /// The template in `boot-scripts/`, without `.ipxe`.
    pub script: String,
    /// Whether that template is a usable one of the operator's own, perhaps in place of a built-in one of its name.
    pub has_own_script: bool,
    /// Kernel and initial RAM disks.
    pub image: Option<Arc<Image>>,
    /// The Omni instance that the machine joins.
    pub omni: Option<Arc<Omni>>,
    /// What it says for its machines.
    pub settings: Settings,
}

impl Profile {
    /// Whether its script is Talos', which adds Talos' own arguments whatever the image is.
    pub fn adds_talos_arguments(&self) -> bool {
        self.script == "talos"
    }

    /// Whether its script is a built-in one that starts a kernel.
    pub fn needs_image(&self) -> bool {
        STARTING_A_KERNEL.contains(&self.script.as_str())
    }
}

/// A kernel and what goes with it.
#[derive(Debug)]
pub struct Image {
    /// Its name in the config.
    pub name: String,
    /// Its files.
    pub files: Files,
    /// Which of the operator's own is not there, and why: as it was when this snapshot was made.
    pub missing: Option<String>,
    /// Kernel arguments that this image needs.
    pub cmdline: Vec<String>,
    /// What is known of it where it is Talos.
    pub talos: Option<Talos>,
}

/// The files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The kernel.
    pub kernel: Part,
    /// The initial RAM disks, in the order in which the kernel unpacks them.
    pub initrds: Vec<Part>,
}

/// Where a kernel or an initial RAM disk is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The operator's own file, on this host.
    Own(PathBuf),
    /// The file of this name in a set that reveille fetches.
    Fetched(SetId, &'static str),
}

/// A Talos image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talos {
    /// The release as the config says it: `v1.11.2`, `v1.11` or `latest`.
    pub release: String,
    /// The release as far as its arguments depend on it; none for `latest`, which is known once its factory
    /// has been asked.
    pub version: Option<TalosVersion>,
    /// The processor that it is for.
    pub arch: TalosArch,
    /// The system extensions in it, where they are known: not those of the operator's own files.
    pub extensions: Option<Vec<String>>,
}

impl Image {
    /// The sets that it needs, each once.
    pub fn sets(&self) -> impl Iterator<Item = &SetId> {
        let sets = || {
            let parts = [&self.files.kernel].into_iter().chain(&self.files.initrds);
            parts.filter_map(|part| match part {
                Part::Own(_) => None,
                Part::Fetched(set, _) => Some(set),
            })
        };
        let is_new = move |at: usize, set: &SetId| !sets().take(at).any(|before| before == set);
        sets().enumerate().filter(move |(at, set)| is_new(*at, set)).map(|(_, set)| set)
    }

    /// How many initial RAM disks it has.
    pub fn initrds(&self) -> usize {
        self.files.initrds.len()
    }
}

/// What a machine gets that stands nowhere in the config.
#[derive(Debug, Default)]
pub enum Unknown {
    /// The menu.
    #[default]
    Menu,
    /// Its local disk.
    Local,
    /// No answer.
    Ignore,
    /// This profile.
    Profile(Arc<Profile>),
}

/// The menu for machines that may choose.
#[derive(Debug)]
pub struct Menu {
    /// What happens when nobody presses a key: `None` is the local disk.
    pub default: Option<Arc<Profile>>,
    /// How long it waits for a key.
    pub timeout: Duration,
    /// What may be chosen, in this order.
    pub profiles: Vec<Arc<Profile>>,
}

impl Default for Menu {
    fn default() -> Self {
        Self { default: None, timeout: Duration::from_secs(30), profiles: Vec::new() }
    }
}

/// Everything that can be booted, and by whom.
#[derive(Debug, Default)]
pub struct Catalog {
    machines: BTreeMap<String, Arc<Machine>>,
    by_mac: BTreeMap<Mac, Arc<Machine>>,
    by_uuid: BTreeMap<Uuid, Arc<Machine>>,
    by_serial: BTreeMap<String, Arc<Machine>>,
    /// The groups, the first to be asked first.
    pub groups: Vec<Arc<Group>>,
    /// All Omni instances, by name.
    pub omni: BTreeMap<String, Arc<Omni>>,
    /// All images, by name.
    pub images: BTreeMap<String, Arc<Image>>,
    /// All profiles, by name.
    pub profiles: BTreeMap<String, Arc<Profile>>,
    /// What strangers get.
    pub unknown: Unknown,
    /// The menu.
    pub menu: Menu,
    /// The NBPs that can be offered.
    pub nbps: Nbps,
}

impl Catalog {
    /// Enters a machine under each of its identities.
    pub fn add(&mut self, machine: impl Into<Arc<Machine>>) {
        let machine = machine.into();
        for mac in &machine.macs {
            self.by_mac.insert(*mac, Arc::clone(&machine));
        }
        if let Some(uuid) = machine.uuid {
            self.by_uuid.insert(uuid, Arc::clone(&machine));
        }
        if let Some(serial) = &machine.serial {
            self.by_serial.insert(serial.to_lowercase(), Arc::clone(&machine));
        }
        self.machines.insert(machine.name.clone(), machine);
    }

    /// All machines, by name.
    pub fn machines(&self) -> &BTreeMap<String, Arc<Machine>> {
        &self.machines
    }

    /// The machine with this network card.
    pub fn machine(&self, mac: Mac) -> Option<&Arc<Machine>> {
        self.by_mac.get(&mac)
    }

    /// Which machine a client is: by MAC, then UUID, then serial number, whose case does not matter.
    ///
    /// Firmware and iPXE disagree about the byte order of the UUID's first three fields on boards
    /// with an SMBIOS older than 2.6, so both orders count.
    pub fn identify(&self, client: &Client) -> Option<&Arc<Machine>> {
        let by_uuid =
            |uuid: Uuid| self.by_uuid.get(&uuid).or_else(|| self.by_uuid.get(&swapped(uuid)));
        let by_serial = |serial: &String| self.by_serial.get(&serial.to_lowercase());
        client
            .mac
            .and_then(|mac| self.by_mac.get(&mac))
            .or_else(|| client.uuid.and_then(by_uuid))
            .or_else(|| client.facts.as_ref()?.serial.as_ref().and_then(by_serial))
    }

    /// Whether some machine can only be told by what its SMBIOS tables say.
    pub fn needs_smbios(&self) -> bool {
        !self.by_uuid.is_empty() || !self.by_serial.is_empty()
    }
}

/// The profile name of the menu's own template, which a profile may name as its script.
pub const MENU: &str = "menu";

/// The template for the local disk, which a profile may name as its script.
pub const LOCAL_DISK: &str = "local-disk";

/// Those among them that start a kernel, and so need an image.
pub const STARTING_A_KERNEL: &[&str] =
    &["autoinstall", "coreos", "debian", "flatcar", "kickstart", "linux", "memtest", "talos"];
