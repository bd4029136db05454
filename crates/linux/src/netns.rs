//! Network namespaces (network_namespaces(7)).

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use rustix::thread::UnshareFlags;

/// Does something on a thread of its own that has left the host's network for a new one, in which there is a loopback device
/// that is down and nothing else. It goes with the thread, unless something of it is still open.
///
/// # Errors
/// Those of unshare(2): `EPERM` without `CAP_SYS_ADMIN`.
pub fn in_new_network<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        // The thread's messages (a panic, a skipped test) are about its caller's work, so it has its caller's name.
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let elsewhere = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
            // SAFETY: no descriptor table is unshared, which is all that could surprise other threads.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)? };
            Ok(work())
        })?;
        elsewhere.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A number for the calling thread's network namespace. No other namespace has it before the host restarts
/// (`SO_NETNS_COOKIE`, Linux 5.14). On older kernels it is the namespace's inode, which a later namespace may get
/// again.
///
/// # Errors
/// Those of socket(2) and stat(2).
pub fn cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most the eight bytes that `length` allows, into a number that outlives the call.
    let told = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if told == 0 { Ok(cookie) } else { Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_has_another_cookie() {
        let here = cookie().unwrap();
        assert_eq!(cookie().unwrap(), here);
        match in_new_network(cookie) {
            Ok(there) => assert_ne!(there.unwrap(), here),
            Err(error) => banger_skip::skipped!("no network namespace can be made: {error}"),
        }
    }

    #[test]
    fn the_thread_is_named_as_its_caller() {
        match in_new_network(|| std::thread::current().name().map(str::to_owned)) {
            Ok(name) => assert_eq!(name.as_deref(), std::thread::current().name()),
            Err(error) => banger_skip::skipped!("no network namespace can be made: {error}"),
        }
    }
}
