//! The images that reveille fetches by itself, and what a daemon knows of them.
//!
//! ```text
//!  config ──wanted──▶ puller ──download──▶ store ──▶ shelf ──▶ who decides boots
//!                        ▲                   ▲
//!                        └──set aside────────┴── verified, before the first byte is served
//! ```

pub mod image_fetcher;
pub mod inventory;
pub mod job;
pub mod pull;
pub mod store;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use self::job::{Job, State};
use self::store::{Store, Stored};
use super::journal::Journal;
use crate::pure::catalog::image_set::SetId;
use crate::pure::catalog::image_status::{Coming, Shelf, Standing};
use crate::pure::event::image::ImageEvent;
use crate::sys::files::Version;

/// How often it is written down at most that a set is served.
const SERVED_EVERY: Duration = Duration::from_mins(1);

/// What became of reading a set once: who comes meanwhile waits for it.
#[derive(Clone, Debug, Default)]
struct Check(Arc<Mutex<Option<Result<(), String>>>>);

/// The one handle to them.
#[derive(Clone, Debug)]
pub struct Images(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    shelf: watch::Sender<Arc<Shelf>>,
    journal: Arc<Journal>,
    /// By the folder, which of its contents was read, and what that showed.
    checks: Mutex<HashMap<PathBuf, (Version, Check)>>,
    served: Mutex<HashMap<PathBuf, Instant>>,
    jobs: Mutex<BTreeMap<SetId, Job>>,
}

impl Images {
    /// Those of a state folder, as they are now.
    pub fn new(state: &Path, journal: Arc<Journal>) -> Self {
        let store = Store::new(state);
        let shelf = watch::channel(Arc::new(store.shelf())).0;
        Self(Arc::new(Inner {
            store,
            shelf,
            journal,
            checks: Mutex::default(),
            served: Mutex::default(),
            jobs: Mutex::default(),
        }))
    }

    /// Where they are.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What is here at the moment; take it once for each request.
    pub fn shelf(&self) -> Arc<Shelf> {
        Arc::clone(&self.0.shelf.borrow())
    }

