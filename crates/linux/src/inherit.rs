//! Attributes that a process inherits unless somebody sets them: what a daemon keeps from its starter, and what the
//! programs that it starts get.
//!
//! | attribute | the daemon, after [`settle`] | a program that it starts |
//! | --- | --- | --- |
//! | descriptors | 0 to 2, and those that it names | 0 to 2, and those that its launch names |
//! | umask | 022 | 022 |
//! | blocked signals | none | none |
//! | ignored signals | as inherited (nohup(1)), but for SIGCHLD | none |
//! | limit of descriptors | the soft one as high as the hard one, and both high enough if root may raise them | the original soft and hard limit |
//! | limits of time, memory and file size | the soft ones as high as the hard ones; none if another command needed it and root may lift them | the daemon's |
//! | nice, scheduling policy, I/O priority | never in the background | the original |
//! | `oom_score_adj` | never above 0 | the original; 0 if that protects the daemon |
//! | session keyring | a new one | the daemon's |
//! | personality | none: addresses are random | none |
//! | environment, working directory, session, terminal, ids | by its starter and `main` | by its launch |
//!
//! A daemon serves many users for months, but the first command that needs it starts it: a build at nice 10, or a shell
//! with `ulimit -n 64`. The programs that do the work keep the priorities that the starter gave them all. A service
//! manager raises or protects the daemon on purpose, and as root, so the daemon keeps these values. They protect no
//! other program: if a VM had the daemon's `oom_score_adj` of -900, the kernel would kill the rest of the host first.
//!
//! The starter decides which processors, cgroup and namespaces the daemon and all its programs use.

mod descriptors;

use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::OnceLock;

use libc::c_int;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit};

pub(crate) use self::descriptors::mark_all as mark_descriptors;

/// Everybody may read the files that a process makes; only their owner may write to them.
const UMASK: u32 = 0o022;

/// How many descriptors are enough for a daemon with any original hard limit: a VM takes a dozen.
const DESCRIPTORS: u64 = 65_536;

/// The soft limit that the kernel gives its first process. Programs that use select(2) rely on it.
const USUAL_DESCRIPTORS: u64 = 1024;

/// The limits of time, memory and file size. They end a process or its work once it has lived long enough. The starter
/// set a soft limit of these for a command, not for a daemon.
const LONG_LIFE: [Resource; 4] = [Resource::Cpu, Resource::Fsize, Resource::Data, Resource::As];

const ALL: usize = 4;

/// The attributes that place a process before or after others.
const PRIORITIES: [Priority; ALL] = [
    Priority { name: "nice", get: nice, set: set_nice, daemon: |found| found.min(0), program: |found| found },
    Priority {
        name: "scheduling policy",
        get: policy,
        set: set_policy,
        daemon: |found| match found & !libc::SCHED_RESET_ON_FORK {
            libc::SCHED_BATCH | libc::SCHED_IDLE => libc::SCHED_OTHER,
            _ => found,
        },
        program: |found| found,
    },
    Priority {
        name: "I/O priority",
        get: io_priority,
        set: set_io_priority,
        daemon: |found| match found >> IO_CLASS_SHIFT {
            IO_CLASS_BEST_EFFORT | IO_CLASS_IDLE => 0,
            _ => found,
        },
        program: |found| found,
    },
    Priority {
        name: "oom_score_adj",
        get: oom_score_adj,
        set: set_oom_score_adj,
        daemon: |found| found.min(0),
        program: |found| found.max(0),
    },
];

const IO_CLASS_SHIFT: c_int = 13;
const IO_CLASS_BEST_EFFORT: c_int = 2;
const IO_CLASS_IDLE: c_int = 3;
const IO_WHO_PROCESS: c_int = 1;

/// An attribute that places a process before or after others. All of them are numbers, and 0 is the usual value.
struct Priority {
    name: &'static str,
    get: fn() -> io::Result<c_int>,
    /// Allocates nothing.
    set: fn(c_int) -> io::Result<()>,
    /// The daemon's value, from the one that it finds.
    daemon: fn(c_int) -> c_int,
    /// The value of its programs, from the same one.
    program: fn(c_int) -> c_int,
}

