//! Reads the config file and what it names: secrets, templates, NBPs, image files.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::followed::{Followed, Kind, is_script};
use super::state_folder::{self, Places, Said};
use crate::nbps::{self, store};
use crate::pure::catalog::nbp::Nbps;
use crate::pure::config::problem::{Problem, Problems, Severity};
use crate::pure::config::reload::LoadError;
use crate::pure::config::resolve::{DEFAULT_BOOT_SCRIPTS, DEFAULT_NBPS, resolve, within};
use crate::pure::config::schema::{File, SecretSource};
use crate::pure::config::snapshot::Config;
use crate::pure::config::surroundings::{Secret, Surroundings};
use crate::state::images::store::Store;
use crate::sys::files::{self, Bound, open, read_opened, read_text, readable, reason};

/// Where the config comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This file.
    File(PathBuf),
    /// No file: the built-in defaults.
    Defaults,
}

/// The NBPs of this host.
#[derive(Debug)]
pub struct Inventory {
    /// The state folder.
    pub state: PathBuf,
    /// What was found.
    pub nbps: Nbps,
    /// What is wrong in the config and in what it names.
    pub problems: Vec<Problem>,
}

/// The folder of NBPs that reveille and its operator keep.
pub fn own_nbps(state: &Path) -> PathBuf {
    state.join("nbps")
}

/// Where a config is looked for that nobody has named.
const USUAL: [&str; 2] = ["./config.yaml", "/etc/reveille/config.yaml"];

impl Source {
    /// The file that was asked for by `--config` or `$REVEILLE_CONFIG`, else `./config.yaml`, else
    /// `/etc/reveille/config.yaml`, else the defaults.
    ///
    /// # Errors
    /// The file that was asked for does not exist.
    pub fn find(asked: Option<PathBuf>) -> Result<Self, LoadError> {
        let Some(path) = asked else { return Ok(Self::usual()) };
        match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(LoadError::Unreadable { reason: reason(&error), path })
            }
            // Why it cannot be read is for whoever reads it.
            Ok(_) | Err(_) => Ok(Self::File(path)),
        }
    }

    /// What names it on the command line, with a blank before it.
    pub fn arguments(&self) -> String {
        match self {
            Self::File(path) => {
                format!(" --config {}", state_folder::word(&path.display().to_string()))
            }
            Self::Defaults => String::new(),
        }
    }

    /// The first file of the usual places that exists, else the defaults.
    pub fn usual() -> Self {
        let mut usual = USUAL.into_iter().map(PathBuf::from);
        let found = usual.find(|path| path.symlink_metadata().is_ok());
        found.map_or(Self::Defaults, Self::File)
    }

    /// Reads it, with everything that it names.
    ///
    /// # Errors
    /// The file cannot be read, or holds errors. A secret or a template that cannot be used is a fault, a
    /// missing NBP or image file a warning, both in [`Config::problems`].
    pub fn load(&self) -> Result<Config, LoadError> {
        self.load_followed().0
    }

    /// The same, with everything that was named or looked for, as far as that was told: a change of any of
    /// it is a reason to load again.
    pub fn load_followed(&self) -> (Result<Config, LoadError>, Followed) {
        let mut followed = Followed::default();
        match self {
            Self::File(path) => followed.add(path.clone(), Kind::Config),
            // One may come.
            Self::Defaults => {
                USUAL.into_iter().for_each(|path| followed.add(path.into(), Kind::Config));
            }
        }
        let (file, base, problems) = match self.read() {
            Ok(read) => read,
            Err(error) => return (Err(error), followed),
        };
        let state = self.chosen(&file, &base);
        follow(&file, &base, &state, &mut followed);
        let found = survey(&file, &base, state);
        (resolve(file, found, problems).map_err(LoadError::Invalid), followed)
    }

    /// Where the state folder is, and where else a daemon may have its own: also if the file has errors. If an error
    /// hides `server.state`, that is the conflict.
    pub fn places(&self) -> Places {
        let advised = |problem: Option<&Problem>| {
            let problem = problem.map(Problem::to_string).unwrap_or_default();
            let with = self.arguments();
            format!("{problem}; correct the config: `reveille check{with}` lists its errors")
        };
        let (said, why) = match self.read() {
            Ok((file, base, problems)) => {
                let said = self.said(&file, &base);
                let problems = problems.sorted();
                let hiding = problems.iter().find(|problem| hides_state(problem));
                if hiding.is_none() || said.named.is_some() {
                    return state_folder::find(&said);
                }
                (said, advised(hiding))
            }
            Err(LoadError::Invalid(problems)) => (self.said_unparsed(), advised(problems.first())),
            Err(error @ LoadError::Unreadable { .. }) => (self.said_unparsed(), error.to_string()),
        };
        let conflict = Some(format!("cannot determine the state folder: {why}"));
        Places { conflict, ..state_folder::find(&said) }
    }

    /// What a file that cannot be parsed seems to name.
    fn said_unparsed(&self) -> Said {
        let Self::File(path) = self else { return Said::default() };
        let Ok(base) = base(path) else { return Said::default() };
        let text = read_text(path, Bound::CONFIG).unwrap_or_default();
        let mentioned = mentioned_states(&text).map(|state| within(&base, state)).collect();
        Said { base: Some(base), named: None, mentioned }
    }

    fn said(&self, file: &File, base: &Path) -> Said {
        let base_of_file = match self {
            Self::File(_) => Some(base.to_owned()),
            Self::Defaults => None,
        };
        let named = file.server.state.as_ref().map(|at| within(base, &at.value));
        Said { base: base_of_file, named, mentioned: Vec::new() }
    }

    /// The state folder.
    fn chosen(&self, file: &File, base: &Path) -> PathBuf {
        state_folder::find(&self.said(file, base)).chosen.folder
    }

    /// Which NBPs there are, as far as the config tells: an error in it spoils only what it hides.
    ///
    /// # Errors
    /// The file cannot be read, or does not tell where NBPs are.
    pub fn inventory(&self) -> Result<Inventory, LoadError> {
        let (file, base, problems) = self.read()?;
        let found = survey(&file, &base, self.chosen(&file, &base));
        let (state, nbps) = (found.state.clone(), found.nbps.clone());
        let problems = match resolve(file, found, problems) {
            Ok(config) => config.problems,
            Err(problems) if problems.iter().any(hides_nbps) => {
                return Err(LoadError::Invalid(problems));
            }
            Err(problems) => problems,
        };
        Ok(Inventory { state, nbps, problems })
    }

    /// Reads the file itself. Returns also the folder that relative paths start at.
    fn read(&self) -> Result<(File, PathBuf, Problems), LoadError> {
        let (path, text) = match self {
            Self::Defaults => (PathBuf::new(), String::new()),
            Self::File(path) => {
                let text = read_text(path, Bound::CONFIG)
                    .map_err(|reason| LoadError::Unreadable { path: path.clone(), reason })?;
                (path.clone(), text)
            }
        };
        let mut problems = Problems::new(&path, &text);
        let Some(file) = File::parse(&text, &mut problems) else {
            return Err(LoadError::Invalid(problems.sorted()));
        };
        let base = base(&path);
        let base = base.map_err(|error| LoadError::Unreadable { path, reason: reason(&error) })?;
        Ok((file, base, problems))
    }
}

