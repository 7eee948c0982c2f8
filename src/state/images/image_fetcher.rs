//! Sees to it in the background that what the config names is here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::{Semaphore, mpsc, watch};

use super::Images;
use super::job::{Job, State};
use super::pull::{Ask, PullError, Pulled, pull};
use crate::http_client::download::{Patience, Progress};
use crate::pure::catalog::image_set::SetId;
use crate::pure::catalog::image_status::{Coming, Standing};
use crate::pure::config::fields::no_such;
use crate::pure::config::snapshot::Config;
use crate::pure::event::image::ImageEvent;
use crate::pure::image_source::Wanted;

/// How many sets are fetched at once: one has all of a usual line.
const AT_ONCE: usize = 2;
/// How long is waited before a set is tried again that could not be fetched.
const AGAIN: Duration = Duration::from_secs(30);
/// And how long at most, since each wait is twice the one before.
const AGAIN_AT_MOST: Duration = Duration::from_mins(10);
/// How often it is told how far a set is.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// A set that somebody asks for, whether a profile names it or not.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Which.
    pub wanted: Wanted,
    /// The images that are made of it.
    pub images: Vec<String>,
    /// Which version of it.
    pub ask: Ask,
}

/// Fetches, for ever.
#[derive(Debug)]
pub struct Keeper {
    config: watch::Receiver<Arc<Config>>,
    images: Images,
    errands: mpsc::UnboundedReceiver<Errand>,
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    under_way: BTreeSet<SetId>,
    failures: HashMap<SetId, Failures>,
    room: Arc<Semaphore>,
}

/// How often in a row a set could not be fetched, and when that is tried again.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    again: Instant,
}

/// What became of one.
#[derive(Debug)]
struct Ended {
    errand: Errand,
    took: Duration,
    pulled: Result<Pulled, PullError>,
}

impl Keeper {
    /// One for the config, and the way to send it on errands.
    pub fn new(
        config: watch::Receiver<Arc<Config>>,
        images: Images,
    ) -> (Self, mpsc::UnboundedSender<Errand>) {
        let (sender, errands) = mpsc::unbounded_channel();
        let keeper = Self {
            config,
            images,
            errands,
            ended: mpsc::unbounded_channel(),
            under_way: BTreeSet::new(),
            failures: HashMap::new(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
        };
        (keeper, sender)
    }

    /// Fetches what is missing, again and again until it is here. What is here is looked at first.
    pub async fn run(mut self) {
        self.verify_all();
        let mut shelf = self.images.subscribe();
        loop {
            let next = self.fetch_what_is_missing();
            let alarm = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A new config is what the next round looks at, and may mend what failed.
                changed = self.config.changed() => match changed {
                    Ok(()) => self.failures.clear(),
                    Err(_) => return,
                },
                // One may have been set aside.
                changed = shelf.changed() => if changed.is_err() { return },
                Some(errand) = self.errands.recv() => {
                    self.failures.remove(&errand.wanted.set);
                    self.begin(errand);
                }
                Some(ended) = self.ended.1.recv() => self.end(ended),
                () = alarm => {}
            }
        }
    }

    /// Reads what the config names once, so that damage shows before a machine comes for it.
    fn verify_all(&self) {
        let config = Arc::clone(&self.config.borrow());
        let shelf = self.images.shelf();
        for errand in wanted(&config) {
            if let Some(Standing::Here(set)) = shelf.sets.get(&errand.wanted.set) {
                let (images, file) = (self.images.clone(), set.folder.join("any"));
                // It is told by an event.
                tokio::spawn(async move { images.verified(&file).await.ok() });
            }
        }
    }

