//! Packet sockets (packet(7)) and the offload switches of an interface: everything here that safe
//! wrappers leave out.
#![expect(
    unsafe_code,
    reason = "sockaddr_ll, PACKET_* options and SIOCETHTOOL have no safe wrapper"
)]

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    time::Duration,
};

use ipnet::Ipv4Net;
use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg,
            send, setsockopt, socket, sockopt,
        },
        time::TimeSpec,
    },
};

/// A raw socket on one interface. It reads and writes whole Ethernet frames and never blocks.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    control: Vec<u8>,
}

/// Whether a socket shows the frames its own machine sends by the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outgoing {
    Shown,
    Ignored,
}

/// What the kernel says about a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Octets of the frame, which may be more than were stored.
    pub(crate) length: usize,
    /// The frame was sent by this side of the link.
    pub(crate) outgoing: bool,
    /// When the kernel saw it, since the Unix epoch.
    pub(crate) at: Duration,
}

impl PacketSocket {
    /// Opens a socket on `interface` of the calling thread's namespace.
    pub(crate) fn open(interface: &str, outgoing: Outgoing) -> io::Result<Self> {
        Self::open_with(interface, outgoing, &[])
    }

    /// As [`PacketSocket::open`], for IPv4 frames to or from a network only: the kernel keeps the rest
    /// away, so that a download beside them costs no buffer.
    pub(crate) fn open_for(
        interface: &str,
        outgoing: Outgoing,
        network: Ipv4Net,
    ) -> io::Result<Self> {
        Self::open_with(interface, outgoing, &to_or_from(network))
    }

    fn open_with(
        interface: &str,
        outgoing: Outgoing,
        filter: &[libc::sock_filter],
    ) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        // Without a protocol the socket hears nothing until it is bound to its interface.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        if outgoing == Outgoing::Ignored {
            ignore_outgoing(&fd)?;
        }
        if !filter.is_empty() {
            attach(&fd, filter)?;
        }
        bind(&fd, if_nametoindex(interface)?)?;
        Ok(Self {
            fd,
            control: nix::cmsg_space!(TimeSpec),
        })
    }

    /// Takes one waiting frame into `buffer`; `None` when none waits. A frame longer than the buffer is
    /// cut, its length tells.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Received>> {
        let mut parts = [IoSliceMut::new(buffer)];
        let raw = self.fd.as_raw_fd();
        let answer = recvmsg::<LinkAddr>(
            raw,
            &mut parts,
            Some(&mut self.control),
            MsgFlags::MSG_TRUNC,
        );
        let message = match answer {
            Ok(message) => message,
            Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stamp = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        });
        let outgoing = message
            .address
            .is_some_and(|from| from.pkttype() == libc::PACKET_OUTGOING);
        Ok(Some(Received {
            length: message.bytes,
            outgoing,
            at: stamp.unwrap_or_default(),
        }))
    }

    /// Sends one frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Frames lost since the last call because they were not fetched in time.
    pub(crate) fn lost(&self) -> io::Result<u32> {
        let mut counts = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = socklen::<libc::tpacket_stats>();
        // SAFETY: `counts` is a live tpacket_stats and `length` its size, as PACKET_STATISTICS wants.
        let answer = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                ptr::from_mut(&mut counts).cast(),
                &raw mut length,
            )
        };
        succeeded(answer)?;
        Ok(counts.tp_drops)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether this process may open packet sockets at all.
pub(crate) fn are_allowed() -> nix::Result<()> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map(drop)
}

/// Switches checksum and segmentation offloads of an interface off: what leaves it then looks as it
/// would on a cable. A frame with a checksum left to the hardware would be wrong once a packet socket
/// has passed it on, and a 64 KB segment would not fit anywhere.
pub(crate) fn switch_offloads_off(interface: &str) -> io::Result<()> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    OFFLOAD_SWITCHES
        .iter()
        .try_for_each(|&switch| ethtool_set(&fd, interface, switch, 0))
}

/// Asked for; the kernel grants up to net.core.rmem_max.
const RECEIVE_BUFFER: usize = 8 << 20;

/// linux/ethtool.h: STSO, SGSO, SGRO, then STXCSUM, on which the others depend.
const OFFLOAD_SWITCHES: &[u32] = &[0x1f, 0x24, 0x2c, 0x17];

/// linux/if_packet.h
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

fn ignore_outgoing(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes a C int; pointer and length are those of `on`, which outlives the call.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            ptr::from_ref(&on).cast(),
            socklen::<libc::c_int>(),
        )
    };
    succeeded(answer)
}

/// A classic BPF program (Documentation/networking/filter.rst) that accepts Ethernet frames with an
/// IPv4 packet to or from a network.
fn to_or_from(network: Ipv4Net) -> [libc::sock_filter; 10] {
    const ETHER_TYPE: u32 = 12;
    const IPV4: u32 = 0x0800;
    const SOURCE: u32 = 26;
    const DESTINATION: u32 = 30;
    let (mask, wanted) = (u32::from(network.netmask()), u32::from(network.network()));
    let load = |size, offset| instruction(libc::BPF_LD | size | libc::BPF_ABS, offset);
    let masked = instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask);
    // Jumps say how many instructions to leave out if equal, and if not.
    let jump = |value, equal, other| libc::sock_filter {
        jt: equal,
        jf: other,
        ..instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    };
    let accept = |octets| instruction(libc::BPF_RET | libc::BPF_K, octets);
    [
        load(libc::BPF_H, ETHER_TYPE),
        jump(IPV4, 0, 7),
        load(libc::BPF_W, SOURCE),
        masked,
        jump(wanted, 3, 0),
        load(libc::BPF_W, DESTINATION),
        masked,
        jump(wanted, 0, 1),
        accept(u32::MAX),
        accept(0),
    ]
}

fn instruction(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).expect("operation codes have 16 bits"),
        jt: 0,
        jf: 0,
        k,
    }
}

fn attach(fd: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points at `len` instructions that outlive the call; the kernel copies them and
    // writes to none.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            ptr::from_ref(&program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    };
    succeeded(answer)
}

fn bind(fd: &OwnedFd, index: u32) -> io::Result<()> {
    let every_protocol = u16::try_from(libc::ETH_P_ALL).expect("an EtherType has 16 bits");
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).expect("address families are small"),
        sll_protocol: every_protocol.to_be(),
        sll_ifindex: index.try_into().map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: pointer and length are those of `address`, a whole sockaddr_ll that outlives the call.
    let answer = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            socklen::<libc::sockaddr_ll>(),
        )
    };
    succeeded(answer)
}

/// linux/ethtool.h `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

fn ethtool_set(fd: &OwnedFd, interface: &str, command: u32, data: u32) -> io::Result<()> {
    let mut value = EthtoolValue { command, data };
    let mut request = libc::ifreq {
        ifr_name: interface_name(interface)?,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: ptr::from_mut(&mut value).cast(),
        },
    };
    // SAFETY: the request names an interface by a terminated string and points at `value`; both
    // outlive the call, which reads and writes no further than their sizes.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    succeeded(answer)
}

fn interface_name(interface: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    if interface.len() >= name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("`{interface}` is too long a name"),
        ));
    }
    for (place, octet) in name.iter_mut().zip(interface.bytes()) {
        *place = octet.cast_signed();
    }
    Ok(name)
}

fn socklen<T>() -> libc::socklen_t {
    size_of::<T>()
        .try_into()
        .expect("socket structures are small")
}

fn succeeded(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
