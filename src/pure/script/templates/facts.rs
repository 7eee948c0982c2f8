//! Which templates use what only iPXE can tell of its machine: it is asked for that then.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeSet;

use minijinja::{Environment, Template};

/// What only iPXE can tell, as templates say it. A machine's own serial number and UUID are among it, where
/// its entry does not say them.
const FACTS: &[&str] = &[
    "client.serial",
    "client.product",
    "client.vendor",
    "client.cpu",
    "client.nic",
    "client.uuid",
    "machine.serial",
    "machine.uuid",
];

/// The files that use what only iPXE can tell, themselves or through what they include.
pub(super) fn using_facts(env: &Environment<'_>) -> BTreeSet<String> {
    let mut using: BTreeSet<String> = env
        .templates()
        .filter(|(_, template)| tells(template))
        .map(|(file, _)| file.to_owned())
        .collect();
    loop {
        // An answer file has no name that anything could include it by.
        let scripts: Vec<&String> = using.iter().filter(|file| !file.starts_with("//")).collect();
        let includes = |source: &str| scripts.iter().any(|used| names(source, used));
        let more: Vec<String> = env
            .templates()
            .filter(|(file, template)| !using.contains(*file) && includes(template.source()))
            .map(|(file, _)| file.to_owned())
            .collect();
        if more.is_empty() {
            return using;
        }
        using.extend(more);
    }
}

/// Whether a template uses one of these facts; or all that is known of its machine at once, or what it
/// includes by a name that it makes, which may be one of them.
fn tells(template: &Template<'_, '_>) -> bool {
    let used = template.undeclared_variables(true);
    let is_below = |path: &str, fact: &str| {
        path.strip_prefix(fact).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_fact = |path: &String| {
        ["client", "machine"].contains(&path.as_str())
            || FACTS.iter().any(|fact| is_below(path, fact))
    };
    used.iter().any(is_fact) || makes_a_name(template.source())
}

/// Whether something is included, extended or imported whose name is no quoted text.
fn makes_a_name(source: &str) -> bool {
    source.split("{%").skip(1).any(|tag| {
        let tag = tag.trim_start_matches(['-', '+']).trim_start();
        let name = ["include", "extends", "import", "from"]
            .iter()
            .find_map(|word| tag.strip_prefix(word)?.strip_prefix(char::is_whitespace));
        name.is_some_and(|name| !name.trim_start().starts_with(['"', '\'']))
    })
}

/// Whether a source has a file's name in it as a quoted text.
fn names(source: &str, file: &str) -> bool {
    ['"', '\''].iter().any(|quote| source.contains(&format!("{quote}{file}{quote}")))
}
