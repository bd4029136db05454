//! From a call's words to a process: user, environment, directory, program, streams.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_linux::process::{Credentials, Launch, Process, ProcessError, Program, Stream};
use banger_protocol::call::{CallError, CallErrorCode, Exec, Terminal};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::guest::Guest;
use crate::users::{self, User};

const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// A running command.
#[derive(Debug)]
pub struct Started {
    /// The command.
    pub process: Process,
    /// Our ends of its streams.
    pub streams: Streams,
}

/// Our ends of a command's streams.
#[derive(Debug)]
pub enum Streams {
    /// A terminal's controlling side.
    Terminal(OwnedFd),
    /// Pipes.
    Pipes {
        /// Where its input is written, if it has any.
        stdin: Option<OwnedFd>,
        /// Where its output is read.
        stdout: OwnedFd,
        /// Where its errors are read.
        stderr: OwnedFd,
    },
}

/// Starts a command, as the leader of a session of its own.
///
/// # Errors
/// The error that its caller is to be told; nothing runs then.
pub fn start(guest: &Guest, exec: &Exec) -> Result<Started, CallError> {
    let (mut launch, user) = prepare(guest, exec)?;
    let ours = match &exec.tty {
        Some(terminal) => open_terminal(terminal, &user, &mut launch),
        None => open_pipes(exec.stdin && exec.detached.is_none(), &mut launch),
    };
    let streams = ours.map_err(|error| streams_error(&error))?;
    let process = Process::start(launch).map_err(|error| start_error(exec, &user, &error))?;
    Ok(Started { process, streams })
}

/// Starts a command as the leader of a session whose terminal is this one.
///
/// # Errors
/// As [`start`].
pub fn start_on(guest: &Guest, exec: &Exec, terminal: OwnedFd) -> Result<Process, CallError> {
    let (mut launch, user) = prepare(guest, exec)?;
    take_terminal(&mut launch, terminal).map_err(|error| streams_error(&error))?;
    Process::start(launch).map_err(|error| start_error(exec, &user, &error))
}

fn streams_error(error: &io::Error) -> CallError {
    call_error(CallErrorCode::Failed, format!("cannot make the streams of a command: {error}"))
}

/// All but its streams.
fn prepare(guest: &Guest, exec: &Exec) -> Result<(Launch, User), CallError> {
    let user = find_user(exec.user.as_deref())?;
    let env = environment(guest, exec, &user);
    let workdir = workdir(guest, exec, &user)?;
    let mut launch = if exec.login_shell {
        let mut launch = Launch::new(Program::Command(user.shell.clone()), std::iter::empty::<&str>());
        let name = user.shell.file_name().unwrap_or_default();
        launch.arg0 = Some([OsString::from("-"), name.to_owned()].into_iter().collect());
        launch
    } else {
        let word = exec.argv.first().filter(|word| !word.is_empty()).ok_or_else(no_program)?;
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let mut launch = Launch::new(Program::Command(look_up(word, path, &workdir)?), exec.argv.iter().skip(1));
        launch.arg0 = Some(word.into());
        launch
    };
    launch.env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    launch.workdir = Some(workdir);
    launch.session = true;
    launch.die_with_parent = guest.is_fake();
    launch.credentials = credentials(&user);
    Ok((launch, user))
}

fn find_user(wanted: Option<&str>) -> Result<User, CallError> {
    let own;
    let wanted = match wanted {
        Some(wanted) => wanted,
        None => {
            own = rustix::process::getuid().as_raw().to_string();
            &own
        }
    };
    // A guest without the file has no users with names; numbers always work.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    users::find(&passwd, wanted)
        .ok_or_else(|| call_error(CallErrorCode::NotFound, format!("there is no user {wanted:?} in the guest")))
}

/// Nothing for the agent's own user, who on a host may have no right to set any.
fn credentials(user: &User) -> Option<Credentials> {
    if user.uid == rustix::process::getuid().as_raw() {
        return None;
    }
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    Some(Credentials { uid: user.uid, gid: user.gid, groups: users::groups(&group, user) })
}