/// Where a program's inherited attributes come from, if its launch does not name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attributes {
    /// This process's original ones, even if it has others by now ([`settle`]), and the umask 022: for a program that
    /// works for its caller's starter.
    #[default]
    Original,
    /// The caller's, umask included: for a program that runs on its user's behalf, as ssh and git do for the command
    /// line.
    Caller,
    /// The usual ones, as far as the caller may set them, and the umask 022: for a program that has nothing to do with
    /// its caller's task.
    Usual,
}

/// The changes that a program's process makes to itself before it executes the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    umask: Option<u32>,
    priorities: [Option<c_int>; ALL],
    descriptors: Option<Limit>,
    /// Whether it lives without limits of time, memory and file size.
    unlimited: bool,
    /// Whether it goes on without the changes that it may not make.
    lenient: bool,
}

/// A limit's two values; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    soft: Option<u64>,
    hard: Option<u64>,
}

/// An attribute that could not be set. The process goes on with the inherited one.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the {attribute} of this process")]
pub struct Refused {
    /// Which attribute.
    pub attribute: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// The changes that undo for a program what [`settle`] did to this process.
static UNDO: OnceLock<Change> = OnceLock::new();

/// Sets the attributes of a daemon, as the table above says, and closes all its descriptors but the standard streams
/// and `keep`. Call it first in `main`, before you start threads or open anything.
///
/// # Errors
/// If descriptors stay open that are not its own.
pub fn settle(keep: Option<RawFd>) -> io::Result<Vec<Refused>> {
    // The standard streams are open: if the starter left one out, Rust's runtime opens /dev/null before `main`.
    descriptors::close_all_but(keep)?;
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    let mut refused = Vec::new();
    let mut attempt = |attribute, attempted: io::Result<()>| match attempted {
        Ok(()) => true,
        Err(source) => {
            refused.push(Refused { attribute, source });
            false
        }
    };
    attempt("signals", hear_signals());
    attempt("personality", reset_personality());
    attempt("session keyring", join_keyring());
    let mut undo = Change { umask: Some(UMASK), ..Change::default() };
    for (priority, undo) in PRIORITIES.iter().zip(&mut undo.priorities) {
        // An attribute that cannot be read is not there.
        let Ok(found) = (priority.get)() else { continue };
        let wanted = (priority.daemon)(found);
        let has = if wanted != found && attempt(priority.name, (priority.set)(wanted)) { wanted } else { found };
        *undo = Some((priority.program)(found)).filter(|wanted| *wanted != has);
    }
    let found = Limit::of(Resource::Nofile);
    // Root in a container may not raise a hard limit.
    if found.raised_to(DESCRIPTORS).set(Resource::Nofile).is_ok()
        || attempt("limit of descriptors", found.opened().set(Resource::Nofile))
    {
        undo.descriptors = Some(found);
    }
    for resource in LONG_LIFE {
        attempt("soft limits", Limit::of(resource).opened().set(resource));
    }
    // At a second call, the values found are its own.
    UNDO.get_or_init(|| undo);
    Ok(refused)
}

/// Unblocks all signals and stops ignoring SIGCHLD. If a process ignores it, the kernel reaps the children, and their exit
/// codes are lost.
///
/// # Errors
/// Those of sigaction(2) and sigprocmask(2).
pub fn hear_signals() -> io::Result<()> {
    let (mut action, mut none) = (MaybeUninit::<libc::sigaction>::zeroed(), MaybeUninit::uninit());
    // SAFETY: all zeros are an action with no flags; the calls fill the set and read both.
    unsafe {
        (*action.as_mut_ptr()).sa_sigaction = libc::SIG_DFL;
        if libc::sigaction(libc::SIGCHLD, action.as_ptr(), ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::sigemptyset(none.as_mut_ptr());
        match libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut()) {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Change {
    /// The changes that give a program these attributes.
    pub(crate) fn to(attributes: Attributes) -> Change {
        match attributes {
            Attributes::Caller => Change::default(),
            Attributes::Original => Change { umask: Some(UMASK), ..UNDO.get().copied().unwrap_or_default() },
            Attributes::Usual => Change {
                umask: Some(UMASK),
                priorities: [Some(0); ALL],
                descriptors: Some(Limit::of(Resource::Nofile).usual()),
                unlimited: true,
                lenient: true,
            },
        }
    }

    /// Applies all but the limit of descriptors to the calling process, which has one thread and still its parent's
    /// privileges. Allocates nothing and takes no lock. It opens a file, so the limit must come later.
    pub(crate) fn apply(&self) -> io::Result<()> {
        let lenient = |done: io::Result<()>| if self.lenient { Ok(()) } else { done };
        if let Some(umask) = self.umask {
            rustix::process::umask(Mode::from_raw_mode(umask));
        }
        for (priority, wanted) in PRIORITIES.iter().zip(self.priorities) {
            if let Some(wanted) = wanted {
                lenient((priority.set)(wanted))?;
            }
        }
        if self.unlimited {
            for resource in LONG_LIFE {
                lenient(Limit { soft: None, hard: None }.set(resource))?;
            }
        }
        Ok(())
    }

    /// Sets the limit of descriptors. After that this process may be unable to open more. Allocates nothing and takes
    /// no lock.
    pub(crate) fn limit_descriptors(&self) -> io::Result<()> {
        match self.descriptors.map(|limit| limit.set(Resource::Nofile)) {
            Some(Err(error)) if !self.lenient => Err(error),
            _ => Ok(()),
        }
    }
}

impl Limit {
    fn of(resource: Resource) -> Limit {
        let Rlimit { current, maximum } = rustix::process::getrlimit(resource);
        Limit { soft: current, hard: maximum }
    }

    fn set(self, resource: Resource) -> io::Result<()> {
        if Limit::of(resource) == self {
            return Ok(());
        }
        Ok(rustix::process::setrlimit(resource, Rlimit { current: self.soft, maximum: self.hard })?)
    }

    /// Raises the soft limit to the hard one.
    fn opened(self) -> Limit {
        Limit { soft: self.hard, ..self }
    }

    /// Raises both to at least this.
    fn raised_to(self, least: u64) -> Limit {
        let hard = self.hard.map(|hard| hard.max(least));
        Limit { soft: hard, hard }
    }

    /// The usual soft limit, and a hard limit that allows it.
    fn usual(self) -> Limit {
        let hard = self.hard.map(|hard| hard.max(USUAL_DESCRIPTORS));
        Limit { soft: Some(USUAL_DESCRIPTORS), hard }
    }
}

fn nice() -> io::Result<c_int> {
    Ok(rustix::process::getpriority_process(None)?)
}

fn set_nice(nice: c_int) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

fn policy() -> io::Result<c_int> {
    // SAFETY: takes an integer.
    number(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })
}

fn set_policy(policy: c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads live parameters. The C library's own call of the name does the same.
    number(unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) }).map(drop)
}

fn io_priority() -> io::Result<c_int> {
    // SAFETY: takes integers.
    number(unsafe { libc::syscall(libc::SYS_ioprio_get, IO_WHO_PROCESS, 0) })
}

fn set_io_priority(priority: c_int) -> io::Result<()> {
    // SAFETY: takes integers.
    number(unsafe { libc::syscall(libc::SYS_ioprio_set, IO_WHO_PROCESS, 0, priority) }).map(drop)
}

fn open_oom_score_adj(flags: OFlags) -> io::Result<std::fs::File> {
    let flags = flags | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty())?.into())
}

