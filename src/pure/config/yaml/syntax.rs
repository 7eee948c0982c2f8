//! What is wrong with text that is no YAML, for somebody who has never read YAML's grammar.
//!
//! The library says where it could not go on, in the grammar's words; the mistake is often on the line
//! before. Its message is known by a part of its text; one that is not known here is told as it is.

use serde_saphyr::{Error, Location};

use super::{Place, SyntaxError, place};
use crate::pure::printable;

const NO_COLON: &str = "this line has no `:`; write it like `key: value`";

/// What the library says, in part, and what it is called where it says so.
const PLAIN: [(&str, &str); 6] = [
    ("unclosed quote", "this quote is not closed"),
    (
        "invalid trailing content after",
        "the quotes end before this; put the whole value between them",
    ),
    ("misplaced bracket", "this bracket or brace closes nothing"),
    ("recursion limit", "brackets or braces stand too deep in each other here"),
    ("budget breached", ALIASES),
    ("alias", ALIASES),
];
const ALIASES: &str = "aliases (`*name`) repeat more here than any config needs; write out what is meant, once for each";

/// The library's error, at the place that needs an edit.
pub(super) fn in_plain_words(error: &Error, text: &str) -> SyntaxError {
    let at = place(error.location().unwrap_or(Location::UNKNOWN));
    let library = without_place(&error.without_snippet().to_string());
    let has = |part: &str| library.contains(part);
    let told = |place: Place, message: String| SyntaxError { place, message };
    let line = line_of(text, at.line);
    let begin = Place { column: indentation(line) + 1, ..at };
    if has("tabs disallowed") || has("tab ") {
        let column = line.find('\t').map_or(at.column, |tab| column(line, tab));
        let message = "a tab stands here; YAML is indented with blanks".to_owned();
        return told(Place { column, ..at }, message);
    }
    if has("multiple YAML documents") {
        let begins = |line: &u32| line_of(text, *line).starts_with("---");
        let line = (1..=at.line).rev().find(begins).unwrap_or(at.line);
        let message = "`---` begins a second document here; a config is one".to_owned();
        return told(Place { line, column: 1 }, message);
    }
    if has("unknown anchor") {
        return told(at, without_anchor(line, at));
    }
    if let Some((_, plain)) = PLAIN.iter().find(|(part, _)| has(part)) {
        return told(at, (*plain).to_owned());
    }
    if let Some(character) = line.chars().nth(at.column as usize - 1)
        && has("unexpected character")
    {
        return told(at, unexpected(character));
    }
    if let Some((place, bracket)) = unclosed(text, at)
        && ["flow", "':'", "bracket", "mapping values"].into_iter().any(has)
    {
        return told(place, format!("this `{bracket}` is not closed"));
    }
    if has("simple key expect") {
        return told(begin, NO_COLON.to_owned());
    }
    if has("mapping values are not allowed") {
        return misplaced(text, at);
    }
    if has("did not find expected key") || has("did not find expected '-'") || has("indentation") {
        let message =
            "this fits nowhere: it is indented like none of the lines that it could belong to";
        return told(begin, message.to_owned());
    }
    told(at, library)
}

fn without_anchor(line: &str, at: Place) -> String {
    let name = word(line, at.column);
    let anchor = name.trim_start_matches('*');
    format!(
        "`{name}` stands for what has the anchor `&{anchor}`, and there is none; a text that begins with `*` needs quotes"
    )
}

fn unexpected(character: char) -> String {
    let text = character.to_string();
    let shown = printable::line(&text);
    if printable::is_hidden(character) {
        format!("the character `{shown}` cannot stand in a config")
    } else {
        format!("a value that begins with `{shown}` needs quotes")
    }
}

/// A `:` where none can stand: the line before has none, or none with a blank behind it, or a value already.
fn misplaced(text: &str, at: Place) -> SyntaxError {
    let line = line_of(text, at.line);
    let own = line.char_indices().nth(at.column as usize - 1).map_or(line, |(at, _)| &line[..at]);
    if own.contains(": ") {
        let message = "a value with `: ` in it needs quotes".to_owned();
        return SyntaxError { place: at, message };
    }
    let is_read = |line: &u32| {
        let line = line_of(text, *line).trim();
        !line.is_empty() && !line.starts_with('#')
    };
    let here = Place { column: indentation(line) + 1, ..at };
    let deeper = "it is indented deeper than the line before it, which has a value already";
    let Some(number) = (1..at.line).rev().find(is_read) else {
        return SyntaxError { place: here, message: deeper.to_owned() };
    };
    let before = line_of(text, number);
    let content = before.trim().trim_start_matches("- ").trim_start();
    let there =
        Place { line: number, column: column(before, before.len() - before.trim_start().len()) };
    match content.split_once(':') {
        None => SyntaxError { place: there, message: NO_COLON.to_owned() },
        Some((key, rest)) if !rest.is_empty() && !rest.starts_with(' ') => {
            SyntaxError { place: there, message: format!("a blank is missing behind `{key}:`") }
        }
        Some(_) => SyntaxError { place: here, message: deeper.to_owned() },
    }
}

/// The innermost `[` or `{` before a place that nothing has closed there.
fn unclosed(text: &str, at: Place) -> Option<(Place, char)> {
    let mut open: Vec<(Place, char)> = Vec::new();
    let mut quote = None;
    for (line, number) in text.lines().zip(1..=at.line) {
        // Where a value may begin, a quote or a bracket is one; within a word it is a letter.
        let mut begins = true;
        let mut before = ' ';
        for (c, column) in line.chars().zip(1..) {
            if number == at.line && column >= at.column {
                return open.pop();
            }
            match (quote, c) {
                (Some(q), c) if q == c && before != '\\' => quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => break,
                (None, '"' | '\'') if begins => quote = Some(c),
                (None, '[' | '{') if begins => open.push((Place { line: number, column }, c)),
                (None, ']' | '}') => {
                    open.pop();
                }
                (None, _) => {}
            }
            begins = "[{,".contains(c) || c.is_whitespace() && (begins || ":-,".contains(before));
            before = c;
        }
    }
    open.pop()
}

fn line_of(text: &str, number: u32) -> &str {
    text.lines().nth(number.saturating_sub(1) as usize).unwrap_or_default()
}

fn indentation(line: &str) -> u32 {
    column(line, line.len() - line.trim_start().len()) - 1
}

/// The column of the character at a byte of a line.
fn column(line: &str, at: usize) -> u32 {
    u32::try_from(line[..at].chars().count()).unwrap_or(u32::MAX - 1) + 1
}

/// What stands from a column to the next blank or bracket.
fn word(line: &str, column: u32) -> String {
    let ends = |c: &char| !c.is_whitespace() && !",]}".contains(*c);
    line.chars().skip(column.saturating_sub(1) as usize).take_while(ends).collect()
}

/// The library's message without its `at line 3, column 4`.
fn without_place(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let end = first.rfind(" at line ").unwrap_or(first.len());
    let start = first.find(": ").filter(|at| first[..*at].contains("line "));
    first[start.map_or(0, |at| at + 2)..end.max(start.unwrap_or(0))].to_owned()
}
