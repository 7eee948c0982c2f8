//! An SQLite file of ours: opened, known for what it is, and put aside where it is damaged.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tracing::{debug, info, warn};

use crate::sys::files::unwritable;

/// What tells it from other SQLite files: `revl`.
const APPLICATION: i64 = 0x7265_766c;
/// How long it is waited for another process that uses it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The folder in the state folder. They are written all the time, and what the config names may be beside it: that
/// is watched.
pub const FOLDER: &str = "db";

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

/// The files of an open one, as they were opened.
#[derive(Debug, Default)]
pub struct OpenFiles(Vec<(PathBuf, Option<(u64, u64)>)>);

/// A file that is not at its place any more.
#[derive(Debug)]
pub struct Displaced {
    /// Which, and what became of it.
    pub what: String,
    /// Whether it is the database itself, and not what SQLite has beside it.
    pub is_main: bool,
}

impl OpenFiles {
    /// Which of them is missing at its place, or is another one.
    pub fn displaced(&self) -> Option<Displaced> {
        self.0.iter().enumerate().find_map(|(at, (path, identity))| {
            let found = self::identity(path).ok()?;
            if found == *identity {
                return None;
            }
            let what = if found.is_some() { "was replaced" } else { "was deleted" };
            Some(Displaced { what: format!("{} {what}", path.display()), is_main: at == 0 })
        })
    }

    /// The main file.
    pub fn main(&self) -> Option<&Path> {
        self.0.first().map(|(path, _)| path.as_path())
    }
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
        let is_new = matches!(identity(&path), Ok(None));
        let connection = Connection::open(&path).map_err(|error| explain(&path, &error))?;
        let database = Self { connection, path };
        let prepared = database.prepare(form).map_err(|error| database.explain(&error)).flatten();
        match prepared {
            Ok(()) => Ok(database),
            Err(error) => {
                drop(database);
                // What was begun on a full disk would count as damaged.
                if is_new {
                    for end in ["", "-wal", "-shm"] {
                        fs::remove_file(place(state, form, end)).ok();
                    }
                }
                Err(error)
            }
        }
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

    /// Opens the file at `at` to be read; errors name it `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_at(at: &Path, path: &Path, form: Form) -> Result<Self, DatabaseError> {
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
        Self::move_aside(state, form, "damaged")
    }

    /// Moves it, or what is left of it, out of the way, to a name with this word; where it is now.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn move_aside(state: &Path, form: Form, word: &str) -> Result<PathBuf, DatabaseError> {
        let path = place(state, form, "");
        let name = aside(state, form, word);
        let aside = |end: &str| place(state, form, &format!("{name}{end}"));
        // WAL and index belong to the file, and would be taken for those of the next one.
        for end in ["", "-wal", "-shm"] {
            match fs::rename(place(state, form, end), aside(end)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let reason = format!("cannot be put aside: {}", unwritable(&error));
                    return Err(DatabaseError::Unusable { path, reason });
                }
            }
        }
        Ok(aside(""))
    }

    /// Puts a copy of it beside it, as if it were damaged; where that is.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn copy_aside(&self, state: &Path, form: Form) -> Result<PathBuf, DatabaseError> {
        let aside = place(state, form, &aside(state, form, "damaged"));
        self.copy_to(&aside, |_| Ok(()))?;
        Ok(aside)
    }

    /// Writes a verified copy of it, which is on the disk then. It is consistent, whoever writes at the same time.
    /// A file that exists at `path` must be empty. `mark` may change what tells the copy from this one.
    ///
    /// # Errors
    /// It cannot be written, or the file, or its copy, is damaged.
    pub fn copy_to(
        &self,
        path: &Path,
        mark: impl Fn(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), DatabaseError> {
        let unusable = |reason| DatabaseError::Unusable { path: path.to_owned(), reason };
        let text = path.to_str().ok_or_else(|| unusable("its name is not UTF-8".to_owned()))?;
        let mut options = File::options();
        let made = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let made = made.map_err(|error| unusable(unwritable(&error)))?;
        let copied = self.connection.execute("VACUUM INTO ?1", [text]);
        copied.map_err(|error| match self.explain(&error) {
            damaged @ DatabaseError::Damaged { .. } => damaged,
            DatabaseError::Unusable { reason, .. } => unusable(reason),
            later @ DatabaseError::Later { .. } => later,
        })?;
        let copy = Connection::open(path).map_err(|error| explain(path, &error))?;
        mark(&copy).map_err(|error| explain(path, &error))?;
        verify(&copy, path)?;
        copy.close().map_err(|(_, error)| explain(path, &error))?;
        made.sync_all().map_err(|error| unusable(unwritable(&error)))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// It is damaged.
    pub fn verify(&self) -> Result<(), DatabaseError> {
        verify(&self.connection, &self.path)
    }

    /// The files that are open by now, as they are found at their places.
    pub fn files(&self) -> OpenFiles {
        let at = |end: &str| {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            let path = PathBuf::from(path);
            let identity = identity(&path).ok().flatten();
            (path, identity)
        };
        OpenFiles(["", "-wal", "-shm"].map(at).to_vec())
    }

    /// Closes it.
    ///
    /// # Errors
    /// SQLite cannot.
    pub fn close(self) -> Result<(), DatabaseError> {
        let Self { connection, path } = self;
        let config = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false);
        config.map_err(|error| explain(&path, &error))?;
        connection.close().map_err(|(_, error)| explain(&path, &error))
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
        // A WAL that is gone says that something was lost: only `close` removes it.
        if form.is_synced {
            let config = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            self.connection.set_db_config(config, true)?;
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

/// What is added to the name of one that is moved out of the way. Nothing that was put aside before is written over.
fn aside(state: &Path, form: Form, word: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let is_free = |name: &String| !place(state, form, name).exists();
    let mut names = (0..1000).map(|more| format!(".{word}-{}", now + more));
    names.find(is_free).unwrap_or_else(|| format!(".{word}-{now}"))
}

/// What tells the file at a path from another one. None if there is none.
///
/// # Errors
/// The file system does not answer that.
pub fn identity(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match path.metadata() {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn verify(connection: &Connection, path: &Path) -> Result<(), DatabaseError> {
    let damaged = |reason| DatabaseError::Damaged { path: path.to_owned(), reason };
    let found = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0));
    let found: String = found.map_err(|error| explain(path, &error))?;
    if found == "ok" { Ok(()) } else { Err(damaged(found)) }
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
        // SQLite has no code of its own for a full disk if it cannot enlarge the index of its log.
        Some(ErrorCode::SystemIoFailure) if is_index_size_error(error) && is_full(&path) => {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            unusable(path, unwritable(&full))
        }
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

/// Whether the index of the write-ahead log could not be enlarged.
fn is_index_size_error(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

/// Whether the file system of a file has no free block.
fn is_full(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    rustix::fs::statvfs(folder).is_ok_and(|stat| stat.f_bavail == 0)
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
