//! The transfers under way: what comes to their ports, and what goes out.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::{Read, Ready, Server};
use crate::pure::event::boot::Event;
use crate::pure::tftp::options::{Most, negotiate};
use crate::pure::tftp::packet::{self, ErrorCode, Packet};
use crate::pure::tftp::pieces::{Done, Piece, Reader};
use crate::pure::tftp::transfer::{Action, Outcome, Transfer, extent};
use crate::server::shared_files::{Content, OpenFile};
use crate::server::tftp::access::is_near;
use crate::server::tftp::ports::{Blocks, Inbox, Outgoing, PortId};
use crate::server::tftp::sessions::{Running, Session};
use crate::sys::interfaces::Interface;
use crate::sys::udp::path_mtu;

/// What an Ethernet frame carries.
const ETHERNET: u64 = 1500;
/// Why a client gets no more of a file, as its console shows it.
const UNREADABLE: &str = "the file cannot be read; the server's log says why";

impl Server {
    /// Begins the transfer of a file that was read.
    pub(super) fn begin(&mut self, Read { peer, number, file, read }: Read) {
        let now = Instant::now();
        let is_its = |session: &&mut Session| session.number == number;
        let Some(session) = self.sessions.get_mut(peer).filter(is_its) else {
            return;
        };
        let Ready { content, kind, whose } = match read {
            Ok(read) => read,
            Err(reason) => {
                let (port, subject) = (session.port, session.subject.clone());
                self.sessions.remove(peer, now);
                self.ports.give_back(port);
                self.registry.record(Event { subject, step: reason.step(file) });
                self.send_error((port, peer), ErrorCode::AccessViolation, UNREADABLE, now);
                return;
            }
        };
        if let Some(whose) = whose {
            (session.subject, session.id) = whose;
        }
        let mtu = self.ports.address(session.port).map_or(Ok(ETHERNET), |at| path_mtu(at, peer));
        let carries = Most::over(mtu.unwrap_or(ETHERNET));
        let most = self.history.most(*peer.ip(), carries, now);
        let granted = negotiate(&session.request, content.len(), most);
        let sends = self.limits.max_unanswered;
        let transfer = Transfer::accept(granted, content.len(), sends, now);
        session.running = Some(Running { transfer, content, file, kind });
        self.advance(peer, now);
    }

    /// Takes up what came to the transfers' ports, a part from each; whether there was anything.
    pub(super) fn take_packets(&mut self, inbox: &mut Inbox) -> bool {
        let now = Instant::now();
        let mut any = false;
        for port in self.ports.ids() {
            any |= self.ports.receive(port, inbox);
            for (from, datagram) in inbox.iter() {
                self.take_packet((port, from), datagram, now);
            }
        }
        any
    }

    fn take_packet(&mut self, (port, from): (PortId, SocketAddrV4), datagram: &[u8], now: Instant) {
        let packet = Packet::decode(datagram);
        let is_its = |session: &&mut Session| session.port == port;
        if let Some(session) = self.sessions.get_mut(from).filter(is_its) {
            if let (Some(running), Ok(packet)) = (&mut session.running, packet) {
                running.transfer.handle(&packet, now);
                self.advance(from, now);
            }
            return;
        }
        // An ERROR is never answered: two servers would go on for ever.
        let is_error = matches!(packet, Ok(Packet::Error(..)));
        if !is_error && !self.sessions.is_late(from, port, now) && self.is_near(from) {
            // RFC 1350 section 4: tell the stranger, and go on.
            let (code, text) = (ErrorCode::UnknownTransferId, "this transfer is not yours");
            self.send_error((port, from), code, text, now);
        }
    }

    pub(super) fn time_out(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.sessions.alarmed(now) {
            if let Some(Session { running: Some(running), .. }) = self.sessions.get_mut(peer) {
                running.transfer.handle_timeout(now);
                self.advance(peer, now);
            }
        }
    }

