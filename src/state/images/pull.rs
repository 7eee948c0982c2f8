//! Fetches one set: from its factory or its address, through a folder beside its place, into the store.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Client, Url};

use super::store::{Content, Gathering, Manifest, Store, StoreError, Stored, sum};
use crate::factory::{Factory, FactoryError};
use crate::http_client;
use crate::http_client::download::{FetchError, Patience, Progress, download, size};
use crate::pure::catalog::image_set::{CMDLINE, FILE, INITRAMFS, KERNEL};
use crate::pure::checksum::Sha256;
use crate::pure::image_source::{Origin, Recipe, Wanted};
use crate::pure::printable::is_hidden;
use crate::pure::redact::shown;
use crate::sys::files::{self, Bound};

/// How often it is looked whether another process is done with a set.
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// What is whole of a set that is being gathered.
const WHOLE: &str = ".whole.json";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What is not here; the newest is the one that it was.
    Missing,
    /// The newest, as its factory says now.
    Newest,
}

/// A set that is here.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// It.
    pub stored: Stored,
    /// Whether something was fetched for it.
    pub is_new: bool,
    /// What is to be known of it.
    pub doubts: Vec<String>,
}

/// Why a set is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A file of it.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The factory.
    #[error(transparent)]
    Factory(#[from] FactoryError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What came is not what it should be.
    #[error("{0}")]
    Content(String),
}

/// Fetches a set, unless it is here.
///
/// # Errors
/// Why it is not to be had, and what would mend that. What came of it stays for the next time.
pub async fn pull(
    store: &Store,
    wanted: &Wanted,
    (ask, patience): (Ask, Patience),
    report: &mut dyn FnMut(Progress),
) -> Result<Pulled, PullError> {
    match &wanted.origin {
        Origin::Factory(recipe) => {
            Making { store, recipe, patience }.pull(wanted, ask, report).await
        }
        Origin::Web(url, sha256) => {
            from_address((store, patience), wanted, (url, *sha256), report).await
        }
    }
}

async fn from_address(
    (store, patience): (&Store, Patience),
    wanted: &Wanted,
    (url, sha256): (&Url, Option<Sha256>),
    report: &mut dyn FnMut(Progress),
) -> Result<Pulled, PullError> {
    let gathering = match gathering(store, wanted).await? {
        Found::Here(stored) => return Ok(here(*stored, Vec::new())),
        Found::Gathering(gathering) => gathering,
    };
    let client = http_client::client(&[]).map_err(PullError::Content)?;
    let path = gathering.folder.join(FILE);
    let fetched = download(&client, url, &path, (sha256, patience), report).await?;
    let content = Content { len: fetched.len, sha256: fetched.sha256 };
    not_empty(url, content)?;
    let manifest = Manifest {
        from: shown(url).to_string(),
        schematic: None,
        version: None,
        arch: None,
        extensions: Vec::new(),
        fetched_at: now(),
        files: BTreeMap::from([(FILE.to_owned(), content)]),
    };
    finished(store, wanted, (gathering, manifest), Vec::new())
}

/// What a factory makes, on its way.
struct Making<'a> {
    store: &'a Store,
    recipe: &'a Recipe,
    patience: Patience,
}

impl Making<'_> {
    async fn pull(
        &self,
        wanted: &Wanted,
        ask: Ask,
        report: &mut dyn FnMut(Progress),
    ) -> Result<Pulled, PullError> {
        let Self { store, recipe, patience } = *self;
        let factory = Factory::of(recipe, patience)?;
        let version = match &recipe.version {
            Some(version) => format!("v{version}"),
            None => match store.pinned(&wanted.set).filter(|_| ask == Ask::Missing) {
                Some(version) => version,
                None => format!("v{}", factory.latest().await?),
            },
        };
        let exact = Wanted { set: recipe.set_of(&version), origin: wanted.origin.clone() };
        let pulled = match gathering(store, &exact).await? {
            Found::Here(stored) => here(*stored, Vec::new()),
            Found::Gathering(gathering) => {
                let made = self.made(&factory, &version, &gathering, report).await;
                // Which extension it does not know, its answer to the image does not always say.
                let (manifest, doubts) = match made {
                    Err(error) => return Err(self.explained(&factory, &version, error).await),
                    Ok(made) => made,
                };
                finished(store, &exact, (gathering, manifest), doubts)?
            }
        };
        if recipe.version.is_some() {
            return Ok(pulled);
        }
        store.pin(&wanted.set, &version)?;
        let stored = store.find(&wanted.set);
        Ok(Pulled { stored: stored.unwrap_or(pulled.stored), ..pulled })
    }

    /// Fetches all files of one version.
    async fn made(
        &self,
        factory: &Factory,
        version: &str,
        gathering: &Gathering,
        report: &mut dyn FnMut(Progress),
    ) -> Result<(Manifest, Vec<String>), PullError> {
        let Self { recipe, patience, .. } = *self;
        let made = factory.make(&recipe.schematic).await?;
        let mut doubts: Vec<String> = made.doubt().into_iter().collect();
        let arch = recipe.arch;
        let files = [
            (CMDLINE, format!("cmdline-metal-{arch}")),
            (KERNEL, format!("kernel-{arch}")),
            (INITRAMFS, format!("initramfs-{arch}.xz")),
        ];
        let files = files.map(|(name, remote)| (name, factory.image(&made.id, version, &remote)));
        let mut whole = Whole::read(&gathering.folder);
        let sizes = sizes(factory.client(), files.iter().map(|(_, url)| url)).await;
        let total = sizes.iter().copied().sum();
        let mut before = 0;
        for ((name, url), size) in files.iter().zip(sizes) {
            let path = gathering.folder.join(name);
            let content = match whole.files.get(*name) {
                Some(content) => *content,
                None => {
                    let report = |progress: Progress| {
                        let received = before + progress.received;
                        report(Progress { received, total });
                    };
                    let expected = (None, patience);
                    let fetched = download(factory.client(), url, &path, expected, report).await?;
                    Content { len: fetched.len, sha256: fetched.sha256 }
                }
            };
            not_empty(url, content)?;
            is_whole(url, content, size)?;
            before += content.len;
            report(Progress { received: before, total });
            whole.add(&gathering.folder, name, content);
        }
        doubts.extend(odd_line(&gathering.folder.join(CMDLINE))?);
        fs::remove_file(gathering.folder.join(WHOLE)).ok();
        let manifest = Manifest {
            from: shown(&recipe.factory).to_string(),
            schematic: Some(made.id.to_string()),
            version: Some(version.to_owned()),
            arch: Some(arch.to_string()),
            extensions: recipe.schematic.extensions.clone(),
            fetched_at: now(),
            files: whole.files,
        };
        Ok((manifest, doubts))
    }

    /// The same failure, with what the factory does not know of what it was asked for.
    async fn explained(&self, factory: &Factory, version: &str, error: PullError) -> PullError {
        let PullError::Fetch(fetch) = &error else {
            return error;
        };
        if !fetch.failure.is_a_refusal() {
            return error;
        }
        let unknown = factory.unknown(version, &self.recipe.schematic.extensions).await;
        unknown.map_or(error, PullError::Factory)
    }
}

