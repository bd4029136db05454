//! From the daemon's errors to the one shape of a failure: a code, a line, what to do.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use banger_api::error::{ApiError, ErrorCode};
use banger_protocol::call::CallErrorCode;

use crate::dns::wiring::WiringError;
use crate::guest::GuestError;
use crate::image::ImageError;
use crate::image::builds::BuildError;
use crate::storage::StorageError;
use crate::store::StoreError;
use crate::vm::error::VmError;
use crate::vm::spec::SpecError;
use crate::vm::state::Denied;
use crate::vmm::VmmError;

/// An error with its causes, as one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A transparent variant says the same as its cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

/// The longest message, in bytes: it names what was asked for, which may be a megabyte.
const MAX_MESSAGE: usize = 2000;

/// An error that does not give back all of a long request.
pub(super) fn bounded(mut error: ApiError) -> ApiError {
    if error.message.len() > MAX_MESSAGE {
        let ends = error.message.char_indices().map(|(at, _)| at);
        let end = ends.take_while(|at| *at <= MAX_MESSAGE).last().unwrap_or(0);
        error.message.truncate(end);
        error.message.push_str(" ...");
    }
    error
}

/// A failure that answers a request.
#[derive(Debug)]
pub struct Failure(pub ApiError);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = bounded(self.0);
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(error)).into_response()
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>, help: Option<&str>) -> Failure {
        Failure(ApiError {
            code,
            message: message.into(),
            help: help.map(str::to_owned),
            also: Vec::new(),
            operation: None,
        })
    }
}

impl From<VmError> for Failure {
    fn from(error: VmError) -> Failure {
        Failure(of_vm(&error))
    }
}

impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Failure {
        Failure(of_vm(&VmError::Guest(error)))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure(of_vm(&VmError::Store(error)))
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        Failure(of_build(&error))
    }
}

impl From<WiringError> for Failure {
    fn from(error: WiringError) -> Failure {
        let code = match &error {
            WiringError::Store(error) => of_store(error).0,
            _ => ErrorCode::HostUnfit,
        };
        Failure::new(code, chain(&error), Some(&error.help()))
    }
}

/// A VM's error.
pub fn of_vm(error: &VmError) -> ApiError {
    let (code, help) = match error {
        VmError::Spec(error) => of_spec(error),
        VmError::NotFound { suggestion, .. } => (
            ErrorCode::VmNotFound,
            Some(match suggestion {
                Some(name) => format!("did you mean {name}? `banger ls` lists all VMs"),
                None => "`banger ls` lists all VMs".to_owned(),
            }),
        ),
        VmError::Denied { denied, name, .. } => of_denied(*denied, name),
        VmError::RemoveRunning(name) => (
            ErrorCode::WrongState,
            Some(format!("stop it first with `banger stop {name}`, or use `banger rm --force {name}`")),
        ),
        VmError::Lives { attempted, name, .. } => {
            // One that is being removed can only be removed.
            let verb = if matches!(*attempted, "remove" | "delete the disks of") { "rm --force" } else { "kill" };
            let help = format!("`banger {verb} {name}` ends it; what its guest has not written yet is lost");
            (ErrorCode::WrongState, Some(help))
        }
        VmError::Strangers { processes, .. } => {
            let pids: Vec<String> = processes.iter().map(|process| process.pid.to_string()).collect();
            let help = format!("look at `ps -fp {}`; once it has ended, try again", pids.join(","));
            (ErrorCode::WrongState, Some(help))
        }
        VmError::RestartRemoved(name) => {
            (ErrorCode::WrongState, Some(format!("`banger stop {name}` stops and removes it")))
        }
        VmError::Ambiguous { .. } => (ErrorCode::Ambiguous, Some("give more of the id, or a name".to_owned())),
        VmError::Busy { .. } => (
            ErrorCode::Busy,
            Some("wait until that is done; `banger kill` and `banger rm --force` do not wait".to_owned()),
        ),
        VmError::Store(error) => of_store(error),
        VmError::Storage(StorageError::NoSpace { .. }) => {
            (ErrorCode::NoSpace, Some("free some room, or remove VMs and images that are not needed".to_owned()))
        }
        VmError::Paused { .. } => {
            (ErrorCode::NoSpace, Some("free some room on the host: it goes on by itself then".to_owned()))
        }
        VmError::Vmm(error) => of_vmm(error),
        VmError::AgentSilent { name, .. } | VmError::WentDown { name, .. } => (
            ErrorCode::GuestUnreachable,
            Some(format!("see what the guest said with `banger logs --console {name}`, if the VM is still there")),
        ),
        VmError::Full(_) => {
            (ErrorCode::Busy, Some("wait until one of them ends; detached commands do not count".to_owned()))
        }
        VmError::NoAgent(name) | VmError::Unreachable { name, .. } => (
            ErrorCode::GuestUnreachable,
            Some(format!(
                "look at `banger logs --console {name}`; `banger kill {name}` and `banger start {name}` reboot it"
            )),
        ),
        VmError::Publish { port, .. } => (
            ErrorCode::InUse,
            Some(format!("`ss -lntp` tells who has port {}; publish another one, or at another address", port.port())),
        ),
        VmError::Network(error) => (ErrorCode::HostUnfit, error.help().map(str::to_owned)),
        VmError::Guest(error) => of_guest(error),
        VmError::Cancelled(_) => (ErrorCode::Cancelled, None),
        VmError::Unending { .. } => {
            (ErrorCode::VmmFailed, Some("try again; `banger doctor` names processes that are left".to_owned()))
        }
        VmError::WithAftermath { cause, also } => {
            let mut error = of_vm(cause);
            error.also = also.iter().map(|error| chain(error)).collect();
            return error;
        }
        VmError::Storage(StorageError::Prepare { source, .. }) if source.kind() == std::io::ErrorKind::FileTooLarge => {
            (ErrorCode::Invalid, Some("give --disk a smaller size: this file system takes no file so large".to_owned()))
        }
        VmError::Storage(_)
        | VmError::Boot(_)
        | VmError::Identity(_)
        | VmError::Io { .. }
        | VmError::Injected(_)
        | VmError::Closing => {
            (ErrorCode::Internal, Some("the daemon's log says more; `banger doctor` checks the host".to_owned()))
        }
    };
    ApiError { code, message: chain(error), help, also: Vec::new(), operation: None }
}

