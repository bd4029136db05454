//! Locks the directory that all daemons of a host share. A daemon must hold the lock while it changes a file there.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// Why the directory is not locked.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It could not be made, opened or locked.
    #[error("cannot {attempted} the directory {}", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another user could change files in it, or hold its lock.
    #[error(
        "the directory {} is not user {me}'s alone: it belongs to user {owner} and has the mode {mode:04o}",
        path.display()
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// The daemon's user.
        me: u32,
    },
}

impl DirectoryError {
    /// What to do.
    pub fn help(&self) -> String {
        match self {
            DirectoryError::Io { path, .. } => {
                let path = path.display();
                format!("see that {path} is a directory on a file system that can be written: `ls -ld {path}`")
            }
            DirectoryError::Unsafe { path, me, .. } => {
                let (path, owner) = (path.display(), if *me == 0 { "root:root".to_owned() } else { me.to_string() });
                format!(
                    "look at what is in it, then `chown {owner} {path} && chmod 0700 {path}`; do not remove it, \
                     because daemons that run have their claims in it"
                )
            }
        }
    }
}

/// Locks a directory, and makes it if it is missing. The lock lasts as long as the returned file. Refuses a link, and a
/// directory that another user could open or change.
///
/// # Errors
/// [`DirectoryError`].
pub(crate) fn lock_directory(dir: &Path) -> Result<File, DirectoryError> {
    let me = rustix::process::geteuid().as_raw();
    loop {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make", dir)(error)),
            _ => {}
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::open(dir, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            // Another daemon was the last one until now, and has just removed it.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(failed("open", dir)(error.into())),
        };
        let found = opened.metadata().map_err(failed("look at", dir))?;
        if found.uid() != me || found.mode() & 0o077 != 0 {
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            return Err(DirectoryError::Unsafe { path: dir.to_owned(), owner, mode, me });
        }
        rustix::fs::flock(&opened, FlockOperation::LockExclusive).map_err(|error| failed("lock", dir)(error.into()))?;
        let is_it = |now: &std::fs::Metadata| (now.dev(), now.ino()) == (found.dev(), found.ino());
        if std::fs::symlink_metadata(dir).is_ok_and(|now| is_it(&now)) {
            return Ok(opened);
        }
    }
}

/// A directory for a test, as private as that of the claims.
#[cfg(test)]
pub(crate) fn private_directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir()
        .expect("a directory for a test")
}

fn failed(attempted: &'static str, dir: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
    let path = dir.to_owned();
    move |source| DirectoryError::Io { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_at_a_time_has_the_directory_and_finds_it_in_its_place() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("ground");
        let count = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _locked = lock_directory(&dir).unwrap();
                        assert_eq!(count.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
                        count.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        std::fs::remove_dir(&dir).unwrap();
                    }
                });
            }
        });
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let above = tempfile::tempdir().unwrap();
        let (dir, elsewhere) = (above.path().join("ground"), above.path().join("elsewhere"));
        let (at, is_root) = (dir.display(), rustix::process::geteuid().is_root());
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &dir).unwrap();
        let error = lock_directory(&dir).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot open the directory {at}"));
        assert!(error.help().contains(&format!("`ls -ld {at}`")));
        std::fs::remove_file(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
        let mode = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
        for unsafe_mode in [0o755, 0o770, 0o702] {
            mode(unsafe_mode);
            let error = lock_directory(&dir).unwrap_err();
            assert!(matches!(error, DirectoryError::Unsafe { mode, .. } if mode == unsafe_mode), "{error}");
            let owner = if is_root { "root:root".to_owned() } else { rustix::process::geteuid().as_raw().to_string() };
            assert!(error.help().contains(&format!("`chown {owner} {at} && chmod 0700 {at}`")), "{}", error.help());
        }
        mode(0o700);
        drop(lock_directory(&dir).unwrap());
        if is_root {
            std::os::unix::fs::chown(&dir, Some(65534), None).unwrap();
            assert!(matches!(lock_directory(&dir), Err(DirectoryError::Unsafe { owner: 65534, me: 0, .. })));
        }
    }
}
