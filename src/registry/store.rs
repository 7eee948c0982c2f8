//! The machines on disk: one SQLite file, one row a machine.
//!
//! `sqlite3 state/registry.db "SELECT name, macs, json_extract(state, '$.boots') FROM machines"` reads it.

use std::path::{Path, PathBuf};

use rusqlite::params;
use rusqlite::types::Type;

use super::machines::{Entry, Id, Machines};
use crate::boot::Mac;
use crate::database::{Database, DatabaseError, Form};

const FORM: Form = Form {
    name: "registry.db",
    tables: "CREATE TABLE machines (
        id INTEGER PRIMARY KEY,
        name TEXT,
        macs TEXT NOT NULL,
        last_seen INTEGER NOT NULL,
        state TEXT NOT NULL
    ) STRICT",
    version: 1,
    is_synced: true,
};

/// The file, open.
#[derive(Debug)]
pub struct Store(Database);

impl Store {
    /// Its name in the state folder.
    pub const NAME: &str = FORM.name;

    /// Opens that of a state folder, and reads it; a new one where there is none.
    ///
    /// # Errors
    /// It is damaged, or cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Machines), DatabaseError> {
        let store = Self(Database::open(state, FORM)?);
        let machines = store.load()?;
        Ok((store, machines))
    }

    /// Reads that of a state folder, which somebody else may write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path) -> Result<Machines, DatabaseError> {
        Self(Database::read(state, FORM)?).load()
    }

    /// Puts a damaged one out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(state: &Path) -> Result<PathBuf, DatabaseError> {
        Database::set_aside(state, FORM)
    }

    fn load(&self) -> Result<Machines, DatabaseError> {
        let read = || -> rusqlite::Result<Machines> {
            let mut machines = Machines::default();
            let all = "SELECT id, name, macs, state FROM machines ORDER BY last_seen, id";
            let mut statement = self.0.connection.prepare(all)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let macs: String = row.get(2)?;
                let macs: Vec<Mac> =
                    macs.split_whitespace().filter_map(|mac| mac.parse().ok()).collect();
                let damaged = |error: serde_json::Error| {
                    rusqlite::Error::FromSqlConversionFailure(3, Type::Text, error.into())
                };
                let state = serde_json::from_str(row.get_ref(3)?.as_str()?).map_err(damaged)?;
                machines.load(Id(row.get(0)?), row.get(1)?, macs, state);
            }
            Ok(machines)
        };
        read().map_err(|error| self.0.explain(&error))
    }

    /// Writes these, and removes those, all or nothing; it is on the disk then.
    ///
    /// # Errors
    /// It is not.
    pub fn write(&mut self, changed: &[Entry], gone: &[Id]) -> Result<(), DatabaseError> {
        let connection = &mut self.0.connection;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                let mut put = transaction.prepare_cached(
                    "INSERT INTO machines (id, name, macs, last_seen, state) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (id) DO UPDATE SET name = ?2, macs = ?3, last_seen = ?4, state = ?5",
                )?;
                for Entry { id, name, macs, state, .. } in changed {
                    let macs: Vec<String> = macs.iter().map(ToString::to_string).collect();
                    let seen = state.last_seen.unwrap_or_default().millis();
                    let seen = i64::try_from(seen).unwrap_or(i64::MAX);
                    let state = serde_json::to_string(state)
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
        write().map_err(|error| self.0.explain(&error))
    }
}
