//! Text from elsewhere (the network, a machine, a file's name, the config) as a log, a terminal and JSON show it: the
//! one place that decides which characters are escaped.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;

/// The characters that are shown of a name that a client sends.
pub const LONGEST_NAME: usize = 120;

/// Whether a character moves the cursor, ends the line, turns the direction of the text round, or cannot be seen: so
/// that a line with it reads as something else than it is.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            // The soft hyphen, the Arabic letter mark, the Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero-width space and joiners, the marks of a direction.
            | '\u{200b}'..='\u{200f}'
            // Line and paragraph separator, embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, isolates, deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // The byte order mark, annotations, what is no character, tags.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}'
        )
}

/// The character, or a blank for one that [`is_hidden`]: where columns are counted.
pub fn blank(c: char) -> char {
    if is_hidden(c) { ' ' } else { c }
}

/// A text as one line.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// A text of several lines.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// Lines of a log, which may be coloured: tracing has escaped the ESC of what it colours.
pub fn log(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t' | '\u{1b}'))
}

/// JSON, which has hidden characters in its strings only.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_raw = |c: char| is_hidden(c) && c != '\n';
    if !text.contains(is_raw) {
        return Cow::Borrowed(text);
    }
    let mut json = String::with_capacity(text.len());
    for c in text.chars() {
        if is_raw(c) {
            let mut units = [0; 2];
            json.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            json.push(c);
        }
    }
    Cow::Owned(json)
}

/// A name in one line: cut first, so that no escape makes it longer than [`LONGEST_NAME`] characters. A name that is
/// escaped already stays as it is.
///
/// What can be the id of a boot or of its answer files, 32 hexadecimal digits, is shown as `***`.
pub fn name(text: &str) -> String {
    cut(&without_ids(text), LONGEST_NAME)
}

fn without_ids(text: &str) -> Cow<'_, str> {
    const DIGITS: usize = 32;
    let is_digit = |c: char| c.is_ascii_hexdigit();
    if text.len() < DIGITS {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_digit) {
        let (before, from) = rest.split_at(start);
        let (digits, behind) = from.split_at(from.find(|c| !is_digit(c)).unwrap_or(from.len()));
        shown += before;
        shown += if digits.len() == DIGITS { "***" } else { digits };
        rest = behind;
    }
    Cow::Owned(shown + rest)
}

/// As [`name`], of so many characters.
pub fn cut(text: &str, most: usize) -> String {
    let mut rest = text;
    for _ in 0..most {
        let Some(first) = rest.chars().next() else {
            return line(text).into_owned();
        };
        rest = &rest[escape(rest).unwrap_or(first.len_utf8())..];
    }
    if rest.is_empty() {
        return line(text).into_owned();
    }
    format!("{}…", line(&text[..text.len() - rest.len()]))
}

/// How long the escape is that a text begins with.
fn escape(text: &str) -> Option<usize> {
    let escape = text.strip_prefix('\\')?;
    if escape.starts_with(['n', 'r', 't']) {
        return Some(2);
    }
    let (digits, _) = escape.strip_prefix("u{")?.split_once('}')?;
    let is_hex = (1..=6).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_hexdigit());
    is_hex.then_some(digits.len() + "\\u{}".len())
}

fn escaped(text: &str, is_raw: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if !text.contains(is_raw) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_raw(c) => shown.push(c),
            '\n' | '\r' | '\t' => shown.extend(c.escape_default()),
            c => shown.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What turns a line round, hides something in it, or ends it.
    const HIDDEN: &str = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\
        \u{2067}\u{2068}\u{2069}\u{2028}\u{2029}\u{85}\u{200b}\u{200c}\u{200d}\u{feff}\0\u{7}\u{8}\
        \u{1b}\u{7f}\u{80}\u{9b}\u{9f}\r\u{b}\u{c}\u{e0041}\u{ad}\u{2060}";

    #[test]
    fn escapes_every_hidden_character_and_no_other() {
        for c in HIDDEN.chars() {
            let text = format!("a{c}b");
            let code = format!("\\u{{{:x}}}", u32::from(c));
            let code = if c == '\r' { "\\r" } else { &code };
            assert_eq!(line(&text), format!("a{code}b"));
            assert_eq!(lines(&text), line(&text));
            assert_eq!(name(&text), line(&text));
            assert_eq!(blank(c), ' ');
            let shown = json(&serde_json::to_string(&text).unwrap()).into_owned();
            assert!(shown.is_ascii() && !shown.contains(is_hidden), "{shown}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
            let logged = if c == '\u{1b}' { text.clone() } else { line(&text).into_owned() };
            assert_eq!(log(&text), logged);
        }
        for text in ["Öden ⏻ 日本 \u{1f600} …", "C:\\x86\\\"y\"'`", ""] {
            assert!(matches!(line(text), Cow::Borrowed(same) if same == text));
            assert!(matches!(json(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
        assert_eq!((lines("a\nb\tc"), log("a\nb\tc")), ("a\nb\tc".into(), "a\nb\tc".into()));
    }

    #[test]
    fn shows_no_id_of_a_boot_in_a_name() {
        let id = "0123456789abcdef0123456789ABCDEF";
        assert_eq!(name(&format!("boot-{id}/x?id={id}")), "boot-***/x?id=***");
        assert_eq!((name(id), name(&format!("{id}é"))), ("***".into(), "***é".into()));
        let sum = format!("{id}{id}");
        for other in [&sum, &id[1..], "kernel", "é", ""] {
            assert_eq!(name(other), other);
        }
    }

    #[test]
    fn cuts_a_name_before_it_is_escaped_and_only_once() {
        let escapes = name(&"\u{1b}".repeat(4900));
        assert_eq!(escapes, format!("{}…", "\\u{1b}".repeat(120)));
        let whole = "é".repeat(120);
        assert_eq!(name(&whole), whole);
        assert_eq!(name(&format!("{whole}x")), format!("{whole}…"));
        let mixed = "\u{202e}\n\\\\u{1b}\\u{zz}".repeat(1000);
        for long in [&escapes, &name(&mixed), &name(&"x\ny".repeat(99)), &name("\\u{")] {
            assert_eq!(name(long), *long);
            assert!(long.len() <= 120 * 10 + "…".len());
        }
    }
}
