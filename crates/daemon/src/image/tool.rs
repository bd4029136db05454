//! Runs a tool to its end: its output goes into the build's log and, line by line, to whoever wants to tell how far it is.
//!
//! Nothing of a tool outlives the future that runs it. Dropping the future kills the tool. The drop returns when the tool's
//! last process has closed its files, so its files can be removed then. If the daemon itself is killed, the kernel kills the
//! tool (`PR_SET_PDEATHSIG`), and with a pid namespace's first process all others in it; their mounts go with their mount
//! namespace.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::mpsc;

use banger_linux::fd_stream::FdStream;
use banger_linux::process::{Container, Launch, Leash, ProcessError, Program, Stream};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::Interest;
use tokio::sync::oneshot;

/// A tool's whole environment. `INITRD=No` tells the kernel package to make no initramfs: banger brings its own.
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8"), ("HOME", "/root"), ("INITRD", "No")];

/// How long a killed tool may take to be gone. The kernel kills a pid namespace at once; a process in the middle of a system
/// call to a slow disk ends after it.
const GONE_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Lines longer than this are cut where they are looked at; the log has them whole.
const LINE: usize = 4096;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("{} is not installed", program.display())]
    Missing {
        /// Its path.
        program: PathBuf,
    },
    /// It failed.
    #[error("{} failed ({status}): {said}", program.display())]
    Failed {
        /// Its path.
        program: PathBuf,
        /// Its exit status.
        status: ExitStatus,
        /// The line of its output that says most.
        said: String,
    },
    /// It could not be started or watched.
    #[error("cannot run {}", program.display())]
    Run {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// Its output could not be read or logged.
    #[error("cannot log the output of {}", program.display())]
    Log {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A tool and its arguments.
#[derive(Debug)]
pub struct Tool {
    program: Program,
    args: Vec<String>,
    temporary: Option<PathBuf>,
    contained: bool,
    container: Option<Container>,
}

impl Tool {
    /// A tool that starts no other programs.
    pub fn new(program: Program, args: Vec<String>) -> Tool {
        Tool { program, args, temporary: None, contained: false, container: None }
    }

    /// A tool that starts others and mounts: it gets a pid and a mount namespace, and `temporary` for its temporary files.
    pub fn contained(program: Program, args: Vec<String>, temporary: &Path) -> Tool {
        Tool { program, args, temporary: Some(temporary.to_owned()), contained: true, container: None }
    }

    /// Those namespaces within a user namespace, where there is one.
    pub fn within(self, container: Option<Container>) -> Tool {
        Tool { container, ..self }
    }

    /// Runs it. Its output is appended to `log`.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn run(self, log: &File, mut on_line: impl FnMut(&str)) -> Result<(), ToolError> {
        let program = self.program.path().to_owned();
        if !program.exists() {
            return Err(ToolError::Missing { program });
        }
        let unlogged = |source| ToolError::Log { program: program.clone(), source };
        let lost = |source| ToolError::Run { program: program.clone(), source };
        let running = Running::start(self).await.map_err(lost)?.map_err(unlogged)?;
        let mut tail = Tail::default();
        let mut buffer = vec![0u8; 16 * 1024];
        let mut log = log;
        loop {
            let count = running.output.read_some(&mut buffer).await.map_err(unlogged)?;
            if count == 0 {
                break;
            }
            log.write_all(&buffer[..count]).map_err(unlogged)?;
            tail.push(&buffer[..count], &mut on_line);
        }
        let status = running.ended().await.map_err(lost)?;
        if status.success() { Ok(()) } else { Err(ToolError::Failed { program, status, said: tail.verdict() }) }
    }

    fn launch(self, output: [OwnedFd; 2]) -> Launch {
        let mut launch = if self.contained {
            let namespaces = ["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"].map(str::to_owned);
            let tool = self.program.path().to_string_lossy().into_owned();
            Launch::new(Program::Unshare, namespaces.into_iter().chain([tool]).chain(self.args))
        } else {
            Launch::new(self.program, self.args)
        };
        launch.env = ENVIRONMENT.iter().map(|(name, value)| (name.into(), value.into())).collect();
        launch.env.extend(self.temporary.map(|path| ("TMPDIR".into(), path.into())));
        let [stdout, stderr] = output;
        (launch.stdout, launch.stderr) = (Stream::Fd(stdout), Stream::Fd(stderr));
        // No terminal either, into which it could type.
        launch.session = self.container.is_some();
        launch.container = self.container;
        launch.die_with_parent = true;
        launch
    }
}

/// A tool that runs. Its output ends when its last process does: all of them inherit it.
struct Running {
    leash: Option<Leash>,
    output: FdStream,
    _keeper: mpsc::Sender<()>,
}

impl Running {
    /// Starts it from a thread of its own: the tool dies with the *thread* that started it (prctl(2)), and the runtime's
    /// threads may end before the daemon does. That thread lives as long as the tool.
    async fn start(tool: Tool) -> Result<io::Result<Running>, ProcessError> {
        let opened = pipe();
        let (output, ends) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error)),
        };
        let launch = tool.launch(ends);
        let (started, answer) = oneshot::channel();
        let (keeper, until) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("tool".into()).spawn(move || {
            // Whoever waits for the answer may be gone already: then the leash comes back, is dropped, and kills.
            if started.send(Leash::start(launch)).is_ok() {
                // Ends, with an error, when the other half is dropped; nothing is ever sent.
                until.recv().unwrap_or_default();
            }
        });
        if let Err(error) = thread {
            return Ok(Err(error));
        }
        match answer.await {
            Ok(leash) => Ok(Ok(Running { leash: Some(leash?), output, _keeper: keeper })),
            // The thread sends before it ends.
            Err(error) => Ok(Err(io::Error::other(error))),
        }
    }

    async fn ended(mut self) -> Result<ExitStatus, ProcessError> {
        match self.leash.take() {
            Some(leash) => leash.ended().await,
            None => Ok(ExitStatus::default()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(leash) = self.leash.take() else { return };
        drop(leash);
        let mut buffer = [0u8; 4096];
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&GONE_WITHIN)) {
                Ok(1) => {}
                _ => return,
            }
            match rustix::io::read(self.output.as_fd(), &mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

fn pipe() -> io::Result<(FdStream, [OwnedFd; 2])> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let second = writer.try_clone()?;
    Ok((FdStream::new(reader, Interest::READABLE)?, [writer, second]))
}

/// Cuts output into lines and remembers those that may say why the tool failed.
#[derive(Debug, Default)]
struct Tail {
    line: Vec<u8>,
    last: String,
    error: Option<String>,
    /// Whether it is apt or mmdebstrap that calls it one.
    certain: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        for &byte in bytes {
            if !matches!(byte, b'\n' | b'\r') {
                if self.line.len() < LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).trim().to_owned();
            self.line.clear();
            if line.is_empty() {
                continue;
            }
            on_line(&line);
            // The first error is the cause; what follows are its consequences. Packages' own scripts speak of errors that are none.
            let certain = line.starts_with("E: ");
            if (certain && !self.certain) || (self.error.is_none() && line.contains("error:")) {
                self.error = Some(line.clone());
                self.certain = certain;
            }
            self.last = line;
        }
    }

    fn verdict(mut self) -> String {
        let mut nobody = |_: &str| {};
        self.push(b"\n", &mut nobody);
        match self.error {
            Some(error) => error,
            None if self.last.is_empty() => "it said nothing".into(),
            None => self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn tell(up: &mut Option<oneshot::Sender<()>>) {
        if let Some(up) = up.take() {
            up.send(()).unwrap();
        }
    }

    fn shell(script: &str) -> Tool {
        Tool::new(Program::Command("/bin/sh".into()), vec!["-c".into(), script.into()])
    }

    #[tokio::test]
    async fn output_goes_to_the_log_and_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = File::create(&path).unwrap();
        let mut lines = Vec::new();
        shell("echo one; echo two >&2; printf three").run(&log, |line| lines.push(line.to_owned())).await.unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "one\ntwo\nthree");
        assert_eq!(lines, ["one", "two"]);
    }

    #[tokio::test]
    async fn a_failure_is_told_with_the_first_error() {
        let log = tempfile::tempfile().unwrap();
        let error = shell("echo a; echo 'E: the cause'; echo 'E: the consequence'; exit 3")
            .run(&log, |_| {})
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ToolError::Failed { status, said, .. } if status.code() == Some(3) && said == "E: the cause")
        );
        let error = shell("echo a; printf last; exit 1").run(&log, |_| {}).await.unwrap_err();
        assert!(matches!(&error, ToolError::Failed { said, .. } if said == "last"));
        let error = shell("echo 'x: error: none'; echo 'E: the cause'; exit 3").run(&log, |_| {}).await.unwrap_err();
        assert!(matches!(&error, ToolError::Failed { said, .. } if said == "E: the cause"), "{error}");
        let missing = Tool::new(Program::Command("/no/such/tool".into()), Vec::new());
        assert!(matches!(missing.run(&log, |_| {}).await, Err(ToolError::Missing { .. })));
    }

    #[tokio::test]
    async fn a_dropped_run_is_over_when_the_drop_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = tempfile::tempfile().unwrap();
        let mark = dir.path().join("mark");
        let script = format!("echo up; while :; do echo x >> {}; done", mark.display());
        let (up, is_up) = oneshot::channel();
        let mut up = Some(up);
        let run = shell(&script).run(&log, |_| tell(&mut up));
        tokio::select! {
            ended = run => panic!("{ended:?}"),
            _ = is_up => {}
        }
        let size = std::fs::metadata(&mark).map(|found| found.len()).unwrap_or_default();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(std::fs::metadata(&mark).map(|found| found.len()).unwrap_or_default(), size);
    }

    #[tokio::test]
    async fn a_dropped_namespace_dies_with_all_in_it() {
        if !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("not root, so no pid namespace can be made");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        dies_with_all_in_it(dir.path(), dir.path(), None).await;
        match Container::new(1_900_000_000, dir.path(), Path::new("/tmp")) {
            Ok(container) => dies_with_all_in_it(dir.path(), Path::new("/tmp"), Some(container)).await,
            Err(error) => banger_skip::skipped!("{error}"),
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    }

    /// With `dir` seen as `inside`.
    async fn dies_with_all_in_it(dir: &Path, inside: &Path, container: Option<Container>) {
        let log = tempfile::tempfile().unwrap();
        let mark = dir.join("mark");
        // A process that has left its parent's session and shares nothing with it but the namespace and the output.
        let script = format!(
            "mount -t tmpfs none /mnt && echo x > {0} && setsid sh -c 'echo up; while :; do echo x >> {0}; done' & wait",
            inside.join("mark").display()
        );
        let tool = Tool::contained(Program::Command("/bin/sh".into()), vec!["-c".into(), script], inside);
        let (up, is_up) = oneshot::channel();
        let mut up = Some(up);
        let began = Instant::now();
        tokio::select! {
            ended = tool.within(container).run(&log, |_| tell(&mut up)) => panic!("{ended:?}"),
            _ = is_up => {}
        }
        let size = std::fs::metadata(&mark).unwrap().len();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(std::fs::metadata(&mark).unwrap().len(), size);
        assert!(began.elapsed() < Duration::from_secs(3), "the drop waited for its deadline");
    }
}
