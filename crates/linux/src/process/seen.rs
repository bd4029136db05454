//! What `/proc` says about a process: its identity, its user and its command line.
//!
//! Methods read a held process by its number. The number is right because the process has not ended after the read:
//! while it lives, no other process has its number.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Process, ProcessError, Stat};

/// How long to ask a process again that shows no words: on a busy host, a process that executes a program may have to
/// wait.
const EXECUTING: Duration = Duration::from_millis(500);

/// How long to wait for the end of a process that exits. To free a guest's memory takes a second for some tens of GiB; the
/// last writes to a slow disk take longer.
const EXITING: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Distinguishes a process from every other one in this boot of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its process id, which the kernel reuses later.
    pub pid: u32,
    /// Its start time, in ticks since the host's boot.
    pub start: u64,
}

/// A process that existed a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its process id.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// All processes of this process's pid namespace that `/proc` shows.
///
/// # Errors
/// If there is no `/proc`.
pub fn all() -> io::Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process's directory in /proc belongs to its effective user (proc(5)). A process that ended meanwhile has
        // none.
        if let Ok(metadata) = entry.metadata() {
            seen.push(Seen { pid, uid: metadata.uid() });
        }
    }
    Ok(seen)
}

impl Process {
    /// Its identity.
    ///
    /// # Errors
    /// [`ProcessError::Gone`], [`ProcessError::Watch`].
    pub fn identity(&self) -> Result<Identity, ProcessError> {
        let start = self.alive(Stat::read(self.pid()))?.start_time;
        Ok(Identity { pid: self.pid(), start })
    }

    /// Its effective user.
    ///
    /// # Errors
    /// [`ProcessError::Gone`], [`ProcessError::Watch`].
    pub fn user(&self) -> Result<u32, ProcessError> {
        self.alive(std::fs::metadata(self.place("")).map(|metadata| metadata.uid()))
    }

    /// The words of its command line, its own name first. The process can change them. A kernel thread has none, and
    /// neither has a process that exits: this waits for its end, but not for ever.
    ///
    /// # Errors
    /// [`ProcessError::Gone`], [`ProcessError::Watch`].
    pub fn command_line(&self) -> Result<Vec<Vec<u8>>, ProcessError> {
        let mut text = self.alive(std::fs::read(self.place("cmdline")))?;
        // A process that is executing a program has the program at once, and its words a few microseconds later.
        let began = Instant::now();
        while text.is_empty() && began.elapsed() < EXECUTING && std::fs::read_link(self.place("exe")).is_ok() {
            std::thread::yield_now();
            text = self.alive(std::fs::read(self.place("cmdline")))?;
        }
        if text.is_empty() && self.alive(Stat::read(self.pid()))?.is_exiting {
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            self.alive(rustix::event::poll(&mut fds, Some(&EXITING)).map_err(io::Error::from))?;
        }
        let text = text.strip_suffix(b"\0").unwrap_or(&text);
        Ok(text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect())
    }

    /// The kernel's name for it, fit for a message.
    ///
    /// # Errors
    /// [`ProcessError::Gone`], [`ProcessError::Watch`].
    pub fn name(&self) -> Result<String, ProcessError> {
        let name = self.alive(std::fs::read(self.place("comm")))?;
        Ok(String::from_utf8_lossy(&name).chars().filter(|letter| !letter.is_control()).collect())
    }

    /// Whether it leads a session.
    pub fn leads_session(&self) -> bool {
        Stat::read(self.pid()).is_ok_and(|stat| stat.session == self.pid()) && !self.has_ended()
    }

