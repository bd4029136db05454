//! Links, addresses and routes, asked of and told to the kernel over rtnetlink(7). IPv4 only.
//!
//! The messages are few and their form is part of the kernel's promise, so they are written here by hand: the agent carries
//! this code into every guest, where a library for all of netlink would weigh more than the agent itself.

mod address;
mod events;
mod link;
mod message;
mod route;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub use self::address::Address;
pub use self::events::{Event, Events};
pub use self::link::{Link, LinkChange, LinkLocal, MAX_ALIAS, Mac};
use self::message::{Answer, Request};
pub use self::route::Route;

/// What fits a dump's part. The kernel fills as much as the reader has offered before, up to 32 KiB.
const LARGEST_PART: usize = 64 * 1024;

/// Why the kernel was not asked or did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// There is no netlink socket, or nothing goes over it.
    #[error("cannot {attempted}: no netlink")]
    Socket {
        /// What was attempted.
        attempted: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses.
    #[error("cannot {attempted}{}", said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Refused {
        /// What was attempted.
        attempted: String,
        /// What the kernel said beside the number, if anything.
        said: Option<String>,
        /// Its number.
        #[source]
        source: io::Error,
    },
    /// The kernel's answer is no answer.
    #[error("cannot {attempted}: the kernel's answer makes no sense")]
    Nonsense {
        /// What was attempted.
        attempted: String,
    },
}

impl NetlinkError {
    /// Whether that is already so: the link, the address or the route exists.
    pub fn is_there(&self) -> bool {
        matches!(self, NetlinkError::Refused { source, .. } if source.raw_os_error() == Some(libc::EEXIST))
    }

    /// Whether what was spoken of does not exist.
    pub fn is_missing(&self) -> bool {
        let missing = [libc::ENODEV, libc::ENOENT, libc::ESRCH, libc::EADDRNOTAVAIL];
        matches!(self, NetlinkError::Refused { source, .. } if source.raw_os_error().is_some_and(|code| missing.contains(&code)))
    }

    /// Whether the caller lacks `CAP_NET_ADMIN`.
    pub fn is_forbidden(&self) -> bool {
        let (NetlinkError::Refused { source, .. } | NetlinkError::Socket { source, .. }) = self else { return false };
        source.kind() == io::ErrorKind::PermissionDenied
    }
}

/// A conversation with the kernel about the network namespace that it was begun in. Calls block, some microseconds each.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Begins one.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn open() -> Result<Netlink, NetlinkError> {
        let open = || {
            let kind = SocketType::RAW;
            let socket = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
            // Without the request that it refuses, and with words.
            switch_on(&socket, libc::NETLINK_CAP_ACK)?;
            switch_on(&socket, libc::NETLINK_EXT_ACK)?;
            Ok::<_, io::Error>(socket)
        };
        let attempted = || "talk to the kernel about networks".to_owned();
        let socket = open().map_err(|source| NetlinkError::Socket { attempted: attempted(), source })?;
        Ok(Netlink { socket, sequence: 0 })
    }

    /// Has something done.
    fn tell(&mut self, attempted: &str, request: Request) -> Result<(), NetlinkError> {
        self.exchange(attempted, request.wanting_an_answer()).map(drop)
    }

    /// Asks for a list; the parts of it, each without its header.
    fn list(&mut self, attempted: &str, request: Request) -> Result<Vec<Vec<u8>>, NetlinkError> {
        self.exchange(attempted, request.for_all())
    }

    fn exchange(&mut self, attempted: &str, request: Request) -> Result<Vec<Vec<u8>>, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let failed =
            |errno: rustix::io::Errno| NetlinkError::Socket { attempted: attempted.to_owned(), source: errno.into() };
        let bytes = request.bytes(self.sequence);
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, &bytes, SendFlags::empty())).map_err(failed)?;
        let nonsense = || NetlinkError::Nonsense { attempted: attempted.to_owned() };
        let (mut parts, mut buffer) = (Vec::new(), vec![0; LARGEST_PART]);
        loop {
            let received =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::empty()));
            let (length, _) = received.map_err(failed)?;
            for answer in message::answers(&buffer[..length], self.sequence) {
                match answer {
                    Answer::Part(part) => parts.push(part.to_vec()),
                    Answer::Done => return Ok(parts),
                    Answer::Refused { code, said } => {
                        let source = io::Error::from_raw_os_error(code);
                        return Err(NetlinkError::Refused { attempted: attempted.to_owned(), said, source });
                    }
                    Answer::Nonsense => return Err(nonsense()),
                }
            }
        }
    }
}

fn switch_on(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one number, which lives until the call returns, and is told its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
