//! What reveille fetches by itself: the sets that the config's images are made of, and where each is from.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::path::PathBuf;

use semver::Version;
use url::Url;

use super::catalog::image_set::SetId;
use super::catalog::talos::TalosArch;
use super::checksum::Sha256;
use super::redact::shown;
use super::talos_schematic::Schematic;

/// The public factory.
pub const FACTORY: &str = "https://factory.talos.dev/";

/// The folder of what is from no factory.
pub const URLS: &str = "urls";
/// What stands for the version where it is to be the newest.
pub const LATEST: &str = "latest";

/// A set that an image needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub set: SetId,
    /// Where it is from.
    pub origin: Origin,
}

impl Wanted {
    /// Whether it is to be the newest of its kind.
    pub fn is_latest(&self) -> bool {
        match &self.origin {
            Origin::Factory(recipe) => recipe.version.is_none(),
            Origin::Web(..) => false,
        }
    }
}

/// Where a set is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A factory makes it.
    Factory(Recipe),
    /// It is the file at an address, with this sum where that is known.
    Web(Url, Option<Sha256>),
}

/// What a factory makes an image of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its address.
    pub factory: Url,
    /// The certificates of its CA, where this host does not trust it anyway.
    pub ca: Option<PathBuf>,
    /// What goes into the image.
    pub schematic: Schematic,
    /// The release; none for the newest.
    pub version: Option<Version>,
    /// The processor.
    pub arch: TalosArch,
}

impl Recipe {
    /// The set of this recipe.
    pub fn set(&self) -> SetId {
        let version = self.version.as_ref().map(|version| format!("v{version}"));
        self.set_of(version.as_deref().unwrap_or(LATEST))
    }

    /// The same with another version, as it is in a path: `v1.11.2`.
    pub fn set_of(&self, version: &str) -> SetId {
        let factory = folder(&self.factory);
        SetId::new(&format!("{factory}/{}/{version}/{}", self.schematic.id(), self.arch))
    }
}

impl Origin {
    /// The set of it.
    pub fn set(&self) -> SetId {
        match self {
            Self::Factory(recipe) => recipe.set(),
            // An address may hold a password, and is no path.
            Self::Web(url, sha256) => {
                let sum = Sha256::of(url.as_str().as_bytes());
                let content = sha256.map(|sha256| format!("-{sha256}")).unwrap_or_default();
                SetId::new(&format!("{URLS}/{sum}{content}"))
            }
        }
    }
}

impl fmt::Display for Origin {
    /// Where it is from, without what nobody else may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Factory(recipe) => shown(&recipe.factory).fmt(f),
            Self::Web(url, _) => shown(url).fmt(f),
        }
    }
}

/// A factory's address as the name of a folder.
fn folder(factory: &Url) -> String {
    let whole = factory.as_str().trim_end_matches('/');
    let address = whole.split_once("://").map_or(whole, |(_, address)| address);
    // Who one is there is no part of it.
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let name: String = address.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    // A folder that begins with a dot is hidden.
    if name.starts_with('.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_known_by_what_it_is_made_of() {
        let recipe = |factory: &str, version: Option<&str>| Recipe {
            factory: factory.parse().unwrap(),
            ca: None,
            schematic: Schematic::default(),
            version: version.map(|version| version.parse().unwrap()),
            arch: TalosArch::Amd64,
        };
        let id = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
        for (factory, version, path) in [
            (FACTORY, Some("1.11.2"), format!("factory.talos.dev/{id}/v1.11.2/amd64")),
            (FACTORY, None, format!("factory.talos.dev/{id}/latest/amd64")),
            (
                "http://me:hush@[fd00::1]:8080/a/b/",
                Some("1.12.0-beta.1"),
                format!("_fd00__1__8080_a_b/{id}/v1.12.0-beta.1/amd64"),
            ),
        ] {
            assert_eq!(recipe(factory, version).set().as_str(), path);
        }
        let url: Url = "https://me:hush@x.example/linux?token=hush".parse().unwrap();
        let plain = Origin::Web(url.clone(), None).set();
        let summed = Origin::Web(url, Some(Sha256::of(b"x"))).set();
        assert!(plain.as_str().len() == URLS.len() + 65 && plain != summed, "{plain} {summed}");
    }
}
