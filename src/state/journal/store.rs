//! The journal on disk: what the ring holds, written each second. It is for people: a second of it may be lost.

use std::path::{Path, PathBuf};

use rusqlite::params;

use super::ring::{Put, Ring, Told};
use crate::pure::machine::time::Time;
use crate::state::sqlite::{self, Database, DatabaseError, Displaced, Form, OpenFiles};

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
pub struct Store {
    database: Database,
    files: OpenFiles,
}

impl Store {
    /// Where that of a state folder is.
    pub fn path(state: &Path) -> PathBuf {
        sqlite::place(state, FORM, "")
    }

    /// Opens that of a state folder, and reads it. One that is damaged is put aside.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(state: &Path) -> Result<(Self, Ring), DatabaseError> {
        let open = || {
            let mut store =
                Self { database: Database::open(state, FORM)?, files: OpenFiles::default() };
            let (ring, gone) = store.load()?;
            // What had to go while the disk could not be written, or an earlier version kept.
            if !gone.is_empty() {
                store.write(std::iter::empty(), &gone)?;
            }
            store.database.shrink();
            store.files = store.database.files();
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
        let database = Database::read(state, FORM)?;
        Ok(Self { database, files: OpenFiles::default() }.load()?.0)
    }

    /// Which of its files is missing at its place, or is another one.
    pub fn displaced(&self) -> Option<Displaced> {
        self.files.displaced()
    }

    /// Moves what is found in its place out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn move_aside(state: &Path) -> Result<PathBuf, DatabaseError> {
        Database::move_aside(state, FORM, "replaced")
    }

    fn load(&self) -> Result<(Ring, Vec<u64>), DatabaseError> {
        let read = || -> rusqlite::Result<_> {
            let (mut ring, mut gone) = (Ring::default(), Vec::new());
            let all =
                "SELECT id, at, mac, name, address, kind, level, text FROM events ORDER BY id";
            let mut statement = self.database.connection.prepare(all)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column| row.get::<_, Option<String>>(column);
                let Put { gone: went, .. } = ring.keep(Told {
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
        read().map_err(|error| self.database.explain(&error))
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
        let connection = &mut self.database.connection;
        let write = || -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            {
                // First: what comes takes the room of what goes.
                let mut remove = transaction.prepare_cached("DELETE FROM events WHERE id = ?1")?;
                for id in gone {
                    remove.execute([id])?;
                }
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
            }
            transaction.commit()
        };
        write().map_err(|error| self.database.explain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::pure::client::Mac;
    use crate::state::journal::Level;

    fn told(n: u32, len: usize) -> Told {
        let [a, b, c, d] = n.to_be_bytes();
        Told {
            id: 0,
            at: SystemTime::now().into(),
            mac: Some(Mac::new([2, 0, a, b, c, d])),
            name: None,
            address: None,
            kind: "refused".into(),
            level: Level::Warn,
            text: "x".repeat(len),
        }
    }

    /// The bytes of the database and of its log.
    fn on_disk(state: &Path) -> u64 {
        let files = ["", "-wal"].map(|end| sqlite::place(state, FORM, end));
        files.iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    #[test]
    fn the_journal_on_disk_stays_bounded_whatever_comes_and_an_earlier_ones_shrinks() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path();
        let (mut store, mut ring) = Store::open(state).unwrap();
        let mut most = 0;
        for batch in 0..100 {
            let (mut new, mut gone) = (Vec::new(), Vec::new());
            for n in 0..100 {
                let put = ring.keep(told(batch * 100 + n, 4096));
                gone.extend(put.gone);
                new.push(put.told);
            }
            store.write(new.iter().map(Arc::as_ref), &gone).unwrap();
            most = most.max(on_disk(state));
        }
        // 40 MiB have come.
        assert!(most < 16 << 20, "{most} bytes");

        // As an earlier version wrote them.
        let fill = "INSERT INTO events (at, kind, level, text, mac)
            WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 4000)
            SELECT 0, 'refused', 'warn', printf('%.*c', 10000, 'x'), printf('02:00:00:01:%02x:%02x', n / 256, n % 256) FROM n";
        assert_eq!(store.database.connection.execute(fill, []).unwrap(), 4000);
        drop(store);
        assert!(on_disk(state) > 40_000_000);
        let (_store, ring) = Store::open(state).unwrap();
        assert!(ring.after(0, None, usize::MAX).len() < 500);
        assert!(on_disk(state) < 16 << 20, "{} bytes", on_disk(state));
    }
}
