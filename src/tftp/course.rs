//! One transfer with what it owns: a socket, the file's bytes, and the clock.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

use super::options::{MAX_BLKSIZE, MAX_WINDOWSIZE};
use super::packet::{self, ErrorCode, Packet, data_header};
use super::transfer::{Action, Outcome, Transfer};

/// A transfer with its socket and its file.
pub(super) struct Course {
    pub(super) transfer: Transfer,
    pub(super) socket: AsyncFd<UdpSocket>,
    pub(super) peer: SocketAddrV4,
    pub(super) content: Arc<[u8]>,
    pub(super) proven: Arc<AtomicBool>,
    pub(super) repetitions: mpsc::Receiver<()>,
}

/// Binds a port for a transfer. The socket wakes us when something has come, and not each time that
/// something has left, as tokio's own does: that would be once for each block.
#[expect(
    deprecated,
    reason = "what replaces it is unsafe; a socket of std stays open while it is here"
)]
pub(super) fn bind(address: Ipv4Addr) -> io::Result<AsyncFd<UdpSocket>> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_nonblocking(true)?;
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// A transfer that is over.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    pub(super) delivered: u64,
    pub(super) len: u64,
}

impl Course {
    /// Runs it to its end.
    pub(super) async fn run(mut self) -> Ended {
        let mut buffer = [0; 1024];
        // Set anew only when it has gone off, or must sooner: each packet puts the time-out off, and to
        // tell the timer each time costs more than to hear of it early now and then.
        let mut alarm = pin!(sleep_until(Instant::now().into()));
        let outcome = loop {
            match self.transfer.poll(Instant::now()) {
                Action::SendOack => self.send(&packet::oack(&self.transfer.granted().oack)),
                Action::Send(blocks) => self.send_blocks(blocks),
                Action::Wait(until) => {
                    if alarm.is_elapsed() || until < alarm.deadline().into_std() {
                        alarm.as_mut().reset(until.into());
                    }
                    tokio::select! {
                        biased;
                        received = self.socket.async_io(
                            Interest::READABLE,
                            |socket| socket.recv_from(&mut buffer),
                        ) => {
                            if let Ok((len, from)) = received {
                                self.take(&buffer[..len], from);
                                self.rest();
                            }
                        }
                        repeated = self.repetitions.recv() => match repeated {
                            Some(()) => self.transfer.handle_repeated_request(),
                            None => break Outcome::Replaced,
                        },
                        () = &mut alarm => {
                            self.look_again(&mut buffer);
                            self.transfer.handle_timeout(Instant::now());
                        }
                    }
                }
                Action::Done(outcome) => break outcome,
            }
        };
        Ended { outcome, delivered: self.transfer.delivered(), len: self.content.len() as u64 }
    }

    /// In lock step nothing else can have come that is of use, once an ACK has: the next one answers the
    /// block that is still to be sent. To ask the kernel whether there is more is a system call for each
    /// block; this has tokio wait for the next packet without it.
    fn rest(&self) {
        if self.transfer.granted().windowsize == 1 && self.transfer.is_to_send() {
            let nothing = |_: &_| Err::<(), _>(io::ErrorKind::WouldBlock.into());
            self.socket.try_io(Interest::READABLE, nothing).ok();
        }
    }

    /// Takes what came together with an ACK, such as an ERROR, and so woke nobody.
    fn look_again(&mut self, buffer: &mut [u8]) {
        while let Ok((len, from)) = self.socket.get_ref().recv_from(buffer) {
            self.take(&buffer[..len], from);
        }
    }

    fn take(&mut self, datagram: &[u8], from: SocketAddr) {
        if from != self.peer.into() {
            if matches!(Packet::decode(datagram), Ok(Packet::Error(..))) {
                // An ERROR is never answered: two servers would go on for ever.
                return;
            }
            // RFC 1350 section 4: tell the stranger, and go on.
            let error = packet::error(ErrorCode::UnknownTransferId, "this transfer is not yours");
            self.socket.get_ref().send_to(&error, from).ok();
            return;
        }
        if let Ok(packet) = Packet::decode(datagram) {
            self.transfer.handle(&packet, Instant::now());
            self.proven.store(self.transfer.is_proven(), Ordering::Relaxed);
        }
    }

    fn send_blocks(&self, blocks: RangeInclusive<u64>) {
        if blocks.start() < blocks.end() {
            match self.send_window(blocks.clone()) {
                Ok(()) => return,
                // This way to the client takes none: a card that computes no checksums, or frames that are
                // smaller than a block.
                Err(error) => debug!("tftp: sending a window to {}: {error}", self.peer),
            }
        }
        for block in blocks {
            let mut packet = [0; 4 + MAX_BLKSIZE as usize];
            let data = self.data(block);
            packet[..4].copy_from_slice(&data_header(block));
            packet[4..4 + data.len()].copy_from_slice(data);
            self.send(&packet[..4 + data.len()]);
        }
    }

    /// Sends blocks by one call. The kernel cuts them apart as late as it can, and all that it does before
    /// is done once.
    fn send_window(&self, blocks: RangeInclusive<u64>) -> io::Result<()> {
        const MOST: usize = MAX_WINDOWSIZE as usize;
        let mut headers = [[0; 4]; MOST];
        for (header, block) in headers.iter_mut().zip(blocks.clone()) {
            *header = data_header(block);
        }
        let mut slices = [IoSlice::new(&[]); 2 * MOST];
        let mut count = 0;
        for (header, block) in headers.iter().zip(blocks) {
            slices[count] = IoSlice::new(header);
            slices[count + 1] = IoSlice::new(self.data(block));
            count += 2;
        }
        let segment = 4 + self.transfer.granted().blksize as u16;
        let cut = [ControlMessage::UdpGsoSegments(&segment)];
        let to = SockaddrIn::from(self.peer);
        let socket = self.socket.as_raw_fd();
        sendmsg(socket, &slices[..count], &cut, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }

    fn data(&self, block: u64) -> &[u8] {
        let extent = self.transfer.extent(block);
        &self.content[extent.start as usize..extent.end as usize]
    }

    /// A datagram that the kernel does not take is like one that is lost on the way: it is sent again.
    fn send(&self, packet: &[u8]) {
        if let Err(error) = self.socket.get_ref().send_to(packet, self.peer) {
            debug!("tftp: sending to {}: {error}", self.peer);
        }
    }
}
