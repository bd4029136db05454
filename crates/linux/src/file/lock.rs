//! A lock that one process holds and that the kernel takes back however it ends.
//!
//! Only the owner may open its file (0600): flock(2) needs no permission but an open file, so every user who can read
//! it can lock it.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, inotify};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::flock::lock_behind;
use super::try_lock;

/// The mode of a lock's file.
const MODE: u32 = 0o600;

/// An flock(2) on a file, held until this is dropped or the process ends. The file stays, with the last holder's pid in it:
/// removing it would let two processes lock two files of one name.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

/// A request for a lock.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The lock's file.
    pub path: &'a Path,
    /// What its holders write about themselves, in the lines after the first.
    pub note: &'a str,
    /// The name of the holder's program; the calling program counts, too. Another process with the file's number is not
    /// the holder.
    pub program: &'a str,
    /// How long to wait if the lock is taken but no such process lives. A killed holder can leave the lock for a moment
    /// to a child that has not executed its program yet, and a new holder has it before the file says so.
    pub patience: Duration,
}

/// A living process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What it writes about itself.
    pub note: String,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living process of the program holds it.
    #[error("{} is locked by process {}", path.display(), holder.pid)]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// The holder.
        holder: Holder,
    },
    /// Another process holds it, whose number is not in the file.
    #[error("{} is locked by an unknown process", path.display())]
    Squatted {
        /// The lock's file.
        path: PathBuf,
    },
    /// The file with its name does not belong to the caller, or is not a regular file.
    #[error("cannot lock {}: it is {found}", path.display())]
    Unfit {
        /// The lock's file.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The file could not be opened or written.
    #[error("cannot lock {}", path.display())]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, or says at once who has it. Makes the file where there is none.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(claim: Claim<'_>) -> Result<Lock, LockError> {
        let path = claim.path;
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let deadline = Instant::now() + claim.patience;
        loop {
            let mut file = open(path)?;
            if !try_lock(&file).map_err(failed)? {
                if let Some(holder) = wait_for_lock(&mut file, claim, deadline, changes).map_err(failed)? {
                    return Err(LockError::Held { path: path.to_owned(), holder });
                }
                if !try_lock(&file).map_err(failed)? {
                    return Err(LockError::Squatted { path: path.to_owned() });
                }
            }
            let mut lock = Lock { file, path: path.to_owned() };
            // Another process may have replaced the file between the two calls.
            if lock.is_in_place() {
                lock.write_holder(claim.note).map_err(failed)?;
                return Ok(lock);
            }
        }
    }

    /// Takes the lock as [`Lock::acquire`] does, but also from processes of other programs. It makes a successor of the
    /// file, locks it, and then gives it the file's name; `temporary` is its name until then, in the same directory.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire_or_replace(claim: Claim<'_>, temporary: &Path) -> Result<Lock, LockError> {
        match Lock::acquire(claim) {
            Err(LockError::Squatted { .. }) => {}
            result => return result,
        }
        let failed = |source| LockError::Io { path: claim.path.to_owned(), source };
        super::remove_tree(temporary).map_err(failed)?;
        let mut lock = Lock { file: open(temporary)?, path: claim.path.to_owned() };
        if !try_lock(&lock.file).map_err(failed)? {
            return Err(LockError::Squatted { path: temporary.to_owned() });
        }
        lock.write_holder(claim.note).map_err(failed)?;
        // Again: another process may have replaced it meanwhile.
        match Lock::acquire(Claim { patience: Duration::ZERO, ..claim }) {
            Err(LockError::Squatted { .. }) => std::fs::rename(temporary, claim.path).map_err(failed)?,
            result => {
                super::remove_tree(temporary).map_err(failed)?;
                return result;
            }
        }
        if lock.is_in_place() { Ok(lock) } else { Err(LockError::Squatted { path: claim.path.to_owned() }) }
    }

    /// Whether the locked file still has its name. If not, another process may hold its successor.
    pub fn is_in_place(&self) -> bool {
        let found = std::fs::symlink_metadata(&self.path);
        let held = self.file.metadata();
        matches!((found, held), (Ok(found), Ok(held)) if (found.dev(), found.ino()) == (held.dev(), held.ino()))
    }

    /// Writes in one call, so that a reader finds nothing or all of it.
    fn write_holder(&mut self, note: &str) -> io::Result<()> {
        let end = if note.is_empty() { "" } else { "\n" };
        let text = format!("{}\n{note}{end}", std::process::id());
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

/// Opens the lock's file, and corrects the mode that an earlier program gave it.
fn open(path: &Path) -> Result<File, LockError> {
    let failed = |source| LockError::Io { path: path.to_owned(), source };
    let unfit = |found| LockError::Unfit { path: path.to_owned(), found };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(MODE);
    // Do not wait for the other end of a pipe.
    let opened = options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => unfit("a symbolic link"),
        Some(libc::EISDIR) => unfit("a directory"),
        Some(libc::ENXIO) => unfit("a socket"),
        _ => failed(error),
    })?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(unfit("not a regular file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(unfit("another user's"));
    }
    if found.mode() & 0o7777 != MODE {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(MODE)).map_err(|errno| failed(errno.into()))?;
    }
    Ok(file)
}

