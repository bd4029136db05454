//! What a ground remembers of itself, and whether a state directory is the one that it was made in. Pure, but for one
//! stat(2).

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{GroundId, Slot};

/// A directory as the kernel knows it: a copy is another directory under any name; a moved directory stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDir {
    /// Its device.
    pub device: u64,
    /// Its inode number.
    pub inode: u64,
}

/// What a ground remembers of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: GroundId,
    /// The state directory that it was made in.
    pub dir: StateDir,
    /// The runtime directory of its last daemon.
    pub runtime: PathBuf,
    /// The uid slot that it had last.
    pub uids: Slot,
}

/// Whether a state directory is the one in its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It is the same, perhaps under another path.
    Same,
    /// It is a copy: the records belong to the ground of another directory.
    Copied,
}

impl StateDir {
    /// The identity of the directory at a path.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn of(path: &Path) -> io::Result<StateDir> {
        let found = std::fs::metadata(path)?;
        Ok(StateDir { device: found.dev(), inode: found.ino() })
    }
}

impl Identity {
    /// Whether `here` is the directory in which the identity was recorded.
    pub fn moved(&self, here: StateDir) -> Moved {
        if self.dir == here { Moved::Same } else { Moved::Copied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_was_moved_is_the_same_and_a_copy_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("a")).unwrap();
        let identity = Identity {
            id: GroundId::from_random([1; 8]),
            dir: StateDir::of(&at("a")).unwrap(),
            runtime: at("run"),
            uids: Slot::FIRST,
        };
        std::fs::rename(at("a"), at("b")).unwrap();
        assert_eq!(identity.moved(StateDir::of(&at("b")).unwrap()), Moved::Same);
        std::fs::create_dir(at("c")).unwrap();
        assert_eq!(identity.moved(StateDir::of(&at("c")).unwrap()), Moved::Copied);
    }
}
