//! How large files are read: what is in memory, for whom first, and what a slow disk does to a transfer.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::sync::Arc;

use super::{Trace, ack, rrq};
use crate::pure::tftp::options::MAX_WINDOWSIZE;
use crate::pure::tftp::pieces::{Done, Job, PIECE, Piece, Pieces, Reader, STRIDE};
use crate::pure::tftp::transfer::{Outcome, extent};

const MIB: u64 = 1 << 20;

/// A file whose bytes tell where they are.
#[derive(Debug, PartialEq, Eq)]
struct File {
    len: u64,
}

impl File {
    fn new(mib: u64) -> Arc<Self> {
        Arc::new(Self { len: mib * MIB })
    }

    /// Numbers of 997 bytes each: no two pieces are alike.
    fn content(part: Range<u64>) -> Vec<u8> {
        let len = usize::try_from(part.end - part.start).unwrap();
        let numbers = part.start / 997..=part.end / 997;
        let bytes: Vec<u8> = numbers.flat_map(|n| [n as u8 ^ (n >> 8) as u8; 997]).collect();
        bytes[usize::try_from(part.start % 997).unwrap()..][..len].to_vec()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    fn read(&self, part: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), String> {
        assert!(part.start < part.end && part.end <= self.len, "{part:?}");
        bytes.extend(Self::content(part));
        Ok(())
    }
}

/// A disk, and transfers that read from it.
struct Disk {
    pieces: Pieces<File>,
    budget: u64,
    reading: VecDeque<Job<File>>,
    /// How many pieces were read.
    reads: usize,
    most: u64,
}

impl Disk {
    fn new(budget: u64) -> Self {
        let pieces = Pieces::new(budget);
        Self { pieces, budget, reading: VecDeque::new(), reads: 0, most: 0 }
    }

    /// Begins the reads that there is room for.
    fn begin(&mut self) {
        while let Some(job) = self.pieces.next_read() {
            self.reading.push_back(job);
        }
        self.most = self.most.max(self.pieces.taken());
        assert!(self.most <= self.budget, "{} of {}", self.most, self.budget);
    }

    /// The first of them is over; the clients that waited for it.
    fn finish_one(&mut self) -> Option<Vec<SocketAddrV4>> {
        let done = self.reading.pop_front()?.run(File::read);
        self.reads += 1;
        let (waited, result) = self.pieces.finish(done);
        result.unwrap();
        Some(waited)
    }

    fn get(&mut self, file: &Arc<File>, extent: &Range<u64>, reader: Reader) -> Option<Piece> {
        let piece = self.pieces.get((file, file.len), extent, reader)?;
        assert_eq!(piece.bytes(extent.clone()), File::content(extent.clone()), "{extent:?}");
        Some(piece)
    }
}

fn peer(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), number)
}

fn known(number: u16) -> Reader {
    Reader { peer: peer(number), is_known: true, is_proven: true }
}

fn stranger(number: u16) -> Reader {
    Reader { is_known: false, ..known(number) }
}

/// A client that fetches a file in windows.
struct Client {
    file: Arc<File>,
    reader: Reader,
    blksize: u64,
    window: u64,
    /// The next block.
    next: u64,
}

impl Client {
    fn new(file: &Arc<File>, reader: Reader, (blksize, window): (u64, u64)) -> Self {
        Self { file: Arc::clone(file), reader, blksize, window, next: 1 }
    }

    /// Fetches a window, if its piece is in memory; whether there is more to fetch.
    fn go_on(&mut self, disk: &mut Disk) -> bool {
        let last = self.file.len / self.blksize + 1;
        let until = (self.next + self.window - 1).min(last);
        let end = extent(until, self.blksize, self.file.len).end;
        let window = extent(self.next, self.blksize, self.file.len).start..end;
        if disk.get(&self.file, &window, self.reader).is_some() {
            self.next = until + 1;
        }
        if self.next > last {
            disk.pieces.leave(self.reader.peer);
        }
        self.next <= last
    }
}

/// Runs all to their ends. Whoever is told that a piece has come goes on, and the others in turn.
fn fetch_all(disk: &mut Disk, mut clients: Vec<Client>) {
    let mut rounds = 0;
    while !clients.is_empty() {
        clients.retain_mut(|client| client.go_on(disk));
        disk.begin();
        if rounds % 3 == 0 {
            disk.finish_one();
        }
        rounds += 1;
        assert!(rounds < 10_000_000, "there is no end");
    }
    while disk.finish_one().is_some() {}
    assert_eq!(disk.pieces.taken(), 0, "what nobody reads takes no memory");
}

