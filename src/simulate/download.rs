//! TFTP as firmware asks it: one transfer from the client's side, without a socket or a clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::{Duration, Instant};

use crate::pure::printable;
use crate::pure::tftp::options::DEFAULT_BLKSIZE;
use crate::pure::tftp::packet::{ErrorCode, FromServer, Rrq, ack, error, on_the_wire};

/// How long to wait before what was said last is said again; each time in vain doubles it.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is said again before the server is given up: 15 seconds.
const MOST_TRIES: u32 = 4;
/// How much of the file is kept, to recognise it.
const HEAD: usize = 1 << 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// A BIOS ROM's: the file, and its size.
    Bios,
    /// UEFI's first question: the size alone.
    UefiSize,
    /// UEFI's second: the file, in windows (RFC 7440).
    Uefi,
}

impl Wish {
    /// Its options, as the firmware sends them (OVMF 2022.11, and ROMs of Intel's).
    const fn options(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Bios => &[("tsize", 0), ("blksize", 1456)],
            Self::UefiSize => &[("tsize", 0), ("blksize", 1468), ("windowsize", 4)],
            Self::Uefi => &[("blksize", 1468), ("windowsize", 4)],
        }
    }
}

/// What the shell should do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this: the request to port 69, all else to the port that answered it.
    Send(Vec<u8>),
    /// Nothing until a packet comes, or this moment.
    Wait(Instant),
    /// It is over.
    Done(Result<Fetched, Broken>),
}

/// What came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// How many bytes.
    pub bytes: u64,
    /// How many the server said there are.
    pub tsize: Option<u64>,
    /// The first of them.
    pub head: Vec<u8>,
    /// The options that were granted.
    pub granted: Vec<(String, u64)>,
    /// How often something was said again.
    pub resent: u32,
    /// How often a block came that was not the next one.
    pub out_of_order: u32,
}

/// Why nothing came, or not all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The server said no.
    #[error("the server refuses: error {code} `{text}`")]
    Refused {
        /// The code.
        code: u16,
        /// The text.
        text: String,
    },
    /// The server says nothing.
    #[error("no answer for 15 seconds{}", if *bytes == 0 { String::new() } else { format!(", after {bytes} bytes") })]
    Silent {
        /// How many bytes had come.
        bytes: u64,
    },
    /// UEFI boots nothing whose size it was not told.
    #[error(
        "the server does not tell the file's size (option tsize), and UEFI boots nothing without it"
    )]
    NoSize,
    /// It grants what was not asked for.
    #[error("the server grants `{0}`, which was not asked for: UEFI ends with PXE-E23")]
    NotAsked(String),
    /// A block longer than agreed.
    #[error("block {0} is longer than was agreed")]
    Long(u64),
    /// Other than the server said.
    #[error("{bytes} bytes came, and the server said {tsize}")]
    WrongSize {
        /// How many came.
        bytes: u64,
        /// How many it said.
        tsize: u64,
    },
}

/// The transfer.
#[derive(Clone, Debug)]
pub struct Download {
    wish: Wish,
    blksize: u64,
    windowsize: u64,
    /// All blocks up to this one are here.
    block: u64,
    /// How many of them are not acknowledged.
    in_window: u64,
    /// Whether a gap was told of already.
    gap_is_told: bool,
    fetched: Fetched,
    /// What was said last.
    last: Vec<u8>,
    is_answered: bool,
    to_send: bool,
    tries: u32,
    deadline: Instant,
    end: Option<Result<(), Broken>>,
}

impl Download {
    /// Asks for a file.
    pub fn new(file: &str, wish: Wish, now: Instant) -> Self {
        let option = |(name, value): &(&str, u64)| ((*name).to_owned(), value.to_string());
        let options = wish.options().iter().map(option).collect();
        let rrq = Rrq { file: file.into(), mode: "octet".into(), options };
        Self {
            wish,
            blksize: DEFAULT_BLKSIZE,
            windowsize: 1,
            block: 0,
            in_window: 0,
            gap_is_told: false,
            fetched: Fetched::default(),
            last: rrq.encode(),
            is_answered: false,
            to_send: true,
            tries: 0,
            deadline: now + FIRST_TIMEOUT,
            end: None,
        }
    }

