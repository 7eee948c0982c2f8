//! The sets on disk, in the state folder.
//!
//! ```text
//!  images/<factory>/<schematic>/<version>/<arch>/   kernel, initramfs.xz, cmdline, image.json
//!         <factory>/<schematic>/latest/<arch>       a link to ../<version>/<arch>: which one the newest was
//!         urls/<sum of the address>/                file, image.json
//! ```
//!
//! A set is gathered in a folder beside its place, whose name begins with a dot, and put there in one step
//! once all of it is on the disk: what is in its place is whole, however a daemon ended. Its manifest says
//! what is in it, and the SHA-256 of each file; one that turns out to be damaged is set aside.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::pure::catalog::image_set::{CMDLINE, SetId};
use crate::pure::catalog::image_status::{Set, Shelf, Standing};
use crate::pure::checksum::Sha256;
use crate::pure::image_source::LATEST;
use crate::sys::files::{open, reason, unwritable};

/// A manifest's name.
const MANIFEST: &str = "image.json";
/// When a set was served the last time, as the time of this file.
const SERVED: &str = ".served";
/// What the name of a set begins with that is being gathered.
const PART: &str = ".part-";
/// What the name of a set begins with that was set aside.
const DAMAGED: &str = ".damaged-";
/// What the name of a lock begins with.
const LOCK: &str = ".lock-";
/// How deep the folders are.
const DEPTH: usize = 4;

/// What a set is, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where it is from, as people may see it.
    pub from: String,
    /// The schematic as its factory names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schematic: Option<String>,
    /// The Talos release, as `v1.11.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The extensions in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<String>,
    /// When it was fetched, in seconds since 1970.
    pub fetched_at: u64,
    /// The files, by name.
    pub files: BTreeMap<String, Content>,
}

/// What is in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its bytes.
    pub len: u64,
    /// Their sum.
    pub sha256: Sha256,
}

impl Manifest {
    /// The bytes of all files.
    pub fn len(&self) -> u64 {
        self.files.values().map(|content| content.len).sum()
    }

