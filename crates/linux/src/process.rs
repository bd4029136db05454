//! Programs and processes. The only place that starts a program, from the list in [`Program`].
//!
//! A process is held by pidfd and known by pid and start time, so that a number that was reused is never taken for it.

mod child;
mod container;
mod leash;
mod seen;
mod stat;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;

use self::child::Child;
pub use self::container::{Container, ContainerError, IDS as CONTAINER_IDS};
pub use self::leash::Leash;
pub use self::seen::{Identity, Seen, all};
pub(crate) use self::stat::Stat;
use crate::fd_stream::FdStream;
pub use crate::inherit::Attributes;

/// The programs that banger may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// `/usr/bin/qemu-system-x86_64`.
    Qemu,
    /// `/usr/bin/unshare`, to run a tool in namespaces that die with it.
    Unshare,
    /// `/bin/mount`, to try whether a container can be mounted in.
    Mount,
    /// `/usr/bin/mmdebstrap`.
    Mmdebstrap,
    /// `/sbin/mke2fs`.
    Mke2fs,
    /// `/sbin/debugfs`, to set what mke2fs cannot.
    Debugfs,
    /// `/usr/sbin/nft`.
    Nft,
    /// `/usr/bin/resolvectl`, to tell the host's systemd-resolved whom to ask for names.
    Resolvectl,
    /// `/usr/bin/git`, which the command line asks for the files of a checkout.
    Git,
    /// `ssh`, wherever its user's `PATH` has it; only the command line starts it.
    Ssh(PathBuf),
    /// `bangerd`; the command line starts one where none runs.
    Daemon(PathBuf),
    /// The static agent, as the fake VMM runs it on the host; the caller names the file.
    Agent(PathBuf),
    /// A stand-in for QEMU; the daemon's own tests name it.
    StandIn(PathBuf),
    /// A command that a guest's user asked for; only the agent starts it.
    Command(PathBuf),
}

impl Program {
    /// Its absolute path.
    pub fn path(&self) -> &Path {
        match self {
            Program::Qemu => Path::new("/usr/bin/qemu-system-x86_64"),
            Program::Unshare => Path::new("/usr/bin/unshare"),
            Program::Mount => Path::new("/bin/mount"),
            Program::Mmdebstrap => Path::new("/usr/bin/mmdebstrap"),
            Program::Mke2fs => Path::new("/sbin/mke2fs"),
            Program::Debugfs => Path::new("/sbin/debugfs"),
            Program::Nft => Path::new("/usr/sbin/nft"),
            Program::Resolvectl => Path::new("/usr/bin/resolvectl"),
            Program::Git => Path::new("/usr/bin/git"),
            Program::Ssh(path)
            | Program::Daemon(path)
            | Program::Agent(path)
            | Program::StandIn(path)
            | Program::Command(path) => path,
        }
    }
}

/// How to start a program. The program gets nothing that is not named here: no environment, no descriptors, no
/// terminal. For what a process inherits all the same, see [`crate::inherit`].
#[derive(Debug)]
pub struct Launch {
    /// Which.
    pub program: Program,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// What it sees as its own name; its path if absent.
    pub arg0: Option<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory; `/` if absent.
    pub workdir: Option<PathBuf>,
    /// Its standard input.
    pub stdin: Stream,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
    /// Descriptors that it gets under the numbers that they have here.
    pub inherit: Vec<OwnedFd>,
    /// The source of its umask, limits and priorities.
    pub attributes: Attributes,
    /// A user namespace that it runs in, as its root.
    pub container: Option<Container>,
    /// Who it runs as; as the caller if absent. A VMM's or a guest user's program gets no capabilities by this.
    pub credentials: Option<Credentials>,
    /// Whether nothing that it executes may gain rights, set-user-id programs included (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// Whether it leads a session of its own.
    pub session: bool,
    /// Whether its standard input is a terminal that becomes the session's own.
    pub terminal: bool,
    /// Whether it is killed when the calling thread ends (`PR_SET_PDEATHSIG`); start it from a thread that stays.
    pub die_with_parent: bool,
    /// A file into which the child writes its pid and start time before it executes the program: whatever happens to the
    /// caller, no program runs without its record. [`Process::recorded`] reads it.
    pub pid_file: Option<File>,
}

