//! The kernel's announcements of devices that come, go and change (`NETLINK_KOBJECT_UEVENT`).
//!
//! Open this before looking for a device: what appears after the look is then announced here, and nothing is polled.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;

use crate::fd_stream::FdStream;

/// The multicast group in which the kernel itself speaks; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;

/// A socket that hears every announcement made since it was opened.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Begins to listen.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<Uevents> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Uevents { socket })
    }

    /// Blocks until a device of `subsystem` has been announced; false where `deadline` passes first.
    ///
    /// # Errors
    /// Those of poll(2) and recv(2).
    pub fn wait(&self, subsystem: &str, deadline: Instant) -> io::Result<bool> {
        loop {
            if self.drain(subsystem)? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left))?;
        }
    }

    /// Waits until a device of `subsystem` has been announced.
    ///
    /// # Errors
    /// Those of epoll(7) and recv(2).
    pub async fn announced(&self, subsystem: &str) -> io::Result<()> {
        let events = FdStream::new(self.socket.try_clone()?, Interest::READABLE)?;
        while !self.drain(subsystem)? {
            events.readable().await?;
        }
        Ok(())
    }

    /// Takes all that is there; whether any of it concerned `subsystem`.
    fn drain(&self, subsystem: &str) -> io::Result<bool> {
        let mut datagram = [0u8; 8192];
        let mut concerned = false;
        loop {
            match rustix::net::recv(&self.socket, &mut datagram, RecvFlags::empty()) {
                Ok((length, _)) => concerned |= concerns(&datagram[..length.min(datagram.len())], subsystem),
                // Announcements were lost for want of room: whoever waits must look again.
                Err(rustix::io::Errno::NOBUFS) => concerned = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(concerned),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// An announcement is `ACTION@PATH` and then `KEY=VALUE` pairs, each ended by a zero byte.
fn concerns(datagram: &[u8], subsystem: &str) -> bool {
    datagram
        .split(|&byte| byte == 0)
        .any(|pair| pair.strip_prefix(b"SUBSYSTEM=").is_some_and(|value| value == subsystem.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_subsystem_is_told_from_its_prefix() {
        let add = b"add@/devices/virtio0/block/vda\0ACTION=add\0SUBSYSTEM=block\0SEQNUM=7\0";
        assert!(concerns(add, "block"));
        assert!(!concerns(add, "bloc"));
        assert!(!concerns(add, "virtio-ports"));
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let events = Uevents::open().unwrap();
        assert!(!events.wait("no such subsystem", Instant::now() + Duration::from_millis(20)).unwrap());
    }
}
