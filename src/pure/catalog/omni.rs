//! How a machine joins Sidero Omni: three kernel arguments.
//!
//! [`Omni::arguments`] makes them, [`pasted`] reads them as Omni hands them out, [`token`] knows the
//! forms of the secret in them.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::secret::SecretText;

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

pub mod pasted;
pub mod token;

pub use self::pasted::Pasted;
pub use self::token::{Token, TokenKind};

/// Where Talos sends its events, over the SideroLink tunnel: Omni's default.
pub const DEFAULT_EVENTS: &str = "[fdae:41e4:649b:9303::1]:8090";
/// Where Talos sends its kernel log, over the SideroLink tunnel: Omni's default.
pub const DEFAULT_KERNEL_LOG: &str = "tcp://[fdae:41e4:649b:9303::1]:8092";

/// What Go's `url.QueryEscape` leaves as it is, so that the argument is the one that Omni prints.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One Omni instance.
#[derive(Debug)]
pub struct Omni {
    /// Its name in the config.
    pub name: String,
    /// The advertised machine API, as `https://example.omni.siderolabs.io`; nothing where the pasted
    /// kernel parameters that tell it are not there.
    pub api: String,
    /// The join token, or why it is not there and what would mend it.
    pub join_token: Result<SecretText, String>,
    /// Whether WireGuard goes through a gRPC tunnel.
    pub tunnel: bool,
    /// The event sink.
    pub events: String,
    /// The kernel log receiver.
    pub kernel_log: String,
}

impl Omni {
    /// The instance that pasted kernel parameters speak of.
    pub fn of(name: &str, pasted: Pasted) -> Self {
        let Pasted { api, token, tunnel, events, kernel_log, others: _ } = pasted;
        Self {
            name: name.to_owned(),
            api,
            join_token: Ok(token.secret().clone()),
            tunnel,
            events: events.unwrap_or_else(|| DEFAULT_EVENTS.to_owned()),
            kernel_log: kernel_log.unwrap_or_else(|| DEFAULT_KERNEL_LOG.to_owned()),
        }
    }

    /// Where machines join and by what kind of token, in words; nothing where the token is not there.
    pub fn described(&self) -> Option<String> {
        let token = Token::parse(self.join_token.as_ref().ok()?.expose()).ok()?;
        let tunnel = if self.tunnel { ", through a gRPC tunnel" } else { "" };
        Some(format!("{}{tunnel}; its join token is {}", self.api, token.kind()))
    }

    /// The join arguments, in Omni's order. The first holds the token.
    ///
    /// # Errors
    /// Why there is no token, in words for the operator.
    pub fn arguments(&self) -> Result<[String; 3], String> {
        let token = self.join_token.as_ref().map_err(Clone::clone)?;
        let token = utf8_percent_encode(token.expose(), QUERY);
        let tunnel = if self.tunnel { "grpc_tunnel=true&" } else { "" };
        Ok([
            format!("siderolink.api={}?{tunnel}jointoken={token}", self.api),
            format!("talos.events.sink={}", self.events),
            format!("talos.logging.kernel={}", self.kernel_log),
        ])
    }
}

/// What every join argument has before its token.
const TOKEN: &str = "jointoken=";

/// `text` without the join tokens in it: for messages that quote what somebody wrote.
pub fn redacted(text: &str) -> Cow<'_, str> {
    let tokens = tokens_in(text);
    if tokens.is_empty() {
        return text.into();
    }
    let mut redacted = text.to_owned();
    for token in tokens.into_iter().rev() {
        redacted.replace_range(token, "***");
    }
    redacted.into()
}

/// What a token has at least, to be told from any other word: Omni's have 43 characters or more
/// (`omni/client/pkg/jointoken`), and of a shorter one only what follows `jointoken=` is hidden.
const SHORTEST: usize = 12;

/// `text`, which a template made, without the join tokens of these instances in it: as they are, as they
/// stand in a query, and as the filter `urlencode` makes them of either.
pub fn hidden<'a>(text: &str, instances: impl Iterator<Item = &'a Omni>) -> String {
    let mut hidden = redacted(text).into_owned();
    for token in instances.filter_map(|omni| omni.join_token.as_ref().ok()) {
        let token = token.expose();
        if token.len() < SHORTEST {
            continue;
        }
        let once = utf8_percent_encode(token, QUERY).to_string();
        let twice = utf8_percent_encode(&once, QUERY).to_string();
        for form in [&twice, &once, &token.to_owned()] {
            hidden = hidden.replace(form.as_str(), "***");
        }
    }
    hidden
}

