//! What is wrong with a template, without any value in it: that may be a secret.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use minijinja::{Error, ErrorKind, Value};

use crate::pure::catalog::omni::redacted;
use crate::pure::nearest::nearest;

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// The file: `own.ipxe`, or the path of an answer file. None where it is not known.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<usize>,
    /// The column of what is wrong, from 1, and how many characters it has.
    pub columns: Option<(usize, usize)>,
    /// What is wrong. It repeats no value.
    pub message: String,
}

impl Mistake {
    /// Never minijinja's own debug print: that shows every variable.
    pub(super) fn of(error: &Error, values: Option<&Value>) -> Self {
        let error = innermost(error);
        let source = error.template_source();
        let range = error.range();
        let culprit = source.zip(range.clone()).and_then(|(source, range)| source.get(range));
        let detail = error.detail().map(|detail| redacted(detail).into_owned());
        let message = match (error.kind(), culprit, detail) {
            (ErrorKind::UndefinedError, Some(name), _) if is_path(name) => undefined(name, values),
            (ErrorKind::BadEscape, _, Some(detail)) => detail,
            (ErrorKind::TemplateNotFound, _, Some(detail)) => detail,
            (ErrorKind::OutOfFuel, _, _) => {
                "it takes more steps than any script needs; does this loop end?".to_owned()
            }
            (kind, _, Some(detail)) => format!("{kind}: {detail}"),
            (kind, _, None) => kind.to_string(),
        };
        let columns = source.zip(range).and_then(|(source, range)| {
            let start = source.get(..range.start)?.rfind('\n').map_or(0, |at| at + 1);
            let before = source.get(start..range.start)?.chars().count();
            let wide = source.get(range)?.lines().next()?.chars().count();
            Some((before + 1, wide.max(1)))
        });
        Self { file: error.name().map(shown), line: error.line(), columns, message }
    }
}

/// `machine.vars.bay`
fn is_path(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_.".contains(c))
}

/// "`machin.name` is not known; did you mean `machine.name`?"
fn undefined(name: &str, values: Option<&Value>) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    let mut beside = values.cloned().unwrap_or_default();
    for at in 0..parts.len() {
        match beside.get_attr(parts[at]) {
            Ok(value) if !value.is_undefined() => beside = value,
            Ok(_) | Err(_) => {
                let keys = beside.try_iter().ok().into_iter().flatten();
                let known: Vec<String> = keys.map(|key| key.to_string()).collect();
                let Some(near) = nearest(parts[at], known.iter().map(String::as_str)) else {
                    break;
                };
                parts[at] = near;
                return format!("`{name}` is not known; did you mean `{}`?", parts.join("."));
            }
        }
    }
    format!("`{name}` is not known")
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, "template {file}:{line}: ")?,
            (Some(file), None) => write!(f, "template {file}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

/// What is wrong in a template that is included stands there.
pub(super) fn innermost(error: &Error) -> &Error {
    let inner = std::error::Error::source(error).and_then(<dyn std::error::Error>::downcast_ref);
    inner.map_or(error, innermost)
}

pub(super) fn shown(file: &str) -> String {
    file.strip_prefix("//").unwrap_or(file).to_owned()
}
