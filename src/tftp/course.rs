//! One transfer with what it owns: a socket, the file's bytes, and the clock.

use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tracing::debug;

use super::options::MAX_WINDOWSIZE;
use super::packet::{self, ErrorCode, Packet, data_header};
use super::transfer::{Action, Outcome, Transfer};

/// A transfer with its socket and its file.
pub(super) struct Course {
    pub(super) transfer: Transfer,
    pub(super) socket: UdpSocket,
    pub(super) peer: SocketAddrV4,
    pub(super) content: Arc<[u8]>,
    pub(super) proven: Arc<AtomicBool>,
    pub(super) repetitions: mpsc::Receiver<()>,
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
                Action::SendOack => self.send(&packet::oack(&self.transfer.granted().oack)).await,
                Action::Send(blocks) => self.send_blocks(blocks).await,
                Action::Wait(until) => {
                    if alarm.is_elapsed() || until < alarm.deadline().into_std() {
                        alarm.as_mut().reset(until.into());
                    }
                    tokio::select! {
                        biased;
                        received = self.socket.recv_from(&mut buffer) => {
                            if let Ok((len, from)) = received {
                                self.take(&buffer[..len], from).await;
                            }
                        }
                        repeated = self.repetitions.recv() => match repeated {
                            Some(()) => self.transfer.handle_repeated_request(),
                            None => break Outcome::Replaced,
                        },
                        () = &mut alarm => self.transfer.handle_timeout(Instant::now()),
                    }
                }
                Action::Done(outcome) => break outcome,
            }
        };
        Ended { outcome, delivered: self.transfer.delivered(), len: self.content.len() as u64 }
    }

    async fn take(&mut self, datagram: &[u8], from: std::net::SocketAddr) {
        if from != self.peer.into() {
            if matches!(Packet::decode(datagram), Ok(Packet::Error(..))) {
                // An ERROR is never answered: two servers would go on for ever.
                return;
            }
            // RFC 1350 section 4: tell the stranger, and go on.
            let error = packet::error(ErrorCode::UnknownTransferId, "this transfer is not yours");
            self.socket.send_to(&error, from).await.ok();
            return;
        }
        if let Ok(packet) = Packet::decode(datagram) {
            self.transfer.handle(&packet, Instant::now());
            self.proven.store(self.transfer.is_proven(), Ordering::Relaxed);
        }
    }

    /// Sends blocks, where the kernel can by one call: it then cuts them apart as late as it may, which is
    /// where most of the work is saved.
    async fn send_blocks(&self, blocks: RangeInclusive<u64>) {
        let together = self.put(blocks.clone()).await;
        if together.is_err() && blocks.start() < blocks.end() {
            // This way to the client takes no such bundles: its card computes no checksums, or its
            // frames are smaller than a block.
            for block in blocks {
                self.told(self.put(block..=block).await);
            }
        } else {
            self.told(together);
        }
    }

    async fn put(&self, blocks: RangeInclusive<u64>) -> io::Result<()> {
        let put = || {
            const MOST: usize = MAX_WINDOWSIZE as usize;
            let mut headers = [[0; 4]; MOST];
            for (header, block) in headers.iter_mut().zip(blocks.clone()) {
                *header = data_header(block);
            }
            let mut slices = [IoSlice::new(&[]); 2 * MOST];
            let mut count = 0;
            for (header, block) in headers.iter().zip(blocks.clone()) {
                let extent = self.transfer.extent(block);
                slices[count] = IoSlice::new(header);
                slices[count + 1] =
                    IoSlice::new(&self.content[extent.start as usize..extent.end as usize]);
                count += 2;
            }
            let segment = 4 + self.transfer.granted().blksize as u16;
            let cut = [ControlMessage::UdpGsoSegments(&segment)];
            let control = if count > 2 { &cut[..] } else { &[] };
            let to = SockaddrIn::from(self.peer);
            let socket = self.socket.as_raw_fd();
            sendmsg(socket, &slices[..count], control, MsgFlags::empty(), Some(&to))?;
            Ok(())
        };
        self.socket.async_io(Interest::WRITABLE, put).await
    }

    async fn send(&self, packet: &[u8]) {
        self.told(self.socket.send_to(packet, self.peer).await.map(drop));
    }

    /// A datagram that the kernel does not take is like one that is lost on the way: it is sent again.
    fn told(&self, sent: io::Result<()>) {
        if let Err(error) = sent {
            debug!("tftp: sending to {}: {error}", self.peer);
        }
    }
}
