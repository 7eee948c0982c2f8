//! Getting a release archive of iPXE: over HTTP, or from this host's disk.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use sha2::Digest;

use crate::files::{open, reason};

/// The newest release of iPXE.
pub const NEWEST: &str = "https://github.com/ipxe/ipxe/releases/latest/download/ipxeboot.tar.gz";

/// iPXE 2.0.0's archive has 12 MB.
const MAX_ARCHIVE: u64 = 64 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of what is received.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;

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
    /// Who one is, a password and a query, which may hold a token, are not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Web(url) => {
                let mut url = url.clone();
                if url.password().is_some() || !url.username().is_empty() {
                    // These fail for a URL that cannot have them.
                    url.set_username("***").ok();
                    url.set_password(None).ok();
                }
                if url.query().is_some() {
                    url.set_query(Some("***"));
                }
                url.fmt(f)
            }
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
    #[error(
        "TLS cannot be set up: {0}; install this host's CA certificates (Debian: package ca-certificates)"
    )]
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

/// A SHA-256 sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

/// Why a text is no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 sum has 64 hexadecimal digits")]
pub struct NoSum;

impl FromStr for Sha256 {
    type Err = NoSum;

    fn from_str(text: &str) -> Result<Self, NoSum> {
        let mut sum = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoSum);
        }
        for (index, byte) in sum.iter_mut().enumerate() {
            let digits = &text[2 * index..2 * index + 2];
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoSum)?;
        }
        Ok(Self(sum))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
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
        let found = Sha256(sha2::Sha256::digest(&archive).into());
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
    // It fails where the process has one already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = Client::builder()
        .user_agent(concat!("reveille/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::custom(follow))
        .build()
        .map_err(|error| Failure::Tls(cause(error)))?;
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

/// Follows a redirect, as those of GitHub's releases; but whoever asked for a safe way is not led off it.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let was_safe = attempt.previous().first().is_some_and(|asked| asked.scheme() == "https");
    if was_safe && attempt.url().scheme() != "https" {
        return attempt.error("the server leads from https:// to where anybody could change it");
    }
    redirect::Policy::limited(MAX_REDIRECTS).redirect(attempt)
}

/// The innermost reason; what is around it says only that something failed. Without the URL: that a
/// release redirects to holds a signature.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = &error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
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

    #[test]
    fn a_sum_is_64_digits() {
        let text = "01a526d4cc791fc30362259c609d6c506cc64a7bdff51b9a5eb788354e17eee1";
        let sum: Sha256 = text.parse().unwrap();
        assert_eq!(sum.to_string(), text);
        assert_eq!(text.to_uppercase().parse(), Ok(sum));
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace('0', "+"), &"ä".repeat(32)]
        {
            assert_eq!(bad.parse::<Sha256>(), Err(NoSum), "{bad}");
        }
    }
}
