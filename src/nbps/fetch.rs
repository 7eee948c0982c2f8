//! Getting a release archive of iPXE: over HTTP, or from this host's disk.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;

use reqwest::{Response, StatusCode, Url};

use crate::http_client::{self, cause};
use crate::pure::checksum::Sha256;
use crate::pure::redact::shown;
use crate::sys::files::{open, reason};

/// The newest release of iPXE.
pub const NEWEST: &str = "https://github.com/ipxe/ipxe/releases/latest/download/ipxeboot.tar.gz";

/// iPXE 2.0.0's archive has 12 MB.
const MAX_ARCHIVE: u64 = 64 << 20;

/// What helps where there is no way out.
const OFFLINE: &str = "without internet here, download it elsewhere and name the file: `reveille nbps fetch ./ipxeboot.tar.gz`";

/// Where an archive comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A web server.
    Web(Url),
    /// This host's disk.
    File(PathBuf),
}

/// Why an origin is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be an http:// or https:// URL, or a file on this host")]
pub struct NoOrigin;

impl FromStr for Origin {
    type Err = NoOrigin;

    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        url.map(Self::Web).ok_or(NoOrigin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Web(url) => shown(url).fmt(f),
        }
    }
}

/// Why an archive could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {origin}: {failure}")]
pub struct FetchError {
    origin: Origin,
    failure: Failure,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}; {OFFLINE}")]
    Unreachable(String),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Redirect(String),
    #[error("the server answers {0}")]
    Status(StatusCode),
    #[error("the connection ended after {received} of {expected} bytes; try again")]
    CutOff { received: u64, expected: u64 },
    #[error("the connection ended after {received} bytes: {why}; try again")]
    Ended { received: u64, why: String },
    #[error("it has more than {} MiB, so it is no release of iPXE", MAX_ARCHIVE >> 20)]
    TooLarge,
    #[error("its SHA-256 is {found}, not {expected}: another release, or not what it should be")]
    WrongSum { found: Sha256, expected: Sha256 },
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are here.
    pub received: u64,
    /// Bytes in all, where the server has said so.
    pub total: Option<u64>,
}

/// Gets an archive, whole, and its sum, which is `expected` where that is given.
///
/// # Errors
/// Why it cannot be had, with what it was, and what would mend it.
pub async fn fetch(
    origin: &Origin,
    expected: Option<Sha256>,
    progress: impl FnMut(Progress),
) -> Result<(Vec<u8>, Sha256), FetchError> {
    let archive = match origin {
        Origin::Web(url) => download(url, progress).await,
        Origin::File(path) => read(path).map_err(Failure::Unreadable),
    };
    let checked = archive.and_then(|archive| {
        if archive.len() as u64 > MAX_ARCHIVE {
            return Err(Failure::TooLarge);
        }
        let found = Sha256::of(&archive);
        match expected {
            Some(expected) if expected != found => Err(Failure::WrongSum { found, expected }),
            Some(_) | None => Ok((archive, found)),
        }
    });
    checked.map_err(|failure| FetchError { origin: origin.clone(), failure })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    let mut file = open(path)?.take(MAX_ARCHIVE + 1);
    file.read_to_end(&mut archive).map_err(|error: io::Error| reason(&error))?;
    Ok(archive)
}

async fn download(url: &Url, mut progress: impl FnMut(Progress)) -> Result<Vec<u8>, Failure> {
    let mut response = request(url).await?;
    let total = response.content_length();
    if total.is_some_and(|total| total > MAX_ARCHIVE) {
        return Err(Failure::TooLarge);
    }
    let mut archive = Vec::new();
    loop {
        let received = archive.len() as u64;
        progress(Progress { received, total });
        match response.chunk().await {
            Ok(Some(chunk)) => archive.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                return Err(match total.filter(|_| !error.is_timeout()) {
                    Some(expected) => Failure::CutOff { received, expected },
                    None => Failure::Ended { received, why: cause(error) },
                });
            }
        }
        if archive.len() as u64 > MAX_ARCHIVE {
            return Err(Failure::TooLarge);
        }
    }
    Ok(archive)
}

async fn request(url: &Url) -> Result<Response, Failure> {
    let client = http_client::client(&[]).map_err(Failure::Tls)?;
    let response = client.get(url.clone()).send().await;
    let response = response.map_err(|error| {
        let failure = if error.is_redirect() { Failure::Redirect } else { Failure::Unreachable };
        failure(cause(error))
    })?;
    match response.status() {
        StatusCode::OK => Ok(response),
        status => Err(Failure::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_web_address_or_a_file() {
        let web = |text: &str| Origin::Web(Url::parse(text).unwrap());
        for (text, origin) in [
            (NEWEST, Ok(web(NEWEST))),
            ("http://10.0.0.1:8000/x.tar.gz", Ok(web("http://10.0.0.1:8000/x.tar.gz"))),
            ("./ipxeboot.tar.gz", Ok(Origin::File("./ipxeboot.tar.gz".into()))),
            ("/srv/http:/x", Ok(Origin::File("/srv/http:/x".into()))),
            ("ftp://example.org/x", Err(NoOrigin)),
            ("file:///x", Err(NoOrigin)),
            ("http://", Err(NoOrigin)),
        ] {
            assert_eq!(text.parse(), origin, "{text}");
        }
        assert_eq!(web("http://me:hush@x/").to_string(), "http://***@x/");
        assert_eq!(web("http://x/y?token=hush").to_string(), "http://x/y?***");
    }
}