    /// What to do now.
    pub fn poll(&mut self) -> Action {
        if std::mem::take(&mut self.to_send) {
            return Action::Send(self.last.clone());
        }
        match &self.end {
            None => Action::Wait(self.deadline),
            Some(Ok(())) => Action::Done(Ok(self.fetched.clone())),
            Some(Err(broken)) => Action::Done(Err(broken.clone())),
        }
    }

    /// Whether the server has answered: from then on it has one port.
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Takes up a datagram from the server. What is no TFTP packet is overlooked.
    pub fn handle(&mut self, datagram: &[u8], now: Instant) {
        let Ok(packet) = FromServer::decode(datagram) else {
            return;
        };
        if self.end.is_some() {
            return;
        }
        match packet {
            FromServer::Error(code, text) => self.end = Some(Err(Broken::Refused { code, text })),
            FromServer::Oack(options) if !self.is_answered => self.agree(&options, now),
            // Its ACK was lost.
            FromServer::Oack(_) if self.block == 0 => self.to_send = true,
            FromServer::Oack(_) => {}
            FromServer::Data(..) if self.wish == Wish::UefiSize => self.fail(Broken::NoSize),
            FromServer::Data(wire, data) => self.take(wire, data, now),
        }
        self.is_answered = true;
    }

    fn agree(&mut self, options: &[(String, String)], now: Instant) {
        for (name, value) in options {
            let asked = self.wish.options().iter().find(|(asked, _)| asked == name);
            let fits = |asked: u64, value: u64| name == "tsize" || (1..=asked).contains(&value);
            let value =
                value.parse().ok().zip(asked).filter(|(value, asked)| fits(asked.1, *value));
            let Some((value, _)) = value else {
                return self.fail(Broken::NotAsked(printable::name(name)));
            };
            match name.as_str() {
                "blksize" => self.blksize = value,
                "windowsize" => self.windowsize = value,
                _ => self.fetched.tsize = Some(value),
            }
            self.fetched.granted.push((name.clone(), value));
        }
        match (self.wish, self.fetched.tsize) {
            (Wish::Bios | Wish::Uefi, _) => self.say(ack(0), now),
            (Wish::UefiSize, None) => self.fail(Broken::NoSize),
            (Wish::UefiSize, Some(_)) => {
                self.say(error(ErrorCode::Options, "User aborted the transfer"), now);
                self.end = Some(Ok(()));
            }
        }
    }

    fn take(&mut self, wire: u16, data: &[u8], now: Instant) {
        if wire != on_the_wire(self.block + 1) {
            return self.take_another(wire, now);
        }
        let (len, block) = (data.len() as u64, self.block + 1);
        if len > self.blksize {
            return self.fail(Broken::Long(block));
        }
        let room = HEAD.saturating_sub(self.fetched.head.len()).min(data.len());
        self.fetched.head.extend(&data[..room]);
        self.fetched.bytes += len;
        (self.block, self.in_window, self.gap_is_told) = (block, self.in_window + 1, false);
        (self.tries, self.deadline) = (0, now + FIRST_TIMEOUT);
        if len < self.blksize {
            self.say(ack(block), now);
            self.end =
                Some(match self.fetched.tsize.filter(|tsize| *tsize != self.fetched.bytes) {
                    None => Ok(()),
                    Some(tsize) => Err(Broken::WrongSize { bytes: self.fetched.bytes, tsize }),
                });
        } else if self.in_window == self.windowsize {
            self.say(ack(block), now);
        }
    }

    /// A block that is not the next one: what is missing is told of once (RFC 7440 section 4), and what
    /// came before is acknowledged no more, or every block would come twice from there on (RFC 1123
    /// section 4.2.3.1).
    fn take_another(&mut self, wire: u16, now: Instant) {
        self.fetched.out_of_order += 1;
        let is_ahead = wire.wrapping_sub(on_the_wire(self.block + 1)) < 0x8000;
        if is_ahead && !self.gap_is_told {
            self.gap_is_told = true;
            self.say(ack(self.block), now);
        }
    }

    fn say(&mut self, datagram: Vec<u8>, now: Instant) {
        (self.last, self.to_send, self.in_window) = (datagram, true, 0);
        (self.tries, self.deadline) = (0, now + FIRST_TIMEOUT);
    }

