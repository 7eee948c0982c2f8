//! The files that a config is made of, and how each of them stood: what tells whether there is something
//! to read again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::nbps;
use crate::pure::config::diff::Touch;

/// What a path is to the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The config file.
    Config,
    /// A file whose text is read: a secret.
    Text,
    /// A kernel or an initrd: it may be large, and be copied for minutes.
    Image,
    /// A folder of boot scripts.
    Scripts,
    /// A folder of NBPs, with the folders directly in it.
    Nbps,
}

/// How a file stood when it was looked at: one that is replaced is another inode, one that is written has
/// other times, down to the kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    mode: u32,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// A folder's times and size change with what else is in it.
    fn of(metadata: &Metadata) -> Self {
        let inode = (metadata.dev(), metadata.ino());
        let mode = metadata.mode();
        if metadata.is_dir() {
            return Self { inode, mode, size: 0, modified: (0, 0), changed: (0, 0) };
        }
        Self {
            inode,
            mode,
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// How everything stood at one moment, by path. What is not there is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// What is read when the config is.
    pub read: BTreeMap<PathBuf, Stamp>,
    /// Kernels and initrds, which are only looked at then.
    pub images: BTreeMap<PathBuf, Stamp>,
}

impl Marks {
    fn add(&mut self, path: &Path, kind: Kind) {
        match kind {
            Kind::Config | Kind::Text => {
                stamp(path, &mut self.read);
            }
            Kind::Image => {
                stamp(path, &mut self.images);
            }
            Kind::Scripts => each_in(path, |entry| {
                if is_script(&entry) {
                    stamp(&entry, &mut self.read);
                }
            }),
            Kind::Nbps => {
                let mut folders = Vec::new();
                each_in(path, |entry| {
                    if nbps::is_looked_at(&entry) {
                        stamp(&entry, &mut self.read);
                    } else if !nbps::is_hidden(&entry) && entry.is_dir() {
                        folders.push(entry);
                    }
                });
                for folder in folders {
                    each_in(&folder, |entry| {
                        if nbps::is_looked_at(&entry) {
                            stamp(&entry, &mut self.read);
                        }
                    });
                }
            }
        }
        if matches!(kind, Kind::Scripts | Kind::Nbps) {
            stamp(path, &mut self.read);
        }
    }
}

fn stamp(path: &Path, marks: &mut BTreeMap<PathBuf, Stamp>) {
    if let Ok(metadata) = fs::metadata(path) {
        marks.insert(path.to_owned(), Stamp::of(&metadata));
    }
}

/// What is in a folder that can be read.
fn each_in(folder: &Path, look: impl FnMut(PathBuf)) {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).for_each(look);
}

/// Whether a file in the folder of boot scripts is one: what begins with a dot is an editor's, as Emacs' locks.
pub fn is_script(path: &Path) -> bool {
    !nbps::is_hidden(path) && path.extension().is_some_and(|extension| extension == "ipxe")
}

/// What happened to the files between two moments.
pub fn touched(old: &Marks, new: &Marks) -> BTreeMap<PathBuf, Touch> {
    let mut touched = BTreeMap::new();
    for (old, new) in [(&old.read, &new.read), (&old.images, &new.images)] {
        for (path, stamp) in new {
            match old.get(path) {
                None => touched.insert(path.clone(), Touch::Came),
                Some(before) if before != stamp => touched.insert(path.clone(), Touch::Changed),
                Some(_) => None,
            };
        }
        for path in old.keys().filter(|path| !new.contains_key(*path)) {
            touched.insert(path.clone(), Touch::Went);
        }
    }
    touched
}

/// Everything that a reading of the config named or looked for, there or not, each looked at before it was
/// read: what changes meanwhile is another change.
#[derive(Clone, Debug, Default)]
pub struct Followed {
    paths: BTreeSet<(PathBuf, Kind)>,
    /// How everything stood.
    pub marks: Marks,
}

impl Followed {
    /// Follows one more.
    pub fn add(&mut self, path: PathBuf, kind: Kind) {
        self.marks.add(&path, kind);
        self.paths.insert((path, kind));
    }

    /// How everything stands now.
    pub fn look(&self) -> Marks {
        let mut marks = Marks::default();
        for (path, kind) in &self.paths {
            marks.add(path, *kind);
        }
        marks
    }

    /// The folders in which a change of any of it shows: never the files themselves, since what is watched
    /// is an inode, and a file that is replaced is another one. Where a link leads to counts as well.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        for (path, kind) in &self.paths {
            folders.extend(parent(path));
            match kind {
                Kind::Config | Kind::Text | Kind::Image => {
                    let target = path.canonicalize().ok();
                    folders.extend(target.as_deref().and_then(parent));
                }
                Kind::Scripts => folders.extend([path.clone()]),
                Kind::Nbps => {
                    folders.extend([path.clone()]);
                    each_in(path, |entry| {
                        if !nbps::is_hidden(&entry) && entry.is_dir() {
                            folders.insert(entry);
                        }
                    });
                }
            }
        }
        folders
    }
}

fn parent(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent == Path::new("") { PathBuf::from(".") } else { parent.to_owned() })
}

/// Which folder a path is at the moment: another one may come in its place, and get the inode's number.
pub fn which(folder: &Path) -> io::Result<Which> {
    let metadata = fs::metadata(folder)?;
    Ok(Which { inode: (metadata.dev(), metadata.ino()), born: metadata.created().ok() })
}

/// See [`which`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Which {
    inode: (u64, u64),
    born: Option<std::time::SystemTime>,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::pure::config::diff::Touch;

    #[test]
    fn what_comes_goes_and_changes_is_told_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("config.yaml"), "one").unwrap();
        fs::write(at("token"), "one").unwrap();
        fs::create_dir(at("nbps")).unwrap();
        let mut followed = Followed::default();
        followed.add(at("config.yaml"), Kind::Config);
        followed.add(at("token"), Kind::Text);
        followed.add(at("linux"), Kind::Image);
        followed.add(at("nbps"), Kind::Nbps);
        followed.add(at("boot-scripts"), Kind::Scripts);
        assert_eq!(followed.look(), followed.marks);

        fs::write(at("config.yaml"), "more").unwrap();
        fs::remove_file(at("token")).unwrap();
        fs::write(at("linux"), "kernel").unwrap();
        fs::create_dir(at("nbps/x86_64")).unwrap();
        fs::write(at("nbps/x86_64/snponly.efi"), "x").unwrap();
        for not_ours in ["nbps/README", "nbps/.hidden.efi", "nbps/x86_64/other"] {
            fs::write(at(not_ours), "x").unwrap();
        }
        let touched = touched(&followed.marks, &followed.look());
        assert_eq!(
            touched.into_iter().collect::<Vec<_>>(),
            [
                (at("config.yaml"), Touch::Changed),
                (at("linux"), Touch::Came),
                (at("nbps/x86_64/snponly.efi"), Touch::Came),
                (at("token"), Touch::Went),
            ]
        );
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("config.yaml"), "same").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        let mut followed = Followed::default();
        followed.add(at("config.yaml"), Kind::Config);
        let first = fs::canonicalize(at("..1")).unwrap();
        assert_eq!(followed.folders(), BTreeSet::from([folder.path().to_owned(), first]));
        symlink("..2", at("new")).unwrap();
        fs::rename(at("new"), at("..data")).unwrap();
        assert_ne!(followed.look(), followed.marks);
    }
}
