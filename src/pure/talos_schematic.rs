//! The schematic of an Image Factory: what goes into an image, and the id that follows from it.
//!
//! The id is the SHA-256 of the schematic's YAML as the factory's own marshaller writes it
//! (`image-factory/pkg/schematic/schematic.go`, with go.yaml.in/yaml/v4): a fixed order of keys, four
//! blanks a step, nothing that is not said but `customization`. So it is known without asking; still it is
//! a prediction, and what the factory answers is right.
//!
//! No token, no machine's argument and no console belongs here: one image serves the rack, and the rest
//! goes on the kernel line of each machine.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;
use std::fmt;

use sha2::{Digest, Sha256};

/// What an image is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schematic {
    /// What a single-board computer needs before Talos.
    pub overlay: Option<Overlay>,
    /// Kernel arguments that are in `cmdline-*` and in installed images.
    pub extra_kernel_args: Vec<String>,
    /// META values: key and text.
    pub meta: Vec<(u8, String)>,
    /// System extensions, as `siderolabs/bnx2-bnx2x`. The factory does not sort them.
    pub extensions: Vec<String>,
    /// Whether Microsoft's certificates are enrolled for secure boot.
    pub well_known_certificates: bool,
    /// The sector size of disk images, where it is not the usual one.
    pub sector_size: Option<u32>,
}

/// An overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Its image, as `siderolabs/sbc-raspberrypi`.
    pub image: String,
    /// Its name, as `rpi_generic`.
    pub name: String,
}

/// A schematic's id: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SchematicId(String);

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a schematic's id has 64 hexadecimal digits, in lower case")]
pub struct NoId;

impl SchematicId {
    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SchematicId {
    type Err = NoId;

    fn from_str(text: &str) -> Result<Self, NoId> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 64 && text.bytes().all(is_digit)).then(|| Self(text.to_owned())).ok_or(NoId)
    }
}

impl fmt::Display for SchematicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Schematic {
    /// That of an image with these extensions: each once and in order, as Omni asks for them, so that
    /// whoever means the same has the same id.
    pub fn of_extensions(extensions: &[String]) -> Self {
        let extensions: BTreeSet<&String> = extensions.iter().collect();
        Self { extensions: extensions.into_iter().cloned().collect(), ..Self::default() }
    }

    /// The YAML that the id is made of.
    pub fn yaml(&self) -> String {
        let mut yaml = Yaml::default();
        if let Some(overlay) = &self.overlay {
            yaml.line(0, "overlay:");
            yaml.line(1, &format!("image: {}", scalar(&overlay.image)));
            yaml.line(1, &format!("name: {}", scalar(&overlay.name)));
        }
        let mut customization = Yaml::default();
        customization.list("extraKernelArgs", &self.extra_kernel_args);
        if !self.meta.is_empty() {
            customization.line(1, "meta:");
        }
        for (key, value) in &self.meta {
            customization.line(2, &format!("- key: {key}"));
            customization.line(2, &format!("  value: {}", scalar(value)));
        }
        if !self.extensions.is_empty() {
            customization.line(1, "systemExtensions:");
            customization.line(2, "officialExtensions:");
            customization.items(3, &self.extensions);
        }
        if self.well_known_certificates {
            customization.line(1, "secureboot:");
            customization.line(2, "includeWellKnownCertificates: true");
        }
        if let Some(size) = self.sector_size {
            customization.line(1, "diskImage:");
            customization.line(2, &format!("sectorSize: {size}"));
        }
        if customization.0.is_empty() {
            yaml.line(0, "customization: {}");
        } else {
            yaml.line(0, "customization:");
            yaml.0 += &customization.0;
        }
        yaml.0
    }

    /// Its id, as the factory is expected to say it.
    pub fn id(&self) -> SchematicId {
        let sum = Sha256::digest(self.yaml());
        SchematicId(sum.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Lines, each at its depth.
#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn line(&mut self, depth: usize, text: &str) {
        self.0 += &format!("{:1$}{text}\n", "", 4 * depth);
    }

    fn list(&mut self, key: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.line(1, &format!("{key}:"));
            self.items(2, texts);
        }
    }

    fn items(&mut self, depth: usize, texts: &[String]) {
        for text in texts {
            self.line(depth, &format!("- {}", scalar(text)));
        }
    }
}

/// A text as Go's emitter writes it in one line: plain, where nothing else could be meant by that; in
/// double quotes where it would be read as another type; else in single ones.
fn scalar(text: &str) -> String {
    if text.is_empty() || is_another_type(text) || text.chars().any(char::is_control) {
        return format!("{text:?}");
    }
    if is_plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// What libyaml's emitter allows without quotes in a block (`yaml_emitter_analyze_scalar`).
fn is_plain(text: &str) -> bool {
    let starts_another_way = text.starts_with(|c| "#,[]{}&*!|>'\"%@`".contains(c))
        || ["---", "..."].iter().any(|mark| text.starts_with(mark))
        || ["- ", "? ", ": "].iter().any(|mark| text.starts_with(mark))
        || ["-", "?", ":"].contains(&text);
    let ends_another_way = text.ends_with(':') || text.trim() != text;
    !starts_another_way && !ends_another_way && !text.contains(": ") && !text.contains(" #")
}

/// Whether Go would read it as a number, a boolean, a date or nothing, by YAML 1.1 or 1.2.
fn is_another_type(text: &str) -> bool {
    const WORDS: [&str; 15] = [
        "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<", ".nan", ".inf",
        "+.inf", "-.inf",
    ];
    let lower = text.to_ascii_lowercase();
    let is_word = WORDS.contains(&lower.as_str())
        && (text == lower || text == lower.to_ascii_uppercase() || is_capitalised(text));
    is_word || is_number(&lower) || is_date(text)
}

fn is_capitalised(text: &str) -> bool {
    text.chars().enumerate().all(|(index, c)| (index == 0) == c.is_ascii_uppercase())
}

/// `12`, `1_000`, `0x1f`, `0o17`, `0b1`, `1.5e3`, and `1:30`, which is 90 in YAML 1.1.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text).replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        }
    }
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_sexagesimal = digits.contains(':')
        && digits
            .split(':')
            .all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.'));
    starts && (is_sexagesimal || digits.parse::<f64>().is_ok())
}