    /// What it is, in a few words.
    pub fn what(&self) -> String {
        match (&self.version, &self.arch) {
            (Some(version), Some(arch)) => {
                let with = if self.extensions.is_empty() { "" } else { " with " };
                format!("Talos {version} {arch}{with}{}", self.extensions.join(", "))
            }
            (Some(_) | None, _) => self.from.clone(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

/// A set in its place.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Which.
    pub set: SetId,
    /// Its folder.
    pub folder: PathBuf,
    /// What is in it.
    pub manifest: Manifest,
}

/// A folder that is no set in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It was begun and not ended.
    Begun(PathBuf),
    /// It was set aside.
    Damaged(PathBuf),
}

/// Why something in the store cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {what} {}: {reason}", path.display())]
pub struct StoreError {
    /// What was attempted.
    pub what: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why not, and what would mend it.
    pub reason: String,
}

impl StoreError {
    fn new(what: &'static str, path: &Path, error: &io::Error) -> Self {
        Self { what, path: path.to_owned(), reason: unwritable(error) }
    }
}

/// The folder of all sets.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// A set that one process gathers; another waits for the lock.
#[derive(Debug)]
pub struct Gathering {
    /// Where its files are put meanwhile.
    pub folder: PathBuf,
    place: PathBuf,
    _lock: File,
}

impl Store {
    /// That of a state folder.
    pub fn new(state: &Path) -> Self {
        Self { root: state.join("images") }
    }

    /// Where a set has its place.
    pub fn place(&self, set: &SetId) -> PathBuf {
        self.root.join(set.as_str())
    }

    /// A set, if it is in its place. Its files are looked at, and not read: see [`Stored::verify`].
    pub fn find(&self, set: &SetId) -> Option<Stored> {
        let folder = self.place(set);
        let manifest = manifest(&folder)?;
        let is_whole = |(name, content): (&String, &Content)| {
            fs::metadata(folder.join(name)).is_ok_and(|it| it.is_file() && it.len() == content.len)
        };
        let is_whole = !manifest.is_empty() && manifest.files.iter().all(is_whole);
        is_whole.then(|| Stored { set: set.clone(), folder, manifest })
    }

    /// All sets in their places; those that are the newest of their kind under that name too.
    pub fn all(&self) -> Vec<Stored> {
        let mut folders = Vec::new();
        walk(&self.root, DEPTH, &mut |folder| folders.push(folder.to_owned()));
        let id =
            |folder: &PathBuf| Some(SetId::new(folder.strip_prefix(&self.root).ok()?.to_str()?));
        folders.iter().filter_map(id).filter_map(|set| self.find(&set)).collect()
    }

    /// What is here, for who decides boots.
    pub fn shelf(&self) -> Shelf {
        let sets = self.all().into_iter().map(|stored| {
            let set = stored.on_the_shelf();
            (stored.set, Standing::Here(set))
        });
        Shelf { sets: sets.collect() }
    }

    /// What is no set: begun, or set aside.
    pub fn rest(&self) -> Vec<Rest> {
        let mut rest = Vec::new();
        each_folder(&self.root, DEPTH, &mut |folder| {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(PART) {
                rest.push(Rest::Begun(folder.to_owned()));
            } else if name.starts_with(DAMAGED) {
                rest.push(Rest::Damaged(folder.to_owned()));
            }
        });
        rest
    }

    /// Begins to gather a set, or goes on where that was broken off. None while another process is at it.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn gather(&self, set: &SetId) -> Result<Option<Gathering>, StoreError> {
        let place = self.place(set);
        let (folder, lock) = (beside(&place, PART), beside(&place, LOCK));
        let failed = |path: &Path, error: io::Error| StoreError::new("make", path, &error);
        let parent = place.parent().unwrap_or(&self.root);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(parent).map_err(|error| failed(parent, error))?;
        let file = File::create(&lock).map_err(|error| failed(&lock, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(&lock, error)),
        }
        builder.create(&folder).map_err(|error| failed(&folder, error))?;
        Ok(Some(Gathering { folder, place, _lock: file }))
    }

    /// Whether some process is at what was begun in this folder.
    pub fn is_being_gathered(&self, folder: &Path) -> bool {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_prefix(PART).unwrap_or(name);
        let lock = File::open(folder.with_file_name(format!("{LOCK}{name}")));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Which version the newest one was when it was asked for the last time.
    pub fn pinned(&self, latest: &SetId) -> Option<String> {
        let target = fs::read_link(self.place(latest)).ok()?;
        Some(target.parent()?.file_name()?.to_str()?.to_owned())
    }

    /// Notes which version the newest one is, in one step.
    ///
    /// # Errors
    /// The link cannot be made.
    pub fn pin(&self, latest: &SetId, version: &str) -> Result<(), StoreError> {
        let link = self.place(latest);
        let failed = |error: &io::Error| StoreError::new("make", &link, error);
        let arch = link.file_name().unwrap_or_default();
        let target = Path::new("..").join(version).join(arch);
        let parent = link.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|error| failed(&error))?;
        let aside = beside(&link, ".new-");
        fs::remove_file(&aside).ok();
        symlink(&target, &aside).map_err(|error| failed(&error))?;
        fs::rename(&aside, &link).map_err(|error| failed(&error))?;
        sync(parent).map_err(|error| failed(&error))
    }

    /// Removes a set, or what is none. Where it is, nothing is left of it but a name with a dot if that is
    /// broken off.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, folder: &Path) -> Result<(), StoreError> {
        let failed = |error: &io::Error| StoreError::new("remove", folder, error);
        if fs::symlink_metadata(folder).is_ok_and(|it| it.is_symlink()) {
            return fs::remove_file(folder).map_err(|error| failed(&error));
        }
        let aside = match is_hidden(folder) {
            true => folder.to_owned(),
            false => {
                let aside = beside(folder, DAMAGED);
                fs::remove_dir_all(&aside).ok();
                fs::rename(folder, &aside).map_err(|error| failed(&error))?;
                aside
            }
        };
        fs::remove_dir_all(&aside).map_err(|error| failed(&error))?;
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_prefix(PART).or(name.strip_prefix(DAMAGED)).unwrap_or(name);
        fs::remove_file(folder.with_file_name(format!("{LOCK}{name}"))).ok();
        // What is empty now says nothing.
        let mut parent = folder.parent();
        while let Some(empty) = parent.filter(|it| *it != self.root && it.starts_with(&self.root)) {
            if fs::remove_dir(empty).is_err() {
                break;
            }
            parent = empty.parent();
        }
        Ok(())
    }
}

impl Gathering {
    /// Puts the set in its place, in one step, with its manifest. What stands there is replaced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(self, manifest: &Manifest) -> Result<(), StoreError> {
        let Self { folder, place, _lock } = self;
        let path = folder.join(MANIFEST);
        let failed = |error: io::Error| StoreError::new("write", &path, &error);
        let text = serde_json::to_vec_pretty(manifest).expect("it is plain text");
        let mut file = File::create(&path).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        sync(&folder).map_err(failed)?;
        let failed = |error: io::Error| StoreError::new("put in its place", &place, &error);
        if fs::symlink_metadata(&place).is_ok() {
            set_aside(&place).map_err(failed)?;
        }
        fs::rename(&folder, &place).map_err(failed)?;
        sync(place.parent().unwrap_or(Path::new("."))).map_err(failed)
    }
}

