//! A file as a response's body, in pieces that fit its client.
//!
//! A quick client is sent large pieces, which cost the least; one that is slow, or has stopped reading, holds
//! a small one. All pieces together stay within a budget, so that memory depends neither on the size of a
//! file nor on how many fetch it.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body::{Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;

/// What all pieces may take together, in bytes.
const BUDGET: usize = 32 << 20;
/// A piece where that is used up: of each connection there is one, and there are 4096 at most.
const LEAST: usize = 8 << 10;
/// The first piece.
const FIRST: usize = 32 << 10;
/// The largest piece: with twice as much a core sends a tenth more.
const MOST: usize = 1 << 19;
/// A piece is at most this part of what was sent: what the kernel and the client's own buffers take says
/// nothing of how quick it is.
const SHARE: u64 = 32;
/// A client that takes a piece within this time is quick.
const QUICK: Duration = Duration::from_millis(20);
/// One that takes longer is slow.
const SLOW: Duration = Duration::from_millis(100);
/// How much is kept for the next pieces, in bytes; as much as the pieces take, where that is more.
const KEPT: usize = 8 * MOST;

/// The pieces that are on their way.
#[derive(Clone, Debug, Default)]
pub struct Pieces(Arc<Mutex<Shared>>);

/// Who is done with a piece leaves its memory for the next of its size: to have new memory for each costs a tenth
/// of the pace, and more memory, as one thread gives back to the allocator what another one has taken.
#[derive(Debug, Default)]
struct Shared {
    /// What the pieces take, in bytes.
    taken: usize,
    /// What is kept, in bytes: with the pieces it is within the budget.
    kept: usize,
    /// By size.
    spare: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Pieces {
    /// Room for a piece of about this size.
    fn take(&self, wanted: usize) -> Piece {
        let bytes = self.shared().take(wanted);
        let bytes = bytes.unwrap_or_else(|size| vec![0; size]);
        Piece { bytes, filled: 0, pieces: self.clone() }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Memory for a piece of about this size; or else the size that there is room for.
    fn take(&mut self, wanted: usize) -> Result<Vec<u8>, usize> {
        let mut size = wanted;
        while self.taken + size > BUDGET && size > LEAST {
            size = (size / 2).max(LEAST);
        }
        self.taken += size;
        if let Some(bytes) = self.spare.get_mut(&size).and_then(Vec::pop) {
            self.kept -= size;
            return Ok(bytes);
        }
        drop(self.keep_at_most(BUDGET.saturating_sub(self.taken)));
        Err(size)
    }

    fn give_back(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let size = bytes.len();
        self.taken -= size;
        self.kept += size;
        self.spare.entry(size).or_default().push(bytes);
        let room = BUDGET.saturating_sub(self.taken);
        self.keep_at_most(room.min(self.taken.max(KEPT)))
    }

    /// The largest go first.
    fn keep_at_most(&mut self, most: usize) -> Vec<Vec<u8>> {
        let mut gone = Vec::new();
        while self.kept > most
            && let Some(mut largest) = self.spare.last_entry()
        {
            match largest.get_mut().pop() {
                Some(bytes) => {
                    self.kept -= bytes.len();
                    gone.push(bytes);
                }
                None => drop(largest.remove()),
            }
        }
        gone
    }
}

/// A piece of a file.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    filled: usize,
    pieces: Pieces,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // Nobody waits meanwhile for what goes.
        let gone = self.pieces.shared().give_back(bytes);
        drop(gone);
    }
}

impl Piece {
    /// Reads into it what is in memory already: `WouldBlock` where that is nothing.
    fn fill_at_once(&mut self, file: &File, (at, most): (u64, usize)) -> io::Result<()> {
        let room = self.bytes.len().min(most);
        let mut into = [IoSliceMut::new(&mut self.bytes[..room])];
        self.filled = preadv2(file, &mut into, at, ReadWriteFlags::NOWAIT)?;
        Ok(())
    }

