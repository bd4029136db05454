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
    /// This command line could not wait for the daemon that another one started.
    #[error("cannot wait for another command line's daemon")]
    Follow(#[source] ProcessError),
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
            StartError::Launch(_) | StartError::Wait(_) | StartError::Follow(_) => None,
        }
    }
}

/// Starts a daemon with these attributes unless one listens, and returns when one does.
///
/// Any number of command lines may call this at once, also while an earlier daemon ends. One of the daemons that they
/// start gets the locks; the others name it. Then this waits until that one listens, and tries again if it ends
/// instead. Only daemons touch the locks: a process that looks whether a lock is taken can block the daemon that takes
/// it.
///
/// # Errors
/// [`StartError`].
pub async fn ensure(app: &App, attributes: Attributes) -> Result<(), StartError> {
    let began = Instant::now();
    loop {
        let deadline = Instant::now() + DEADLINE;
        let (winner, refused) = match start(&app.environment, attributes, deadline) {
            Ok(()) => return Ok(()),
            Err(Lost { winner, error }) => (winner, error),
        };
        let listens = match winner {
            Some(winner) => wait_for(app, winner, deadline).await?,
            // Any daemon that listens will do, whatever happened to ours.
            None => app.client.probe().await.is_ok(),
        };
        match (listens, winner) {
            (true, _) => return Ok(()),
            (false, Some(_)) if began.elapsed() < DEADLINE => {}
            (false, _) => return Err(refused),
        }
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

/// The attempt to start a daemon failed.
struct Lost {
    /// The process of the other daemon, if that is why.
    winner: Option<u32>,
    error: StartError,
}

impl From<StartError> for Lost {
    fn from(error: StartError) -> Lost {
        Lost { winner: None, error }
    }
}

fn start(environment: &Environment, attributes: Attributes, deadline: Instant) -> Result<(), Lost> {
    let program = environment.beside("bangerd");
    if !program.exists() {
        return Err(StartError::Absent { program }.into());
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
    let report = read_until(reader, deadline).map_err(StartError::Wait)?;
    let Some(report) = report else { return Err(StartError::Deadline { log }.into()) };
    match report.lines().next() {
        Some("ready") => Ok(()),
        None => Err(StartError::Ended { log }.into()),
        Some(line) => {
            let value = |name| report.lines().find_map(|line| line.strip_prefix(name));
            let message = line.strip_prefix("error: ").unwrap_or(line).to_owned();
            let error = StartError::Refused { message, help: value("help: ").map(str::to_owned) };
            Err(Lost { winner: value("taken: ").and_then(|pid| pid.parse().ok()), error })
        }
    }
}

/// All that comes out of the pipe until it is closed; nothing if that takes too long.
fn read_until(reader: OwnedFd, deadline: Instant) -> io::Result<Option<String>> {
    let mut text = String::new();
    let mut file = File::from(reader);
    let mut buffer = [0; 4096];
    while wait_readable([&file], deadline)? {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(text)),
            count => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
        }
    }
    Ok(None)
}

/// Waits until one of them is readable; false if that takes too long.
fn wait_readable<const N: usize>(fds: [&dyn AsFd; N], deadline: Instant) -> io::Result<bool> {
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    match rustix::event::poll(&mut fds, Some(&left)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until another command line's daemon listens; false if it ends first.
async fn wait_for(app: &App, winner: u32, deadline: Instant) -> Result<bool, StartError> {
    let process = match Process::open(winner, None) {
        Ok(process) => process,
        // It may have listened before it ended, and another may listen by now.
        Err(ProcessError::Gone { .. }) => return Ok(app.client.probe().await.is_ok()),
        Err(error) => return Err(StartError::Follow(error)),
    };
    let directory = app.environment.runtime_dir();
    // Watch before looking: the look finds a socket that gets its name in between, and the watch reports a later one.
    let watch = watch(&directory).map_err(StartError::Wait)?;
    loop {
        match app.client.probe().await {
            Err(ClientError::NotRunning { .. }) => {}
            // The request will report that the socket may not be used.
            _ => return Ok(true),
        }
        if process.has_ended() {
            return Ok(false);
        }
        let mut buffer = [0; 4096];
        if !wait_readable([&watch, &process], deadline).map_err(StartError::Wait)? {
            return Err(StartError::Deadline { log: app.environment.state_dir().join("bangerd.log") });
        }
        match rustix::io::read(&watch, &mut buffer) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(StartError::Wait(errno.into())),
        }
    }
}

/// Reports each name that appears in a directory.
fn watch(directory: &Path) -> io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO)?;
    Ok(watch)
}
