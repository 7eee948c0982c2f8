//! The journal on disk: what the ring holds, written each second. It is for people: a second of it may be lost.

use std::path::{Path, PathBuf};

use rusqlite::params;

use super::ring::{Ring, Told};
use crate::boot::time::Time;
use crate::database::{self, Database, DatabaseError, Form};

const FORM: Form = Form {
    name: "journal.db",
    tables: "CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        mac TEXT,
        name TEXT,
        address TEXT,
        kind TEXT NOT NULL,
        level TEXT NOT NULL,
        text TEXT NOT NULL
    ) STRICT",
    version: 1,
    is_synced: false,
};

/// The file, open.
#[derive(Debug)]
pub struct Store(Database);

impl Store {
    /// Where that of a state folder is.
    pub fn path(state: &Path) -> PathBuf {
        database::place(state, FORM, "")
    }

    /// Opens that of a state folder, and reads it. One that is damaged is put aside.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Ring), DatabaseError> {
        let open = || {
            let mut store = Self(Database::open(state, FORM)?);
            let (ring, gone) = store.load()?;
            // What had to go while the disk could not be written.
            if !gone.is_empty() {
                store.write(std::iter::empty(), &gone)?;
            }
            Ok((store, ring))
        };
        match open() {
            Err(error @ DatabaseError::Damaged { .. }) => {
                let aside = Database::set_aside(state, FORM)?;
                tracing::warn!("journal: {error}; it is put aside as {}", aside.display());
                open()
            }
            opened => opened,
        }
    }

    /// Reads that of a state folder, which somebody else may write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path) -> Result<Ring, DatabaseError> {
        Ok(Self(Database::read(state, FORM)?).load()?.0)
    }

    fn load(&self) -> Result<(Ring, Vec<u64>), DatabaseError> {
        let read = || -> rusqlite::Result<_> {
            let (mut ring, mut gone) = (Ring::default(), Vec::new());
            let all =
                "SELECT id, at, mac, name, address, kind, level, text FROM events ORDER BY id";
            let mut statement = self.0.connection.prepare(all)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get::<_, Option<String>>(column);
                let (_, went) = ring.keep(Told {
                    id: row.get(0)?,
                    at: Time::from_millis(row.get(1)?),
                    mac: text(2)?.and_then(|mac| mac.parse().ok()),
                    name: text(3)?,
                    address: text(4)?.and_then(|address| address.parse().ok()),
                    kind: row.get(5)?,
                    level: text(6)?.as_deref().and_then(super::Level::of).unwrap_or_default(),
                    text: row.get(7)?,
                });
                gone.extend(went);
            }
            Ok((ring, gone))
        };
        read().map_err(|error| self.0.explain(&error))
    }

    /// Writes these, and removes those.
    ///
    /// # Errors
    /// It could not.
    pub fn write<'a>(
        &mut self,
        new: impl Iterator<Item = &'a Told>,
        gone: &[u64],
    ) -> Result<(), DatabaseError> {
        let connection = &mut self.0.connection;
        let write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                let mut put = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO events (id, at, mac, name, address, kind, level, text)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?;
                for Told { id, at, mac, name, address, kind, level, text } in new {
                    let mac = mac.map(|mac| mac.to_string());
                    let address = address.map(|address| address.to_string());
                    let at = at.millis();
                    put.execute(params![id, at, mac, name, address, kind, level.word(), text])?;
                }
                let mut remove = transaction.prepare_cached("DELETE FROM events WHERE id = ?1")?;
                for id in gone {
                    remove.execute([id])?;
                }
            }
            transaction.commit()
        };
        write().map_err(|error| self.0.explain(&error))
    }
}
