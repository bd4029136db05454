//! Files and directories: writing so that a crash leaves the old or the new, cloning so that holes stay holes, removing
//! without following a link. Knows nothing of what the files are for.

mod clone;
mod flock;
mod lock;
mod replace;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

pub use clone::{CloneMethod, clone_file, supports_reflink};
pub use flock::{lock_within, try_lock};
pub use lock::{Claim, Holder, Lock, LockError};
pub use replace::replace;

static WRITES: AtomicU64 = AtomicU64::new(0);

/// Writes a file as a whole: under a temporary name in the same directory, synced, renamed, the directory synced.
///
/// A crash at any instant leaves the old file or the new one under `path`, never a mixture. It may leave a file
/// `.<name>.<pid>.<n>.tmp` beside it, which nothing reads. `mode` is not subject to the umask.
///
/// # Errors
/// Those of open(2), write(2), fsync(2), rename(2); the old file is untouched then, unless it is the directory that could
/// not be synced.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    let written = write_synced(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a temporary file that cannot be removed either changes nothing about it.
        drop(std::fs::remove_file(&temporary));
    }
    written?;
    sync_dir(parent(path))
}

/// Writes a file as [`write_atomic`] does, but only where there is none, whoever else does the same at this moment. Whether
/// it did.
///
/// # Errors
/// Those of open(2), write(2), fsync(2), link(2).
pub fn create_once(path: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let temporary = temporary_beside(path)?;
    let written = write_synced(&temporary, bytes, mode).and_then(|()| std::fs::hard_link(&temporary, path));
    drop(std::fs::remove_file(&temporary));
    match written {
        Ok(()) => sync_dir(parent(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a file that is there another content as [`write_atomic`] does; its mode and its owner stay. Links are followed.
///
/// # Errors
/// As [`write_atomic`], and those of stat(2), chown(2).
pub fn rewrite_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let found = std::fs::metadata(&path)?;
    let temporary = temporary_beside(&path)?;
    // It is the owner's before it has its name: who reads it meanwhile finds the old one.
    let written = write_synced(&temporary, bytes, found.mode() & 0o7777)
        .and_then(|()| keep_owner(&temporary, &found))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        drop(std::fs::remove_file(&temporary));
    }
    written?;
    sync_dir(parent(&path))
}

fn keep_owner(path: &Path, of: &std::fs::Metadata) -> io::Result<()> {
    let made = std::fs::symlink_metadata(path)?;
    if (made.uid(), made.gid()) == (of.uid(), of.gid()) {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(of.uid()), Some(of.gid()))?;
    // To change the owner takes bits away (chown(2)).
    std::fs::set_permissions(path, of.permissions())
}

/// A file in memory, without a path; the name is what others see in /proc. Where a program is to say something that is read
/// when it has ended, a pipe could fill up.
///
/// # Errors
/// Those of memfd_create(2).
pub fn in_memory(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)?))
}

/// Syncs a directory: files made, renamed or removed in it stay so after a crash.
///
/// # Errors
/// Those of open(2) and fsync(2).
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The bytes that a file takes on its file system; less than its length where it has holes. Blocks that it shares with a
/// clone count for both.
///
/// # Errors
/// Those of lstat(2).
pub fn allocated(path: &Path) -> io::Result<u64> {
    // `st_blocks` counts units of 512 bytes, whatever the file system's block size (stat(3type)).
    Ok(std::fs::symlink_metadata(path)?.blocks() * 512)
}

/// The bytes that a caller without privileges may still write into the file system that holds `dir`.
///
/// # Errors
/// Those of statvfs(3).
pub fn free_space(dir: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Removes a file, a link or a whole directory. What is not there is no error; links are removed, never followed.
///
/// # Errors
/// Those of unlink(2) and rmdir(2); some of it may be gone already.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        // The standard library's walk holds directory descriptors and so cannot be led elsewhere by a swapped link.
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    // Two threads may write the same file at once: the last rename wins, and neither writes into the other's.
    let number = WRITES.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}.{number}.tmp", std::process::id()));
    Ok(parent(path).join(temporary))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write_atomic(&path, b"a longer first version", 0o600).unwrap();
        write_atomic(&path, b"second", 0o644).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), "kept").unwrap();
        assert!(write_atomic(&path, b"new", 0o600).is_err());
        assert_eq!(std::fs::read(path.join("inside")).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn removing_a_tree_does_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        std::fs::create_dir_all(inside.join("deep")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "kept").unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("deep/link")).unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("top")).unwrap();
        remove_tree(&inside).unwrap();
        remove_tree(&dir.path().join("top")).unwrap();
        remove_tree(&dir.path().join("never was")).unwrap();
        assert!(!inside.exists());
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"kept");
    }

    #[test]
    fn free_space_and_allocation_are_in_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1u8; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let taken = allocated(&path).unwrap();
        assert!((1 << 20..2 << 20).contains(&taken), "{taken}");
        assert!(free_space(dir.path()).unwrap() > 0);
    }

    #[test]
    fn only_the_first_creates_and_all_find_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let created: usize = std::thread::scope(|scope| {
            let create = |number: u8| usize::from(create_once(&dir.path().join("key"), &[number; 64], 0o600).unwrap());
            let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || create(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(created, 1);
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content, vec![content[0]; 64]);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_rewritten_keeps_its_mode_and_the_link_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("config"), dir.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("config", &link).unwrap();
        rewrite_atomic(&link, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(rewrite_atomic(&dir.path().join("none"), b"").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
