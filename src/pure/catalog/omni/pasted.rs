//! Omni's "Copy Kernel Parameters", as somebody pasted it, taken apart.
//!
//! What Omni writes is fixed (`omni/client/pkg/siderolink/siderolink.go`); what Talos makes of it is
//! in `talos/internal/app/machined/pkg/controllers/siderolink/config.go`. What people paste may be in
//! quotes, in a list, over several lines, or with other arguments around. No message repeats any of
//! it but the arguments' own names: any word may be a piece of the token.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use super::token::{Token, TokenError};
use super::{DEFAULT_EVENTS, DEFAULT_KERNEL_LOG};
use crate::pure::catalog::ipxe_word::Flaw;

const API: &str = "siderolink.api";
const EVENTS: &str = "talos.events.sink";
const KERNEL_LOG: &str = "talos.logging.kernel";

/// What the three arguments say.
#[derive(Clone, Debug, PartialEq)]
pub struct Pasted {
    /// The machine API, with its scheme.
    pub api: String,
    /// The join token.
    pub token: Token,
    /// Whether WireGuard goes through a gRPC tunnel.
    pub tunnel: bool,
    /// The event sink, where it is said.
    pub events: Option<String>,
    /// The kernel log receiver, where it is said.
    pub kernel_log: Option<String>,
    /// How much else stands there, which is not used.
    pub others: usize,
}

/// Everything for which pasted text is no way to join Omni.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

/// One of them.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mistake {
    /// No `siderolink.api`.
    #[error(
        "there is no `siderolink.api=` in it: paste all that Omni's \"Copy Kernel Parameters\" copies, or `omnictl jointoken kernel-args` prints"
    )]
    NoApi,
    /// An argument stands there twice, with two values.
    #[error("`{0}` stands there twice, with two values: keep one")]
    Two(&'static str),
    /// A line break where there is none.
    #[error(
        "the line is broken within `siderolink.api`: paste it as one line, or each argument on a line of its own"
    )]
    Broken,
    /// The address is wrong.
    #[error("the address in `siderolink.api` {0}")]
    Address(AddressError),
    /// No `jointoken`.
    #[error("`siderolink.api` has no `jointoken=` behind its `?`: copy it whole")]
    NoToken,
    /// Two of `jointoken`.
    #[error("`siderolink.api` has two join tokens: keep one")]
    TwoTokens,
    /// The token is wrong.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A sink that iPXE would not take literally.
    #[error("`{argument}` {flaw}")]
    Sink {
        /// Which.
        argument: &'static str,
        /// What iPXE would do.
        flaw: Flaw,
    },
}

/// Why a text is not the address of a machine API.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum AddressError {
    /// Another scheme.
    #[error("starts with something else than https://, http:// or grpc://")]
    Scheme,
    /// No host.
    #[error("names no host")]
    NoHost,
    /// A query.
    #[error("ends before its `?`: the token goes into a file of its own")]
    Query,
    /// What iPXE would not take literally.
    #[error(transparent)]
    Flaw(#[from] Flaw),
}

/// What may be right, and is worth a second look.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Doubt {
    /// No event sink.
    #[error("there is no `talos.events.sink`: Omni's default serves, {DEFAULT_EVENTS}")]
    NoEvents,
    /// No kernel log receiver.
    #[error("there is no `talos.logging.kernel`: Omni's default serves, {DEFAULT_KERNEL_LOG}")]
    NoKernelLog,
    /// The ports of each other.
    #[error(
        "the ports of `talos.events.sink` and `talos.logging.kernel` look swapped: Omni takes events on 8090 and kernel logs on 8092"
    )]
    Swapped,
    /// A token of a form that we do not know.
    #[error("the join token is of a newer form than this reveille knows; it is passed on as it is")]
    NewerToken,
    /// Other arguments.
    #[error("what else stands there ({0} of them) is not used; other arguments go into `cmdline`")]
    Others(usize),
}

/// A word of what was pasted.
struct Word<'a> {
    text: &'a str,
    starts_line: bool,
}

