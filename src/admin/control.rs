//! The Unix socket in the state folder, over which commands reach the running daemon.
//!
//! ```text
//!  {"do":"status"}\n ──▶
//!                    ◀── {"answer":{…}}\n, or {"error":"…"}\n
//! ```
//!
//! A line asks for one of the [`operations`](super::operations), a line answers it, as often as somebody
//! likes. Only the daemon's own user, and root, may connect.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream as Connection};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, timeout};
use tracing::{debug, warn};

use super::machine_view::targets::Targets;
use super::operations::Operations;
use super::operations::machines::{CardOrder, Give, Order};
use crate::pure::checksum::Sha256;
use crate::state::images::inventory::IsMeant;
use crate::state::images::pull::Ask;
use crate::sys::files::reason;

/// Its name in the state folder.
pub const NAME: &str = "control.sock";

/// The longest line that is read of a client.
const LONGEST: u64 = 64 << 10;
/// The longest answer that is read of the daemon: 10,000 problems of a config fit.
const LONGEST_ANSWER: u64 = 64 << 20;
/// How long a client may take to send a line, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an operation may take, as a client waits for it.
const OPERATION: Duration = Duration::from_secs(60);
/// How long a client that follows what is told waits for something.
const WAIT: Duration = Duration::from_secs(20);
/// Connections at once.
const MOST: usize = 64;
/// How often the socket is inspected: whether it is still in its place.
const INSPECTED: Duration = Duration::from_secs(2);

/// What a client asks for. Its variants have braces since serde lets keys pass that nothing knows where they
/// have none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the daemon is doing.
    Status {},
    /// Read the config again.
    Reload {},
    /// Fetch images: these, or all that a profile names.
    Pull {
        /// Which.
        images: Vec<String>,
        /// Whether a newer release is looked for where the newest one is wanted.
        update: bool,
    },
    /// What is being fetched.
    Jobs {},
    /// List the images.
    Images {},
    /// List the machines.
    Machines {},
    /// One machine, with what was told of it.
    Machine {
        /// Its name, MAC, serial number or address.
        who: String,
    },
    /// What an order would do.
    Plan {
        /// The machines.
        targets: Targets,
        /// The order.
        order: Order,
    },
    /// Confirm that a card is a machine's.
    Confirm {
        /// Which card, of which machine.
        order: CardOrder,
        /// The [`crate::admin::operations::machines::Plan::id`] that the operator agreed to.
        agreed: Option<Sha256>,
    },
    /// What a confirmation would do.
    PlanConfirm {
        /// Which card, of which machine.
        order: CardOrder,
    },
    /// Give an order.
    Order {
        /// The order, and for which machines it is.
        give: Give,
    },
    /// What was told.
    Events {
        /// After this number; 0 is the beginning.
        after: u64,
        /// Of this machine only.
        who: Option<String>,
        /// The last so many.
        most: usize,
        /// Whether to wait a while for something, where there is nothing.
        wait: bool,
    },
    /// Accept what was lost of the registry.
    AcceptLoss {},
    /// Write all that is known of machines to the disk, as before a backup.
    Flush {},
    /// Remove what no profile names.
    Prune {
        /// Whether that is only told.
        dry_run: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Answer(Value),
    Error(String),
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error(
        "another reveille runs with the state folder {}: stop it, or name another folder in `server.state`", .0.display()
    )]
    Taken(PathBuf),
    /// It cannot be made.
    #[error(
        "no control socket: cannot make {}: {reason}; `reveille status` cannot reach this daemon", path.display()
    )]
    NotMade {
        /// The socket, or the folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The socket, bound.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    place: Place,
}

/// Where it is. It is removed at the end, unless another has come in its place.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Place {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            fs::remove_file(&self.path).ok();
        }
    }
}

impl Place {
    /// The socket made again, if it was deleted, as with the whole state folder. One that came in its place is
    /// another daemon's.
    fn made_again(&self) -> Option<Control> {
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) | Err(_) => return None,
        }
        let control = Control::bind(self.path.parent()?);
        let control = control.map_err(|error| debug!("control: {error}")).ok()?;
        warn!("the control socket {} was deleted, and is made again", self.path.display());
        Some(control)
    }
}

/// Whether an error says that nobody listens, be there a socket or not.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    matches!(error.kind(), ConnectionRefused | NotADirectory | NotFound)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// That a process is the one that uses a state folder, until it ends.
#[derive(Debug)]
pub struct Claim {
    _folder: Option<File>,
}