    /// The names of the TAPs that it has open.
    ///
    /// # Errors
    /// [`ProcessError::Gone`], [`ProcessError::Watch`].
    pub fn taps(&self) -> Result<Vec<String>, ProcessError> {
        let list = || {
            let mut taps = Vec::new();
            for entry in std::fs::read_dir(self.place("fdinfo"))? {
                // A descriptor that was closed meanwhile has no file.
                let Ok(text) = std::fs::read_to_string(entry?.path()) else { continue };
                let names = text.lines().filter_map(|line| line.strip_prefix("iff:"));
                taps.extend(names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
            }
            Ok(taps)
        };
        self.alive(list())
    }

    /// Whether it has one of these files open; a missing file counts as not open.
    ///
    /// # Errors
    /// [`ProcessError::Gone`]; [`ProcessError::Watch`], if this process may not look at it.
    pub fn has_open(&self, files: &[&Path]) -> Result<bool, ProcessError> {
        let which = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let wanted: Vec<(u64, u64)> = files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(which).collect();
        let look = || {
            for entry in std::fs::read_dir(self.place("fd"))? {
                // The entry leads to the file itself, whatever its name is by now.
                if std::fs::metadata(entry?.path()).is_ok_and(|metadata| wanted.contains(&which(metadata))) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.alive(look())
    }

    fn place(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid())
    }

    /// Returns what was read, if the process is still alive: then it belongs to this process.
    fn alive<T>(&self, read: io::Result<T>) -> Result<T, ProcessError> {
        if self.has_ended() {
            return Err(ProcessError::Gone { pid: self.pid() });
        }
        read.map_err(|source| self.failed("look at", source))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::fd::OwnedFd;

    use super::super::{Launch, Leash, Program, Stream};
    use super::*;
    use rustix::process::Signal;
    use rustix::pty::OpenptFlags;

    #[tokio::test]
    async fn a_held_process_is_described_until_it_has_ended() {
        let mut launch = Launch::new(Program::Command("/bin/sleep".into()), ["60"]);
        launch.session = true;
        let leash = Leash::start(launch).unwrap();
        let process = leash.process().unwrap();
        let identity = process.identity().unwrap();
        assert_eq!(identity.pid, process.pid());
        assert_eq!(Process::open(identity.pid, Some(identity.start)).unwrap().pid(), process.pid());
        assert!(matches!(Process::open(identity.pid, Some(identity.start + 1)), Err(ProcessError::Gone { .. })));
        assert_eq!(process.user().unwrap(), rustix::process::geteuid().as_raw());
        assert_eq!(process.command_line().unwrap(), [b"/bin/sleep".to_vec(), b"60".to_vec()]);
        assert_eq!(process.name().unwrap(), "sleep");
        assert!(process.leads_session());
        assert!(process.has_open(&[Path::new("/no/such/file"), Path::new("/dev/null")]).unwrap());
        assert!(!process.has_open(&[Path::new("/dev/zero")]).unwrap());
        assert_eq!(process.taps().unwrap(), Vec::<String>::new());
        let seen = Seen { pid: process.pid(), uid: process.user().unwrap() };
        assert!(all().unwrap().contains(&seen));

        process.signal(Signal::KILL).unwrap();
        // It is a zombie until somebody reaps it: visible, but dead.
        let mut fds = [rustix::event::PollFd::new(&process.pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        assert!(matches!(process.command_line(), Err(ProcessError::Gone { .. })));
        assert!(matches!(process.identity(), Err(ProcessError::Gone { .. })));
    }

    /// A shell in a container is such a process: it leads nothing in there, and what leads it has no number.
    #[tokio::test]
    async fn a_session_and_a_foreground_of_another_pid_namespace_are_no_number() {
        if !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("not root, so no pid namespace can be made");
            return;
        }
        if std::process::id() == 1 {
            let process = Process::open(1, None).unwrap();
            assert_eq!(Stat::read(1).unwrap().session, 0);
            assert!(!process.leads_session());
            assert!(crate::terminal::is_foreground(rustix::stdio::stdin()));
            return;
        }
        let (_master, terminal) = terminal();
        let output = tempfile::NamedTempFile::new().unwrap();
        let this = std::env::current_exe().unwrap().into_os_string();
        let name = "process::seen::tests::a_session_and_a_foreground_of_another_pid_namespace_are_no_number";
        let words = ["--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from);
        let words = words.into_iter().chain([this, "--exact".into(), name.into()]);
        let mut launch = Launch::new(Program::Unshare, words);
        (launch.stdin, launch.session, launch.terminal) = (Stream::Fd(terminal), true, true);
        (launch.stdout, launch.stderr) = (Stream::Fd(output.reopen().unwrap().into()), Stream::Null);
        assert!(Leash::start(launch).unwrap().ended().await.unwrap().success());
        let said = std::fs::read_to_string(output.path()).unwrap();
        assert!(said.contains("1 passed"), "{said}");
    }

    /// A pseudo terminal's two ends.
    fn terminal() -> (OwnedFd, OwnedFd) {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        (master, terminal)
    }
}
