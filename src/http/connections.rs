//! The open connections: how many each address has, and which one is closed for another.
//!
//! One neighbour may open thousands of connections and leave them idle, drip the heads of requests, or
//! hardly read the responses. None of that keeps another machine from its script: an address has at most
//! [`PER_ADDRESS`] connections, and where all are in use, the address with the most makes room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::{Notify, oneshot};

/// How many connections one address may have.
pub(super) const PER_ADDRESS: usize = 64;

/// How many connections one machine needs: firmware, iPXE and installers open one or two. No response is
/// interrupted at an address that has no more than these.
const OF_A_MACHINE: usize = 4;

/// How long a connection may be idle while more than three quarters of all are in use.
const IDLE_TIMEOUT_NEARLY_FULL: Duration = Duration::from_secs(3);

/// The table of open connections.
#[derive(Clone, Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    room: Notify,
}

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Admission {
    /// It is served, in the place of another one if `evicted` names one.
    Admitted { place: Place, closed: Closed, evicted: Option<Evicted> },
    /// It is closed: its address has its share, and each of them has a request under way.
    Refused,
    /// It waits: every connection has a request under way, and no address has many.
    Full,
}

/// Resolves when the connection must make room for another.
pub(super) type Closed = oneshot::Receiver<Infallible>;

/// A connection that was closed for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evicted {
    pub(super) address: Ipv4Addr,
    /// Whether it had no request under way.
    pub(super) is_idle: bool,
    id: u64,
}

impl Connections {
    /// A table for at most so many connections.
    pub(super) fn new(most: usize) -> Self {
        let table = Table { most, count: 0, next: 0, by_address: HashMap::new() };
        Self(Arc::new(Shared { table: Mutex::new(table), room: Notify::new() }))
    }

    /// Decides on a new connection from this address.
    pub(super) fn admit(&self, from: Ipv4Addr) -> Admission {
        let (sender, closed) = oneshot::channel();
        match self.table().admit(from, Entry::idle(Instant::now(), sender)) {
            Decision::Admitted { id, evicted } => {
                let is_sent = AtomicBool::new(false);
                let place = Place(Arc::new(Held { from, id, is_sent, all: self.clone() }));
                Admission::Admitted { place, closed, evicted }
            }
            Decision::Refused => Admission::Refused,
            Decision::Full => Admission::Full,
        }
    }

    /// Waits until a connection has ended or become idle.
    pub(super) async fn room(&self) {
        self.0.room.notified().await;
    }

    /// Closes what has been idle for [`IDLE_TIMEOUT_NEARLY_FULL`], if nearly all connections are in use.
    pub(super) fn close_idle(&self) {
        self.table().close_idle(Instant::now());
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of one connection, which ends with it.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug)]
struct Held {
    from: Ipv4Addr,
    id: u64,
    /// Whether the response body is complete, but not yet written.
    is_sent: AtomicBool,
    all: Connections,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.table().remove(self.from, self.id);
        self.all.0.room.notify_one();
    }
}

impl Place {
    /// Marks the connection as serving a request, until the body of the response was dropped and written.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.is_sent.store(false, Ordering::Release);
        self.set_idle(false);
        UnderWay(self.clone())
    }

    /// Notes that everything that was handed to the connection is written.
    pub(super) fn flushed(&self) {
        if self.0.is_sent.swap(false, Ordering::AcqRel) {
            self.set_idle(true);
            self.0.all.0.room.notify_one();
        }
    }

    fn set_idle(&self, is_idle: bool) {
        let mut table = self.0.all.table();
        // An evicted one has none.
        if let Some(entry) = table.entry(self.0.from, self.0.id) {
            (entry.is_idle, entry.since) = (is_idle, Instant::now());
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Place);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.is_sent.store(true, Ordering::Release);
    }
}

impl UnderWay {
    /// Keeps the request under way until this body ends.
    pub(super) fn until_end_of(self, body: Body) -> Body {
        Body::new(Guarded { body, _until: self })
    }
}

struct Guarded {
    body: Body,
    _until: UnderWay,
}

impl http_body::Body for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug)]
struct Table {
    most: usize,
    count: usize,
    next: u64,
    /// No address without a connection is in it.
    by_address: HashMap<Ipv4Addr, BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    is_idle: bool,
    /// Since it is idle, or has a request under way.
    since: Instant,
    /// Dropped with the entry, which closes the connection.
    _open: oneshot::Sender<Infallible>,
}

impl Entry {
    fn idle(since: Instant, open: oneshot::Sender<Infallible>) -> Self {
        Self { is_idle: true, since, _open: open }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Admitted { id: u64, evicted: Option<Evicted> },
    Refused,
    Full,
}

impl Table {
    fn admit(&mut self, from: Ipv4Addr, entry: Entry) -> Decision {
        let own = self.by_address.get(&from).map_or(0, BTreeMap::len);
        let mut evicted = None;
        if own >= PER_ADDRESS {
            evicted = self.oldest_of(from, |entry| entry.is_idle).map(|(_, oldest)| oldest);
            if evicted.is_none() {
                return Decision::Refused;
            }
        } else if self.count >= self.most {
            evicted = self.victim(own);
            if evicted.is_none() {
                return if own > OF_A_MACHINE { Decision::Refused } else { Decision::Full };
            }
        }
        if let Some(evicted) = evicted {
            self.remove(evicted.address, evicted.id);
        }
        let id = self.next;
        self.next += 1;
        self.count += 1;
        self.by_address.entry(from).or_default().insert(id, entry);
        Decision::Admitted { id, evicted }
    }