/// Waits until the file names a living holder, and returns it. Returns `None` when the caller has the lock or the
/// deadline passes. `watch` returns a descriptor that can be read after changes of the file.
fn wait_for_lock(
    file: &mut File,
    claim: Claim<'_>,
    deadline: Instant,
    watch: impl FnOnce(&File) -> io::Result<OwnedFd>,
) -> io::Result<Option<Holder>> {
    let living = |file: &mut File| -> io::Result<Option<Holder>> {
        Ok(read_holder(file)?.filter(|holder| holds(holder.pid, claim.program)))
    };
    if let Some(holder) = living(file)? {
        return Ok(Some(holder));
    }
    if deadline <= Instant::now() {
        return Ok(None);
    }
    // Inotify has limits for each user. Without it, only the lock and the deadline end the wait.
    let (watch, had) = (watch(file).ok(), lock_behind(file)?);
    loop {
        // After the watch began, so that no change is missed; and once more at the deadline.
        if let Some(holder) = living(file)? {
            return Ok(Some(holder));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut fds: Vec<PollFd<'_>> =
            std::iter::once(&had).chain(&watch).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !fds[0].revents().is_empty() {
            return Ok(None);
        }
        let Some(watch) = &watch else { continue };
        match rustix::io::read(watch, &mut [0u8; 4096][..]) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Watches this very file, whatever has its name by now.
fn changes(file: &File) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, format!("/proc/self/fd/{}", file.as_raw_fd()), inotify::WatchFlags::MODIFY)?;
    Ok(watch)
}

fn read_holder(file: &mut File) -> io::Result<Option<Holder>> {
    let mut text = Vec::new();
    file.rewind()?;
    file.take(8192).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let (pid, note) = text.split_once('\n').unwrap_or((&text, ""));
    Ok(pid.trim().parse().ok().map(|pid| Holder { pid, note: note.trim_end_matches('\n').to_owned() }))
}

/// Whether this process lives, runs the program, and belongs to the caller's user or root.
fn holds(pid: u32, program: &str) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(process) = pidfd_open(id, PidfdFlags::empty()) else { return false };
    let same = is_trusted(pid) && runs(pid, program);
    // A pidfd is readable once its process has ended, even before it is reaped (pidfd_open(2)). Checked last: until now
    // the number belonged to the process.
    let ended = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&Timespec::default()));
    same && ended.is_ok_and(|ended| ended == 0)
}

fn is_trusted(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // The second one is the effective uid.
    let uid = uids.and_then(|uids| uids.split_whitespace().nth(1)).and_then(|uid| uid.parse().ok());
    uid.is_some_and(|uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw())
}

