//! The templates of one snapshot: boot scripts, and the answer files of `files`.
//!
//! A template is minijinja. What it prints through `{{ … }}` is checked on its way into the text, since
//! neither iPXE nor a preseed file knows a quoting that always holds: a value is one word, or, through the
//! filter `words`, several; never a line break, an operator, a quote or a `${…}`. What cannot be printed is
//! refused with the template's own line, and never repeated: it may be a secret.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

use self::facts::using_facts;
use self::mistake::{innermost, shown};
use self::print::{ANSWER, IPXE};
use crate::pure::catalog::needs_facts::NeedsFacts;
use crate::pure::nearest::nearest;

mod facts;
mod mistake;
mod print;

pub use self::mistake::Mistake;

/// The templates that come with reveille, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("ask-facts", include_str!("../../../boot-scripts/ask-facts.ipxe")),
    ("autoexec", include_str!("../../../boot-scripts/autoexec.ipxe")),
    ("autoinstall", include_str!("../../../boot-scripts/autoinstall.ipxe")),
    ("coreos", include_str!("../../../boot-scripts/coreos.ipxe")),
    ("debian", include_str!("../../../boot-scripts/debian.ipxe")),
    ("flatcar", include_str!("../../../boot-scripts/flatcar.ipxe")),
    ("inspect", include_str!("../../../boot-scripts/inspect.ipxe")),
    ("kickstart", include_str!("../../../boot-scripts/kickstart.ipxe")),
    ("linux", include_str!("../../../boot-scripts/linux.ipxe")),
    ("hold", include_str!("../../../boot-scripts/hold.ipxe")),
    ("local-disk", include_str!("../../../boot-scripts/local-disk.ipxe")),
    ("memtest", include_str!("../../../boot-scripts/memtest.ipxe")),
    ("menu", include_str!("../../../boot-scripts/menu.ipxe")),
    ("netbootxyz", include_str!("../../../boot-scripts/netbootxyz.ipxe")),
    ("refused", include_str!("../../../boot-scripts/refused.ipxe")),
    ("talos", include_str!("../../../boot-scripts/talos.ipxe")),
    ("waiting", include_str!("../../../boot-scripts/waiting.ipxe")),
];

/// How many steps a template may take: enough for a menu of a thousand profiles, and the end of a
/// loop that does not stop.
const FUEL: u64 = 50_000;

/// What a script may be long: enough for that menu. iPXE holds it in memory.
const LONGEST: usize = 1 << 20;

/// The templates of one snapshot, compiled.
pub struct Templates {
    env: Environment<'static>,
    broken: BTreeMap<String, Mistake>,
    answers: BTreeMap<PathBuf, Result<(), Mistake>>,
    /// Those that did not come with reveille.
    own: BTreeSet<String>,
    needs_facts: NeedsFacts,
}

impl Default for Templates {
    fn default() -> Self {
        Self::new(BTreeMap::new(), BTreeMap::new())
    }
}

impl Templates {
    /// Compiles the built-in templates, and over them `own`: template name to source, or why it cannot
    /// be read. `answers` are the answer files, by path. A broken one is kept as such; only the boots that
    /// need it are refused.
    pub fn new(
        own: BTreeMap<String, Result<String, String>>,
        answers: BTreeMap<PathBuf, Result<String, String>>,
    ) -> Self {
        let mut env = environment();
        let mut broken = BTreeMap::new();
        let mut sources: BTreeMap<String, Result<String, String>> = BUILT_IN
            .iter()
            .map(|(name, source)| ((*name).to_owned(), Ok((*source).to_owned())))
            .collect();
        let names = own.keys().cloned().collect();
        sources.extend(own);
        for (name, source) in sources {
            if let Err(mistake) = compile(&mut env, script_file(&name), source) {
                broken.insert(name, mistake);
            }
        }
        let answers: BTreeMap<PathBuf, Result<(), Mistake>> = answers
            .into_iter()
            .map(|(path, source)| {
                let compiled = compile(&mut env, answer_file(&path), source);
                (path, compiled)
            })
            .collect();
        let using = using_facts(&env);
        let scripts = using.iter().filter_map(|file| Some(file.strip_suffix(".ipxe")?.into()));
        let files = using.iter().filter_map(|file| Some(file.strip_prefix("//")?.into()));
        Self {
            needs_facts: NeedsFacts::new(scripts.collect(), files.collect()),
            env,
            broken,
            answers,
            own: names,
        }
    }

    /// Whether there is a boot script of this name, usable or not.
    pub fn knows(&self, name: &str) -> bool {
        self.broken.contains_key(name) || self.env.get_template(&script_file(name)).is_ok()
    }

