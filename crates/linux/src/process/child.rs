//! A child from its making to its program: what it does to itself in between.
//!
//! The child is made as vfork(2) makes it: it borrows the memory of its parent, whose calling thread stands still until the
//! program is executed. To copy a memory's tables, and to write-protect and then fault them, costs an emulated guest more
//! than all the rest of a command's start.

use std::ffi::{CStr, CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Container, Credentials, Launch, Stat, Stream};
use crate::inherit::{Change, mark_descriptors};

/// What the child has for a stack. It calls a few functions deep and keeps a kilobyte there.
const STACK: usize = 64 * 1024;

/// What scripts are run by.
const SHELL: &CStr = c"/bin/sh";

/// The highest signal.
const SIGNALS: c_int = 64;

/// All that a child needs, made before it is: it allocates nothing itself.
pub(super) struct Child {
    program: CString,
    argv: Words,
    /// What the shell is called with, where the program is a script that names no interpreter.
    shell_argv: Words,
    envp: Words,
    workdir: CString,
    /// For the standard streams; none where the child is to have its parent's.
    streams: [Option<OwnedFd>; 3],
    inherit: Vec<OwnedFd>,
    attributes: Change,
    container: Option<Container>,
    credentials: Option<Credentials>,
    no_new_privileges: bool,
    session: bool,
    terminal: bool,
    parent: Option<Pid>,
    pid_file: Option<File>,
}

impl Child {
    pub(super) fn new(launch: Launch) -> io::Result<Child> {
        let program = launch.program.path();
        let name = launch.arg0.as_deref().unwrap_or(program.as_os_str());
        let args = || launch.args.iter().map(OsString::as_os_str);
        let argv = [name].into_iter().chain(args()).map(word);
        let shell_argv = [OsStr::from_bytes(SHELL.to_bytes()), program.as_os_str()].into_iter().chain(args()).map(word);
        let assignment = |(name, value): &(OsString, OsString)| {
            let mut words = name.clone();
            words.push("=");
            words.push(value);
            word(&words)
        };
        Ok(Child {
            program: word(program.as_os_str())?,
            argv: Words::new(argv.collect::<io::Result<_>>()?),
            shell_argv: Words::new(shell_argv.collect::<io::Result<_>>()?),
            envp: Words::new(launch.env.iter().map(assignment).collect::<io::Result<_>>()?),
            workdir: word(launch.workdir.as_deref().unwrap_or(Path::new("/")).as_os_str())?,
            streams: [stream(launch.stdin)?, stream(launch.stdout)?, stream(launch.stderr)?],
            inherit: launch.inherit,
            attributes: Change::to(launch.attributes),
            container: launch.container,
            credentials: launch.credentials,
            no_new_privileges: launch.no_new_privileges,
            session: launch.session,
            terminal: launch.terminal,
            parent: launch.die_with_parent.then(rustix::process::getpid),
            pid_file: launch.pid_file,
        })
    }

    /// Makes the child. Returns when its program runs: its pid, and a pidfd.
    pub(super) fn start(&self) -> io::Result<(Pid, OwnedFd)> {
        struct Call<'a> {
            child: &'a Child,
            failed: Option<io::Error>,
        }

