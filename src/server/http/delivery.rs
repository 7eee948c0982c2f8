//! Whether the client has received what was sent.
//!
//! The kernel accepts up to a megabyte of a body before the client has any of it: a machine that is reset at the
//! end of its download would count as one that has the whole file. The kernel counts how many bytes the client has
//! acknowledged (`tcpi_bytes_acked` of `TCP_INFO`, tcp(7)), and keeps the count after the end of the connection for
//! as long as the socket is open. So a download is judged by its socket, and the socket stays open until then:
//! whether the client or the daemon closes first, and how, makes no difference.
//!
//! An iPXE that starts its kernel at once leaves the connection as it is, and never acknowledges the last bytes
//! (9 to 20 KiB with Debian 12's, BIOS and UEFI). So a client that has acknowledged all but [`SLACK`] has the file.
//!
//! A client's kernel also acknowledges what its program has not read yet. If that program then ends, the file counts
//! as received: a reset that follows the last acknowledgement proves nothing, because UEFI's HTTP driver ends finished
//! downloads with one.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::tcp_info::Acknowledged;
use super::connections::Place;

mod tcp_info;

/// Interval between the first two polls of a socket. The kernel reports no acknowledgement by itself.
const FIRST_INTERVAL: Duration = Duration::from_millis(20);
/// The longest interval: each is twice the one before.
const LONGEST_INTERVAL: Duration = Duration::from_millis(320);

/// How much of a response a client may leave unacknowledged and still has the whole file, in bytes.
pub(super) const SLACK: u64 = 256 << 10;

/// Called once with the number of bytes that the client has not received.
type Arrived = Box<dyn FnOnce(u64) + Send>;

/// The handlers' side of a connection.
#[derive(Clone)]
pub(super) struct Wire(Arc<Shared>);

struct Shared {
    stream: TcpStream,
    inner: Mutex<Inner>,
    /// There are new deliveries.
    flushed: Notify,
}

#[derive(Default)]
struct Inner {
    /// Called when the kernel has the whole response, and the client has received it.
    unflushed: Vec<Arrived>,
    deliveries: Vec<Delivery>,
    /// Bytes that the kernel has taken.
    written: u64,
}

/// A response that the kernel has, and the client perhaps not yet.
struct Delivery {
    arrived: Arrived,
    /// How many bytes were written to the connection by the end of it.
    upto: u64,
}

impl Wire {
    /// Calls `arrived` once everything that was taken from the response so far has come to the client, or cannot
    /// any more.
    pub(super) fn when_arrived(&self, arrived: impl FnOnce(u64) + Send + 'static) {
        self.0.inner().unflushed.push(Box::new(arrived));
    }

    /// Polls the socket while deliveries are pending, for ever.
    pub(super) async fn watch(&self) -> Infallible {
        loop {
            self.0.flushed.notified().await;
            self.settle().await;
        }
    }

    /// Sends the FIN behind what was written, and waits at most this long until every delivery is decided. The
    /// rest is decided when the socket is closed.
    pub(super) async fn close(&self, limit: Duration) {
        // An error means that the connection is over.
        SockRef::from(&self.0.stream).shutdown(Shutdown::Write).ok();
        timeout(limit, self.settle()).await.ok();
    }

    /// Polls the socket until every delivery is decided.
    async fn settle(&self) {
        let mut interval = FIRST_INTERVAL;
        while self.0.decide() {
            sleep(interval).await;
            interval = LONGEST_INTERVAL.min(interval * 2);
        }
    }
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls back for each delivery that is decided; whether any is pending.
    fn decide(&self) -> bool {
        if self.inner().deliveries.is_empty() {
            return false;
        }
        let Acknowledged { bytes, is_over } = Acknowledged::on(&self.stream);
        let mut inner = self.inner();
        let all = std::mem::take(&mut inner.deliveries);
        let (decided, pending): (Vec<_>, _) =
            all.into_iter().partition(|delivery| is_over || delivery.missing(bytes) == 0);
        inner.deliveries = pending;
        let is_pending = !inner.deliveries.is_empty();
        drop(inner);
        for delivery in decided {
            let missing = delivery.missing(bytes);
            (delivery.arrived)(missing);
        }
        is_pending
    }
}

impl Drop for Shared {
    // Nothing holds the socket any more: what the client has acknowledged by now is all that will be known.
    fn drop(&mut self) {
        let Inner { unflushed, deliveries, written } = std::mem::take(&mut *self.inner());
        if unflushed.is_empty() && deliveries.is_empty() {
            return;
        }
        let acknowledged = Acknowledged::on(&self.stream).bytes;
        for delivery in deliveries {
            let missing = delivery.missing(acknowledged);
            (delivery.arrived)(missing);
        }
        // Some of it was never written.
        let missing = written.saturating_sub(acknowledged) + 1;
        for arrived in unflushed {
            arrived(missing);
        }
    }
}

