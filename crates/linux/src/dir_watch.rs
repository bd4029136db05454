//! Changes of directories, as they happen (inotify(7)).

use std::io;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::Interest;

use crate::fd_stream::FdStream;

/// Watches directories for entries that appear.
#[derive(Debug)]
pub struct DirWatch {
    events: FdStream,
}

impl DirWatch {
    /// Begins to watch these directories.
    ///
    /// # Errors
    /// Those of inotify_init1(2) and inotify_add_watch(2), as of a directory that is not there.
    pub fn new<'a>(directories: impl IntoIterator<Item = &'a Path>) -> io::Result<DirWatch> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        for directory in directories {
            inotify::add_watch(&inotify, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
        }
        Ok(DirWatch { events: FdStream::new(inotify, Interest::READABLE)? })
    }

    /// Waits until something has appeared since the last time.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn changed(&self) -> io::Result<()> {
        // Which entry it was does not matter: whoever waits looks for itself.
        let mut events = [0u8; 4096];
        self.events.read_some(&mut events).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let watch = DirWatch::new([dir.path()]).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        watch.changed().await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_missing_is_not_taken_for_silent() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(DirWatch::new([dir.path(), &missing]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
