//! Starting `bangerd` where none runs. It outlives this process and its session.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_api::client::ClientError;
use banger_linux::process::{self, Attributes, Launch, Process, ProcessError, Program};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::app::App;
use crate::environment::Environment;

/// How long a daemon may take until it listens.
const DEADLINE: Duration = Duration::from_secs(30);

/// The variables that a daemon gets from whoever starts it.
const VARIABLES: [&str; 14] = [
    "BANGER_STATE_DIR",
    "BANGER_RUNTIME_DIR",
    "BANGER_CONFIG",
    "BANGER_LOG",
    "HOME",
    "LANG",
    "PATH",
    "TMPDIR",
    "TZ",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "HTTP_PROXY",
];

/// Why no daemon could be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such program.
    #[error("no daemon runs, and there is no {} to start", program.display())]
    Absent {
        /// Where it should be.
        program: PathBuf,
    },
    /// It could not be executed.
    #[error("no daemon runs, and none could be started")]
    Launch(#[source] ProcessError),
    /// The pipe on which it reports could not be made or read.
    #[error("cannot wait for the new daemon")]
    Wait(#[source] io::Error),
    /// It said why it does not start.
    #[error("the daemon does not start: {message}")]
    Refused {
        /// Its own words.
        message: String,
        /// Its own advice.
        help: Option<String>,
    },
    /// It ended without a word.
    #[error("the daemon ended before it listened")]
    Ended {
        /// Its log.
        log: PathBuf,
    },
    /// It neither listens nor ends.
    #[error("the daemon does not listen after {} s", DEADLINE.as_secs())]
    Deadline {
        /// Its log.
        log: PathBuf,
    },
}

impl StartError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            StartError::Absent { .. } => {
                Some("install bangerd beside banger, or name a running daemon with --host".to_owned())
            }
            StartError::Refused { help, .. } => help.clone(),
            StartError::Ended { log } | StartError::Deadline { log } => {
                Some(format!("read {}, or run `banger daemon run` to see it", log.display()))
            }
            StartError::Launch(_) | StartError::Wait(_) => None,
        }
    }
}

/// Starts a daemon with these attributes unless one listens, and returns when one does.
///
/// # Errors
/// [`StartError`].
pub async fn ensure(app: &App, attributes: Attributes) -> Result<(), StartError> {
    let environment = &app.environment;
    let refused = match start(environment, attributes) {
        Ok(()) => return Ok(()),
        Err(error @ (StartError::Refused { .. } | StartError::Ended { .. })) => error,
        Err(error) => return Err(error),
    };
    // Another command line may have started one at the same time: ours then found the lock taken.
    if app.client.probe().await.is_ok() {
        return Ok(());
    }
    if !is_locked(&environment.runtime_dir().join("lock")) {
        return Err(refused);
    }
    let directory = environment.runtime_dir();
    match wait_for_socket(app, &directory).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(refused),
        Err(source) => Err(StartError::Wait(source)),
    }
}

/// `bangerd` in the foreground, in place of this process. Returns only what went wrong.
pub fn replace(environment: &Environment) -> StartError {
    let program = environment.beside("bangerd");
    if !program.exists() {
        return StartError::Absent { program };
    }
    let mut launch = Launch::new(Program::Daemon(program), std::iter::empty::<&str>());
    launch.env = environment.pick(&VARIABLES);
    launch.attributes = Attributes::Caller;
    launch.stdin = process::Stream::Inherit;
    launch.stdout = process::Stream::Inherit;
    launch.stderr = process::Stream::Inherit;
    StartError::Launch(Process::replace(launch))
}

fn start(environment: &Environment, attributes: Attributes) -> Result<(), StartError> {
    let program = environment.beside("bangerd");
    if !program.exists() {
        return Err(StartError::Absent { program });
    }
    let log = environment.state_dir().join("bangerd.log");
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (reader, writer) = rustix::pipe::pipe_with(flags).map_err(|errno| StartError::Wait(errno.into()))?;
    let args = ["--ready-fd".to_owned(), process::number(&writer).to_string()];
    let mut launch = Launch::new(Program::Daemon(program), args);
    launch.env = environment.pick(&VARIABLES);
    launch.attributes = attributes;
    launch.session = true;
    launch.inherit = vec![writer];
    Process::start(launch).map_err(StartError::Launch)?;
    let report = read_until(reader, Instant::now() + DEADLINE).map_err(StartError::Wait)?;
    let Some(report) = report else { return Err(StartError::Deadline { log }) };
    let mut lines = report.lines();
    match lines.next() {
        Some("ready") => Ok(()),
        None => Err(StartError::Ended { log }),
        Some(line) => Err(StartError::Refused {
            message: line.strip_prefix("error: ").unwrap_or(line).to_owned(),
            help: lines.find_map(|line| line.strip_prefix("help: ")).map(str::to_owned),
        }),
    }
}

/// All that comes out of the pipe until it is closed; nothing if that takes too long.
fn read_until(reader: OwnedFd, deadline: Instant) -> io::Result<Option<String>> {
    let mut text = String::new();
    let mut file = File::from(reader);
    let mut buffer = [0; 4096];
    while wait_readable(&file, deadline)? {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(text)),
            count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    Ok(None)
}

fn wait_readable(fd: &impl AsFd, deadline: Instant) -> io::Result<bool> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    match rustix::event::poll(&mut fds, Some(&left)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a daemon holds the lock, listening or not yet.
fn is_locked(lock: &Path) -> bool {
    let Ok(file) = File::open(lock) else { return false };
    // The lock that this takes where it is free is given back when the file is closed, right here.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Waits until a daemon that holds the lock listens.
async fn wait_for_socket(app: &App, directory: &Path) -> io::Result<bool> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // Bound, renamed into place, or its mode changed after listen: whatever the daemon does last.
    let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&watch, directory, events)?;
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = [0; 4096];
    loop {
        match app.client.probe().await {
            Err(ClientError::NotRunning { .. }) => {}
            _ => return Ok(true),
        }
        if !wait_readable(&watch, deadline)? {
            return Ok(false);
        }
        match rustix::io::read(&watch, &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
