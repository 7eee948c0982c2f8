//! What images there are, who needs each, and what nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image_fetcher::wanted;
use super::job::{Job, State};
use super::store::{Rest, Store, Stored};
use crate::pure::catalog::image_set::SetId;
use crate::pure::catalog::{Image, Part};
use crate::pure::config::snapshot::Config;

/// One image, or a set that no image is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The image's name; none where the config has no image of it.
    pub image: Option<String>,
    /// What it is: a Talos release, or where it is from.
    pub what: String,
    /// Its extensions.
    pub extensions: Vec<String>,
    /// Whether it is here, and if not, why.
    pub state: Standing,
    /// Its bytes on this host.
    pub bytes: u64,
    /// When it was fetched, in seconds since 1970.
    pub fetched_at: Option<u64>,
    /// When it was served the last time, in seconds since 1970.
    pub served_at: Option<u64>,
    /// The profiles that name it.
    pub profiles: Vec<String>,
    /// Its schematic, as its factory names it.
    pub schematic: Option<String>,
    /// Where it is.
    pub folders: Vec<PathBuf>,
}

/// How an image stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is here.
    Here,
    /// It is on its way: bytes in all, once that is known.
    Coming(Option<u64>),
    /// It is not here, and why.
    Missing(String),
    /// No profile names it: `images prune` removes it.
    Unused,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Each, with its bytes.
    pub removed: Vec<(String, u64)>,
    /// What could not be removed, and why.
    pub failed: Vec<String>,
}

/// All images of the config, and what else is on the disk.
pub fn list(config: &Config, store: &Store, jobs: &BTreeMap<SetId, Job>) -> Vec<Row> {
    let stored: BTreeMap<SetId, Stored> =
        store.all().into_iter().map(|stored| (stored.set.clone(), stored)).collect();
    let mut users: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for profile in config.catalog.profiles.values() {
        if let Some(image) = &profile.image {
            users.entry(&image.name).or_default().push(profile.name.clone());
        }
    }
    let mut rows: Vec<Row> = config
        .catalog
        .images
        .values()
        .map(|image| {
            let profiles = users.get(&*image.name).cloned().unwrap_or_default();
            let sets: Vec<&SetId> = image.sets().collect();
            if sets.is_empty() {
                own(image, profiles)
            } else {
                fetched(image, profiles, &stored, jobs)
            }
        })
        .collect();
    let named: BTreeSet<PathBuf> = config
        .wanted
        .values()
        .flatten()
        .filter_map(|wanted| store.place(&wanted.set).canonicalize().ok())
        .collect();
    for stored in stored.values().filter(|stored| !stored.is_latest()) {
        let is_named = stored.folder.canonicalize().is_ok_and(|folder| named.contains(&folder));
        if !is_named {
            rows.push(of_nobody(stored));
        }
    }
    rows
}

fn own(image: &Image, profiles: Vec<String>) -> Row {
    let parts = [&image.files.kernel].into_iter().chain(&image.files.initrds);
    let paths = parts.filter_map(|part| match part {
        Part::Own(path) => Some(path.clone()),
        Part::Fetched(..) => None,
    });
    let folders: Vec<PathBuf> = paths.collect();
    let bytes = folders.iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum();
    let state = image.missing.clone().map_or(Standing::Here, Standing::Missing);
    let talos = image.talos.as_ref();
    Row {
        image: Some(image.name.clone()),
        what: talos.map_or("files of your own".to_owned(), |talos| {
            format!("Talos {}, files of your own", talos.release)
        }),
        extensions: talos.and_then(|talos| talos.extensions.clone()).unwrap_or_default(),
        state,
        bytes,
        fetched_at: None,
        served_at: None,
        profiles,
        schematic: None,
        folders,
    }
}

