//! Where fetched NBPs are kept: one set at a time, whole or not at all.
//!
//! `<state>/nbps/fetched` is a link to one of two hidden folders. A new set is written into the other
//! one and flushed to the disk; then the link is replaced, in one step of the file system. Whoever is
//! killed in between leaves the old set, and half a new one that nobody looks at and that the next
//! fetch removes.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The link, in the folder of NBPs: it is searched after what an operator has put there.
pub const FETCHED: &str = "fetched";

const SLOTS: [&str; 2] = [".fetched-a", ".fetched-b"];
const NEW_LINK: &str = ".fetched-new";
const LOCK: &str = ".fetch-lock";

/// Why a set could not be put in place. The one before it is still there.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else is at it.
    #[error("another fetch is running in {}", .0.display())]
    Busy(PathBuf),
    /// Something else has the name.
    #[error("{} was not made by a fetch; move it away, or to another name", .0.display())]
    NotOurs(PathBuf),
    /// The file system did not do it.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// Why, and what would mend it.
        reason: String,
    },
}

/// Puts these NBPs into `folder` in place of those of an earlier fetch. Returns where they are.
///
/// # Errors
/// Why it could not be done.
pub fn replace(folder: &Path, nbps: &BTreeMap<String, Vec<u8>>) -> Result<PathBuf, StoreError> {
    fs::create_dir_all(folder).map_err(at(folder))?;
    let path = folder.join(LOCK);
    let lock = File::create(&path).map_err(at(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(folder.to_owned())),
        Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
    }
    let link = folder.join(FETCHED);
    let old = current(&link)?;
    let new = if old == Some(SLOTS[0]) { SLOTS[1] } else { SLOTS[0] };
    let slot = folder.join(new);
    remove(&slot)?;
    let placed = write(&slot, nbps).and_then(|()| point(&link, &folder.join(NEW_LINK), new));
    if placed.is_err() {
        // What is wrong has been found; that the half set stays as well would only add to it.
        remove(&slot).ok();
    }
    placed?;
    if let Some(old) = old {
        remove(&folder.join(old))?;
    }
    Ok(link)
}

/// Which slot the link leads to.
fn current(link: &Path) -> Result<Option<&'static str>, StoreError> {
    let not_ours = || StoreError::NotOurs(link.to_owned());
    match fs::read_link(link) {
        Ok(target) => {
            let slot = SLOTS.into_iter().find(|slot| target == Path::new(slot));
            slot.map(Some).ok_or_else(not_ours)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(not_ours()),
        Err(error) => Err(at(link)(error)),
    }
}

fn write(slot: &Path, nbps: &BTreeMap<String, Vec<u8>>) -> Result<(), StoreError> {
    fs::create_dir(slot).map_err(at(slot))?;
    for (name, content) in nbps {
        let path = slot.join(name);
        let folder = path.parent().unwrap_or(slot);
        fs::create_dir_all(folder).map_err(at(folder))?;
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(content)?;
            file.sync_all()?;
            sync(folder)
        };
        write().map_err(at(&path))?;
    }
    sync(slot).map_err(at(slot))
}

/// Makes `link` lead to `slot`, in one step.
fn point(link: &Path, new_link: &Path, slot: &str) -> Result<(), StoreError> {
    remove(new_link)?;
    symlink(slot, new_link).map_err(at(new_link))?;
    let renamed = fs::rename(new_link, link);
    renamed.and_then(|()| link.parent().map_or(Ok(()), sync)).map_err(at(link))
}