/// Whatever the block size, a window lies within one piece, and the last block may be empty.
#[test]
fn every_window_of_a_large_file_is_sent_from_one_piece() {
    for (blksize, window) in [(512, 1), (1468, 16), (1432, 5), (512, 16), (1024, 1), (8, 16)] {
        let mib = if blksize == 8 { 1 } else { 3 };
        let mut disk = Disk::new(64 * MIB);
        let file = File::new(mib);
        fetch_all(&mut disk, vec![Client::new(&file, known(1), (blksize, window))]);
        assert_eq!(disk.reads as u64, mib * MIB / STRIDE, "{blksize}, {window}");
        assert!(disk.most <= 5 * PIECE, "one client takes {} bytes", disk.most);
    }
}

/// A rack that is switched on at once.
#[test]
fn sixteen_machines_that_fetch_one_file_share_its_pieces() {
    let file = File::new(10);
    let mut disk = Disk::new(8 * MIB);
    let clients = (0..16).map(|n| Client::new(&file, known(n), (1408, 8 + u64::from(n) % 2 * 8)));
    fetch_all(&mut disk, clients.collect());
    // The slower half is 5 MiB behind in the end, which fits.
    assert_eq!(disk.reads as u64, 10 * MIB / STRIDE);
}

/// More transfers at more places than the budget has pieces.
#[test]
fn transfers_of_many_files_end_within_a_small_budget() {
    for pieces in [1, 4] {
        let mut disk = Disk::new(pieces * PIECE);
        let clients = (0..10).map(|n| {
            let file = File::new(1);
            let reader = if n % 2 == 0 { known(n) } else { stranger(n) };
            Client::new(&file, reader, (1468, 16))
        });
        fetch_all(&mut disk, clients.collect());
    }
}

/// A client that acknowledges slowly, or never again, keeps nobody from anything.
#[test]
fn slow_clients_at_many_places_take_no_memory_from_others() {
    let file = File::new(4);
    let mut disk = Disk::new(10 * PIECE);
    for n in 0..30 {
        let at = u64::from(n) * STRIDE;
        disk.get(&file, &(at..at + 512), stranger(n));
        disk.begin();
        while disk.finish_one().is_some() {
            disk.begin();
        }
    }
    let client = Client::new(&file, known(1000), (1468, 16));
    let mut clients = vec![client];
    for _ in 0..5000 {
        clients.retain_mut(|client| client.go_on(&mut disk));
        disk.begin();
        disk.finish_one();
    }
    assert!(clients.is_empty());
}

/// Windows that wait for a full socket hold their pieces, and those count.
#[test]
fn where_the_budget_is_used_up_a_transfer_waits_until_a_window_has_gone_out() {
    let file = File::new(64);
    let mut disk = Disk::new(3 * PIECE);
    let mut going_out = Vec::new();
    for n in 0..3 {
        let window = u64::from(n) * 8 * STRIDE..u64::from(n) * 8 * STRIDE + 512;
        let reader = Reader { is_proven: false, ..known(n) };
        assert!(disk.get(&file, &window, reader).is_none());
        disk.begin();
        assert_eq!(disk.finish_one(), Some(vec![peer(n)]));
        going_out.extend(disk.get(&file, &window, reader));
        // The client has gone, and its window has not.
        disk.pieces.leave(peer(n));
    }
    let window = 50 * STRIDE..50 * STRIDE + 512;
    assert!(disk.get(&file, &window, known(9)).is_none());
    disk.begin();
    assert!(disk.reading.is_empty(), "there is no room");
    going_out.pop();
    disk.begin();
    assert_eq!(disk.finish_one(), Some(vec![peer(9)]));
    assert!(disk.get(&file, &window, known(9)).is_some());
}

#[test]
fn machines_of_the_config_have_their_pieces_read_before_strangers() {
    let file = File::new(64);
    let mut disk = Disk::new(64 * MIB);
    let at = |n: u16| u64::from(n) * 10 * STRIDE..u64::from(n) * 10 * STRIDE + 512;
    for n in 0..8 {
        disk.get(&file, &at(n), stranger(n));
    }
    // One that a stranger wanted first, and one more.
    disk.get(&file, &at(7), known(20));
    disk.get(&file, &at(9), known(21));
    disk.begin();
    let mut order = Vec::new();
    while let Some(waited) = disk.finish_one() {
        order.extend(waited.iter().map(SocketAddrV4::port));
        disk.begin();
    }
    assert_eq!(order[..3], [7, 20, 21]);
    assert_eq!(order[3..], [0, 1, 2, 3, 4, 5, 6]);
}

