//! `images`: kernels and what goes with them, the operator's own and those that reveille fetches.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;

use semver::Version;
use url::Url;

use super::settings::cmdline;
use crate::pure::catalog::ipxe_word::Flaw;
use crate::pure::catalog::talos::{TalosArch, TalosVersion};
use crate::pure::checksum::Sha256;
use crate::pure::config::fields::{Fields, Keys, Located, scalar};
use crate::pure::config::problem::Problems;
use crate::pure::config::yaml::{Node, Value};

const IMAGE: Keys = Keys { known: &["kernel", "initrd", "cmdline", "talos"], also: &[] };
const TALOS: Keys = Keys { known: &["version", "arch", "extensions", "factory"], also: &[] };
const FACTORY: Keys = Keys { known: &["url", "ca"], also: &[] };
const DOWNLOAD: Keys = Keys { known: &["url", "sha256"], also: &[] };

/// One entry under `images`.
#[derive(Debug, Default)]
pub struct Image {
    /// `kernel`
    pub kernel: Option<Part>,
    /// Whether it names no kernel, since Talos' is to be made.
    pub is_made: bool,
    /// `initrd`
    pub initrds: Vec<Part>,
    /// `cmdline`
    pub cmdline: Vec<String>,
    /// `talos`
    pub talos: Option<Talos>,
}

/// Where a kernel or an initrd comes from.
#[derive(Debug)]
pub enum Part {
    /// A file on this host.
    File(Located<String>),
    /// An address, and the sum that what is there must have.
    Url(Located<Url>, Option<Sha256>),
}

/// `talos` of an image.
#[derive(Debug)]
pub struct Talos {
    /// `version`
    pub version: Option<Located<Release>>,
    /// `arch`
    pub arch: TalosArch,
    /// `extensions`, where they are said.
    pub extensions: Option<Vec<String>>,
    /// `factory`: its address, where it is not the public one, and the file of its CA.
    pub factory: (Option<Url>, Option<Located<String>>),
}

/// A Talos version, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// `latest`: the newest one that is no pre-release.
    Latest,
    /// One release, as v1.11.2.
    Exact(Version),
    /// All of its releases, as v1.11.
    Line(TalosVersion),
}

impl FromStr for Release {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Ok(version) = Version::parse(text.strip_prefix('v').unwrap_or(text)) {
            return Ok(Self::Exact(version));
        }
        let line: Result<TalosVersion, _> = text.parse();
        let is_line = text.strip_prefix('v').unwrap_or(text).split('.').count() == 2;
        match line {
            Ok(line) if is_line => Ok(Self::Line(line)),
            _ => {
                Err(format!("`{text}` is not a Talos version; write it like v1.11.2, or `latest`"))
            }
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Exact(version) => write!(f, "v{version}"),
            Self::Line(line) => write!(f, "v{line}"),
        }
    }
}

impl Release {
    /// As far as arguments depend on it.
    pub fn line(&self) -> Option<TalosVersion> {
        match self {
            Self::Latest => None,
            Self::Exact(version) => version.to_string().parse().ok(),
            Self::Line(line) => Some(*line),
        }
    }
}

impl Image {
    pub(super) fn read(node: &Node, key: &str, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, IMAGE, problems);
        if fields.lacks("kernel") && fields.lacks("talos") {
            problems.error(key, node.place, "`kernel` or `talos` is missing");
        }
        let is_made = fields.lacks("kernel") && fields.node("talos").is_some();
        let talos = fields.node("talos");
        let talos = talos.map(|node| Talos::read(node, &fields.path("talos"), is_made, problems));
        let kernel = fields.node("kernel");
        let kernel = kernel.and_then(|node| Part::read(node, &fields.path("kernel"), problems));
        let initrds = match fields.node("initrd") {
            None => Vec::new(),
            Some(Node { value: Value::List(items), .. }) => {
                let key = |index| format!("{}[{index}]", fields.path("initrd"));
                let read = |(index, item)| Part::read(item, &key(index), problems);
                items.iter().enumerate().filter_map(read).collect()
            }
            Some(node) => Part::read(node, &fields.path("initrd"), problems).into_iter().collect(),
        };
        if is_made && let Some(node) = fields.node("initrd") {
            let message = "a Talos image that is made has its own initramfs; name the `kernel` too for files of your own";
            problems.error(&fields.path("initrd"), node.place, message);
        }
        Self { kernel, is_made, initrds, cmdline: cmdline(&fields, problems), talos }
    }
}

