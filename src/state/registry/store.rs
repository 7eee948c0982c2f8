//! The machines on disk: one SQLite file, one row a machine.
//!
//! `sqlite3 state/db/registry.db "SELECT name, macs, json_extract(state, '$.boots') FROM machines"` reads it.
//!
//! The table `meta` says whether the file was closed cleanly: without that, and without the WAL, its latest changes are
//! lost. It also stores what was lost until the operator accepts it. See [`loss`] for changes that could not be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, params};
use tracing::warn;

use super::loss::{self, Loss};
use super::machines::{Entry, Id, Machines};
use crate::pure::client::Mac;
use crate::state::sqlite::{self, Database, DatabaseError, Displaced, Form, OpenFiles};
use crate::sys::files::{reason, unwritable};

const FORM: Form = Form {
    name: "registry.db",
    tables: "CREATE TABLE machines (
        id INTEGER PRIMARY KEY,
        name TEXT,
        macs TEXT NOT NULL,
        last_seen INTEGER NOT NULL,
        state TEXT NOT NULL
    ) STRICT;
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    INSERT INTO meta (key, value) VALUES ('loss', 'reveille was stopped while it made the registry')",
    version: 1,
    is_synced: true,
};

/// Absent in files of earlier versions, which are accepted as they are.
const META: &str =
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT";

/// Added to the file's name for the verified copy.
const PREVIOUS: &str = ".previous";
/// Added for the copy until it is verified.
const UNVERIFIED: &str = ".previous-new";

/// The file, open.
#[derive(Debug)]
pub struct Store {
    database: Database,
    files: OpenFiles,
    /// When the main file was written last, and its length: only this writes to it.
    stamp: Option<(SystemTime, u64)>,
}

/// What a registry holds.
#[derive(Debug, Default)]
pub struct Content {
    /// The machines.
    pub machines: Machines,
    /// What was lost, unless the operator has accepted it.
    pub loss: Option<Loss>,
}

/// What exists before the file is opened: SQLite makes what is missing.
#[derive(Clone, Copy, Debug)]
struct Before {
    has_file: bool,
    has_wal: bool,
    is_new_permitted: bool,
    unwritten_since: Option<SystemTime>,
}

impl Before {
    fn of(state: &Path) -> Self {
        let wal = sqlite::place(state, FORM, "-wal");
        Self {
            has_file: Store::path(state).exists(),
            has_wal: wal.metadata().is_ok_and(|metadata| metadata.len() > 0),
            is_new_permitted: loss::marker(state).exists(),
            unwritten_since: loss::unwritten_since(state),
        }
    }
}

impl Store {
    /// Where that of a state folder is.
    pub fn path(state: &Path) -> PathBuf {
        sqlite::place(state, FORM, "")
    }

