//! The directories of a daemon. It makes missing ones, and refuses those whose content another user could replace.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::paths::Paths;

/// The mode bits that let the group and all others make and replace files in a directory.
const WRITABLE: u32 = 0o022;

/// The mode bit that lets only owners replace their files, as in `/tmp`.
const STICKY: u32 = 0o1000;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It could not be made or looked at.
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
    /// It is another user's.
    #[error("the directory {} belongs to user {owner}, not to user {me}, who runs the daemon", path.display())]
    Owner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The daemon's user.
        me: u32,
    },
    /// Other users can make, remove and replace files in it.
    #[error("other users can write to the directory {}: its mode is {:04o}", path.display(), mode & 0o7777)]
    Writable {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl PlaceError {
    /// One line: what to do.
    pub fn help(&self) -> String {
        match self {
            // Root's own directory is not for a user to take.
            PlaceError::Io { .. } | PlaceError::Owner { owner: 0, .. } => {
                "run it as root, or set BANGER_STATE_DIR and BANGER_RUNTIME_DIR to directories of your own".to_owned()
            }
            PlaceError::Owner { path, me, .. } => {
                format!("look at what is in it, then `chown {me} {}`, or name another directory", path.display())
            }
            PlaceError::Writable { path, .. } => {
                format!("look at what is in it, then `chmod go-w {}`, or name another directory", path.display())
            }
        }
    }
}

/// Makes both directories. Other users may pass through to files whose modes allow it; the content of the state
/// directory stays with its owner.
///
/// # Errors
/// [`PlaceError`].
pub fn make(paths: &Paths) -> Result<(), PlaceError> {
    for (path, mode) in [(&paths.state, 0o711), (&paths.runtime, 0o755)] {
        make_dir(path, mode)?;
        check(path)?;
    }
    Ok(())
}

/// Makes a directory and its parents.
///
/// # Errors
/// [`PlaceError::Io`].
pub(super) fn make_dir(path: &Path, mode: u32) -> Result<(), PlaceError> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.map_err(|source| PlaceError::Io { attempted: "make", path: path.to_owned(), source })
}

/// Refuses a directory if another user could replace something in it, or in the path to it.
fn check(path: &Path) -> Result<(), PlaceError> {
    let io = |source| PlaceError::Io { attempted: "look at", path: path.to_owned(), source };
    // Links are resolved: a user who can change a link can change the directory that has it.
    let real = path.canonicalize().map_err(io)?;
    let me = rustix::process::geteuid().as_raw();
    let found = real.metadata().map_err(io)?;
    if found.uid() != me {
        return Err(PlaceError::Owner { path: path.to_owned(), owner: found.uid(), me });
    }
    if found.mode() & WRITABLE != 0 {
        return Err(PlaceError::Writable { path: path.to_owned(), mode: found.mode() });
    }
    for above in real.ancestors().skip(1) {
        let found = above.metadata().map_err(io)?;
        if lets_all_replace(&found) {
            return Err(PlaceError::Writable { path: above.to_owned(), mode: found.mode() });
        }
    }
    Ok(())
}

/// Of the daemon's parent directories, only those open to everybody count: the user chose whose home or project to use.
fn lets_all_replace(found: &Metadata) -> bool {
    found.mode() & 0o002 != 0 && found.mode() & STICKY == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn only_directories_that_no_other_user_can_change_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let paths = Paths { state: at("a/state"), runtime: at("a/runtime"), config: at("c"), claims: at("g") };
        let mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        make(&paths).unwrap();
        make(&paths).unwrap();
        for path in [&paths.state, &paths.runtime] {
            for open in [0o777, 0o1777, 0o775, 0o757] {
                mode(path, open);
                let error = make(&paths).unwrap_err();
                assert!(matches!(&error, PlaceError::Writable { path: named, .. } if named == path), "{error}");
                assert!(error.help().contains(&format!("chmod go-w {}", path.display())));
            }
            mode(path, 0o700);
            make(&paths).unwrap();
        }
        // A user who can replace the directory can replace all its content; with the sticky bit only its owner can.
        mode(&at("a"), 0o777);
        assert!(matches!(make(&paths).unwrap_err(), PlaceError::Writable { path, .. } if path.ends_with("a")));
        mode(&at("a"), 0o1777);
        make(&paths).unwrap();
        symlink(&paths.state, at("link")).unwrap();
        make(&Paths { state: at("link"), ..paths.clone() }).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&paths.runtime, Some(65534), None).unwrap();
            let error = make(&paths).unwrap_err();
            assert!(matches!(error, PlaceError::Owner { owner: 65534, me: 0, .. }), "{error}");
        }
        std::fs::write(at("file"), "").unwrap();
        let error = make(&Paths { state: at("file"), ..paths }).unwrap_err();
        assert!(matches!(error, PlaceError::Io { attempted: "make", .. }), "{error}");
    }
}
