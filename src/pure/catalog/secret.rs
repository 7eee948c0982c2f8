//! A text that nobody but its machine may see: a join token, what it was pasted in, and what holds one.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// It is `***` to whoever prints it, and its memory is cleared at its end.
#[derive(Clone)]
pub struct SecretText(SecretString);

impl SecretText {
    /// The text. What it is used for must not be told anybody.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for SecretText {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SecretText {}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_prints_as_three_stars_in_whatever_it_is() {
        let secret = SecretText::from("hush");
        assert_eq!(secret.expose(), "hush");
        let told = format!("{secret} {secret:?} {:?} {:#?}", Some(&secret), [&secret]);
        assert_eq!(told, "*** *** Some(***) [\n    ***,\n]");
    }
}
