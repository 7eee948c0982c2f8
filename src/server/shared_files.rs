//! The content of files that several transfers send at once. A small file is read whole, once for all of
//! them; a large one is opened once, and read in pieces as its transfers need them.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, Weak};

use tokio::sync::Mutex;

use crate::sys::files::{Version, open, reason};

/// The largest file that is read whole, in bytes: NBPs are much smaller, and most kernels are larger.
const WHOLE: u64 = 8 << 20;

/// The content of a file, of one version of it.
#[derive(Clone, Debug)]
pub enum Content {
    /// All of it, in memory.
    Whole(Arc<Vec<u8>>),
    /// A file that is read in pieces.
    Open(Arc<OpenFile>),
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Open(file) => file.version.len,
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Whole(Arc::new(bytes))
    }
}

/// A large file. What is read from it is of the version that was opened, or an error.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    path: PathBuf,
    version: Version,
}

impl OpenFile {
    fn new(file: File, path: &Path, version: Version) -> Self {
        Self { file, path: path.to_owned(), version }
    }

    /// Reads this part of it into `bytes`, which is empty. It may wait for the disk.
    ///
    /// # Errors
    /// It cannot be read, or was changed or replaced since it was opened.
    pub fn read(&self, part: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), String> {
        self.try_read(part, bytes).map_err(|why| format!("{}: {why}", self.path.display()))
    }

    fn try_read(&self, part: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), String> {
        let len = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
        bytes
            .try_reserve_exact(len)
            .map_err(|_| "there is no memory for a piece of it".to_owned())?;
        bytes.resize(len, 0);
        let read = self.file.read_exact_at(bytes, part.start);
        // Whatever was read may be of another version if the file is one by now.
        let now = self.file.metadata().map_err(|error| reason(&error))?;
        if Version::of(&now) != self.version {
            return Err("the file was changed or replaced during the transfer; \
                        the machine gets the new one if it boots again"
                .to_owned());
        }
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends before its length".to_owned(),
            _ => reason(&error),
        })
    }
}

/// The content of files that several transfers send at once: kept while one of them has it.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<std::sync::Mutex<HashMap<PathBuf, Arc<Mutex<Kept>>>>>);

/// The version of a file that was read or opened last.
#[derive(Debug, Default)]
struct Kept {
    version: Option<Version>,
    content: WeakContent,
}

#[derive(Debug)]
enum WeakContent {
    Whole(Weak<Vec<u8>>),
    Open(Weak<OpenFile>),
}

impl Default for WeakContent {
    fn default() -> Self {
        Self::Whole(Weak::new())
    }
}

impl WeakContent {
    fn of(content: &Content) -> Self {
        match content {
            Content::Whole(bytes) => Self::Whole(Arc::downgrade(bytes)),
            Content::Open(file) => Self::Open(Arc::downgrade(file)),
        }
    }

    fn upgrade(&self) -> Option<Content> {
        match self {
            Self::Whole(bytes) => bytes.upgrade().map(Content::Whole),
            Self::Open(file) => file.upgrade().map(Content::Open),
        }
    }
}

impl Shared {
    /// Reads or opens a file, unless a transfer has the same version of it already.
    ///
    /// # Errors
    /// Why it cannot be read, and what would mend it.
    pub async fn read(&self, path: &Path) -> Result<Content, String> {
        // Held while reading, so that a rack that asks at once has the file read once; a file that
        // hangs holds up nobody who wants another.
        let mut kept = self.of(path).lock_owned().await;
        let path = path.to_owned();
        // Who waits may go away; what has begun goes on, so that a file that hangs has one reader only.
        let read = tokio::task::spawn_blocking(move || kept.read(&path)).await;
        read.map_err(|error| error.to_string())?
    }

    /// The same, once a check of the file has succeeded. Checks of one file run one after the other: however
    /// many clients request a file that hangs, one thread waits for it.
    ///
    /// # Errors
    /// Those of the check, and of [`Self::read`].
    pub async fn read_checked<C>(&self, path: &Path, check: C) -> Result<Content, String>
    where
        C: Future<Output = Result<(), String>> + Send + 'static,
    {
        let mut kept = self.of(path).lock_owned().await;
        let path = path.to_owned();
        let read = tokio::spawn(async move {
            check.await?;
            let read = tokio::task::spawn_blocking(move || kept.read(&path)).await;
            read.map_err(|error| error.to_string())?
        });
        read.await.map_err(|error| error.to_string())?
    }

    fn of(&self, path: &Path) -> Arc<Mutex<Kept>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(path.to_owned()).or_default())
    }
}

impl Kept {
    fn read(&mut self, path: &Path) -> Result<Content, String> {
        self.try_read(path).map_err(|why| format!("{}: {why}", path.display()))
    }

    fn try_read(&mut self, path: &Path) -> Result<Content, String> {
        let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
        let version = Some(Version::of(&metadata));
        if let Some(content) = self.content.upgrade()
            && self.version == version
        {
            return Ok(content);
        }
        let file = open(path)?;
        // What was opened may be newer.
        let version = Version::of(&file.metadata().map_err(|error| reason(&error))?);
        let content = if version.len <= WHOLE {
            Content::from(read_whole(file, version.len)?)
        } else {
            Content::Open(Arc::new(OpenFile::new(file, path, version)))
        };
        *self = Self { version: Some(version), content: WeakContent::of(&content) };
        Ok(content)
    }
}

