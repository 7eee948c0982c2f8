//! UDP sockets that know on which interface and to which address a datagram came, and that send from
//! there: a wildcard socket would answer from whatever address the kernel prefers, which a client
//! that asked another one ignores.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use nix::libc::{in_addr, in_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, getsockopt, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A bound socket.
#[derive(Debug)]
pub struct Udp(UdpSocket);

/// Whether others may have a socket on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Refused,
    Granted,
}

/// Room for the windows of a rack, in bytes.
const SEND_BUFFER: usize = 4 << 20;
/// Room for some thousand requests that wait, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How a datagram came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length.
    pub len: usize,
    /// Its sender.
    pub from: SocketAddrV4,
    /// The index of the interface that it came in on.
    pub interface: u32,
    /// Our address on that interface, which an answer is sent from.
    pub local: Ipv4Addr,
}

impl Udp {
    /// Binds a port on every address, for ourselves alone.
    ///
    /// # Errors
    /// The port is taken, or this user may not have it.
    pub fn bind(port: u16) -> io::Result<Self> {
        Self::bind_at(Ipv4Addr::UNSPECIFIED, port, Sharing::Refused)
    }

    /// Binds a port, beside whoever shares it too: the kernel gives every one of them each broadcast,
    /// and a unicast only to the one that is bound most closely to where it goes, of equals the one
    /// that came last. Bound to 255.255.255.255 we get the broadcasts and take nobody's unicasts.
    ///
    /// # Errors
    /// The port is taken by who shares it with nobody, or this user may not have it.
    pub fn bind_beside_others(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        Self::bind_at(address, port, Sharing::Granted)
    }

    fn bind_at(address: Ipv4Addr, port: u16, sharing: Sharing) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_broadcast(true)?;
        socket.set_nonblocking(true)?;
        enlarge_receive_buffer(&socket)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        socket.set_reuse_address(sharing == Sharing::Granted)?;
        socket.bind(&SocketAddrV4::new(address, port).into())?;
        Ok(Self(UdpSocket::from_std(socket.into())?))
    }

    /// Has the kernel drop every datagram whose four bytes at `offset` are not `value` under `mask`:
    /// what is broadcast for others then wakes nobody.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn keep_only(&self, offset: u32, (value, mask): (u32, u32)) -> io::Result<()> {
        // linux/filter.h: load a word, and it with a constant, compare and jump, return.
        const LOAD: u16 = 0x20;
        const AND: u16 = 0x54;
        const JUMP_UNLESS_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        const UDP_HEADER: u32 = 8;
        SockRef::from(&self.0).attach_filter(&[
            SockFilter::new(LOAD, 0, 0, UDP_HEADER + offset),
            SockFilter::new(AND, 0, 0, mask),
            SockFilter::new(JUMP_UNLESS_EQUAL, 0, 1, value),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
            SockFilter::new(RETURN, 0, 0, 0),
        ])
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    /// What the kernel reports, which may be the fate of a datagram that was sent before.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0.async_io(Interest::READABLE, || self.try_receive(buffer)).await
    }

    /// A datagram that is there already.
    ///
    /// # Errors
    /// There is none ([`io::ErrorKind::WouldBlock`]), or what the kernel reports.
    pub fn receive_now(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.0.try_io(Interest::READABLE, || self.try_receive(buffer))
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = nix::cmsg_space!(in_pktinfo);
        let mut slices = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrIn>(
            self.0.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let from =
            message.address.ok_or_else(|| io::Error::other("a datagram without a sender"))?;
        let info = message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
            _ => None,
        });
        let info = info.ok_or_else(|| io::Error::other("a datagram without IP_PKTINFO"))?;
        Ok(Received {
            len: message.bytes,
            from: SocketAddrV4::new(from.ip(), from.port()),
            interface: u32::try_from(info.ipi_ifindex).unwrap_or(0),
            local: Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()),
        })
    }

    /// Sends a datagram to `to` from `local`; a broadcast leaves on the interface `interface`.
    ///
    /// # Errors
    /// What the kernel reports of this datagram.
    pub async fn send(
        &self,
        datagram: &[u8],
        to: SocketAddrV4,
        from: (Ipv4Addr, u32),
    ) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || self.try_send(datagram, to, from)).await
    }

    /// Sends a datagram as [`Udp::send`] does, if the kernel takes it now.
    ///
    /// # Errors
    /// It does not ([`io::ErrorKind::WouldBlock`]), or what it reports of this datagram.
    pub fn send_now(
        &self,
        datagram: &[u8],
        to: SocketAddrV4,
        from: (Ipv4Addr, u32),
    ) -> io::Result<()> {
        self.0.try_io(Interest::WRITABLE, || self.try_send(datagram, to, from))
    }

    fn try_send(
        &self,
        datagram: &[u8],
        to: SocketAddrV4,
        (local, interface): (Ipv4Addr, u32),
    ) -> io::Result<()> {
        // A unicast reply goes where the routes say: behind a relay that may be another interface.
        let interface = if to.ip().is_broadcast() { interface } else { 0 };
        let info = in_pktinfo {
            ipi_ifindex: i32::try_from(interface).unwrap_or(0),
            ipi_spec_dst: in_addr { s_addr: u32::from_ne_bytes(local.octets()) },
            ipi_addr: in_addr { s_addr: 0 },
        };
        let slices = [IoSlice::new(datagram)];
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrIn::from(to);
        sendmsg(self.0.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&to))?;
        Ok(())
    }
}

/// Binds any port of an address, for many who are talked to at once.
///
/// # Errors
/// The address is not ours, or there is no port left.
pub fn bind_for_many(address: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    enlarge_receive_buffer(&socket)?;
    // What goes to a machine that has just been switched off waits for its hardware address, and takes
    // room from the others meanwhile.
    if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        socket.set_send_buffer_size(SEND_BUFFER)?;
    }
    socket.bind(&SocketAddrV4::new(address, 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// How many bytes a frame on the way from `local` to `to` carries, the IP header included.
///
/// # Errors
/// There is no way.
pub fn path_mtu(local: Ipv4Addr, to: SocketAddrV4) -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind((local, 0))?;
    socket.connect(to)?;
    let mtu = getsockopt(&socket, sockopt::IpMtu)?;
    u64::try_from(mtu).map_err(io::Error::other)
}

/// A whole rack that is switched on at once. Only root may have more than net.core.rmem_max; the kernel
/// grants less than is asked for, which is no error.
fn enlarge_receive_buffer(socket: &Socket) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    Ok(())
}