    /// Does what a transfer wants to have done.
    pub(super) fn advance(&mut self, peer: SocketAddrV4, now: Instant) {
        while let Some(session) = self.sessions.get_mut(peer)
            && let Session { running: Some(running), port, is_known, .. } = session
        {
            let Running { transfer, content, .. } = running;
            let what = match transfer.poll(now) {
                Action::SendOack => Outgoing::Packet(packet::oack(&transfer.granted().oack)),
                Action::Send(numbers) => {
                    let (blksize, len) = (transfer.granted().blksize, content.len());
                    let first = extent(*numbers.start(), blksize, len);
                    let window = first.start..extent(*numbers.end(), blksize, len).end;
                    let (is_known, is_proven) = (*is_known, transfer.is_proven());
                    let piece = match content {
                        Content::Whole(bytes) => Some(Piece::whole(bytes)),
                        Content::Open(file) => {
                            let reader = Reader { peer, is_known, is_proven };
                            self.pieces.get((file, len), &window, reader)
                        }
                    };
                    let Some(piece) = piece else {
                        let until = transfer.await_data(now);
                        return self.sessions.wake(peer, until);
                    };
                    transfer.mark_sent(&numbers, now);
                    Outgoing::Blocks(Blocks { piece, blksize, len, numbers })
                }
                Action::Wait(until) => return self.sessions.wake(peer, until),
                Action::Done(outcome) => return self.end(peer, outcome, now),
            };
            self.ports.send(*port, peer, what);
        }
    }

    /// Ends a session, if there is one.
    pub(super) fn end(&mut self, peer: SocketAddrV4, outcome: Outcome, now: Instant) {
        let Some(session) = self.sessions.remove(peer, now) else {
            return;
        };
        self.pieces.leave(peer);
        self.ports.give_back(session.port);
        if let Outcome::Unreadable(_) = outcome {
            self.send_error((session.port, peer), ErrorCode::AccessViolation, UNREADABLE, now);
        }
        if let Some(Running { transfer, .. }) = &session.running {
            self.history.learn(*peer.ip(), (session.started, now), (transfer, &outcome));
        }
        let id = session.id;
        self.registry.record_in(session.ended(outcome, now), id);
    }

    /// Has the pieces read that transfers need, as far as there is memory.
    pub(super) fn read_pieces(&mut self) {
        while let Some(job) = self.pieces.next_read() {
            self.reading_pieces.spawn_blocking(|| job.run(OpenFile::read));
        }
    }

    /// Continues the transfers that waited for a piece.
    pub(super) fn take_piece(&mut self, done: Done<OpenFile>) {
        let now = Instant::now();
        let (waited, result) = self.pieces.finish(done);
        for peer in waited {
            if let Some(Session { running: Some(running), .. }) = self.sessions.get_mut(peer) {
                if let Err(why) = &result {
                    running.transfer.fail(why.clone());
                }
                self.advance(peer, now);
            }
        }
    }

    fn is_near(&self, from: SocketAddrV4) -> bool {
        let served = Arc::clone(&self.served.borrow());
        let interfaces: Vec<&Interface> = served.iter().collect();
        let is_known = || self.registry.leased_by(*from.ip()).is_some();
        is_near(from, &interfaces, &self.limits, is_known)
    }

    pub(super) fn may_send_error(&mut self, to: Ipv4Addr, now: Instant) -> bool {
        let is_known = self.subject_at(to).name.is_some();
        let is_sent = self.errors.spend((to, is_known), now);
        if !is_sent && let Some(count) = self.unsent_errors.tell() {
            warn!(
                "tftp: too many ERROR replies; {count} were not sent since the start, the last to {to} (`server.tftp.max_errors` limits them in all)"
            );
        }
        is_sent
    }

    /// Sends an ERROR from a transfer's port.
    fn send_error(
        &mut self,
        (port, to): (PortId, SocketAddrV4),
        code: ErrorCode,
        text: &str,
        now: Instant,
    ) {
        if self.may_send_error(*to.ip(), now) {
            self.ports.send(port, to, Outgoing::Packet(packet::error(code, text)));
        }
    }
}
