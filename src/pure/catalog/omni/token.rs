//! The forms of a join token, told apart without its secret.
//!
//! They are those of Omni's own parser (`omni/client/pkg/jointoken/jointoken.go`): a plain one is
//! random letters and digits; after `v1:` or `v2:` comes base64 of JSON, with what the token is for
//! and a signature. Nothing here repeats a token: it is a credential in each of its forms.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::pure::catalog::secret::SecretText;
use crate::pure::printable;

/// What Omni calls the infra provider of a token.
const PROVIDER: &str = "omni.sidero.dev/infra-provider-id";
/// What Omni calls the machine request of a token.
const MACHINE_REQUEST: &str = "omni.sidero.dev/machine-request";

/// A join token.
#[derive(Clone, Debug)]
pub struct Token {
    text: SecretText,
    kind: TokenKind,
}

/// What a token tells without its secret. Printed, it is `plain`, or `v2, of infra provider test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Random letters and digits.
    Plain,
    /// `v1:` or `v2:`, signed.
    Signed {
        /// `v1` or `v2`.
        form: &'static str,
        /// The infra provider that it was made for.
        provider: Option<String>,
        /// The machine request that it was made for.
        machine_request: Option<String>,
    },
    /// `v3:` or later.
    Newer,
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Nothing stands there.
    #[error("the join token is empty")]
    Empty,
    /// No token has such a character.
    #[error(
        "the join token has a character in it that none has: they are letters and digits, or `v1:` or `v2:` and base64"
    )]
    Character,
    /// It has lost its end, most likely.
    #[error("the join token starts with `{form}:`, but no base64 follows: copy it whole")]
    Base64 {
        /// `v1` or `v2`.
        form: &'static str,
    },
    /// It is base64 of something else.
    #[error(
        "the join token starts with `{form}:`, but what follows is not the JSON with `extra_data` and `signature` that Omni makes: copy it whole"
    )]
    Json {
        /// `v1` or `v2`.
        form: &'static str,
    },
}

impl Token {
    /// Reads a token as it stands in a file, or in a URL: no token has a `%` in it, so one that does
    /// was copied out of a URL.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| TokenError::Character)?;
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=:-_.~".contains(c)) {
            return Err(TokenError::Character);
        }
        let kind = TokenKind::of(&text)?;
        Ok(Self { text: text.into_owned().into(), kind })
    }

    /// What it tells without its secret.
    pub fn kind(&self) -> &TokenKind {
        &self.kind
    }

    /// The token itself.
    pub fn secret(&self) -> &SecretText {
        &self.text
    }
}

impl TokenKind {
    fn of(text: &str) -> Result<Self, TokenError> {
        let Some((prefix, body)) = text.split_once(':') else {
            return Ok(Self::Plain);
        };
        let number = prefix.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
        match (prefix, number) {
            ("v1", _) => Self::signed("v1", body),
            ("v2", _) => Self::signed("v2", body),
            (_, Some(_)) => Ok(Self::Newer),
            (_, None) => Err(TokenError::Character),
        }
    }

    fn signed(form: &'static str, body: &str) -> Result<Self, TokenError> {
        let decoded =
            BASE64_STANDARD.decode(body).ok().filter(|decoded: &Vec<u8>| !decoded.is_empty());
        let decoded = decoded.ok_or(TokenError::Base64 { form })?;
        let broken = TokenError::Json { form };
        let json: Value = serde_json::from_slice(&decoded).map_err(|_| broken)?;
        let signature = json["signature"].as_str().unwrap_or_default();
        // An HMAC with SHA-256.
        if BASE64_STANDARD.decode(signature).ok().is_none_or(|signature| signature.len() != 32) {
            return Err(broken);
        }
        let extra = json["extra_data"].as_object().ok_or(broken)?;
        let named = |key| Some(extra.get(key)?.as_str()?.to_owned());
        Ok(Self::Signed {
            form,
            provider: named(PROVIDER),
            machine_request: named(MACHINE_REQUEST),
        })
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("plain"),
            Self::Signed { form, provider, machine_request } => {
                f.write_str(form)?;
                // Whoever made the token chose these names: they shall move no cursor.
                if let Some(provider) = provider {
                    write!(f, ", of infra provider {}", printable::name(provider))?;
                }
                if let Some(request) = machine_request {
                    write!(f, ", for machine request {}", printable::name(request))?;
                }
                Ok(())
            }
            Self::Newer => f.write_str("of a newer form than this reveille knows"),
        }
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.text.expose() == other.text.expose()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Of Omni's own tests, `client/pkg/siderolink/siderolink_test.go`: made with the secret `abcd`.
    pub const V2: &str = "v2:eyJleHRyYV9kYXRhIjp7Im9tbmkuc2lkZXJvLmRldi9pbmZyYS1wcm92aWRlci1pZCI6InRlc3QifSwic2lnbmF0dXJlIjoiWTNpZ285V2xJSVZOWWpXZmgyWlg5NnpnWW5UQjlwWTI3ZEJaVnJwNDJMZz0ifQ==";

