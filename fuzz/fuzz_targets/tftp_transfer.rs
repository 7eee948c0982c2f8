//! A transfer under whatever happens, beside a client that is as RFC 1350 and RFC 7440 have it: what the
//! client takes is the file in order, nothing goes out that should not, and there is an end.
#![no_main]

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use reveille::pure::tftp::options::Granted;
use reveille::pure::tftp::packet::{Packet, on_the_wire};
use reveille::pure::tftp::transfer::{Action, Outcome, Transfer, extent};

/// What is on the way to the client.
#[derive(Clone, Copy)]
enum Sent {
    Oack,
    Data(u64),
}

/// Both ends, and what is between them.
struct Lan {
    transfer: Transfer,
    now: Instant,
    on_the_way: VecDeque<Sent>,
    outcome: Option<Outcome>,
    blksize: u64,
    window: u64,
    len: u64,
    unproven_sends: u32,
    sent_unproven: u32,
    /// The last block that ever went out, and the last of those that went out last.
    highest: u64,
    sent_to: u64,
    /// The client: how many blocks it has, in order, and how many of them it has not acknowledged.
    had: u64,
    pending: u64,
    /// Whether only the client has spoken so far, and nobody in its name.
    is_honest: bool,
    is_proven: bool,
}

impl Lan {
    fn last(&self) -> u64 {
        self.len / self.blksize + 1
    }

    /// Lets the server do what it wants to, and looks at each of it.
    fn poll(&mut self) {
        let mut sends = 0;
        loop {
            sends += 1;
            assert!(sends < 4, "it sends without an end");
            let action = self.transfer.poll(self.now);
            if !self.is_proven && !matches!(action, Action::Wait(_) | Action::Done(_)) {
                self.sent_unproven += 1;
                assert!(self.sent_unproven <= self.unproven_sends, "more than agreed");
            }
            match action {
                Action::SendOack => self.on_the_way.push_back(Sent::Oack),
                Action::Send(blocks) => {
                    self.transfer.mark_sent(&blocks, self.now);
                    self.look_at(blocks);
                }
                Action::Wait(until) => {
                    assert!(until >= self.now, "it waits for what is past");
                    assert!(until - self.now <= Duration::from_secs(4));
                    return;
                }
                Action::Done(outcome) => {
                    self.outcome = Some(outcome);
                    return;
                }
            }
        }
    }

    fn look_at(&mut self, blocks: RangeInclusive<u64>) {
        let (first, last) = (*blocks.start(), *blocks.end());
        assert!(1 <= first && first <= last && last <= self.last(), "{blocks:?}");
        assert!(last - first < self.window, "{blocks:?} is more than a window");
        let acked = self.transfer.delivered() / self.blksize;
        let goes_on = first == self.sent_to + 1 || first == acked + 1;
        assert!(goes_on, "{blocks:?} after {} and the ACK of {acked}", self.sent_to);
        self.sent_to = last;
        self.highest = self.highest.max(last);
        for block in blocks {
            let bytes = extent(block, self.blksize, self.len);
            assert_eq!(bytes.start, (block - 1) * self.blksize);
            assert_eq!(bytes.end - bytes.start < self.blksize, block == self.last());
            self.on_the_way.push_back(Sent::Data(block));
        }
    }

    fn say(&mut self, packet: &Packet) {
        if self.outcome.is_none() {
            self.transfer.handle(packet, self.now);
            self.is_proven = self.transfer.is_proven();
            self.poll();
        }
    }

    fn acknowledge(&mut self) {
        self.pending = 0;
        self.say(&Packet::Ack(on_the_wire(self.had)));
    }

