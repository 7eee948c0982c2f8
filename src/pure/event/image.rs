//! What becomes of the images that are fetched.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::time::Duration;

use crate::pure::catalog::image_set::SetId;

/// Something happened to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageEvent {
    /// Its download began.
    Begun {
        /// Of which image, where that is known.
        image: String,
        /// From where.
        from: String,
    },
    /// It is here.
    Here {
        /// Which.
        image: String,
        /// What it is: version, processor.
        what: String,
        /// Its bytes.
        len: u64,
        /// Since the download began.
        took: Duration,
    },
    /// Something about it is to be known, but it is here all the same.
    Doubted {
        /// Which.
        image: String,
        /// What.
        doubt: String,
    },
    /// It could not be fetched.
    Failed {
        /// Which.
        image: String,
        /// Why.
        reason: String,
        /// When the next attempt is made.
        again_in: Duration,
    },
    /// What is on the disk is not what came.
    Damaged {
        /// Which.
        set: SetId,
        /// In what.
        damage: String,
        /// Why it could not be set aside.
        aside: Option<String>,
    },
}

impl ImageEvent {
    /// What kind of event it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Begun { .. } => "image begun",
            Self::Here { .. } => "image here",
            Self::Doubted { .. } => "image doubted",
            Self::Failed { .. } => "image failed",
            Self::Damaged { .. } => "image damaged",
        }
    }
}

impl fmt::Display for ImageEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun { image, from } => write!(f, "{image} is fetched from {from}"),
            Self::Here { image, what, len, took } => write!(
                f,
                "{image} is here: {what}, {} MiB in {:.1} s",
                len.div_ceil(1 << 20),
                took.as_secs_f64()
            ),
            Self::Doubted { image, doubt } => write!(f, "{image}: {doubt}"),
            Self::Failed { image, reason, again_in } => {
                write!(f, "{image}: {reason}; next try in {} s", again_in.as_secs())
            }
            Self::Damaged { set, damage, aside: None } => {
                write!(f, "{damage}; {set} is set aside and fetched again")
            }
            Self::Damaged { set, damage, aside: Some(aside) } => {
                write!(f, "{damage}; {set} is not served, and {aside}")
            }
        }
    }
}
