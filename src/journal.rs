//! Recent events, for people: each is a line in the log, and goes to whoever follows.

use tokio::sync::broadcast;
use tracing::{debug, info, warn};

use crate::boot::{Event, Step};

/// How many events a slow follower may fall behind before it misses some.
const BACKLOG: usize = 4096;

/// The one place where events become visible.
#[derive(Clone, Debug)]
pub struct Journal(broadcast::Sender<Event>);

impl Default for Journal {
    fn default() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }
}

impl Journal {
    /// Writes an event down.
    pub fn publish(&self, event: Event) {
        let Event { subject, step } = &event;
        match step {
            Step::Refused { .. } | Step::BrokenOff { .. } | Step::Ignored { .. } => {
                warn!("{subject}: {step}");
            }
            Step::Probed { .. } => debug!("{subject}: {step}"),
            Step::Offered { .. }
            | Step::Leased { .. }
            | Step::Acknowledged { .. }
            | Step::NbpSent { .. }
            | Step::ScriptServed { .. }
            | Step::ImageSent { .. } => info!("{subject}: {step}"),
        }
        // Nobody following is no error.
        self.0.send(event).ok();
    }

    /// Every event from now on.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