fn oom_score_adj() -> io::Result<c_int> {
    let text = io::read_to_string(open_oom_score_adj(OFlags::RDONLY)?)?;
    text.trim().parse().map_err(io::Error::other)
}

/// Sets it for this process alone, even if it borrows its parent's memory: the kernel treats vfork(2) separately.
fn set_oom_score_adj(score: c_int) -> io::Result<()> {
    let mut line = [0u8; 16];
    let mut rest = &mut line[..];
    write!(rest, "{score}")?;
    let left = rest.len();
    open_oom_score_adj(OFlags::WRONLY)?.write_all(&line[..line.len() - left])
}

/// Clears a flag that `setarch --addr-no-randomize` and debuggers set, and that a VMM would inherit.
fn reset_personality() -> io::Result<()> {
    const ASK: libc::c_ulong = 0xffff_ffff;
    // SAFETY: takes an integer, and changes only what is executed or mapped from now on.
    unsafe {
        let found = libc::personality(ASK);
        if found > 0 {
            number(libc::personality(0).into())?;
        }
    }
    Ok(())
}

/// Joins a new session keyring. A process can read its session keyring under any uid, so a VMM could read the keys of
/// the user who started the daemon.
fn join_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: c_int = 1;
    // SAFETY: takes an integer and no name.
    match number(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) }) {
        // The kernel has no keys, or the container may not use them.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        done => done.map(drop),
    }
}