/// How a set is found.
enum Found {
    Here(Box<Stored>),
    Gathering(Gathering),
}

/// A set that is here, or the right to gather it, once no other process is at it.
async fn gathering(store: &Store, wanted: &Wanted) -> Result<Found, StoreError> {
    loop {
        if let Some(stored) = store.find(&wanted.set) {
            return Ok(Found::Here(Box::new(stored)));
        }
        if let Some(gathering) = store.gather(&wanted.set)? {
            // It may have come while the lock was waited for.
            return Ok(match store.find(&wanted.set) {
                Some(stored) => Found::Here(Box::new(stored)),
                None => Found::Gathering(gathering),
            });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn here(stored: Stored, doubts: Vec<String>) -> Pulled {
    Pulled { stored, is_new: false, doubts }
}

fn finished(
    store: &Store,
    wanted: &Wanted,
    (gathering, manifest): (Gathering, Manifest),
    doubts: Vec<String>,
) -> Result<Pulled, PullError> {
    gathering.finish(&manifest)?;
    let stored = store.find(&wanted.set).ok_or_else(|| {
        PullError::Content(format!(
            "{} was removed by somebody else",
            store.place(&wanted.set).display()
        ))
    })?;
    Ok(Pulled { stored, is_new: true, doubts })
}

/// Which files of a set that was begun are whole.
#[derive(Default)]
struct Whole {
    files: BTreeMap<String, Content>,
}

impl Whole {
    /// Those that still are what they were when they came.
    fn read(folder: &Path) -> Self {
        let text = fs::read(folder.join(WHOLE)).unwrap_or_default();
        let mut files: BTreeMap<String, Content> =
            serde_json::from_slice(&text).unwrap_or_default();
        files.retain(|name, content| {
            !name.contains('/') && sum(&folder.join(name)).is_ok_and(|found| found == *content)
        });
        Self { files }
    }

    fn add(&mut self, folder: &Path, name: &str, content: Content) {
        self.files.insert(name.to_owned(), content);
        let text = serde_json::to_vec(&self.files).expect("it is plain text");
        // Without it that file is fetched again if this is broken off.
        fs::write(folder.join(WHOLE), text).ok();
    }
}

/// The bytes of each file, where the server tells them.
async fn sizes(client: &Client, urls: impl Iterator<Item = &Url>) -> Vec<Option<u64>> {
    let mut sizes = Vec::new();
    for url in urls {
        sizes.push(size(client, url).await);
    }
    sizes
}

/// An answer that promises fewer bytes than there are looks whole; what HEAD said tells.
fn is_whole(url: &Url, content: Content, size: Option<u64>) -> Result<(), PullError> {
    match size.filter(|size| *size != content.len) {
        None => Ok(()),
        Some(size) => Err(PullError::Content(format!(
            "{} came with {} bytes, and its server said before that it has {size}",
            shown(url),
            content.len
        ))),
    }
}

fn not_empty(url: &Url, content: Content) -> Result<(), PullError> {
    if content.len > 0 {
        return Ok(());
    }
    Err(PullError::Content(format!("{} is empty", shown(url))))
}

/// What is odd about a kernel line, if it is one at all.
fn odd_line(path: &Path) -> Result<Option<String>, PullError> {
    let bad =
        |why: &str| PullError::Content(format!("{} is no kernel line: {why}", path.display()));
    let bytes = files::read(path, Bound::KERNEL_LINE).map_err(|why| bad(&why))?;
    let text = String::from_utf8(bytes).map_err(|_| bad("it is no text"))?;
    if text.trim().lines().count() != 1 || text.trim().contains(is_hidden) {
        return Err(bad("it is not one line of text"));
    }
    let is_for_metal = text.split_whitespace().any(|word| word == "talos.platform=metal");
    let odd = "its kernel line does not say talos.platform=metal, without which Talos does not know where it runs";
    Ok((!is_for_metal).then(|| odd.to_owned()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
