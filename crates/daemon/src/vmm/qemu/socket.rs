//! Connecting to QEMU's sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::UnixStream;

/// Connects. QEMU keeps a queue of one for those that it has not accepted yet, be they gone again. A full queue refuses who
/// does not want to block, and no event tells when it is full no more: only then, a thread blocks, and no longer than
/// `patience`.
///
/// # Errors
/// Those of connect(2); [`io::ErrorKind::TimedOut`] after `patience`.
pub async fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let path = path.to_owned();
            let connected = tokio::task::spawn_blocking(move || connect_blocking(&path, patience)).await;
            UnixStream::from_std(connected.map_err(io::Error::other)??)
        }
        result => result,
    }
}

fn connect_blocking(path: &PathBuf, patience: Duration) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // This timeout is that of connecting, too (unix(7), socket(7)).
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
        result => result?,
    }
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen, socket};

    #[tokio::test]
    async fn a_full_queue_is_waited_for_and_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let patience = Duration::from_millis(200);
        let _in_the_queue = connect(&path, patience).await.unwrap();
        assert_eq!(connect(&path, patience).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let waiting = tokio::spawn(async move { connect(&path, Duration::from_secs(20)).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        rustix::net::accept(&listener).unwrap();
        waiting.await.unwrap().unwrap();
    }
}
