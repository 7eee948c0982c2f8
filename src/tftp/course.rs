//! One transfer with what it owns: a socket, the file's bytes, and the clock.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::debug;

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
        let outcome = loop {
            match self.transfer.poll(Instant::now()) {
                Action::SendOack => self.send(&packet::oack(&self.transfer.granted().oack)).await,
                Action::Send(blocks) => {
                    for block in blocks {
                        self.send_block(block).await;
                    }
                }
                Action::Wait(until) => {
                    tokio::select! {
                        received = self.socket.recv_from(&mut buffer) => {
                            if let Ok((len, from)) = received {
                                self.take(&buffer[..len], from).await;
                            }
                        }
                        repeated = self.repetitions.recv() => match repeated {
                            Some(()) => self.transfer.handle_repeated_request(),
                            None => break Outcome::Replaced,
                        },
                        () = tokio::time::sleep_until(until.into()) => {
                            self.transfer.handle_timeout(Instant::now());
                        }
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

    async fn send_block(&self, block: u64) {
        let extent = self.transfer.extent(block);
        let data = &self.content[extent.start as usize..extent.end as usize];
        let mut packet = Vec::with_capacity(4 + data.len());
        packet.extend(data_header(block));
        packet.extend(data);
        self.send(&packet).await;
    }

    /// A datagram that the kernel does not take is like one that is lost on the way: it is sent again.
    async fn send(&self, packet: &[u8]) {
        if let Err(error) = self.socket.send_to(packet, self.peer).await {
            debug!("tftp: sending to {}: {error}", self.peer);
        }
    }
}
