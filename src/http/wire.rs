//! Whether what was sent has come to the client.
//!
//! The kernel takes megabytes of a body before the client has any of them: a machine that is reset at the end of
//! its download would be taken for one that has all of it. What is unacknowledged stands in the kernel's table of
//! connections (`tx_queue` of `/proc/net/tcp`, proc(5)); one look at it serves all that wait.
//!
//! The very last bytes are never acknowledged by an iPXE that starts its kernel at once, and leaves the connection
//! as it is (9 to 20 KiB with Debian 12's, BIOS and UEFI). So not all needs to be.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::warn;

use super::connections::Place;

/// How soon the table is looked at: to read it costs the kernel a millisecond or more, however few connections
/// there are.
const LOOK: Duration = Duration::from_millis(20);
/// How seldom, while nobody comes to wait.
const SELDOM: Duration = Duration::from_millis(320);

/// So much less than all is all.
pub(super) const SLACK: u64 = 256 << 10;

/// Called once with the number of bytes that have not come to the client.
type Arrived = Box<dyn FnOnce(u64) + Send>;

/// The handlers' side of a connection.
#[derive(Clone)]
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    /// As the table has them.
    ends: String,
    inner: Mutex<Inner>,
    looks: Looks,
}

#[derive(Default)]
struct Inner {
    /// What is called when all is with the kernel, and has come to the client.
    waiting: Vec<Arrived>,
    /// Bytes that the kernel has taken.
    written: u64,
    /// Whether the client has closed its side in order.
    is_closed: bool,
}

