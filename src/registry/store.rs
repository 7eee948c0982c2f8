//! The machines on disk: one SQLite file, one row a machine.
//!
//! `sqlite3 state/registry.db "SELECT name, macs, json_extract(state, '$.boots') FROM machines"` reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::machines::{Entry, Id, Machines};
use crate::boot::Mac;
use crate::files::unwritable;

/// Its name in the state folder.
pub const NAME: &str = "registry.db";
/// Of what form it is; a later one that can read this one has a greater number.
const VERSION: i64 = 1;
/// What tells it from other SQLite files: `revl`.
const APPLICATION: i64 = 0x7265_766c;

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is no registry, or broken.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// It is of a later version.
    #[error("{} is of a later version of reveille (its form is {form}, this one writes {VERSION}): it stays as it is", path.display())]
    Later {
        /// Which.
        path: PathBuf,
        /// Its form.
        form: i64,
    },
    /// It cannot be opened or written.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The file, open.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Opens that of a state folder, and reads it; a new one where there is none.
    ///
    /// # Errors
    /// It is damaged, or cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Machines), StoreError> {
        let path = state.join(NAME);
        fs::create_dir_all(state).map_err(|error| StoreError::Unusable {
            path: state.to_owned(),
            reason: unwritable(&error),
        })?;
        let opened = Connection::open(&path).map_err(|error| told(&path, &error))?;
        let store = Self { connection: opened, path };
        let made = store.prepare();
        made.map_err(|error| told(&store.path, &error))??;
        let machines = store.load()?;
        Ok((store, machines))
    }

    /// Reads that of a state folder, which somebody else may write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path) -> Result<Machines, StoreError> {
        let path = state.join(NAME);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags);
        let connection = opened.map_err(|error| told(&path, &error))?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(|error| told(&path, &error))?;
        let store = Self { connection, path };
        store.form().map_err(|error| told(&store.path, &error))??;
        store.load()
    }

    /// Puts a damaged one out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(state: &Path) -> Result<PathBuf, StoreError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = state.join(NAME);
        let aside = state.join(format!("{NAME}.damaged-{now}"));
        let unusable = |error: std::io::Error| StoreError::Unusable {
            path: path.clone(),
            reason: format!("cannot be put aside: {}", unwritable(&error)),
        };
        fs::rename(&path, &aside).map_err(unusable)?;
        // They belong to it, and would be taken for those of the new one.
        for end in ["-wal", "-shm"] {
            let from = state.join(format!("{NAME}{end}"));
            fs::rename(from, state.join(format!("{NAME}.damaged-{now}{end}"))).ok();
        }
        Ok(aside)
    }

    fn prepare(&self) -> rusqlite::Result<Result<(), StoreError>> {
        self.connection.busy_timeout(Duration::from_secs(5))?;
        let is_empty: bool = self.connection.query_row(
            "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)",
            [],
            |row| row.get(0),
        )?;
        // Readers do not hold up the writer so, and a commit is one write. FULL: it is on the disk then.
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        if is_empty {
            self.connection.execute_batch(&format!(
                "BEGIN;
                 CREATE TABLE IF NOT EXISTS machines (
                     id INTEGER PRIMARY KEY,
                     name TEXT,
                     macs TEXT NOT NULL,
                     last_seen INTEGER NOT NULL,
                     state TEXT NOT NULL
                 ) STRICT;
                 PRAGMA application_id = {APPLICATION};
                 PRAGMA user_version = {VERSION};
                 COMMIT;"
            ))?;
            return Ok(Ok(()));
        }
        self.form()
    }

    /// Whether it is of a form that can be read.
    fn form(&self) -> rusqlite::Result<Result<(), StoreError>> {
        let number =
            |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let path = self.path.clone();
        if number("application_id")? != APPLICATION {
            let reason = "it is no registry of reveille".to_owned();
            return Ok(Err(StoreError::Damaged { path, reason }));
        }
        match number("user_version")? {
            form if form > VERSION => Ok(Err(StoreError::Later { path, form })),
            _ => Ok(Ok(())),
        }
    }

    fn load(&self) -> Result<Machines, StoreError> {
        let damaged = |reason: String| StoreError::Damaged { path: self.path.clone(), reason };
        let rows = || -> rusqlite::Result<Machines> {
            let mut machines = Machines::default();
            let mut statement = self
                .connection
                .prepare("SELECT id, name, macs, state FROM machines ORDER BY last_seen, id")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let macs: String = row.get(2)?;
                let macs: Vec<Mac> =
                    macs.split_whitespace().filter_map(|mac| mac.parse().ok()).collect();
                let state = row.get_ref(3)?.as_str()?;
                let state = serde_json::from_str(state).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(
                        3,
                        rusqlite::types::Type::Text,
                        Box::new(error),
                    )
                })?;
                machines.load(Id(row.get(0)?), row.get(1)?, macs, state);
            }
            Ok(machines)
        };
        rows().map_err(|error| match told(&self.path, &error) {
            StoreError::Unusable { reason, .. } if is_conversion(&error) => damaged(reason),
            other => other,
        })
    }

    /// Writes these, and removes those, all or nothing; it is on the disk then.
    ///
    /// # Errors
    /// It is not.
    pub fn write(&mut self, changed: &[Entry], gone: &[Id]) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction()?;
            {
                let mut put = transaction.prepare_cached(
                    "INSERT INTO machines (id, name, macs, last_seen, state) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (id) DO UPDATE SET name = ?2, macs = ?3, last_seen = ?4, state = ?5",
                )?;
                for Entry { id, name, macs, state, .. } in changed {
                    let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
                    let seen = state.last_seen.unwrap_or_default().millis();
                    let seen = i64::try_from(seen).unwrap_or(i64::MAX);
                    let state = serde_json::to_string(state).map_err(|error| {
                        rusqlite::Error::ToSqlConversionFailure(Box::new(error))
                    })?;
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
        write().map_err(|error| told(&self.path, &error))
    }
}

fn is_conversion(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::SqliteFailure(..)
    )
}

fn told(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            StoreError::Damaged { path, reason: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            StoreError::Unusable { path, reason: unwritable(&full) }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            let user = nix::unistd::geteuid();
            let reason = format!("user {user} may not open it, or there is none");
            StoreError::Unusable { path, reason }
        }
        _ => StoreError::Unusable { path, reason: error.to_string() },
    }
}
