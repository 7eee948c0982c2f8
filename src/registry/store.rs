//! The machines on disk: one SQLite file, one row a machine.
//!
//! `sqlite3 state/db/registry.db "SELECT name, macs, json_extract(state, '$.boots') FROM machines"` reads it.

use std::path::{Path, PathBuf};

use rusqlite::params;
use tracing::warn;

use super::machines::{Entry, Id, Machines};
use crate::boot::Mac;
use crate::database::{self, Database, DatabaseError, Form};

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
    /// Where that of a state folder is.
    pub fn path(state: &Path) -> PathBuf {
        database::place(state, FORM, "")
    }

    /// Opens that of a state folder, and reads it; a new one where there is none.
    ///
    /// # Errors
    /// It is damaged, or cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Machines), DatabaseError> {
        let mut store = Self(Database::open(state, FORM)?);
        let (machines, unreadable) = store.load()?;
        if !unreadable.is_empty() {
            let aside = store.0.copy_aside(state, FORM)?;
            let names: Vec<&str> = unreadable.iter().map(|(_, name)| name.as_str()).collect();
            warn!(
                "registry: what is remembered of these cannot be read, and is not known any more: {}; it stands in {}",
                names.join(", "),
                aside.display()
            );
            let gone: Vec<Id> = unreadable.iter().map(|(id, _)| *id).collect();
            store.write(&[], &gone)?;
        }
        Ok((store, machines))
    }

    /// Reads that of a state folder, which somebody else may write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path) -> Result<Machines, DatabaseError> {
        Ok(Self(Database::read(state, FORM)?).load()?.0)
    }

    /// Puts a damaged one out of the way; where it is now.
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
            let mut statement = self.0.connection.prepare(all)?;
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
        read().map_err(|error| self.0.explain(&error))
    }

    /// Writes these, and removes those, all or nothing; it is on the disk then.
    ///
    /// # Errors
    /// It is not.
    pub fn write(&mut self, changed: &[Entry], gone: &[Id]) -> Result<(), DatabaseError> {
        self.write_and(changed, gone, "")
    }

    /// Writes these instead of all that there is, all or nothing.
    ///
    /// # Errors
    /// It is not.
    pub fn replace(&mut self, all: &[Entry]) -> Result<(), DatabaseError> {
        self.write_and(all, &[], "DELETE FROM machines")
    }

    fn write_and(
        &mut self,
        changed: &[Entry],
        gone: &[Id],
        first: &str,
    ) -> Result<(), DatabaseError> {
        let connection = &mut self.0.connection;
        let mut write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                transaction.execute_batch(first)?;
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
        write().map_err(|error| self.0.explain(&error))
    }
}