impl Claim {
    /// Claims a folder. One that cannot be claimed, as where there is none yet, is nobody's.
    ///
    /// # Errors
    /// Another process has it.
    pub fn take(state: &Path) -> Result<Self, ControlError> {
        let Ok(folder) = File::open(state) else {
            return Ok(Self { _folder: None });
        };
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => Err(ControlError::Taken(state.to_owned())),
            // Not every file system can.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(Self { _folder: Some(folder) }),
        }
    }
}

impl Control {
    /// Makes the socket in the state folder, and the folder where it is missing. What a daemon left behind
    /// that was killed is replaced.
    ///
    /// # Errors
    /// Another daemon has it, or it cannot be made.
    pub fn bind(state: &Path) -> Result<Self, ControlError> {
        let not_made = |path: &Path, error: &io::Error| ControlError::NotMade {
            path: path.to_owned(),
            reason: match error.kind() {
                io::ErrorKind::InvalidInput => {
                    "its path is longer than the 107 bytes of a Unix socket's".to_owned()
                }
                io::ErrorKind::PermissionDenied => {
                    format!("user {} may not write there", nix::unistd::geteuid())
                }
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    "it, or a folder that it should be in, is a file".to_owned()
                }
                _ => error.to_string(),
            },
        };
        let path = state.join(NAME);
        match UnixStream::connect(&path) {
            Ok(_) => return Err(ControlError::Taken(state.to_owned())),
            Err(error) if is_nobody(&error) => {}
            // Somebody else's may be alive.
            Err(error) => return Err(not_made(&path, &error)),
        }
        fs::create_dir_all(state).map_err(|error| not_made(state, &error))?;
        // It is made where nobody else may look, so that it has its mode before anybody can connect, and
        // put in its place in one step.
        let aside = state.join(format!(".control-{}", std::process::id()));
        let make = || {
            fs::remove_dir_all(&aside).ok();
            DirBuilder::new().mode(0o700).create(&aside)?;
            let made = aside.join("s");
            let listener = UnixListener::bind(&made)?;
            fs::set_permissions(&made, Permissions::from_mode(0o600))?;
            let inode = inode(&made)?;
            fs::rename(&made, &path)?;
            Ok(Self { listener, place: Place { path: path.clone(), inode } })
        };
        let made = make();
        fs::remove_dir_all(&aside).ok();
        made.map_err(|error| not_made(&path, &error))
    }

    /// Answers, for ever. A bad client ends with its own connection.
    pub async fn run(self, operations: Operations) {
        let Self { mut listener, mut place } = self;
        let operations = Arc::new(operations);
        let room = Arc::new(Semaphore::new(MOST));
        let mut inspections = tokio::time::interval(INSPECTED);
        inspections.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let permit = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = inspections.tick() => {
                    if let Some(again) = place.made_again() {
                        Self { listener, place } = again;
                    }
                    continue;
                }
            };
            match accepted {
                Ok((connection, _)) => {
                    let operations = Arc::clone(&operations);
                    tokio::spawn(async move {
                        if let Err(error) = converse(connection, operations).await {
                            debug!("control: {error}");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!("control: accepting a connection: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Answers line after line.
async fn converse(mut connection: Connection, operations: Arc<Operations>) -> io::Result<()> {
    let (reader, mut writer) = connection.split();
    let mut reader = tokio::io::BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(LONGEST);
        timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await??;
        if line.is_empty() {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) if is_whole => perform(request, &operations).await,
            Ok(_) => Reply::Error("the line does not end".to_owned()),
            Err(error) => Reply::Error(format!(
                "this is no request, as {{\"do\":\"status\"}} is one: {error}"
            )),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        timeout(PATIENCE, writer.write_all(&line)).await??;
        // What comes after a line that has no end is not its beginning.
        if !is_whole {
            return Ok(());
        }
    }
}

async fn perform(request: Request, operations: &Arc<Operations>) -> Reply {
    let operations = Arc::clone(operations);
    if let Request::Events { after, wait: true, .. } = &request {
        let mut last = operations.journal.subscribe();
        let (after, told) = (*after, WAIT);
        timeout(told, last.wait_for(|last| *last > after)).await.ok();
    }
    let performed = tokio::task::spawn_blocking(move || answer(request, &operations)).await;
    match performed {
        Ok(Ok(answer)) => Reply::Answer(answer),
        Ok(Err(reason)) => Reply::Error(reason),
        Err(error) => Reply::Error(error.to_string()),
    }
}

/// Does what is asked for. `Err` says why not.
fn answer(request: Request, operations: &Operations) -> Result<Value, String> {
    let told = match request {
        Request::Status {} => serde_json::to_value(operations.status()),
        Request::Reload {} => serde_json::to_value(operations.reload()),
        Request::Pull { images, update } => {
            let ask = if update { Ask::Newest } else { Ask::Missing };
            let jobs = operations.pull(&images, ask).map_err(|refusal| refusal.to_string())?;
            serde_json::to_value(jobs)
        }
        Request::Machines {} => serde_json::to_value(operations.machines()),
        Request::Machine { who } => serde_json::to_value(operations.machine(&who)?),
        Request::Plan { targets, order } => {
            serde_json::to_value(operations.plan(&targets, &order)?)
        }
        Request::Confirm { order, agreed } => {
            serde_json::to_value(operations.confirm(&order, agreed)?)
        }
        Request::PlanConfirm { order } => serde_json::to_value(operations.plan_confirm(&order)?),
        Request::Order { give } => serde_json::to_value(operations.order(&give)?),
        Request::Events { after, who, most, wait: _ } => {
            serde_json::to_value(operations.events(after, who.as_deref(), most)?)
        }
        Request::AcceptLoss {} => serde_json::to_value(operations.accept_loss()?),
        Request::Flush {} => serde_json::to_value(operations.registry.flush()?),
        Request::Jobs {} => serde_json::to_value(operations.jobs()),
        Request::Images {} => serde_json::to_value(operations.images()),
        Request::Prune { dry_run } => {
            let is_meant = if dry_run { IsMeant::No } else { IsMeant::Yes };
            serde_json::to_value(operations.prune(is_meant))
        }
    };
    told.map_err(|error| error.to_string())
}

/// Why a daemon could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("nobody listens at {}", .0.display())]
    Nobody(PathBuf),
    /// The socket may not be used.
    #[error("cannot connect to {}: {reason}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It does not do it.
    #[error("{0}")]
    Refused(String),
    /// It did not answer as it should.
    #[error("the daemon at {} {what}", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// What it did instead.
        what: String,
    },
}

/// Whether a daemon listens in a state folder.
///
/// # Errors
/// That cannot be known: this user may not connect.
pub fn is_live(state: &Path) -> Result<bool, AskError> {
    match connect(&state.join(NAME)) {
        Ok(_) => Ok(true),
        Err(AskError::Nobody(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path) -> Result<UnixStream, AskError> {
    UnixStream::connect(path).map_err(|error| match error.kind() {
        _ if is_nobody(&error) => AskError::Nobody(path.to_owned()),
        io::ErrorKind::PermissionDenied => {
            let user = nix::unistd::geteuid();
            let reason = format!("user {user} may not; run this as the daemon's user, or as root");
            AskError::Unreachable { path: path.to_owned(), reason }
        }
        _ => AskError::Unreachable { path: path.to_owned(), reason: reason(&error) },
    })
}

/// Asks the daemon of a state folder.
///
/// # Errors
/// There is none, or it does not answer.
pub fn ask<T: DeserializeOwned>(state: &Path, request: &Request) -> Result<(T, Value), AskError> {
    let path = state.join(NAME);
    let silent = |what: String| AskError::Silent { path: path.clone(), what };
    let failed = |error: io::Error| silent(format!("does not answer: {error}"));
    let mut stream = connect(&path)?;
    stream.set_read_timeout(Some(OPERATION)).map_err(failed)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| silent(error.to_string()))?;
    line.push(b'\n');
    if line.len() as u64 > LONGEST {
        return Err(AskError::Refused(format!(
            "what is asked for has {} bytes, and the daemon reads {LONGEST} at once: name the machines by patterns, by groups or by --all",
            line.len()
        )));
    }
    stream.write_all(&line).map_err(failed)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_until(b'\n', &mut answer).map_err(failed)?;
    let other = |error| silent(format!("answers as another version does: {error}"));
    if answer.is_empty() {
        return Err(silent("has ended, or closed the connection".to_owned()));
    }
    match serde_json::from_slice(&answer).map_err(other)? {
        Reply::Answer(value) => {
            let answer = serde_json::from_value(value.clone()).map_err(other)?;
            Ok((answer, value))
        }
        Reply::Error(reason) => Err(AskError::Refused(reason)),
    }
}