impl Launch {
    /// A launch with these arguments, no streams, and nothing else.
    pub fn new<A: Into<OsString>>(program: Program, args: impl IntoIterator<Item = A>) -> Launch {
        Launch {
            program,
            args: args.into_iter().map(Into::into).collect(),
            arg0: None,
            env: Vec::new(),
            workdir: None,
            stdin: Stream::Null,
            stdout: Stream::Null,
            stderr: Stream::Null,
            inherit: Vec::new(),
            attributes: Attributes::default(),
            container: None,
            credentials: None,
            no_new_privileges: false,
            session: false,
            terminal: false,
            die_with_parent: false,
            pid_file: None,
        }
    }
}

/// Where a standard stream goes.
#[derive(Debug)]
pub enum Stream {
    /// `/dev/null`.
    Null,
    /// The caller's own.
    Inherit,
    /// This descriptor.
    Fd(OwnedFd),
}

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; these and no others.
    pub groups: Vec<u32>,
}

/// A process, held by a pidfd.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
}

/// Why a process could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program's path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be watched or signalled.
    #[error("cannot {attempted} process {pid}")]
    Watch {
        /// What was attempted.
        attempted: &'static str,
        /// Its process id.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such process any more.
    #[error("process {pid} is gone")]
    Gone {
        /// The process id that it had.
        pid: u32,
    },
    /// A process record holds something else.
    #[error("{} is no process record", path.display())]
    Record {
        /// The record.
        path: PathBuf,
    },
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// [`ProcessError::Start`]; nothing runs then.
    pub fn start(launch: Launch) -> Result<Process, ProcessError> {
        let program = launch.program.path().to_owned();
        let started = Child::new(launch).and_then(|child| child.start());
        let (pid, pidfd) = started.map_err(|source| ProcessError::Start { program, source })?;
        Ok(Process { pid, pidfd })
    }

    /// Executes a program in place of the calling one. Returns only what went wrong.
    pub fn replace(launch: Launch) -> ProcessError {
        let program = launch.program.path().to_owned();
        let source = match Child::new(launch) {
            Ok(child) => child.replace(),
            Err(source) => source,
        };
        ProcessError::Start { program, source }
    }

    /// Takes hold of a process. With a start time, only if it is that very one.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] where it does not exist or is another; [`ProcessError::Watch`].
    pub fn open(pid: u32, start_time: Option<u64>) -> Result<Process, ProcessError> {
        let gone = ProcessError::Gone { pid };
        let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Err(gone) };
        let pidfd = match rustix::process::pidfd_open(id, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Err(gone),
            Err(source) => {
                return Err(ProcessError::Watch { attempted: "take hold of", pid, source: source.into() });
            }
        };
        // Read after the pidfd is held: if the pid had been reused in between, the start times differ.
        match (Stat::read(pid), start_time) {
            (Ok(found), Some(wanted)) if found.start_time != wanted => Err(gone),
            (Ok(_), _) => Ok(Process { pid: id, pidfd }),
            (Err(error), _) if is_of_none(&error) => Err(gone),
            // Without a free descriptor or memory it cannot be read, and may well live.
            (Err(source), _) => Err(ProcessError::Watch { attempted: "look at", pid, source }),
        }
    }

    /// The process that a [`Launch::pid_file`] names, if it lives.
    ///
    /// # Errors
    /// [`ProcessError::Gone`] where it has ended, or where there is no record because none was started;
    /// [`ProcessError::Record`] where the file holds something else.
    pub fn recorded(pid_file: &Path) -> Result<Process, ProcessError> {
        let mut text = String::new();
        match File::open(pid_file).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(0) => return Err(ProcessError::Gone { pid: 0 }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ProcessError::Gone { pid: 0 }),
            Err(_) => return Err(ProcessError::Record { path: pid_file.to_owned() }),
        }
        let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
        match (words.next(), words.next()) {
            (Some(Ok(pid)), Some(Ok(start))) => {
                let pid = u32::try_from(pid).map_err(|_| ProcessError::Record { path: pid_file.to_owned() })?;
                Process::open(pid, Some(start))
            }
            _ => Err(ProcessError::Record { path: pid_file.to_owned() }),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Another hold on the same process.
    ///
    /// # Errors
    /// [`ProcessError::Watch`].
    pub fn try_clone(&self) -> Result<Process, ProcessError> {
        let pidfd = self.pidfd.try_clone().map_err(|source| self.failed("take hold of", source))?;
        Ok(Process { pid: self.pid, pidfd })
    }

    /// Sends a signal. One that has ended already is no error.
    ///
    /// # Errors
    /// [`ProcessError::Watch`].
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(source) => Err(self.failed("signal", source.into())),
        }
    }

    /// Waits until it has ended, and reaps it if it is a child. Its status, where it is a child that nobody has reaped.
    ///
    /// # Errors
    /// [`ProcessError::Watch`].
    pub async fn ended(&self) -> Result<Option<ExitStatus>, ProcessError> {
        let watch = || FdStream::new(self.pidfd.try_clone()?, Interest::READABLE);
        let fd = watch().map_err(|source| self.failed("watch", source))?;
        // A pidfd becomes readable when its process ends, and stays so (pidfd_open(2)).
        fd.readable().await.map_err(|source| self.failed("watch", source))?;
        self.reap()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    /// Whether a child has been stopped by a signal since this was asked last: true once for each time.
    pub fn was_stopped(&self) -> bool {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        matches!(rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options), Ok(Some(status)) if status.stopped())
    }

    fn reap(&self) -> Result<Option<ExitStatus>, ProcessError> {
        match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let raw = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => (code & 0xff) << 8,
                    (None, Some(signal)) => signal,
                    (None, None) => 0,
                };
                Ok(Some(ExitStatus::from_raw(raw)))
            }
            Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(source) => Err(self.failed("reap", source.into())),
        }
    }

    fn failed(&self, attempted: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Watch { attempted, pid: self.pid(), source }
    }
}