    /// The connection that makes room for one of an address that has `own`: an idle one of an address that
    /// has more than a machine needs; else one of such an address with a request under way, if that has more
    /// than the newcomer's will have; else any idle one. Of those, the oldest one of the address with the most.
    fn victim(&self, own: usize) -> Option<Evicted> {
        let of_largest = |least: usize, is_meant: fn(&Entry) -> bool| {
            let large = self.by_address.iter().filter(|(_, entries)| entries.len() >= least);
            let oldest = large.filter_map(|(address, entries)| {
                let (since, evicted) = self.oldest_of(*address, is_meant)?;
                Some(((entries.len(), Reverse(since)), evicted))
            });
            oldest.max_by_key(|(rank, _)| *rank).map(|(_, evicted)| evicted)
        };
        of_largest(OF_A_MACHINE + 1, |entry| entry.is_idle)
            .or_else(|| of_largest((OF_A_MACHINE + 1).max(own + 2), |_| true))
            .or_else(|| of_largest(1, |entry| entry.is_idle))
    }

    fn oldest_of(
        &self,
        address: Ipv4Addr,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Option<(Instant, Evicted)> {
        let meant = self.by_address.get(&address)?.iter().filter(|(_, entry)| is_meant(entry));
        let (id, entry) = meant.min_by_key(|(id, entry)| (entry.since, **id))?;
        Some((entry.since, Evicted { address, is_idle: entry.is_idle, id: *id }))
    }

    fn close_idle(&mut self, now: Instant) {
        if self.count * 4 <= self.most * 3 {
            return;
        }
        let is_over = |entry: &Entry| {
            entry.is_idle && now.duration_since(entry.since) >= IDLE_TIMEOUT_NEARLY_FULL
        };
        for entries in self.by_address.values_mut() {
            entries.retain(|_, entry| !is_over(entry));
        }
        self.by_address.retain(|_, entries| !entries.is_empty());
        self.count = self.by_address.values().map(BTreeMap::len).sum();
    }

    fn entry(&mut self, address: Ipv4Addr, id: u64) -> Option<&mut Entry> {
        self.by_address.get_mut(&address)?.get_mut(&id)
    }

    /// Closes it, unless it is gone already.
    fn remove(&mut self, address: Ipv4Addr, id: u64) {
        let Some(entries) = self.by_address.get_mut(&address) else {
            return;
        };
        if entries.remove(&id).is_some() {
            self.count -= 1;
        }
        if entries.is_empty() {
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 60);
    const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 61);
    const C: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 62);

    /// A connection that a test holds open.
    struct Open {
        place: Place,
        closed: Closed,
        evicted: Option<Evicted>,
    }

    impl Open {
        fn is_open(&mut self) -> bool {
            self.closed.try_recv() == Err(oneshot::error::TryRecvError::Empty)
        }
    }

    /// So many connections of this address, each admitted without closing another.
    fn open(all: &Connections, from: Ipv4Addr, count: usize) -> Vec<Open> {
        let opened: Vec<Open> = (0..count).map(|_| admitted(all, from)).collect();
        assert!(opened.iter().all(|open| open.evicted.is_none()));
        opened
    }

    fn admitted(all: &Connections, from: Ipv4Addr) -> Open {
        match all.admit(from) {
            Admission::Admitted { place, closed, evicted } => Open { place, closed, evicted },
            other @ (Admission::Refused | Admission::Full) => panic!("{other:?}"),
        }
    }

    /// Whose connection made room for one from this address, and whether it was idle.
    fn evicted_for(all: &Connections, from: Ipv4Addr) -> (Open, Ipv4Addr, bool) {
        let new = admitted(all, from);
        let evicted = new.evicted.unwrap();
        (new, evicted.address, evicted.is_idle)
    }

    fn which_closed(opened: &mut [Open]) -> Vec<usize> {
        let opened = opened.iter_mut().enumerate();
        opened.filter_map(|(at, open)| (!open.is_open()).then_some(at)).collect()
    }

    #[test]
    fn the_65th_connection_of_an_address_closes_its_oldest_idle_one() {
        let all = Connections::new(1000);
        let mut of_a = open(&all, A, PER_ADDRESS);
        let mut of_b = open(&all, B, 1);
        let under_way = of_a[0].place.begin();
        let (_65th, address, is_idle) = evicted_for(&all, A);
        assert_eq!((address, is_idle, which_closed(&mut of_a)), (A, true, vec![1]));
        // The response is complete, but not written.
        drop(under_way);
        let _66th = evicted_for(&all, A);
        assert_eq!(which_closed(&mut of_a), [1, 2]);
        // It is idle now, but for less long than all others.
        of_a[0].place.flushed();
        let _more: Vec<_> = (0..61).map(|_| evicted_for(&all, A)).collect();
        assert!(of_a[0].is_open());
        assert_eq!(which_closed(&mut of_a).len(), 63);
        assert!(of_b[0].is_open());
    }

