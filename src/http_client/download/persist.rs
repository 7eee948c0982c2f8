//! Asking a server, again and again where that may help.

use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::failure::{Failure, FetchError};
use crate::http_client::cause;
use crate::pure::printable::blank;
use crate::pure::redact::shown;

/// The longest wait that a server's Retry-After is obeyed for.
const LONGEST_WAIT: Duration = Duration::from_mins(2);
/// The longest answer in JSON: a factory lists some hundred versions and extensions.
const LONGEST_JSON: usize = 4 << 20;
/// How much of an error's text is told: a proxy may answer with a page.
const LONGEST_TEXT: usize = 200;

/// How often something is tried, and how long is waited in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub attempts: u32,
    /// Before the second attempt; twice as long before each that follows.
    pub first: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(1) }
    }
}

/// Does something until it succeeds, fails for good, or has failed too often. What is received counts as
/// getting on: a server that cuts each connection still gives the whole file in the end.
///
/// # Errors
/// The last failure.
pub async fn persist<T>(
    url: &Url,
    patience: Patience,
    mut attempt: impl AsyncFnMut() -> Result<T, Failure>,
) -> Result<T, FetchError> {
    let (mut tries, mut since_progress, mut best) = (0, 0, 0);
    loop {
        let failure = match attempt().await {
            Ok(done) => return Ok(done),
            Err(failure) => failure,
        };
        tries += 1;
        since_progress += 1;
        if let Failure::CutOff { received, .. } | Failure::Ended { received, .. } = &failure
            && *received > best
        {
            best = *received;
            since_progress = 1;
        }
        if !failure.is_passing() || since_progress >= patience.attempts {
            let url = shown(url).to_string();
            return Err(FetchError { url, failure, attempts: tries });
        }
        let usual = patience.first * 2_u32.pow((since_progress - 1).min(6));
        let wait = failure.asks_for().map_or(usual, |asked| asked.max(usual));
        tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
    }
}

/// Sends a request. What is no success is a failure, with what the server says to it.
///
/// # Errors
/// Nobody answers, or with another status.
pub async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    let response = request.send().await.map_err(|error| {
        let kind = if error.is_redirect() { Failure::Redirect } else { Failure::Unreachable };
        kind(cause(error))
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let text = text(response).await;
    Err(Failure::Status { status, text, retry_after })
}

/// Sends a request whose answer is JSON.
///
/// # Errors
/// It fails, or the answer is something else.
pub async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
    let mut response = send(request).await?;
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                let received = body.len() as u64;
                return Err(Failure::Ended { received, why: cause(error) });
            }
        }
        if body.len() > LONGEST_JSON {
            return Err(Failure::Unexpected("its answer is too long".to_owned()));
        }
    }
    serde_json::from_slice(&body).map_err(|error| {
        Failure::Unexpected(format!("its answer is not what is expected: {error}"))
    })
}

/// How large a file is, if the server says so beforehand.
pub async fn size(client: &Client, url: &Url) -> Option<u64> {
    let response = send(client.head(url.clone())).await.ok()?;
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// RFC 9110 section 10.2.3: seconds. A date is taken for a short wait, as iPXE does.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(value.trim().parse().unwrap_or(5)))
}

/// The first line of what a server says to an error, if that is text.
async fn text(mut response: Response) -> String {
    let mut body = Vec::new();
    while body.len() < LONGEST_TEXT {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.starts_with('<') {
        return String::new();
    }
    line.chars().map(blank).take(LONGEST_TEXT).collect()
}
