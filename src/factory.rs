//! The Image Factory's HTTP interface (`image-factory/docs/api.md`), as far as images are fetched by it.
//!
//! ```text
//!  POST /schematics ──▶ id
//!  GET  /versions   ──▶ which releases there are; /version/<v>/extensions/official ──▶ what may be in them
//!  GET  /image/<id>/<version>/{kernel-amd64, initramfs-amd64.xz, cmdline-metal-amd64}
//! ```

use std::path::Path;

use reqwest::{Certificate, Client, Url};
use semver::Version;
use serde::Deserialize;

use crate::http_client;
use crate::http_client::download::{Failure, FetchError, Patience, json, persist};
use crate::pure::image_source::Recipe;
use crate::pure::nearest::nearest;
use crate::pure::redact::shown;
use crate::pure::talos_schematic::{Schematic, SchematicId};
use crate::sys::files::{self, Bound};

/// How many versions are told where the one that is asked for is not there.
const MOST_TOLD: usize = 5;

/// A factory, and how patiently it is asked.
#[derive(Clone, Debug)]
pub struct Factory {
    url: Url,
    client: Client,
    patience: Patience,
}

/// A schematic as the factory knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its id, which is what counts.
    pub id: SchematicId,
    /// Its id, as it was expected.
    pub predicted: SchematicId,
}

impl Made {
    /// What is to be said where the factory says another id than was expected.
    pub fn doubt(&self) -> Option<String> {
        let Self { id, predicted } = self;
        (id != predicted).then(|| {
            format!("its factory names the schematic {id}, and {predicted} was expected: the factory's is used")
        })
    }
}

/// Why a factory does not do what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactoryError {
    /// A request failed.
    #[error("{error}{}", advice(.error))]
    Fetch {
        /// In what.
        error: FetchError,
    },
    /// The CA's certificates cannot be used.
    #[error("{}: {reason}", path.display())]
    Ca {
        /// Their file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// TLS cannot be used.
    #[error("{0}")]
    Tls(String),
    /// It has no release.
    #[error("{0} names no release of Talos that is no pre-release")]
    NoRelease(String),
    /// It does not have this one.
    #[error("{url} has no Talos {version}; it has {}", told(versions))]
    NoVersion {
        /// The factory.
        url: String,
        /// What was asked for.
        version: String,
        /// What is near it.
        versions: Vec<String>,
    },
    /// It does not know an extension.
    #[error("{}", unknown_extensions(url, version, extensions))]
    NoExtension {
        /// The factory.
        url: String,
        /// For which release.
        version: String,
        /// Each that it does not know, and the nearest one that it does.
        extensions: Vec<(String, Option<String>)>,
    },
}

fn told(versions: &[String]) -> String {
    if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
}

fn unknown_extensions(url: &str, version: &str, extensions: &[(String, Option<String>)]) -> String {
    let each = extensions.iter().map(|(name, nearest)| match nearest {
        Some(nearest) => format!("`{name}` (did you mean `{nearest}`?)"),
        None => format!("`{name}`"),
    });
    let each: Vec<String> = each.collect();
    format!("{url} has no extension {} for Talos {version}", each.join(", "))
}

