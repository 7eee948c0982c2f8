//! What becomes of a registry that is deleted, replaced or damaged.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::pure::client::Mac;
use crate::pure::event::boot::{Event, Step, Subject};
use crate::pure::machine::orders::RegistryFault;
use crate::state::registry::store::Store;
use crate::state::registry::{Registry, loss};

fn leased(mac: Mac, address: Ipv4Addr) -> Event {
    Event {
        subject: Subject { mac: Some(mac), name: None, address: Some(address) },
        step: Step::Leased { server: None, relay: None },
    }
}

fn completed(folder: &Path) -> (Registry, Subject) {
    loss::permit(folder).unwrap();
    let registry = Registry::open(folder, Arc::default()).unwrap();
    let mut event = leased(Mac::new([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 100));
    event.subject.name = Some("oden".into());
    registry.record(Event { step: Step::Armed { profile: None, times: 3 }, ..event.clone() });
    registry.flush().unwrap();
    (registry, event.subject)
}

fn remove(folder: &Path, ends: &[&str]) {
    for end in ends {
        std::fs::remove_file(folder.join(format!("db/registry.db{end}"))).ok();
    }
}

fn reopened(folder: &Path) -> Registry {
    Registry::open(folder, Arc::default()).unwrap()
}

#[test]
fn a_marker_permits_one_new_registry_and_without_it_a_new_one_is_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, _) = completed(folder.path());
    assert!(!registry.is_state_lost());
    assert!(!loss::marker(folder.path()).exists(), "it is used up");
    registry.close();
    let again = reopened(folder.path());
    assert!(!again.is_state_lost(), "{:?}", again.loss());
    again.close();

    remove(folder.path(), &["", ".previous"]);
    let lost = reopened(folder.path());
    assert!(lost.is_state_lost());
    lost.close();
    let still = reopened(folder.path());
    assert!(still.is_state_lost(), "it lasts until it is accepted");
    still.accept_loss().unwrap();
    assert!(!still.is_state_lost());
    still.close();
    assert!(!reopened(folder.path()).is_state_lost());
}

#[test]
fn a_first_start_without_a_marker_is_told_from_a_folder_that_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let first = reopened(folder.path());
    assert!(first.loss().unwrap().is_new_folder);
    first.close();
    let used = tempfile::tempdir().unwrap();
    completed(used.path()).0.close();
    std::fs::rename(Store::path(used.path()), used.path().join("db/registry.db.x")).unwrap();
    remove(used.path(), &[".previous"]);
    let lost = reopened(used.path()).loss().unwrap();
    assert!(!lost.is_new_folder, "{lost:?}");
}

#[test]
fn a_registry_of_an_earlier_version_is_accepted_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, oden) = completed(folder.path());
    registry.close();
    let file = rusqlite::Connection::open(Store::path(folder.path())).unwrap();
    file.execute_batch("DROP TABLE meta").unwrap();
    drop(file);
    let registry = reopened(folder.path());
    assert!(!registry.is_state_lost(), "{:?}", registry.loss());
    assert!(registry.state(&oden).orders.armed.is_some());
}

#[test]
fn a_file_that_was_not_closed_and_has_no_wal_lacks_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (_open, _) = completed(folder.path());
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("db")).unwrap();
    let copied = |end: &str| {
        let [from, to] =
            [folder.path(), copy.path()].map(|folder| folder.join(format!("db/registry.db{end}")));
        std::fs::copy(from, to).unwrap();
    };
    // As a power cut leaves it.
    copied("");
    copied("-wal");
    let whole = reopened(copy.path());
    assert!(!whole.is_state_lost(), "{:?}", whole.loss());
    assert_eq!(whole.machines().len(), 1);
    drop(whole);
    let bare = tempfile::tempdir().unwrap();
    std::fs::create_dir(bare.path().join("db")).unwrap();
    std::fs::copy(Store::path(folder.path()), Store::path(bare.path())).unwrap();
    let lost = reopened(bare.path()).loss().unwrap();
    assert!(lost.what.contains("write-ahead log"), "{lost:?}");
}

