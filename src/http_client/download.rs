//! One file from the web to the disk: tried again, and gone on with where it was broken off.
//!
//! What has come lies in `<file>.part` until all of it is here, and what it is a part of beside it. It is
//! gone on with only where the server says by a strong ETag, or by the time of the last change, that it
//! still has the same (RFC 9110 section 13.1.5, `If-Range`); else the file is fetched anew.

mod failure;
mod persist;

use std::io;
use std::path::{Path, PathBuf};

use reqwest::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::Digest;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter};

use super::cause;
use crate::pure::checksum::Sha256;
use crate::pure::redact::shown;

pub use self::failure::{Failure, FetchError};
pub use self::persist::{Patience, json, persist, send, size};

/// What is written at once.
const BUFFER: usize = 1 << 20;

/// A file that is on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Its bytes.
    pub len: u64,
    /// Their sum.
    pub sha256: Sha256,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub received: u64,
    /// Bytes in all, where the server has said so.
    pub total: Option<u64>,
}

/// What a part is a part of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PartOf {
    url: String,
    /// The ETag or Last-Modified of the answer.
    validator: String,
    total: u64,
}

impl PartOf {
    /// What the answer says of itself, where that is enough to go on with it later.
    fn of(url: &Url, response: &Response) -> Option<Self> {
        let headers = response.headers();
        let says = |name| headers.get(name)?.to_str().ok().map(str::to_owned);
        let etag: Option<String> = says(ETAG);
        // RFC 9110 section 13.1.5: a weak one must not be used.
        let etag = etag.filter(|etag| !etag.starts_with("W/"));
        let takes_ranges = says(ACCEPT_RANGES).is_none_or(|ranges: String| ranges != "none");
        let validator = etag.or_else(|| says(LAST_MODIFIED)).filter(|_| takes_ranges)?;
        Some(Self { url: sum_of(url), validator, total: response.content_length()? })
    }
}

/// A URL may hold a password: it is told from others by its sum.
fn sum_of(url: &Url) -> String {
    Sha256::of(url.as_str().as_bytes()).to_string()
}

/// Where a file is gathered until it is whole.
struct Gathering<'a> {
    url: &'a Url,
    part: PathBuf,
    part_of: PathBuf,
}

/// Fetches `url` to `path`, which is there only once it is whole, has the expected sum and is on the disk.
///
/// # Errors
/// Why it cannot be had. What came stays for the next time, unless the disk is full.
pub async fn download(
    client: &Client,
    url: &Url,
    path: &Path,
    (expected, patience): (Option<Sha256>, Patience),
    mut progress: impl FnMut(Progress),
) -> Result<Fetched, FetchError> {
    let beside = |suffix: &str| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        path.with_file_name(name)
    };
    let gathering = Gathering { url, part: beside(".part"), part_of: beside(".part.json") };
    let attempt = async || gathering.attempt(client, &mut progress).await;
    let fetched = persist(url, patience, attempt).await;
    let placed = match fetched {
        Ok(fetched) => match expected {
            Some(expected) if expected != fetched.sha256 => {
                Err(Failure::WrongSum { found: fetched.sha256, expected })
            }
            Some(_) | None => gathering.place(path).await.map(|()| fetched),
        },
        Err(error) => {
            if let Failure::Disk { .. } = error.failure {
                gathering.remove().await;
            }
            return Err(error);
        }
    };
    if placed.is_err() {
        gathering.remove().await;
    }
    placed.map_err(|failure| FetchError { url: shown(url).to_string(), failure, attempts: 1 })
}