fn of_spec(error: &SpecError) -> (ErrorCode, Option<String>) {
    match error {
        SpecError::NoImage(_) => (
            ErrorCode::ImageNotFound,
            Some("`banger image ls` lists all images, `banger image build` makes one".to_owned()),
        ),
        SpecError::Name { .. } => (ErrorCode::Invalid, Some("a good name is devbox, or web-1".to_owned())),
        SpecError::Cpus(_) => (ErrorCode::Invalid, Some("give --cpus another number".to_owned())),
        SpecError::LittleMemory(_) | SpecError::MuchMemory { .. } => {
            (ErrorCode::Invalid, Some("give --memory another size, such as 1GiB".to_owned()))
        }
        SpecError::Disk { .. } | SpecError::LargeDisk(_) => {
            (ErrorCode::Invalid, Some("give --disk another size, such as 8GiB".to_owned()))
        }
        SpecError::RestartsRemoved => (ErrorCode::Invalid, Some("leave out --restart, or --rm".to_owned())),
        SpecError::NoChange => (ErrorCode::Invalid, Some("say what to change, as --cpus 4".to_owned())),
        SpecError::Shrink { .. } => (ErrorCode::Invalid, Some("give --disk a larger size".to_owned())),
        SpecError::Variable(_) | SpecError::Environment => (ErrorCode::Invalid, Some("look at --env".to_owned())),
        SpecError::User { .. } => (ErrorCode::Invalid, Some("create the VM as another user".to_owned())),
        SpecError::ManyPorts(_) => {
            (ErrorCode::Invalid, Some("`banger forward` forwards more while it runs".to_owned()))
        }
        SpecError::PortTwice(_) => (ErrorCode::Invalid, Some("look at --publish".to_owned())),
        SpecError::SshKey { .. } => {
            (ErrorCode::Invalid, Some("a key is a line of a file such as ~/.ssh/id_ed25519.pub".to_owned()))
        }
        SpecError::Workdir(_) => (ErrorCode::Invalid, Some("give --workdir a path that begins with /".to_owned())),
    }
}

fn of_denied(denied: Denied, name: &str) -> (ErrorCode, Option<String>) {
    let help = match denied {
        Denied::NotRunning => Some(format!("start it with `banger start {name}`")),
        Denied::Creating | Denied::Stopping | Denied::Removing => Some("wait until that is done".to_owned()),
        Denied::AlreadyRunning | Denied::NoConsole => None,
    };
    (ErrorCode::WrongState, help)
}

