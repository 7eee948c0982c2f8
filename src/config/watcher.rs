//! Follows what the config is made of, and has it read again when something has changed.
//!
//! What decides is a look at every file; the kernel's word (inotify) only has it come sooner. There is none
//! on NFS, for what happens below an overlay, and where its watches are used up. All of it is on a thread of
//! its own: a file system that hangs keeps nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{debug, info};

use super::followed::{Followed, Marks, Stamp, Which, which};
use super::reloader::Reloader;

/// How often everything is looked at without any word of a change.
const LOOK: Duration = Duration::from_millis(300);
/// How often while something is changing.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long nothing may have changed before a change is taken up: editors, `cp` and installers change
/// files in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// The same where something is missing that was there: it may be about to come back.
const QUIET_WITHOUT: Duration = Duration::from_millis(500);
/// The same for kernels and initrds, which take longer to copy. Nothing else waits for them.
const QUIET_IMAGES: Duration = Duration::from_millis(400);

/// Follows the config, for ever, on a thread of its own. `reload` has it read again.
///
/// # Errors
/// There is no thread to be had.
pub fn follow(reloader: Arc<Reloader>, reload: impl Fn() + Send + 'static) -> std::io::Result<()> {
    let (wake, woken) = sync_channel(1);
    let run = move || Follower::new(reloader, wake).run(&woken, reload);
    thread::Builder::new().name("config".to_owned()).spawn(run).map(drop)
}

struct Follower {
    reloader: Arc<Reloader>,
    watches: Watches,
}

impl Follower {
    fn new(reloader: Arc<Reloader>, wake: SyncSender<()>) -> Self {
        Self { reloader, watches: Watches::new(wake) }
    }

    fn run(mut self, woken: &Receiver<()>, reload: impl Fn()) {
        let mut standing = self.reloader.standing();
        let mut settling = Settling::new(&standing.followed);
        loop {
            self.watches.renew(&standing.followed);
            let now = settling.observe(standing.followed.look(), Instant::now());
            if now == State::Changed {
                reload();
            } else {
                wait(woken, if now == State::Changing { LOOK_AGAIN } else { LOOK });
            }
            self.reloader.has_looked();
            // Somebody else may have had it read too.
            let latest = self.reloader.standing();
            if latest.readings != standing.readings {
                settling = Settling::new(&latest.followed);
                standing = latest;
            }
        }
    }
}

/// Waits for a word of a change, and then for the rest of what comes with it.
fn wait(woken: &Receiver<()>, at_most: Duration) {
    match woken.recv_timeout(at_most) {
        Ok(()) => {
            thread::sleep(LOOK_AGAIN.min(at_most));
            woken.try_iter().for_each(drop);
        }
        Err(RecvTimeoutError::Timeout) => {}
        // There are no watches, and no word will come.
        Err(RecvTimeoutError::Disconnected) => thread::sleep(at_most),
    }
}

/// What is to be done about the files as they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing.
    Same,
    /// They are changing.
    Changing,
    /// They have changed, and are to be read.
    Changed,
}

/// Waits until what has changed is quiet.
#[derive(Debug)]
struct Settling {
    read: Class,
    images: Class,
}

/// What becomes quiet together.
#[derive(Debug)]
struct Class {
    taken: BTreeMap<PathBuf, Stamp>,
    seen: BTreeMap<PathBuf, Stamp>,
    /// When `seen` was seen first.
    since: Option<Instant>,
}

impl Settling {
    fn new(followed: &Followed) -> Self {
        let Marks { read, images } = followed.marks.clone();
        Self { read: Class::new(read), images: Class::new(images) }
    }

    fn observe(&mut self, marks: Marks, now: Instant) -> State {
        let states = [
            self.read.observe(marks.read, now, QUIET),
            self.images.observe(marks.images, now, QUIET_IMAGES),
        ];
        [State::Changed, State::Changing]
            .into_iter()
            .find(|state| states.contains(state))
            .unwrap_or(State::Same)
    }
}

impl Class {
    fn new(taken: BTreeMap<PathBuf, Stamp>) -> Self {
        Self { seen: taken.clone(), taken, since: None }
    }

    fn observe(&mut self, marks: BTreeMap<PathBuf, Stamp>, now: Instant, quiet: Duration) -> State {
        if marks != self.seen {
            self.seen = marks;
            self.since = Some(now);
        }
        if self.seen == self.taken {
            return State::Same;
        }
        let is_without = self.taken.keys().any(|path| !self.seen.contains_key(path));
        let quiet = if is_without { QUIET_WITHOUT } else { quiet };
        let is_quiet = self.since.is_some_and(|since| now.duration_since(since) >= quiet);
        if is_quiet { State::Changed } else { State::Changing }
    }
}

/// The kernel's word that something has changed in a folder. What it is, is not asked.
#[derive(Debug)]
struct Watches {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, Which>,
    /// Whether it was told that there is none.
    is_told: bool,
}

