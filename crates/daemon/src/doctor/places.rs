//! The directories that the daemon uses.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::daemon::Finding;

use super::{fail, pass, warn};

const GIB: u64 = 1024 * 1024 * 1024;

/// Below this much free space VMs run into a full disk at once.
const TOO_LITTLE: u64 = crate::space::LOW;

/// Below this much free space they will before long: an image takes a gigabyte, a VM what it writes.
const LITTLE: u64 = 8 * GIB;

/// Whether records and disks can be written.
pub(super) fn state(dir: &Path) -> Finding {
    const CHECK: &str = "state";
    match writable(dir) {
        Ok(()) => pass(CHECK, format!("{} can be written to", dir.display())),
        Err(error) => fail(
            CHECK,
            format!("{} cannot be written to: {error}", dir.display()),
            "make room, mount it for writing, or set BANGER_STATE_DIR to another directory",
        ),
    }
}

/// Whether there is room for disks.
pub(super) fn space(dir: &Path, free: io::Result<u64>) -> Finding {
    const CHECK: &str = "space";
    let fix = "remove VMs and images that are not needed, or set BANGER_STATE_DIR to a larger file system";
    match free {
        Ok(free) => {
            let found = format!("{}.{} GiB are free below {}", free / GIB, free % GIB * 10 / GIB, dir.display());
            match free {
                ..TOO_LITTLE => fail(CHECK, found, fix),
                TOO_LITTLE..LITTLE => warn(CHECK, found, fix),
                LITTLE.. => pass(CHECK, found),
            }
        }
        Err(error) => fail(CHECK, format!("the free space below {} is not known: {error}", dir.display()), fix),
    }
}

/// How disks are cloned.
pub(super) fn clones(dir: &Path, reflinks: io::Result<bool>) -> Finding {
    const CHECK: &str = "clones";
    match reflinks {
        Ok(true) => pass(CHECK, format!("disks below {} are cloned without copying", dir.display())),
        Ok(false) => warn(
            CHECK,
            format!("disks below {} are copied, but for their holes, which takes time and space", dir.display()),
            "put BANGER_STATE_DIR on XFS or btrfs, where a clone is instant",
        ),
        Err(error) => warn(
            CHECK,
            format!("whether disks below {} can be cloned is not known: {error}", dir.display()),
            "look at the file system",
        ),
    }
}

/// Whether sockets can be made, and are as safe as their directory.
pub(super) fn runtime(dir: &Path, excess: usize) -> Finding {
    const CHECK: &str = "runtime";
    let fix = "set BANGER_RUNTIME_DIR to a short path that only root can write to";
    if excess > 0 {
        return fail(CHECK, format!("sockets' paths below {} are {excess} bytes too long", dir.display()), fix);
    }
    if let Err(error) = writable(dir) {
        return fail(CHECK, format!("{} cannot be written to: {error}", dir.display()), fix);
    }
    match dir.metadata().map(|found| found.mode()) {
        Ok(mode) if mode & 0o022 == 0 => pass(CHECK, format!("sockets are below {}", dir.display())),
        Ok(_) => warn(CHECK, format!("others may write to {}, and replace sockets there", dir.display()), fix),
        Err(error) => fail(CHECK, format!("{}: {error}", dir.display()), fix),
    }
}

/// Writes a byte, which a full file system refuses, and takes it away again.
fn writable(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    io::Write::write_all(&mut file, b"x")
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::daemon::Verdict;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_state_directory_that_cannot_be_written_to_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(state(dir.path()).verdict, Verdict::Pass);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(state(&dir.path().join("none")).verdict, Verdict::Fail);
        // Where root, too, may not write.
        assert_eq!(state(Path::new("/proc")).verdict, Verdict::Fail);
    }

    #[test]
    fn little_space_is_a_warning_and_none_fails() {
        let verdict = |free| space(Path::new("/d"), Ok(free)).verdict;
        assert_eq!((verdict(8 * GIB), verdict(8 * GIB - 1)), (Verdict::Pass, Verdict::Warn));
        assert_eq!((verdict(GIB), verdict(GIB - 1), verdict(0)), (Verdict::Warn, Verdict::Fail, Verdict::Fail));
        assert_eq!(space(Path::new("/d"), Ok(3 * GIB / 2)).found, "1.5 GiB are free below /d");
        assert_eq!(space(Path::new("/d"), Err(io::ErrorKind::NotFound.into())).verdict, Verdict::Fail);
    }

    #[test]
    fn copies_are_a_warning() {
        let verdict = |reflinks| clones(Path::new("/d"), reflinks).verdict;
        assert_eq!((verdict(Ok(true)), verdict(Ok(false))), (Verdict::Pass, Verdict::Warn));
        assert_eq!(verdict(Err(io::ErrorKind::NotFound.into())), Verdict::Warn);
    }

    #[test]
    fn a_runtime_directory_that_is_too_long_or_open_to_others_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            runtime(dir.path(), 0).verdict
        };
        assert_eq!((mode(0o755), mode(0o777)), (Verdict::Pass, Verdict::Warn));
        assert!(runtime(dir.path(), 7).found.ends_with("are 7 bytes too long"));
        assert_eq!(runtime(&dir.path().join("none"), 0).verdict, Verdict::Fail);
    }
}
