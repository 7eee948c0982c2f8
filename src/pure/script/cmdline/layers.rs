//! Who says what on a kernel line, in the order in which it is said.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;

use super::CmdlineError;
use crate::pure::catalog::image_set::initrd_name;
use crate::pure::catalog::image_status::Shelf;
use crate::pure::catalog::ipxe_word::Flaw;
use crate::pure::catalog::omni::redacted;
use crate::pure::catalog::select::Who;
use crate::pure::catalog::talos::{self, TalosVersion};
use crate::pure::catalog::{Image, Network, Profile};
use crate::pure::printable;

/// Who asks for an argument: the later one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// What iPXE needs.
    Initrd,
    /// Talos' own.
    Base,
    Omni,
    Image,
    /// What `talos` says in a profile, a group and a machine.
    Talos,
    Profile,
    Group,
    Machine,
    /// `ip=`, from the machine's `ip` and what goes with it.
    Address,
}

/// One kernel argument and who asks for it.
pub(super) struct Argument<'a> {
    pub(super) layer: Layer,
    /// The name of the image, profile, … that asks.
    pub(super) owner: &'a str,
    pub(super) text: String,
}

impl fmt::Debug for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Argument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { layer, owner, .. } = self;
        let text = redacted(&self.text);
        match layer {
            Layer::Initrd => write!(f, "`{text}`"),
            Layer::Base => write!(f, "Talos' own argument `{text}`"),
            Layer::Omni => {
                // The value may be the join token.
                let name = text.split('=').next().unwrap_or_default();
                write!(f, "`{name}=***` of omni `{owner}`")
            }
            Layer::Image => write!(f, "argument `{text}` of image `{owner}`"),
            Layer::Talos => {
                write!(f, "argument `{text}`, which `talos` says for profile `{owner}`")
            }
            Layer::Profile => write!(f, "argument `{text}` of profile `{owner}`"),
            Layer::Group => write!(f, "argument `{text}` of group `{owner}`"),
            Layer::Machine | Layer::Address => {
                write!(f, "argument `{text}` of machine `{owner}`")
            }
        }
    }
}

/// All that is said, the first word first.
///
/// # Errors
/// The join arguments cannot be made, or Talos' own are none.
pub(super) fn said<'a>(
    profile: &'a Profile,
    image: &'a Image,
    who: &'a Who,
    shelf: &Shelf,
) -> Result<Vec<Argument<'a>>, CmdlineError> {
    let mut said = Vec::new();
    let mut add = |layer, owner: &'a str, texts: &[String]| {
        let make = |text: &String| Argument { layer, owner, text: text.clone() };
        said.extend(texts.iter().map(make));
    };
    let initrds: Vec<String> =
        (0..image.initrds()).map(|index| format!("initrd={}", initrd_name(index))).collect();
    add(Layer::Initrd, &image.name, &initrds);
    if profile.adds_talos_arguments() {
        add(Layer::Base, &image.name, &base(image, shelf)?);
    }
    if let Some(omni) = &profile.omni {
        add(Layer::Omni, &omni.name, &omni.arguments().map_err(CmdlineError::Omni)?);
    }
    add(Layer::Image, &image.name, &image.cmdline);
    if profile.adds_talos_arguments() {
        add(Layer::Talos, &profile.name, &talos_settings(profile, who));
    }
    add(Layer::Profile, &profile.name, &profile.settings.cmdline);
    if let Some(group) = &who.group {
        add(Layer::Group, &group.name, &group.settings.cmdline);
    }
    if let Some(machine) = &who.machine {
        add(Layer::Machine, &machine.name, &machine.settings.cmdline);
        let ip: Vec<String> = ip(&machine.network).into_iter().collect();
        add(Layer::Address, &machine.name, &ip);
    }
    if profile.adds_talos_arguments() && !said.iter().any(is_platform) {
        // That of a release says it.
        let wrong = "it says no `talos.platform`, and nobody else does".to_owned();
        return Err(CmdlineError::Base { image: image.name.clone(), wrong });
    }
    Ok(said)
}

/// Without its platform Talos never finds its way to its config.
fn is_platform(argument: &Argument<'_>) -> bool {
    argument.text.starts_with("talos.platform=")
}

