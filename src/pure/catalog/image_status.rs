//! The images that reveille fetches by itself, as they are at one moment: which are here, and how far the
//! others are.
//!
//! What is fetched in one go is a *set*: a Talos image's kernel, initramfs and kernel line, or the one file
//! of an address. A set is known by what it is made of, so that a config which wants another one never
//! meets the files of the one before.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::entries::{Image, Part};
use super::image_set::SetId;
use super::talos::TalosVersion;

/// What there is of the sets. One that is not in it is not here, and nobody has begun to fetch it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelf {
    /// By set.
    pub sets: BTreeMap<SetId, Standing>,
}

/// How a set stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it is here.
    Here(Set),
    /// It is on its way.
    Coming(Coming),
}

/// A set that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Where its files are.
    pub folder: PathBuf,
    /// What tells this content from another one that comes under the same name: letters and digits.
    pub mark: String,
    /// Talos' own kernel arguments for it, as its factory has them.
    pub base: Option<Vec<String>>,
    /// The Talos release that it is.
    pub talos: Option<TalosVersion>,
}

/// How far what is not here yet is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coming {
    /// Bytes that have come.
    pub received: u64,
    /// Bytes in all, once that is known.
    pub total: Option<u64>,
    /// Why the last attempt failed, and when the next one is made.
    pub failure: Option<String>,
    /// Whether somebody fetches it.
    pub is_fetched: bool,
}

impl Coming {
    /// How much of it is here, from 0 to 99: with 100 it would be.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some((u128::from(self.received) * 100 / u128::from(total)).min(99) as u64)
    }
}

impl fmt::Display for Coming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.failure, self.total, self.percent()) {
            (Some(failure), _, _) => write!(f, "it cannot be fetched at the moment: {failure}"),
            (None, Some(total), Some(percent)) => {
                write!(f, "{percent} % of {} MiB are here", total.div_ceil(1 << 20))
            }
            (None, _, _) if self.received > 0 => {
                write!(f, "{} MiB are here so far", self.received >> 20)
            }
            (None, _, _) if self.is_fetched => f.write_str("its download begins"),
            (None, _, _) => f.write_str(
                "it has not been fetched; `reveille pull` or a running daemon does that",
            ),
        }
    }
}

/// Why an image's file is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It is on its way, all of the image taken together.
    Coming(Coming),
    /// The operator's own file is not there: which, and why.
    Missing(String),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coming(coming) => coming.fmt(f),
            Self::Missing(reason) => f.write_str(reason),
        }
    }
}

impl Shelf {
    /// Whether an image can be booted.
    ///
    /// # Errors
    /// What is not here.
    pub fn has(&self, image: &Image) -> Result<(), Lack> {
        if let Some(missing) = &image.missing {
            return Err(Lack::Missing(missing.clone()));
        }
        let mut lacking: Option<Coming> = None;
        let (mut received, mut total) = (0, Some(0));
        for set in image.sets() {
            let coming = match self.sets.get(set) {
                Some(Standing::Here(_)) => continue,
                Some(Standing::Coming(coming)) => coming.clone(),
                None => Coming::default(),
            };
            received += coming.received;
            total = total.zip(coming.total).map(|(sum, total)| sum + total);
            let before = lacking.take();
            let is_fetched = coming.is_fetched && before.as_ref().is_none_or(|it| it.is_fetched);
            let failure = before.and_then(|it| it.failure).or(coming.failure);
            lacking = Some(Coming { failure, is_fetched, ..Coming::default() });
        }
        match lacking {
            None => Ok(()),
            Some(coming) => Err(Lack::Coming(Coming { received, total, ..coming })),
        }
    }

    /// Where a part of an image is.
    ///
    /// # Errors
    /// It is not here.
    pub fn path(&self, part: &Part) -> Result<PathBuf, Coming> {
        match part {
            Part::Own(path) => Ok(path.clone()),
            Part::Fetched(set, file) => match self.sets.get(set) {
                Some(Standing::Here(set)) => Ok(set.folder.join(file)),
                Some(Standing::Coming(coming)) => Err(coming.clone()),
                None => Err(Coming::default()),
            },
        }
    }