/// The folder that relative paths of a config start at.
fn base(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    std::path::absolute(folder.unwrap_or(Path::new(".")))
}

/// Whether it is an error that hides `server.state`.
fn hides_state(problem: &Problem) -> bool {
    problem.severity == Severity::Error
        && matches!(problem.key.as_str(), "" | "server" | "server.state")
}

/// Whether it may be an error in what says where NBPs are, or in what cannot be read at all.
fn hides_nbps(problem: &Problem) -> bool {
    let elsewhere = |key: &str| {
        let others = ["interfaces", "advertise", "dhcp", "tftp", "http", "boot_scripts"];
        others.into_iter().any(|other| key.starts_with(other))
    };
    let hides = match problem.key.split_once('.') {
        Some(("server", key)) => !elsewhere(key),
        Some(_) => false,
        None => matches!(problem.key.as_str(), "" | "server"),
    };
    hides && problem.severity == Severity::Error
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Defaults => f.write_str("the built-in defaults (there is no config file)"),
        }
    }
}

/// What stands behind `state:` in a text that is no YAML.
fn mentioned_states(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("state:").filter_map(|(at, key)| {
        let begins = text[..at].chars().next_back().is_none_or(|c| " \t\n{,".contains(c));
        let line = text[at + key.len()..].lines().next().filter(|_| begins)?;
        let value = line.split([',', '}', '#']).next()?.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then_some(value)
    })
}

/// Follows everything that the file names. What is read by [`survey`] stands here.
fn follow(file: &File, base: &Path, state: &Path, followed: &mut Followed) {
    for name in file.image_files() {
        followed.add(within(base, name), Kind::Image);
    }
    for source in file.secret_sources() {
        if let Some(path) = secret_file(source, base) {
            followed.add(path, Kind::Text);
        }
    }
    for name in file.answer_files().chain(file.ca_files()) {
        followed.add(within(base, name), Kind::Text);
    }
    followed.add(script_folder(file, base), Kind::Scripts);
    for (folder, _) in nbp_folders(file, base, state) {
        followed.add(folder, Kind::Nbps);
    }
}

