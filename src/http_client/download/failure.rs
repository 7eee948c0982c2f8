//! Why something could not be fetched.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::StatusCode;

use crate::pure::checksum::Sha256;
use crate::sys::files::unwritable;

/// Why something could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot fetch {url}: {failure}{}", tried(*attempts))]
pub struct FetchError {
    /// What.
    pub url: String,
    /// Why.
    pub failure: Failure,
    /// How often it was tried.
    pub attempts: u32,
}

fn tried(attempts: u32) -> String {
    if attempts > 1 { format!(" (tried {attempts} times)") } else { String::new() }
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answered, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// It leads to where it must not.
    #[error("{0}")]
    Redirect(String),
    /// Another answer than the file.
    #[error("the server answers {status}{}", said(text))]
    Status {
        /// The status.
        status: StatusCode,
        /// What it says to it, shortened.
        text: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The connection ended early.
    #[error("the connection ended after {received} of {expected} bytes")]
    CutOff {
        /// What came.
        received: u64,
        /// What was promised.
        expected: u64,
    },
    /// It ended early, or was silent for too long, and how much is missing is not known.
    #[error("the connection ended after {received} bytes: {why}")]
    Ended {
        /// What came.
        received: u64,
        /// Why.
        why: String,
    },
    /// The sum is another.
    #[error("its SHA-256 is {found}, and the config says {expected}: it is another file")]
    WrongSum {
        /// What came.
        found: Sha256,
        /// What should have.
        expected: Sha256,
    },
    /// The text is none.
    #[error("{0}")]
    Unexpected(String),
    /// This host's disk.
    #[error("cannot write {}: {reason}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl Failure {
    /// Whether it may go by itself.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::CutOff { .. } | Self::Ended { .. } => true,
            Self::Status { status, .. } => {
                *status == StatusCode::TOO_MANY_REQUESTS
                    || *status == StatusCode::REQUEST_TIMEOUT
                    || status.is_server_error()
            }
            Self::Redirect(_) | Self::WrongSum { .. } | Self::Unexpected(_) | Self::Disk { .. } => {
                false
            }
        }
    }

    /// Whether the server does not give it to whoever asks so, however often.
    pub fn is_a_refusal(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                matches!(status.as_u16(), 400 | 404 | 410 | 422) || status.is_server_error()
            }
            Self::Unreachable(_)
            | Self::Redirect(_)
            | Self::CutOff { .. }
            | Self::Ended { .. }
            | Self::WrongSum { .. }
            | Self::Unexpected(_)
            | Self::Disk { .. } => false,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn asks_for(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Unreachable(_)
            | Self::Redirect(_)
            | Self::CutOff { .. }
            | Self::Ended { .. }
            | Self::WrongSum { .. }
            | Self::Unexpected(_)
            | Self::Disk { .. } => None,
        }
    }

    pub(super) fn disk(path: &Path, error: &io::Error) -> Self {
        let reason = unwritable(error);
        Self::Disk { path: path.to_owned(), reason }
    }
}
