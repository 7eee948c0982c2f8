//! Opens and reads files with bounds, and words I/O errors for an operator.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What an I/O error means to who set the path, and what would mend it.
pub fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            let user = nix::unistd::geteuid();
            format!("user {user} may not read it; see its owner and mode, and those of its folders")
        }
        io::ErrorKind::NotADirectory => "one of its folders is a file".to_owned(),
        // There is no stable name for it yet.
        _ if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            "its symbolic links lead to one another, without an end".to_owned()
        }
        _ => error.to_string(),
    }
}

/// What an I/O error means to who keeps something, and what would mend it.
pub fn unwritable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; `reveille images prune` removes what no profile names".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("user {} may not write there", nix::unistd::geteuid())
        }
        io::ErrorKind::ReadOnlyFilesystem => "its file system is mounted read-only".to_owned(),
        _ => error.to_string(),
    }
}

/// Opens a regular file. Anything else is refused before it is opened: to open a pipe is to wait for
/// its other end, and a device has no end.
///
/// # Errors
/// Why it cannot be had, and what would mend it.
pub fn open(path: &Path) -> Result<File, String> {
    let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    File::open(path).map_err(|error| reason(&error))
}

/// Whether a file is there and may be read.
///
/// # Errors
/// Why not, and what would mend it.
pub fn readable(path: &Path) -> Result<(), String> {
    open(path).map(drop)
}

/// The most bytes that a file of one kind may have. A larger one is a mistake, or would fill the memory.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// The kind, with its article.
    kind: &'static str,
    bytes: u64,
}

impl Bound {
    /// A config of 100,000 machines has 20 MiB.
    pub const CONFIG: Self = Self { kind: "a config", bytes: 64 << 20 };
    /// A template of a boot script.
    pub const TEMPLATE: Self = Self { kind: "a template", bytes: 1 << 20 };
    /// An answer file, which is a template too.
    pub const ANSWER_FILE: Self = Self { kind: "an answer file", bytes: 16 << 20 };
    /// A token.
    pub const SECRET: Self = Self { kind: "a secret", bytes: 64 << 10 };
    /// A host's whole list of CAs has 250 KiB.
    pub const CERTIFICATES: Self = Self { kind: "a file of certificates", bytes: 4 << 20 };
    /// Linux on x86 takes no longer one.
    pub const KERNEL_LINE: Self = Self { kind: "a kernel line", bytes: 4096 };

    fn check(self, len: u64) -> Result<(), String> {
        let Self { kind, bytes } = self;
        if len <= bytes {
            return Ok(());
        }
        let most = match bytes >> 20 {
            0 => format!("{} KiB", bytes >> 10),
            mib => format!("{mib} MiB"),
        };
        Err(format!(
            "it has {len} bytes, {kind} may have {bytes} ({most}), so it is not read; is this the right file?"
        ))
    }
}

/// Reads a file, unless it has more bytes than one of its kind may have.
///
/// # Errors
/// Why it cannot be read, and what would mend it.
pub fn read(path: &Path, bound: Bound) -> Result<Vec<u8>, String> {
    read_opened(open(path)?, bound)
}

/// Reads a file that [`open`] has opened.
///
/// # Errors
/// As [`read`].
pub fn read_opened(file: File, bound: Bound) -> Result<Vec<u8>, String> {
    bound.check(file.metadata().map_err(|error| reason(&error))?.len())?;
    let mut bytes = Vec::new();
    // Some files have no length, as those of /proc, and some grow meanwhile.
    let mut file = file.take(bound.bytes + 1);
    file.read_to_end(&mut bytes).map_err(|error| reason(&error))?;
    bound.check(bytes.len() as u64)?;
    Ok(bytes)
}

/// Reads a text file.
///
/// # Errors
/// Why it cannot be read, and what would mend it.
pub fn read_text(path: &Path, bound: Bound) -> Result<String, String> {
    text(read(path, bound)?)
}

/// The text of a file.
///
/// # Errors
/// It is not UTF-8, and in which line.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("its line {line} is not UTF-8; save it in that encoding")
    })
}

/// What tells one version of a file from another: a file that is replaced is another inode, one that is
/// written has another time, down to the kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    inode: (u64, u64),
    pub(crate) changed: (i64, i64),
    pub(crate) len: u64,
}

impl Version {
    /// That of a file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            len: metadata.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_file_over_its_bound_unread_and_what_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        for bound in [Bound::CONFIG, Bound::TEMPLATE, Bound::ANSWER_FILE, Bound::SECRET] {
            let sparse = File::create(&path).unwrap();
            // It takes no room on the disk; to read it would take more memory than there is.
            sparse.set_len(1 << 43).unwrap();
            let refused = read_text(&path, bound).unwrap_err();
            assert!(refused.starts_with("it has 8796093022208 bytes, "), "{refused}");
            assert!(refused.contains(&format!(" may have {} (", bound.bytes)), "{refused}");
            sparse.set_len(bound.bytes + 1).unwrap();
            assert!(read_text(&path, bound).is_err());
            sparse.set_len(bound.bytes).unwrap();
            assert_eq!(read_text(&path, bound).unwrap().len() as u64, bound.bytes);
        }
        let refused = read_text(&path, Bound::KERNEL_LINE).unwrap_err();
        assert_eq!(
            refused,
            "it has 65536 bytes, a kernel line may have 4096 (4 KiB), so it is not read; is this the right file?"
        );
        // What has no length is read up to the bound, and no further.
        let zeros = File::open("/dev/zero").unwrap();
        assert!(read_opened(zeros, Bound::SECRET).unwrap_err().starts_with("it has 65537 bytes, "));
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [Path::new("/dev/zero"), &fifo, folder.path()] {
            assert_eq!(read_text(path, Bound::CONFIG).unwrap_err(), "it is no regular file");
        }
    }
}
