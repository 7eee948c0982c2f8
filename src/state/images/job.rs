//! What is being fetched, for who watches it.

use serde::{Deserialize, Serialize};

/// One set on its way, or how that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The images that are made of it.
    pub image: String,
    /// Bytes that have come.
    pub received: u64,
    /// Bytes in all, once that is known.
    pub total: Option<u64>,
    /// How it stands.
    pub state: State,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is on its way.
    Running,
    /// It is here: what it is.
    Here(String),
    /// It could not be fetched, and why.
    Failed(String),
}

impl Job {
    /// One that has just begun.
    pub fn begun(image: &str) -> Self {
        Self { image: image.to_owned(), received: 0, total: None, state: State::Running }
    }
}
