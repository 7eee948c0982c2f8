//! What has changed in one thing, field by field, in words.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Display;
use std::path::Path;

use crate::pure::catalog::secret::SecretText;

/// What has changed in one thing, field by field.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// A few words each.
    pub(super) told: Vec<String>,
}

impl Fields {
    /// `profile talos -> rescue`
    pub(super) fn value<T: PartialEq + Display>(
        &mut self,
        field: &str,
        old: Option<T>,
        new: Option<T>,
    ) {
        if old != new {
            let said =
                |value: Option<T>| value.map_or("none".to_owned(), |value| value.to_string());
            self.changed(field, &format!("{} -> {}", said(old), said(new)));
        }
    }

    /// `cmdline + console=ttyS1 - quiet`
    pub(super) fn list<T: Ord + Display>(&mut self, field: &str, old: &[T], new: &[T]) {
        if old == new {
            return;
        }
        let beyond = |some: &[T], others: &[T], sign: &str| {
            let mut others: Vec<&T> = others.iter().collect();
            let mut beyond = Vec::new();
            for item in some {
                match others.iter().position(|other| *other == item) {
                    Some(at) => drop(others.swap_remove(at)),
                    None => beyond.push(format!("{sign} {item}")),
                }
            }
            beyond
        };
        let mut said = beyond(new, old, "+");
        said.extend(beyond(old, new, "-"));
        let said = if said.is_empty() { "in another order".to_owned() } else { said.join(" ") };
        self.changed(field, &said);
    }

    pub(super) fn path(&mut self, field: &str, old: &Path, new: &Path) {
        self.value(field, Some(old.display().to_string()), Some(new.display().to_string()));
    }

    /// The value itself is not told.
    pub(super) fn secret(
        &mut self,
        field: &str,
        old: &Result<SecretText, String>,
        new: &Result<SecretText, String>,
    ) {
        let said = match (old, new) {
            (Ok(old), Ok(new)) if old.expose() == new.expose() => return,
            (Ok(_), Ok(_)) => "changed",
            (Err(_), Ok(_)) => "is there",
            (Ok(_), Err(_)) => "is missing",
            (Err(old), Err(new)) if old == new => return,
            (Err(_), Err(_)) => "is still missing",
        };
        self.changed(field, said);
    }

    /// Where `what` is only told in a word.
    pub(super) fn other<T: PartialEq>(&mut self, what: &str, old: &T, new: &T) {
        if old != new {
            self.changed(what, "changed");
        }
    }

    pub(super) fn changed(&mut self, field: &str, how: &str) {
        self.told.push(format!("{field} {how}").trim_start().to_owned());
    }
}
