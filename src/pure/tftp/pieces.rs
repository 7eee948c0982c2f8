//! The pieces of large files that transfers send from, without a file or a clock: which are in memory, which
//! is read next, and which is evicted for it.
//!
//! A transfer gets the piece that its next window is in, for as long as that window takes to go out. Machines
//! that fetch the same file at the same time find the pieces that the first of them had read. A piece that
//! no transfer will need again is evicted at once; if the budget is used up, the one whose next transfer is
//! farthest behind it. So memory depends neither on the size of files nor on the number of transfers.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::options::{MAX_BLKSIZE, MAX_WINDOWSIZE};

/// Where pieces begin, in bytes: at multiples of this.
pub(crate) const STRIDE: u64 = 128 << 10;
/// By how much a piece overlaps the next one: a window that begins in a piece is in it to its end.
const OVERLAP: u64 = MAX_WINDOWSIZE * MAX_BLKSIZE;
/// The most bytes of a piece.
#[cfg(test)]
pub(crate) const PIECE: u64 = STRIDE + OVERLAP;
/// How many pieces are read ahead of a transfer.
const AHEAD: u64 = 2;
/// How many pieces are read at once of a file, and of all files: each takes a thread until the disk answers.
const READS_OF_A_FILE: usize = 4;
const READS: usize = 64;

/// A part of a file's content, or all of it. Its memory counts until the last copy is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    start: u64,
}

#[derive(Clone, Debug)]
enum Bytes {
    Whole(Arc<Vec<u8>>),
    Part(Arc<Memory>),
}

impl Piece {
    pub(crate) fn whole(bytes: &Arc<Vec<u8>>) -> Self {
        Self { bytes: Bytes::Whole(Arc::clone(bytes)), start: 0 }
    }

    /// The bytes from one offset of the file to another, both within the piece.
    pub(crate) fn bytes(&self, extent: Range<u64>) -> &[u8] {
        let bytes = match &self.bytes {
            Bytes::Whole(bytes) => bytes,
            Bytes::Part(memory) => &memory.bytes,
        };
        &bytes[(extent.start - self.start) as usize..(extent.end - self.start) as usize]
    }
}

/// Memory that the budget has given.
#[derive(Debug)]
struct Memory {
    bytes: Vec<u8>,
    size: u64,
    taken: Arc<AtomicU64>,
}