impl Delivery {
    /// How many bytes the client has not received, if it has acknowledged so many on this connection.
    fn missing(&self, acknowledged: u64) -> u64 {
        let missing = self.upto.saturating_sub(acknowledged);
        if missing <= SLACK { 0 } else { missing }
    }
}

/// The connection itself.
pub(super) struct Line {
    wire: Wire,
    place: Place,
}

impl Line {
    /// Takes over an accepted connection. It is closed once the line and each of its wires are dropped.
    pub(super) fn new(stream: TcpStream, place: Place) -> Self {
        let (inner, flushed) = (Mutex::default(), Notify::new());
        Self { wire: Wire(Arc::new(Shared { stream, inner, flushed })), place }
    }

    /// For its handlers.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    fn poll_write_with(
        &self,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let shared = &self.wire.0;
        loop {
            ready!(shared.stream.poll_write_ready(context))?;
            match write(&shared.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    shared.inner().written += *written.as_ref().unwrap_or(&0) as u64;
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.wire.0.stream;
        loop {
            ready!(stream.poll_read_ready(context))?;
            match stream.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    buffer.advance(*read.as_ref().unwrap_or(&0));
                    return Poll::Ready(read.map(drop));
                }
            }
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(context, |stream| stream.try_write_vectored(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    // hyper asks for it once all that it holds is written.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.wire.0.inner();
        let upto = inner.written;
        let flushed = std::mem::take(&mut inner.unflushed);
        if !flushed.is_empty() {
            inner.deliveries.extend(flushed.into_iter().map(|arrived| Delivery { arrived, upto }));
            self.wire.0.flushed.notify_one();
        }
        drop(inner);
        self.place.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = SockRef::from(&self.wire.0.stream).shutdown(Shutdown::Write);
        match closed {
            // The client has reset it.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            closed => Poll::Ready(closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::sync::oneshot;

    use super::*;
    use crate::server::http::connections::{Admission, Connections};

    const WHOLE: usize = 4 << 20;
    /// Each race is tried so often: the outcome must not depend on who closes first.
    const TIMES: usize = 20;
    /// How long the connection waits for acknowledgements after its end.
    const LIMIT: Duration = Duration::from_secs(10);
    /// How long the kernel waits for them.
    const USER_TIMEOUT: Duration = Duration::from_secs(1);
    /// More than [`SLACK`], and no more than the kernel holds.
    const HELD: usize = 400 << 10;

    /// What the daemon does once the response is flushed.
    #[derive(Clone, Copy, Debug)]
    enum Then {
        /// HTTP/1.0 and `Connection: close`.
        Closes,
        /// The same, but the client is done by then.
        ClosesAfterClient,
        /// Reads the next request, or the end.
        Reads,
    }

    /// Sends [`WHOLE`] to this client; how many bytes have not arrived.
    async fn missing(then: Then, client: impl AsyncFnOnce(TcpStream)) -> u64 {
        missing_within((LIMIT, USER_TIMEOUT), then, client).await
    }

    async fn missing_within(
        (limit, user_timeout): (Duration, Duration),
        then: Then,
        client: impl AsyncFnOnce(TcpStream),
    ) -> u64 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // The daemon's kernel holds what the client does not read, not the client's.
        SockRef::from(&listener).set_send_buffer_size(1 << 20).unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let to = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        SockRef::from(&accepted).set_tcp_user_timeout(Some(user_timeout)).unwrap();
        let Admission::Admitted { place, .. } = Connections::new(1).admit(Ipv4Addr::LOCALHOST)
        else {
            panic!("there is room");
        };
        let mut line = Line::new(accepted, place);
        let wire = line.wire();
        let (sender, arrived) = oneshot::channel();
        wire.when_arrived(move |missing| sender.send(missing).unwrap());
        let (done, client_done) = oneshot::channel();
        let served = async move {
            line.write_all(&vec![7; WHOLE]).await?;
            line.flush().await?;
            match then {
                Then::Closes => {}
                Then::ClosesAfterClient => client_done.await.unwrap(),
                Then::Reads => drop(line.read_to_end(&mut Vec::new()).await?),
            }
            line.shutdown().await
        };
        let connection = tokio::spawn(async move {
            tokio::select! {
                served = served => drop::<io::Result<()>>(served),
                never = wire.watch() => match never {},
            }
            wire.close(limit).await;
        });
        client(to).await;
        done.send(()).ok();
        let missing = timeout(Duration::from_secs(20), arrived).await.unwrap().unwrap();
        connection.await.unwrap();
        missing
    }

    async fn read_all(client: &mut TcpStream) {
        client.read_exact(&mut vec![0; WHOLE]).await.unwrap();
    }

    fn reset(client: TcpStream) {
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_has_read_everything_has_the_file_whoever_closes_first() {
        for then in [Then::Closes, Then::ClosesAfterClient, Then::Reads] {
            for _ in 0..TIMES {
                let closes = missing(then, async |mut client| read_all(&mut client).await).await;
                assert_eq!(closes, 0, "{then:?}");
            }
        }
        for _ in 0..TIMES {
            let waits = missing(Then::Closes, async |mut client| {
                let mut received = Vec::new();
                client.read_to_end(&mut received).await.unwrap();
                assert_eq!(received.len(), WHOLE);
            });
            assert_eq!(waits.await, 0);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_has_half_closed_its_side_has_the_file() {
        for then in [Then::Closes, Then::ClosesAfterClient, Then::Reads] {
            for _ in 0..TIMES {
                let missing = missing(then, async |mut client| {
                    client.shutdown().await.unwrap();
                    read_all(&mut client).await;
                });
                assert_eq!(missing.await, 0, "{then:?}");
            }
        }
    }

    // UEFI's HTTP driver ends each connection so (EDK II, `AbortOnClose`).
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_resets_the_connection_after_the_last_byte_has_the_file() {
        for then in [Then::Closes, Then::ClosesAfterClient, Then::Reads] {
            for _ in 0..TIMES {
                let missing = missing(then, async |mut client| {
                    read_all(&mut client).await;
                    reset(client);
                });
                assert_eq!(missing.await, 0, "{then:?}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_keeps_the_connection_has_the_file() {
        let started = std::time::Instant::now();
        let missing = missing(Then::Closes, async |mut client| {
            read_all(&mut client).await;
            tokio::spawn(async move {
                sleep(LIMIT).await;
                drop(client);
            });
        });
        assert_eq!(missing.await, 0);
        assert!(started.elapsed() < LIMIT);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_closes_or_resets_early_has_not_the_file() {
        for then in [Then::Closes, Then::Reads] {
            for read in [0, WHOLE / 4, WHOLE - HELD] {
                for is_reset in [false, true] {
                    let missing = missing(then, async |mut client| {
                        client.read_exact(&mut vec![0; read]).await.unwrap();
                        // The daemon has written everything that the kernel takes.
                        sleep(Duration::from_millis(50)).await;
                        // The kernel resets it because of unread data.
                        if is_reset { reset(client) } else { drop(client) }
                    });
                    let missing = missing.await;
                    assert!(missing > 0, "{then:?} {read} {is_reset}: {missing}");
                }
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_half_closes_and_then_closes_early_has_not_the_file() {
        let missing = missing(Then::Reads, async |mut client| {
            client.shutdown().await.unwrap();
            client.read_exact(&mut vec![0; WHOLE / 2]).await.unwrap();
        });
        assert!(missing.await > 0);
    }

    // The kernel gives it up: `TCP_USER_TIMEOUT`.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_has_vanished_has_not_the_file() {
        for then in [Then::Closes, Then::Reads] {
            for read in [0, WHOLE - HELD] {
                let (sender, mut held) = oneshot::channel();
                let missing = missing(then, async |mut client| {
                    client.read_exact(&mut vec![0; read]).await.unwrap();
                    sender.send(client).unwrap();
                });
                let missing = missing.await;
                assert!(missing > 0, "{then:?} {read}: {missing}");
                held.try_recv().unwrap();
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_connection_is_held_for_a_bounded_time() {
        let (sender, mut held) = oneshot::channel();
        // The kernel would hold it for longer than this test waits.
        let limits = (Duration::from_millis(100), Duration::from_mins(1));
        let missing = missing_within(limits, Then::Closes, async |mut client| {
            client.read_exact(&mut vec![0; WHOLE - HELD]).await.unwrap();
            sender.send(client).unwrap();
        });
        assert!(missing.await > 0);
        held.try_recv().unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_kernel_counts_acknowledged_bytes_beyond_the_end_of_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(Acknowledged::on(&accepted), Acknowledged { bytes: 0, is_over: false });
        accepted.write_all(&[7; 1000]).await.unwrap();
        client.read_exact(&mut [0; 1000]).await.unwrap();
        assert_eq!(Acknowledged::on(&accepted), Acknowledged { bytes: 1000, is_over: false });
        reset(client);
        assert_eq!(Acknowledged::on(&accepted), Acknowledged { bytes: 1000, is_over: true });
    }
}
