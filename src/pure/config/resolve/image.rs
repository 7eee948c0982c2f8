//! From an entry of `images` to an image: the operator's files, or the sets that are to be fetched.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::link::Linker;
use super::within;
use crate::pure::catalog::image_set::{FILE, INITRAMFS, KERNEL};
use crate::pure::catalog::{self, Files, Image, Talos};
use crate::pure::config::fields::Located;
use crate::pure::config::schema::{self, Part, Release};
use crate::pure::image_source::{FACTORY, Origin, Recipe, Wanted};
use crate::pure::talos_schematic::Schematic;

impl Linker<'_> {
    pub(crate) fn image(&mut self, name: &Located<String>, image: schema::Image) -> Option<Image> {
        let mut missing = None;
        let talos = match image.talos {
            // Which release it is has been told to be wrong.
            Some(schema::Talos { version: None, .. }) => return None,
            Some(talos) => Some(talos),
            None => None,
        };
        let files = match &talos {
            Some(talos) if image.is_made => self.made(name, talos)?,
            Some(_) | None => {
                let mut part = |part: &Part| self.part(name, part, &mut missing);
                let kernel = part(image.kernel.as_ref()?);
                Files { kernel, initrds: image.initrds.iter().map(part).collect() }
            }
        };
        let talos = talos.map(|talos| Talos {
            release: talos.version.as_ref().map(|at| at.value.to_string()).unwrap_or_default(),
            version: talos.version.and_then(|at| at.value.line()),
            arch: talos.arch,
            extensions: match (talos.extensions, image.is_made) {
                (None, true) => Some(Vec::new()),
                (said, _) => said,
            },
        });
        let name = name.value.clone();
        Some(Image { name, files, missing, cmdline: image.cmdline, talos })
    }

    /// The parts of an image that a factory makes.
    fn made(&mut self, name: &Located<String>, talos: &schema::Talos) -> Option<Files> {
        let (url, ca) = &talos.factory;
        self.ca(ca.as_ref());
        let recipe = Recipe {
            factory: match url {
                Some(url) => url.clone(),
                None => FACTORY.parse().expect("it is a URL"),
            },
            ca: ca.as_ref().map(|ca| within(&self.found.base, &ca.value)),
            schematic: Schematic::of_extensions(talos.extensions.as_deref().unwrap_or_default()),
            version: match &talos.version.as_ref()?.value {
                Release::Latest => None,
                Release::Exact(version) => Some(version.clone()),
                Release::Line(_) => return None,
            },
            arch: talos.arch,
        };
        let set = recipe.set();
        self.want(name, Origin::Factory(recipe));
        let part = |file| catalog::Part::Fetched(set.clone(), file);
        Some(Files { kernel: part(KERNEL), initrds: vec![part(INITRAMFS)] })
    }

    fn part(
        &mut self,
        name: &Located<String>,
        part: &Part,
        missing: &mut Option<String>,
    ) -> catalog::Part {
        match part {
            Part::Url(at, sha256) => {
                let origin = Origin::Web(at.value.clone(), *sha256);
                let set = origin.set();
                self.want(name, origin);
                catalog::Part::Fetched(set, FILE)
            }
            Part::File(at) => {
                let path = within(&self.found.base, &at.value);
                if let Some(reason) = self.found.unreadable.get(&path) {
                    let message = format!(
                        "{}: {reason}; boots of image {} are refused until it is there",
                        path.display(),
                        name.value
                    );
                    self.problems.warning(&at.key, at.place, message);
                    let (image, path) = (&name.value, path.display());
                    missing.get_or_insert(format!("image {image} has no {path}: {reason}"));
                }
                catalog::Part::Own(path)
            }
        }
    }

    fn want(&mut self, image: &Located<String>, origin: Origin) {
        let wanted = self.wanted.entry(image.value.clone()).or_default();
        let set = origin.set();
        if wanted.iter().all(|wanted: &Wanted| wanted.set != set) {
            wanted.push(Wanted { set, origin });
        }
    }
}
