//! The ports that transfers leave from: never the one that was asked (RFC 1350 section 4), and few, so
//! that one system call takes in what has come from many clients, and one sends what goes to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll};

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmsg};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::debug;

use crate::pure::tftp::options::{MAX_BLKSIZE, MAX_WINDOWSIZE};
use crate::pure::tftp::packet::data_header;
use crate::pure::tftp::pieces::Piece;
use crate::pure::tftp::transfer::extent;
use crate::sys::udp;

/// How many ports each of our addresses has. A client that asks anew from the same port of its own gets
/// the next of ours: what is late of its last transfer is not taken for the new one's.
const PORTS: usize = 4;
/// How many datagrams a system call takes.
const BATCH: usize = 32;
/// The longest packet of a client that a transfer is for: an ERROR with its text.
const LONGEST: usize = 1024;

thread_local! {
    /// There are pointers in these, and so they cannot be a part of what may move to another thread.
    static HEADERS: RefCell<MultiHeaders<SockaddrIn>> =
        RefCell::new(MultiHeaders::preallocate(BATCH, None));
}

/// One of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PortId(u64);

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    open: BTreeMap<PortId, Port>,
    /// How many were opened.
    opened: u64,
    /// How often one was taken.
    taken: u64,
}

#[derive(Debug)]
struct Port {
    socket: UdpSocket,
    address: Ipv4Addr,
    transfers: usize,
    /// At which taking it was taken last.
    taken: u64,
    /// What is to be sent, and to whom.
    queue: VecDeque<(SocketAddrV4, Outgoing)>,
}

/// What goes out.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A packet.
    Packet(Vec<u8>),
    /// Blocks of a file, each in a packet.
    Blocks(Blocks),
}

/// Blocks of a file, and the piece of it that they are in.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    pub(crate) piece: Piece,
    pub(crate) blksize: u64,
    /// The length of the file.
    pub(crate) len: u64,
    pub(crate) numbers: RangeInclusive<u64>,
}

impl Blocks {
    fn is_one(&self) -> bool {
        self.numbers.start() == self.numbers.end()
    }

    fn data(&self, block: u64) -> &[u8] {
        self.piece.bytes(extent(block, self.blksize, self.len))
    }
}

/// What has come in by one system call.
#[derive(Debug)]
pub(crate) struct Inbox {
    buffers: Box<[[u8; LONGEST]]>,
    arrived: Vec<(SocketAddrV4, usize)>,
}

impl Default for Inbox {
    fn default() -> Self {
        let buffers = vec![[0; LONGEST]; BATCH].into_boxed_slice();
        Self { buffers, arrived: Vec::with_capacity(BATCH) }
    }
}

impl Inbox {
    /// Each datagram, and who sent it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
        self.arrived.iter().zip(&self.buffers).map(|((from, len), buffer)| (*from, &buffer[..*len]))
    }
}

impl Ports {
    /// A port at `address` for one more transfer, if possible none where its client `was_there`. Where
    /// that is a new one of our addresses, the ports of those are closed that are not ours any more.
    pub(crate) fn take(
        &mut self,
        address: Ipv4Addr,
        is_ours: impl Fn(Ipv4Addr) -> bool,
        was_there: impl Fn(PortId) -> bool,
    ) -> io::Result<PortId> {
        let count = self.open.values().filter(|port| port.address == address).count();
        if count == 0 {
            self.open.retain(|_, port| port.transfers > 0 || is_ours(port.address));
        }
        if count < PORTS {
            match Port::open(address) {
                Ok(port) => {
                    self.opened += 1;
                    self.open.insert(PortId(self.opened), port);
                }
                Err(error) if count == 0 => return Err(error),
                Err(error) => debug!("tftp: no further port at {address}: {error}"),
            }
        }
        self.taken += 1;
        let here = self.open.iter_mut().filter(|(_, port)| port.address == address);
        let longest_ago = here.min_by_key(|(id, port)| (was_there(**id), port.taken));
        let (id, port) = longest_ago.ok_or_else(|| io::Error::other("no port is open"))?;
        port.transfers += 1;
        port.taken = self.taken;
        Ok(*id)
    }

    /// Which of our addresses a port is at.
    pub(crate) fn address(&self, id: PortId) -> Option<Ipv4Addr> {
        self.open.get(&id).map(|port| port.address)
    }

    /// A transfer has ended.
    pub(crate) fn give_back(&mut self, id: PortId) {
        if let Some(port) = self.open.get_mut(&id) {
            port.transfers -= 1;
        }
    }

    /// Waits until something has come to any of them, and meanwhile sends what could not be sent.
    pub(crate) async fn wait(&mut self) {
        poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut has_come = Poll::Pending;
        for port in self.open.values_mut() {
            while !port.queue.is_empty() && port.socket.poll_send_ready(context).is_ready() {
                port.flush();
            }
            if port.socket.poll_recv_ready(context).is_ready() {
                has_come = Poll::Ready(());
            }
        }
        has_come
    }

    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PortId> + use<> {
        self.open.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// Takes in what has come to a port, as much as one call does; whether there was anything.
    pub(crate) fn receive(&self, id: PortId, inbox: &mut Inbox) -> bool {
        let Inbox { buffers, arrived } = inbox;
        arrived.clear();
        if let Some(Port { socket, .. }) = self.open.get(&id) {
            let receive = || {
                let receive = |headers: &mut _| receive(socket, headers, buffers, arrived);
                HEADERS.with_borrow_mut(receive)?;
                // With room left there is no more: tokio need not ask the kernel again to know.
                if arrived.len() == BATCH { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
            };
            match socket.try_io(Interest::READABLE, receive) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    debug!("tftp: receiving: {error}");
                }
                _ => {}
            }
        }
        !arrived.is_empty()
    }