impl Talos {
    fn read(node: &Node, key: &str, is_made: bool, problems: &mut Problems) -> Self {
        let fields = Fields::of(node, key, TALOS, problems);
        let arches = [("amd64", TalosArch::Amd64), ("arm64", TalosArch::Arm64)];
        let arch = fields.one_of("arch", &arches, problems).unwrap_or_default();
        let version = fields.parsed::<Release>("version", problems).filter(|version| {
            let message = match &version.value {
                Release::Line(line) if is_made => format!(
                    "`v{line}` is no whole version: write it like v{line}.2, or `latest` for the newest of all"
                ),
                Release::Latest if !is_made => {
                    "which release files of your own are, `latest` does not say; write it like v1.11.2"
                        .to_owned()
                }
                Release::Latest | Release::Exact(_) | Release::Line(_) => return true,
            };
            problems.error(&version.key, version.place, message);
            false
        });
        if fields.lacks("version") {
            problems.error(&fields.key, node.place, "`version` is missing, as v1.11.2");
        }
        if !is_made && let Some(node) = fields.node("factory") {
            let message =
                "it says nothing of files of your own: nothing is made where `kernel` is given";
            problems.warning(&fields.path("factory"), node.place, message);
        }
        Self {
            version,
            arch,
            extensions: extensions(&fields, problems),
            factory: factory(&fields, problems),
        }
    }
}

impl Part {
    /// A file, an http(s) URL, or `{ url: …, sha256: … }`.
    fn read(node: &Node, key: &str, problems: &mut Problems) -> Option<Self> {
        if let Value::Map(_) = node.value {
            let fields = Fields::of(node, key, DOWNLOAD, problems);
            let sha256 = fields.text("sha256", problems).and_then(|sum| match sum.value.parse() {
                Ok(sha256) => Some(sha256),
                Err(_) => {
                    let message =
                        format!("`{}` is no SHA-256: that has 64 hexadecimal digits", sum.value);
                    problems.error(&sum.key, sum.place, message);
                    None
                }
            });
            let url = fields.text("url", problems);
            if fields.lacks("url") {
                problems.error(key, node.place, "`url` is missing");
            }
            return Some(Self::Url(web(url?, problems)?, sha256));
        }
        let at = scalar(node, key, problems)?;
        if at.value.contains("://") {
            return Some(Self::Url(web(at, problems)?, None));
        }
        Some(Self::File(at))
    }
}

/// An http(s) URL.
fn web(at: Located<String>, problems: &mut Problems) -> Option<Located<Url>> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| at.value.strip_prefix(scheme));
    if rest.is_some_and(|rest| !rest.is_empty() && Flaw::of(rest).is_none())
        && let Ok(url) = at.value.parse()
    {
        return Some(at.map(|_| url));
    }
    let message = format!("`{}` is no http:// or https:// address", at.value);
    problems.error(&at.key, at.place, message);
    None
}

/// Each as `siderolabs/bnx2-bnx2x`.
fn extensions(fields: &Fields<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    let is_plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let named = fields.texts("extensions", problems)?.into_iter();
    let sound = named.filter(|at| {
        let parts: Vec<&str> = at.value.split('/').collect();
        let is_sound = parts.len() == 2 && parts.into_iter().all(is_plain);
        if !is_sound {
            let message =
                format!("`{}` is no extension; write it like siderolabs/bnx2-bnx2x", at.value);
            problems.error(&at.key, at.place, message);
        }
        is_sound
    });
    Some(sound.map(|at| at.value).collect())
}

/// A URL, or `{ url: …, ca: … }`.
fn factory(fields: &Fields<'_>, problems: &mut Problems) -> (Option<Url>, Option<Located<String>>) {
    let Some(node) = fields.node("factory") else {
        return (None, None);
    };
    let key = fields.path("factory");
    let (url, ca) = match node.value {
        Value::Map(_) => {
            let fields = Fields::of(node, &key, FACTORY, problems);
            (fields.text("url", problems), fields.text("ca", problems))
        }
        Value::Scalar(_) | Value::List(_) | Value::Null => (scalar(node, &key, problems), None),
    };
    let url = url.and_then(|url| {
        let url = web(url, problems)?;
        if url.value.query().is_some() || url.value.fragment().is_some() {
            let message = "the address of a factory ends before a `?` or `#`";
            problems.error(&url.key, url.place, message);
            return None;
        }
        Some(url.value)
    });
    (url, ca)
}