/// Where in a text join tokens stand, in bytes.
pub fn tokens_in(text: &str) -> Vec<Range<usize>> {
    let ends = |c: char| c.is_whitespace() || "&`\"'".contains(c);
    let token = |(at, name): (usize, &str)| {
        let start = at + name.len();
        let len = text[start..].find(ends).unwrap_or(text.len() - start);
        start..start + len
    };
    text.match_indices(TOKEN).map(token).filter(|token| !token.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn omni(api: &str, token: &str, tunnel: bool) -> Omni {
        Omni {
            name: "homelab".into(),
            api: api.into(),
            join_token: Ok(token.into()),
            tunnel,
            events: "[fdae:41e4:649b:9303::1]:8091".into(),
            kernel_log: DEFAULT_KERNEL_LOG.into(),
        }
    }

    // The three vectors are those of Omni's own tests, client/pkg/siderolink/siderolink_test.go.

    #[test]
    fn the_tunnel_comes_before_the_token_as_go_sorts_the_query() {
        let arguments = omni("grpc://127.0.0.1:8099", "abcd", true).arguments().unwrap();
        assert_eq!(
            arguments.join(" "),
            "siderolink.api=grpc://127.0.0.1:8099?grpc_tunnel=true&jointoken=abcd \
             talos.events.sink=[fdae:41e4:649b:9303::1]:8091 \
             talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092"
        );
    }

    #[test]
    fn a_plain_token_stands_as_it_is() {
        let [api, ..] = omni("https://127.0.0.1:8099", "abcd", false).arguments().unwrap();
        assert_eq!(api, "siderolink.api=https://127.0.0.1:8099?jointoken=abcd");
    }

    #[test]
    fn a_v2_token_is_escaped_as_go_escapes_it() {
        let token = "v2:eyJleHRyYV9kYXRhIjp7Im9tbmkuc2lkZXJvLmRldi9pbmZyYS1wcm92aWRlci1pZCI6InRlc3QifSwic2lnbmF0dXJlIjoiWTNpZ285V2xJSVZOWWpXZmgyWlg5NnpnWW5UQjlwWTI3ZEJaVnJwNDJMZz0ifQ==";
        let [api, ..] = omni("https://127.0.0.1:8099", token, false).arguments().unwrap();
        assert_eq!(
            api,
            "siderolink.api=https://127.0.0.1:8099?jointoken=v2%3AeyJleHRyYV9kYXRhIjp7Im9tbmkuc2lkZXJvLmRldi9pbmZyYS1wcm92aWRlci1pZCI6InRlc3QifSwic2lnbmF0dXJlIjoiWTNpZ285V2xJSVZOWWpXZmgyWlg5NnpnWW5UQjlwWTI3ZEJaVnJwNDJMZz0ifQ%3D%3D"
        );
    }

    #[test]
    fn a_token_is_hidden_however_a_template_writes_it() {
        let token = "v2:eyJleHRyYV9kYXRhIjp7fX0=";
        let omni = omni("https://x", token, false);
        let once = "v2%3AeyJleHRyYV9kYXRhIjp7fX0%3D";
        let twice = "v2%253AeyJleHRyYV9kYXRhIjp7fX0%253D";
        let text = format!("a {token}\nb x?jointoken={once}&y\nc jointoken%3D{twice} d={once}");
        let shown = hidden(&text, [&omni].into_iter());
        assert_eq!(shown, "a ***\nb x?jointoken=***&y\nc jointoken%3D*** d=***");
        let short = self::omni("https://x", "abcd", false);
        let shown = hidden("abcd jointoken=abcd", [&short].into_iter());
        assert_eq!(shown, "abcd jointoken=***");
    }

    #[test]
    fn a_quoted_argument_loses_its_token_and_nothing_else() {
        assert_eq!(
            redacted("`siderolink.api=https://x?jointoken=hush&y=1 talos.x` and jointoken=hush"),
            "`siderolink.api=https://x?jointoken=***&y=1 talos.x` and jointoken=***"
        );
        assert_eq!(redacted("quiet"), "quiet");
        assert_eq!(
            redacted("what follows `jointoken=` belongs"),
            "what follows `jointoken=` belongs"
        );
    }

    #[test]
    fn a_token_does_not_show_when_the_instance_is_printed() {
        let printed = format!("{:?}", omni("https://127.0.0.1:8099", "hush", false));
        assert!(!printed.contains("hush"), "{printed}");
    }
}
