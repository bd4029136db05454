//! The file of a claim on user ids: its content, and whether its lock is held.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use banger_linux::file::try_lock;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{GroundId, Uids};

/// The longest claim that a daemon reads, in bytes: two paths and some words.
const LONGEST: u64 = 16 * 1024;

/// The content of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The ground.
    pub id: GroundId,
    /// Its user ids.
    pub uids: Uids,
    /// Its state directory.
    pub state: PathBuf,
    /// The socket of its daemon.
    pub socket: PathBuf,
}

/// Opens a claim's file, and makes it if it is missing.
pub(super) fn make(path: &Path) -> io::Result<File> {
    open(path, OFlags::CREATE)
}

/// Opens a claim's file if it exists.
pub(super) fn existing(path: &Path) -> io::Result<Option<File>> {
    match open(path, OFlags::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?))
}

/// Writes a claim.
pub(super) fn write(mut file: &File, claim: &Claim) -> io::Result<()> {
    let Claim { id, uids, state, socket } = claim;
    // A path with a line break is cut there; nobody acts on it.
    let path = |path: &Path| path.display().to_string().lines().next().unwrap_or_default().to_owned();
    let text = format!("ground {id}\nfirst-uid {}\nstate {}\nsocket {}\n", uids.first(), path(state), path(socket));
    io::Seek::rewind(&mut file)?;
    // In this order, so that no reader ever finds an empty file.
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// Reads a claim; `None` if it is none.
pub(super) fn read(file: &mut File) -> Option<Claim> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Some(Claim {
        id: value("ground")?.parse().ok()?,
        uids: Uids::from(value("first-uid")?.parse().ok()?),
        state: value("state")?.into(),
        socket: value("socket")?.into(),
    })
}

/// Whether a process holds the lock of a claim. The caller holds the directory's lock, so that no daemon misses this one
/// for a moment.
pub(super) fn is_held(file: &File) -> bool {
    match try_lock(file) {
        // Not by closing: a child that has not executed its program yet has the descriptor, too.
        Ok(true) => rustix::fs::flock(file, FlockOperation::Unlock).is_err(),
        Ok(false) | Err(_) => true,
    }
}