impl Memory {
    fn new(size: u64, taken: &Arc<AtomicU64>) -> Self {
        taken.fetch_add(size, Ordering::Relaxed);
        Self { bytes: Vec::new(), size, taken: Arc::clone(taken) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// The transfer that needs a piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    /// Its client.
    pub(crate) peer: SocketAddrV4,
    /// Whether the client is a machine of the config.
    pub(crate) is_known: bool,
    /// Whether it has acknowledged anything: for one that has not, nothing is read ahead.
    pub(crate) is_proven: bool,
}

/// Whose turn it is to have a piece read, the first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Known,
    Stranger,
    Ahead,
}

const TURNS: [Turn; 3] = [Turn::Known, Turn::Stranger, Turn::Ahead];

impl Turn {
    /// How many reads there may be before one of this turn begins: of its file, and of all. Some are left
    /// for machines of the config.
    fn reads(self) -> (usize, usize) {
        match self {
            Self::Known => (READS_OF_A_FILE, READS),
            Self::Stranger | Self::Ahead => (READS_OF_A_FILE - 1, READS - READS / 4),
        }
    }
}

/// A piece to be read.
#[derive(Debug)]
pub(crate) struct Job<F> {
    file: Arc<F>,
    index: u64,
    part: Range<u64>,
    memory: Memory,
}

impl<F> Job<F> {
    /// Reads it by `read`, which fills an empty buffer with this part of the file.
    pub(crate) fn run(
        mut self,
        read: impl FnOnce(&F, Range<u64>, &mut Vec<u8>) -> Result<(), String>,
    ) -> Done<F> {
        let result = read(&self.file, self.part.clone(), &mut self.memory.bytes);
        Done { job: self, result }
    }
}

/// A piece that was read, or could not be.
#[derive(Debug)]
pub(crate) struct Done<F> {
    job: Job<F>,
    result: Result<(), String>,
}

#[cfg(test)]
impl<F> Done<F> {
    pub(crate) fn file(&self) -> &F {
        &self.job.file
    }
}

/// All pieces of all files that transfers are reading.
#[derive(Debug)]
pub(crate) struct Pieces<F> {
    /// In bytes, of all pieces together.
    budget: u64,
    /// How much of it is in use: by pieces in memory, by those being read, by windows that are going out.
    taken: Arc<AtomicU64>,
    files: BTreeMap<FileId, Open<F>>,
    places: HashMap<SocketAddrV4, Place>,
    /// How many pieces are being read.
    reading: usize,
    /// Counts the uses of pieces.
    uses: u64,
}

/// The address of a file that is kept while it has an entry.
type FileId = usize;

/// Where a transfer is.
#[derive(Debug)]
struct Place {
    file: FileId,
    /// The piece that it sends from.
    index: u64,
    is_waiting: bool,
}

#[derive(Debug)]
struct Open<F> {
    file: Arc<F>,
    len: u64,
    slots: BTreeMap<u64, Slot>,
    /// How many transfers are at each piece.
    positions: BTreeMap<u64, usize>,
    /// What is to be read, by turn.
    queues: [VecDeque<u64>; TURNS.len()],
    reading: usize,
}

#[derive(Debug)]
enum Slot {
    Queued { turn: Turn, waiting: Vec<SocketAddrV4> },
    Reading { waiting: Vec<SocketAddrV4> },
    Cached { memory: Arc<Memory>, used: u64 },
}

impl<F> Pieces<F> {
    /// None yet, and never more than `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            taken: Arc::default(),
            files: BTreeMap::new(),
            places: HashMap::new(),
            reading: 0,
            uses: 0,
        }
    }

    /// The piece that holds this extent of a file of `len` bytes, at most a window. If it is not in memory, it
    /// will be read, and [`Self::finish`] returns the transfer's client.
    pub(crate) fn get(
        &mut self,
        (file, len): (&Arc<F>, u64),
        extent: &Range<u64>,
        Reader { peer, is_known, is_proven }: Reader,
    ) -> Option<Piece> {
        debug_assert!(extent.end - extent.start <= OVERLAP, "{extent:?} is more than a window");
        // The last block may be empty, and begin where the file ends.
        let index = extent.start.min(len.saturating_sub(1)) / STRIDE;
        let id = self.enter((file, len), peer, index);
        let (Some(open), Some(place)) = (self.files.get_mut(&id), self.places.get_mut(&peer))
        else {
            return None;
        };
        if is_proven {
            open.read_ahead(index);
        }
        let turn = if is_known { Turn::Known } else { Turn::Stranger };
        match open.slots.get_mut(&index) {
            Some(Slot::Cached { memory, used }) => {
                self.uses += 1;
                *used = self.uses;
                let bytes = Bytes::Part(Arc::clone(memory));
                return Some(Piece { bytes, start: index * STRIDE });
            }
            Some(Slot::Reading { waiting }) => place.wait(peer, waiting),
            Some(Slot::Queued { turn: queued, waiting }) => {
                place.wait(peer, waiting);
                if turn < *queued {
                    *queued = turn;
                    open.queues[turn as usize].push_back(index);
                }
            }
            None => {
                let mut waiting = Vec::new();
                place.wait(peer, &mut waiting);
                open.slots.insert(index, Slot::Queued { turn, waiting });
                open.queues[turn as usize].push_back(index);
            }
        }
        None
    }

    /// The transfer to this client has ended.
    pub(crate) fn leave(&mut self, peer: SocketAddrV4) {
        if let Some(Place { file, index, .. }) = self.places.remove(&peer)
            && let Some(open) = self.files.get_mut(&file)
        {
            open.leave(index);
            open.evict_passed();
            self.close(file);
        }
    }

    /// The next piece to read, if one is wanted and there is room for it.
    pub(crate) fn next_read(&mut self) -> Option<Job<F>> {
        for turn in TURNS {
            let (of_a_file, of_all) = turn.reads();
            for id in self.files.keys().copied().collect::<Vec<_>>() {
                while self.reading < of_all
                    && let Some(open) = self.files.get_mut(&id)
                    && open.reading < of_a_file
                    && let Some(index) = open.queued(turn)
                {
                    let part = open.part(index);
                    let size = part.end - part.start;
                    if self.make_room(size, (id, index), turn) {
                        return self.start((id, index), part);
                    }
                    match (turn, self.files.get_mut(&id)) {
                        // Whatever is not read ahead is read once it is needed.
                        (Turn::Ahead, Some(open)) => drop(open.slots.remove(&index)),
                        (Turn::Known | Turn::Stranger, Some(open)) => {
                            open.queues[turn as usize].push_front(index);
                            return None;
                        }
                        (_, None) => {}
                    }
                }
            }
        }
        None
    }

    /// Takes a piece that was read: the clients whose transfers waited for it, and why they cannot continue,
    /// if it could not be read.
    pub(crate) fn finish(&mut self, done: Done<F>) -> (Vec<SocketAddrV4>, Result<(), String>) {
        let Done { job: Job { file, index, memory, .. }, result } = done;
        self.reading -= 1;
        let id = Arc::as_ptr(&file).addr();
        let mut waited = Vec::new();
        if let Some(open) = self.files.get_mut(&id) {
            open.reading -= 1;
            if let Some(Slot::Reading { waiting }) = open.slots.remove(&index) {
                waited = waiting;
            }
            if result.is_ok() {
                self.uses += 1;
                let cached = Slot::Cached { memory: Arc::new(memory), used: self.uses };
                open.slots.insert(index, cached);
                open.evict_passed();
            }
            self.close(id);
        }
        for peer in &waited {
            if let Some(place) = self.places.get_mut(peer) {
                place.is_waiting = false;
            }
        }
        (waited, result)
    }

    /// Has a transfer's place be this one.
    fn enter(&mut self, (file, len): (&Arc<F>, u64), peer: SocketAddrV4, index: u64) -> FileId {
        let id = Arc::as_ptr(file).addr();
        let before = self.places.get(&peer).map(|place| (place.file, place.index));
        if before == Some((id, index)) {
            return id;
        }
        let open = self.files.entry(id).or_insert_with(|| Open::new(file, len));
        *open.positions.entry(index).or_default() += 1;
        self.leave(peer);
        self.places.insert(peer, Place { file: id, index, is_waiting: false });
        id
    }

    fn start(&mut self, (id, index): (FileId, u64), part: Range<u64>) -> Option<Job<F>> {
        let open = self.files.get_mut(&id)?;
        let waiting = match open.slots.remove(&index) {
            Some(Slot::Queued { waiting, .. } | Slot::Reading { waiting }) => waiting,
            Some(Slot::Cached { .. }) | None => Vec::new(),
        };
        open.slots.insert(index, Slot::Reading { waiting });
        open.reading += 1;
        self.reading += 1;
        let memory = Memory::new(part.end - part.start, &self.taken);
        Some(Job { file: Arc::clone(&open.file), index, part, memory })
    }

    /// Evicts pieces until there is room for one of `size` bytes; whether there is. To read ahead evicts only
    /// what is needed later than that.
    fn make_room(&mut self, size: u64, (id, index): (FileId, u64), turn: Turn) -> bool {
        let distance = self.files.get(&id).map_or(u64::MAX, |open| open.distance(index));
        while self.taken.load(Ordering::Relaxed) + size > self.budget {
            let cached = self.files.iter().flat_map(|(id, open)| {
                open.slots.iter().filter_map(|(index, slot)| match slot {
                    // A window from it is going out: to evict it frees nothing yet.
                    Slot::Cached { memory, .. } if Arc::strong_count(memory) > 1 => None,
                    Slot::Cached { used, .. } => Some((open.distance(*index), *used, *id, *index)),
                    Slot::Queued { .. } | Slot::Reading { .. } => None,
                })
            });
            let farthest = cached.max_by_key(|(distance, used, ..)| (*distance, u64::MAX - used));
            let Some((farthest, _, id, index)) = farthest else {
                return false;
            };
            if turn == Turn::Ahead && farthest <= distance {
                return false;
            }
            if let Some(open) = self.files.get_mut(&id) {
                open.slots.remove(&index);
            }
        }
        true
    }

    /// Forgets a file that no transfer reads. One that is still being read stays: one that hangs has a few
    /// threads waiting for it, and not as many again for each client.
    fn close(&mut self, id: FileId) {
        let is_unused = |open: &Open<F>| open.positions.is_empty() && open.reading == 0;
        if self.files.get(&id).is_some_and(is_unused) {
            self.files.remove(&id);
        }
    }

    /// How many bytes of the budget are in use.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Place {
    fn wait(&mut self, peer: SocketAddrV4, waiting: &mut Vec<SocketAddrV4>) {
        if !mem::replace(&mut self.is_waiting, true) {
            waiting.push(peer);
        }
    }
}

