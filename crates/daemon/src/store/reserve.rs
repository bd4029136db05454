//! Space that is kept for the records of what gives space back: on a full disk VMs can still be stopped and removed.
//!
//! It is a file beside the records, given up when such a record finds no space, and made again when there is enough. What it gives up
//! goes to the log of the records (WAL) at once, before anybody else takes it. While it is spent, that log is started over every few
//! commits, so that the space lasts.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use banger_linux::file::free_space;
use rusqlite::Connection;
use rustix::fs::FallocateFlags;

use crate::storage::ENOUGH;

/// How much is kept, in bytes. A record takes a few pages of 4 KiB, and opening the records some ten.
const SIZE: u64 = 1 << 20;

/// How much of it goes to the log, which is started over before it has grown by as much. The rest is for all else.
const FOR_LOG: u64 = SIZE / 2;

/// After so many commits the log is started over.
const COMMITS: u32 = 10;

/// The space that is kept beside some records.
#[derive(Debug)]
pub(super) struct Reserve {
    records: PathBuf,
    path: PathBuf,
    spent: bool,
    commits: u32,
}

impl Reserve {
    /// The space beside these records, which are about to be opened: that alone takes some, so it is given up first where
    /// there is too little.
    pub(super) fn beside(records: &Path) -> Reserve {
        let mut reserve =
            Reserve { records: records.to_owned(), path: beside(records, ".reserve"), spent: true, commits: 0 };
        if reserve.free().is_some_and(|free| free < SIZE) {
            reserve.give_up();
        } else {
            reserve.keep();
        }
        reserve
    }

    /// Gives the space up; says whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        self.spent = true;
        let gave_up = std::fs::remove_file(&self.path).is_ok();
        if gave_up {
            tracing::warn!("the disk is full: space that is kept for stopping and removing VMs is given up");
            self.hold();
        }
        gave_up
    }

    /// Takes the space that was given up for the log, beyond its end. The records themselves grow little by what is removed; and who
    /// opens and closes their file beside SQLite takes its locks away (fcntl(2)).
    pub(super) fn hold(&self) {
        if let Ok(log) = OpenOptions::new().write(true).open(beside(&self.records, "-wal")) {
            let end = log.metadata().map_or(0, |found| found.len());
            // What cannot be had is not held.
            let _held = rustix::fs::fallocate(&log, FallocateFlags::KEEP_SIZE, end, FOR_LOG);
        }
    }

    /// Whether it is to be seen to from time to time.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Sees to it after a commit.
    pub(super) fn after_commit(&mut self, records: &Connection) {
        if !self.spent {
            return;
        }
        self.commits += 1;
        if self.commits.is_multiple_of(COMMITS) {
            // Readers are on this thread, too, so nothing is in its way; and if it fails, the next one comes.
            drop(records.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())));
        }
        self.keep_if_enough();
    }

    /// Makes it anew, if there is space.
    pub(super) fn keep_if_enough(&mut self) {
        if self.free().is_some_and(|free| free >= ENOUGH) {
            self.keep();
        }
    }

    fn free(&self) -> Option<u64> {
        free_space(self.path.parent()?).ok()
    }

    fn keep(&mut self) {
        match self.make() {
            Ok(()) => (self.spent, self.commits) = (false, 0),
            // What is there of it is better than nothing, and it is tried again.
            Err(error) => {
                tracing::debug!(%error, path = %self.path.display(), "no space is kept for stopping and removing VMs");
            }
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        if allocated(&file)? >= SIZE {
            return Ok(());
        }
        Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE)?)
    }
}

/// The path of a file beside the records.
fn beside(records: &Path, suffix: &str) -> PathBuf {
    let mut path = records.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn allocated(file: &File) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(file.metadata()?.blocks() * 512)
}

/// Whether a statement failed for want of space.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return false };
    failure.extended_code & 0xff == SQLITE_FULL || failure.extended_code == SQLITE_IOERR_SHMSIZE
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_there_before_it_is_needed_and_again_when_there_is_space() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::beside(&dir.path().join("r.db"));
        let found = || std::fs::metadata(dir.path().join("r.db.reserve"));
        let kept = found().unwrap();
        assert!(kept.blocks() * 512 >= SIZE && kept.mode() & 0o777 == 0o600);
        assert!(!reserve.is_spent());

        assert!(reserve.give_up());
        assert!(found().is_err() && reserve.is_spent());
        assert!(!reserve.give_up(), "there is nothing more");
        reserve.keep_if_enough();
        assert!(found().is_ok() && !reserve.is_spent());
    }

    #[test]
    fn the_log_is_started_over_while_it_is_spent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.db");
        let records = Connection::open(&path).unwrap();
        records.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (c TEXT)").unwrap();
        let mut reserve = Reserve { records: path, path: "/proc/no-space".into(), spent: true, commits: 0 };
        let wal = || std::fs::metadata(dir.path().join("r.db-wal")).unwrap().len();
        for _ in 0..COMMITS {
            records.execute("INSERT INTO t VALUES (hex(randomblob(4000)))", []).unwrap();
            reserve.after_commit(&records);
        }
        let long = wal();
        for _ in 0..5 * COMMITS {
            records.execute("INSERT INTO t VALUES (hex(randomblob(4000)))", []).unwrap();
            reserve.after_commit(&records);
        }
        assert!(wal() <= long + long / 2, "{} after {long}", wal());
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let records = Connection::open_in_memory().unwrap();
        records.execute_batch("CREATE TABLE t (c TEXT); PRAGMA max_page_count = 4").unwrap();
        let full = records.execute("INSERT INTO t VALUES (hex(randomblob(100000)))", []).unwrap_err();
        assert!(is_full(&full), "{full}");
        let other = records.execute("INSERT INTO nothing VALUES (1)", []).unwrap_err();
        assert!(!is_full(&other), "{other}");
    }
}
