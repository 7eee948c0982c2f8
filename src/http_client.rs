//! Fetching from elsewhere: one client, with one set of rules for whatever is fetched.

pub mod download;

use std::time::Duration;

use reqwest::{Certificate, Client, redirect};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two pieces of what is received.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;

/// A client that trusts this host's CAs and these, and goes through the proxy that `HTTPS_PROXY`,
/// `HTTP_PROXY` and `NO_PROXY` say.
///
/// # Errors
/// TLS cannot be set up, and what would mend that.
pub fn client(cas: &[Certificate]) -> Result<Client, String> {
    // It fails where the process has one already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder()
        .user_agent(concat!("reveille/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::custom(follow))
        .tls_certs_merge(cas.iter().cloned())
        .build()
        .map_err(|error| {
            format!(
                "TLS cannot be set up: {}; install this host's CA certificates (Debian: package ca-certificates)",
                cause(error)
            )
        })
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
pub fn cause(error: reqwest::Error) -> String {
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