    /// The next packet arrives.
    fn deliver(&mut self) {
        match self.on_the_way.pop_front() {
            None => {}
            Some(Sent::Oack) if self.had == 0 => self.acknowledge(),
            Some(Sent::Oack) => {}
            // By the number that it can see.
            Some(Sent::Data(block)) if on_the_wire(block) == on_the_wire(self.had + 1) => {
                assert!(block == self.had + 1 || !self.is_honest, "{block} after {}", self.had);
                self.had += 1;
                self.pending += 1;
                if self.pending == self.window || self.had == self.last() {
                    self.acknowledge();
                }
            }
            // Something is missing, or came twice: what it has, once more.
            Some(Sent::Data(_)) => self.acknowledge(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.outcome.is_none() {
            self.transfer.handle_timeout(self.now);
            self.poll();
        }
    }

    /// Until the server stops waiting.
    fn pass_to_the_next_alarm(&mut self) {
        if let Action::Wait(until) = self.transfer.poll(self.now) {
            self.pass(until - self.now);
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [sizes, window, unproven, long, low, high, events @ ..] = input else { return };
    let blksize = [8, 9, 512, 1468][usize::from(sizes & 3)];
    let window = u64::from(window & 15) + 1;
    // Few are so long that the 16 bits on the wire roll over: those take their time.
    let is_long = (*long, *low) == (0xff, 0xff);
    let blocks = if is_long { 65_500 } else { 0 } + u64::from(*low);
    let len = blocks * blksize + u64::from(*high) % blksize;
    let oack = if sizes & 4 == 0 { Vec::new() } else { vec![("tsize", len)] };
    let granted = Granted { blksize, windowsize: window, oack, is_held_back: false };
    let unproven_sends = u32::from(unproven & 7) + 1;
    let now = Instant::now();
    let mut lan = Lan {
        transfer: Transfer::accept(granted, len, unproven_sends, now),
        now,
        on_the_way: VecDeque::new(),
        outcome: None,
        blksize,
        window,
        len,
        unproven_sends,
        sent_unproven: 0,
        highest: 0,
        sent_to: 0,
        had: 0,
        pending: 0,
        is_honest: true,
        is_proven: false,
    };
    lan.poll();
    let mut delivered = 0;
    let (mut repeated, mut is_long_gone) = (0, false);
    for event in events.chunks_exact(2) {
        let [kind, how] = event else { unreachable!() };
        let how = usize::from(*how);
        match kind % 10 {
            0 | 1 => (0..=how % 32).for_each(|_| lan.deliver()),
            2 => drop(lan.on_the_way.pop_front()),
            3 => {
                let first = lan.on_the_way.front().copied();
                lan.on_the_way.extend(first);
            }
            4 if !lan.on_the_way.is_empty() => {
                let by = how % lan.on_the_way.len();
                lan.on_the_way.rotate_left(by);
            }
            4 | 5 => lan.pass(Duration::from_millis(how as u64 * 20)),
            6 if repeated < 64 => {
                repeated += 1;
                lan.transfer.handle_repeated_request();
                lan.poll();
            }
            // Somebody else, or a client that is broken.
            7 => {
                lan.is_honest = false;
                let near = on_the_wire(lan.had).wrapping_add(how as u16).wrapping_sub(64);
                lan.say(&Packet::Ack(near));
            }
            8 if how > 200 => lan.say(&Packet::Error(how as u16 - 200, String::new())),
            9 if how > 200 && !is_long_gone => {
                is_long_gone = true;
                (0..65_600).for_each(|_| lan.deliver());
            }
            _ => {}
        }
        assert!(lan.on_the_way.len() <= 20_000, "it sends more than it is asked for");
        lan.on_the_way.truncate(64);
        let so_far = lan.transfer.delivered();
        assert!((delivered..=len).contains(&so_far), "{delivered}, {so_far}, {len}");
        delivered = so_far;
    }

    // Either all goes well from now on, or nothing comes any more.
    let goes_well = sizes & 8 == 0;
    let mut turns = 0;
    while lan.outcome.is_none() {
        turns += 1;
        // Copies that were on the way make the client acknowledge amid a window, and what follows is sent
        // once more: some five packets for each block were seen.
        assert!(turns < 20 * (lan.last() + 1000), "there is no end");
        if goes_well && !lan.on_the_way.is_empty() {
            lan.deliver();
        } else {
            lan.on_the_way.clear();
            lan.pass_to_the_next_alarm();
            assert!(goes_well || turns < 64, "it goes on after a minute of silence");
        }
    }
    let outcome = lan.outcome.as_ref();
    match outcome {
        Some(Outcome::Complete) => {
            assert_eq!(lan.highest, lan.last(), "complete, and not all was sent");
            assert_eq!(lan.transfer.delivered(), len);
        }
        Some(Outcome::GaveUp { block }) => assert!(*block <= lan.last()),
        Some(Outcome::Probed | Outcome::Aborted { .. }) => {}
        Some(Outcome::Replaced | Outcome::MadeRoom | Outcome::Unreadable(_)) | None => {
            unreachable!("{outcome:?}")
        }
    }
    if lan.is_honest && matches!(outcome, Some(Outcome::Complete)) && goes_well && lan.is_proven {
        assert!(
            lan.had >= lan.last().saturating_sub(lan.window).max(1),
            "the client has {} of {}",
            lan.had,
            lan.last()
        );
    }
});