    #[test]
    fn the_65th_is_refused_while_each_has_a_request_under_way() {
        let all = Connections::new(1000);
        let mut of_a = open(&all, A, PER_ADDRESS);
        let mut under_way: Vec<_> = of_a.iter().map(|open| open.place.begin()).collect();
        assert!(matches!(all.admit(A), Admission::Refused));
        let _of_b = open(&all, B, PER_ADDRESS);
        // A pipelined request follows at once.
        drop(under_way.remove(7));
        under_way.push(of_a[7].place.begin());
        of_a[7].place.flushed();
        assert!(matches!(all.admit(A), Admission::Refused));
        assert!(which_closed(&mut of_a).is_empty());
        // One that has ended makes room.
        under_way.pop();
        of_a.remove(7);
        open(&all, A, 1);
    }

    #[test]
    fn where_all_are_in_use_the_address_with_the_most_makes_room() {
        let all = Connections::new(30);
        let mut of_a = open(&all, A, 12);
        let mut of_b = open(&all, B, 16);
        let mut of_c = open(&all, C, 2);
        let _busy: Vec<_> = of_b[..15].iter().map(|open| open.place.begin()).collect();
        let (_new, address, is_idle) = evicted_for(&all, C);
        assert_eq!((address, is_idle, which_closed(&mut of_b)), (B, true, vec![15]));
        let _busy_too: Vec<_> = of_a[..11].iter().map(|open| open.place.begin()).collect();
        let (_new, address, is_idle) = evicted_for(&all, C);
        assert_eq!((address, is_idle, which_closed(&mut of_a)), (A, true, vec![11]));
        // None of many is idle: the response that takes longest is interrupted, and no idle one of few closed.
        let (_new, address, is_idle) = evicted_for(&all, C);
        assert_eq!((address, is_idle, which_closed(&mut of_b)), (B, false, vec![0, 15]));
        assert!(which_closed(&mut of_c).is_empty());
    }

    #[test]
    fn where_all_are_in_use_the_address_with_the_most_gets_no_more() {
        let all = Connections::new(10);
        let mut of_a = open(&all, A, 7);
        let mut of_b = open(&all, B, 3);
        let _busy: Vec<_> = of_a.iter().chain(&of_b).map(|open| open.place.begin()).collect();
        assert!(matches!(all.admit(A), Admission::Refused));
        assert!(which_closed(&mut of_a).is_empty() && which_closed(&mut of_b).is_empty());
    }

    #[tokio::test]
    async fn no_response_is_interrupted_while_no_address_has_many() {
        let all = Connections::new(6);
        let mut of_a = open(&all, A, 4);
        let mut of_b = open(&all, B, 2);
        let mut busy: Vec<_> = of_a.iter().chain(&of_b).map(|open| open.place.begin()).collect();
        assert!(matches!(all.admit(C), Admission::Full));
        assert!(which_closed(&mut of_a).is_empty() && which_closed(&mut of_b).is_empty());
        drop(busy.pop());
        of_b[1].place.flushed();
        all.room().await;
        let (new, address, is_idle) = evicted_for(&all, C);
        assert_eq!((address, is_idle, which_closed(&mut of_b)), (B, true, vec![1]));
        let _busy = new.place.begin();
        // The rest of what was closed goes later, and was counted already.
        of_b.pop();
        assert!(matches!(all.admit(C), Admission::Full));
        drop(busy.pop());
        of_b.pop();
        all.room().await;
        open(&all, C, 1);
    }

    #[test]
    fn what_is_idle_for_long_is_closed_once_nearly_all_are_in_use() {
        let all = Connections::new(8);
        let mut of_a = open(&all, A, 6);
        let _busy = of_a[2].place.begin();
        let later = Instant::now() + IDLE_TIMEOUT_NEARLY_FULL;
        all.table().close_idle(later);
        assert!(which_closed(&mut of_a).is_empty(), "three quarters are in use, and no more");
        let mut of_b = open(&all, B, 1);
        all.close_idle();
        assert!(which_closed(&mut of_a).is_empty(), "they are new");
        all.table().close_idle(later + Duration::from_secs(1));
        assert_eq!(which_closed(&mut of_a), [0, 1, 3, 4, 5]);
        assert!(!of_b[0].is_open());
        drop((of_a, of_b));
        let table = all.table();
        assert_eq!((table.count, table.by_address.len()), (1, 1), "that of the request under way");
    }

    #[test]
    fn nothing_is_left_of_connections_that_have_ended() {
        let all = Connections::new(100);
        let opened = [open(&all, A, 64), open(&all, B, 36)];
        let _ = evicted_for(&all, C);
        drop(opened);
        let table = all.table();
        assert_eq!((table.count, table.by_address.len()), (0, 0));
    }
}