/// A network share that is gone: each read of it takes a thread for ever.
#[test]
fn a_file_that_hangs_takes_few_reads_and_leaves_one_of_them_to_machines_of_the_config() {
    let (hangs, other) = (File::new(64), File::new(64));
    let mut disk = Disk::new(64 * MIB);
    for n in 0..50 {
        let at = u64::from(n) * STRIDE;
        disk.get(&hangs, &(at..at + 512), stranger(n));
        disk.begin();
        // It goes, and comes again.
        disk.pieces.leave(peer(n));
    }
    assert_eq!(disk.reading.len(), 3);
    disk.get(&hangs, &(MIB..MIB + 512), known(100));
    disk.begin();
    assert_eq!(disk.reading.len(), 4);
    disk.get(&hangs, &(2 * MIB..2 * MIB + 512), known(101));
    disk.begin();
    assert_eq!(disk.reading.len(), 4);
    disk.get(&other, &(0..512), stranger(200));
    disk.begin();
    assert_eq!(disk.reading.pop_back().unwrap().run(File::read).file(), &*other);
}

/// Each who waited is told, and nothing of it stays.
#[test]
fn a_piece_that_cannot_be_read_is_told_to_all_who_wait_for_it() {
    let file = File::new(64);
    let mut disk = Disk::new(64 * MIB);
    for n in 0..3 {
        let reader = Reader { is_proven: false, ..known(n) };
        disk.get(&file, &(0..512), reader);
    }
    disk.begin();
    let job = disk.reading.pop_front().unwrap();
    assert!(disk.reading.is_empty());
    let done: Done<File> = job.run(|_, _, bytes| {
        bytes.push(1);
        Err("no".to_owned())
    });
    assert_eq!(disk.pieces.finish(done), (vec![peer(0), peer(1), peer(2)], Err("no".to_owned())));
    assert_eq!(disk.pieces.taken(), 0);
    disk.get(&file, &(0..512), known(0));
    disk.begin();
    assert!(!disk.reading.is_empty(), "who comes later has it read again");
}

/// For one that may be forged nothing is read that is not sent.
#[test]
fn nothing_is_read_ahead_before_the_first_ack() {
    let file = File::new(64);
    let mut disk = Disk::new(64 * MIB);
    disk.get(&file, &(0..512), Reader { is_proven: false, ..stranger(1) });
    disk.begin();
    assert_eq!(disk.reading.len(), 1);
    disk.get(&file, &(0..512), stranger(1));
    disk.begin();
    assert_eq!(disk.reading.len(), 3);
}

/// The time that a disk takes is neither a loss nor the client's silence, and is no round trip.
#[test]
fn a_slow_disk_costs_no_retransmission_and_no_patience_with_the_client() {
    let mut trace = Trace::new(&rrq(&[("windowsize", "16")]), 100 * MIB);
    trace.sends();
    trace.at(20);
    assert_eq!(trace.hears(&ack(0)).len(), 16);
    trace.at(40);
    trace.reads_slowly = true;
    assert_eq!(trace.hears(&ack(16)), [""; 0]);
    for ms in [100, 1000, 10_000, 29_000] {
        assert_eq!(trace.at(ms), [""; 0], "after {ms} ms");
        assert_eq!(trace.hears(&ack(16)), [""; 0], "the client says again what it has");
    }
    trace.reads_slowly = false;
    assert_eq!(trace.at(30_000).len(), MAX_WINDOWSIZE as usize);
    assert_eq!(trace.transfer.resent(), 0);
    // Four times 20 ms, as before.
    assert_eq!(trace.at(30_079), [""; 0]);
    assert_eq!(trace.at(30_080).len(), 16);
    trace.abandoned();
    assert_eq!(*trace.outcome(), Outcome::GaveUp { block: 17 });
    let silent = (trace.now - trace.start).as_secs();
    assert!((59..65).contains(&silent), "30 s after the disk: {silent}");
}

#[test]
fn a_disk_that_hangs_ends_the_transfer_and_is_named() {
    let mut trace = Trace::new(&rrq(&[]), 100 * MIB);
    trace.reads_slowly = true;
    assert_eq!(trace.sends(), [""; 0]);
    trace.at(500);
    assert_eq!(trace.hears_the_request_again(), [""; 0]);
    trace.at(29_999);
    assert!(trace.outcome.is_none());
    trace.at(30_000);
    let Outcome::Unreadable(why) = trace.outcome() else { panic!("{:?}", trace.outcome) };
    assert!(why.starts_with("reading the file takes longer than 30 s; check the disk"), "{why}");
}

#[test]
fn a_transfer_whose_file_has_changed_ends_with_the_reason() {
    let mut trace = Trace::new(&rrq(&[]), 100 * MIB);
    trace.sends();
    trace.reads_slowly = true;
    trace.hears(&ack(1));
    trace.transfer.fail("it was changed".to_owned());
    trace.sends();
    assert_eq!(*trace.outcome(), Outcome::Unreadable("it was changed".to_owned()));
    assert_eq!(trace.transfer.delivered(), 512);
}
