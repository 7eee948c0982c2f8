//! What the wire demands of a read-only TFTP server: a client's datagrams in, and what goes out and when,
//! on a clock that stands until a case moves it. Above each case stands who demands it: a standard, a
//! firmware's source, another server's, or what real firmware did when it was tried (OVMF 2022.11, and
//! iPXE of 2019 and of 2026).
//!
//! What a [`request`] may look like, what is [`agreed`] on it, how the blocks go out [`in_order`], what
//! happens where packets are [`lost`], and what is [`learned`] of it; how large files are read in [`pieces`],
//! and who has one of the [`places`]. What needs sockets, and real clients, is in `tests/lab/tftp.rs`;
//! the names are in [`crate::pure::boot::served_names`].

mod agreed;
mod in_order;
mod learned;
mod lost;
mod pieces;
mod places;
mod request;

use std::time::{Duration, Instant};

use super::options::{Most, negotiate};
use super::packet::{Packet, Rrq, data_header, oack};
use super::transfer::{Action, Outcome, Transfer, extent};

/// A read request for `snponly.efi` in mode octet, with these options.
fn rrq(options: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = b"\0\x01snponly.efi\0octet\0".to_vec();
    for (name, value) in options {
        for field in [name, value] {
            datagram.extend(field.as_bytes());
            datagram.push(0);
        }
    }
    datagram
}

fn read(datagram: &[u8]) -> Rrq {
    let packet = Packet::decode(datagram);
    let Ok(Packet::Rrq(rrq)) = packet else { panic!("{packet:?}") };
    rrq
}

fn ack(block: u16) -> Vec<u8> {
    let [high, low] = block.to_be_bytes();
    vec![0, 4, high, low]
}

fn error(code: u8, text: &str) -> Vec<u8> {
    [&[0, 5, 0, code], text.as_bytes(), &[0]].concat()
}

/// A transfer between a server and a client, packet by packet.
struct Trace {
    transfer: Transfer,
    start: Instant,
    now: Instant,
    outcome: Option<Outcome>,
    /// Whether what is to be sent is still being read.
    reads_slowly: bool,
    /// How many datagrams have gone out, and their bytes.
    sent: (usize, usize),
}

impl Trace {
    /// The server has been asked for a file of `len` bytes.
    #[expect(clippy::disallowed_methods, reason = "a trace starts at some moment, no matter which")]
    fn new(request: &[u8], len: u64) -> Self {
        Self::begun(request, len, (Most::over(1500), Instant::now()))
    }

    /// The same at this moment, where no more than that may be granted.
    fn begun(request: &[u8], len: u64, (most, now): (Most, Instant)) -> Self {
        let granted = negotiate(&read(request), len, most);
        let transfer = Transfer::accept(granted, len, 5, now);
        Self { transfer, start: now, now, outcome: None, reads_slowly: false, sent: (0, 0) }
    }

    /// What goes out now, spelled from its bytes: `OACK tsize=10`, `DATA 1: 512`.
    fn sends(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            match self.transfer.poll(self.now) {
                Action::SendOack => sent.push(self.send(&oack(&self.transfer.granted().oack))),
                Action::Send(_) if self.reads_slowly => {
                    self.transfer.await_data(self.now);
                    return sent;
                }
                Action::Send(blocks) => {
                    self.transfer.mark_sent(&blocks, self.now);
                    for block in blocks {
                        let blksize = self.transfer.granted().blksize;
                        let extent = extent(block, blksize, self.transfer.file_size());
                        let data = vec![0; usize::try_from(extent.end - extent.start).unwrap()];
                        sent.push(self.send(&[&data_header(block)[..], &data].concat()));
                    }
                }
                Action::Wait(_) => return sent,
                Action::Done(outcome) => {
                    self.outcome = Some(outcome);
                    return sent;
                }
            }
        }
    }

    fn send(&mut self, datagram: &[u8]) -> String {
        self.sent.0 += 1;
        self.sent.1 += datagram.len();
        match datagram {
            [0, 3, high, low, data @ ..] => {
                format!("DATA {}: {}", u16::from_be_bytes([*high, *low]), data.len())
            }
            [0, 6, options @ .., 0] => {
                let text = std::str::from_utf8(options).unwrap();
                let fields: Vec<&str> = text.split('\0').collect();
                let spelled: Vec<_> = fields.chunks(2).map(|pair| pair.join("=")).collect();
                format!("OACK {}", spelled.join(" "))
            }
            other => panic!("no server sends {other:?}"),
        }
    }

    /// The client says this, and what goes out then.
    fn hears(&mut self, datagram: &[u8]) -> Vec<String> {
        self.transfer.handle(&Packet::decode(datagram).unwrap(), self.now);
        self.sends()
    }

    /// The client sends its request once more, and what goes out then.
    fn hears_the_request_again(&mut self) -> Vec<String> {
        self.transfer.handle_repeated_request();
        self.sends()
    }

    /// So many milliseconds after the start, and what goes out then.
    fn at(&mut self, ms: u64) -> Vec<String> {
        self.now = self.start + Duration::from_millis(ms);
        self.transfer.handle_timeout(self.now);
        self.sends()
    }

    /// Nothing comes until it is over: at which milliseconds something goes out.
    fn abandoned(&mut self) -> Vec<u128> {
        let mut moments = Vec::new();
        while self.outcome.is_none() {
            let Action::Wait(until) = self.transfer.poll(self.now) else { panic!("it waits") };
            self.now = until;
            self.transfer.handle_timeout(until);
            if !self.sends().is_empty() {
                moments.push((self.now - self.start).as_millis());
            }
        }
        moments
    }

    fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().expect("it is over")
    }
}
