//! Disks as files: clones of an image's disks, grown to size. Knows no VM and no image; nothing here removes a disk.
//!
//! A disk is grown by its length only. The file system in it belongs to a guest, who grows it online; nothing on the host
//! reads a guest's file system.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use banger_linux::file;
pub use banger_linux::file::CloneMethod;
use banger_linux::process::{Launch, Leash, Program};

/// The free space, in bytes, with which what a full disk has stopped goes on: less would be gone at once.
pub const ENOUGH: u64 = 64 << 20;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk to clone from could not be read.
    #[error("cannot read the disk {}", path.display())]
    Read {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk may grow, not shrink.
    #[error("a disk of {size} bytes is too small for a clone of {}, which has {least}", from.display())]
    TooSmall {
        /// The size asked for, in bytes.
        size: u64,
        /// The disk to clone.
        from: PathBuf,
        /// Its size in bytes.
        least: u64,
    },
    /// The file system is full.
    #[error("no space for the disk {}: it needs {needed} bytes, {free} are free", path.display())]
    NoSpace {
        /// The disk that was to be made.
        path: PathBuf,
        /// Bytes that the clone needs at once.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The clone could not be made.
    #[error("cannot clone {} to {}", from.display(), to.display())]
    Clone {
        /// The disk to clone.
        from: PathBuf,
        /// The clone.
        to: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The clone could not be grown or given to its owner.
    #[error("cannot prepare the disk {}", path.display())]
    Prepare {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk could not be synced.
    #[error("cannot sync the disk {}", path.display())]
    Sync {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Clones a disk, grows the clone to `size` bytes and gives it to `uid`, mode 0600. `to` must not exist; after a failure it
/// does not. Not synced: see [`sync`]. Blocks.
///
/// # Errors
/// [`StorageError`].
pub fn clone_disk(from: &Path, to: &Path, size: u64, uid: u32) -> Result<CloneMethod, StorageError> {
    let least = std::fs::metadata(from).map_err(|source| StorageError::Read { path: from.to_owned(), source })?.len();
    if size < least {
        return Err(StorageError::TooSmall { size, from: from.to_owned(), least });
    }
    let method = file::clone_file(from, to).map_err(|source| explain(from, to, source))?;
    if let Err(source) = prepare(to, size, uid) {
        // This call made the file an instant ago; the error to report is the first.
        drop(std::fs::remove_file(to));
        return Err(StorageError::Prepare { path: to.to_owned(), source });
    }
    Ok(method)
}

/// The size of a disk, in bytes.
///
/// # Errors
/// [`StorageError::Read`].
pub fn size(path: &Path) -> Result<u64, StorageError> {
    let disk = std::fs::metadata(path).map_err(|source| StorageError::Read { path: path.to_owned(), source })?;
    Ok(disk.len())
}

/// Makes a disk larger, up to so many bytes; one that is as large is left alone. The file system in it grows in the guest.
///
/// # Errors
/// [`StorageError::Read`], [`StorageError::Prepare`].
pub fn grow(path: &Path, bytes: u64) -> Result<(), StorageError> {
    if size(path)? >= bytes {
        return Ok(());
    }
    let grow = || OpenOptions::new().write(true).open(path)?.set_len(bytes);
    grow().map_err(|source| StorageError::Prepare { path: path.to_owned(), source })
}

/// Makes a disk with an empty file system, for an image that has no work seed. As [`clone_disk`] otherwise.
///
/// # Errors
/// [`StorageError`].
pub async fn empty_disk(to: &Path, size: u64, uid: u32) -> Result<(), StorageError> {
    let failed = |source| StorageError::Prepare { path: to.to_owned(), source };
    let made = async {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
        prepare(to, size, uid)?;
        let args = ["-q".into(), "-F".into(), "-t".into(), "ext4".into(), to.as_os_str().to_owned()];
        let status = Leash::start(Launch::new(Program::Mke2fs, args)).map_err(io::Error::other)?.ended().await;
        match status.map_err(io::Error::other)? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("mke2fs ended with {status}"))),
        }
    };
    let made = made.await;
    if made.is_err() {
        drop(std::fs::remove_file(to));
    }
    made.map_err(failed)
}

/// Syncs a disk and its directory, so that a record may name it. Blocks.
///
/// # Errors
/// [`StorageError::Sync`].
pub fn sync(path: &Path) -> Result<(), StorageError> {
    let synced = File::open(path).and_then(|disk| disk.sync_all());
    let synced = synced.and_then(|()| file::sync_dir(directory_of(path)));
    synced.map_err(|source| StorageError::Sync { path: path.to_owned(), source })
}

fn prepare(path: &Path, size: u64, uid: u32) -> io::Result<()> {
    let disk = OpenOptions::new().write(true).open(path)?;
    disk.set_len(size)?;
    std::os::unix::fs::fchown(&disk, Some(uid), Some(uid))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn explain(from: &Path, to: &Path, source: io::Error) -> StorageError {
    if source.kind() != io::ErrorKind::StorageFull {
        return StorageError::Clone { from: from.to_owned(), to: to.to_owned(), source };
    }
    // Measured after the half clone is gone again: this is what the next attempt will find.
    let needed = file::allocated(from).unwrap_or_default();
    let free = file::free_space(directory_of(to)).unwrap_or_default();
    StorageError::NoSpace { path: to.to_owned(), needed, free }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_clone_is_grown_and_owned() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"content").unwrap();
        let me = rustix::process::getuid().as_raw();
        let uid = if me == 0 { 4321 } else { me };
        clone_disk(&from, &to, 1 << 20, uid).unwrap();
        sync(&to).unwrap();
        let found = std::fs::metadata(&to).unwrap();
        assert_eq!((found.len(), found.uid(), found.mode() & 0o7777), (1 << 20, uid, 0o600));
        assert_eq!(&std::fs::read(&to).unwrap()[..8], b"content\0");
    }

    #[test]
    fn a_disk_does_not_shrink() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, b"content").unwrap();
        let error = clone_disk(&from, &to, 6, 0).unwrap_err();
        assert!(matches!(error, StorageError::TooSmall { size: 6, least: 7, .. }), "{error}");
        assert!(!to.exists());
    }

    #[test]
    fn a_full_file_system_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let error = explain(dir.path(), &dir.path().join("to"), io::ErrorKind::StorageFull.into());
        assert!(matches!(error, StorageError::NoSpace { free, .. } if free > 0), "{error}");
    }
}
