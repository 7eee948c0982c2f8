//! Where the state folder is: the config names it, or systemd does, or it follows from the user and the config.
//! The current folder never decides.
//!
//! | | the state folder |
//! |---|---|
//! | `server.state` | that |
//! | `$STATE_DIRECTORY` | its first path |
//! | root | `/var/lib/reveille` |
//! | another user, with a config | `state/` beside the config |
//! | another user, without | `$XDG_STATE_HOME/reveille` |
//!
//! The daemon may have another user or environment than the command that asks it, so commands try all of these for
//! its control socket, unless the first two name the folder.

use std::ffi::OsStr;
use std::fmt::{self, Display, Formatter};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::state::registry::store::Store;

/// The state folder of root, and what systemd makes of `StateDirectory=reveille`.
const OF_ROOT: &str = "/var/lib/reveille";

/// Why a folder may be the state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// `server.state` names it.
    Config,
    /// A config that is no YAML seems to name it.
    Mentioned,
    /// `$STATE_DIRECTORY` names it.
    Environment,
    /// It is the default of root and of the systemd unit.
    System,
    /// It is beside the config file.
    BesideConfig,
    /// It is this user's own.
    Home,
    /// It is in the current folder, where versions before this rule kept their state.
    CurrentFolder,
}

impl Display for Reason {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "`server.state` in the config",
            Self::Mentioned => "`state:` in a config that is no YAML",
            Self::Environment => "$STATE_DIRECTORY",
            Self::System => "the default of root and of the systemd unit",
            Self::BesideConfig => "beside the config",
            Self::Home => "the default of a user without a config",
            Self::CurrentFolder => "the current folder, as in earlier versions",
        })
    }
}

/// A folder that may be the state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Why.
    pub reason: Reason,
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.folder.display(), self.reason)
    }
}

/// Where the state folder is, and where else a daemon may have its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The state folder.
    pub chosen: Place,
    /// Other places of a running daemon's socket, the likeliest first.
    pub others: Vec<Place>,
    /// Why the state folder is unknown, and only a running daemon tells it: several old places hold a registry, or an
    /// error in the config hides `server.state`.
    pub conflict: Option<String>,
    /// What the operator should know of this choice, a line each.
    pub warnings: Vec<String>,
}

impl Places {
    /// All of them, the state folder first.
    pub fn all(&self) -> impl Iterator<Item = &Place> {
        [&self.chosen].into_iter().chain(&self.others)
    }

    /// All of them in one line.
    pub fn listed(&self) -> String {
        let places: Vec<String> = self.all().map(Place::to_string).collect();
        places.join(" or ")
    }
}

/// What decides besides the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    state_directory: Option<PathBuf>,
    home: Option<PathBuf>,
    is_root: bool,
    current: Option<PathBuf>,
    warnings: Vec<String>,
}

impl Host {
    /// That of this process.
    pub fn here() -> Self {
        let mut host = Self {
            is_root: nix::unistd::geteuid().is_root(),
            current: env::current_dir().ok(),
            ..Self::default()
        };
        let own =
            |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = own("XDG_STATE_HOME").or_else(|| Some(own("HOME")?.join(".local/state")));
        host.home = home.map(|home| home.join("reveille"));
        if let Some(named) = env::var_os("STATE_DIRECTORY") {
            host.name(&named);
        }
        host
    }

    /// systemd names several folders with a colon between them. It names no relative ones: such a one would follow
    /// the current folder.
    fn name(&mut self, named: &OsStr) {
        let mut paths =
            named.as_bytes().split(|byte| *byte == b':').filter(|path| !path.is_empty());
        let Some(first) = paths.next() else { return };
        let path = Path::new(OsStr::from_bytes(first));
        if path.is_absolute() {
            self.state_directory = Some(path.to_owned());
        } else {
            self.warnings.push(format!(
                "$STATE_DIRECTORY is ignored: `{}` is not an absolute path",
                path.display()
            ));
        }
    }
}