fn read_whole(file: File, len: u64) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let room = content.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX));
    room.map_err(|_| "there is no memory for it".to_owned())?;
    // A file that grows meanwhile is read as far as it was.
    file.take(len).read_to_end(&mut content).map_err(|error| reason(&error))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::files::Version;

    fn bytes(content: &Content) -> &Arc<Vec<u8>> {
        let Content::Whole(bytes) = content else { panic!("{content:?}") };
        bytes
    }

    fn opened(content: &Content) -> &Arc<OpenFile> {
        let Content::Open(file) = content else { panic!("{content:?}") };
        file
    }

    #[tokio::test]
    async fn a_file_is_read_once_for_all_who_have_it_and_anew_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snponly.efi");
        std::fs::write(&path, "one").unwrap();
        let shared = Shared::default();
        let first = shared.read(&path).await.unwrap();
        assert!(Arc::ptr_eq(bytes(&first), bytes(&shared.read(&path).await.unwrap())));
        std::fs::write(&path, "another").unwrap();
        let second = shared.read(&path).await.unwrap();
        assert_eq!((&bytes(&first)[..], &bytes(&second)[..]), (&b"one"[..], &b"another"[..]));
        let other = folder.path().join("other");
        std::fs::write(&other, "ANOTHER").unwrap();
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        File::open(&other).unwrap().set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();
        let third = shared.read(&path).await.unwrap();
        assert_eq!(&bytes(&third)[..], b"ANOTHER", "of the same size and time");
        std::fs::remove_file(&path).unwrap();
        let error = shared.read(&path).await.unwrap_err();
        assert_eq!(error, format!("{}: there is no such file", path.display()));
    }

    #[tokio::test]
    async fn a_file_over_8_mib_is_opened_once_and_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("initrd");
        File::create(&path).unwrap().set_len(WHOLE).unwrap();
        let shared = Shared::default();
        assert_eq!(bytes(&shared.read(&path).await.unwrap()).len(), 8 << 20);
        // 4 TiB: were it read, there would be no memory for it.
        File::options().write(true).open(&path).unwrap().set_len(1 << 42).unwrap();
        let first = shared.read(&path).await.unwrap();
        assert_eq!(first.len(), 1 << 42);
        assert!(Arc::ptr_eq(opened(&first), opened(&shared.read(&path).await.unwrap())));
    }

    #[tokio::test]
    async fn refuses_a_piece_of_a_file_that_is_not_the_one_that_was_opened() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("written", |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"new", 0).unwrap();
            }),
            ("truncated", |path| {
                File::options().write(true).open(path).unwrap().set_len(9 << 20).unwrap()
            }),
            ("longer", |path| {
                File::options().write(true).open(path).unwrap().set_len(20 << 20).unwrap()
            }),
            ("replaced", |path| {
                let aside = path.with_extension("new");
                File::create(&aside).unwrap().set_len(10 << 20).unwrap();
                std::fs::rename(aside, path).unwrap();
            }),
            ("removed", |path| std::fs::remove_file(path).unwrap()),
        ];
        for (name, change) in changes {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("initrd");
            File::create(&path).unwrap().set_len(10 << 20).unwrap();
            let content = Shared::default().read(&path).await.unwrap();
            let file = opened(&content);
            let mut piece = Vec::new();
            file.read((9 << 20)..(10 << 20), &mut piece).unwrap();
            assert_eq!(piece, vec![0; 1 << 20]);
            let ticked = folder.path().join("clock");
            while {
                std::fs::write(&ticked, "").unwrap();
                Version::of(&std::fs::metadata(&ticked).unwrap()).changed == file.version.changed
            } {}
            change(&path);
            let error = file.read(0..512, &mut Vec::new()).unwrap_err();
            let wanted = "initrd: the file was changed or replaced during the transfer";
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }

    /// However many requests wait for a check that hangs, one of them runs.
    #[tokio::test]
    async fn checks_of_one_file_run_one_after_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, "kernel").unwrap();
        let shared = Shared::default();
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let hangs = || {
            let started = started.clone();
            async move {
                started.send(()).unwrap();
                std::future::pending().await
            }
        };
        let mut first = Box::pin(shared.read_checked(&path, hangs()));
        tokio::select! {
            _ = &mut first => panic!("the check hangs"),
            _ = starts.recv() => {}
        }
        // The client has gone; the check still hangs.
        drop(first);
        let mut second = Box::pin(shared.read_checked(&path, hangs()));
        assert!(polled_once(&mut second).await.is_none());
        assert!(starts.try_recv().is_err());
        let other = folder.path().join("other");
        std::fs::write(&other, "other").unwrap();
        let damaged = async { Err("it is damaged".to_owned()) };
        assert_eq!(shared.read_checked(&other, damaged).await.unwrap_err(), "it is damaged");
        let content = shared.read_checked(&other, async { Ok(()) }).await.unwrap();
        assert_eq!(&bytes(&content)[..], b"other");
    }

    /// Polls once.
    async fn polled_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = std::future::ready(()) => None,
        }
    }
}
