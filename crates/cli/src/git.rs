//! git(1), asked about a checkout or worked with: one program at a time, its streams in memory.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_linux::process::{Attributes, Credentials, Launch, Process, ProcessError, Program, Stream};

use crate::environment::Environment;

/// What every git is told. A checkout may configure programs that git starts by itself: one that it asks what has changed,
/// and hooks.
const OPTIONS: [&str; 4] = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"];

/// git, in a directory and with an environment.
#[derive(Debug, Clone)]
pub struct Git {
    directory: PathBuf,
    env: Vec<(OsString, OsString)>,
    /// Who it runs as, if not as the caller.
    user: Option<Credentials>,
}

/// Why git did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be started or watched.
    #[error("cannot run git in {}", directory.display())]
    Process {
        /// Where.
        directory: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// What it is told or says could not be kept.
    #[error("cannot talk to git")]
    Streams(#[source] io::Error),
    /// It refuses.
    #[error("git {verb} failed in {}: {message}", directory.display())]
    Refused {
        /// What it was to do.
        verb: String,
        /// Where.
        directory: PathBuf,
        /// In its own words.
        message: String,
    },
}

impl Git {
    /// That of a checkout, with its user's configuration. No GIT_ variables: inside a hook they would name another checkout.
    pub fn of(directory: &Path, environment: &Environment) -> Git {
        let env = environment.pick(&["HOME", "PATH", "XDG_CONFIG_HOME", "SUDO_UID"]);
        Git { directory: directory.to_owned(), env, user: None }
    }

    /// One that reads nobody's configuration.
    pub fn private(directory: &Path, environment: &Environment) -> Git {
        let git = Git { directory: directory.to_owned(), env: environment.pick(&["PATH"]), user: None };
        git.with("GIT_CONFIG_GLOBAL", "/dev/null").with("GIT_CONFIG_NOSYSTEM", "1")
    }

    /// In another directory.
    pub fn in_directory(&self, directory: &Path) -> Git {
        Git { directory: directory.to_owned(), ..self.clone() }
    }

    /// With a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Git {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Run by the owner of a file, where the caller is root: what it writes beside that file is to be the owner's. The
    /// caller's configuration is none of that user's.
    ///
    /// # Errors
    /// [`GitError::Streams`], where the file cannot be looked at.
    pub fn by_owner_of(self, path: &Path) -> Result<Git, GitError> {
        let found = std::fs::metadata(path).map_err(GitError::Streams)?;
        if !rustix::process::getuid().is_root() || found.uid() == 0 {
            return Ok(self);
        }
        let user = Credentials { uid: found.uid(), gid: found.gid(), groups: vec![found.gid()] };
        let git = self.with("GIT_CONFIG_GLOBAL", "/dev/null");
        Ok(Git { user: Some(user), ..git })
    }

    /// Runs it with this input; what it prints.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn say(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, GitError> {
        let mut output = memory().map_err(GitError::Streams)?;
        self.run(args, input, &output).await?;
        let mut said = Vec::new();
        output.rewind().and_then(|()| output.read_to_end(&mut said)).map_err(GitError::Streams)?;
        Ok(said)
    }

    /// As [`Git::say`], for one word or line.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn line(&self, args: &[&str]) -> Result<String, GitError> {
        self.say(args, b"").await.map(|said| String::from_utf8_lossy(&said).trim_end().to_owned())
    }

    /// As [`Git::line`], where a refusal means that there is none.
    ///
    /// # Errors
    /// [`GitError`], but for [`GitError::Refused`].
    pub async fn line_if_any(&self, args: &[&str]) -> Result<Option<String>, GitError> {
        match self.line(args).await {
            Ok(line) => Ok(Some(line).filter(|line| !line.is_empty())),
            Err(GitError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs it with this input, and has it print to a file.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn run(&self, args: &[&str], input: &[u8], output: &File) -> Result<(), GitError> {
        let mut told = memory().map_err(GitError::Streams)?;
        told.write_all(input).map_err(GitError::Streams)?;
        self.run_with(args, told, output).await
    }

    /// As [`Git::run`], with a whole file as its input.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn run_with(&self, args: &[&str], mut input: File, output: &File) -> Result<(), GitError> {
        input.rewind().map_err(GitError::Streams)?;
        let mut complaints = memory().map_err(GitError::Streams)?;
        let stdout = output.try_clone().map_err(GitError::Streams)?;
        let stderr = complaints.try_clone().map_err(GitError::Streams)?;
        let git = self.start(args, input.into(), stdout.into(), stderr.into())?;
        let status = git.ended().await.map_err(|source| self.failed(source))?;
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let mut said = Vec::new();
        complaints.rewind().and_then(|()| complaints.read_to_end(&mut said)).map_err(GitError::Streams)?;
        let said = String::from_utf8_lossy(&said);
        let message = said.trim().strip_prefix("fatal: ").unwrap_or(said.trim()).to_owned();
        let verb = args.first().copied().unwrap_or_default().to_owned();
        Err(GitError::Refused { verb, directory: self.directory.clone(), message })
    }

    /// Starts it, to be talked to.
    ///
    /// # Errors
    /// [`GitError::Process`].
    pub fn start(&self, args: &[&str], stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd) -> Result<Process, GitError> {
        let mut launch = Launch::new(Program::Git, OPTIONS.iter().chain(args));
        launch.env = self.env.clone();
        launch.attributes = Attributes::Caller;
        launch.workdir = Some(self.directory.clone());
        launch.credentials = self.user.clone();
        launch.stdin = Stream::Fd(stdin);
        launch.stdout = Stream::Fd(stdout);
        launch.stderr = Stream::Fd(stderr);
        Process::start(launch).map_err(|source| self.failed(source))
    }

    fn failed(&self, source: ProcessError) -> GitError {
        GitError::Process { directory: self.directory.clone(), source }
    }
}

/// A place for what git is told, or says.
pub fn memory() -> io::Result<File> {
    banger_linux::file::in_memory("git")
}