/// Whether Talos' own arguments are known, and not only those of the newest release that is known here.
pub(super) fn knows_base(profile: &Profile, image: &Image, shelf: &Shelf) -> bool {
    let told = || image.talos.as_ref().is_some_and(|talos| talos.version.is_some());
    !profile.adds_talos_arguments() || told() || shelf.kernel_set(image).is_some()
}

/// Talos' own arguments: as the image's factory has them, else as its release is known to have them.
fn base(image: &Image, shelf: &Shelf) -> Result<Vec<String>, CmdlineError> {
    let set = shelf.kernel_set(image);
    if let Some(base) = set.and_then(|set| set.base.as_ref()) {
        return match wrong_with(base) {
            None => Ok(base.clone()),
            Some(wrong) => Err(CmdlineError::Base { image: image.name.clone(), wrong }),
        };
    }
    let talos = image.talos.as_ref();
    let told = talos.and_then(|talos| talos.version).or_else(|| set.and_then(|set| set.talos));
    let version = told.unwrap_or(TalosVersion::NEWEST);
    let arch = talos.map(|talos| talos.arch).unwrap_or_default();
    Ok(version.default_cmdline(arch).into_iter().map(str::to_owned).collect())
}

/// What is wrong with arguments that are said to be Talos' own: a proxy may answer a factory's question with
/// a page of its own.
fn wrong_with(base: &[String]) -> Option<String> {
    let (word, flaw) = base.iter().find_map(|word| Some((word, Flaw::of(word)?)))?;
    Some(format!("in it `{}` {flaw}", printable::cut(word, 40)))
}

/// What `talos` says in a machine, its group and its profile.
fn talos_settings(profile: &Profile, who: &Who) -> Vec<String> {
    let mut arguments = Vec::new();
    if who.settings(Some(profile)).find_map(|said| said.halt_if_installed) == Some(true) {
        arguments.push("talos.halt_if_installed=1".to_owned());
    }
    let labels: BTreeMap<&String, &String> =
        who.settings(Some(profile)).rev().flat_map(|said| &said.labels).collect();
    if !labels.is_empty() {
        arguments.push(talos::labels(&labels));
    }
    arguments
}

/// `ip=<client>::<gateway>:<netmask>:<hostname>:<device>:off:<dns0>:<dns1>` (Linux
/// `Documentation/admin-guide/nfs/nfsroot.rst`); the server address stays empty.
fn ip(network: &Network) -> Option<String> {
    let Network { ip, gateway, nic, hostname, dns } = network;
    let ip = (*ip)?;
    let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    let [hostname, nic] = [hostname, nic].map(|text| text.as_deref().unwrap_or_default());
    let dns: String = dns.iter().map(|server| format!(":{server}")).collect();
    Some(format!("ip={}::{gateway}:{}:{hostname}:{nic}:off{dns}", ip.addr(), ip.netmask()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux Documentation/admin-guide/nfs/nfsroot.rst.
    #[test]
    fn an_address_has_what_is_known_of_its_network_and_two_name_servers() {
        let ip = |network: Network| ip(&network);
        assert_eq!(ip(Network { nic: Some("eth0".into()), ..Network::default() }), None);
        let bare = Network { ip: "10.0.0.7/8".parse().ok(), ..Network::default() };
        assert_eq!(ip(bare.clone()).as_deref(), Some("ip=10.0.0.7:::255.0.0.0:::off"));
        let full = Network {
            hostname: Some("oden".into()),
            dns: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()],
            ..bare
        };
        let line = "ip=10.0.0.7:::255.0.0.0:oden::off:10.0.0.1:10.0.0.2";
        assert_eq!(ip(full).as_deref(), Some(line));
    }

    #[test]
    fn arguments_of_a_factory_are_taken_only_where_they_can_be_talos_own() {
        let table = [
            ("talos.platform=metal console=tty0", None),
            ("", None),
            ("talos.platform=metal # x", Some("in it `#` starts with `#`, where iPXE would end")),
            ("talos.platform=metal a=${b}", Some("in it `a=${b}` has `${` in it")),
            ("talos.platform=metal ||", Some("in it `||` is an operator")),
        ];
        for (base, expected) in table {
            let words: Vec<String> = base.split_whitespace().map(str::to_owned).collect();
            match (wrong_with(&words), expected) {
                (None, None) => {}
                (Some(wrong), Some(start)) => assert!(wrong.starts_with(start), "{wrong}"),
                (wrong, _) => panic!("{base}: {wrong:?}"),
            }
        }
    }
}
