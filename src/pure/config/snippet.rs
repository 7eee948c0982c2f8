//! The line that a problem stands on, quoted and marked, without the secrets that may stand on it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::pure::catalog::omni::tokens_in;
use crate::pure::printable::blank;

/// How much of a line is shown: a mapping in braces may have thousands of characters.
const WIDEST: usize = 120;
/// How much of that stands before what is marked.
const BEFORE: usize = 60;

/// Names of keys whose values are secrets, and parts of such names.
const SECRET: [&str; 6] =
    ["join_token", "token", "kernel_args", "password", "secret", "passphrase"];

/// What is shown for a secret.
const STARS: &str = "***";

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
    /// What stands at this column of a line, counted from 1.
    pub fn of(line: &str, column: u32) -> Self {
        let before = column.max(1) as usize - 1;
        Self::marking(line, before, extent(line.chars().skip(before)))
    }

    /// A line that is a secret from its first character to its last.
    pub fn hidden(line: &str) -> Self {
        let blank = &line[..line.len() - line.trim_start().len()];
        Self { line: format!("{blank}{STARS}"), before: blank.chars().count(), wide: STARS.len() }
    }

    /// So many characters of a line, behind so many others.
    pub fn marking(line: &str, before: usize, wide: usize) -> Self {
        // Secrets are shorter or longer than the stars in their place.
        let hidden = hide_secrets(line);
        let [before, end] = [before, before + wide].map(|at| place_in(&hidden, at));
        let wide = end.saturating_sub(before);
        let shown = hidden.iter().flat_map(|(_, shown)| shown.chars());
        let shown: Vec<char> = shown.map(blank).collect();
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
    pub fn marked(&self, number: u32) -> String {
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
        Some('{' | '[' | '|' | '>' | '\t') | None => 1,
        Some('-') if rest.get(1).is_none_or(|next| next.is_whitespace()) => 1,
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

/// Whether a line goes on with a secret that the lines before it, the nearest first, have begun: a value
/// below its key, or a text in several lines.
pub fn continues_a_secret<'a>(line: &str, before: impl Iterator<Item = &'a str>) -> bool {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let own = line.trim_start();
    let key = own.split(':').next().unwrap_or_default();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_.- \"'".contains(c);
    let rest = &own[key.len()..];
    if key.chars().all(is_word)
        && rest.starts_with(':')
        && !rest[1..].starts_with(|c: char| c != ' ')
    {
        // Below a secret's key stands where it is read from; under any other key perhaps the secret.
        let is_above = |above: &&str| indentation(above) < indentation(line);
        let parent = before.filter(|line| !line.trim().is_empty()).find(is_above);
        let (above, value) = parent.and_then(|above| above.split_once(':')).unwrap_or_default();
        let opens = value.trim().is_empty() || value.trim_start().starts_with(['{', '#', '&']);
        return is_secret(above) && opens && !names_a_source(key);
    }
    let mut before = before.filter(|line| !line.trim().is_empty());
    let Some(last) = before.next() else {
        return false;
    };
    let begins = |line: &str| {
        let (key, value) = line.rsplit_once(':').unwrap_or_default();
        let value = value.trim();
        is_secret(key) && (value.is_empty() || value.starts_with(['|', '>', '#', '&']))
    };
    let holds = |line: &str| {
        let (key, value) = line.split_once(':').unwrap_or_default();
        is_secret(key) && !value.trim_start().starts_with('{')
    };
    let parent = std::iter::once(last).chain(before).find(|l| indentation(l) < indentation(line));
    begins(last) || parent.is_some_and(holds)
}

/// Whether what stands before a `:` ends with the name of a secret, or with one that may be meant for it.
fn is_secret(before_colon: &str) -> bool {
    let key = before_colon.trim_end().trim_end_matches(['"', '\'']).to_lowercase();
    let key = key.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next();
    let key = key.unwrap_or_default();
    key.len() > 2
        && SECRET
            .iter()
            .any(|word| key.contains(word) || strsim::osa_distance(key, word) <= 1 + word.len() / 8)
}

/// Whether a key says where a secret is read from, which is none itself.
fn names_a_source(before_colon: &str) -> bool {
    let key = before_colon.rsplit(['{', ',']).next().unwrap_or_default();
    ["file", "env", "credential"].contains(&key.trim().trim_matches(['"', '\'']))
}

/// A line in parts: what is written, and what is shown for it. Secrets are shown as `***`: join tokens, and
/// what stands behind a key that has a secret's name. Of a mapping there only what says where the secret is
/// read from is shown, as `{ file: … }`.
fn hide_secrets(line: &str) -> Vec<(&str, &str)> {
    let mut parts = Vec::new();
    let mut from = 0;
    let mut at = 0;
    // Where the mapping ends that stands behind a secret's key.
    let mut inside = 0;
    while let Some(colon) = line[at..].find(':').map(|found| at + found) {
        at = colon + 1;
        let blank = line[at..].len() - line[at..].trim_start().len();
        let value = &line[at + blank..];
        let is_elsewhere = value.is_empty() || value.starts_with(['{', '#', '&', '*']);
        let is_key = blank > 0 || value.is_empty();
        let is_within = colon < inside && is_key && !names_a_source(&line[..colon]);
        if is_secret(&line[..colon]) && value.starts_with('{') {
            inside = at + blank + value.find('}').unwrap_or(value.len());
        }
        if (is_secret(&line[..colon]) || is_within) && !is_elsewhere {
            tokens(&line[from..at + blank], &mut parts);
            let len = secret_len(value, line[..colon].contains('{'));
            parts.push((&value[..len], STARS));
            at += blank + len;
            from = at;
        }
    }
    tokens(&line[from..], &mut parts);
    parts
}

/// Text without a secret's key, in parts: a pasted kernel argument has its join token in it.
fn tokens<'a>(text: &'a str, parts: &mut Vec<(&'a str, &'a str)>) {
    let mut from = 0;
    for token in tokens_in(text) {
        parts.push((&text[from..token.start], &text[from..token.start]));
        parts.push((&text[token.start..token.end], STARS));
        from = token.end;
    }
    parts.push((&text[from..], &text[from..]));
}

