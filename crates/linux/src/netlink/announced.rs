//! The kernel's announcements of links that come, go and change (rtnetlink(7)).
//!
//! Open this before looking at a link: what changes after the look is then announced here, and nothing is polled.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;

use crate::fd_stream::FdStream;

/// A socket that hears every announcement about the links of the network namespace that it was opened in.
#[derive(Debug)]
pub struct LinkNews {
    socket: OwnedFd,
}

impl LinkNews {
    /// Begins to listen.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn open() -> io::Result<LinkNews> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, libc::RTMGRP_LINK.cast_unsigned()))?;
        Ok(LinkNews { socket })
    }

    /// Waits until any link was announced since the last time; which one is for the caller to look at.
    ///
    /// # Errors
    /// Those of epoll(7) and recv(2).
    pub async fn next(&self) -> io::Result<()> {
        let events = FdStream::new(self.socket.try_clone()?, Interest::READABLE)?;
        while !self.drain()? {
            events.readable().await?;
        }
        Ok(())
    }

    /// Takes all that is there; whether there was anything.
    fn drain(&self) -> io::Result<bool> {
        // What does not fit is cut: its content is not looked at.
        let mut start = [0u8; 16];
        let mut any = false;
        loop {
            match rustix::net::recv(&self.socket, &mut start, RecvFlags::empty()) {
                // Without room announcements are lost: whoever waits must look again.
                Ok(_) | Err(rustix::io::Errno::NOBUFS) => any = true,
                Err(rustix::io::Errno::AGAIN) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