impl Stored {
    fn on_the_shelf(&self) -> Set {
        let base = fs::read_to_string(self.folder.join(CMDLINE)).ok();
        // The newest is another content when it is another release.
        let place = self.folder.canonicalize().unwrap_or_else(|_| self.folder.clone());
        let sum = Sha256::of(place.as_os_str().as_encoded_bytes()).to_string();
        Set {
            folder: self.folder.clone(),
            mark: sum[..16].to_owned(),
            base: base.map(|line| line.split_whitespace().map(str::to_owned).collect()),
            talos: self.manifest.version.as_ref().and_then(|version| version.parse().ok()),
        }
    }

    /// The file that says what it is.
    pub fn manifest_path(&self) -> PathBuf {
        self.folder.join(MANIFEST)
    }

    /// Whether it is another name of one that is the newest.
    pub fn is_latest(&self) -> bool {
        let parts: Vec<&str> = self.set.as_str().split('/').collect();
        parts.get(2) == Some(&LATEST)
    }

    /// Reads all of it, to see whether it is as it was when it came.
    ///
    /// # Errors
    /// Which file is not, and in what.
    pub fn verify(&self) -> Result<(), String> {
        for (name, content) in &self.manifest.files {
            let path = self.folder.join(name);
            let found = sum(&path).map_err(|reason| format!("{}: {reason}", path.display()))?;
            if found != *content {
                return Err(format!(
                    "{} has the SHA-256 {} with {} bytes, and had {} with {} when it was fetched",
                    path.display(),
                    found.sha256,
                    found.len,
                    content.sha256,
                    content.len
                ));
            }
        }
        Ok(())
    }

    /// Sets it aside, so that it is fetched again.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn set_aside(&self) -> Result<(), StoreError> {
        // A link leads to the folder.
        let folder = self.folder.canonicalize();
        let folder = folder.unwrap_or_else(|_| self.folder.clone());
        set_aside(&folder).map_err(|error| StoreError::new("set aside", &folder, &error))
    }

    /// Notes that it is served now.
    pub fn mark_served(&self) {
        // That it cannot be written is told where something is.
        File::create(self.folder.join(SERVED))
            .and_then(|file| file.set_modified(SystemTime::now()))
            .ok();
    }

    /// When it was served the last time, in seconds since 1970.
    pub fn served_at(&self) -> Option<u64> {
        let modified = fs::metadata(self.folder.join(SERVED)).ok()?.modified().ok()?;
        Some(modified.duration_since(UNIX_EPOCH).ok()?.as_secs())
    }
}

/// What is in a file.
///
/// # Errors
/// Why it cannot be read.
pub fn sum(path: &Path) -> Result<Content, String> {
    let mut file = open(path)?;
    let (mut hasher, mut len) = (sha2::Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Content { len, sha256: Sha256::ended(hasher) }),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                len += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(reason(&error)),
        }
    }
}

fn manifest(folder: &Path) -> Option<Manifest> {
    let text = fs::read(folder.join(MANIFEST)).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    let is_plain =
        |name: &String| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    manifest.files.keys().all(is_plain).then_some(manifest)
}