/// `2001-12-14`, and what has a time of day behind that.
fn is_date(text: &str) -> bool {
    let day: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '-').collect();
    let parts: Vec<&str> = day.split('-').collect();
    let rest = text[day.len()..].chars().next();
    let is_day = matches!(parts[..], [year, month, day]
        if year.len() == 4 && (1..=2).contains(&month.len()) && (1..=2).contains(&day.len()));
    is_day && rest.is_none_or(|c| "Tt \t".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(names: &[&str]) -> Schematic {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        Schematic::of_extensions(&names)
    }

    /// The first six are those of image-factory's own `schematic_test.go`.
    #[test]
    fn bytes_and_id_are_those_of_the_factory() {
        let overlay =
            Overlay { image: "siderolabs/sbc-raspberrypi".into(), name: "rpi_generic".into() };
        let table = [
            (
                Schematic::default(),
                "customization: {}\n",
                "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba",
            ),
            (
                Schematic {
                    extra_kernel_args: vec!["noapic".into(), "nolapic".into()],
                    ..Schematic::default()
                },
                "customization:\n    extraKernelArgs:\n        - noapic\n        - nolapic\n",
                "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
            ),
            (
                Schematic { meta: vec![(10, "foo".into())], ..Schematic::default() },
                "customization:\n    meta:\n        - key: 10\n          value: foo\n",
                "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
            ),
            (
                Schematic { well_known_certificates: true, ..Schematic::default() },
                "customization:\n    secureboot:\n        includeWellKnownCertificates: true\n",
                "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
            ),
            (
                Schematic { sector_size: Some(4096), ..Schematic::default() },
                "customization:\n    diskImage:\n        sectorSize: 4096\n",
                "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
            ),
            (
                Schematic { overlay: Some(overlay), ..Schematic::default() },
                "overlay:\n    image: siderolabs/sbc-raspberrypi\n    name: rpi_generic\ncustomization: {}\n",
                "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
            ),
            (
                extensions(&["siderolabs/util-linux-tools", "siderolabs/iscsi-tools"]),
                "customization:\n    systemExtensions:\n        officialExtensions:\n            - siderolabs/iscsi-tools\n            - siderolabs/util-linux-tools\n",
                "613e1592b2da41ae5e265e8789429f22e121aab91cb4deb6bc3c0b6262961245",
            ),
            (
                extensions(&["siderolabs/qemu-guest-agent"]),
                "customization:\n    systemExtensions:\n        officialExtensions:\n            - siderolabs/qemu-guest-agent\n",
                "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515",
            ),
            (
                extensions(&["siderolabs/bnx2-bnx2x", "siderolabs/bnx2-bnx2x"]),
                "customization:\n    systemExtensions:\n        officialExtensions:\n            - siderolabs/bnx2-bnx2x\n",
                "fd096f676a0df013f9631767d26696f8cb5ba7b7d3921cd8781a061a7ce9016d",
            ),
        ];
        for (schematic, yaml, id) in table {
            assert_eq!(schematic.yaml(), yaml);
            assert_eq!(schematic.id().to_string(), id, "{yaml}");
            assert_eq!(id.parse(), Ok(schematic.id()));
        }
    }

    /// libyaml's rules, and go-yaml's `encode.go`.
    #[test]
    fn a_text_that_could_be_read_otherwise_is_quoted() {
        for plain in ["noapic", "console=ttyS0,115200n8", "a:b", "x#y", "-name", "a b", "v1.11.2"] {
            assert_eq!(scalar(plain), plain);
        }
        for (text, quoted) in [
            ("*x", "'*x'"),
            ("&x", "'&x'"),
            ("[x]", "'[x]'"),
            ("a: b", "'a: b'"),
            ("a #b", "'a #b'"),
            ("x:", "'x:'"),
            ("it's: so", "'it''s: so'"),
            ("", "\"\""),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("12", "\"12\""),
            ("0x1f", "\"0x1f\""),
            ("1.5", "\"1.5\""),
            ("1:30", "\"1:30\""),
            ("2001-12-14", "\"2001-12-14\""),
            ("~", "\"~\""),
        ] {
            assert_eq!(scalar(text), quoted);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let id = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
        for bad in ["", &id[1..], &id.to_uppercase(), "../../../../etc/passwd"] {
            assert_eq!(bad.parse::<SchematicId>(), Err(NoId), "{bad}");
        }
    }
}