/// What a config says of the state folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The folder of the config file, where there is one.
    pub base: Option<PathBuf>,
    /// `server.state`.
    pub named: Option<PathBuf>,
    /// What a file that is no YAML seems to name.
    pub mentioned: Vec<PathBuf>,
}

/// Finds the state folder on this host.
pub fn find(said: &Said) -> Places {
    Candidates::of(said, Host::here()).choose(&Disk)
}

/// The places by their rank, before the disk is asked.
#[derive(Debug)]
struct Candidates {
    usual: Place,
    others: Vec<Place>,
    /// Where versions before this rule had it.
    old: Vec<Place>,
    warnings: Vec<String>,
}

impl Candidates {
    fn of(said: &Said, host: Host) -> Self {
        let place = |folder: PathBuf, reason| Place { folder, reason };
        let Host { state_directory, home, is_root, current, warnings } = host;
        let named = said.named.clone().map(|folder| place(folder, Reason::Config));
        let named = named.or_else(|| Some(place(state_directory?, Reason::Environment)));
        if let Some(usual) = named {
            return Self { usual, others: Vec::new(), old: Vec::new(), warnings };
        }
        let system = place(OF_ROOT.into(), Reason::System);
        let beside = said.base.as_ref().map(|base| place(base.join("state"), Reason::BesideConfig));
        let of_user = beside.or_else(|| Some(place(home?, Reason::Home)));
        let (usual, other) = match of_user {
            Some(of_user) if is_root => (system, Some(of_user)),
            Some(of_user) => (of_user, Some(system)),
            None => (system, None),
        };
        let mentioned = said.mentioned.iter().cloned();
        let mentioned = mentioned.map(|folder| place(folder, Reason::Mentioned));
        let others: Vec<Place> = mentioned.chain(other).collect();
        let old = others.iter().filter(|place| place.reason == Reason::BesideConfig).cloned();
        let current = current.map(|folder| place(folder.join("state"), Reason::CurrentFolder));
        let old = old.chain(current).collect();
        Self { usual, others, old, warnings }
    }

    /// The usual place, unless only an old one holds a registry.
    fn choose(self, disk: &impl Folders) -> Places {
        let Self { usual, others, old, mut warnings } = self;
        let is_same = |one: &Place, other: &Place| {
            disk.canonical(&one.folder) == disk.canonical(&other.folder)
        };
        let mut held: Vec<Place> = Vec::new();
        for place in old {
            let is_known = [&usual].into_iter().chain(&held).any(|known| is_same(known, &place));
            if is_known || !disk.holds_registry(&place.folder) {
                continue;
            }
            // Whoever may write the current folder must not pass root a state, or a socket to talk to.
            if place.reason == Reason::CurrentFolder && !disk.is_trusted(&place.folder) {
                warnings.push(format!(
                    "{} holds a registry of another user: it is not used; name the folder in `server.state` to use it",
                    place.folder.display()
                ));
                continue;
            }
            held.push(place);
        }
        let folders: Vec<String> =
            held.iter().map(|place| place.folder.display().to_string()).collect();
        let mut conflict = None;
        let chosen = match held.first() {
            Some(_) if disk.holds_registry(&usual.folder) => {
                warnings.push(format!(
                    "{} holds another registry, which is not used: the state folder is {usual}; name the right one in `server.state`, or move the other one away",
                    folders.join(" and ")
                ));
                usual.clone()
            }
            Some(first) => {
                let moves = moves(&first.folder, &usual.folder, disk);
                if held.len() > 1 {
                    conflict = Some(format!(
                        "{} each hold a registry, and {} holds none: name the right one in `server.state`",
                        folders.join(" and "),
                        usual.folder.display()
                    ));
                }
                warnings.push(format!(
                    "the state folder is still {first}; its new place is {usual}: stop reveille, and type `{moves}`; or name it in `server.state`"
                ));
                first.clone()
            }
            None => usual.clone(),
        };
        let mut all: Vec<Place> = vec![chosen];
        for place in [usual].into_iter().chain(others).chain(held) {
            if !all.iter().any(|known| is_same(known, &place)) {
                all.push(place);
            }
        }
        let chosen = all.remove(0);
        Places { chosen, others: all, conflict, warnings }
    }
}