impl Gathering<'_> {
    async fn attempt(
        &self,
        client: &Client,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Fetched, Failure> {
        let begun = self.begun().await;
        let mut request = client.get(self.url.clone());
        if let Some((PartOf { validator, .. }, received, _)) = &begun {
            request =
                request.header(RANGE, format!("bytes={received}-")).header(IF_RANGE, validator);
        }
        let mut response = send(request).await?;
        let (mut received, mut hasher, mut file) = match begun {
            Some((of, received, hasher)) if goes_on(&response, &of, received) => {
                let options = OpenOptions::new().append(true).to_owned();
                (received, hasher, self.opened(options).await?)
            }
            // The server has another version by now, or always sends all of it.
            Some(_) | None => {
                let file = self.begin(&response).await?;
                (0, sha2::Sha256::new(), file)
            }
        };
        let total = response.content_length().map(|rest| received + rest);
        progress(Progress { received, total });
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    hasher.update(&chunk);
                    self.written(file.write_all(&chunk).await)?;
                    received += chunk.len() as u64;
                    progress(Progress { received, total });
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    break Err(match total.filter(|_| !error.is_timeout()) {
                        Some(expected) => Failure::CutOff { received, expected },
                        None => Failure::Ended { received, why: cause(error) },
                    });
                }
            }
        };
        self.written(file.flush().await)?;
        ended?;
        self.written(file.into_inner().sync_all().await)?;
        Ok(Fetched { len: received, sha256: Sha256::ended(hasher) })
    }

    /// What came before: how much, and its sum so far.
    async fn begun(&self) -> Option<(PartOf, u64, sha2::Sha256)> {
        let text = fs::read(&self.part_of).await.ok()?;
        let of: PartOf = serde_json::from_slice(&text).ok()?;
        if of.url != sum_of(self.url) {
            return None;
        }
        let mut file = File::open(&self.part).await.ok()?;
        let (mut hasher, mut received) = (sha2::Sha256::new(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer).await.ok()? {
                0 => break,
                len => {
                    hasher.update(&buffer[..len]);
                    received += len as u64;
                }
            }
        }
        (received > 0 && received < of.total).then_some((of, received, hasher))
    }

    /// Begins anew with an answer, if there is room for it.
    async fn begin(&self, response: &Response) -> Result<BufWriter<File>, Failure> {
        self.remove().await;
        if let Some(total) = response.content_length() {
            self.has_room(total)?;
        }
        let options = OpenOptions::new().create_new(true).write(true).to_owned();
        let file = self.opened(options).await?;
        if let Some(of) = PartOf::of(self.url, response) {
            let text = serde_json::to_vec(&of).expect("it is plain text");
            self.written(fs::write(&self.part_of, text).await)?;
        }
        Ok(file)
    }

    /// A disk that others need too is not filled to its end, to no avail.
    fn has_room(&self, total: u64) -> Result<(), Failure> {
        let folder = self.part.parent().unwrap_or(Path::new("."));
        let Ok(stat) = rustix::fs::statvfs(folder) else {
            return Ok(());
        };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= total {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let reason = format!(
            "it has {} MiB, and {} MiB are free there; `reveille images prune` removes what no profile names",
            mib(total),
            free >> 20
        );
        Err(Failure::Disk { path: self.part.clone(), reason })
    }

    async fn opened(&self, options: OpenOptions) -> Result<BufWriter<File>, Failure> {
        let file = self.written(options.open(&self.part).await)?;
        Ok(BufWriter::with_capacity(BUFFER, file))
    }

    fn written<T>(&self, result: io::Result<T>) -> Result<T, Failure> {
        result.map_err(|error| Failure::disk(&self.part, &error))
    }

    async fn place(&self, path: &Path) -> Result<(), Failure> {
        fs::rename(&self.part, path).await.map_err(|error| Failure::disk(path, &error))?;
        fs::remove_file(&self.part_of).await.ok();
        Ok(())
    }

    async fn remove(&self) {
        fs::remove_file(&self.part).await.ok();
        fs::remove_file(&self.part_of).await.ok();
    }
}

/// Whether an answer is the rest of what has come: RFC 9110 section 14.4.
fn goes_on(response: &Response, of: &PartOf, received: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let rest = format!("bytes {received}-{}/{}", of.total - 1, of.total);
    response.status() == StatusCode::PARTIAL_CONTENT && range == Some(rest.as_str())
}