fn environment(guest: &Guest, exec: &Exec, user: &User) -> BTreeMap<String, String> {
    let path = if user.uid == 0 { ROOT_PATH } else { USER_PATH };
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), guest.home(user).display().to_string()),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("SHELL".to_owned(), user.shell.display().to_string()),
        ("PATH".to_owned(), path.to_owned()),
    ]);
    if let Some(terminal) = &exec.tty {
        env.insert("TERM".to_owned(), terminal.term.clone());
    }
    env.extend(exec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

fn workdir(guest: &Guest, exec: &Exec, user: &User) -> Result<PathBuf, CallError> {
    let home = guest.home(user);
    let Some(wanted) = &exec.workdir else {
        return Ok(if home.is_dir() { home } else { PathBuf::from("/") });
    };
    let wanted = home.join(wanted);
    match fs::metadata(&wanted) {
        Ok(metadata) if metadata.is_dir() => Ok(wanted),
        Ok(_) => Err(call_error(
            CallErrorCode::NotExecutable,
            format!("cannot run in {}: it is no directory", wanted.display()),
        )),
        Err(error) => Err(call_error(CallErrorCode::NotFound, format!("cannot run in {}: {error}", wanted.display()))),
    }
}

/// The program that a word means, as execvp(3) finds it: a file that cannot be executed is only taken if there is no better.
fn look_up(word: &str, path: &str, workdir: &Path) -> Result<PathBuf, CallError> {
    let candidates: Vec<PathBuf> = if word.contains('/') {
        vec![workdir.join(word)]
    } else {
        path.split(':').map(|directory| workdir.join(directory).join(word)).collect()
    };
    let mut refused = None;
    for candidate in candidates {
        match fs::metadata(&candidate) {
            Ok(metadata) if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 => return Ok(candidate),
            Ok(metadata) if metadata.is_dir() && !word.contains('/') => {}
            Ok(metadata) => {
                let why = if metadata.is_dir() { "it is a directory" } else { "permission denied" };
                refused.get_or_insert_with(|| format!("cannot execute {}: {why}", candidate.display()));
            }
            Err(_) => {}
        }
    }
    Err(match refused {
        Some(message) => call_error(CallErrorCode::NotExecutable, message),
        None if word.contains('/') => {
            call_error(CallErrorCode::NotFound, format!("cannot execute {word}: no such file"))
        }
        None => call_error(CallErrorCode::NotFound, format!("cannot find the command {word} in PATH={path}")),
    })
}

fn open_terminal(terminal: &Terminal, user: &User, launch: &mut Launch) -> io::Result<Streams> {
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    resize(&ours, terminal.rows, terminal.columns)?;
    if launch.credentials.is_some() {
        // So that the user may open its own terminal by name; the group, which may write to it, is the mount's.
        rustix::fs::fchown(&theirs, Some(rustix::fs::Uid::from_raw(user.uid)), None)?;
    }
    take_terminal(launch, theirs)?;
    Ok(Streams::Terminal(ours))
}

fn take_terminal(launch: &mut Launch, terminal: OwnedFd) -> io::Result<()> {
    launch.terminal = true;
    launch.stdin = Stream::Fd(terminal.try_clone()?);
    launch.stdout = Stream::Fd(terminal.try_clone()?);
    launch.stderr = Stream::Fd(terminal);
    Ok(())
}

/// Tells a terminal its size; those who run in it get SIGWINCH.
pub fn resize(terminal: &OwnedFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

fn open_pipes(with_stdin: bool, launch: &mut Launch) -> io::Result<Streams> {
    let stdin = if with_stdin {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        launch.stdin = Stream::Fd(theirs);
        Some(ours)
    } else {
        None
    };
    let (stdout, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    launch.stdout = Stream::Fd(theirs);
    let (stderr, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    launch.stderr = Stream::Fd(theirs);
    Ok(Streams::Pipes { stdin, stdout, stderr })
}

fn start_error(exec: &Exec, user: &User, error: &ProcessError) -> CallError {
    let ProcessError::Start { program, source } = error else {
        return call_error(CallErrorCode::Failed, format!("cannot watch a command: {error}"));
    };
    let program = program.display();
    match source.kind() {
        io::ErrorKind::NotFound => call_error(
            CallErrorCode::NotFound,
            format!("cannot execute {program}: the file or the interpreter that it names does not exist"),
        ),
        io::ErrorKind::PermissionDenied if exec.user.is_some() => {
            let message = format!("cannot execute {program} as {}: {source}", user.name);
            call_error(CallErrorCode::NotExecutable, message)
        }
        io::ErrorKind::PermissionDenied => {
            call_error(CallErrorCode::NotExecutable, format!("cannot execute {program}: {source}"))
        }
        _ => call_error(CallErrorCode::Failed, format!("cannot execute {program}: {source}")),
    }
}

fn no_program() -> CallError {
    call_error(CallErrorCode::Invalid, "no program is named".to_owned())
}

fn call_error(code: CallErrorCode, message: String) -> CallError {
    CallError { code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn the_first_executable_in_the_path_is_found() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "one/tool", 0o644);
        let tool = file(dir.path(), "two/tool", 0o755);
        assert_eq!(look_up("tool", "none:one:two", dir.path()).unwrap(), tool);
        assert_eq!(look_up("two/tool", "", dir.path()).unwrap(), tool);
        let code = |word, path| look_up(word, path, dir.path()).unwrap_err().code;
        assert_eq!(code("tool", "one"), CallErrorCode::NotExecutable);
        assert_eq!(code("one/tool", ""), CallErrorCode::NotExecutable);
        assert_eq!(code("./one", ""), CallErrorCode::NotExecutable);
        assert_eq!(code("one", "."), CallErrorCode::NotFound);
        assert_eq!(code("three/tool", ""), CallErrorCode::NotFound);
    }
}