/// The command that moves a state folder.
fn moves(old: &Path, new: &Path, disk: &impl Folders) -> String {
    let [from, to] = [old, new].map(|path| word(&path.display().to_string()));
    if disk.exists(new) {
        let aside = word(&format!("{}.moved", old.display()));
        return format!("cp -a {from}/. {to}/ && mv {from} {aside}");
    }
    let parent = new.parent().unwrap_or(Path::new("/"));
    format!("mkdir -p {} && mv {from} {to}", word(&parent.display().to_string()))
}

/// A text as one word of a shell.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+@%=:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What is asked of the disk.
trait Folders {
    fn holds_registry(&self, folder: &Path) -> bool;
    fn exists(&self, folder: &Path) -> bool;
    /// Whether it belongs to this user, or to root.
    fn is_trusted(&self, folder: &Path) -> bool;
    fn canonical(&self, folder: &Path) -> PathBuf;
}

struct Disk;

impl Folders for Disk {
    fn holds_registry(&self, folder: &Path) -> bool {
        Store::path(folder).exists()
    }

    fn exists(&self, folder: &Path) -> bool {
        folder.exists()
    }

    fn is_trusted(&self, folder: &Path) -> bool {
        let own = nix::unistd::geteuid().as_raw();
        fs::metadata(folder).is_ok_and(|metadata| [0, own].contains(&metadata.uid()))
    }

    fn canonical(&self, folder: &Path) -> PathBuf {
        canonical(folder)
    }
}