        extern "C" fn go(call: *mut c_void) -> c_int {
            // SAFETY: `start` passes its own `Call` and stands still until this process has gone on to its program.
            let call = unsafe { &mut *call.cast::<Call<'_>>() };
            call.failed = Some(call.child.become_program(Reset::All));
            // SAFETY: ends this process alone, without the exit handlers of the memory that it borrows.
            unsafe { libc::_exit(127) }
        }

        let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
        let mut call = Call { child: self, failed: None };
        let mut pidfd: RawFd = -1;
        let signals = block_signals()?;
        // SAFETY: the child has a stack of its own, of which this is the end, as stacks grow down. It shares the memory
        // until it executes or exits, and this thread stands still for as long (CLONE_VFORK): all that it is passed lives.
        // No handler of a signal runs in it: all are blocked, and reset before they no longer are.
        let pid = unsafe {
            libc::clone(
                go,
                stack.as_mut_ptr_range().end.cast(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
                (&raw mut call).cast(),
                &raw mut pidfd,
            )
        };
        let made = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        set_signals(&signals)?;
        made?;
        // SAFETY: clone(2) has just made this descriptor for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        match (call.failed, Pid::from_raw(pid)) {
            (None, Some(pid)) => Ok((pid, pidfd)),
            (failed, _) => {
                let wait = rustix::process::WaitId::PidFd(pidfd.as_fd());
                rustix::process::waitid(wait, rustix::process::WaitIdOptions::EXITED)?;
                Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Executes the program in place of the calling one; returns only what went wrong. It is what its caller was started as,
    /// and goes on ignoring what that was told to, as by nohup(1).
    pub(super) fn replace(&self) -> io::Error {
        match block_signals() {
            Err(error) => error,
            Ok(signals) => {
                let error = self.become_program(Reset::Handled);
                // The error before this one says more.
                set_signals(&signals).ok();
                error
            }
        }
    }

    /// Allocates nothing and takes no lock: it may run in memory whose other threads are at work.
    fn become_program(&self, reset: Reset) -> io::Error {
        if let Err(error) = self.set_up(reset) {
            return error;
        }
        let error = execute(&self.program, &self.argv, &self.envp);
        if error.raw_os_error() != Some(libc::ENOEXEC) {
            return error;
        }
        // A script that names no interpreter is the shell's, as execvp(3) has it.
        match execute(SHELL, &self.shell_argv, &self.envp) {
            missing if missing.raw_os_error() == Some(libc::ENOENT) => error,
            other => other,
        }
    }

    fn set_up(&self, reset: Reset) -> io::Result<()> {
        for (number, fd) in self.streams.iter().enumerate() {
            if let Some(fd) = fd {
                // SAFETY: both are numbers to the kernel. Where they are the same, the descriptor must lose its mark.
                let done = unsafe {
                    match c_int::try_from(number) {
                        Ok(number) if fd.as_raw_fd() == number => libc::fcntl(number, libc::F_SETFD, 0),
                        Ok(number) => libc::dup2(fd.as_raw_fd(), number),
                        Err(_) => -1,
                    }
                };
                if done < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        // Below, the descriptors that the launch names lose the mark. The others stay open until the process executes
        // the program.
        mark_descriptors()?;
        // Before it loses its privileges, and while /proc is the host's.
        self.attributes.apply()?;
        if let Some(container) = &self.container {
            container.enter()?;
        }
        rustix::process::chdir(&self.workdir)?;
        if self.session {
            rustix::process::setsid()?;
        }
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        for fd in &self.inherit {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        if let Some(file) = &self.pid_file {
            record_self(file)?;
        }
        if let Some(credentials) = &self.credentials {
            assume(credentials)?;
        }
        // After the change of ids, which takes it away (PR_SET_PDEATHSIG(2const)).
        if let Some(parent) = self.parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        // The process opens nothing after this.
        self.attributes.limit_descriptors()?;
        reset_signals(reset);
        unblock_signals()
    }
}

/// Returns only what went wrong.
fn execute(program: &CStr, argv: &Words, envp: &Words) -> io::Error {
    // SAFETY: words that end with a zero, in lists that end with a null, alive until this returns.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// Words as execve(2) wants them.
struct Words {
    pointers: Vec<*const c_char>,
    _words: Vec<CString>,
}

impl Words {
    fn new(words: Vec<CString>) -> Words {
        let pointers = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
        Words { pointers, _words: words }
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

fn word(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.as_bytes())?)
}

fn stream(stream: Stream) -> io::Result<Option<OwnedFd>> {
    match stream {
        Stream::Null => Ok(Some(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)),
        Stream::Inherit => Ok(None),
        Stream::Fd(fd) => Ok(Some(fd)),
    }
}

/// Blocks all signals for this thread; returns which were before.
pub(super) fn block_signals() -> io::Result<libc::sigset_t> {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the first call fills the set, the second reads it and fills the other.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
            0 => Ok(before.assume_init()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn unblock_signals() -> io::Result<()> {
    let mut none = MaybeUninit::uninit();
    // SAFETY: the call fills the set.
    let none = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        none.assume_init()
    };
    set_signals(&none)
}

pub(super) fn set_signals(set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: reads a live set.
    match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Which signals do again what they do by default.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// Those with a handler, which would run in the parent's memory; and SIGPIPE, which Rust's programs ignore and others
    /// count on.
    Handled,
    /// Those that the parent ignores as well: under nohup(1) it ignores SIGHUP, which is none of its child's business.
    All,
}

fn reset_signals(reset: Reset) {
    for signal in 1..=SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: fills `action`, which is then read; what is set has no handler. Numbers that are no signal's are refused.
        unsafe {
            if libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) != 0 {
                continue;
            }
            let mut action = action.assume_init();
            let ignored = action.sa_sigaction == libc::SIG_IGN;
            let stays = ignored && reset == Reset::Handled && signal != libc::SIGPIPE;
            if action.sa_sigaction != libc::SIG_DFL && !stays {
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
        }
    }
}

/// Raw system calls: the C library's wrappers want to change the threads that this child does not have. The kernel lets no
/// process of another user look into a memory whose ids have changed, and this memory is the parent's too: it dumps no core
/// from then on.
pub(super) fn assume(credentials: &Credentials) -> io::Result<()> {
    let groups = (credentials.groups.len(), credentials.groups.as_ptr());
    // SAFETY: the pointer and length are those of a live vector of `gid_t`; the other calls take integers.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.0, groups.1),
            libc::syscall(libc::SYS_setresgid, credentials.gid, credentials.gid, credentials.gid),
            libc::syscall(libc::SYS_setresuid, credentials.uid, credentials.uid, credentials.uid),
        ]
    };
    if results.contains(&-1) {
        return Err(io::Error::last_os_error());
    }
    if credentials.uid != 0 {
        // The change of ids does this itself, unless the daemon inherited securebits that forbid it (capabilities(7)). With
        // the inheritable ones the ambient ones go.
        let none = CapabilitySet::empty();
        rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    Ok(())
}

fn record_self(mut file: &File) -> io::Result<()> {
    let mut stat = [0u8; 1024];
    let length = File::open("/proc/self/stat")?.read(&mut stat)?;
    let start = Stat::parse(&stat[..length])?.start_time;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let mut line = [0u8; 48];
    let mut rest = &mut line[..];
    writeln!(rest, "{pid} {start}")?;
    let left = rest.len();
    file.write_all(&line[..line.len() - left])
}