impl<F> Open<F> {
    fn new(file: &Arc<F>, len: u64) -> Self {
        Self {
            file: Arc::clone(file),
            len,
            slots: BTreeMap::new(),
            positions: BTreeMap::new(),
            queues: Default::default(),
            reading: 0,
        }
    }

    fn part(&self, index: u64) -> Range<u64> {
        let start = index * STRIDE;
        start..(start + STRIDE + OVERLAP).min(self.len)
    }

    fn read_ahead(&mut self, index: u64) {
        for index in (index + 1..=index + AHEAD).take_while(|index| index * STRIDE < self.len) {
            self.slots.entry(index).or_insert_with(|| {
                self.queues[Turn::Ahead as usize].push_back(index);
                Slot::Queued { turn: Turn::Ahead, waiting: Vec::new() }
            });
        }
    }

    /// The next piece that is to be read in this turn.
    fn queued(&mut self, turn: Turn) -> Option<u64> {
        while let Some(index) = self.queues[turn as usize].pop_front() {
            let slot = self.slots.get(&index);
            if matches!(slot, Some(Slot::Queued { turn: queued, .. }) if *queued == turn) {
                return Some(index);
            }
        }
        None
    }

    /// How many pieces the next transfer that comes to this one is behind it.
    fn distance(&self, index: u64) -> u64 {
        let behind = self.positions.range(..=index).next_back();
        behind.map_or(u64::MAX, |(position, _)| index - position)
    }

    fn leave(&mut self, index: u64) {
        if let Some(count) = self.positions.get_mut(&index) {
            *count -= 1;
            if *count == 0 {
                self.positions.remove(&index);
            }
        }
    }

    /// Evicts the pieces that every transfer has passed.
    fn evict_passed(&mut self) {
        let first = self.positions.first_key_value().map_or(u64::MAX, |(index, _)| *index);
        let is_needed = |index: u64, slot: &Slot| match slot {
            Slot::Reading { .. } => true,
            Slot::Queued { .. } | Slot::Cached { .. } => index >= first,
        };
        if self.slots.first_key_value().is_some_and(|(index, _)| *index < first) {
            self.slots.retain(|index, slot| is_needed(*index, slot));
        }
        if self.positions.is_empty() {
            self.queues = Default::default();
        }
    }
}
