//! Reads the config file and what it names: secrets, templates, NBPs, image files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Config;
use super::fields::Problems;
use super::file::{File, SecretSource};
use super::problem::{Problem, Severity};
use super::resolve::{
    DEFAULT_BOOT_SCRIPTS, DEFAULT_NBPS, Surroundings, resolve, state_folder, within,
};
use crate::boot::cmdline::Flaw;
use crate::boot::nbp::Nbps;
use crate::files::{read_text, readable, reason};
use crate::nbps;

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

impl Inventory {
    /// The folder of NBPs that reveille and its operator keep.
    pub fn own(&self) -> PathBuf {
        own_nbps(&self.state)
    }
}

fn own_nbps(state: &Path) -> PathBuf {
    state.join("nbps")
}

/// Why a config is not taken up.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the config file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// What it says is wrong: each problem with its line quoted, warnings included.
    #[error("{}", .0.iter().map(Problem::at_length).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

impl Source {
    /// The file that was asked for by `--config` or `$REVEILLE_CONFIG`, else `./config.yaml`, else
    /// `/etc/reveille/config.yaml`, else the defaults.
    pub fn find(asked: Option<PathBuf>) -> Self {
        let usual = ["./config.yaml", "/etc/reveille/config.yaml"];
        let there =
            || usual.into_iter().map(PathBuf::from).find(|path| path.symlink_metadata().is_ok());
        asked.or_else(there).map_or(Self::Defaults, Self::File)
    }

    /// Reads it, with everything that it names.
    ///
    /// # Errors
    /// The file cannot be read, or holds errors. A missing secret, template, NBP or image file is a
    /// warning in [`Config::warnings`].
    pub fn load(&self) -> Result<Config, LoadError> {
        let (file, base, problems) = self.read()?;
        let found = survey(&file, &base);
        resolve(file, found, problems).map_err(LoadError::Invalid)
    }

    /// Which NBPs there are, as far as the config tells: an error in it spoils only what it hides.
    ///
    /// # Errors
    /// The file cannot be read, or does not tell where NBPs are.
    pub fn inventory(&self) -> Result<Inventory, LoadError> {
        let (file, base, problems) = self.read()?;
        let found = survey(&file, &base);
        let (state, nbps) = (found.state.clone(), found.nbps.clone());
        let problems = match resolve(file, found, problems) {
            Ok(config) => config.warnings,
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
                let text = read_text(path)
                    .map_err(|reason| LoadError::Unreadable { path: path.clone(), reason })?;
                (path.clone(), text)
            }
        };
        let mut problems = Problems::new(&path, &text);
        let Some(file) = File::parse(&text, &mut problems) else {
            return Err(LoadError::Invalid(problems.sorted()));
        };
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let base = std::path::absolute(folder.unwrap_or(Path::new(".")));
        let base = base.map_err(|error| LoadError::Unreadable { path, reason: reason(&error) })?;
        Ok((file, base, problems))
    }
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

/// Reads everything that the file names.
fn survey(file: &File, base: &Path) -> Surroundings {
    let state = state_folder(file, base, &default_state());
    let mut unreadable = BTreeMap::new();
    for path in file.image_files().map(|name| within(base, name)) {
        if let Err(reason) = readable(&path) {
            unreadable.insert(path, reason);
        }
    }

    let folder = file.server.boot_scripts.as_ref();
    let folder = within(base, folder.map_or(DEFAULT_BOOT_SCRIPTS, |at| at.value.as_str()));
    let (templates, no_templates) = match templates(&folder) {
        Ok(templates) => (templates, None),
        Err(error) => (BTreeMap::new(), Some(reason(&error))),
    };

    let answers = file.answer_files().map(|name| within(base, name));
    let answers: BTreeSet<PathBuf> = answers.collect();
    let answers = answers
        .into_iter()
        .map(|path| {
            let source = read_text(&path).map_err(|why| format!("{}: {why}", path.display()));
            (path, source)
        })
        .collect();

    let named = file.server.nbps.as_ref();
    let own = own_nbps(&state);
    let fetched = own.join(nbps::store::FETCHED);
    let mut folders = vec![(own, nbps::Absence::IsFine), (fetched, nbps::Absence::IsFine)];
    match named {
        Some(named) => folders
            .extend(named.iter().map(|at| (within(base, &at.value), nbps::Absence::IsAProblem))),
        None => folders
            .extend(DEFAULT_NBPS.iter().map(|path| (PathBuf::from(path), nbps::Absence::IsFine))),
    }
    let (nbps, bad_nbps) = nbps::find(&folders);

    Surroundings {
        base: base.to_owned(),
        state,
        secrets: file
            .secret_sources()
            .map(|source| (source.clone(), secret(source, base)))
            .collect(),
        unreadable,
        boot_scripts: folder,
        templates,
        no_templates,
        answers,
        nbps,
        bad_nbps,
    }
}

/// `$STATE_DIRECTORY` where systemd made one, else `./state`.
fn default_state() -> PathBuf {
    std::env::var_os("STATE_DIRECTORY").map_or_else(|| PathBuf::from("./state"), PathBuf::from)
}

fn templates(folder: &Path) -> io::Result<BTreeMap<String, Result<String, String>>> {
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "ipxe")
            && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
        {
            let source = read_text(&path).map_err(|why| format!("{}: {why}", path.display()));
            sources.insert(name.to_owned(), source);
        }
    }
    Ok(sources)
}

/// Reads one secret. The reason of a failure never repeats what was read.
fn secret(source: &SecretSource, base: &Path) -> Result<SecretString, String> {
    let from_file = |path: PathBuf| {
        let read = read_text(&path).map_err(|why| format!("{}: {why}", path.display()))?;
        Ok::<_, String>((read, path.display().to_string()))
    };
    let (text, from) = match source {
        SecretSource::File(path) => from_file(within(base, path))?,
        SecretSource::Env(name) => {
            let text = std::env::var(name)
                .map_err(|_| format!("the environment variable {name} is not set"))?;
            (text, format!("the environment variable {name}"))
        }
        SecretSource::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(format!(
                "there are no systemd credentials; add LoadCredential={name}:… to the unit"
            ))?;
            from_file(Path::new(&folder).join(name))?
        }
    };
    let text = text.trim();
    match Flaw::of(text) {
        None if text.contains("jointoken=") => Err(format!(
            "{from} holds more than a token: only what follows `jointoken=` belongs there"
        )),
        None => Ok(text.into()),
        Some(Flaw::Empty) => Err(format!("{from} is empty")),
        Some(_) => Err(format!(
            "{from} holds more than a token: only what follows `jointoken=` belongs there, in one line"
        )),
    }
}