/// Flushes a folder, so that what was made in it is there after a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes a file, a link or a folder with all that is in it, if there is any.
fn remove(path: &Path) -> Result<(), StoreError> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    |error| {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                let user = nix::unistd::geteuid();
                format!(
                    "user {user} may not; run this as the owner of the state folder, or as root"
                )
            }
            _ => error.to_string(),
        };
        StoreError::Write { path: path.to_owned(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbps::archive::tests::{release, tar_gz};
    use crate::nbps::archive::unpack;
    use crate::nbps::testing::pe;
    use crate::nbps::{Absence, find};
    use crate::pure::catalog::nbp::Nbps;
    use crate::pure::client::Arch;

    fn set(names: &[&str]) -> BTreeMap<String, Vec<u8>> {
        names.iter().map(|name| ((*name).to_owned(), pe(0x8664))).collect()
    }

    fn listed(folder: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn found(state_nbps: &Path, distribution: &Path) -> Nbps {
        let folders = [state_nbps.to_owned(), state_nbps.join(FETCHED), distribution.to_owned()];
        let (nbps, bad) = find(&folders.map(|folder| (folder, Absence::IsFine)));
        assert_eq!(bad, []);
        nbps
    }

    #[test]
    fn of_a_whole_release_every_architecture_gets_the_plain_build_before_the_distributions() {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, content) in [
            ("snponly.efi", pe(0x8664)),
            ("ipxe.efi", pe(0x8664)),
            ("undionly.kpxe", b"\xea\x05\x00".to_vec()),
        ] {
            fs::write(theirs.path().join(name), content).unwrap();
        }
        let distributions = found(ours.path(), theirs.path());
        assert_eq!(distributions.for_arch(Arch::UefiX64).unwrap().name, "snponly.efi");

        let unpacked = unpack(&tar_gz(&release())).unwrap();
        replace(ours.path(), &unpacked.nbps).unwrap();
        let nbps = found(ours.path(), theirs.path());
        assert_eq!(
            Arch::ALL.map(|arch| nbps.for_arch(arch).unwrap().name.as_str()),
            [
                "i386/undionly.kpxe",
                "i386/snponly.efi",
                "x86_64/snponly.efi",
                "arm32/snponly.efi",
                "arm64/snponly.efi",
                "riscv64/snponly.efi"
            ]
        );
        assert!(nbps.named("x86_64-sb/shimx64.efi").unwrap().is_shim());

        fs::write(ours.path().join("ipxe.efi"), pe(0x8664)).unwrap();
        let nbps = found(ours.path(), theirs.path());
        let by_hand = nbps.for_arch(Arch::UefiX64).unwrap();
        assert_eq!(
            by_hand.path,
            ours.path().join("ipxe.efi"),
            "what was put there by hand is first"
        );
    }

    #[test]
    fn the_next_set_replaces_the_last_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("snponly.efi"), pe(0x8664)).unwrap();
        for names in [&["x/a.efi", "y/b.efi"][..], &["x/a.efi"], &["z/c.efi"]] {
            let at = replace(folder.path(), &set(names)).unwrap();
            assert_eq!(at, folder.path().join(FETCHED));
            let folders: Vec<_> = names.iter().map(|name| &name[..1]).collect();
            assert_eq!(listed(&at), folders);
            let visible = listed(folder.path()).into_iter().filter(|name| !name.starts_with('.'));
            assert_eq!(visible.collect::<Vec<_>>(), ["fetched", "snponly.efi"]);
            assert_eq!(
                listed(folder.path()).len(),
                4,
                "one slot and the lock are all that is hidden"
            );
        }
    }

    #[test]
    fn what_a_kill_leaves_behind_is_not_seen_and_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), &set(&["x/a.efi"])).unwrap();
        // Killed while it wrote the second set, and while it made the link.
        write(&folder.path().join(SLOTS[1]), &set(&["half/b.efi"])).unwrap();
        symlink(SLOTS[1], folder.path().join(NEW_LINK)).unwrap();
        let nbps = found(folder.path(), Path::new("/nonexistent"));
        assert_eq!(nbps.iter().map(|nbp| nbp.name.as_str()).collect::<Vec<_>>(), ["x/a.efi"]);
        let at = replace(folder.path(), &set(&["y/c.efi"])).unwrap();
        assert_eq!(listed(&at), ["y"]);
        assert_eq!(listed(folder.path()), [LOCK, SLOTS[1], FETCHED]);
        // Killed after the link was made, before the old set was removed.
        write(&folder.path().join(SLOTS[0]), &set(&["old/a.efi"])).unwrap();
        let at = replace(folder.path(), &set(&["z/d.efi"])).unwrap();
        assert_eq!(listed(&at), ["z"]);
        assert_eq!(listed(folder.path()), [LOCK, SLOTS[0], FETCHED]);
    }

    #[test]
    fn a_failure_leaves_the_set_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = replace(folder.path(), &set(&["x/a.efi"])).unwrap();
        let error = replace(folder.path(), &set(&["y", "y/b.efi"])).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot write {}/.fetched-b/y", folder.path().display()))
        );
        assert_eq!(listed(&at), ["x"]);
        assert_eq!(listed(folder.path()), [LOCK, SLOTS[0], FETCHED]);
    }

    #[test]
    fn what_an_operator_has_put_there_under_that_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(FETCHED);
        let told =
            format!("{} was not made by a fetch; move it away, or to another name", link.display());
        fs::create_dir(&link).unwrap();
        assert_eq!(replace(folder.path(), &set(&["x/a.efi"])).unwrap_err().to_string(), told);
        fs::remove_dir(&link).unwrap();
        symlink("/srv/nbps", &link).unwrap();
        assert_eq!(replace(folder.path(), &set(&["x/a.efi"])).unwrap_err().to_string(), told);
    }

    #[test]
    fn two_fetches_at_once_do_not_mix() {
        let folder = tempfile::tempdir().unwrap();
        let lock = File::create(folder.path().join(LOCK)).unwrap();
        lock.lock().unwrap();
        let error = replace(folder.path(), &set(&["x/a.efi"])).unwrap_err().to_string();
        assert_eq!(error, format!("another fetch is running in {}", folder.path().display()));
    }
}