    fn made(form: &str, json: &str) -> String {
        format!("{form}:{}", BASE64_STANDARD.encode(json))
    }

    fn told(text: &str) -> String {
        match Token::parse(text) {
            Ok(token) => token.kind().to_string(),
            Err(error) => error.to_string(),
        }
    }

    const SIGNATURE: &str = r#""signature":"Y3igo9WlIIVNYjWfh2ZX96zgYnTB9pY27dBZVrp42Lg=""#;

    #[test]
    fn each_form_is_told_from_the_others() {
        let request = r#""omni.sidero.dev/machine-request":"rq-7""#;
        let provider = r#""omni.sidero.dev/infra-provider-id":"bare-metal""#;
        let hostile = r#""omni.sidero.dev/infra-provider-id":"\u001b[2Jx""#;
        let signed =
            |form, extra: &str| made(form, &format!(r#"{{"extra_data":{{{extra}}},{SIGNATURE}}}"#));
        for (token, kind) in [
            ("w7uVuW3zbVKIYQuzEcyetAHeYMeo5q2L9RvkAOfCfSCD".to_owned(), "plain"),
            (V2.to_owned(), "v2, of infra provider test"),
            (V2.replace(':', "%3A").replace('=', "%3D"), "v2, of infra provider test"),
            (signed("v1", ""), "v1"),
            (signed("v1", request), "v1, for machine request rq-7"),
            (
                signed("v2", &format!("{provider},{request}")),
                "v2, of infra provider bare-metal, for machine request rq-7",
            ),
            (signed("v2", hostile), r"v2, of infra provider \u{1b}[2Jx"),
            ("v3:whatever".to_owned(), "of a newer form than this reveille knows"),
        ] {
            assert_eq!(told(&token), kind);
        }
    }

    #[test]
    fn what_is_no_token_is_told_without_repeating_it() {
        let cut = &V2[..V2.len() - 5];
        let short = made("v1", r#"{"extra_data":{},"signature":"aHVzaA=="}"#);
        for (token, why) in [
            ("", "the join token is empty"),
            (cut, "the join token starts with `v2:`, but no base64 follows: copy it whole"),
            ("v1:", "the join token starts with `v1:`, but no base64 follows: copy it whole"),
            (&made("v1", "hush"), "is not the JSON with `extra_data` and `signature`"),
            (&made("v2", "[1]"), "is not the JSON with `extra_data` and `signature`"),
            (&made("v2", r#"{"extra_data":{}}"#), "is not the JSON"),
            (&made("v2", &format!("{{{SIGNATURE}}}")), "is not the JSON"),
            (&short, "is not the JSON"),
            ("hush hush", "has a character in it that none has"),
            ("${hush}", "has a character in it that none has"),
            ("hush%zz", "has a character in it that none has"),
            ("hush%ff", "has a character in it that none has"),
            ("https://hush", "has a character in it that none has"),
        ] {
            let told = told(token);
            assert!(told.contains(why), "{told}");
            assert!(!told.contains("hush"), "{told}");
        }
    }

    #[test]
    fn a_token_is_decoded_and_not_printed() {
        let token = Token::parse(&V2.replace(':', "%3A").replace('=', "%3D")).unwrap();
        assert_eq!(token.secret().expose(), V2);
        assert!(!format!("{token:?}").contains("eyJ"));
    }
}
