//! The line that a problem stands on, quoted and marked, without the secrets that may stand on it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::boot::omni::redacted;

/// How much of a line is shown: a mapping in braces may have thousands of characters.
const WIDEST: usize = 120;
/// How much of that stands before what is marked.
const BEFORE: usize = 60;

/// Words that end the names of keys whose values are secrets.
const SECRET: [&str; 5] = ["token", "kernel_args", "password", "secret", "passphrase"];

/// A line, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The line, or the part of it that is shown.
    pub line: String,
    /// How many characters stand before what is marked.
    pub before: usize,
    /// How many are marked.
    pub wide: usize,
}

impl Quote {
    /// What stands at this column of a line, both counted from 1.
    pub fn of(line: &str, column: u64) -> Self {
        let column = usize::try_from(column).unwrap_or(usize::MAX).max(1) - 1;
        Self::marking(line, column, extent(line.chars().skip(column)))
    }

    /// So many characters of a line, behind so many others.
    pub fn marking(line: &str, before: usize, wide: usize) -> Self {
        let shown: Vec<char> =
            without_secrets(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let before = before.min(shown.len());
        let start = if shown.len() > WIDEST { before.saturating_sub(BEFORE) } else { 0 };
        let end = shown.len().min(start + WIDEST);
        let cut = |is_cut: bool| if is_cut { "…" } else { "" };
        let part: String = shown[start..end].iter().collect();
        let line = format!("{}{}{}", cut(start > 0), part.trim_end(), cut(end < shown.len()));
        let before = before - start + usize::from(start > 0);
        let room = line.chars().count().saturating_sub(before).max(1);
        Self { line, before, wide: wide.clamp(1, room) }
    }

    /// As it is shown below its message, with the line's number.
    pub fn marked(&self, number: u64) -> String {
        let Self { line, before, wide } = self;
        let (blank, mark) = (" ".repeat(*before), "^".repeat(*wide));
        format!("\n{number:>6} | {line}\n       | {blank}{mark}")
    }
}

/// How many characters the value or the key has that begins here.
fn extent(rest: impl Iterator<Item = char>) -> usize {
    let rest: Vec<char> = rest.collect();
    match rest.first() {
        Some(quote @ ('"' | '\'')) => {
            let end = rest.iter().skip(1).position(|c| c == quote);
            end.map_or(rest.len(), |end| end + 2)
        }
        Some('{' | '[' | '-' | '&' | '*' | '|' | '>') | None => 1,
        Some(_) => {
            let ends = |at: usize| match rest[at] {
                ',' | '}' | ']' => true,
                ':' => rest.get(at + 1).is_none_or(|next| next.is_whitespace()),
                ' ' => rest.get(at + 1).is_none_or(|next| *next == '#' || *next == ' '),
                _ => false,
            };
            let end = (0..rest.len()).find(|at| ends(*at)).unwrap_or(rest.len());
            let last = rest[..end].iter().rposition(|c| !c.is_whitespace());
            last.map_or(1, |last| last + 1)
        }
    }
}

/// A line whose secrets are `***`: join tokens, and what stands behind a key that has a secret's name. A
/// mapping there, as `{ file: … }`, holds none.
fn without_secrets(line: &str) -> String {
    let line = redacted(line);
    let mut from = 0;
    while let Some(colon) = line[from..].find(':').map(|at| from + at) {
        let key = line[..colon].trim_end_matches(['"', '\'']).to_lowercase();
        let value = line[colon + 1..].trim_start();
        let names_a_secret = SECRET.iter().any(|word| key.ends_with(word));
        let is_elsewhere = value.is_empty() || value.starts_with(['{', '#', '&', '*']);
        if names_a_secret && !is_elsewhere {
            let blank = line.len() - colon - 1 - value.len();
            return format!("{}***", &line[..colon + 1 + blank]);
        }
        from = colon + 1;
    }
    line.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(line: &str, column: u64) -> String {
        Quote::of(line, column).marked(7)
    }

    #[test]
    fn what_is_meant_is_marked_to_its_end() {
        for (line, column, mark) in [
            ("    image: rak", 12, "           ^^^"),
            ("    image: rak # so", 12, "           ^^^"),
            ("a: [quiet, 'x y', z]", 12, "           ^^^^^"),
            ("a: [quiet, 'x y', z]", 4, "   ^"),
            ("m: { mac: 5c:f3:fc:00:00:01, x: 1 }", 11, "          ^^^^^^^^^^^^^^^^^"),
            ("  interface: eth0", 3, "  ^^^^^^^^^"),
            ("\tb: 2", 1, "^^"),
            ("server: { http: { port: 0 } }", 25, "                        ^"),
            ("x", 9, " ^"),
        ] {
            assert_eq!(
                marked(line, column).lines().last(),
                Some(format!("       | {mark}").as_str())
            );
        }
        assert_eq!(
            marked("    image: rak", 12),
            "\n     7 |     image: rak\n       |            ^^^"
        );
    }

    #[test]
    fn of_a_long_line_the_part_around_the_mark_is_shown() {
        let line = format!("m: {{ {}, mac: x, {} }}", "a: 1, ".repeat(50), "b: 2, ".repeat(50));
        let column = line.find("x, b").unwrap() as u64 + 1;
        let quote = Quote::of(&line, column);
        assert!(quote.line.chars().count() <= WIDEST + 2, "{quote:?}");
        assert!(quote.line.starts_with('…') && quote.line.ends_with('…'), "{quote:?}");
        assert_eq!(quote.line.chars().nth(quote.before), Some('x'));
    }

    #[test]
    fn no_secret_is_quoted() {
        for line in [
            "    join_token: hush",
            "  join_token: \"hush\" # so",
            "o: { api: x, join_token: hush }",
            "  cmdline: [siderolink.api=https://x?jointoken=hush&y=1]",
            "  kernel_args: siderolink.api=grpc://x?jointoken=hush talos.x=y",
            "  \"admin-token\": 'hush",
            "  Password: hush hush",
        ] {
            for column in 1..60 {
                let quote = marked(line, column);
                assert!(!quote.contains("hush"), "{line}: {quote}");
            }
        }
        let line = "    join_token: { file: ./secrets/homelab.token }";
        assert!(marked(line, 5).contains(line), "where it is read from is no secret");
    }
}