impl Wire {
    /// Calls this once all that was taken from the response so far has come to the client, or cannot any more.
    pub(super) fn when_arrived(&self, arrived: impl FnOnce(u64) + Send + 'static) {
        self.inner().waiting.push(Box::new(arrived));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection itself.
pub(super) struct Line {
    stream: TcpStream,
    wire: Wire,
    place: Place,
}

impl Line {
    /// Takes over an accepted connection from this peer.
    pub(super) fn new(
        (stream, peer): (TcpStream, SocketAddr),
        looks: Looks,
        place: Place,
    ) -> io::Result<Self> {
        let ends = written_as(stream.local_addr()?, peer);
        let wire = Wire(Arc::new(Shared { ends, inner: Mutex::default(), looks }));
        Ok(Self { stream, wire, place })
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.wire.inner().written += *bytes as u64;
        }
        written
    }

    /// For its handlers.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // It has not even come to the kernel.
        for arrived in std::mem::take(&mut self.wire.inner().waiting) {
            arrived(1);
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        if matches!(polled, Poll::Ready(Ok(()))) && is_end {
            self.wire.inner().is_closed = true;
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.count(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.count(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // hyper asks for it once all that it holds is written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(polled, Poll::Ready(Ok(()))) {
            let mut inner = self.wire.inner();
            let upto = inner.written;
            for arrived in std::mem::take(&mut inner.waiting) {
                let wire = self.wire.clone();
                self.wire.0.looks.wait(Waiting { wire, arrived, upto, missing: 1 });
            }
            drop(inner);
            self.place.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What is with the kernel.
struct Waiting {
    wire: Wire,
    arrived: Arrived,
    /// How much was written by the end of it.
    upto: u64,
    /// How much of that was not acknowledged when it was looked at last.
    missing: u64,
}

/// The one who looks: a thread of its own, which reads the table into the same memory each time.
#[derive(Clone)]
pub(super) struct Looks(Sender<Waiting>);

impl Looks {
    /// Begins to look, as long as there is somebody to look for.
    pub(super) fn start() -> Self {
        let (sender, waiting) = channel();
        let looks = thread::Builder::new().name("http-looks".to_owned());
        if let Err(error) = looks.spawn(move || look(&waiting)) {
            warn!("http: cannot start a thread: {error}; what was sent counts as fetched");
        }
        Self(sender)
    }

    fn wait(&self, waiting: Waiting) {
        // Nobody looks.
        if let Err(unheard) = self.0.send(waiting) {
            (unheard.0.arrived)(0);
        }
    }
}

fn look(new: &Receiver<Waiting>) {
    let (mut is_told, mut table) = (false, Table::default());
    while let Ok(first) = new.recv() {
        let mut waiting = vec![first];
        let mut pause = LOOK;
        while !waiting.is_empty() {
            thread::sleep(pause);
            let before = waiting.len();
            waiting.extend(new.try_iter());
            pause = if waiting.len() > before { LOOK } else { SELDOM.min(pause * 2) };
            // First: what is written meanwhile makes it seem that less was acknowledged, and not more.
            let written: Vec<u64> = waiting.iter().map(|one| one.wire.inner().written).collect();
            let read = table.read().map_err(|error| {
                if !std::mem::replace(&mut is_told, true) {
                    warn!(
                        "http: cannot look whether files have come to their clients: {error}; what was sent counts as fetched"
                    );
                }
            });
            let wires: Vec<Wire> = waiting.iter().map(|one| one.wire.clone()).collect();
            let ends = wires.iter().map(|wire| wire.0.ends.as_str()).collect();
            let there = read.ok().map(|()| table.unacknowledged(&ends));
            let looked = waiting.into_iter().zip(written);
            waiting =
                looked.filter_map(|(one, written)| one.look(there.as_ref(), written)).collect();
        }
    }
}

/// The kernel's table. It is read into the same memory each time.
#[derive(Default)]
struct Table(Vec<u8>);

impl Table {
    fn read(&mut self) -> io::Result<()> {
        self.0.clear();
        File::open("/proc/net/tcp")?.read_to_end(&mut self.0).map(drop)
    }

    /// How much is not acknowledged on each of these connections that is there.
    fn unacknowledged<'a>(&'a self, ends: &HashSet<&str>) -> HashMap<&'a str, u64> {
        let text = str::from_utf8(&self.0).unwrap_or_default();
        // `0: 0100007F:1F90 0100007F:C350 01 00000000:00000000 …`: the ends, the state, what waits each way.
        let lines = text.lines().filter_map(|line| {
            let (_, line) = line.split_once(": ")?;
            let (ends_of_it, rest) = line.split_at_checked(ENDS)?;
            let is_wanted = ends.contains(ends_of_it);
            let to_send = is_wanted.then(|| rest.trim_start().get(3..11)).flatten()?;
            Some((ends_of_it, u64::from_str_radix(to_send, 16).ok()?))
        });
        lines.collect()
    }
}

/// How long the ends of a connection are, as the table writes them.
const ENDS: usize = "0100007F:1F90 0100007F:C350".len();

fn written_as(local: SocketAddr, remote: SocketAddr) -> String {
    let one = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => format!("{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), end.port()),
        // There is another table for these, and nobody listens there.
        IpAddr::V6(_) => String::new(),
    };
    format!("{} {}", one(local), one(remote))
}

impl Waiting {
    /// Calls what waits, if it is known what became of it; else it waits on.
    fn look(mut self, there: Option<&HashMap<&str, u64>>, written: u64) -> Option<Self> {
        let Some(there) = there else {
            (self.arrived)(0);
            return None;
        };
        let Some(unacknowledged) = there.get(self.wire.0.ends.as_str()) else {
            // It is over: in order, which takes that all was acknowledged, or not.
            let is_closed = self.wire.inner().is_closed;
            (self.arrived)(if is_closed { 0 } else { self.missing });
            return None;
        };
        let acknowledged = written.saturating_sub(*unacknowledged);
        self.missing = self.upto.saturating_sub(acknowledged);
        if self.missing <= SLACK {
            (self.arrived)(0);
            return None;
        }
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::connections::{Admission, Connections};
    use super::*;

    const WHOLE: usize = 4 << 20;

    /// Sends so much to a client that does with its connection what it is told; what has not arrived.
    async fn send<F: Future<Output = ()>>(client: impl FnOnce(TcpStream) -> F) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        let Admission::Admitted { place, .. } = Connections::new(1).admit(Ipv4Addr::LOCALHOST)
        else {
            panic!("there is room");
        };
        let mut line = Line::new(accepted, Looks::start(), place).unwrap();
        let wire = line.wire();
        let (sender, arrived) = mpsc::channel();
        let sending = tokio::spawn(async move {
            wire.when_arrived(move |missing| sender.send(missing).unwrap());
            line.write_all(&vec![7; WHOLE]).await?;
            line.flush().await?;
            let mut rest = Vec::new();
            line.read_to_end(&mut rest).await?;
            io::Result::Ok(())
        });
        client(to).await;
        sending.await.unwrap().ok();
        tokio::task::spawn_blocking(move || arrived.recv().unwrap()).await.unwrap()
    }

    #[test]
    fn what_is_not_acknowledged_stands_in_the_kernels_table() {
        let table = Table(
            b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n   \
              0: 0200004D:1F90 3200004D:C350 01 000186A0:00000000 01:00000014 00000000     0\n  \
              10: 0200004D:1F90 3300004D:C350 01 00000001:00000000 01:00000014 00000000     0\n"
                .to_vec(),
        );
        let here = written_as("77.0.0.2:8080".parse().unwrap(), "77.0.0.50:50000".parse().unwrap());
        let gone = written_as("77.0.0.2:8080".parse().unwrap(), "77.0.0.52:50000".parse().unwrap());
        let found = table.unacknowledged(&HashSet::from([here.as_str(), gone.as_str()]));
        assert_eq!(found, HashMap::from([(here.as_str(), 100_000)]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_has_read_all_has_all() {
        let missing = send(async |mut client| {
            client.read_exact(&mut vec![0; WHOLE]).await.unwrap();
        });
        assert_eq!(missing.await, 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_is_reset_while_the_kernel_still_has_some_has_not() {
        let missing = send(async |client| {
            let socket = socket2::SockRef::from(&client);
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            // The window is full by then.
            tokio::time::sleep(Duration::from_millis(200)).await;
        });
        assert!(missing.await > 0);
    }
}
