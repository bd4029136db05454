//! Waiting for a device to change its state, where its state is already one that poll(2) reports.
//!
//! A virtio serial port whose other end is closed reports a hang-up for as long as that lasts; waiting for it in the
//! usual way returns at once, for ever. An epoll instance of its own, edge-triggered, wakes only when something changes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use tokio::io::Interest;

use crate::fd_stream::FdStream;

/// Watches one descriptor for changes. The first wait returns at once with the state as it is.
#[derive(Debug)]
pub struct Edges {
    epoll: OwnedFd,
    ready: FdStream,
}

impl Edges {
    /// Begins to watch `fd` for input, hang-ups and errors.
    ///
    /// # Errors
    /// Those of `epoll_create1(2)` and `epoll_ctl(2)`.
    pub fn watch(fd: impl AsFd) -> io::Result<Edges> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        let ready = FdStream::new(epoll.try_clone()?, Interest::READABLE)?;
        Ok(Edges { epoll, ready })
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// Those of `epoll_wait(2)`.
    pub async fn changed(&self) -> io::Result<()> {
        let mut event = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        while epoll::wait(&self.epoll, &mut event, Some(&at_once))? == 0 {
            self.ready.readable().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_standing_hang_up_is_reported_once() {
        let (reader, writer) = std::io::pipe().unwrap();
        let edges = Edges::watch(&reader).unwrap();
        drop(writer);
        edges.changed().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), edges.changed()).await.is_err());
    }

    #[tokio::test]
    async fn every_change_is_reported() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let edges = Edges::watch(&reader).unwrap();
        for _ in 0..3 {
            io::Write::write_all(&mut writer, b"x").unwrap();
            edges.changed().await.unwrap();
        }
    }
}