/// Takes pasted kernel parameters apart.
///
/// # Errors
/// Everything that is wrong with them.
pub fn parse(text: &str) -> Result<Pasted, Mistakes> {
    let words = words(text);
    let mut mistakes = Vec::new();
    let mut noted = |mistake| mistakes.push(mistake);
    let api = only(API, &words, &mut noted);
    let events = sink(EVENTS, &words, &mut noted);
    let kernel_log = sink(KERNEL_LOG, &words, &mut noted);
    if is_broken(&words) {
        noted(Mistake::Broken);
    }
    if api.is_none() && !words.iter().any(|word| value(word, API).is_some()) {
        noted(Mistake::NoApi);
    }
    let joining = api.and_then(|api| Joining::read(api, &mut noted));
    let ours = |word: &&Word<'_>| {
        [API, EVENTS, KERNEL_LOG].into_iter().any(|name| value(word, name).is_some())
    };
    let others = words.iter().filter(|word| !ours(word)).count();
    match joining {
        Some(Joining { api, token, tunnel }) if mistakes.is_empty() => {
            Ok(Pasted { api, token, tunnel, events, kernel_log, others })
        }
        _ => Err(Mistakes(mistakes)),
    }
}

/// What `siderolink.api` says.
struct Joining {
    api: String,
    token: Token,
    tunnel: bool,
}

impl Joining {
    fn read(text: &str, noted: &mut impl FnMut(Mistake)) -> Option<Self> {
        let (api, query) = text.split_once('?').unwrap_or((text, ""));
        let api = address(api).map_err(|error| noted(Mistake::Address(error))).ok();
        let fields = || query.split('&').filter_map(|field| field.split_once('='));
        let of = |name| fields().filter(move |(key, _)| *key == name).map(|(_, value)| value);
        let tunnel = of("grpc_tunnel").any(|value| ["true", "y"].contains(&value));
        let mut tokens = of("jointoken");
        let token = match (tokens.next(), tokens.next()) {
            (None, _) => Err(Mistake::NoToken),
            (Some(_), Some(_)) => Err(Mistake::TwoTokens),
            // In a query a `+` is a blank, and no token has one.
            (Some(token), None) => Token::parse(&token.replace('+', " ")).map_err(Mistake::from),
        };
        let token = token.map_err(noted).ok();
        Some(Self { api: api?, token: token?, tunnel })
    }
}

/// The address of a machine API, with the scheme that Talos takes where there is none.
///
/// # Errors
/// Why it is none. The message does not repeat it.
pub fn address(text: &str) -> Result<String, AddressError> {
    if text.contains('?') {
        return Err(AddressError::Query);
    }
    let (scheme, rest) = text.split_once("://").unwrap_or(("grpc", text));
    let scheme = scheme.to_ascii_lowercase();
    if !["https", "http", "grpc"].contains(&scheme.as_str()) {
        return Err(AddressError::Scheme);
    }
    if rest.is_empty() || rest.starts_with(['/', ':']) {
        return Err(AddressError::NoHost);
    }
    let address = format!("{scheme}://{rest}");
    Flaw::of(&address).map_or(Ok(address), |flaw| Err(flaw.into()))
}

/// Words without the quotes, commas and list marks that stand around them in other files.
fn words(text: &str) -> Vec<Word<'_>> {
    let around = |c: char| "\"'`,".contains(c);
    let mut words = Vec::new();
    for line in text.lines() {
        let bare = line.split_whitespace().map(|word| word.trim_matches(around));
        let bare = bare.filter(|word| !["", "-", "[", "]"].contains(word));
        words.extend(bare.enumerate().map(|(at, text)| Word { text, starts_line: at == 0 }));
    }
    words
}

fn value<'a>(word: &Word<'a>, name: &str) -> Option<&'a str> {
    word.text.strip_prefix(name)?.strip_prefix('=')
}

/// The one value of an argument.
fn only<'a>(
    name: &'static str,
    words: &[Word<'a>],
    noted: &mut impl FnMut(Mistake),
) -> Option<&'a str> {
    let mut values = words.iter().filter_map(|word| value(word, name));
    let first = values.next()?;
    if values.any(|other| other != first) {
        noted(Mistake::Two(name));
        return None;
    }
    Some(first)
}

fn sink(name: &'static str, words: &[Word<'_>], noted: &mut impl FnMut(Mistake)) -> Option<String> {
    let value = only(name, words, noted)?;
    if let Some(flaw) = Flaw::of(value) {
        noted(Mistake::Sink { argument: name, flaw });
    }
    Some(value.to_owned())
}