    /// A view of what is here.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Shelf>> {
        self.0.shelf.subscribe()
    }

    /// Looks at the disk again. How far others are stays as it is.
    pub fn look(&self) {
        let found = self.0.store.shelf();
        self.0.shelf.send_if_modified(|shelf| {
            let mut sets = found.sets;
            for (set, standing) in &shelf.sets {
                if let Standing::Coming(_) = standing {
                    sets.entry(set.clone()).or_insert_with(|| standing.clone());
                }
            }
            let is_new = shelf.sets != sets;
            *shelf = Arc::new(Shelf { sets });
            is_new
        });
    }

    /// Says how far a set is that is not here; none where nobody fetches it any more.
    pub fn tell(&self, set: &SetId, coming: Option<Coming>) {
        self.0.shelf.send_if_modified(|shelf| {
            let before = shelf.sets.get(set);
            if matches!(before, Some(Standing::Here(_))) {
                return false;
            }
            let coming = coming.map(Standing::Coming);
            if before == coming.as_ref() {
                return false;
            }
            let mut now = Shelf::clone(shelf);
            match coming {
                Some(coming) => drop(now.sets.insert(set.clone(), coming)),
                None => drop(now.sets.remove(set)),
            }
            *shelf = Arc::new(now);
            true
        });
    }

    /// What is being fetched, and how the last attempt of each set ended.
    pub fn jobs(&self) -> BTreeMap<SetId, Job> {
        self.locked_jobs().clone()
    }

    fn locked_jobs(&self) -> MutexGuard<'_, BTreeMap<SetId, Job>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a set is asked for, unless it is under way.
    pub fn asked(&self, set: &SetId, image: &str) -> Job {
        let mut jobs = self.locked_jobs();
        let job = jobs.entry(set.clone()).or_insert_with(|| Job::begun(image));
        if job.state != State::Running {
            *job = Job::begun(image);
        }
        job.clone()
    }

    fn job(&self, set: &SetId, job: Job) {
        self.locked_jobs().insert(set.clone(), job);
    }

    /// Says how far a set is that is being fetched.
    fn progress(&self, set: &SetId, received: u64, total: Option<u64>) {
        if let Some(job) = self.locked_jobs().get_mut(set) {
            (job.received, job.total) = (received, total);
        }
        self.tell(set, Some(Coming { received, total, failure: None, is_fetched: true }));
    }

    fn ended(&self, set: &SetId, state: State) {
        if let Some(job) = self.locked_jobs().get_mut(set) {
            job.state = state;
        }
    }

    fn publish(&self, event: &ImageEvent) {
        self.0.journal.publish_image(event);
    }

    /// Whether a file may be served, as [`verified`](Self::verified) says; if so, that it is served is noted.
    ///
    /// # Errors
    /// It is damaged, and in what.
    pub async fn serves(&self, path: &Path) -> Result<(), String> {
        self.at_the_disk(path, |images, set| {
            if let Some((folder, stored)) = images.check(set)? {
                images.mark_served(folder, &stored);
            }
            Ok(())
        })
        .await
    }

    /// Whether a file of a set is as it was when it came. All of the set is read for that once, however many
    /// ask meanwhile; what is damaged is set aside, and fetched again.
    ///
    /// # Errors
    /// It is damaged, and in what.
    pub async fn verified(&self, path: &Path) -> Result<(), String> {
        self.at_the_disk(path, |images, set| images.check(set).map(drop)).await
    }

    /// Looks at the set that a file is of, where it holds up nobody else. Who waits may go away: what has begun
    /// goes on, so that it is done once.
    async fn at_the_disk(
        &self,
        path: &Path,
        look: fn(&Self, &SetId) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(set) = self.set_of(path) else {
            return Ok(());
        };
        let images = self.clone();
        let looked = tokio::task::spawn_blocking(move || look(&images, &set)).await;
        looked.map_err(|error| error.to_string())?
    }

    fn set_of(&self, path: &Path) -> Option<SetId> {
        let folder = path.parent()?;
        let shelf = self.shelf();
        let (set, _) = shelf.sets.iter().find(|(_, standing)| match standing {
            Standing::Here(set) => set.folder == folder,
            Standing::Coming(_) => false,
        })?;
        Some(set.clone())
    }

    /// The set, unless it is damaged; none where it went meanwhile.
    fn check(&self, set: &SetId) -> Result<Option<(PathBuf, Stored)>, String> {
        let Some((folder, version, stored)) = self.stored(set) else {
            return Ok(None);
        };
        let check = {
            let mut checks = self.0.checks.lock().unwrap_or_else(PoisonError::into_inner);
            let known = checks.entry(folder.clone()).or_insert_with(|| (version, Check::default()));
            if known.0 != version {
                *known = (version, Check::default());
            }
            known.1.clone()
        };
        let mut known = check.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| self.verify(&stored)).clone()?;
        Ok(Some((folder, stored)))
    }

    /// The set, its folder, and which content of it that is.
    fn stored(&self, set: &SetId) -> Option<(PathBuf, Version, Stored)> {
        let stored = self.0.store.find(set)?;
        // The newest is the same as the one that it is.
        let folder = stored.folder.canonicalize().ok()?;
        let manifest = std::fs::metadata(stored.manifest_path()).ok()?;
        Some((folder, Version::of(&manifest), stored))
    }

    fn verify(&self, stored: &Stored) -> Result<(), String> {
        let Err(damage) = stored.verify() else {
            return Ok(());
        };
        let aside = stored.set_aside().err().map(|error| error.to_string());
        let damaged = ImageEvent::Damaged { set: stored.set.clone(), damage, aside };
        let told = damaged.to_string();
        self.publish(&damaged);
        self.look();
        Err(told)
    }

    fn mark_served(&self, folder: PathBuf, stored: &Stored) {
        let now = Instant::now();
        let mut served = self.0.served.lock().unwrap_or_else(PoisonError::into_inner);
        let last = served.get(&folder);
        if last.is_none_or(|last| now.duration_since(*last) >= SERVED_EVERY) {
            served.insert(folder, now);
            stored.mark_served();
        }
    }
}