    /// Has something sent from a port, at the next [`Ports::flush`].
    pub(crate) fn send(&mut self, id: PortId, to: SocketAddrV4, what: Outgoing) {
        if let Some(port) = self.open.get_mut(&id) {
            port.queue.push_back((to, what));
        }
    }

    /// Sends what is to be sent, as far as the kernel takes it now.
    pub(crate) fn flush(&mut self) {
        for port in self.open.values_mut() {
            port.flush();
        }
    }
}

fn receive(
    socket: &UdpSocket,
    headers: &mut MultiHeaders<SockaddrIn>,
    buffers: &mut [[u8; LONGEST]],
    arrived: &mut Vec<(SocketAddrV4, usize)>,
) -> io::Result<()> {
    let mut slices: Vec<[IoSliceMut<'_>; 1]> =
        buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmmsg(socket.as_raw_fd(), headers, &mut slices, flags, None)?;
    arrived.extend(received.filter_map(|message| {
        let from = message.address?;
        Some((SocketAddrV4::new(from.ip(), from.port()), message.bytes))
    }));
    Ok(())
}

impl Port {
    fn open(address: Ipv4Addr) -> io::Result<Self> {
        let socket = udp::bind_for_many(address)?;
        Ok(Self { socket, address, transfers: 0, taken: 0, queue: VecDeque::new() })
    }

    fn flush(&mut self) {
        while let Some((to, what)) = self.queue.front() {
            let to = *to;
            let sent = match what {
                Outgoing::Blocks(blocks) if !blocks.is_one() => {
                    self.socket.try_io(Interest::WRITABLE, || send_window(&self.socket, to, blocks))
                }
                Outgoing::Blocks(_) | Outgoing::Packet(_) => {
                    self.socket.try_io(Interest::WRITABLE, || send_each(&self.socket, &self.queue))
                }
            };
            match sent {
                Ok(count) => drop(self.queue.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    debug!("tftp: sending to {to}: {error}");
                    // A datagram that the kernel does not take is like one that is lost on the way. But a
                    // window may only be too much at once: this way to the client may have a card that
                    // computes no checksums, or frames that are smaller than a block.
                    if let Some((to, Outgoing::Blocks(blocks))) = self.queue.pop_front()
                        && !blocks.is_one()
                    {
                        for block in blocks.numbers.clone().rev() {
                            let one = Blocks { numbers: block..=block, ..blocks.clone() };
                            self.queue.push_front((to, Outgoing::Blocks(one)));
                        }
                    }
                }
            }
        }
    }
}

/// Sends the blocks of a window by one call. The kernel cuts them apart as late as it can (UDP GSO), and
/// all that it does before is done once.
fn send_window(socket: &UdpSocket, to: SocketAddrV4, blocks: &Blocks) -> io::Result<usize> {
    const MOST: usize = MAX_WINDOWSIZE as usize;
    let mut headers = [[0; 4]; MOST];
    for (header, block) in headers.iter_mut().zip(blocks.numbers.clone()) {
        *header = data_header(block);
    }
    let mut slices = [IoSlice::new(&[]); 2 * MOST];
    let mut count = 0;
    for (header, block) in headers.iter().zip(blocks.numbers.clone()) {
        slices[count] = IoSlice::new(header);
        slices[count + 1] = IoSlice::new(blocks.data(block));
        count += 2;
    }
    const _: () = assert!(4 + MAX_BLKSIZE <= u16::MAX as u64);
    let segment = 4 + blocks.blksize as u16;
    let cut = [ControlMessage::UdpGsoSegments(&segment)];
    let to = SockaddrIn::from(to);
    sendmsg(socket.as_raw_fd(), &slices[..count], &cut, MsgFlags::empty(), Some(&to))?;
    Ok(1)
}

/// Sends what is first in the queue up to the next window; how much of it went.
fn send_each(socket: &UdpSocket, queue: &VecDeque<(SocketAddrV4, Outgoing)>) -> io::Result<usize> {
    let is_single = |what: &Outgoing| match what {
        Outgoing::Packet(_) => true,
        Outgoing::Blocks(blocks) => blocks.is_one(),
    };
    let first = || queue.iter().take(BATCH).take_while(|(_, what)| is_single(what));
    let mut headers = [[0; 4]; BATCH];
    for (header, (_, what)) in headers.iter_mut().zip(first()) {
        if let Outgoing::Blocks(blocks) = what {
            *header = data_header(*blocks.numbers.start());
        }
    }
    let slices: Vec<_> = first()
        .zip(&headers)
        .map(|((_, what), header)| match what {
            Outgoing::Packet(packet) => [IoSlice::new(packet), IoSlice::new(&[])],
            Outgoing::Blocks(blocks) => {
                let data = blocks.data(*blocks.numbers.start());
                [IoSlice::new(header), IoSlice::new(data)]
            }
        })
        .collect();
    let addresses: Vec<_> = first().map(|(to, _)| to.as_any()).collect();
    let mut controls: Vec<_> = first().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = addresses
        .iter()
        .zip(&slices)
        .zip(&mut controls)
        .map(|((to, slices), control)| MMsgHdr::new_with_addr(to, slices, control))
        .collect();
    Ok(sendmmsg(socket, &mut messages, SendFlags::empty())?)
}