impl Watches {
    fn new(wake: SyncSender<()>) -> Self {
        let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // To look is to open folders, and to be told of it.
            if !matches!(event, Ok(notify::Event { kind: EventKind::Access(_), .. })) {
                // One is enough.
                wake.try_send(()).ok();
            }
        });
        let mut watches = Self { watcher: None, watched: BTreeMap::new(), is_told: false };
        match made {
            Ok(watcher) => watches.watcher = Some(watcher),
            Err(error) => watches.tell(&error),
        }
        watches
    }

    /// Watches the folders of what is followed, where they are now.
    fn renew(&mut self, followed: &Followed) {
        if self.watcher.is_none() {
            return;
        }
        let there = followed.folders().into_iter();
        let there: BTreeMap<PathBuf, Which> =
            there.filter_map(|folder| Some((folder.clone(), which(&folder).ok()?))).collect();
        if there == self.watched {
            return;
        }
        for (folder, which) in std::mem::take(&mut self.watched) {
            if there.get(&folder) == Some(&which) {
                self.watched.insert(folder, which);
            } else if let Some(watcher) = &mut self.watcher {
                // A folder that is gone has taken its watch with it.
                watcher.unwatch(&folder).ok();
            }
        }
        for (folder, which) in there {
            if !self.watched.contains_key(&folder) {
                self.watch(&folder);
                // Where that failed it is not tried at each look: it is looked at all the same.
                self.watched.insert(folder, which);
            }
        }
    }

    fn watch(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {
                debug!("config: {} went before it was watched", folder.display());
            }
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&mut self, error: &notify::Error) {
        if !std::mem::replace(&mut self.is_told, true) {
            info!(
                "config: the kernel tells of no changes ({error}); files are looked at every {} ms all the same",
                LOOK.as_millis()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::followed::Kind;

    /// Looks at these moments, in milliseconds, each after something was done.
    fn observed(
        settling: &mut Settling,
        followed: &Followed,
        steps: &[(u64, &dyn Fn())],
    ) -> Vec<State> {
        let start = Instant::now();
        let observe = |(millis, change): &(u64, &dyn Fn())| {
            change();
            settling.observe(followed.look(), start + Duration::from_millis(*millis))
        };
        steps.iter().map(observe).collect()
    }

    const NOTHING: &dyn Fn() = &|| {};

    #[test]
    fn a_change_is_taken_up_when_it_is_quiet_and_an_image_that_is_copied_holds_back_nothing() {
        use State::{Changed, Changing, Same};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        write("config.yaml", "");
        let mut followed = Followed::default();
        followed.add(at("config.yaml"), Kind::Config);
        followed.add(at("linux"), Kind::Image);

        let mut settling = Settling::new(&followed);
        let steps: [(u64, &dyn Fn()); 6] = [
            (0, NOTHING),
            (10, &|| write("config.yaml", "a")),
            (200, &|| write("config.yaml", "ab")),
            (390, NOTHING),
            (400, NOTHING),
            (410, NOTHING),
        ];
        assert_eq!(
            observed(&mut settling, &followed, &steps),
            [Same, Changing, Changing, Changing, Changed, Changed]
        );

        let mut settling = Settling::new(&followed);
        let steps: [(u64, &dyn Fn()); 4] = [
            (0, &|| write("linux", "k")),
            (300, &|| write("linux", "ke")),
            (500, NOTHING),
            (600, &|| write("linux", "ker")),
        ];
        // The config has changed since it was read, too.
        assert_eq!(
            observed(&mut settling, &followed, &steps),
            [Changing, Changed, Changed, Changed]
        );

        let mut followed = Followed::default();
        followed.add(at("config.yaml"), Kind::Config);
        followed.add(at("linux"), Kind::Image);
        let mut settling = Settling::new(&followed);
        let steps: [(u64, &dyn Fn()); 4] = [
            (0, &|| write("linux", "kern")),
            (300, &|| write("linux", "kerne")),
            (690, NOTHING),
            (700, NOTHING),
        ];
        assert_eq!(
            observed(&mut settling, &followed, &steps),
            [Changing, Changing, Changing, Changed]
        );
    }

    #[test]
    fn what_is_missing_for_a_moment_has_more_time_to_come_back() {
        use State::{Changed, Changing};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        fs::write(&path, "old").unwrap();
        let mut followed = Followed::default();
        followed.add(path.clone(), Kind::Config);
        let mut settling = Settling::new(&followed);
        let steps: [(u64, &dyn Fn()); 5] = [
            (0, &|| fs::remove_file(&path).unwrap()),
            (490, NOTHING),
            (495, &|| fs::write(&path, "new").unwrap()),
            (690, NOTHING),
            (695, NOTHING),
        ];
        assert_eq!(
            observed(&mut settling, &followed, &steps),
            [Changing, Changing, Changing, Changing, Changed]
        );
        let mut settling = Settling::new(&followed);
        let steps: [(u64, &dyn Fn()); 3] =
            [(0, &|| fs::remove_file(&path).unwrap()), (499, NOTHING), (500, NOTHING)];
        assert_eq!(observed(&mut settling, &followed, &steps), [Changing, Changing, Changed]);
    }
}
