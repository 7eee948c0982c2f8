//! What a template prints, checked on its way into the text.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, Value, filters};

use crate::pure::catalog::ipxe_word::Flaw;
use crate::pure::printable::is_hidden;

/// Text that is read as iPXE reads it.
pub(super) const IPXE: &str = "ipxe";
/// Text of any other kind: preseed, kickstart, YAML, JSON, a shell's.
pub(super) const ANSWER: &str = "answer";

/// Writes a value that was looked at.
pub(super) fn print(
    out: &mut Output<'_>,
    state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.is_safe() {
        return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
    }
    let text = printable(value)?;
    match danger(state, &text).or_else(|| joins(state, &text, &text)) {
        // The value is not repeated: it may be a secret.
        Some(why) => Err(refused(format!("a value that is printed here {why}"))),
        None => out.write_str(&text).map_err(Error::from),
    }
}

/// A value in one piece.
fn printable(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::String | ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
        ValueKind::None | ValueKind::Undefined => {
            Err(refused("a value that is printed here is not known".to_owned()))
        }
        _ => Err(refused(format!("a {} cannot be printed; print what is in it", value.kind()))),
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::BadEscape, message)
}

/// How a word would break out of its place in the text that is written.
fn danger(state: &State<'_, '_>, word: &str) -> Option<String> {
    match state.auto_escape() {
        AutoEscape::Custom(kind) if kind == IPXE => Flaw::of(word).map(|flaw| flaw.to_string()),
        _ => breakout(word),
    }
}

/// How words could break out of a boot script together with what stands beside them without a blank: another
/// value, or the template's own text.
fn joins(state: &State<'_, '_>, first: &str, last: &str) -> Option<String> {
    if !matches!(state.auto_escape(), AutoEscape::Custom(kind) if kind == IPXE) {
        return None;
    }
    if last.ends_with('$') {
        return Some(
            "could make `${` with what stands behind it, which iPXE would expand".to_owned(),
        );
    }
    let half = [first, last].into_iter().find(|word| ["|", "&"].contains(word))?;
    Some(format!("has `{half}` at its end, of which two beside each other are an operator to iPXE"))
}

/// The same of what is printed as several words.
fn edge<W: AsRef<str>>(state: &State<'_, '_>, words: &[W]) -> Option<String> {
    joins(state, words.first()?.as_ref(), words.last()?.as_ref())
}

/// How a word would break out of its place in an answer file: of a quoted text, a YAML or JSON value, a
/// line of a preseed file, a word of a shell.
fn breakout(word: &str) -> Option<String> {
    const HARMLESS: &str = "._:/@+,=%-~";
    if word.is_empty() {
        return Some("is empty".to_owned());
    }
    if word.ends_with(':') {
        return Some(
            "ends with `:`, which YAML takes for a key; use the filter `tojson`".to_owned(),
        );
    }
    let odd = word.chars().find(|c| !c.is_alphanumeric() && !HARMLESS.contains(*c))?;
    let why = match odd {
        ' ' => "has a blank in it; use the filter `words`".to_owned(),
        odd if is_hidden(odd) => "has a control character in it".to_owned(),
        odd => format!("has `{odd}` in it; use the filter `tojson` where JSON or YAML belongs"),
    };
    Some(why)
}

/// The filter `words`: of a text, where blanks are wanted, and everything else is checked word by word; or
/// of a list, of which every item is one word.
pub(super) fn words(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    let words: Vec<String> = match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.map(|item| printable(&item)).collect::<Result<_, _>>()?
        }
        _ => printable(value)?.split(' ').map(str::to_owned).collect(),
    };
    let flaw = words.iter().find_map(|word| danger(state, word));
    match flaw.or_else(|| edge(state, &words)) {
        Some(why) => Err(refused(format!("a word that is printed here {why}"))),
        None => Ok(Value::from_safe_string(words.join(" "))),
    }
}

/// The filter `tojson`: a value as JSON, which holds whatever it is; also what is an empty list or nothing,
/// but not what is misspelt. iPXE does not know JSON's quotes, so there it stays one word.
pub(super) fn tojson(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(refused("a value that is printed here is not known".to_owned()));
    }
    let json = filters::tojson(value, indent, options)?;
    Ok(match state.auto_escape() {
        AutoEscape::Custom(kind) if kind == IPXE => Value::from(json.to_string()),
        _ => json,
    })
}

/// The filter `harmless`: what is only shown. Words that cannot be printed are left out, and so is what is
/// not known.
pub(super) fn harmless(state: &State<'_, '_>, value: &Value) -> Value {
    let text = printable(value).unwrap_or_default();
    let mut words: Vec<&str> =
        text.split_whitespace().filter(|word| danger(state, word).is_none()).collect();
    while edge(state, &words).is_some() {
        let is_last = words.last().is_some_and(|last| joins(state, "", last).is_some());
        words.remove(if is_last { words.len() - 1 } else { 0 });
    }
    Value::from_safe_string(words.join(" "))
}
