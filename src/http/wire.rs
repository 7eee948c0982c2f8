//! Whether what was sent has come to the client.
//!
//! The kernel takes megabytes of a body before the client has any of them: a machine that is reset at the end of
//! its download would be taken for one that has all of it. What is unacknowledged stands in the kernel's table of
//! connections (`tx_queue` of `/proc/net/tcp`, proc(5)); one look at it serves all that wait.
//!
//! The very last bytes are never acknowledged by an iPXE that starts its kernel at once, and leaves the connection
//! as it is (9 to 20 KiB with Debian 12's, BIOS and UEFI); UEFI HTTP Boot resets it (42 KiB). So not all needs to be.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// How often the table is looked at while somebody waits.
const LOOK: Duration = Duration::from_millis(10);

/// So much less than all is all.
const SLACK: u64 = 256 << 10;

/// Called once with the number of bytes that have not come to the client.
type Arrived = Box<dyn FnOnce(u64) + Send>;

/// The handlers' side of a connection.
#[derive(Clone)]
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    ends: (SocketAddr, SocketAddr),
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
}

impl Line {
    /// Takes over an accepted connection.
    pub(super) fn new(stream: TcpStream, looks: Looks) -> io::Result<Self> {
        let ends = (stream.local_addr()?, stream.peer_addr()?);
        let wire = Wire(Arc::new(Shared { ends, inner: Mutex::default(), looks }));
        Ok(Self { stream, wire })
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

/// The one who looks.
#[derive(Clone)]
pub(super) struct Looks(UnboundedSender<Waiting>);

impl Looks {
    /// Begins to look, as long as there is somebody to look for.
    pub(super) fn start() -> Self {
        let (sender, waiting) = unbounded_channel();
        tokio::spawn(look(waiting));
        Self(sender)
    }

    fn wait(&self, waiting: Waiting) {
        // It looks as long as there is a connection.
        if let Err(unheard) = self.0.send(waiting) {
            (unheard.0.arrived)(0);
        }
    }
}

async fn look(mut new: UnboundedReceiver<Waiting>) {
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut is_told = false;
    while !waiting.is_empty() || !new.is_closed() || !new.is_empty() {
        if waiting.is_empty() {
            match new.recv().await {
                Some(first) => waiting.push(first),
                None => return,
            }
        }
        tokio::time::sleep(LOOK).await;
        waiting.extend(std::iter::from_fn(|| new.try_recv().ok()));
        // First: what is written meanwhile makes it seem that less was acknowledged, and not more.
        let written: Vec<u64> = waiting.iter().map(|one| one.wire.inner().written).collect();
        let table = match tokio::task::spawn_blocking(table).await {
            Ok(Ok(table)) => Some(table),
            Ok(Err(error)) => {
                if !std::mem::replace(&mut is_told, true) {
                    warn!(
                        "http: cannot look whether files have come to their clients: {error}; what was sent counts"
                    );
                }
                None
            }
            Err(_) => None,
        };
        let all = std::mem::take(&mut waiting);
        let looked = all.into_iter().zip(written);
        waiting.extend(looked.filter_map(|(one, written)| one.look(table.as_ref(), written)));
    }
}

/// What is not acknowledged on each connection.
type Table = HashMap<(SocketAddr, SocketAddr), u32>;

fn table() -> procfs::ProcResult<Table> {
    let all = procfs::net::tcp()?.into_iter();
    Ok(all.map(|one| ((one.local_address, one.remote_address), one.tx_queue)).collect())
}

impl Waiting {
    /// Calls what waits, if it is known what became of it; else it waits on.
    fn look(mut self, table: Option<&Table>, written: u64) -> Option<Self> {
        let Some(table) = table else {
            (self.arrived)(0);
            return None;
        };
        let Some(unacknowledged) = table.get(&self.wire.0.ends) else {
            // It is over: in order, which takes that all was acknowledged, or not.
            let is_closed = self.wire.inner().is_closed;
            (self.arrived)(if is_closed { 0 } else { self.missing });
            return None;
        };
        let acknowledged = written.saturating_sub(u64::from(*unacknowledged));
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
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const WHOLE: usize = 4 << 20;

    /// Sends so much to a client that does with its connection what it is told; what has not arrived.
    async fn send<F: Future<Output = ()>>(client: impl FnOnce(TcpStream) -> F) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut line = Line::new(stream, Looks::start()).unwrap();
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