    fn fail(&mut self, broken: Broken) {
        (self.last, self.to_send) = (error(ErrorCode::Options, "not as asked"), true);
        self.end = Some(Err(broken));
    }

    /// The time that [`Action::Wait`] named has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.end.is_some() || now < self.deadline {
            return;
        }
        self.tries += 1;
        if self.tries == MOST_TRIES {
            self.end = Some(Err(Broken::Silent { bytes: self.fetched.bytes }));
            return;
        }
        if self.in_window > 0 {
            // The rest of the window is lost.
            (self.last, self.in_window) = (ack(self.block), 0);
        }
        self.fetched.resent += 1;
        self.to_send = true;
        self.deadline = now + FIRST_TIMEOUT * 2_u32.pow(self.tries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pure::tftp::options::{Most, negotiate};
    use crate::pure::tftp::packet::{Packet, data_header, oack};
    use crate::pure::tftp::transfer::{self, Transfer, extent};

    /// A download, packet by packet, on a clock that stands until it is moved.
    struct Trace {
        download: Download,
        now: Instant,
        end: Option<Result<Fetched, Broken>>,
    }

    impl Trace {
        #[expect(clippy::disallowed_methods, reason = "a trace starts at some moment")]
        fn new(wish: Wish) -> Self {
            let now = Instant::now();
            Self { download: Download::new("x.efi", wish, now), now, end: None }
        }

        fn says(&mut self) -> Vec<Vec<u8>> {
            let mut said = Vec::new();
            loop {
                match self.download.poll() {
                    Action::Send(datagram) => said.push(datagram),
                    Action::Wait(_) => return said,
                    Action::Done(end) => {
                        self.end = Some(end);
                        return said;
                    }
                }
            }
        }

        fn hears(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
            self.download.handle(datagram, self.now);
            self.says()
        }

        fn block(&mut self, block: u64, len: usize) -> Vec<Vec<u8>> {
            self.hears(&[&data_header(block)[..], &vec![7; len]].concat())
        }

        fn after(&mut self, seconds: u64) -> Vec<Vec<u8>> {
            self.now += Duration::from_secs(seconds);
            self.download.handle_timeout(self.now);
            self.says()
        }
    }

    const NOTHING: Vec<Vec<u8>> = Vec::new();

    #[test]
    fn a_bios_asks_for_size_and_file_at_once() {
        let mut trace = Trace::new(Wish::Bios);
        assert_eq!(trace.says(), [b"\0\x01x.efi\0octet\0tsize\x000\0blksize\x001456\0"]);
        assert_eq!(trace.hears(&oack(&[("tsize", 1460), ("blksize", 1456)])), [ack(0)]);
        assert_eq!(trace.block(1, 1456), [ack(1)]);
        assert_eq!(trace.block(2, 4), [ack(2)]);
        let fetched = trace.end.unwrap().unwrap();
        assert_eq!((fetched.bytes, fetched.tsize, fetched.out_of_order), (1460, Some(1460), 0));
        assert_eq!(fetched.head, [7; 1024]);
    }

    #[test]
    fn uefi_asks_for_the_size_goes_away_and_fetches_in_windows() {
        let mut size = Trace::new(Wish::UefiSize);
        size.says();
        let oacked = oack(&[("tsize", 9), ("blksize", 1468), ("windowsize", 4)]);
        assert_eq!(size.hears(&oacked), [error(ErrorCode::Options, "User aborted the transfer")]);
        assert_eq!(size.end.unwrap().unwrap().tsize, Some(9));
        for nothing in [oack(&[("blksize", 1468)]), data_header(1).to_vec()] {
            let mut size = Trace::new(Wish::UefiSize);
            size.says();
            size.hears(&nothing);
            assert_eq!(size.end, Some(Err(Broken::NoSize)));
        }

        let mut file = Trace::new(Wish::Uefi);
        assert_eq!(file.says(), [b"\0\x01x.efi\0octet\0blksize\x001468\0windowsize\x004\0"]);
        assert_eq!(file.hears(&oack(&[("blksize", 1468), ("windowsize", 2)])), [ack(0)]);
        assert_eq!(file.block(1, 1468), NOTHING);
        assert_eq!(file.block(2, 1468), [ack(2)]);
        assert_eq!(file.block(4, 1468), [ack(2)], "the third is lost");
        assert_eq!(file.block(5, 1468), NOTHING, "which is told of once");
        assert_eq!(file.block(3, 1468), NOTHING);
        assert_eq!(file.block(3, 1468), NOTHING, "a copy");
        assert_eq!(file.block(4, 0), [ack(4)]);
        let fetched = file.end.unwrap().unwrap();
        assert_eq!((fetched.bytes, fetched.out_of_order), (3 * 1468, 3));
    }

    #[test]
    fn what_is_lost_is_said_again_and_a_silent_server_is_given_up() {
        let mut trace = Trace::new(Wish::Bios);
        let request = trace.says();
        assert_eq!(trace.after(1), request);
        assert_eq!(trace.after(1), NOTHING);
        assert_eq!(trace.hears(&oack(&[("tsize", 2000)])), [ack(0)]);
        assert_eq!(trace.hears(&oack(&[("tsize", 2000)])), [ack(0)]);
        assert_eq!(trace.block(1, 512), [ack(1)]);
        assert_eq!([1, 2, 4].map(|seconds| trace.after(seconds)), [[ack(1)], [ack(1)], [ack(1)]]);
        assert_eq!(trace.after(8), NOTHING);
        assert_eq!(trace.end, Some(Err(Broken::Silent { bytes: 512 })));
    }

    #[test]
    fn what_firmware_takes_for_an_error_is_one() {
        let ends = |datagrams: &[Vec<u8>]| {
            let mut trace = Trace::new(Wish::Bios);
            trace.says();
            for datagram in datagrams {
                trace.hears(datagram);
            }
            trace.end.unwrap().unwrap_err()
        };
        let refused = Broken::Refused { code: 1, text: "no such file".into() };
        assert_eq!(ends(&[error(ErrorCode::NotFound, "no such file")]), refused);
        assert_eq!(ends(&[oack(&[("windowsize", 4)])]), Broken::NotAsked("windowsize".into()));
        assert_eq!(ends(&[oack(&[("blksize", 1468)])]), Broken::NotAsked("blksize".into()));
        let short = [data_header(1).to_vec(), vec![0; 10]].concat();
        let wrong = Broken::WrongSize { bytes: 10, tsize: 11 };
        assert_eq!(ends(&[oack(&[("tsize", 11)]), short]), wrong);
        let long = [data_header(1).to_vec(), vec![0; 513]].concat();
        assert_eq!(ends(&[long]), Broken::Long(1));
    }

    #[test]
    fn it_and_our_own_server_understand_each_other() {
        const LEN: u64 = 200_001;
        for wish in [Wish::Bios, Wish::Uefi] {
            let mut trace = Trace::new(wish);
            let request = trace.says().remove(0);
            let Ok(Packet::Rrq(rrq)) = Packet::decode(&request) else { panic!("{request:?}") };
            let granted = negotiate(&rrq, LEN, Most::over(1500));
            let mut server = Transfer::accept(granted, LEN, 5, trace.now);
            loop {
                let datagrams: Vec<Vec<u8>> = match server.poll(trace.now) {
                    transfer::Action::SendOack => vec![oack(&server.granted().oack)],
                    transfer::Action::Send(blocks) => {
                        server.mark_sent(&blocks, trace.now);
                        blocks
                            .map(|block| {
                                let extent = extent(block, server.granted().blksize, LEN);
                                let len = usize::try_from(extent.end - extent.start).unwrap();
                                [&data_header(block)[..], &vec![0; len]].concat()
                            })
                            .collect()
                    }
                    transfer::Action::Wait(_) => panic!("nobody says anything"),
                    transfer::Action::Done(outcome) => {
                        assert_eq!(outcome, transfer::Outcome::Complete);
                        break;
                    }
                };
                for datagram in datagrams {
                    for said in trace.hears(&datagram) {
                        server.handle(&Packet::decode(&said).unwrap(), trace.now);
                    }
                }
            }
            let fetched = trace.end.unwrap().unwrap();
            assert_eq!((fetched.bytes, fetched.resent, fetched.out_of_order), (LEN, 0, 0));
        }
    }
}