    /// Begins what is missing and due, and says when the next one is.
    fn fetch_what_is_missing(&mut self) -> Option<Instant> {
        let config = Arc::clone(&self.config.borrow_and_update());
        let (shelf, now) = (self.images.shelf(), Instant::now());
        let errands = wanted(&config);
        let named: BTreeSet<&SetId> = errands.iter().map(|errand| &errand.wanted.set).collect();
        for (set, standing) in &shelf.sets {
            let is_left = matches!(standing, Standing::Coming(_)) && !named.contains(set);
            if is_left && !self.under_way.contains(set) {
                self.images.tell(set, None);
            }
        }
        let mut next = None;
        for errand in errands {
            let set = &errand.wanted.set;
            let is_here = matches!(shelf.sets.get(set), Some(Standing::Here(_)));
            if is_here || self.under_way.contains(set) {
                continue;
            }
            match self.failures.get(set).map(|failures| failures.again).filter(|at| *at > now) {
                Some(at) => next = Some(next.map_or(at, |next: Instant| next.min(at))),
                None => self.begin(errand),
            }
        }
        next
    }

    fn begin(&mut self, errand: Errand) {
        let set = errand.wanted.set.clone();
        if !self.under_way.insert(set.clone()) {
            return;
        }
        let image = errand.images.join(", ");
        self.images.job(&set, Job::begun(&image));
        self.images.tell(&set, Some(Coming { is_fetched: true, ..Coming::default() }));
        let (images, room) = (self.images.clone(), Arc::clone(&self.room));
        let ended = self.ended.0.clone();
        tokio::spawn(async move {
            let place = room.acquire_owned().await.expect("nobody closes it");
            images.publish(&ImageEvent::Begun { image, from: errand.wanted.origin.to_string() });
            // To hash and to write what comes is work that would hold up others; and a daemon that stops does
            // not wait for a thread of its own.
            let (refused, refusal) = (errand.clone(), ended.clone());
            let fetch = move || {
                // The daemon receives no `Ended` any more if it stops.
                ended.send(fetched(errand, &images)).ok();
                drop(place);
            };
            let thread = thread::Builder::new().name("image".to_owned());
            if let Err(error) = thread.spawn(fetch) {
                let pulled = Err(PullError::Content(format!("cannot start a thread: {error}")));
                refusal.send(Ended { errand: refused, took: Duration::ZERO, pulled }).ok();
            }
        });
    }

    fn end(&mut self, Ended { errand, took, pulled }: Ended) {
        let Errand { wanted: Wanted { set, .. }, images: named, .. } = errand;
        self.under_way.remove(&set);
        let image = named.join(", ");
        match pulled {
            Ok(pulled) => {
                self.failures.remove(&set);
                for doubt in &pulled.doubts {
                    let (image, doubt) = (image.clone(), doubt.clone());
                    self.images.publish(&ImageEvent::Doubted { image, doubt });
                }
                let what = pulled.stored.manifest.what();
                if pulled.is_new {
                    let len = pulled.stored.manifest.len();
                    self.images.publish(&ImageEvent::Here { image, what: what.clone(), len, took });
                }
                self.images.ended(&set, State::Here(what));
                self.images.tell(&set, None);
                self.images.look();
                // It was removed meanwhile, or cannot be read: not at once again.
                if !matches!(self.images.shelf().sets.get(&set), Some(Standing::Here(_))) {
                    self.failures.insert(set, Failures { count: 1, again: Instant::now() + AGAIN });
                }
            }
            Err(error) => {
                let count = self.failures.get(&set).map_or(0, |before| before.count) + 1;
                let again_in = (AGAIN * 2_u32.pow((count - 1).min(8))).min(AGAIN_AT_MOST);
                self.failures
                    .insert(set.clone(), Failures { count, again: Instant::now() + again_in });
                let reason = error.to_string();
                let failed = ImageEvent::Failed { image, reason: reason.clone(), again_in };
                self.images.publish(&failed);
                self.images.ended(&set, State::Failed(reason.clone()));
                let failure = format!("{reason}; next try in {} s", again_in.as_secs());
                self.images
                    .tell(&set, Some(Coming { failure: Some(failure), ..Coming::default() }));
            }
        }
    }
}