    /// The mark of the set that a part is of, where it is here.
    pub fn mark(&self, part: &Part) -> Option<&str> {
        match part {
            Part::Own(_) => None,
            Part::Fetched(set, _) => match self.sets.get(set)? {
                Standing::Here(set) => Some(&set.mark),
                Standing::Coming(_) => None,
            },
        }
    }

    /// The set with this mark, also where the config has another one by now: who has its kernel needs its
    /// initramfs.
    pub fn marked(&self, mark: &str) -> Option<&Set> {
        self.sets.values().find_map(|standing| match standing {
            Standing::Here(set) if set.mark == mark => Some(set),
            Standing::Here(_) | Standing::Coming(_) => None,
        })
    }

    /// The set that an image's kernel is of, where it is here.
    pub fn kernel_set(&self, image: &Image) -> Option<&Set> {
        match &image.files.kernel {
            Part::Own(_) => None,
            Part::Fetched(set, _) => match self.sets.get(set)? {
                Standing::Here(set) => Some(set),
                Standing::Coming(_) => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::catalog::entries::Files;
    use crate::pure::catalog::image_set::SetId;

    fn image() -> Image {
        let part = |set: &str| Part::Fetched(SetId::new(set), "file");
        Image {
            name: "rack".into(),
            files: Files { kernel: part("a"), initrds: vec![part("b"), part("a")] },
            missing: None,
            cmdline: vec![],
            talos: None,
        }
    }

    fn coming(received: u64, total: Option<u64>) -> Standing {
        let is_fetched = true;
        Standing::Coming(Coming { received, total, failure: None, is_fetched })
    }

    fn told(shelf: &Shelf) -> String {
        shelf.has(&image()).map_or_else(|lack| lack.to_string(), |()| "here".into())
    }

    #[test]
    fn an_image_is_here_once_all_its_sets_are_and_until_then_it_is_said_how_far_it_is() {
        let mut shelf = Shelf::default();
        assert!(told(&shelf).starts_with("it has not been fetched"));
        shelf.sets.insert(SetId::new("a"), coming(0, None));
        shelf.sets.insert(SetId::new("b"), coming(0, None));
        assert_eq!(told(&shelf), "its download begins");
        shelf.sets.insert(SetId::new("a"), coming(30 << 20, Some(100 << 20)));
        assert_eq!(told(&shelf), "30 MiB are here so far");
        shelf.sets.insert(SetId::new("b"), coming(0, Some(100 << 20)));
        assert_eq!(told(&shelf), "15 % of 200 MiB are here");
        let failed =
            Coming { failure: Some("no way; next try in 30 s".into()), ..Coming::default() };
        shelf.sets.insert(SetId::new("b"), Standing::Coming(failed));
        assert_eq!(told(&shelf), "it cannot be fetched at the moment: no way; next try in 30 s");
        let here =
            Standing::Here(Set { folder: "/x".into(), mark: "m".into(), base: None, talos: None });
        shelf.sets.insert(SetId::new("a"), here.clone());
        shelf.sets.insert(SetId::new("b"), here);
        assert_eq!(told(&shelf), "here");
        assert_eq!(shelf.path(&image().files.kernel).unwrap(), PathBuf::from("/x/file"));
    }

    #[test]
    fn what_is_not_whole_is_never_a_hundred_percent() {
        let all = Coming { received: 5, total: Some(5), ..Coming::default() };
        assert_eq!(all.percent(), Some(99));
        let huge = Coming { received: u64::MAX / 2, total: Some(u64::MAX), ..Coming::default() };
        assert_eq!(huge.percent(), Some(49));
        assert_eq!(Coming { total: Some(0), ..Coming::default() }.percent(), None);
    }
}