fn of_store(error: &StoreError) -> (ErrorCode, Option<String>) {
    match error {
        full if full.is_full() => (
            ErrorCode::NoSpace,
            Some(
                "free some room, or remove VMs and images that are not needed: that works on a full disk, too"
                    .to_owned(),
            ),
        ),
        StoreError::NameTaken(name) => {
            (ErrorCode::NameTaken, Some(format!("take another name, or remove the old one with `banger rm {name}`")))
        }
        StoreError::ImageGone(_) => (ErrorCode::ImageNotFound, Some("`banger image ls` lists all images".to_owned())),
        StoreError::InUse(_) => (ErrorCode::InUse, Some("remove these VMs first".to_owned())),
        StoreError::NoAddress(_) => {
            (ErrorCode::HostUnfit, Some("remove VMs, or give the configuration a larger `[network] subnet`".to_owned()))
        }
        StoreError::AddressInUse(name) => (ErrorCode::InUse, Some(format!("`banger rm {name}` first"))),
        StoreError::NoLease(_) => (ErrorCode::LeaseNotFound, Some("`banger network ls` lists all".to_owned())),
        StoreError::NoUid(_) => (
            ErrorCode::HostUnfit,
            Some("set `first_uid` below `[vmm]` in the configuration to a lower number".to_owned()),
        ),
        StoreError::Open { .. }
        | StoreError::Migrate { .. }
        | StoreError::Statement { .. }
        | StoreError::Unusable { .. }
        | StoreError::Closed => (ErrorCode::Internal, Some("the daemon's log says more".to_owned())),
    }
}

fn of_vmm(error: &VmmError) -> (ErrorCode, Option<String>) {
    match error {
        VmmError::Unfit { .. } => (ErrorCode::HostUnfit, Some("`banger doctor` says what is missing".to_owned())),
        _ => (ErrorCode::VmmFailed, Some("`banger doctor` checks the host; the daemon's log says more".to_owned())),
    }
}

fn of_guest(error: &GuestError) -> (ErrorCode, Option<String>) {
    match error {
        GuestError::Refused(refusal) => match refusal.code {
            CallErrorCode::Invalid => (ErrorCode::Invalid, None),
            CallErrorCode::NotFound => (ErrorCode::GuestNotFound, None),
            CallErrorCode::NotExecutable => (ErrorCode::GuestNotExecutable, None),
            CallErrorCode::Failed => (ErrorCode::GuestFailed, None),
            CallErrorCode::Unknown => (ErrorCode::Unsupported, Some(RESTART.to_owned())),
        },
        GuestError::TooLong(_) => (ErrorCode::TooLarge, Some("send what is long through standard input".to_owned())),
        GuestError::TooOld(_) => (ErrorCode::Unsupported, Some(RESTART.to_owned())),
        _ => (ErrorCode::GuestUnreachable, Some("`banger ls` says whether the VM still runs".to_owned())),
    }
}

const RESTART: &str = "stop and start the VM: it then gets this banger's agent";

/// A build's error.
pub fn of_build(error: &BuildError) -> ApiError {
    let (code, help) = match error {
        BuildError::Name { .. } => (ErrorCode::Invalid, Some("a good name is debian, or debian-12".to_owned())),
        BuildError::Size(_) => (ErrorCode::Invalid, Some("give --size another size, such as 8GiB".to_owned())),
        BuildError::Suite(_) => (ErrorCode::Invalid, Some("a release is bookworm, trixie or sid".to_owned())),
        BuildError::Package(_) => (ErrorCode::Invalid, Some("a package is git, or python3-venv".to_owned())),
        BuildError::NotFound(_) => (ErrorCode::ImageNotFound, Some("`banger image ls` lists all images".to_owned())),
        BuildError::Busy(_) => (ErrorCode::Busy, Some("wait until that is done".to_owned())),
        BuildError::Store(StoreError::NameTaken(name)) => (
            ErrorCode::NameTaken,
            Some(format!("take another name, or remove the old one with `banger image rm {name}`")),
        ),
        BuildError::Store(error) => of_store(error),
        BuildError::Build { source, .. } if no_space(source) => (ErrorCode::NoSpace, Some("free some room".to_owned())),
        BuildError::Build { log, .. } => {
            (ErrorCode::HostUnfit, Some(format!("the raw log is {}; `banger doctor` checks the host", log.display())))
        }
        BuildError::Cancelled => (ErrorCode::Cancelled, None),
        BuildError::Io { .. } | BuildError::Injected(_) => {
            (ErrorCode::Internal, Some("the daemon's log says more".to_owned()))
        }
    };
    ApiError { code, message: chain(error), help, also: Vec::new(), operation: None }
}

fn no_space(error: &ImageError) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        cause = error.source();
    }
    false
}