#[test]
fn a_damaged_file_or_a_missing_one_is_replaced_by_its_copy_and_what_came_later_is_a_loss() {
    for is_damaged in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (registry, oden) = completed(folder.path());
        registry.close();
        assert!(Store::previous(folder.path()).exists(), "a clean close makes it");
        if is_damaged {
            std::fs::write(Store::path(folder.path()), "no database at all".repeat(99)).unwrap();
        } else {
            remove(folder.path(), &[""]);
        }
        let registry = reopened(folder.path());
        assert!(registry.state(&oden).orders.armed.is_some());
        let loss = registry.loss().unwrap();
        assert!(loss.what.contains("registry.db.previous is used, which is 0 min old"), "{loss:?}");
        registry.close();
        assert!(reopened(folder.path()).is_state_lost());
    }
}

/// Waits for the writer's next inspection.
fn wait_for(path: &Path) {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !path.exists() {
        assert!(std::time::Instant::now() < until, "{} does not come back", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn files_that_are_deleted_or_replaced_under_it_are_written_again_from_memory() {
    for name in ["db", "db/registry.db", "db/registry.db-wal"] {
        let folder = tempfile::tempdir().unwrap();
        let (registry, oden) = completed(folder.path());
        let path = folder.path().join(name);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        wait_for(&Store::path(folder.path()));
        wait_for(&path);
        registry.flush().unwrap();
        assert!(!registry.is_state_lost());
        assert_eq!(Store::read(folder.path()).unwrap().iter().count(), 1, "{name}");
        registry.close();
        let again = reopened(folder.path());
        assert!(!again.is_state_lost(), "{name}: {:?}", again.loss());
        assert!(again.state(&oden).orders.armed.is_some());
    }
}

#[test]
fn a_file_that_is_overwritten_in_place_is_written_again_from_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, oden) = completed(folder.path());
    let older = folder.path().join("older.db");
    std::fs::File::create(&older).unwrap();
    Store::copy(folder.path(), &older).unwrap();
    registry.record(Event { subject: oden.clone(), step: Step::KeptOnDisk {} });
    registry.close();
    let registry = reopened(folder.path());
    std::fs::copy(&older, Store::path(folder.path())).unwrap();
    let is_kept = || {
        let read = Store::read(folder.path()).ok()?;
        read.iter().next().map(|entry| entry.state.orders.is_kept_on_disk)
    };
    for _ in 0..100 {
        if is_kept() == Some(true) {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    registry.close();
    let again = reopened(folder.path());
    assert!(!again.is_state_lost() && again.state(&oden).orders.is_kept_on_disk);
}

#[test]
fn another_file_in_its_place_is_put_aside_and_not_written_to() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    completed(other.path()).0.close();
    let (registry, oden) = completed(folder.path());
    let foreign = std::fs::read(Store::path(other.path())).unwrap();
    let new = folder.path().join("db/new");
    std::fs::write(&new, &foreign).unwrap();
    std::fs::rename(new, Store::path(folder.path())).unwrap();
    registry.record(Event { subject: oden.clone(), step: Step::Disarmed {} });
    registry.flush().unwrap();
    let names = std::fs::read_dir(folder.path().join("db")).unwrap().flatten();
    let aside = names
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.display().to_string();
            name.contains("registry.db.replaced-")
                && !name.ends_with("-shm")
                && !name.ends_with("-wal")
        })
        .unwrap();
    assert!(std::fs::read(aside).unwrap() == foreign, "it is another one by now");
    registry.close();
    let again = reopened(folder.path());
    assert!(!again.is_state_lost() && again.state(&oden).orders.armed.is_none());
}