/// What mends a failure that the factory's own words do not explain.
fn advice(error: &FetchError) -> String {
    let advice = match &error.failure {
        Failure::Status { status, .. } if status.as_u16() == 402 => {
            "this factory gives that to paying customers only"
        }
        Failure::Unreachable(why)
            if why.contains("certificate") || why.contains("UnknownIssuer") =>
        {
            "if it is a factory of your own, name the certificate of its CA: `factory: { url: …, ca: … }`"
        }
        Failure::Unreachable(_) => {
            "is there a way out to it? A proxy is taken from HTTPS_PROXY, and `factory` in the config names another one"
        }
        Failure::Status { .. }
        | Failure::Redirect(_)
        | Failure::CutOff { .. }
        | Failure::Ended { .. }
        | Failure::WrongSum { .. }
        | Failure::Unexpected(_)
        | Failure::Disk { .. } => return String::new(),
    };
    format!("; {advice}")
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Identified {
    id: String,
}

impl Factory {
    /// The factory of a recipe.
    ///
    /// # Errors
    /// TLS cannot be set up, or its CA cannot be read.
    pub fn of(recipe: &Recipe, patience: Patience) -> Result<Self, FactoryError> {
        let cas = match &recipe.ca {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let client = http_client::client(&cas).map_err(FactoryError::Tls)?;
        Ok(Self { url: recipe.factory.clone(), client, patience })
    }

    /// What it is asked by.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Has it know a schematic.
    ///
    /// # Errors
    /// It does not.
    pub async fn make(&self, schematic: &Schematic) -> Result<Made, FactoryError> {
        let url = self.at(&["schematics"]);
        let yaml = schematic.yaml();
        let ask = async || {
            let request = self.client.post(url.clone()).body(yaml.clone());
            let Identified { id } = json(request).await?;
            id.parse().map_err(|error| Failure::Unexpected(format!("its answer is no id: {error}")))
        };
        let id = persist(&url, self.patience, ask).await;
        let id = id.map_err(|error| FactoryError::Fetch { error })?;
        Ok(Made { id, predicted: schematic.id() })
    }

    /// The releases that it has, the newest first. What is no version is left out.
    ///
    /// # Errors
    /// It does not say.
    pub async fn versions(&self) -> Result<Vec<Version>, FactoryError> {
        let words: Vec<String> = self.listed(&["versions"]).await?;
        let version = |word: &String| Version::parse(word.strip_prefix('v').unwrap_or(word)).ok();
        let mut versions: Vec<Version> = words.iter().filter_map(version).collect();
        versions.sort();
        versions.reverse();
        Ok(versions)
    }

    /// Its newest release that is no pre-release.
    ///
    /// # Errors
    /// It does not say, or has none.
    pub async fn latest(&self) -> Result<Version, FactoryError> {
        let versions = self.versions().await?;
        let newest = versions.into_iter().find(|version| version.pre.is_empty());
        newest.ok_or_else(|| FactoryError::NoRelease(shown(&self.url).to_string()))
    }

    /// What it does not know of an image that it does not make: the version, or extensions.
    pub async fn unknown(&self, version: &str, extensions: &[String]) -> Option<FactoryError> {
        let url = shown(&self.url).to_string();
        let wanted = Version::parse(version.strip_prefix('v').unwrap_or(version)).ok()?;
        let versions = self.versions().await.ok()?;
        if !versions.contains(&wanted) {
            let is_near = |it: &&Version| it.major == wanted.major && it.minor == wanted.minor;
            let near: Vec<&Version> = versions.iter().filter(is_near).collect();
            let near = if near.is_empty() { versions.iter().collect() } else { near };
            let versions = near.into_iter().take(MOST_TOLD).map(|it| format!("v{it}")).collect();
            return Some(FactoryError::NoVersion { url, version: version.to_owned(), versions });
        }
        let path = ["version", version, "extensions", "official"];
        let known: Vec<Named> = self.listed(&path).await.ok()?;
        let known: Vec<String> = known.into_iter().map(|extension| extension.name).collect();
        let extensions = unknown_among(extensions, &known);
        let version = version.to_owned();
        (!extensions.is_empty()).then_some(FactoryError::NoExtension { url, version, extensions })
    }

    /// Where a file of an image is.
    pub fn image(&self, id: &SchematicId, version: &str, file: &str) -> Url {
        self.at(&["image", id.as_str(), version, file])
    }

    async fn listed<T: for<'a> Deserialize<'a>>(
        &self,
        path: &[&str],
    ) -> Result<Vec<T>, FactoryError> {
        let url = self.at(path);
        let ask = async || json(self.client.get(url.clone())).await;
        persist(&url, self.patience, ask).await.map_err(|error| FactoryError::Fetch { error })
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }
}

/// Those that are not known, each with what may be meant. They are looked for without their maker's name too.
fn unknown_among(wanted: &[String], known: &[String]) -> Vec<(String, Option<String>)> {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let unknown = wanted.iter().filter(|name| !known.contains(name));
    let meant = |name: &String| {
        let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        // `siderolabs/bnx2` is a part of what `siderolabs/bnx2-bnx2x` is called.
        near.or_else(|| {
            let part = bare(name);
            known.iter().find(|known| bare(known).split('-').any(|word| word == part)).cloned()
        })
    };
    unknown.map(|name| (name.clone(), meant(name))).collect()
}

/// The certificates in a PEM file.
fn certificates(path: &Path) -> Result<Vec<Certificate>, FactoryError> {
    let failed = |reason: String| FactoryError::Ca { path: path.to_owned(), reason };
    let pem = files::read(path, Bound::CERTIFICATES).map_err(failed)?;
    let bad = "it holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)";
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(failed(bad.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_that_is_not_known_is_told_with_the_one_that_may_be_meant() {
        let known = ["siderolabs/bnx2-bnx2x", "siderolabs/intel-ucode", "siderolabs/iscsi-tools"];
        let known = known.map(str::to_owned);
        let unknown = |name: &str| unknown_among(&[name.to_owned()], &known);
        let told =
            |name: &str, meant: Option<&str>| vec![(name.to_owned(), meant.map(str::to_owned))];
        assert_eq!(unknown("siderolabs/intel-ucode"), []);
        for (name, meant) in [
            ("siderolabs/intel-ucod", Some("siderolabs/intel-ucode")),
            ("siderolabs/bnx2", Some("siderolabs/bnx2-bnx2x")),
            ("siderolab/iscsi-tools", Some("siderolabs/iscsi-tools")),
            ("siderolabs/zfs", None),
        ] {
            assert_eq!(unknown(name), told(name, meant));
        }
    }

    #[test]
    fn a_factorys_address_may_have_a_path_of_its_own() {
        let factory = |url: &str| Factory {
            url: url.parse().unwrap(),
            client: http_client::client(&[]).unwrap(),
            patience: Patience::default(),
        };
        let id = Schematic::default().id();
        for (url, expected) in [
            ("https://factory.talos.dev", "https://factory.talos.dev/"),
            ("http://10.0.0.1:8080/a/b/", "http://10.0.0.1:8080/a/b/"),
            ("http://10.0.0.1:8080/a/b", "http://10.0.0.1:8080/a/b/"),
        ] {
            let file = factory(url).image(&id, "v1.11.2", "kernel-amd64");
            assert_eq!(file.as_str(), format!("{expected}image/{id}/v1.11.2/kernel-amd64"));
        }
    }
}
