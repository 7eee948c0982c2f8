//! Reads the config file and what it names: secrets, templates, NBPs, image files.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::Config;
use super::fields::Problems;
use super::file::{File, SecretSource};
use super::problem::{Problem, Severity};
use super::resolve::{
    DEFAULT_BOOT_SCRIPTS, DEFAULT_NBPS, Secret, Surroundings, resolve, state_folder, within,
};
use crate::boot::catalog::Nbps;
use crate::files::{open, read_text, readable, reason};
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
    /// What it says is wrong. A line for each problem, warnings included.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
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
        let mut problems = Problems::new(&path);
        let file = File::parse(&text, &mut problems);
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
    for path in file.image_files().chain(file.ca_files()).map(|name| within(base, name)) {
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
        templates,
        no_templates,
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
fn secret(source: &SecretSource, base: &Path) -> Result<Secret, String> {
    let Secret { text, from, open_to_all } = match source {
        SecretSource::File(path) => secret_file(within(base, path))?,
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
            Secret { open_to_all: None, ..secret_file(Path::new(&folder).join(name))? }
        }
    };
    match text.expose_secret().trim() {
        "" => Err(format!("{from} is empty")),
        text => Ok(Secret { text: text.into(), from, open_to_all }),
    }
}

fn secret_file(path: PathBuf) -> Result<Secret, String> {
    let told = |reason: String| format!("{}: {reason}", path.display());
    let file = open(&path).map_err(told)?;
    let mode = file.metadata().map_err(|error| told(reason(&error)))?.mode() & 0o7777;
    let text = io::read_to_string(file).map_err(|error| told(reason(&error)))?;
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
            assert_eq!((read.text.expose_secret(), read.open_to_all), ("hush", open_to_all));
        }
        fs::write(&path, "\n").unwrap();
        let reason = secret(&SecretSource::File("x".into()), folder.path()).unwrap_err();
        assert_eq!(reason, format!("{} is empty", path.display()));
    }
}
