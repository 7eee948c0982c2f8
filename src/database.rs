//! An SQLite file of ours: opened, known for what it is, and put aside where it is damaged.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::{debug, info, warn};

use crate::files::unwritable;

/// What tells it from other SQLite files: `revl`.
const APPLICATION: i64 = 0x7265_766c;
/// How long it is waited for another process that uses it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folder in the state folder. They are written all the time, and what the config names may be beside it: that
/// is watched.
const FOLDER: &str = "db";

/// How many bytes of free pages are left in a file: a wave of long events needs as many again.
const MUCH_FREE: u64 = 8 << 20;
/// The size that the write-ahead log is cut to, in bytes, after a reader has held up its reset.
const WAL_BYTES: u32 = 4 << 20;

/// The mode of that folder: which machines there are, and what they ask for, is for the daemon's user alone.
const MODE: u32 = 0o700;

/// Of what form a file is.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Its name.
    pub name: &'static str,
    /// Its tables.
    pub tables: &'static str,
    /// A later one that can read this one has a greater number.
    pub version: i64,
    /// Whether a commit is on the disk when it returns; else it is a moment later, and never half.
    pub is_synced: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is none of ours, or broken.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// It is of a later version.
    #[error(
        "{} is of a later version of reveille (its form is {form}, this one knows {known}): it stays as it is", path.display()
    )]
    Later {
        /// Which.
        path: PathBuf,
        /// Its form.
        form: i64,
        /// Ours.
        known: i64,
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

/// An open one.
#[derive(Debug)]
pub struct Database {
    /// To it.
    pub connection: Connection,
    path: PathBuf,
}

impl Database {
    /// Opens that of a state folder; a new one where there is none.
    ///
    /// # Errors
    /// It is damaged, or cannot be used.
    pub fn open(state: &Path, form: Form) -> Result<Self, DatabaseError> {
        let path = place(state, form, "");
        let folder = state.join(FOLDER);
        let make = || {
            fs::create_dir_all(state)?;
            match DirBuilder::new().mode(MODE).create(&folder) {
                Err(error) if !folder.is_dir() => Err(error),
                _ => Ok(()),
            }
        };
        make().map_err(|error| DatabaseError::Unusable {
            path: folder.clone(),
            reason: unwritable(&error),
        })?;
        // SQLite would take it for a new one.
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == 0) {
            return Err(DatabaseError::Damaged { path, reason: "it is empty".to_owned() });
        }
        let connection = Connection::open(&path).map_err(|error| explain(&path, &error))?;
        let database = Self { connection, path };
        let prepared = database.prepare(form);
        prepared.map_err(|error| database.explain(&error))??;
        Ok(database)
    }

    /// Opens that of a state folder to be read only, while somebody else may write it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn read(state: &Path, form: Form) -> Result<Self, DatabaseError> {
        let path = place(state, form, "");
        match Self::read_at(&path, &path, form) {
            // To read it SQLite has to write beside it: on a disk that is full, or may not be written, a copy
            // is read.
            Err(DatabaseError::Unusable { .. }) if path.exists() => {
                let unusable = |error: std::io::Error| DatabaseError::Unusable {
                    path: path.clone(),
                    reason: format!("it cannot be copied to be read: {}", unwritable(&error)),
                };
                let folder = tempfile::tempdir().map_err(unusable)?;
                let copy = folder.path().join(form.name);
                fs::copy(&path, &copy).map_err(unusable)?;
                let wal = place(state, form, "-wal");
                if wal.exists() {
                    let copy = folder.path().join(format!("{}-wal", form.name));
                    fs::copy(wal, copy).map_err(unusable)?;
                }
                // What is open stays there until it is closed.
                Self::read_at(&copy, &path, form)
            }
            read => read,
        }
    }

    fn read_at(at: &Path, path: &Path, form: Form) -> Result<Self, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(at, flags);
        let connection = opened.map_err(|error| explain(path, &error))?;
        let database = Self { connection, path: path.to_owned() };
        let looked = database.connection.busy_timeout(PATIENCE).and_then(|()| database.look(form));
        looked.map_err(|error| database.explain(&error))??;
        Ok(database)
    }

    /// Puts a damaged one out of the way; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn set_aside(state: &Path, form: Form) -> Result<PathBuf, DatabaseError> {
        let path = place(state, form, "");
        let aside = |end: &str| aside(state, form, end);
        fs::rename(&path, aside("")).map_err(|error| DatabaseError::Unusable {
            path: path.clone(),
            reason: format!("cannot be put aside: {}", unwritable(&error)),
        })?;
        // They belong to it, and would be taken for those of the new one.
        for end in ["-wal", "-shm"] {
            fs::rename(place(state, form, end), aside(end)).ok();
        }
        Ok(aside(""))
    }

    /// Puts a copy of it beside it, as where it is damaged; where that is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn copy_aside(&self, state: &Path, form: Form) -> Result<PathBuf, DatabaseError> {
        let aside = aside(state, form, "");
        let copied = self.connection.execute("VACUUM INTO ?1", [aside.to_string_lossy()]);
        copied.map_err(|error| self.explain(&error))?;
        Ok(aside)
    }

    /// Gives back to the disk what was removed, where that is much: SQLite keeps it for what comes. Without it the file
    /// serves as well, so that a disk that is too full for it is no error.
    pub fn shrink(&self) {
        let number =
            |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
        let free = || Ok::<_, rusqlite::Error>(number("freelist_count")? * number("page_size")?);
        match free() {
            Ok(free) if free < MUCH_FREE => {}
            Ok(free) => match self.connection.execute_batch("VACUUM") {
                Ok(()) => {
                    info!("{}: {} MiB given back to the disk", self.path.display(), free >> 20)
                }
                Err(error) => debug!("{}: cannot be made smaller: {error}", self.path.display()),
            },
            Err(error) => debug!("{}: {error}", self.path.display()),
        }
    }

    /// What an error of SQLite means for who runs this.
    pub fn explain(&self, error: &rusqlite::Error) -> DatabaseError {
        explain(&self.path, error)
    }

    fn prepare(&self, form: Form) -> rusqlite::Result<Result<(), DatabaseError>> {
        self.connection.busy_timeout(PATIENCE)?;
        let empty = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
        let is_empty: bool = self.connection.query_row(empty, [], |row| row.get(0))?;
        if !is_empty && let Err(other) = self.look(form)? {
            return Ok(Err(other));
        }
        // Readers do not hold up the writer so, and a commit is one write.
        self.connection.pragma_update(None, "journal_mode", "WAL")?;
        let synchronous = if form.is_synced { "FULL" } else { "NORMAL" };
        self.connection.pragma_update(None, "synchronous", synchronous)?;
        self.connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
        if is_empty {
            let Form { tables, version, .. } = form;
            self.connection.execute_batch(&format!(
                "BEGIN; {tables}; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {version}; COMMIT;"
            ))?;
        }
        Ok(Ok(()))
    }

    /// Whether it is of a form that can be read.
    fn look(&self, form: Form) -> rusqlite::Result<Result<(), DatabaseError>> {
        let number =
            |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let path = self.path.clone();
        if number("application_id")? != APPLICATION {
            let reason = "it is no file of reveille's".to_owned();
            return Ok(Err(DatabaseError::Damaged { path, reason }));
        }
        let (known, form) = (form.version, number("user_version")?);
        Ok(if form > known { Err(DatabaseError::Later { path, form, known }) } else { Ok(()) })
    }
}