/// Reads everything that the file names.
fn survey(file: &File, base: &Path, state: PathBuf) -> Surroundings {
    let mut unreadable = BTreeMap::new();
    for path in file.image_files().chain(file.ca_files()).map(|name| within(base, name)) {
        if let Err(reason) = readable(&path) {
            unreadable.insert(path, reason);
        }
    }

    let (templates, no_templates) = match templates(&script_folder(file, base)) {
        Ok(templates) => (templates, None),
        // Nobody said that there is one.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && file.server.boot_scripts.is_none() =>
        {
            (BTreeMap::new(), None)
        }
        Err(error) => (BTreeMap::new(), Some(reason(&error))),
    };

    let answers = file.answer_files().map(|name| within(base, name));
    let answers: BTreeSet<PathBuf> = answers.collect();
    let answers = answers
        .into_iter()
        .map(|path| {
            let source = read_text(&path, Bound::ANSWER_FILE)
                .map_err(|why| format!("{}: {why}", path.display()));
            (path, source)
        })
        .collect();
    let (nbps, bad_nbps) = nbps::find(&nbp_folders(file, base, &state));

    let shelf = Store::new(&state).shelf();
    Surroundings {
        base: base.to_owned(),
        state,
        secrets: file
            .secret_sources()
            .map(|source| (source.clone(), secret(source, base)))
            .collect(),
        unreadable,
        boot_scripts: script_folder(file, base),
        templates,
        no_templates,
        answers,
        nbps,
        bad_nbps,
        shelf,
    }
}

fn script_folder(file: &File, base: &Path) -> PathBuf {
    let folder = file.server.boot_scripts.as_ref();
    within(base, folder.map_or(DEFAULT_BOOT_SCRIPTS, |at| at.value.as_str()))
}

/// The folders that are searched for NBPs, the first first.
fn nbp_folders(file: &File, base: &Path, state: &Path) -> Vec<(PathBuf, nbps::Absence)> {
    let own = own_nbps(state);
    let fetched = own.join(store::FETCHED);
    let mut folders = vec![(own, nbps::Absence::IsFine), (fetched, nbps::Absence::IsFine)];
    match &file.server.nbps {
        Some(named) => folders
            .extend(named.iter().map(|at| (within(base, &at.value), nbps::Absence::IsAProblem))),
        None => folders
            .extend(DEFAULT_NBPS.iter().map(|path| (PathBuf::from(path), nbps::Absence::IsFine))),
    }
    folders
}

fn templates(folder: &Path) -> io::Result<BTreeMap<String, Result<String, String>>> {
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_script(&path)
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            let source = read_text(&path, Bound::TEMPLATE)
                .map_err(|why| format!("{}: {why}", path.display()));
            sources.insert(name.to_owned(), source);
        }
    }
    Ok(sources)
}

/// The file that a secret is in.
fn secret_file(source: &SecretSource, base: &Path) -> Option<PathBuf> {
    match source {
        SecretSource::File(path) => Some(within(base, path)),
        SecretSource::Env(_) => None,
        SecretSource::Credential(name) => {
            Some(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name))
        }
    }
}

/// Reads one secret. The reason of a failure never repeats what was read.
fn secret(source: &SecretSource, base: &Path) -> Result<Secret, String> {
    let Secret { text, from, open_to_all } = match source {
        SecretSource::File(path) => from_file(within(base, path))?,
        SecretSource::Env(name) => {
            let text = std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set"))?;
            let from = format!("the environment variable {name}");
            Secret { text: text.into(), from, open_to_all: None }
        }
        SecretSource::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(format!(
                "there are no systemd credentials; add LoadCredential={name}:… to the unit"
            ))?;
            // Whatever its mode, systemd keeps others out of the folder.
            Secret { open_to_all: None, ..from_file(Path::new(&folder).join(name))? }
        }
    };
    match text.expose().trim() {
        "" => Err(format!("{from} is empty")),
        text => Ok(Secret { text: text.into(), from, open_to_all }),
    }
}

fn from_file(path: PathBuf) -> Result<Secret, String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    let file = open(&path).map_err(told)?;
    let mode = file.metadata().map_err(|error| told(reason(&error)))?.mode() & 0o7777;
    let text = read_opened(file, Bound::SECRET).and_then(files::text).map_err(told)?;
    let open_to_all = (mode & 0o007 != 0).then_some(mode);
    Ok(Secret { text: text.into(), from: path.display().to_string(), open_to_all })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_break_and_with_what_others_may_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, " hush\n\n").unwrap();
        for (mode, open_to_all) in
            [(0o600, None), (0o640, None), (0o644, Some(0o644)), (0o602, Some(0o602))]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = secret(&SecretSource::File("x".into()), folder.path()).unwrap();
            assert_eq!((read.text.expose(), read.open_to_all), ("hush", open_to_all));
        }
        fs::write(&path, "\n").unwrap();
        let reason = secret(&SecretSource::File("x".into()), folder.path()).unwrap_err();
        assert_eq!(reason, format!("{} is empty", path.display()));
    }
}