fn number(returned: libc::c_long) -> io::Result<c_int> {
    match returned {
        -1 => Err(io::Error::last_os_error()),
        number => c_int::try_from(number).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

    use rustix::thread::UnshareFlags;

    use super::*;
    use crate::process::{Launch, Process, Program, Stream};

    /// Runs on a thread with its own descriptors, umask and priorities.
    fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: the thread uses no descriptor that was opened elsewhere, and what it does to its own stays with it.
                unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES | UnshareFlags::FS).unwrap() };
                work()
            });
            thread.join().unwrap()
        })
    }

    /// The output of a shell with these attributes and with a descriptor to inherit under a high number.
    fn said(script: &str, attributes: Attributes) -> String {
        let (from, to) = io::pipe().unwrap();
        let mut launch = Launch::new(Program::Command("/bin/sh".into()), ["-c", script]);
        launch.attributes = attributes;
        launch.stdout = Stream::Fd(to.into());
        let file = File::open("/dev/null").unwrap();
        launch.inherit = vec![rustix::io::fcntl_dupfd_cloexec(&file, 410).unwrap()];
        launch.pid_file = Some(File::create("/dev/null").unwrap());
        let process = Process::start(launch).unwrap();
        let said = io::read_to_string(from).unwrap();
        let pid = rustix::process::Pid::from_raw(process.pid().cast_signed());
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0), "{said}");
        said
    }

    #[test]
    fn a_program_gets_no_descriptor_that_its_launch_does_not_name() {
        assert_eq!(listed_beside_open_ones(), ["0", "1", "2", "410"]);
    }

    #[test]
    fn a_filter_that_refuses_to_mark_descriptors_is_no_obstacle() {
        for error in [libc::ENOSYS, libc::EPERM, libc::EINVAL] {
            let listed = alone(|| {
                refuse_close_range(error);
                listed_beside_open_ones()
            });
            assert_eq!(listed, ["0", "1", "2", "410"], "{error}");
        }
    }

    /// The descriptors of a program whose caller has some open that it does not name.
    fn listed_beside_open_ones() -> Vec<String> {
        let listed = alone(|| {
            let file = File::open("/dev/null").unwrap();
            // Opened without `O_CLOEXEC`, as a library that knows of no programs does.
            for number in [3, 300, 1000] {
                // SAFETY: takes integers; nothing owns what it makes.
                assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
            }
            said("ls /proc/$$/fd", Attributes::Caller)
        });
        listed.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_program_has_the_usual_umask_but_in_its_users_name() {
        let umasks = alone(|| {
            rustix::process::umask(Mode::empty());
            [Attributes::Original, Attributes::Usual, Attributes::Caller].map(|whose| said("umask", whose))
        });
        assert_eq!(umasks, ["0022\n", "0022\n", "0000\n"]);
    }

    #[test]
    fn a_program_with_the_usual_attributes_is_not_in_the_background() {
        if !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("only root may come back from the background");
            return;
        }
        let script = "read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ nice _ < /proc/self/stat; echo $nice; chrt -p $$; ionice -p $$";
        let (caller, usual) = alone(|| {
            set_nice(7).unwrap();
            set_policy(libc::SCHED_BATCH).unwrap();
            set_io_priority(IO_CLASS_IDLE << IO_CLASS_SHIFT).unwrap();
            (said(script, Attributes::Caller), said(script, Attributes::Usual))
        });
        assert!(caller.starts_with("7\n") && caller.contains("SCHED_BATCH") && caller.ends_with("idle\n"), "{caller}");
        assert!(usual.starts_with("0\n") && usual.contains("SCHED_OTHER") && !usual.ends_with("idle\n"), "{usual}");
    }

    #[test]
    fn what_is_undone_is_as_it_was() {
        let original = [3, libc::SCHED_IDLE, (IO_CLASS_BEST_EFFORT << IO_CLASS_SHIFT) + 6];
        let found = alone(|| {
            let [nice_value, policy_value, io_value] = original.map(Some);
            let change = Change { priorities: [nice_value, policy_value, io_value, None], ..Change::default() };
            change.apply().unwrap();
            [nice().unwrap(), policy().unwrap(), io_priority().unwrap()]
        });
        assert_eq!(found, original);
    }

    #[test]
    fn a_daemon_leaves_the_background_and_keeps_what_raises_it() {
        let [nice, policy, io, oom] = PRIORITIES.map(|priority| (priority.daemon, priority.program));
        assert_eq!([-5, 0, 10].map(nice.0), [-5, 0, 0]);
        assert_eq!([-5, 0, 10].map(nice.1), [-5, 0, 10]);
        let policies = [libc::SCHED_OTHER, libc::SCHED_FIFO, libc::SCHED_BATCH, libc::SCHED_IDLE];
        assert_eq!(policies.map(policy.0), [libc::SCHED_OTHER, libc::SCHED_FIFO, libc::SCHED_OTHER, libc::SCHED_OTHER]);
        assert_eq!(policies.map(policy.1), policies);
        let [real_time, best_effort, idle] =
            [1, IO_CLASS_BEST_EFFORT, IO_CLASS_IDLE].map(|class| class << IO_CLASS_SHIFT);
        assert_eq!([0, real_time, best_effort + 7, idle].map(io.0), [0, real_time, 0, 0]);
        assert_eq!([-900, 0, 300].map(oom.0), [-900, 0, 0]);
        assert_eq!([-900, 0, 300].map(oom.1), [0, 0, 300]);
    }

    #[test]
    fn limits_are_raised_and_never_lowered() {
        let limit = |soft, hard| Limit { soft, hard };
        assert_eq!(limit(Some(64), Some(64)).raised_to(100), limit(Some(100), Some(100)));
        assert_eq!(limit(Some(64), Some(200)).raised_to(100), limit(Some(200), Some(200)));
        assert_eq!(limit(Some(64), None).raised_to(100), limit(None, None));
        assert_eq!(limit(Some(64), Some(200)).opened(), limit(Some(200), Some(200)));
        assert_eq!(limit(Some(64), Some(64)).usual(), limit(Some(1024), Some(1024)));
        assert_eq!(limit(Some(9000), Some(9000)).usual(), limit(Some(1024), Some(9000)));
    }

    #[test]
    fn what_a_process_keeps_stays_open_beside_its_streams() {
        alone(|| {
            let files = [(); 3].map(|()| OwnedFd::from(File::open("/dev/null").unwrap()).into_raw_fd());
            descriptors::close_all_but(Some(files[1])).unwrap();
            let open = |number| {
                // SAFETY: borrowed to ask whether it is open.
                rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) }).is_ok()
            };
            assert_eq!(files.map(open), [false, true, false]);
            assert_eq!([0, 1, 2].map(open), [true; 3]);
            descriptors::close_all_but(None).unwrap();
            assert!(!open(files[1]) && open(2));
        });
    }

    /// Installs a seccomp filter for the calling thread.
    fn refuse_close_range(error: i32) {
        let number = u32::try_from(libc::SYS_close_range).unwrap();
        let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(error).unwrap();
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let mut filter = [
            step(0x20, 0, 0, 0),                       // the call's number
            step(0x15, 0, 1, number),                  // is it this one?
            step(0x06, 0, 0, refused),                 // refused
            step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW), // allowed
        ];
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        rustix::thread::set_no_new_privs(true).unwrap();
        // SAFETY: reads a live filter, which holds for this thread.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}