/// Keeps others out of the databases of a state folder: an earlier version, or a copy from a backup, may have left
/// their folder open to them.
pub fn close_to_others(state: &Path) {
    let folder = state.join(FOLDER);
    let Ok(metadata) = fs::metadata(&folder) else {
        return;
    };
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return;
    }
    match fs::set_permissions(&folder, Permissions::from_mode(MODE)) {
        Ok(()) => warn!(
            "state: {} had mode {mode:03o}, which let others in; it has mode {MODE:03o} now",
            folder.display()
        ),
        Err(error) => warn!(
            "state: {} has mode {mode:03o}, which lets others in, and cannot be given mode {MODE:03o}: {}; chmod it",
            folder.display(),
            unwritable(&error)
        ),
    }
}

/// Where one is, or what SQLite has beside it.
pub fn place(state: &Path, form: Form, end: &str) -> PathBuf {
    state.join(FOLDER).join(format!("{}{end}", form.name))
}

/// Where a damaged one goes.
fn aside(state: &Path, form: Form, end: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    place(state, form, &format!(".damaged-{now}{end}"))
}

fn explain(path: &Path, error: &rusqlite::Error) -> DatabaseError {
    let path = path.to_owned();
    let unusable = |path, reason: String| DatabaseError::Unusable { path, reason };
    match error {
        // What it holds is not what was put into it.
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => {
            return DatabaseError::Damaged { path, reason: error.to_string() };
        }
        _ => {}
    }
    match error.sqlite_error_code() {
        // That it has no such table is no matter of permissions.
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) => {
            DatabaseError::Damaged { path, reason: error.to_string() }
        }
        Some(ErrorCode::DiskFull) => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            unusable(path, unwritable(&full))
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            let user = nix::unistd::geteuid();
            let is_there = path.exists();
            let what = if is_there { "may not use it" } else { "may not make it there" };
            unusable(path, format!("user {user} {what} ({error})"))
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            unusable(path, "another process holds it".to_owned())
        }
        _ => unusable(path, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: Form =
        Form { name: "x.db", tables: "CREATE TABLE x (x)", version: 1, is_synced: false };

    #[test]
    fn the_folder_of_databases_is_for_its_owner_alone_also_one_that_was_not() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        let mode = || fs::metadata(&folder).unwrap().permissions().mode() & 0o7777;
        close_to_others(state.path());
        drop(Database::open(state.path(), FORM).unwrap());
        assert_eq!(mode(), 0o700);
        for wide in [0o755, 0o770, 0o701, 0o2777] {
            fs::set_permissions(&folder, Permissions::from_mode(wide)).unwrap();
            drop(Database::open(state.path(), FORM).unwrap());
            close_to_others(state.path());
            assert_eq!(mode(), 0o700, "{wide:o}");
        }
        // Stricter than ours is the operator's business.
        fs::set_permissions(&folder, Permissions::from_mode(0o500)).unwrap();
        close_to_others(state.path());
        assert_eq!(mode(), 0o500);
    }
}
