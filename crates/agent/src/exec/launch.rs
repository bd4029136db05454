//! From a call's words to a process: user, environment, directory, program, streams.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_linux::process::{Credentials, Launch, Process, ProcessError, Program, Stream};
use banger_protocol::call::{CallError, CallErrorCode, Exec};

use crate::guest::Guest;
use crate::users::{self, User};

/// A running command and our ends of its streams.
pub struct Started {
    /// The command.
    pub process: Process,
    /// Where its input is written.
    pub stdin: Option<OwnedFd>,
    /// Where its output is read.
    pub stdout: Option<OwnedFd>,
    /// Where its errors are read.
    pub stderr: Option<OwnedFd>,
}

/// Starts a command.
pub fn start(guest: &Guest, exec: &Exec) -> Result<Started, CallError> {
    let user = find_user(exec.user.as_deref())?;
    let env = environment(guest, exec, &user);
    let workdir = workdir(guest, exec, &user)?;
    let word = exec
        .argv
        .first()
        .filter(|word| !word.is_empty())
        .ok_or_else(|| CallError { code: CallErrorCode::Invalid, message: "no program is named".to_owned() })?;
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    let program = look_up(word, path, &workdir)?;
    let mut launch = Launch::new(Program::Command(program), exec.argv.iter().skip(1));
    launch.arg0 = Some(word.into());
    launch.env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    launch.workdir = Some(workdir);
    launch.session = true;
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (out_r, out_w) = pipe().map_err(|e| failed(e.into()))?;
    let (err_r, err_w) = pipe().map_err(|e| failed(e.into()))?;
    launch.stdout = Stream::Fd(out_w);
    launch.stderr = Stream::Fd(err_w);
    let process =
        Process::start(launch).map_err(|e| CallError { code: CallErrorCode::Failed, message: format!("{e:?}") })?;
    Ok(Started { process, stdin: None, stdout: Some(out_r), stderr: Some(err_r) })
}

fn failed(e: io::Error) -> CallError {
    CallError { code: CallErrorCode::Failed, message: e.to_string() }
}

fn find_user(wanted: Option<&str>) -> Result<User, CallError> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let me = rustix::process::getuid().as_raw().to_string();
    let wanted = wanted.unwrap_or(&me);
    users::find(&passwd, wanted).ok_or_else(|| CallError {
        code: CallErrorCode::NotFound,
        message: format!("there is no user {wanted} in the guest"),
    })
}

fn environment(guest: &Guest, exec: &Exec, user: &User) -> BTreeMap<String, String> {
    let path = if user.uid == 0 {
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    } else {
        "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
    };
    let mut env = BTreeMap::from([
        ("HOME".to_owned(), guest.home(user).display().to_string()),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
        ("SHELL".to_owned(), user.shell.display().to_string()),
        ("PATH".to_owned(), path.to_owned()),
    ]);
    if let Some(tty) = &exec.tty {
        env.insert("TERM".to_owned(), tty.term.clone());
    }
    env.extend(exec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

fn workdir(guest: &Guest, exec: &Exec, user: &User) -> Result<PathBuf, CallError> {
    match &exec.workdir {
        Some(path) => Ok(path.into()),
        None => Ok(guest.home(user)),
    }
}

fn look_up(word: &str, path: &str, workdir: &Path) -> Result<PathBuf, CallError> {
    if word.contains('/') {
        return Ok(workdir.join(word));
    }
    for directory in path.split(':') {
        let candidate = workdir.join(directory).join(word);
        if fs::metadata(&candidate).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
            return Ok(candidate);
        }
    }
    Err(CallError { code: CallErrorCode::NotFound, message: format!("{word}: command not found in {path}") })
}