fn fetched(
    image: &Image,
    profiles: Vec<String>,
    stored: &BTreeMap<SetId, Stored>,
    jobs: &BTreeMap<SetId, Job>,
) -> Row {
    let here: Vec<&Stored> = image.sets().filter_map(|set| stored.get(set)).collect();
    let lacking: Vec<&SetId> = image.sets().filter(|set| !stored.contains_key(*set)).collect();
    let under_way = lacking.iter().filter_map(|set| jobs.get(*set));
    let running: Vec<&Job> = under_way.clone().filter(|job| job.state == State::Running).collect();
    let mut failed = under_way.filter_map(|job| match &job.state {
        State::Failed(reason) => Some(reason.clone()),
        State::Running | State::Here(_) => None,
    });
    let state = match (lacking.is_empty(), running.first(), failed.next_back()) {
        (true, _, _) if profiles.is_empty() => Standing::Unused,
        (true, _, _) => Standing::Here,
        (false, Some(_), _) => Standing::Coming(running.iter().map(|job| job.total).sum()),
        (false, None, Some(reason)) => Standing::Missing(reason),
        (false, None, None) => Standing::Missing("it has not been fetched yet".to_owned()),
    };
    let release = image.talos.as_ref().map(|talos| talos.release.as_str());
    let whats: Vec<String> = here
        .iter()
        .map(|stored| match (&stored.manifest.version, release) {
            (Some(version), Some("latest")) => format!("Talos {version} (latest)"),
            (Some(version), _) => format!("Talos {version}"),
            (None, _) => stored.manifest.from.clone(),
        })
        .collect();
    let arch = here.first().and_then(|stored| stored.manifest.arch.clone()).unwrap_or_default();
    let what = match (whats.is_empty(), release) {
        (false, _) => format!("{} {arch}", whats.join(", ")).trim_end().to_owned(),
        (true, Some(release)) => format!("Talos {release}"),
        (true, None) => "from its address".to_owned(),
    };
    let coming: u64 = running.iter().map(|job| job.received).sum();
    Row {
        image: Some(image.name.clone()),
        what,
        extensions: image.talos.as_ref().and_then(|it| it.extensions.clone()).unwrap_or_default(),
        state,
        bytes: here.iter().map(|stored| stored.manifest.len()).sum::<u64>() + coming,
        fetched_at: here.iter().map(|stored| stored.manifest.fetched_at).max(),
        served_at: here.iter().filter_map(|stored| stored.served_at()).max(),
        profiles,
        schematic: here.iter().find_map(|stored| stored.manifest.schematic.clone()),
        folders: here.iter().map(|stored| stored.folder.clone()).collect(),
    }
}

fn of_nobody(stored: &Stored) -> Row {
    Row {
        image: None,
        what: stored.manifest.what(),
        extensions: stored.manifest.extensions.clone(),
        state: Standing::Unused,
        bytes: stored.manifest.len(),
        fetched_at: Some(stored.manifest.fetched_at),
        served_at: stored.served_at(),
        profiles: Vec::new(),
        schematic: stored.manifest.schematic.clone(),
        folders: vec![stored.folder.clone()],
    }
}

/// Removes what no profile names, what was begun and nobody goes on with, and what is damaged; or only says
/// what that is.
pub fn prune(config: &Config, store: &Store, is_meant: IsMeant) -> Pruned {
    let needed: BTreeSet<PathBuf> = wanted(config)
        .iter()
        .flat_map(|errand| {
            let place = store.place(&errand.wanted.set);
            [place.canonicalize().ok(), Some(place)]
        })
        .flatten()
        .collect();
    let mut pruned = Pruned::default();
    let mut remove = |folder: &Path, what: String, bytes: u64| {
        let removed = match is_meant {
            IsMeant::Yes => store.remove(folder),
            IsMeant::No => Ok(()),
        };
        match removed {
            Ok(()) => pruned.removed.push((what, bytes)),
            Err(error) => pruned.failed.push(error.to_string()),
        }
    };
    // The link to the newest goes before what it leads to.
    let (links, sets): (Vec<Stored>, Vec<Stored>) =
        store.all().into_iter().partition(Stored::is_latest);
    for link in links.iter().filter(|link| !needed.contains(&link.folder)) {
        remove(&link.folder, format!("{} (a name for the newest)", link.set), 0);
    }
    for stored in sets {
        if !needed.contains(&stored.folder.canonicalize().unwrap_or(stored.folder.clone())) {
            remove(&stored.folder, stored.manifest.what(), stored.manifest.len());
        }
    }
    for rest in store.rest() {
        let (folder, what) = match rest {
            Rest::Begun(folder) if store.is_being_gathered(&folder) => continue,
            Rest::Begun(folder) => (folder, "begun and not ended"),
            Rest::Damaged(folder) => (folder, "damaged"),
        };
        let bytes = size(&folder);
        remove(&folder, format!("{} ({what})", folder.display()), bytes);
    }
    pruned
}

/// Whether something is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IsMeant {
    /// It is.
    Yes,
    /// It is only told.
    No,
}

fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
