//! Files that are put in place together, each whole, or none of them.
//!
//! Each is written beside its place under another name, with its mode from the start, and flushed to
//! the disk; only when all are written, and found good, each gets its name. What one of them has
//! replaced comes back if the next one fails.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::{NamedTempFile, TempPath};

/// A file to put in place.
pub(super) struct Piece<'a> {
    /// Where.
    pub(super) path: &'a Path,
    /// What is in it.
    pub(super) content: &'a str,
    /// Its mode.
    pub(super) mode: u32,
    /// The mode of its folder, where that is made too.
    pub(super) folder_mode: u32,
}

/// Whether a file that is there may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and that is an error.
    Stays,
    /// It is replaced.
    IsReplaced,
}

impl Existing {
    /// Refuses what may not be replaced.
    pub(super) fn look(self, path: &Path) -> Result<()> {
        if self == Self::Stays && path.symlink_metadata().is_ok() {
            bail!("{} is there already; --force replaces it", path.display());
        }
        Ok(())
    }
}

/// Puts all in place, once `check` has found the first one good; it is given where that is until then.
pub(super) fn put(
    pieces: &[Piece<'_>],
    existing: Existing,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut made = Made::default();
    let mut written = Vec::new();
    for piece in pieces {
        existing.look(piece.path)?;
        let path = target(piece.path)?;
        let at = || format!("cannot write {}", path.display());
        let file = made.write(piece, &path).with_context(at)?;
        written.push((file, path));
    }
    if let Some((first, _)) = written.first() {
        check(first.path())?;
    }
    // The first last: it names the others, and whoever waits for it finds them.
    for (file, path) in written.into_iter().rev() {
        made.place(file, &path, existing)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    made.keep();
    Ok(())
}

/// Where a file really is: what is linked to stays linked to.
fn target(path: &Path) -> Result<PathBuf> {
    if path.is_symlink() {
        return path.canonicalize().with_context(|| format!("cannot follow {}", path.display()));
    }
    Ok(path.to_owned())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// What has been done so far, and is undone when it is dropped.
#[derive(Default)]
struct Made {
    folders: Vec<PathBuf>,
    /// What is new, and what it has replaced.
    files: Vec<(PathBuf, Option<TempPath>)>,
}

impl Made {
    fn write(&mut self, piece: &Piece<'_>, path: &Path) -> io::Result<NamedTempFile> {
        let folder = folder(path);
        if !folder.is_dir() {
            DirBuilder::new().mode(piece.folder_mode).create(folder)?;
            self.folders.push(folder.to_owned());
        }
        let mut file = tempfile::Builder::new()
            .prefix(".reveille-new-")
            .permissions(Permissions::from_mode(piece.mode))
            .tempfile_in(folder)?;
        file.write_all(piece.content.as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn place(&mut self, file: NamedTempFile, path: &Path, existing: Existing) -> io::Result<()> {
        let replaced = match existing {
            Existing::Stays => {
                file.persist_noclobber(path)?;
                None
            }
            Existing::IsReplaced => {
                let old = beside(path)?;
                // It stays the file of whose it was, where whoever replaces it may say so.
                if let Ok(owner) = path.metadata() {
                    chown(file.path(), Some(owner.uid()), Some(owner.gid())).ok();
                }
                file.persist(path)?;
                old
            }
        };
        self.files.push((path.to_owned(), replaced));
        File::open(folder(path))?.sync_all()
    }

    fn keep(mut self) {
        self.folders.clear();
        self.files.clear();
    }
}

/// A second name for what is there, by which it comes back.
fn beside(path: &Path) -> io::Result<Option<TempPath>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let link = tempfile::Builder::new()
        .prefix(".reveille-new-")
        .make_in(folder(path), |name| fs::hard_link(path, name))?;
    Ok(Some(link.into_temp_path()))
}

impl Drop for Made {
    /// What cannot be undone stays: what went wrong is told already.
    fn drop(&mut self) {
        for (path, replaced) in self.files.drain(..).rev() {
            match replaced {
                Some(old) => drop(old.persist(path)),
                None => drop(fs::remove_file(path)),
            }
        }
        for folder in self.folders.drain(..).rev() {
            fs::remove_dir(folder).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces<'a>(config: &'a Path, token: &'a Path) -> [Piece<'a>; 2] {
        [
            Piece { path: config, content: "config\n", mode: 0o644, folder_mode: 0o755 },
            Piece { path: token, content: "hush\n", mode: 0o600, folder_mode: 0o700 },
        ]
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_are_put_in_place_with_their_modes_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) =
            (folder.path().join("etc/config.yaml"), folder.path().join("etc/secrets/lab.token"));
        put(&pieces(&config, &token), Existing::Stays, |path| {
            assert_eq!((fs::read_to_string(path)?.as_str(), config.exists()), ("config\n", false));
            Ok(())
        })
        .unwrap();
        assert_eq!(fs::read_to_string(&token).unwrap(), "hush\n");
        assert_eq!((mode(&token), mode(token.parent().unwrap())), (0o600, 0o700));
        assert_eq!(names(&folder.path().join("etc")), ["config.yaml", "secrets"]);
        assert_eq!(names(&folder.path().join("etc/secrets")), ["lab.token"]);
    }

    #[test]
    fn what_is_not_found_good_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) =
            (folder.path().join("config.yaml"), folder.path().join("secrets/lab.token"));
        let refused = put(&pieces(&config, &token), Existing::Stays, |_| bail!("no good"));
        assert_eq!(refused.unwrap_err().to_string(), "no good");
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn what_is_there_stays_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) =
            (folder.path().join("config.yaml"), folder.path().join("secrets/lab.token"));
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::write(&token, "old\n").unwrap();
        let refused = put(&pieces(&config, &token), Existing::Stays, |_| Ok(())).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("{} is there already; --force replaces it", token.display())
        );
        assert_eq!(names(folder.path()), ["secrets"]);
        assert_eq!(fs::read_to_string(&token).unwrap(), "old\n");

        put(&pieces(&config, &token), Existing::IsReplaced, |_| Ok(())).unwrap();
        assert_eq!((fs::read_to_string(&token).unwrap().as_str(), mode(&token)), ("hush\n", 0o600));
        assert_eq!(names(&folder.path().join("secrets")), ["lab.token"]);
    }

    #[test]
    fn what_was_replaced_comes_back_when_the_next_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (config, token) =
            (folder.path().join("config.yaml"), folder.path().join("secrets/lab.token"));
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::write(&token, "old\n").unwrap();
        // A folder that has something in it is replaced by no file.
        fs::create_dir_all(config.join("x")).unwrap();
        let refused = put(&pieces(&config, &token), Existing::IsReplaced, |_| Ok(())).unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot write {}", config.display()));
        assert_eq!(fs::read_to_string(&token).unwrap(), "old\n");
        assert_eq!(names(folder.path()), ["config.yaml", "secrets"]);
        assert_eq!(names(&folder.path().join("secrets")), ["lab.token"]);
    }

    #[test]
    fn a_link_is_followed_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (config, real) = (folder.path().join("config.yaml"), folder.path().join("real.yaml"));
        fs::write(&real, "old\n").unwrap();
        std::os::unix::fs::symlink("real.yaml", &config).unwrap();
        put(&pieces(&config, &folder.path().join("t"))[..1], Existing::IsReplaced, |_| Ok(()))
            .unwrap();
        assert!(config.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "config\n");
    }
}
