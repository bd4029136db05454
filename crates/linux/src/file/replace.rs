//! A file of somebody else's gets another content and stays what it is otherwise.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use super::{parent, sync_dir, temporary_beside};

/// Gives a file another content; owner, group and mode stay. A link is followed, and stays a link.
///
/// A crash at any instant leaves the old content or the new one, but for a file that is a mount point, as `/etc/hosts` is in
/// containers: it cannot be renamed over (`EBUSY`, rename(2)), and is written in place.
///
/// # Errors
/// Where it does not exist, and those of open(2), fchown(2), write(2), fsync(2), rename(2).
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let temporary = temporary_beside(&path)?;
    let renamed = write_alike(&path, &temporary, bytes).and_then(|()| std::fs::rename(&temporary, &path));
    if renamed.is_err() {
        // The first error is the one to report; a temporary file that cannot be removed either changes nothing about it.
        drop(std::fs::remove_file(&temporary));
    }
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => write_in_place(&path, bytes),
        renamed => renamed.and_then(|()| sync_dir(parent(&path))),
    }
}

/// Writes a new file with the owner and the mode of another.
fn write_alike(other: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let found = std::fs::metadata(other)?;
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    fchown(&file, Some(found.uid()), Some(found.gid()))?;
    // After the owner: to change that takes the bits that let a program gain rights.
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(found.mode() & 0o7777))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The new content comes over the old one before what is left of that is cut off: a reader in between finds whole lines at the
/// beginning, never an empty file.
fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn owner_mode_and_link_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "long content").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        let as_root = rustix::process::geteuid().is_root();
        if as_root {
            std::os::unix::fs::chown(&file, Some(1234), Some(2345)).unwrap();
        }
        std::os::unix::fs::symlink("file", &link).unwrap();
        replace(&link, b"new").unwrap();
        let found = std::fs::symlink_metadata(&file).unwrap();
        assert_eq!((std::fs::read(&file).unwrap(), found.mode() & 0o7777), (b"new".to_vec(), 0o640));
        assert!(!as_root || (found.uid(), found.gid()) == (1234, 2345));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let error = replace(&dir.path().join("none"), b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_shorter_content_in_place_leaves_nothing_of_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "long content").unwrap();
        write_in_place(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }
}
