//! The files of a console's log. What cannot be written is counted, and the log says how much it was.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::lossy::{Lossy, Wording};
use crate::log::rotated::Rotated;

/// How long one part of the log becomes, in bytes.
const MAX_PART: u64 = 1024 * 1024;

const WORDING: Wording = Wording {
    count: |bytes| bytes.len() as u64,
    notice: |count| format!("[banger: {count} bytes of console output could not be written]\n"),
};

/// A log of at most 1 MiB and one older part of 1 MiB, readable by its owner only.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    out: Lossy<Rotated>,
}

impl Log {
    /// Begins a log anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn create(path: &Path) -> io::Result<Log> {
        Log::with(path, Rotated::clear).await
    }

    /// Goes on with a log.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn append(path: &Path) -> io::Result<Log> {
        Log::with(path, Rotated::open).await
    }

    /// Its newer part.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn with(path: &Path, prepare: fn(&mut Rotated) -> io::Result<()>) -> io::Result<Log> {
        let path = path.to_owned();
        let prepare = move || {
            let mut file = Rotated::new(path.clone(), super::older(&path), MAX_PART);
            prepare(&mut file)?;
            Ok(Log { path, out: Lossy::new(file, WORDING) })
        };
        tokio::task::spawn_blocking(prepare).await?
    }

    /// Writes what can be written.
    ///
    /// # Errors
    /// Why something of it was left out.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write(bytes)
    }

    /// Counts bytes that came after the last write and were dropped.
    pub(super) fn lose(&mut self, bytes: u64) {
        self.out.lose(bytes);
    }

    /// Writes how many bytes were left out.
    ///
    /// # Errors
    /// Those of the file system. The count is told later.
    pub(super) fn tell(&mut self) -> io::Result<()> {
        self.out.tell()
    }
}
