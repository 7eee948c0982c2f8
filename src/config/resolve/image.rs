//! From an entry of `images` to an image on this host's disk.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::link::Linker;
use super::within;
use crate::boot::catalog::{Files, Image};
use crate::config::fields::Located;
use crate::config::file::{self, Part};

impl Linker<'_> {
    pub(super) fn image(&mut self, name: &Located<String>, image: file::Image) -> Option<Image> {
        let mut elsewhere = None;
        let mut missing = None;
        let mut paths = Vec::new();
        for part in image.kernel.iter().chain(&image.initrds) {
            match part {
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
                    paths.push(path);
                }
                Part::Url(at) => elsewhere = elsewhere.or(Some(at)),
            }
        }
        let why = if let Some(at) = elsewhere {
            let why = format!(
                "this version of reveille does not fetch `{}` itself yet; download it and name the file",
                at.value
            );
            Some((at, why))
        } else if image.is_made {
            let why = "this version of reveille does not make Talos images itself yet; name their files with `kernel` and `initrd`";
            Some((name, why.to_owned()))
        } else {
            None
        };
        let files = match why {
            Some((at, why)) => {
                let refused = format!("{why}; boots of image {} are refused", name.value);
                self.problems.fault(&at.key, at.place, refused).spoils = vec![name.key.clone()];
                Err(format!("image {}: {why}", name.value))
            }
            None => {
                let mut paths = paths.into_iter();
                Ok(Files { kernel: paths.next()?, initrds: paths.collect() })
            }
        };
        let name = name.value.clone();
        Some(Image { name, files, missing, cmdline: image.cmdline, talos: image.talos })
    }
}
