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
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, Template, UndefinedBehavior, Value, filters,
};

use super::cmdline::Flaw;
use super::names::nearest;
use super::omni::redacted;

/// The templates that come with reveille, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("ask-facts", include_str!("../../boot-scripts/ask-facts.ipxe")),
    ("autoexec", include_str!("../../boot-scripts/autoexec.ipxe")),
    ("autoinstall", include_str!("../../boot-scripts/autoinstall.ipxe")),
    ("coreos", include_str!("../../boot-scripts/coreos.ipxe")),
    ("debian", include_str!("../../boot-scripts/debian.ipxe")),
    ("flatcar", include_str!("../../boot-scripts/flatcar.ipxe")),
    ("inspect", include_str!("../../boot-scripts/inspect.ipxe")),
    ("kickstart", include_str!("../../boot-scripts/kickstart.ipxe")),
    ("linux", include_str!("../../boot-scripts/linux.ipxe")),
    ("local-disk", include_str!("../../boot-scripts/local-disk.ipxe")),
    ("memtest", include_str!("../../boot-scripts/memtest.ipxe")),
    ("menu", include_str!("../../boot-scripts/menu.ipxe")),
    ("netbootxyz", include_str!("../../boot-scripts/netbootxyz.ipxe")),
    ("refused", include_str!("../../boot-scripts/refused.ipxe")),
    ("talos", include_str!("../../boot-scripts/talos.ipxe")),
];

/// Those among them that start a kernel, and so need an image.
pub const STARTING_A_KERNEL: &[&str] =
    &["autoinstall", "coreos", "debian", "flatcar", "kickstart", "linux", "memtest", "talos"];

/// What only iPXE can tell, as templates say it. A machine's own serial number and UUID are among it, where
/// its entry does not say them.
const FACTS: &[&str] = &[
    "client.serial",
    "client.product",
    "client.vendor",
    "client.cpu",
    "client.uuid",
    "machine.serial",
    "machine.uuid",
];

/// How many steps a template may take: enough for a menu of a thousand profiles, and the end of a
/// loop that does not stop.
const FUEL: u64 = 50_000;

/// What a script may be long: enough for that menu. iPXE holds it in memory.
const LONGEST: usize = 1 << 20;

/// Text that is read as iPXE reads it.
const IPXE: &str = "ipxe";
/// Text of any other kind: preseed, kickstart, YAML, JSON, a shell's.
const ANSWER: &str = "answer";

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

/// The templates of one snapshot, compiled.
pub struct Templates {
    env: Environment<'static>,
    broken: BTreeMap<String, Mistake>,
    answers: BTreeMap<PathBuf, Result<(), Mistake>>,
    /// Those that did not come with reveille.
    own: BTreeSet<String>,
    /// The boot scripts that print what only iPXE can tell.
    using_facts: BTreeSet<String>,
    /// The answer files that do.
    answers_using_facts: BTreeSet<PathBuf>,
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
        let using_facts = using.iter().filter_map(|file| Some(file.strip_suffix(".ipxe")?.into()));
        let answers_using_facts =
            using.iter().filter_map(|file| Some(file.strip_prefix("//")?.into()));
        Self {
            using_facts: using_facts.collect(),
            answers_using_facts: answers_using_facts.collect(),
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

    /// Whether a boot script prints what only iPXE can tell of its machine.
    pub fn uses_facts(&self, name: &str) -> bool {
        self.using_facts.contains(name)
    }

    /// Whether an answer file does.
    pub fn answer_uses_facts(&self, path: &Path) -> bool {
        self.answers_using_facts.contains(path)
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

/// What is wrong in a template that is included stands there.
fn innermost(error: &Error) -> &Error {
    let inner = std::error::Error::source(error).and_then(<dyn std::error::Error>::downcast_ref);
    inner.map_or(error, innermost)
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
    env.set_formatter(|out, state, value| {
        if value.is_safe() {
            return out.write_str(value.as_str().unwrap_or_default()).map_err(Error::from);
        }
        let text = printable(value)?;
        match danger(state, &text).or_else(|| joins(state, &text, &text)) {
            // The value is not repeated: it may be a secret.
            Some(why) => Err(refused(format!("a value that is printed here {why}"))),
            None => out.write_str(&text).map_err(Error::from),
        }
    });
    env.add_filter("words", words);
    env.add_filter("tojson", tojson);
    env.add_filter("harmless", harmless);
    env
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

/// The same of what is printed as several words.
fn edge<W: AsRef<str>>(state: &State<'_, '_>, words: &[W]) -> Option<String> {
    joins(state, words.first()?.as_ref(), words.last()?.as_ref())
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
        odd if odd.is_control() => "has a control character in it".to_owned(),
        odd => format!("has `{odd}` in it; use the filter `tojson` where JSON or YAML belongs"),
    };
    Some(why)
}

/// The filter `words`: of a text, where blanks are wanted, and everything else is checked word by word; or
/// of a list, of which every item is one word.
fn words(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
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
fn tojson(
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
fn harmless(state: &State<'_, '_>, value: &Value) -> Value {
    let text = printable(value).unwrap_or_default();
    let mut words: Vec<&str> =
        text.split_whitespace().filter(|word| danger(state, word).is_none()).collect();
    while edge(state, &words).is_some() {
        let is_last = words.last().is_some_and(|last| joins(state, "", last).is_some());
        words.remove(if is_last { words.len() - 1 } else { 0 });
    }
    Value::from_safe_string(words.join(" "))
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

/// The files that use what only iPXE can tell, themselves or through what they include.
fn using_facts(env: &Environment<'_>) -> BTreeSet<String> {
    let mut using: BTreeSet<String> = env
        .templates()
        .filter(|(_, template)| tells(template))
        .map(|(file, _)| file.to_owned())
        .collect();
    loop {
        let includes = |source: &str| using.iter().any(|used| names(source, used));
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

fn script_file(name: &str) -> String {
    format!("{name}.ipxe")
}

/// A name that no boot script has.
fn answer_file(path: &Path) -> String {
    format!("//{}", path.display())
}

fn shown(file: &str) -> String {
    file.strip_prefix("//").unwrap_or(file).to_owned()
}

impl Mistake {
    /// Never minijinja's own debug print: that shows every variable.
    fn of(error: &Error, values: Option<&Value>) -> Self {
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

#[cfg(test)]
mod tests;
