//! Clones of files: a reflink where the file system shares blocks, else a copy that keeps the holes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// How a clone was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneMethod {
    /// Both files share their blocks until one is written (`FICLONE`).
    Reflink,
    /// The data was copied, the holes were left out.
    SparseCopy,
}

/// Makes `to`, mode 0600, with the content of `from`. `to` must not exist; it does not after a failure. Not synced.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`] where the file system is full, [`io::ErrorKind::AlreadyExists`], and whatever reading
/// and writing say.
pub fn clone_file(from: &Path, to: &Path) -> io::Result<CloneMethod> {
    let source = File::open(from)?;
    let target = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(to)?;
    let cloned = fill(&source, &target);
    if cloned.is_err() {
        // The first error is the one to report; that the half file cannot be removed either changes nothing about it.
        drop(std::fs::remove_file(to));
    }
    cloned
}

/// Whether files in `dir` can share blocks. Found out by doing it: no property of a file system tells for sure.
///
/// # Errors
/// Where no file can be made in `dir`.
pub fn supports_reflink(dir: &Path) -> io::Result<bool> {
    let unnamed = || OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir);
    let (source, target) = (unnamed()?, unnamed()?);
    source.write_all_at(&[1; 4096], 0)?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        Ok(()) => Ok(true),
        Err(error) if cannot_share(error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn fill(source: &File, target: &File) -> io::Result<CloneMethod> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(CloneMethod::Reflink),
        Err(error) if cannot_share(error) => copy_sparse(source, target).map(|()| CloneMethod::SparseCopy),
        Err(error) => Err(error.into()),
    }
}

/// What ioctl_ficlone(2) says of files that cannot share blocks; a file system that never heard of it says `ENOTTY`.
fn cannot_share(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS)
}

/// Copies the data between the holes and sets the length, so that a hole at the end is one too.
fn copy_sparse(source: &File, target: &File) -> io::Result<()> {
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut position = 0;
    while let Some((start, end)) = next_data(source, position, length)? {
        copy_range(source, target, start, end)?;
        position = end;
    }
    Ok(())
}

/// The next stretch of data at or after `position`, cut off at `length`.
fn next_data(source: &File, position: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if position >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(source, SeekFrom::Data(position)) {
        Ok(start) => start,
        // Nothing but a hole up to the end of the file.
        Err(Errno::NXIO) => return Ok(None),
        // A file system without the call shows the whole file as data.
        Err(Errno::INVAL) => return Ok(Some((position, length))),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(source, SeekFrom::Hole(start))?;
    // A file that grew meanwhile is copied as long as it was, one that shrank ends the copy.
    Ok((start < length).then_some((start, end.min(length))))
}

/// One stretch: within the kernel where it can be, else through a buffer.
fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            // The file ends before the stretch does: it was cut short meanwhile.
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) if cannot_share(error) || error == Errno::PERM => {
                return copy_through_buffer(source, target, from, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_through_buffer(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0u8; 1 << 20];
    let mut position = start;
    let mut reader = source;
    rustix::fs::seek(source, SeekFrom::Start(start))?;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let count = reader.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Ok(());
        }
        target.write_all_at(&buffer[..count], position)?;
        position += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::allocated;

    /// 64 MiB long, data at 0, in the middle and not at the end.
    fn with_holes(path: &Path) -> Vec<(u64, Vec<u8>)> {
        let file = File::create_new(path).unwrap();
        let parts = vec![(0u64, vec![1u8; 5000]), (20 << 20, vec![2u8; 1 << 20]), ((40 << 20) + 7, vec![3u8; 3])];
        for (offset, bytes) in &parts {
            file.write_all_at(bytes, *offset).unwrap();
        }
        file.set_len(64 << 20).unwrap();
        file.sync_all().unwrap();
        parts
    }

    #[test]
    fn a_clone_has_the_content_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let parts = with_holes(&from);
        clone_file(&from, &to).unwrap();
        let (a, b) = (std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
        assert!(a == b);
        for (offset, bytes) in parts {
            let at = usize::try_from(offset).unwrap();
            assert!(b[at..at + bytes.len()] == bytes);
        }
        File::open(&to).unwrap().sync_all().unwrap();
        assert!(allocated(&to).unwrap() < 2 << 20, "{}", allocated(&to).unwrap());
    }

    #[test]
    fn the_buffer_copies_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        with_holes(&from);
        let (source, target) = (File::open(&from).unwrap(), File::create_new(&to).unwrap());
        target.set_len(64 << 20).unwrap();
        copy_through_buffer(&source, &target, 0, 64 << 20).unwrap();
        assert!(std::fs::read(&from).unwrap() == std::fs::read(&to).unwrap());
    }

    #[test]
    fn an_existing_target_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, "new").unwrap();
        std::fs::write(&to, "old").unwrap();
        assert_eq!(clone_file(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&to).unwrap(), b"old");
    }

    #[test]
    fn whether_reflinks_work_is_found_out_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let found = supports_reflink(dir.path()).unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::write(&from, vec![1u8; 8192]).unwrap();
        assert_eq!(clone_file(&from, &to).unwrap() == CloneMethod::Reflink, found);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