/// The pidfd: readable once the process has ended (pidfd_open(2)).
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Whether a read failed because there is no such process.
fn is_of_none(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Takes a descriptor that this process was started with, under its number. It is not passed on to further programs.
///
/// # Errors
/// Where there is no such descriptor, or it is one of the standard streams.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: borrowed only to ask the kernel whether it is open; a number that is not gives EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: it is open, it came from whoever started this process, and by this function's contract the caller takes it
    // once and before anything else could have opened a descriptor of that number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number under which an inherited descriptor is known to the program.
pub fn number(fd: &OwnedFd) -> RawFd {
    fd.as_raw_fd()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch::new(Program::Command("/bin/sh".into()), ["-c", script])
    }

    #[tokio::test]
    async fn a_child_is_reaped_with_its_status() {
        let process = Process::start(shell("exit 7")).unwrap();
        assert_eq!(process.ended().await.unwrap().unwrap().code(), Some(7));
        assert!(process.has_ended());
        assert!(matches!(Process::open(process.pid(), None), Err(ProcessError::Gone { .. })));
    }

    #[tokio::test]
    async fn the_record_names_the_process_before_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let mut launch = shell("sleep 60");
        launch.pid_file = Some(File::create(&path).unwrap());
        let process = Process::start(launch).unwrap();
        let found = Process::recorded(&path).unwrap();
        assert_eq!(found.pid(), process.pid());
        process.signal(Signal::KILL).unwrap();
        assert_eq!(process.ended().await.unwrap().unwrap().signal(), Some(9));
        assert!(matches!(Process::recorded(&path), Err(ProcessError::Gone { .. })));
    }

    #[tokio::test]
    async fn a_child_gets_what_it_is_given_and_nothing_else() {
        let (mut from, to) = io::pipe().unwrap();
        let script = "echo $0 $NAME $HOME $PWD; exec grep -E '^Sig(Blk|Ign)' /proc/self/status";
        let mut launch = shell(script);
        launch.arg0 = Some("own-name".into());
        launch.env = vec![("NAME".into(), "value".into())];
        launch.workdir = Some("/usr".into());
        launch.stdout = Stream::Fd(to.into());
        let process = Process::start(launch).unwrap();
        assert_eq!(process.ended().await.unwrap().unwrap().code(), Some(0));
        let mut said = String::new();
        from.read_to_string(&mut said).unwrap();
        let [first, blocked, ignored] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
        assert_eq!((first, blocked), ("own-name value /usr", "SigBlk:\t0000000000000000"));
        // This process ignores SIGPIPE, as every Rust program. The C library keeps signal 32 for itself and lets none change it.
        let ignored = u64::from_str_radix(ignored.split_ascii_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_eq!(ignored & !(1 << 31), 0);
    }

    /// Securebits are a thread's own.
    #[test]
    fn another_user_has_no_capabilities_whatever_was_inherited() {
        if !rustix::process::geteuid().is_root() {
            return banger_skip::skipped!("not root, so no program can run as another user");
        }
        let started = std::thread::spawn(|| -> rustix::io::Result<Leash> {
            let bits = rustix::thread::CapabilitiesSecureBits::NO_SETUID_FIXUP;
            rustix::thread::set_capabilities_secure_bits(bits)?;
            let mut launch = shell("sleep 60");
            launch.credentials = Some(Credentials { uid: 65_534, gid: 65_534, groups: Vec::new() });
            Ok(Leash::start(launch).unwrap())
        });
        let Ok(leash) = started.join().unwrap() else { return banger_skip::skipped!("may not set securebits") };
        let status = std::fs::read_to_string(format!("/proc/{}/status", leash.process().unwrap().pid())).unwrap();
        let sets: Vec<_> = ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
            .iter()
            .map(|set| status.lines().find_map(|line| line.strip_prefix(set)).unwrap().trim())
            .collect();
        assert_eq!(sets, ["0000000000000000"; 4]);
    }

    #[test]
    fn what_cannot_be_executed_is_told_and_leaves_no_child() {
        let launch = Launch::new(Program::Command("/no/such/program".into()), ["x"]);
        let Err(ProcessError::Start { source, .. }) = Process::start(launch) else { panic!("it started") };
        assert_eq!(source.kind(), io::ErrorKind::NotFound);
        let mut launch = shell("true");
        launch.workdir = Some("/no/such/directory".into());
        assert!(Process::start(launch).is_err());
        let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
        assert_eq!(children, "");
    }

    #[test]
    fn another_start_time_is_another_process() {
        let me = std::process::id();
        assert!(Process::open(me, None).is_ok());
        assert!(matches!(Process::open(me, Some(1)), Err(ProcessError::Gone { .. })));
    }

    #[tokio::test]
    async fn a_dropped_leash_kills() {
        let leash = Leash::start(shell("sleep 60")).unwrap();
        let pid = leash.process().unwrap().pid();
        drop(leash);
        assert!(matches!(Process::open(pid, None), Err(ProcessError::Gone { .. })));
    }

    #[tokio::test]
    async fn a_dropped_leash_reaps_what_somebody_waited_for() {
        let leash = Leash::start(shell("sleep 60")).unwrap();
        let pid = leash.process().unwrap().pid();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(10), leash.process().unwrap().ended()).await;
        assert!(waited.is_err());
        drop(leash);
        assert!(matches!(Process::open(pid, None), Err(ProcessError::Gone { .. })));
    }

    #[tokio::test]
    async fn a_released_process_runs_on() {
        let process = Leash::start(shell("sleep 60")).unwrap().release().unwrap();
        assert!(!process.has_ended());
        process.signal(Signal::KILL).unwrap();
        process.ended().await.unwrap();
    }
}
