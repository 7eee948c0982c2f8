//! The appliance: the built daemon in its namespace.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{InFolder, inside};

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a config and what it names, for the daemon to serve.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// One for a first start: a new registry may begin in its state folder.
    pub fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder for the appliance"));
        folder.permit_registry();
        folder
    }

    /// Does what `reveille state new` does.
    pub fn permit_registry(&self) {
        self.write("state/new", "");
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("it is writable");
        // A token is for its owner alone, as the daemon wants it.
        let mode = if name.ends_with(".token") { 0o600 } else { 0o644 };
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(mode).open(&path);
        file.and_then(|mut file| file.write_all(content.as_ref())).expect("it is writable");
        path
    }

    /// What a command prints that succeeds, beside the daemon.
    pub fn reveille(&self, arguments: &[&str]) -> String {
        let output = self.ran(arguments);
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {why}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Why a command is refused.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ran(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// What `reveille machine --json` says of this one.
    pub fn story(&self, name: &str) -> Value {
        serde_json::from_str(&self.reveille(&["machine", name, "--json"])).expect("it is JSON")
    }

    /// What decides the next boot of this machine.
    pub fn next(&self, name: &str) -> String {
        let because = &self.story(name)["machine"]["next"]["because"];
        because.as_str().unwrap_or_default().to_owned()
    }

    fn ran(&self, arguments: &[&str]) -> Output {
        let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        command.args(arguments).in_folder(self.path()).output().expect("the command runs")
    }
}

/// The running daemon.
#[derive(Debug)]
pub struct Appliance {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Appliance {
    /// Starts the daemon in the folder, on its `config.yaml` where there is one, and waits until it
    /// serves.
    pub fn start(folder: &Folder) -> Self {
        let mut appliance = Self::launch(folder);
        appliance.wait_for("ready");
        appliance
    }

    /// Starts the daemon, ready or not.
    pub fn launch(folder: &Folder) -> Self {
        let mut command = inside("appliance", Path::new(env!("CARGO_BIN_EXE_reveille")));
        command.arg("serve").in_folder(folder.path());
        Self::spawn(command)
    }

    /// Starts any command that runs the daemon.
    pub fn spawn(mut command: Command) -> Self {
        Self::spawn_other(command.env_remove("REVEILLE_CONFIG").env("REVEILLE_LOG", "debug"))
    }

    /// Starts any other server that logs to standard error.
    pub fn spawn_other(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the daemon starts");
        let (sender, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                println!("reveille: {line}");
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log that has `text` in it, and returns it.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with `{text}` in the log: {error}"),
            }
        }
    }

    /// Closes the reading end of its log.
    pub fn close_log(&mut self) {
        let (_, nothing) = channel();
        // The thread that reads ends with the first line that it cannot hand on.
        self.lines = nothing;
    }

    /// The log up to now.
    pub fn log(&mut self) -> String {
        self.seen.extend(self.lines.try_iter());
        self.seen.join("\n")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        super::run("kill", &[&format!("-{name}"), &self.child.id().to_string()]);
    }

    /// Waits for its end: its exit code, and its whole log.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it was started");
        self.seen.extend(self.lines.iter());
        (status.code(), self.seen.join("\n"))
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