/// Whether a line seems to end within `siderolink.api`: what starts the next one is no argument.
fn is_broken(words: &[Word<'_>]) -> bool {
    let goes_on = |word: &Word<'_>| !word.text.contains('=') || word.text.contains("jointoken=");
    words.windows(2).any(|pair| {
        value(&pair[0], API).is_some()
            && pair[1].starts_line
            && value(&pair[1], API).is_none()
            && goes_on(&pair[1])
    })
}

impl Pasted {
    /// What is worth a second look.
    pub fn doubts(&self) -> Vec<Doubt> {
        [
            self.events.is_none().then_some(Doubt::NoEvents),
            self.kernel_log.is_none().then_some(Doubt::NoKernelLog),
            swapped(self.events.as_deref(), self.kernel_log.as_deref()),
            (*self.token.kind() == super::token::TokenKind::Newer).then_some(Doubt::NewerToken),
            (self.others > 0).then_some(Doubt::Others(self.others)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Whether each sink has the port of the other.
pub fn swapped(events: Option<&str>, kernel_log: Option<&str>) -> Option<Doubt> {
    let port = |sink: Option<&str>| sink?.rsplit_once(':')?.1.parse::<u16>().ok();
    let is_swapped = port(events) == Some(8092) || port(kernel_log) == Some(8090);
    is_swapped.then_some(Doubt::Swapped)
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<String> = self.0.iter().map(Mistake::to_string).collect();
        f.write_str(&told.join("; "))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::pure::catalog::omni::token::tests::V2;

    const SINKS: &str = "talos.events.sink=[fdae:41e4:649b:9303::1]:8090 \
                         talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092";

    /// What was read: the address, the token, the tunnel.
    fn read(text: &str) -> (String, String, bool) {
        let pasted = parse(text).unwrap();
        (pasted.api, pasted.token.secret().expose().to_owned(), pasted.tunnel)
    }

    /// What is wrong, and that it repeats nothing.
    fn mistakes(text: &str) -> Vec<String> {
        let mistakes = parse(text).unwrap_err();
        assert!(!mistakes.to_string().contains("hush"), "{mistakes}");
        mistakes.0.iter().map(Mistake::to_string).collect()
    }

    fn doubts(text: &str) -> Vec<Doubt> {
        parse(text).unwrap().doubts()
    }

    // The first three are those of Omni's own tests, client/pkg/siderolink/siderolink_test.go.
    #[test]
    fn what_omni_copies_is_taken_apart() {
        let encoded = V2.replace(':', "%3A").replace('=', "%3D");
        let v2 = format!("siderolink.api=https://127.0.0.1:8099?jointoken={encoded} {SINKS}");
        for (text, api, token, tunnel) in [
            (
                "siderolink.api=grpc://127.0.0.1:8099?grpc_tunnel=true&jointoken=abcd \
                 talos.events.sink=[fdae:41e4:649b:9303::1]:8091 \
                 talos.logging.kernel=tcp://[fdae:41e4:649b:9303::1]:8092",
                "grpc://127.0.0.1:8099",
                "abcd",
                true,
            ),
            (
                "siderolink.api=https://127.0.0.1:8099?jointoken=abcd",
                "https://127.0.0.1:8099",
                "abcd",
                false,
            ),
            (&v2, "https://127.0.0.1:8099", V2, false),
            (
                "siderolink.api=[fd00::1]:8099?jointoken=abcd",
                "grpc://[fd00::1]:8099",
                "abcd",
                false,
            ),
            ("siderolink.api=HTTP://x/?jointoken=abcd&grpc_tunnel=y", "http://x/", "abcd", true),
            (
                "siderolink.api=https://x?grpc_tunnel=false&jointoken=abcd",
                "https://x",
                "abcd",
                false,
            ),
        ] {
            assert_eq!(read(text), (api.to_owned(), token.to_owned(), tunnel), "{text}");
        }
        let pasted = parse(&v2).unwrap();
        assert_eq!(pasted.token.kind().to_string(), "v2, of infra provider test");
        assert_eq!(pasted.doubts(), []);
        assert_eq!(pasted.events.as_deref(), Some(DEFAULT_EVENTS));
        assert_eq!(pasted.kernel_log.as_deref(), Some(DEFAULT_KERNEL_LOG));
    }

    #[test]
    fn it_may_stand_over_several_lines_in_quotes_and_in_a_list() {
        let api = "siderolink.api=https://x?jointoken=abcd";
        let [events, log] = SINKS.split(' ').collect::<Vec<_>>()[..] else { panic!() };
        for text in [
            format!("{api}\n{events}\n{log}\n"),
            format!("  {log}\r\n\r\n\t{events}\r\n{api}\r\n"),
            format!("\"{api} {SINKS}\""),
            format!("  - {api}\n  - '{events}'\n  - \"{log}\"\n"),
            format!("[ \"{api}\", \"{events}\", \"{log}\" ]"),
            format!("{api} {SINKS} {api} {SINKS}"),
        ] {
            let pasted = parse(&text).unwrap();
            assert_eq!((pasted.api.as_str(), pasted.doubts()), ("https://x", vec![]), "{text}");
            assert_eq!(pasted.kernel_log.as_deref(), Some(DEFAULT_KERNEL_LOG), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told_and_no_token_repeated() {
        let no_api = "there is no `siderolink.api=` in it: paste all that Omni's \"Copy Kernel Parameters\" copies, or `omnictl jointoken kernel-args` prints";
        let no_token = "`siderolink.api` has no `jointoken=` behind its `?`: copy it whole";
        let broken = "the line is broken within `siderolink.api`: paste it as one line, or each argument on a line of its own";
        let scheme = "the address in `siderolink.api` starts with something else than https://, http:// or grpc://";
        let character = "the join token has a character in it that none has: they are letters and digits, or `v1:` or `v2:` and base64";
        for (text, told) in [
            ("", vec![no_api]),
            ("hush", vec![no_api]),
            (SINKS, vec![no_api]),
            ("https://x?jointoken=hush", vec![no_api]),
            ("siderolink.api=https://x", vec![no_token]),
            ("siderolink.api=https://x?grpc_tunnel=true", vec![no_token]),
            ("siderolink.api=https://x?jointoken=", vec!["the join token is empty"]),
            (
                "siderolink.api=https://x?jointoken=hush&jointoken=hush2",
                vec!["`siderolink.api` has two join tokens: keep one"],
            ),
            (
                "siderolink.api=https://x?jointoken=hush siderolink.api=https://y?jointoken=hush",
                vec!["`siderolink.api` stands there twice, with two values: keep one"],
            ),
            ("siderolink.api=ftp://x?jointoken=hush", vec![scheme]),
            ("siderolink.api=hush://x", vec![scheme, no_token]),
            (
                "siderolink.api=https://?jointoken=hush",
                vec!["the address in `siderolink.api` names no host"],
            ),
            (
                "siderolink.api=https://${hush}?jointoken=hush",
                vec!["the address in `siderolink.api` has `${` in it, which iPXE would expand"],
            ),
            ("siderolink.api=https://x?jointoken=${hush}", vec![character]),
            ("siderolink.api=https://x?jointoken=hu+sh", vec![character]),
            ("siderolink.api=https://x?jointoken=hush#x", vec![character]),
            ("siderolink.api=https://x?jointoken=hu\nsh talos.x=1", vec![broken]),
            (
                "siderolink.api=https://\nx?jointoken=hush",
                vec![broken, "the address in `siderolink.api` names no host", no_token],
            ),
            (
                "siderolink.api=https://x?jointoken=hush talos.events.sink=${hush} \
                 talos.logging.kernel=\u{1b}hush",
                vec![
                    "`talos.events.sink` has `${` in it, which iPXE would expand",
                    "`talos.logging.kernel` has a control character in it",
                ],
            ),
            (
                "siderolink.api=https://x?jointoken=hush talos.events.sink=a:1 talos.events.sink=hush",
                vec!["`talos.events.sink` stands there twice, with two values: keep one"],
            ),
        ] {
            assert_eq!(mistakes(text), told, "{text}");
        }
    }

    #[test]
    fn what_is_worth_a_second_look_is_told_and_taken() {
        let api = "siderolink.api=https://x?jointoken=hush";
        assert_eq!(doubts(api), [Doubt::NoEvents, Doubt::NoKernelLog]);
        assert_eq!(doubts(&format!("{api} {SINKS} console=tty0 quiet")), [Doubt::Others(2)]);
        let swapped = SINKS.replace("8090", "x").replace("8092", "8090").replace('x', "8092");
        assert_eq!(doubts(&format!("{api} {swapped}")), [Doubt::Swapped]);
        let newer = format!("siderolink.api=https://x?jointoken=v3:hush {SINKS}");
        assert_eq!(doubts(&newer), [Doubt::NewerToken]);
    }

    #[test]
    fn any_text_is_an_answer_that_shows_no_token() {
        let whole = format!("siderolink.api=https://x?grpc_tunnel=true&jointoken=hush {SINKS}");
        for (end, _) in whole.char_indices() {
            for cut in [&whole[..end], &whole[end..]] {
                let told = match parse(cut) {
                    Ok(pasted) => format!("{pasted:?}"),
                    Err(mistakes) => mistakes.to_string(),
                };
                assert!(!told.contains("hush"), "{told}");
            }
        }
    }
}
