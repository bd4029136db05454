//! A work disk filled from the image's own `/root`, for images from before work seeds existed.

use std::io;
use std::path::Path;

use super::BootError;
use super::disks::Disk;
use crate::files::{self, Destination, FilesError, Source};

/// Where the work disk is mounted while it is filled: on its own place it would hide what is to be copied.
const ASIDE: &str = "/work";

/// Mounts the work disk on `on`, with what the root disk has there copied into it.
pub fn mount_filled(work: &Disk, on: &Path) -> Result<(), BootError> {
    work.mount(Path::new(ASIDE))?;
    copy(on, Path::new(ASIDE)).map_err(|error| BootError::Fill(Box::new(error)))?;
    rustix::mount::mount_move(ASIDE, on).map_err(|error| BootError::SwitchRoot(error.into()))
}

/// Copies the contents of a directory, by a tar stream through a pipe.
fn copy(from: &Path, to: &Path) -> Result<(), FilesError> {
    let source = Source::contents(from)?;
    let destination = Destination::open(to, ".")?;
    let (mut reader, mut writer) = io::pipe().map_err(FilesError::Stream)?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || files::pack(&[source], &mut writer));
        let unpacked = files::unpack(&mut reader, &destination);
        drop(reader);
        let packed = packing.join().unwrap_or_else(|_| Err(FilesError::Stream(io::ErrorKind::Other.into())));
        // A packer whose reader has failed fails too, and is not the cause.
        unpacked.and(packed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn everything_is_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(from.path().join(".ssh")).unwrap();
        fs::write(from.path().join(".ssh/authorized_keys"), "key").unwrap();
        fs::hard_link(from.path().join(".ssh/authorized_keys"), from.path().join("keys")).unwrap();
        symlink("/nowhere", from.path().join("link")).unwrap();
        copy(from.path(), to.path()).unwrap();
        assert_eq!(fs::read_to_string(to.path().join(".ssh/authorized_keys")).unwrap(), "key");
        assert_eq!(fs::read_link(to.path().join("link")).unwrap(), Path::new("/nowhere"));
        let inode = |name: &str| fs::metadata(to.path().join(name)).unwrap().ino();
        assert_eq!(inode("keys"), inode(".ssh/authorized_keys"));
    }
}
