//! Every way in which a command can fail, with what the user reads and the exit code.

use std::error::Error;
use std::fmt::Write;
use std::io;

use banger_api::client::ClientError;
use banger_api::error::ErrorCode;
use banger_api::exec::{CallError, CallErrorCode};
use banger_api::frame::FrameError;
use banger_api::vm::VmState;
use banger_linux::process::ProcessError;

use crate::checkout::CheckoutError;
use crate::copy::CopyError;
use crate::daemon_start::StartError;
use crate::output::{complain, printable};
use crate::pull::PullError;
use crate::ssh::blocks::OtherDaemon;
use crate::ssh::config_file::ConfigFileError;
use crate::ssh::keys::KeyError;
use crate::ssh::target::TargetError;

/// A failed command.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was typed makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to type instead.
        help: String,
    },
    /// The daemon could not be asked, or it refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon could not be asked, or it refused, and something is known that helps.
    #[error("{source}")]
    Helped {
        /// Why.
        source: ClientError,
        /// What to do.
        help: String,
    },
    /// The guest refused a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The guest knows no such detached command.
    #[error("{source}")]
    NoCommand {
        /// What it says.
        source: CallError,
        /// What to do.
        help: String,
    },
    /// The stream to the guest broke.
    #[error("lost the guest {during}")]
    Stream {
        /// What was going on.
        during: &'static str,
        /// Why.
        #[source]
        source: FrameError,
    },
    /// The guest said something that does not belong there.
    #[error("the guest's answer makes no sense {during}")]
    Answer {
        /// What was going on.
        during: &'static str,
    },
    /// A port of this host's cannot be listened at.
    #[error("cannot listen at {at}")]
    Listen {
        /// The address and port.
        at: std::net::SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A signal ended it.
    #[error("{what}")]
    Interrupted {
        /// The signal's number.
        signal: u8,
        /// What was under way, and what becomes of it.
        what: String,
    },
    /// Standard output does not take any more.
    #[error("cannot write to standard output")]
    Stdout {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The terminal, the event loop or another of the process's own means failed.
    #[error("cannot {attempted}")]
    Own {
        /// What was attempted.
        attempted: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No daemon could be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process could not be started or watched.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The daemon is still there.
    #[error("the daemon, process {pid}, has not ended after {seconds} s")]
    StillRunning {
        /// Its process id.
        pid: u32,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The directory's files could not be listed.
    #[error(transparent)]
    Checkout(#[from] CheckoutError),
    /// Files could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// A host name means no VM.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A VM is down that was to be connected to.
    #[error("{name} is {}", state.as_str())]
    Down {
        /// The VM.
        name: String,
        /// What it is doing.
        state: VmState,
    },
    /// A guest is up and runs no SSH server.
    #[error("nothing listens on port 22 of {name}, which is up")]
    NoServer {
        /// The VM.
        name: String,
    },
    /// There is no ssh.
    #[error("there is no program ssh in PATH")]
    NoSsh,
    /// There is no key of banger's own.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// ssh could not be told how to reach VMs.
    #[error(transparent)]
    SshConfig(#[from] ConfigFileError),
    /// ssh reaches another daemon's VMs under the same names.
    #[error(transparent)]
    OtherDaemon(#[from] OtherDaemon),
    /// A guest's changes could not be brought back.
    #[error(transparent)]
    Pull(#[from] PullError),
}

impl Failure {
    /// What was typed makes no sense.
    pub fn usage(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), help: help.into() }
    }

    /// Whether it is nothing but a reader that has seen enough (`banger ls | head -1`).
    pub fn is_quiet(&self) -> bool {
        matches!(self, Failure::Stdout { source } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code. For `run`, `exec` and `shell`, whose codes are otherwise the guest command's, it is 125 where banger
    /// failed, 126 and 127 where the command cannot be executed or does not exist.
    pub fn exit_code(&self, for_command: bool) -> u8 {
        let general = if for_command { 125 } else { 1 };
        match self {
            Failure::Usage { .. } => 2,
            Failure::Interrupted { signal, .. } => 128 + signal,
            // 128 and SIGPIPE: as if the signal had ended this process.
            Failure::Stdout { .. } if self.is_quiet() => 141,
            Failure::Call(error) if for_command => match error.code {
                CallErrorCode::NotFound => 127,
                CallErrorCode::NotExecutable => 126,
                CallErrorCode::Invalid | CallErrorCode::Failed | CallErrorCode::Unknown => general,
            },
            Failure::Client(ClientError::Api(error)) | Failure::Helped { source: ClientError::Api(error), .. } => {
                match error.code {
                    ErrorCode::GuestNotFound if for_command => 127,
                    ErrorCode::GuestNotExecutable if for_command => 126,
                    code if code.exit_code() == 1 => general,
                    code => code.exit_code(),
                }
            }
            _ => general,
        }
    }

    /// Prints it: `error:`, `help:` and `also:`, one line each.
    pub fn print(&self) {
        if self.is_quiet() {
            return;
        }
        complain(&format!("error: {}", printable(&chain(self))));
        if let Some(help) = self.help() {
            complain(&format!("help: {}", printable(&help)));
        }
        for also in self.also() {
            complain(&format!("also: {}", printable(&also)));
        }
    }

    /// As one line, with what to do about it.
    pub fn one_line(&self) -> String {
        let help = self.help().map_or_else(String::new, |help| format!("; {help}"));
        printable(&format!("{}{help}", chain(self)))
    }

    fn help(&self) -> Option<String> {
        match self {
            Failure::Usage { help, .. } | Failure::Helped { help, .. } | Failure::NoCommand { help, .. } => {
                Some(help.clone())
            }
            Failure::Client(error) => client_help(error),
            Failure::Call(error) => match error.code {
                CallErrorCode::NotFound => Some("look at what the guest has with `banger shell`".to_owned()),
                CallErrorCode::Unknown => Some("stop and start the VM: it then gets this banger's agent".to_owned()),
                CallErrorCode::Invalid | CallErrorCode::NotExecutable | CallErrorCode::Failed => None,
            },
            Failure::Stream { .. } | Failure::Answer { .. } => Some(
                "the VM may have gone down: see `banger ls`, and `banger logs --console NAME` for its last words"
                    .to_owned(),
            ),
            Failure::StillRunning { pid, .. } => {
                Some(format!("its log may say why; `kill -9 {pid}` ends it, and VMs run on"))
            }
            Failure::Listen { at, .. } => {
                Some(format!("`ss -lntp` tells who has port {}; take another one", at.port()))
            }
            Failure::Start(error) => error.help(),
            Failure::Checkout(error) => error.help(),
            Failure::Copy(error) => error.help(),
            Failure::Pull(error) => error.help(),
            Failure::Key(error) => error.help(),
            Failure::SshConfig(error) => error.help(),
            Failure::OtherDaemon(_) => Some(
                "use `banger ssh` for this daemon, or take all blocks back with `banger ssh-config --uninstall` first"
                    .to_owned(),
            ),
            Failure::Target(TargetError::Elsewhere { .. }) => Some("`banger ls` lists all VMs".to_owned()),
            Failure::Target(TargetError::Host(_) | TargetError::Domain(_)) => None,
            Failure::Down { name, state: VmState::Stopped } => Some(format!("start it with: banger vm start {name}")),
            Failure::Down { state: VmState::Paused, .. } => {
                Some("free some room on the host: it goes on by itself then".to_owned())
            }
            Failure::Down { .. } => Some("wait until that is done".to_owned()),
            Failure::NoServer { name } => Some(format!(
                "install one: banger exec {name} -- apt-get install -y openssh-server; `banger shell {name}` needs none"
            )),
            Failure::NoSsh => Some("install OpenSSH's client: apt-get install openssh-client".to_owned()),
            Failure::Interrupted { .. } | Failure::Stdout { .. } | Failure::Own { .. } | Failure::Process(_) => None,
        }
    }

    fn also(&self) -> Vec<String> {
        match self {
            Failure::Client(ClientError::Api(error)) | Failure::Helped { source: ClientError::Api(error), .. } => {
                let operation = error.operation.iter().map(|id| format!("operation {id} in the daemon's log"));
                error.also.iter().cloned().chain(operation).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn client_help(error: &ClientError) -> Option<String> {
    let help = match error {
        ClientError::NotRunning { .. } | ClientError::Unserved { .. } => "start one with `banger daemon start`",
        ClientError::Forbidden { .. } => {
            "only root and the group `banger` may: `sudo usermod -aG banger $USER`, then log in anew"
        }
        ClientError::WrongVersion { .. } => {
            "`banger daemon stop`, then `banger daemon start` brings up the daemon beside this banger; VMs run on"
        }
        ClientError::NotBanger { .. } => "see what --host or BANGER_HOST names",
        ClientError::Lost { .. } => "see `banger daemon status` and the daemon's log",
        ClientError::Api(error) => return error.help.clone(),
        ClientError::Answer { .. } | ClientError::Refused { .. } | ClientError::NotUpgraded { .. } => {
            "compare the two versions that `banger version` shows"
        }
        ClientError::Connect { .. } => return None,
    };
    Some(help.to_owned())
}

/// The error and its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Transparent errors show up twice in their own chain.
        if !text.ends_with(&cause_text) {
            write!(text, ": {cause_text}").expect("writing to a string cannot fail");
        }
        next = cause.source();
    }
    text
}