    /// The names of all boot scripts, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .env
            .templates()
            .filter_map(|(file, _)| Some(file.strip_suffix(".ipxe")?.to_owned()))
            .filter(|name| !name.contains('/'))
            .chain(self.broken.keys().cloned())
            .collect();
        names.sort();
        names
    }

    /// The text of a boot script, or why it cannot be used.
    pub fn source(&self, name: &str) -> Option<Result<String, &Mistake>> {
        if let Some(mistake) = self.broken.get(name) {
            return Some(Err(mistake));
        }
        Some(Ok(self.env.get_template(&script_file(name)).ok()?.source().to_owned()))
    }

    /// The boot scripts that do not compile, and why.
    pub fn broken(&self) -> &BTreeMap<String, Mistake> {
        &self.broken
    }

    /// The answer files, and what keeps each from being used.
    pub fn answers(&self) -> &BTreeMap<PathBuf, Result<(), Mistake>> {
        &self.answers
    }

    /// Whether a boot script is one of the operator's, and not one that came with reveille.
    pub fn is_own(&self, name: &str) -> bool {
        self.own.contains(name)
    }

    /// Which of them print what only iPXE can tell.
    pub fn needs_facts(&self) -> &NeedsFacts {
        &self.needs_facts
    }

    /// Fills in a boot script.
    ///
    /// # Errors
    /// What is wrong with it, or with a value that it prints.
    pub fn script(&self, name: &str, values: &Value) -> Result<String, Mistake> {
        match self.broken.get(name) {
            Some(mistake) => Err(mistake.clone()),
            None => self.fill(&script_file(name), values),
        }
    }

    /// Fills in an answer file.
    ///
    /// # Errors
    /// What is wrong with it, or with a value that it prints.
    pub fn answer(&self, path: &Path, values: &Value) -> Result<String, Mistake> {
        match self.answers.get(path) {
            Some(Err(mistake)) => Err(mistake.clone()),
            Some(Ok(())) | None => self.fill(&answer_file(path), values),
        }
    }

    fn fill(&self, file: &str, values: &Value) -> Result<String, Mistake> {
        let filled = self.env.get_template(file).and_then(|template| template.render(values));
        let text = filled.map_err(|error| {
            let mistake = Mistake::of(&error, Some(values));
            Mistake { message: self.with_nearest(&error).unwrap_or(mistake.message), ..mistake }
        })?;
        if text.len() > LONGEST {
            let message = format!("it is longer than {LONGEST} bytes once it is filled in");
            let file = Some(shown(file));
            return Err(Mistake { file, line: None, columns: None, message });
        }
        Ok(text)
    }
}

impl Templates {
    /// Of a template that is included and cannot be: whether there is one, and which may be meant.
    fn with_nearest(&self, error: &Error) -> Option<String> {
        let error = innermost(error);
        let detail = error.detail().filter(|_| error.kind() == ErrorKind::TemplateNotFound)?;
        let file = detail.split(['\'', '"', '`']).nth(1)?;
        // Not a name that the template has in it: it comes of a value, which may be a secret.
        if !error.template_source().is_some_and(|source| source.contains(file)) {
            return Some("there is no template of the name that is made here".to_owned());
        }
        let name = file.strip_suffix(".ipxe").unwrap_or(file);
        if self.broken.contains_key(name) {
            return Some(format!("the template `{file}` that it includes cannot be used itself"));
        }
        let names: Vec<String> = self.names().iter().map(|name| script_file(name)).collect();
        Some(match nearest(file, names.iter().map(String::as_str)) {
            Some(near) => format!("there is no template `{file}`; did you mean `{near}`?"),
            None => format!("there is no template `{file}`"),
        })
    }
}

impl fmt::Debug for Templates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .expect("the delimiters are minijinja's own");
    env.set_syntax(syntax);
    env.set_fuel(Some(FUEL));
    // No value goes in unchecked, into whatever.
    env.set_auto_escape_callback(|file| {
        AutoEscape::Custom(if file.ends_with(".ipxe") { IPXE.into() } else { ANSWER.into() })
    });
    env.set_formatter(|out, state, value| print::print(out, state, value));
    env.add_filter("words", print::words);
    env.add_filter("tojson", print::tojson);
    env.add_filter("harmless", print::harmless);
    env
}

fn compile(
    env: &mut Environment<'static>,
    file: String,
    source: Result<String, String>,
) -> Result<(), Mistake> {
    let source =
        source.map_err(|message| Mistake { file: None, line: None, columns: None, message })?;
    if file.ends_with(".ipxe")
        && let Some((line, column)) = dollar_before_a_value(&source)
    {
        let message = "a `$` stands right before a printed value: where that begins with `{`, iPXE would expand it; put something between them".to_owned();
        let (line, columns) = (Some(line), Some((column, 3)));
        return Err(Mistake { file: Some(file), line, columns, message });
    }
    env.add_template_owned(file, source).map_err(|error| Mistake::of(&error, None))
}

/// The line and the column of the first `$` that a printed value follows at once.
fn dollar_before_a_value(source: &str) -> Option<(usize, usize)> {
    source.lines().zip(1..).find_map(|(text, line)| {
        let at = text.find("${{")?;
        Some((line, text[..at].chars().count() + 1))
    })
}

fn script_file(name: &str) -> String {
    format!("{name}.ipxe")
}

/// A name that no boot script has.
fn answer_file(path: &Path) -> String {
    format!("//{}", path.display())
}

#[cfg(test)]
mod tests;
