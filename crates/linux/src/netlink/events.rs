//! What happens to a network while nobody here does anything: links, addresses, routes and switches over rtnetlink(7), and the
//! rules of nftables over `NETLINK_NETFILTER` (`uapi/linux/netfilter/nf_tables.h`).
//!
//! Open this before looking at what is so: what changes after the look is then heard of here, and nothing is polled.

use std::io;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;

use super::message::{announcements, attributes};
use super::{LARGEST_PART, NetlinkError};
use crate::fd_stream::FdStream;

/// Links, their IPv4 addresses, IPv4 routes, and the switches below `net.ipv4.conf`: `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`,
/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_NETCONF`, each as a bit.
const LINKS: u32 = group(1) | group(5) | group(7) | group(24);

/// `NFNLGRP_NFTABLES`.
const RULES: u32 = group(7);

/// `NFT_MSG_NEWGEN` of `NFNL_SUBSYS_NFTABLES`: a transaction is done.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// `NFTA_GEN_PROC_PID`.
const BY: u16 = 2;

/// Something that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Links, addresses, routes or switches are others.
    Links,
    /// Rules are others.
    Rules {
        /// The process that changed them, as the initial pid namespace counts; nothing where the kernel does not say.
        by: Option<u32>,
    },
    /// There was more than could be kept: anything may be another.
    Lost,
}

/// Two sockets that hear of all changes since they were opened.
#[derive(Debug)]
pub struct Events {
    links: FdStream,
    rules: FdStream,
}

impl Events {
    /// Begins to listen, in the network namespace of the calling thread and for its event loop.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`]: rules are announced to `CAP_NET_ADMIN` alone.
    pub fn open() -> Result<Events, NetlinkError> {
        let failed = |source| NetlinkError::Socket { attempted: "follow changes of the network".to_owned(), source };
        Ok(Events {
            links: listen(None, LINKS).map_err(failed)?,
            rules: listen(Some(NETFILTER), RULES).map_err(failed)?,
        })
    }

    /// Waits until something has happened, and takes all that has. Where this is given up, nothing is lost.
    ///
    /// # Errors
    /// Those of epoll(7) and recv(2).
    pub async fn next(&self) -> io::Result<Vec<Event>> {
        loop {
            let events = self.take()?;
            if !events.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                ready = self.links.readable() => ready?,
                ready = self.rules.readable() => ready?,
            }
        }
    }

    /// Takes what has happened by now, if anything.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn take(&self) -> io::Result<Vec<Event>> {
        let mut events = drain(&self.links, |_| Some(Event::Links))?;
        events.extend(drain(&self.rules, generation)?);
        Ok(events)
    }
}

const fn group(number: u32) -> u32 {
    1 << (number - 1)
}

fn listen(protocol: Option<Protocol>, groups: u32) -> io::Result<FdStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    FdStream::new(socket, Interest::READABLE)
}

/// All that is there, as far as `event` makes something of it. What is the same as the one before is left out.
fn drain(socket: &FdStream, event: impl Fn(&[u8]) -> Option<Event>) -> io::Result<Vec<Event>> {
    let (mut events, mut buffer) = (Vec::new(), vec![0; LARGEST_PART]);
    loop {
        match rustix::net::recv(socket.as_fd(), &mut buffer[..], RecvFlags::empty()) {
            Ok((length, _)) => events.extend(event(&buffer[..length.min(LARGEST_PART)])),
            Err(Errno::NOBUFS) => events.push(Event::Lost),
            Err(Errno::AGAIN) => {
                events.dedup();
                return Ok(events);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The end of a transaction, if one is among these announcements. Its pid is in network byte order, behind a `struct nfgenmsg`.
fn generation(bytes: &[u8]) -> Option<Event> {
    let (_, body) = announcements(bytes).find(|(kind, _)| *kind == NEW_GENERATION)?;
    let by = attributes(body.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == BY);
    let by = by.and_then(|(_, pid)| Some(u32::from_be_bytes(pid.try_into().ok()?)));
    Some(Event::Rules { by })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{LinkChange, Mac, Netlink};
    use crate::netns;
    use crate::process::{Launch, Process, Program};

    fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
        let ran = netns::in_new_network(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    #[test]
    fn links_and_switches_are_heard_of() {
        elsewhere(async || {
            let (events, mut netlink) = (Events::open().unwrap(), Netlink::open().unwrap());
            assert_eq!(events.take().unwrap(), []);
            netlink.add_bridge("br0", Mac([2, 0, 0, 0, 0, 7])).unwrap();
            assert_eq!(events.next().await.unwrap(), [Event::Links]);
            let link = netlink.link("br0").unwrap().unwrap();
            for change in 0..3 {
                match change {
                    0 => netlink.add_address(&link, [10, 9, 0, 1].into(), 24).unwrap(),
                    1 => std::fs::write("/proc/sys/net/ipv4/conf/br0/forwarding", "1").unwrap(),
                    _ => netlink.change_link(&link, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap(),
                }
                assert_eq!(events.next().await.unwrap(), [Event::Links], "{change}");
            }
        });
    }

    #[test]
    fn rules_are_heard_of_with_who_changed_them() {
        elsewhere(async || {
            let events = Events::open().unwrap();
            let nft = Process::start(Launch::new(Program::Nft, ["add", "table", "ip", "t"])).unwrap();
            let heard = events.next().await.unwrap();
            nft.ended().await.unwrap();
            // Another pid namespace than the initial one has other numbers.
            let expected = std::fs::read_to_string("/proc/self/status").unwrap();
            let outermost =
                expected.lines().any(|line| line.split_whitespace().count() == 2 && line.starts_with("NSpid"));
            match heard[..] {
                [Event::Rules { by: Some(by) }] if outermost => assert_eq!(by, nft.pid()),
                [Event::Rules { by: Some(_) }] => {
                    banger_skip::skipped!("whose change it was: not the outermost pid namespace")
                }
                _ => panic!("{heard:?}"),
            }
        });
    }

    #[test]
    fn what_is_too_much_is_told() {
        elsewhere(async || {
            let (events, mut netlink) = (Events::open().unwrap(), Netlink::open().unwrap());
            netlink.add_bridge("br1", Mac([2, 0, 0, 0, 0, 7])).unwrap();
            let link = netlink.link("br1").unwrap().unwrap();
            // Two kilobytes each, and the kernel's default is to keep some hundred.
            for mtu in 1000..1300 {
                netlink.change_link(&link, &LinkChange { mtu: Some(mtu), ..LinkChange::default() }).unwrap();
            }
            assert!(events.next().await.unwrap().contains(&Event::Lost));
            netlink.add_bridge("br0", Mac([2, 0, 0, 0, 0, 7])).unwrap();
            assert_eq!(events.next().await.unwrap(), [Event::Links]);
        });
    }
}