/// A path without links, also where its last parts do not exist yet: two names of one folder are one.
pub fn canonical(folder: &Path) -> PathBuf {
    if let Ok(real) = folder.canonicalize() {
        return real;
    }
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) if parent != Path::new("") => canonical(parent).join(name),
        (Some(_) | None, _) => folder.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders that hold a registry, and those of strangers among them.
    #[derive(Default)]
    struct Fake {
        registries: Vec<&'static str>,
        of_strangers: Vec<&'static str>,
        links: Vec<(&'static str, &'static str)>,
    }

    impl Folders for Fake {
        fn holds_registry(&self, folder: &Path) -> bool {
            let real = self.canonical(folder);
            self.registries.iter().any(|held| Path::new(held) == real)
        }

        fn exists(&self, folder: &Path) -> bool {
            self.holds_registry(folder)
        }

        fn is_trusted(&self, folder: &Path) -> bool {
            !self.of_strangers.iter().any(|held| Path::new(held) == folder)
        }

        fn canonical(&self, folder: &Path) -> PathBuf {
            let link = self.links.iter().find(|(link, _)| Path::new(link) == folder);
            link.map_or_else(|| folder.to_owned(), |(_, real)| real.into())
        }
    }

    fn root() -> Host {
        Host {
            is_root: true,
            home: Some("/root/.local/state/reveille".into()),
            current: Some("/cwd".into()),
            ..Host::default()
        }
    }

    fn user() -> Host {
        Host { is_root: false, home: Some("/home/u/.local/state/reveille".into()), ..root() }
    }

    fn beside() -> Said {
        Said { base: Some("/a".into()), ..Said::default() }
    }

    /// The state folder, and where else a daemon may be.
    fn found(said: &Said, host: Host, disk: &Fake) -> Vec<String> {
        let places = Candidates::of(said, host).choose(disk);
        places.all().map(|place| place.folder.display().to_string()).collect()
    }

    #[test]
    fn follows_the_config_then_systemd_then_the_user_and_never_the_current_folder() {
        let none = Fake::default();
        let named = Said { named: Some("/srv/s".into()), ..beside() };
        let mut service = root();
        service.name(OsStr::new("/var/lib/one:/var/lib/two"));
        assert_eq!(found(&named, service.clone(), &none), ["/srv/s"]);
        assert_eq!(found(&beside(), service, &none), ["/var/lib/one"]);
        assert_eq!(found(&beside(), root(), &none), ["/var/lib/reveille", "/a/state"]);
        assert_eq!(found(&beside(), user(), &none), ["/a/state", "/var/lib/reveille"]);
        let bare = Said::default();
        let own = "/home/u/.local/state/reveille";
        assert_eq!(found(&bare, user(), &none), [own, "/var/lib/reveille"]);
        assert_eq!(
            found(&bare, root(), &none),
            ["/var/lib/reveille", "/root/.local/state/reveille"]
        );
        let homeless = Host { home: None, ..user() };
        assert_eq!(found(&bare, homeless, &none), ["/var/lib/reveille"]);
    }

    #[test]
    fn ignores_a_relative_state_directory_and_warns_of_it() {
        for (named, is_named, warnings) in
            [("", false, 0), (":", false, 0), ("state", false, 1), (":/s", true, 0)]
        {
            let mut host = Host::default();
            host.name(OsStr::new(named));
            assert_eq!((host.state_directory.is_some(), host.warnings.len()), (is_named, warnings));
        }
    }

    #[test]
    fn keeps_an_old_place_that_alone_holds_a_registry_and_names_the_command_that_moves_it() {
        for (old, said) in [("/a/state", beside()), ("/cwd/state", Said::default())] {
            let disk = Fake { registries: vec![old], ..Fake::default() };
            let places = Candidates::of(&said, root()).choose(&disk);
            assert_eq!(places.chosen.folder, Path::new(old));
            assert_eq!((places.warnings.len(), places.conflict), (1, None));
            let command = format!("`mkdir -p /var/lib && mv {old} /var/lib/reveille`");
            assert!(places.warnings[0].contains(&command), "{}", places.warnings[0]);
        }
        // Named is named.
        let disk = Fake { registries: vec!["/a/state"], ..Fake::default() };
        let named = Said { named: Some("/srv/s".into()), ..beside() };
        assert_eq!(found(&named, root(), &disk), ["/srv/s"]);
    }

    #[test]
    fn uses_the_new_place_once_it_holds_a_registry_and_warns_of_the_other_one() {
        let disk = Fake { registries: vec!["/a/state", "/var/lib/reveille"], ..Fake::default() };
        let places = Candidates::of(&beside(), root()).choose(&disk);
        assert_eq!(places.chosen.folder, Path::new("/var/lib/reveille"));
        assert!(places.warnings[0].contains("/a/state holds another registry, which is not used"));
    }

    #[test]
    fn two_old_places_with_a_registry_each_are_a_conflict_and_one_by_two_names_is_none() {
        let disk = Fake { registries: vec!["/a/state", "/cwd/state"], ..Fake::default() };
        let places = Candidates::of(&beside(), root()).choose(&disk);
        let conflict = places.conflict.unwrap();
        assert!(conflict.starts_with("/a/state and /cwd/state each hold a registry"), "{conflict}");
        let linked = Fake {
            registries: vec!["/cwd/state"],
            links: vec![("/a/state", "/cwd/state")],
            ..Fake::default()
        };
        let places = Candidates::of(&beside(), root()).choose(&linked);
        assert_eq!((places.conflict, places.others.len()), (None, 1));
    }

    #[test]
    fn leaves_a_registry_that_a_stranger_put_into_the_current_folder() {
        let disk = Fake {
            registries: vec!["/cwd/state"],
            of_strangers: vec!["/cwd/state"],
            ..Fake::default()
        };
        let places = Candidates::of(&Said::default(), root()).choose(&disk);
        assert_eq!(places.chosen.folder, Path::new(OF_ROOT));
        assert!(places.all().all(|place| place.folder != Path::new("/cwd/state")));
        assert!(places.warnings[0].contains("of another user"), "{:?}", places.warnings);
    }

    #[test]
    fn two_names_of_a_folder_are_one_also_before_it_exists() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let link = folder.path().join("link/state/db");
        assert_eq!(canonical(&link), canonical(&real.join("state/db")));
    }
}
