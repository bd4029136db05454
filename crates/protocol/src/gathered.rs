//! A connection that puts together what is written until it is flushed.
//!
//! The multiplexer writes a head, then a body, and flushes. On a virtio serial port each write is a message that wakes the
//! other side: the two are worth one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is put together at most: a message of the multiplexer and its head.
const LARGEST_WRITE: usize = 64 * 1024;

/// A buffer that is larger is given up by the first small message: most sessions are idle, and a daemon has many.
const SMALL: usize = 4096;

/// A connection that gathers what is written until it is flushed.
#[derive(Debug)]
pub(crate) struct Gathered<C> {
    inner: C,
    written: BytesMut,
}

impl<C> Gathered<C> {
    /// Wraps a connection.
    pub(crate) fn new(inner: C) -> Gathered<C> {
        Gathered { inner, written: BytesMut::new() }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Gathered<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin> Gathered<C> {
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let small = self.written.len() <= SMALL;
        while !self.written.is_empty() {
            let count = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.written))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written.advance(count);
        }
        if small && self.written.capacity() > SMALL {
            self.written = BytesMut::new();
        } else {
            self.written.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Gathered<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.written.len() + bytes.len() > LARGEST_WRITE {
            ready!(this.poll_empty(cx))?;
        }
        let count = bytes.len().min(LARGEST_WRITE);
        this.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_empty(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn small_writes_go_out_as_one_and_large_ones_whole() {
        let (near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut gathered = Gathered::new(near);
        let mut got = vec![0; 300_000];
        gathered.write_all(b"head").await.unwrap();
        gathered.write_all(b"body").await.unwrap();
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut got)).await.is_err());
        gathered.flush().await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 8);
        let large: Vec<u8> = (0..300_000u32).map(|number| number.to_le_bytes()[0]).collect();
        gathered.write_all(&large).await.unwrap();
        gathered.flush().await.unwrap();
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(got, large);
    }
}
