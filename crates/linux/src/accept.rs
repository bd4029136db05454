//! Accepts connections one after the other, and survives errors in between.
//!
//! accept(2) fails for two reasons. Either one connection broke before it was accepted, and the next one may wait
//! already. Or the process or the kernel is short of descriptors or memory. Then the connection stays in the kernel's
//! queue, the listener stays readable, and a loop that retries at once uses a whole processor until the shortage is
//! over.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// How long an acceptor waits in a shortage before it tries again. No event reports that a descriptor is free again.
const PAUSE: Duration = Duration::from_millis(200);

/// A socket that accepts connections.
pub trait Listener {
    /// A connection.
    type Connection;

    /// Accepts one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listener for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(connection, _)| connection)
    }
}

impl Listener for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(connection, _)| connection)
    }
}

/// Accepts the connections of a listener.
#[derive(Debug)]
pub struct Acceptor<L> {
    listener: L,
    /// Whether the last attempt failed in a shortage.
    short: bool,
}

impl<L: Listener> Acceptor<L> {
    /// The acceptor of this listener.
    pub fn new(listener: L) -> Acceptor<L> {
        Acceptor { listener, short: false }
    }

    /// The listener.
    pub fn listener(&self) -> &L {
        &self.listener
    }

    /// Waits for the next connection. `report` gets the error that begins a shortage, once for each shortage. A caller
    /// that stops waiting loses no connection.
    pub async fn next(&mut self, report: impl Fn(&io::Error)) -> L::Connection {
        loop {
            match self.listener.accept().await {
                Ok(connection) => {
                    self.short = false;
                    return connection;
                }
                Err(error) if is_of_one_connection(&error) => tokio::task::yield_now().await,
                Err(error) => {
                    if !self.short {
                        self.short = true;
                        report(&error);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether the error concerns only this connection: it was aborted, a network error was pending on it (accept(2)), or a
/// firewall refuses it.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EINTR
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPERM
                | libc::EPROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;

    /// A listener that returns these errors, one after the other, and then a connection; then it takes the next list.
    struct Script(Mutex<Vec<Vec<i32>>>);

    impl Listener for Script {
        type Connection = ();

        async fn accept(&self) -> io::Result<()> {
            let mut lists = self.0.lock().unwrap();
            if lists[0].is_empty() {
                lists.remove(0);
                return Ok(());
            }
            Err(io::Error::from_raw_os_error(lists[0].remove(0)))
        }
    }

    /// How long it takes until connections come after these errors, and which errors are reported.
    async fn told(lists: &[&[i32]]) -> (Duration, Vec<i32>) {
        let mut acceptor = Acceptor::new(Script(Mutex::new(lists.iter().map(|list| list.to_vec()).collect())));
        let (began, told) = (Instant::now(), RefCell::new(Vec::new()));
        for _ in lists {
            acceptor.next(|error| told.borrow_mut().extend(error.raw_os_error())).await;
        }
        (began.elapsed(), told.into_inner())
    }

    #[tokio::test]
    async fn a_connection_that_broke_delays_no_other() {
        let broken = [libc::ECONNABORTED, libc::EPERM, libc::ENETUNREACH, libc::EPROTO];
        let (time, told) = told(&[&broken]).await;
        assert!(time < PAUSE && told.is_empty(), "{time:?} {told:?}");
    }

    #[tokio::test]
    async fn a_shortage_pauses_and_is_told_once() {
        // EBADF stands for all other errors: the loop must not spin on them either.
        for error in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EBADF] {
            let (time, told) = told(&[&[error, libc::ECONNABORTED, error]]).await;
            assert!(time >= 2 * PAUSE, "{error} {time:?}");
            assert_eq!(told, [error]);
        }
    }

    #[tokio::test]
    async fn a_shortage_that_comes_back_is_told_again() {
        let (_, told) = told(&[&[libc::EMFILE], &[], &[libc::ENFILE]]).await;
        assert_eq!(told, [libc::EMFILE, libc::ENFILE]);
    }

    #[tokio::test]
    async fn a_connection_in_a_shortage_comes_after_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let connection = Acceptor::new(listener).next(|_| {}).await;
        assert_eq!(connection.peer_addr().unwrap(), client.local_addr().unwrap());
    }
}
