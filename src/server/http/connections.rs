//! The open connections: how many each address has, and which one is closed for another.
//!
//! One neighbour may open thousands of connections and leave them idle, drip the heads of requests, or
//! hardly read the responses. None of that keeps another machine from its script: an address has at most
//! [`PER_ADDRESS`] connections, and where all are in use, the address with the most makes room.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::sync::{Notify, oneshot};

use self::table::{Decision, Entry, Table};

mod table;
pub(super) use self::table::{Evicted, PER_ADDRESS};

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

impl Connections {
    /// A table for at most so many connections.
    pub(super) fn new(most: usize) -> Self {
        let table = Mutex::new(Table::new(most));
        Self(Arc::new(Shared { table, room: Notify::new() }))
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

    /// Closes what has been idle for [`table::IDLE_TIMEOUT_NEARLY_FULL`], if nearly all connections are in use.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::table::IDLE_TIMEOUT_NEARLY_FULL;
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