    /// Opens that of a state folder, and reads it; a new one where there is none.
    ///
    /// # Errors
    /// It is damaged, or cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Content), DatabaseError> {
        let before = Before::of(state);
        let without = (!before.has_file).then(|| Loss::of_all(state));
        let mut store = Self {
            database: Database::open(state, FORM)?,
            files: OpenFiles::default(),
            stamp: None,
        };
        let (machines, unreadable) = store.load()?;
        let is_empty = machines.iter().next().is_none() && unreadable.is_empty();
        let mut lost = match without {
            // Also if it was begun before, and not finished.
            _ if before.is_new_permitted && is_empty => None,
            Some(lost) => Some(lost),
            None => store.lost(before)?,
        };
        if !unreadable.is_empty() {
            let aside = store.database.copy_aside(state, FORM)?;
            let names: Vec<&str> = unreadable.iter().map(|(_, name)| name.as_str()).collect();
            let what = format!(
                "the entries of these machines cannot be read: {}; they are kept in {}",
                names.join(", "),
                aside.display()
            );
            warn!("registry: {what}");
            let unreadable = Loss::now(what);
            lost = Some(match lost {
                Some(lost) => lost.and(unreadable),
                None => unreadable,
            });
        }
        store.begin(lost.as_ref(), &unreadable)?;
        store.files = store.database.files();
        store.stamp = store.stamped();
        // By now the loss is in the registry itself.
        if let Err(error) = loss::mark_written(state) {
            warn!(
                "registry: cannot create registry.written, the marker for changes that cannot be written: {}",
                unwritable(&error)
            );
        }
        loss::consume(state).map_err(|error| DatabaseError::Unusable {
            path: loss::marker(state),
            reason: format!("cannot be removed: {}", unwritable(&error)),
        })?;
        Ok((store, Content { machines, loss: lost }))
    }

    /// Reads that of a state folder, which another process may write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path) -> Result<Machines, DatabaseError> {
        Ok(Self::inspect(state)?.machines)
    }

    /// Reads that of a state folder, with what is lost of it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn inspect(state: &Path) -> Result<Content, DatabaseError> {
        let before = Before::of(state);
        let database = Database::read(state, FORM)?;
        let store = Self { database, files: OpenFiles::default(), stamp: None };
        let (machines, _) = store.load()?;
        Ok(Content { machines, loss: store.lost(before)? })
    }

    /// Where the verified copy of a state folder is.
    pub fn previous(state: &Path) -> PathBuf {
        sqlite::place(state, FORM, PREVIOUS)
    }

    /// How long ago that copy was made. None if there is none.
    pub fn age_of_previous(state: &Path) -> Option<Duration> {
        let made =
            Self::previous(state).metadata().and_then(|metadata| metadata.modified()).ok()?;
        // A clock that went back makes it new; it is renewed by the next change.
        Some(SystemTime::now().duration_since(made).unwrap_or_default())
    }

    /// Reads the verified copy of a state folder.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read_previous(state: &Path) -> Result<Machines, DatabaseError> {
        Ok(Self::read_file(&Self::previous(state))?.machines)
    }

    /// Reads a copy of a registry anywhere. Nothing is written beside it.
    ///
    /// # Errors
    /// It is no registry, or damaged.
    pub fn read_file(path: &Path) -> Result<Content, DatabaseError> {
        let unusable = |error: std::io::Error| DatabaseError::Unusable {
            path: path.to_owned(),
            reason: reason(&error),
        };
        let folder = tempfile::tempdir().map_err(unusable)?;
        let copy = folder.path().join("copy.db");
        fs::copy(path, &copy).map_err(unusable)?;
        let mut wal = path.as_os_str().to_owned();
        wal.push("-wal");
        // A file that was copied from under a daemon has its latest changes there.
        if Path::new(&wal).exists() {
            fs::copy(wal, folder.path().join("copy.db-wal")).map_err(unusable)?;
        }
        let store = Self {
            database: Database::read_at(&copy, path, FORM)?,
            files: OpenFiles::default(),
            stamp: None,
        };
        store.database.verify()?;
        let (machines, unreadable) = store.load()?;
        match unreadable.first() {
            None => Ok(Content { machines, loss: store.stored_loss()? }),
            Some((_, name)) => Err(DatabaseError::Damaged {
                path: path.to_owned(),
                reason: format!("the entry of {name} cannot be read"),
            }),
        }
    }

    /// Puts the machines of a copy in place as the registry, which must be out of the way.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(
        state: &Path,
        machines: &Machines,
        lost: Option<&Loss>,
    ) -> Result<(), DatabaseError> {
        let (mut store, _) = Self::open(state)?;
        let all: Vec<Entry> = machines.iter().cloned().collect();
        store.replace(&all, lost)?;
        store.close()
    }

    /// Writes a verified copy of it, which takes the place of the one before.
    ///
    /// # Errors
    /// It cannot be written, or this file is damaged.
    pub fn keep_previous(&self, state: &Path) -> Result<(), DatabaseError> {
        let [new, previous] = [UNVERIFIED, PREVIOUS].map(|end| sqlite::place(state, FORM, end));
        fs::remove_file(&new).ok();
        let copied = self.database.copy_to(&new, mark_open).and_then(|()| {
            let renamed = fs::rename(&new, &previous)
                .and_then(|()| fs::File::open(new.parent().unwrap_or(Path::new("/")))?.sync_all());
            renamed.map_err(|error| DatabaseError::Unusable {
                path: previous,
                reason: unwritable(&error),
            })
        });
        if copied.is_err() {
            fs::remove_file(&new).ok();
        }
        copied
    }

    /// Writes a verified copy of that of a state folder to a file that is empty yet.
    ///
    /// # Errors
    /// There is none, or it cannot be written.
    pub fn copy(state: &Path, to: &Path) -> Result<(), DatabaseError> {
        Database::read(state, FORM)?.copy_to(to, mark_open)
    }

    /// Which of its files is missing at its place, or is another one.
    pub fn displaced(&self) -> Option<Displaced> {
        self.files.displaced().or_else(|| {
            let path = self.files.main().filter(|_| self.stamp != self.stamped())?;
            Some(Displaced { what: format!("{} was overwritten", path.display()), is_main: true })
        })
    }

    fn stamped(&self) -> Option<(SystemTime, u64)> {
        let metadata = self.files.main()?.metadata().ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    }

    /// Moves what is found in its place out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn move_aside(state: &Path, word: &str) -> Result<PathBuf, DatabaseError> {
        Database::move_aside(state, FORM, word)
    }

    /// Moves the verified copy out of the way, as one of another registry; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn move_previous_aside(state: &Path) -> Result<PathBuf, DatabaseError> {
        let previous = Form { name: "registry.db.previous", ..FORM };
        Database::move_aside(state, previous, "old")
    }

    /// Closes it. All that was written to it is in it.
    ///
    /// # Errors
    /// That it was closed cleanly cannot be written.
    pub fn close(self) -> Result<(), DatabaseError> {
        let set = set(&self.database.connection, "clean", Some("1"));
        set.map_err(|error| self.database.explain(&error))?;
        self.database.close()
    }

    /// Stores what was lost, or that the operator has accepted it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn set_loss(&mut self, lost: Option<&Loss>) -> Result<(), DatabaseError> {
        let set = set(&self.database.connection, "loss", text(lost).as_deref());
        self.stamp = self.stamped();
        set.map_err(|error| self.database.explain(&error))
    }

    fn begin(
        &mut self,
        lost: Option<&Loss>,
        unreadable: &[(Id, String)],
    ) -> Result<(), DatabaseError> {
        let connection = &mut self.database.connection;
        let mut begin = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(META)?;
            set(&transaction, "clean", Some("0"))?;
            set(&transaction, "loss", text(lost).as_deref())?;
            for (id, _) in unreadable {
                transaction.execute("DELETE FROM machines WHERE id = ?1", [id.0])?;
            }
            transaction.commit()?;
            // In the file itself: the flag must not go with the WAL.
            connection.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(()))
        };
        begin().map_err(|error| self.database.explain(&error))
    }

    /// What is lost of it.
    fn lost(&self, before: Before) -> Result<Option<Loss>, DatabaseError> {
        let stored = self.stored_loss()?;
        let is_open = self.value("clean")?.is_some_and(|clean| clean != "1");
        let what = || "it was not closed cleanly, and its write-ahead log (registry.db-wal) is missing: its latest changes are lost";
        let without_wal = (is_open && !before.has_wal).then(|| Loss::now(what().to_owned()));
        let unwritten = before.unwritten_since.map(Loss::unwritten);
        Ok([stored, without_wal, unwritten].into_iter().flatten().reduce(Loss::and))
    }

    fn stored_loss(&self) -> Result<Option<Loss>, DatabaseError> {
        let text = self.value("loss")?;
        // What cannot be read was a loss all the same.
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| Loss::now(text))))
    }

    fn value(&self, key: &str) -> Result<Option<String>, DatabaseError> {
        let read = || -> rusqlite::Result<Option<String>> {
            let connection = &self.database.connection;
            if !connection.table_exists(None, "meta")? {
                return Ok(None);
            }
            let value = "SELECT value FROM meta WHERE key = ?1";
            connection.query_row(value, [key], |row| row.get(0)).optional()
        };
        read().map_err(|error| self.database.explain(&error))
    }

    /// Moves a damaged one out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(state: &Path) -> Result<PathBuf, DatabaseError> {
        Database::set_aside(state, FORM)
    }

    /// The machines, and which rows cannot be read.
    fn load(&self) -> Result<(Machines, Vec<(Id, String)>), DatabaseError> {
        let read = || -> rusqlite::Result<_> {
            let (mut machines, mut unreadable) = (Machines::default(), Vec::new());
            let all = "SELECT id, name, macs, state FROM machines ORDER BY last_seen, id";
            let mut statement = self.database.connection.prepare(all)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let macs: String = row.get(2)?;
                let macs: Vec<Mac> =
                    macs.split_whitespace().filter_map(|mac| mac.parse().ok()).collect();
                let (id, name): (Id, Option<String>) = (Id(row.get(0)?), row.get(1)?);
                match serde_json::from_str(row.get_ref(3)?.as_str()?) {
                    Ok(state) => machines.load(id, name, macs, state),
                    Err(error) => {
                        let mac = || macs.first().map(ToString::to_string).unwrap_or_default();
                        unreadable.push((id, format!("{} ({error})", name.unwrap_or_else(mac))));
                    }
                }
            }
            Ok((machines, unreadable))
        };
        read().map_err(|error| self.database.explain(&error))
    }

    /// Writes these, and removes those, all or nothing; it is on the disk then.
    ///
    /// # Errors
    /// It is not.
    pub fn write(&mut self, changed: &[Entry], gone: &[Id]) -> Result<(), DatabaseError> {
        self.write_and(changed, gone, None)
    }

    /// Writes these, and what was lost, instead of all that there is, all or nothing.
    ///
    /// # Errors
    /// It is not.
    pub fn replace(&mut self, all: &[Entry], lost: Option<&Loss>) -> Result<(), DatabaseError> {
        self.write_and(all, &[], Some(lost))
    }

    fn write_and(
        &mut self,
        changed: &[Entry],
        gone: &[Id],
        anew: Option<Option<&Loss>>,
    ) -> Result<(), DatabaseError> {
        let connection = &mut self.database.connection;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                if let Some(lost) = anew {
                    transaction.execute("DELETE FROM machines", [])?;
                    set(&transaction, "loss", text(lost).as_deref())?;
                }
                let mut put = transaction.prepare_cached(
                    "INSERT INTO machines (id, name, macs, last_seen, state) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (id) DO UPDATE SET name = ?2, macs = ?3, last_seen = ?4, state = ?5",
                )?;
                for Entry { id, name, macs, state, .. } in changed {
                    let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
                    let seen = state.last_seen.unwrap_or_default().millis();
                    let seen = i64::try_from(seen).unwrap_or(i64::MAX);
                    let state = serde_json::to_string(&**state)
                        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
                    put.execute(params![id.0, name, macs.join(" "), seen, state])?;
                }
                let mut remove =
                    transaction.prepare_cached("DELETE FROM machines WHERE id = ?1")?;
                for id in gone {
                    remove.execute([id.0])?;
                }
            }
            transaction.commit()
        };
        let written = write();
        // It may have been moved from the write-ahead log into the main file.
        self.stamp = self.stamped();
        written.map_err(|error| self.database.explain(&error))
    }
}

/// A copy that is put in place of the registry by hand lacks what came later: it looks as if it had not been closed.
fn mark_open(copy: &Connection) -> rusqlite::Result<()> {
    copy.execute_batch(META)?;
    set(copy, "clean", Some("0"))
}

/// Stores a value, or removes it.
fn set(connection: &Connection, key: &str, value: Option<&str>) -> rusqlite::Result<()> {
    match value {
        Some(value) => connection.execute(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
            [key, value],
        ),
        None => connection.execute("DELETE FROM meta WHERE key = ?1", [key]),
    }
    .map(drop)
}

fn text(lost: Option<&Loss>) -> Option<String> {
    lost.map(|lost| serde_json::to_string(lost).unwrap_or_else(|_| lost.what.clone()))
}