/// Judged by the name of its executable, even if the file was renamed or deleted since (`bangerd.old`, `bangerd
/// (deleted)`).
fn runs(pid: u32, program: &str) -> bool {
    let executable = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe"));
    match (executable(&pid.to_string()), executable("self")) {
        (Ok(its), own) => {
            let name = its.file_name().unwrap_or(OsStr::new("")).as_bytes();
            name.starts_with(program.as_bytes()) || own.is_ok_and(|own| own == its)
        }
        // A process that this one may not look at counts.
        (Err(error), _) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Credentials, Launch, Process, Program};
    use rustix::fs::FlockOperation;
    use rustix::process::Signal;
    use std::os::unix::fs::PermissionsExt;

    /// Larger than any process id (proc(5), pid_max).
    const NOBODY: &str = "1073741824\n";

    fn claim(path: &Path) -> Claim<'_> {
        Claim { path, note: "a note", program: "none of this name", patience: Duration::from_secs(5) }
    }

    fn briefly(path: &Path) -> Claim<'_> {
        Claim { patience: Duration::from_millis(20), ..claim(path) }
    }

    #[test]
    fn the_second_learns_which_process_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(claim(&path)).unwrap();
        let me = Holder { pid: std::process::id(), note: "a note".into() };
        assert!(matches!(Lock::acquire(claim(&path)), Err(LockError::Held { holder, .. }) if holder == me));
        drop(first);
        Lock::acquire(claim(&path)).unwrap();
    }

    #[test]
    fn a_dead_holders_remains_delay_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, NOBODY).unwrap();
        let left = File::open(&path).unwrap();
        rustix::fs::flock(&left, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(Lock::acquire(briefly(&path)), Err(LockError::Squatted { .. })));
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(claim(&path)).unwrap());
            drop(left);
            drop(second.join().unwrap());
        });
    }

    #[test]
    fn a_holder_that_has_yet_to_write_its_number_is_known_once_it_has() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, NOBODY).unwrap();
        let mut first = Lock { file: File::options().write(true).open(&path).unwrap(), path: path.clone() };
        rustix::fs::flock(&first.file, FlockOperation::LockExclusive).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Lock::acquire(Claim { patience: Duration::from_secs(60), ..claim(&path) }));
            first.write_holder("").unwrap();
            let me = std::process::id();
            assert!(matches!(second.join().unwrap(), Err(LockError::Held { holder, .. }) if holder.pid == me));
        });
    }

    #[test]
    fn the_holder_is_known_without_inotify() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::acquire(claim(&path)).unwrap();
        let (mut file, soon) = (open(&path).unwrap(), || Instant::now() + Duration::from_millis(20));
        let me = std::process::id();
        // A holder that the file names is known without a watch.
        let found = wait_for_lock(&mut file, claim(&path), soon(), |_| panic!("it needs no watch")).unwrap();
        assert_eq!(found.map(|holder| holder.pid), Some(me));
        // All instances are in use.
        let used_up = |_: &File| Err(Errno::MFILE.into());
        std::fs::write(&path, NOBODY).unwrap();
        assert_eq!(wait_for_lock(&mut file, claim(&path), soon(), used_up).unwrap(), None);
        let at_the_end = |_: &File| {
            std::fs::write(&path, me.to_string()).unwrap();
            Err(Errno::MFILE.into())
        };
        let found = wait_for_lock(&mut file, claim(&path), soon(), at_the_end).unwrap();
        assert_eq!(found.map(|holder| holder.pid), Some(me));
        // The wait ends with the lock.
        std::fs::write(&path, NOBODY).unwrap();
        std::thread::scope(|scope| {
            let late = Instant::now() + Duration::from_secs(600);
            let second = scope.spawn(move || wait_for_lock(&mut file, claim(&path), late, used_up).unwrap());
            drop(first);
            assert_eq!(second.join().unwrap(), None);
        });
    }

    #[test]
    fn a_squatter_keeps_the_old_file_and_the_lock_gets_another() {
        let dir = tempfile::tempdir().unwrap();
        let (path, temporary) = (dir.path().join("lock"), dir.path().join("lock.new"));
        std::fs::write(&path, NOBODY).unwrap();
        std::fs::write(&temporary, "left by one that was killed").unwrap();
        let squatter = File::open(&path).unwrap();
        rustix::fs::flock(&squatter, FlockOperation::LockShared).unwrap();
        let lock = Lock::acquire_or_replace(briefly(&path), &temporary).unwrap();
        assert!(lock.is_in_place() && !temporary.exists());
        assert!(matches!(Lock::acquire_or_replace(briefly(&path), &temporary), Err(LockError::Held { .. })));
        assert!(lock.is_in_place() && !temporary.exists());
        std::fs::rename(&path, &temporary).unwrap();
        assert!(!lock.is_in_place());
    }

    #[tokio::test]
    async fn a_number_of_another_program_or_user_is_no_holder() {
        let mut launch = Launch::new(Program::Command("/bin/sleep".into()), ["60"]);
        let child = Process::start(launch).unwrap();
        assert!(holds(child.pid(), "sle") && !holds(child.pid(), "bangerd"));
        child.signal(Signal::KILL).unwrap();
        child.ended().await.unwrap();
        assert!(!holds(child.pid(), "sle") && !holds(0, "") && !holds(u32::MAX, ""));
        if rustix::process::geteuid().is_root() {
            launch = Launch::new(Program::Command("/bin/sleep".into()), ["60"]);
            launch.credentials = Some(Credentials { uid: 65534, gid: 65534, groups: Vec::new() });
            let child = Process::start(launch).unwrap();
            assert!(!holds(child.pid(), "sle"));
            child.signal(Signal::KILL).unwrap();
            child.ended().await.unwrap();
        }
        assert!(holds(std::process::id(), "bangerd"));
    }

    #[test]
    fn the_file_is_its_owners_alone_and_nothing_else_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        drop(Lock::acquire(claim(&path)).unwrap());
        assert_eq!(mode(&path), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(Lock::acquire(claim(&path)).unwrap());
        assert_eq!(mode(&path), 0o600);
        let found = |name: &str| match Lock::acquire(claim(&dir.path().join(name))) {
            Err(LockError::Unfit { found, .. }) => found,
            other => panic!("{name}: {other:?}"),
        };
        std::os::unix::fs::symlink(&path, dir.path().join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("none"), dir.path().join("dangling")).unwrap();
        std::fs::create_dir(dir.path().join("directory")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap());
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0)
            .unwrap();
        assert_eq!((found("link"), found("dangling")), ("a symbolic link", "a symbolic link"));
        assert_eq!((found("directory"), found("socket")), ("a directory", "a socket"));
        assert_eq!(found("pipe"), "not a regular file");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert_eq!(found("lock"), "another user's");
        }
    }
}