/// How long a secret's value is: to the end of its quotes, in braces to the next `,`, else to the end of the line.
fn secret_len(value: &str, is_in_braces: bool) -> usize {
    if let Some(quote @ ('"' | '\'')) = value.chars().next() {
        return value[1..].find(quote).map_or(value.len(), |end| end + 2);
    }
    let ends = |(at, c): (usize, char)| match c {
        ',' => value[at + 1..].starts_with([' ', '\t']).then_some(at),
        '}' => Some(at),
        _ => None,
    };
    let end =
        value.char_indices().find_map(ends).filter(|_| is_in_braces && !value.starts_with('['));
    end.map_or(value.len(), |end| value[..end].trim_end().len())
}

/// Where a character of the line is in what is shown of it.
fn place_in(parts: &[(&str, &str)], at: usize) -> usize {
    let (mut written, mut shown) = (0, 0);
    for (text, instead) in parts {
        let (len, width) = (text.chars().count(), instead.chars().count());
        if at < written + len {
            return if text == instead { shown + at - written } else { shown };
        }
        written += len;
        shown += width;
    }
    shown + at - written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(line: &str, column: u32) -> String {
        Quote::of(line, column).marked(7)
    }

    #[test]
    fn of_a_mapping_behind_a_secrets_key_only_the_source_is_shown() {
        for line in [
            "    join_token: { file: ./secrets/t, value: hush }",
            "    join_token: { value: hush }",
            "o: { join_token: { inline: 'hush', env: X }, api: https://x }",
            "    join_token: { fiel: hush, file: ./x:y }",
        ] {
            for column in 1..60 {
                let quote = Quote::of(line, column).marked(7);
                assert!(!quote.contains("hush"), "{line}: {quote}");
            }
        }
        let line = "o: { join_token: { file: ./x:y }, api: https://x }";
        assert!(Quote::of(line, 4).marked(1).contains(line));
        let below = |key: &str| {
            let line = format!("      {key}: hush");
            continues_a_secret(&line, ["    join_token:", "  lab:"].into_iter())
        };
        assert!(below("value") && below("fiel") && !below("file") && !below("env"));
        assert!(!continues_a_secret("    api: https://x", ["  lab:", "omni:"].into_iter()));
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
            ("\tb: 2", 1, "^"),
            ("  port: -69", 9, "        ^^^"),
            ("  - a: 1", 3, "  ^"),
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
        let column = line.find("x, b").unwrap() as u32 + 1;
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
            "  join_tokn: hush",
            "o: { token: 'hush, hush', x: 1 }",
        ] {
            for column in 1..60 {
                let quote = marked(line, column);
                assert!(!quote.contains("hush"), "{line}: {quote}");
            }
        }
        // What is marked behind a secret is found where it is shown.
        let quote = marked("o: { join_token: hush-hush, tunel: true }", 29);
        let shown =
            "\n     7 | o: { join_token: ***, tunel: true }\n       |                       ^^^^^";
        assert_eq!(quote, shown);
        let line = "    join_token: { file: ./secrets/homelab.token }";
        assert!(marked(line, 5).contains(line), "where it is read from is no secret");
    }

    #[test]
    fn a_secret_that_stands_below_its_key_is_known() {
        let below = |line: &'static str, before: &[&'static str]| {
            continues_a_secret(line, before.iter().rev().copied())
        };
        assert!(below("    hush", &["o:", "  join_token:"]));
        assert!(below("    hush", &["o:", "  join_token: |", "    hush", ""]));
        assert!(below("    hush", &["o:", "  join_token: hush"]));
        assert!(below("  hush, tunel: x }", &["o: { join_token:"]));
        assert!(!below("    file: ./secrets/x", &["o:", "  join_token:"]));
        assert!(!below("  tunel: x", &["o:", "  join_token: hush"]));
        assert!(!below("    x", &["o:", "  cmdline:"]));
        assert!(!below("hush", &[]));
    }
}