fn set_aside(folder: &Path) -> io::Result<()> {
    let aside = beside(folder, DAMAGED);
    match fs::remove_dir_all(&aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fs::rename(folder, aside)
}

/// The same name beside it, with a beginning that tells it from a set.
fn beside(path: &Path, beginning: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(beginning);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// What was renamed in a folder is on the disk once the folder is.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Every folder that has a manifest, without those that are hidden.
fn walk(folder: &Path, depth: usize, found: &mut impl FnMut(&Path)) {
    each_folder(folder, depth, &mut |folder| {
        if !is_hidden(folder) && folder.join(MANIFEST).is_file() {
            found(folder);
        }
    });
}

/// Every folder, to a depth; what is in a hidden one is not looked at, and nothing is where it does not end.
fn each_folder(folder: &Path, depth: usize, found: &mut impl FnMut(&Path)) {
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    for folder in folders {
        found(&folder);
        if !is_hidden(&folder) {
            each_folder(&folder, depth, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::catalog::image_set::{INITRAMFS, KERNEL};

    const SET: &str = "factory/376567/v1.11.2/amd64";

    fn fill(folder: &Path, version: &str) -> Manifest {
        let files =
            [(KERNEL, "kernel"), (INITRAMFS, "initramfs"), (CMDLINE, "talos.platform=metal a\n")];
        let files = files.map(|(name, text)| {
            fs::write(folder.join(name), text).unwrap();
            (name.to_owned(), sum(&folder.join(name)).unwrap())
        });
        Manifest {
            from: "https://factory.example/".into(),
            schematic: Some("376567".into()),
            version: Some(version.into()),
            arch: Some("amd64".into()),
            extensions: vec!["siderolabs/bnx2-bnx2x".into()],
            fetched_at: 1_800_000_000,
            files: files.into(),
        }
    }

    fn gathered(store: &Store, set: &str, version: &str) {
        let gathering = store.gather(&SetId::new(set)).unwrap().unwrap();
        let manifest = fill(&gathering.folder, version);
        gathering.finish(&manifest).unwrap();
    }

    #[test]
    fn a_set_is_there_once_it_is_whole_and_not_before() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        let set = SetId::new(SET);
        let gathering = store.gather(&set).unwrap().unwrap();
        let manifest = fill(&gathering.folder, "v1.11.2");
        assert!(store.gather(&set).unwrap().is_none(), "another one waits");
        assert!(store.find(&set).is_none() && store.all().is_empty());
        assert_eq!(store.rest(), [Rest::Begun(gathering.folder.clone())]);
        gathering.finish(&manifest).unwrap();
        let stored = store.find(&set).unwrap();
        assert_eq!((stored.manifest.clone(), stored.verify()), (manifest, Ok(())));
        let Standing::Here(on_the_shelf) = store.shelf().sets.remove(&set).unwrap() else {
            panic!("it is here");
        };
        assert_eq!(on_the_shelf.base.unwrap(), ["talos.platform=metal", "a"]);
        assert_eq!(on_the_shelf.talos.unwrap().to_string(), "1.11");
        assert_eq!(store.rest(), []);
        assert_eq!(stored.served_at(), None);
        stored.mark_served();
        assert!(stored.served_at().is_some());
        store.remove(&stored.folder).unwrap();
        assert!(store.all().is_empty());
        assert_eq!(fs::read_dir(state.path().join("images")).unwrap().count(), 0);
    }

    #[test]
    fn what_is_damaged_is_seen_and_set_aside() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        gathered(&store, SET, "v1.11.2");
        let stored = store.find(&SetId::new(SET)).unwrap();
        let kernel = stored.folder.join(KERNEL);
        fs::write(&kernel, "kernfl").unwrap();
        let stored = store.find(&stored.set).unwrap();
        let told = stored.verify().unwrap_err();
        assert!(told.starts_with(&format!("{} has the SHA-256 ", kernel.display())), "{told}");
        fs::write(&kernel, "kern").unwrap();
        assert!(store.find(&stored.set).is_none(), "its size alone tells");
        stored.set_aside().unwrap();
        assert!(matches!(&store.rest()[..], [Rest::Damaged(_)]));
        gathered(&store, SET, "v1.11.2");
        assert!(store.find(&stored.set).is_some());
    }

    #[test]
    fn the_newest_is_pinned_until_it_is_asked_for_again() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        let latest = SetId::new("factory/376567/latest/amd64");
        assert_eq!(store.pinned(&latest), None);
        for version in ["v1.11.2", "v1.11.3"] {
            gathered(&store, &format!("factory/376567/{version}/amd64"), version);
            store.pin(&latest, version).unwrap();
            assert_eq!(store.pinned(&latest).as_deref(), Some(version));
            let stored = store.find(&latest).unwrap();
            assert_eq!(stored.manifest.version.as_deref(), Some(version));
            assert!(stored.is_latest());
        }
        let all: Vec<String> = store.all().iter().map(|it| it.set.to_string()).collect();
        assert_eq!(
            all,
            [
                "factory/376567/latest/amd64",
                "factory/376567/v1.11.2/amd64",
                "factory/376567/v1.11.3/amd64",
            ]
        );
        store.remove(&store.place(&latest)).unwrap();
        assert_eq!((store.pinned(&latest), store.all().len()), (None, 2));
    }

    #[test]
    fn a_manifest_that_leads_elsewhere_is_none() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::new(state.path());
        let gathering = store.gather(&SetId::new(SET)).unwrap().unwrap();
        let mut manifest = fill(&gathering.folder, "v1.11.2");
        let content = manifest.files[KERNEL];
        manifest.files.insert("../../kernel".into(), content);
        gathering.finish(&manifest).unwrap();
        assert!(store.find(&SetId::new(SET)).is_none());
    }
}