/// Fetches a set on a runtime of its own. On the daemon's runtime, which ends before this thread does, the next
/// timer or socket would panic at a SIGTERM.
fn fetched(errand: Errand, images: &Images) -> Ended {
    let started = Instant::now();
    let set = errand.wanted.set.clone();
    let mut told: Option<Instant> = None;
    let mut report = |Progress { received, total }: Progress| {
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            told = Some(Instant::now());
            images.progress(&set, received, total);
        }
    };
    let asked = (errand.ask, Patience::default());
    let pulled = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(pull(images.store(), &errand.wanted, asked, &mut report)),
        Err(error) => Err(PullError::Content(format!("cannot start a runtime: {error}"))),
    };
    Ended { errand, took: started.elapsed(), pulled }
}

/// The sets of all images that a profile names, each once.
pub fn wanted(config: &Config) -> Vec<Errand> {
    let images = config.catalog.profiles.values().filter_map(|profile| profile.image.as_ref());
    let images: BTreeSet<&str> = images.map(|image| image.name.as_str()).collect();
    errands(config, images.into_iter())
}

/// The sets of these images, each once.
pub fn errands<'a>(config: &Config, images: impl Iterator<Item = &'a str>) -> Vec<Errand> {
    let mut errands: BTreeMap<SetId, Errand> = BTreeMap::new();
    for image in images {
        for wanted in config.wanted.get(image).into_iter().flatten() {
            let errand = errands.entry(wanted.set.clone()).or_insert_with(|| Errand {
                wanted: wanted.clone(),
                images: Vec::new(),
                ask: Ask::Missing,
            });
            errand.images.push(image.to_owned());
        }
    }
    errands.into_values().collect()
}

/// Why an image is not fetched that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotFetched(pub String);

/// The sets of these images; of all that a profile names where none is named.
///
/// # Errors
/// There is no such image, or it is the operator's own.
pub fn asked_for(config: &Config, images: &[String]) -> Result<Vec<Errand>, NotFetched> {
    if images.is_empty() {
        return Ok(wanted(config));
    }
    let all = &config.catalog.images;
    for name in images {
        let Some(image) = all.get(name) else {
            return Err(NotFetched(no_such("image", name, all.keys().map(String::as_str))));
        };
        if image.sets().next().is_none() {
            let why =
                format!("image {name} is made of files of your own; there is nothing to fetch");
            return Err(NotFetched(why));
        }
    }
    Ok(errands(config, images.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::path::Path;
    use std::sync::mpsc as std_mpsc;

    use super::*;
    use crate::pure::config::problem::Problems;
    use crate::pure::config::resolve::resolve;
    use crate::pure::config::schema::File;
    use crate::pure::config::surroundings::Surroundings;
    use crate::state::journal::Journal;

    /// Serves one file of 20 bytes, the second half of it once that is asked for.
    fn serve_in_halves() -> (String, std_mpsc::Receiver<()>, std_mpsc::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/linux", listener.local_addr().unwrap());
        let (half, is_half) = std_mpsc::channel();
        let (rest, wait_for_rest) = std_mpsc::channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let stream = stream.get_mut();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n0123456789").unwrap();
            half.send(()).unwrap();
            wait_for_rest.recv().unwrap();
            stream.write_all(b"0123456789").unwrap();
        });
        (url, is_half, rest)
    }

    #[test]
    fn a_fetch_does_not_panic_when_the_runtime_of_the_daemon_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (url, is_half, rest) = serve_in_halves();
        let yaml = format!(
            "images: {{ i: {{ kernel: '{url}' }} }}\nprofiles: {{ p: {{ script: linux, image: i }} }}\n"
        );
        let mut problems = Problems::new(Path::new("config.yaml"), &yaml);
        let file = File::parse(&yaml, &mut problems).unwrap();
        let config = resolve(file, Surroundings::default(), problems).unwrap();
        let set = config.wanted["i"][0].set.clone();
        let images = Images::new(folder.path(), Arc::new(Journal::default()));
        let daemon = runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (_config, follow) = watch::channel(Arc::new(config));
        let (keeper, _errands) = Keeper::new(follow, images.clone());
        daemon.spawn(keeper.run());
        is_half.recv().unwrap();
        drop(daemon);
        rest.send(()).unwrap();
        let end = Instant::now() + Duration::from_mins(1);
        while images.store().find(&set).is_none() {
            assert!(Instant::now() < end, "the thread has ended without the image");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