#[test]
fn a_registry_that_comes_with_a_disk_mounted_late_is_not_written_over() {
    let (folder, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    completed(late.path()).0.close();
    let registry = reopened(folder.path());
    assert!(registry.is_state_lost());
    let before = std::fs::read(Store::path(late.path())).unwrap();
    std::fs::remove_dir_all(folder.path().join("db")).unwrap();
    std::fs::rename(late.path().join("db"), folder.path().join("db")).unwrap();
    let why = registry.flush().unwrap_err();
    assert!(why.contains("it has appeared since the start"), "{why}");
    registry.close();
    assert!(std::fs::read(Store::path(folder.path())).unwrap() == before);
}

#[test]
fn the_verified_copy_is_not_replaced_after_a_loss() {
    let folder = tempfile::tempdir().unwrap();
    completed(folder.path()).0.close();
    let before = std::fs::read(Store::previous(folder.path())).unwrap();
    remove(folder.path(), &[""]);
    let lost = reopened(folder.path());
    lost.record(leased(Mac::new([2; 6]), Ipv4Addr::new(10, 0, 0, 9)));
    lost.close();
    assert!(std::fs::read(Store::previous(folder.path())).unwrap() == before);
}

/// The folder of the databases is where a file was, so that nothing in it can be written, until it is put back.
fn without_files(folder: &Path, work: impl FnOnce()) {
    let [db, away] = ["db", "away"].map(|name| folder.join(name));
    std::fs::rename(&db, &away).unwrap();
    std::fs::write(&db, "").unwrap();
    work();
    std::fs::remove_file(&db).unwrap();
    std::fs::rename(&away, &db).unwrap();
}

#[test]
fn changes_that_were_not_written_count_as_a_loss_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, oden) = completed(folder.path());
    assert_eq!(loss::unwritten_since(folder.path()), None);
    loss::mark_unwritten(folder.path()).unwrap();
    let since = loss::unwritten_since(folder.path()).unwrap();
    assert!(since.elapsed().unwrap() < Duration::from_secs(60), "{since:?}");
    loss::mark_unwritten(folder.path()).unwrap();
    assert_eq!(loss::unwritten_since(folder.path()), Some(since), "the first counts");
    registry.close();

    assert!(Store::inspect(folder.path()).unwrap().loss.is_some());
    let lost = reopened(folder.path());
    let what = lost.loss().unwrap().what;
    assert!(what.contains("not all changes could be written"), "{what}");
    assert_eq!(loss::unwritten_since(folder.path()), None, "it is in the registry by now");
    lost.close();
    let still = reopened(folder.path());
    assert!(still.is_state_lost());
    assert!(still.state(&oden).orders.armed.is_some());
    let loke = Subject { name: Some("loke".into()), ..Subject::default() };
    let step = Step::Armed { profile: None, times: 1 };
    still.record(Event { subject: loke.clone(), step });
    still.accept_loss().unwrap();
    assert_eq!(still.state(&oden).orders.armed, None, "it may have been used up");
    assert!(still.state(&loke).orders.armed.is_some(), "it was given after the loss");
    still.close();
    assert!(!reopened(folder.path()).is_state_lost());
}

#[test]
fn machines_whose_profile_wipes_hold_while_the_registry_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, oden) = completed(folder.path());
    without_files(folder.path(), || {
        registry.record(Event { subject: oden.clone(), step: Step::Disarmed {} });
        let why = registry.flush().unwrap_err();
        let fault = registry.standing.fault().unwrap();
        assert_eq!(fault, RegistryFault::Unwritable(why.into()));
    });
    registry.flush().unwrap();
    assert_eq!(registry.standing.fault(), None, "all is written");
    registry.close();
    let again = reopened(folder.path());
    assert!(!again.is_state_lost(), "{:?}", again.loss());
    assert!(again.state(&oden).orders.armed.is_none());
}

#[test]
fn a_missing_log_in_a_used_folder_is_no_first_start() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody has accepted that it began without a marker.
    let registry = reopened(folder.path());
    assert!(registry.loss().unwrap().is_new_folder);
    registry.record(leased(Mac::new([2; 6]), Ipv4Addr::new(10, 0, 0, 9)));
    registry.flush().unwrap();
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("db")).unwrap();
    std::fs::copy(Store::path(folder.path()), Store::path(copy.path())).unwrap();
    let lost = reopened(copy.path()).loss().unwrap();
    assert!(!lost.is_new_folder && lost.what.contains("write-ahead log"), "{lost:?}");
}