    /// Reads into it, however long the disk takes.
    fn fill(mut self, file: &File, (at, most): (u64, usize)) -> io::Result<Self> {
        let room = self.bytes.len().min(most);
        self.filled = loop {
            match file.read_at(&mut self.bytes[..room], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(self)
    }
}

/// A part of a file, as a body. It ends early where the file does.
#[derive(Debug)]
pub(super) struct FileBody {
    file: Arc<File>,
    at: u64,
    left: u64,
    sent: u64,
    size: usize,
    handed: Option<Instant>,
    reading: Option<JoinHandle<io::Result<Piece>>>,
    pieces: Pieces,
}

impl FileBody {
    /// So many bytes of the file, from the one at `at`.
    pub(super) fn new(file: File, (at, len): (u64, u64), pieces: Pieces) -> Self {
        let file = Arc::new(file);
        let (sent, size, handed, reading) = (0, FIRST, None, None);
        Self { file, at, left: len, sent, size, handed, reading, pieces }
    }

    /// How large the next piece is, from how quickly the last one was taken.
    fn fit(&mut self) {
        let Some(took) = self.handed.map(|handed| handed.elapsed()) else {
            return;
        };
        if took < QUICK {
            let most = usize::try_from(self.sent / SHARE).unwrap_or(MOST).clamp(FIRST, MOST);
            self.size = (self.size * 2).min(1 << most.ilog2());
        } else if took > SLOW {
            self.size = (self.size / 2).max(FIRST);
        }
    }

    fn hand(&mut self, piece: Piece) -> Option<Result<Frame<Bytes>, io::Error>> {
        let len = piece.filled as u64;
        if len == 0 {
            // The file has become shorter.
            self.left = 0;
            return None;
        }
        self.at += len;
        self.left -= len;
        self.sent += len;
        self.handed = Some(Instant::now());
        Some(Ok(Frame::data(Bytes::from_owner(piece))))
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            self.fit();
            let mut piece = self.pieces.take(self.size);
            let place = (self.at, usize::try_from(self.left).unwrap_or(usize::MAX));
            match piece.fill_at_once(&self.file, place) {
                Ok(()) => return Poll::Ready(self.hand(piece)),
                // Nothing of it is in memory, or this file system cannot tell.
                Err(error) if waits(&error) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let file = Arc::clone(&self.file);
            self.reading = Some(tokio::task::spawn_blocking(move || piece.fill(&file, place)));
        }
        let Some(reading) = &mut self.reading else {
            return Poll::Pending;
        };
        let Poll::Ready(read) = Pin::new(reading).poll(context) else {
            return Poll::Pending;
        };
        self.reading = None;
        match read {
            Ok(Ok(piece)) => Poll::Ready(self.hand(piece)),
            Ok(Err(error)) => Poll::Ready(Some(Err(error))),
            Err(error) => Poll::Ready(Some(Err(io::Error::other(error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Whether a reading that does not wait is no way to read this now.
fn waits(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        code,
        Some(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::INTR)
    )
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use super::*;

    /// The pieces of a body, each given up at once.
    async fn pieces(body: &mut FileBody, each: impl AsyncFn()) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let next = poll_fn(|context| http_body::Body::poll_frame(Pin::new(body), context));
            match next.await {
                Some(frame) => all.push(frame.unwrap().into_data().unwrap().to_vec()),
                None => return all,
            }
            each().await;
        }
    }

    fn file(len: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|at| (at / 251 + at) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    #[tokio::test]
    async fn a_quick_client_has_the_whole_in_pieces_that_grow_and_a_slow_one_in_small_ones() {
        let (file, content) = file(70 << 20);
        let len = content.len() as u64;
        let shared = Pieces::default();
        let mut body = FileBody::new(file.try_clone().unwrap(), (0, len), shared.clone());
        let all = pieces(&mut body, async || {}).await;
        assert!(all.concat() == content);
        assert_eq!((all[0].len(), all.iter().map(Vec::len).max()), (FIRST, Some(MOST)));
        assert_eq!(shared.shared().taken, 0, "all of it is given back");

        let mut body = FileBody::new(file, (3, 300_000), shared);
        let slow = async || tokio::time::sleep(SLOW + Duration::from_millis(5)).await;
        let all = pieces(&mut body, slow).await;
        assert!(all.concat() == content[3..300_003]);
        assert!(all.iter().all(|piece| piece.len() <= FIRST));
    }

    #[tokio::test]
    async fn what_many_hold_stays_within_the_budget() {
        let shared = Pieces::default();
        let large: Vec<Piece> = (0..200).map(|_| shared.take(MOST)).collect();
        let held: usize = large.iter().map(|piece| piece.bytes.len()).sum();
        assert!(held <= BUDGET + 200 * LEAST, "{held}");
        assert_eq!(large[199].bytes.len(), LEAST);
        drop(large);
        assert!((1..=KEPT).contains(&shared.shared().kept), "{}", shared.shared().kept);
        // What is kept of one size makes room for another.
        let small: Vec<Piece> = (0..900).map(|_| shared.take(FIRST)).collect();
        let held = |shared: &Pieces| {
            let Shared { taken, kept, .. } = &*shared.shared();
            taken + kept
        };
        assert!(held(&shared) <= BUDGET, "{}", held(&shared));
        let largest = shared.take(MOST);
        assert_eq!(largest.bytes.len(), MOST);
        drop(small);
        assert!((1..=KEPT).contains(&shared.shared().kept), "one is on its way");
        assert!(held(&shared) <= BUDGET, "{}", held(&shared));
        drop(largest);
        assert!(shared.shared().kept <= KEPT);
        let Shared { kept, spare, .. } = &*shared.shared();
        assert_eq!(*kept, spare.values().flatten().map(Vec::len).sum::<usize>());
    }

    #[tokio::test]
    async fn a_file_that_has_become_shorter_ends_early() {
        let (file, content) = file(200_000);
        let mut body = FileBody::new(file.try_clone().unwrap(), (0, 200_000), Pieces::default());
        file.set_len(100_000).unwrap();
        let all = pieces(&mut body, async || {}).await;
        assert!(all.concat() == content[..100_000]);
        let mut none = FileBody::new(file, (0, 0), Pieces::default());
        assert!(pieces(&mut none, async || {}).await.is_empty());
    }
}
