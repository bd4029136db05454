//! Starts VMs in QEMU, and takes over those that an earlier daemon started.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use banger_linux::process::{Leash, Process, ProcessError, Program};
use banger_linux::tsc::Measurement;
use tokio::net::UnixStream;

use super::args::{self, Accelerator};
use super::console::{self, Log};
use super::instance::QemuInstance;
use super::launch::{CONSOLE_SOCKET, EVENTS_SOCKET, Prepared, QMP_SOCKET, Stderr};
use super::qmp::{Qmp, QmpError};
use super::socket;
use super::version::{Check, Version};
use crate::vmm::{Capabilities, Console, Instance, Machine, PID_FILE, Vmm, VmmError, failed, not_running};

/// How long QEMU may take until its monitor answers. It needs 0.05 s, and more when a hundred of them start at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The driver for QEMU.
#[derive(Debug)]
pub struct Qemu {
    program: Program,
    check: Check,
    tsc: Measurement,
    patience: Duration,
}

impl Qemu {
    /// A driver that starts this program. It measures the time stamp counter from now on.
    pub fn new(program: Program) -> Qemu {
        let check = Check::new(program.clone());
        Qemu { program, check, tsc: Measurement::begin(), patience: PATIENCE }
    }

    /// The same, but QEMU's monitor has to answer within `patience`.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Qemu {
        Qemu { patience, ..self }
    }

    /// The program's version, if it is supported. Asked for ahead of the first VM, it costs that VM nothing.
    ///
    /// # Errors
    /// [`VmmError::Unfit`] where it is missing, too old, or no QEMU.
    pub async fn supported(&self) -> Result<Version, VmmError> {
        self.check.supported().await
    }

    async fn accelerator(&self, machine: &Machine) -> Accelerator {
        if machine.kvm {
            return Accelerator::Kvm;
        }
        // Only in the daemon's first 20 ms there is anything to wait for.
        tokio::time::sleep(self.tsc.missing()).await;
        Accelerator::Emulation { tsc_khz: self.tsc.khz() }
    }
}

#[async_trait]
impl Vmm for Qemu {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "qemu", power_button: true }
    }

    async fn ready(&self) -> Result<(), VmmError> {
        self.supported().await.map(drop)
    }

    async fn start(&self, machine: &Machine) -> Result<Box<dyn Instance>, VmmError> {
        not_running(self, machine)?;
        self.supported().await?;
        let prepared = Prepared::new(&self.program, machine, self.accelerator(machine).await)?;
        let log = Log::create(&machine.console_log).await.map_err(failed("write", &machine.console_log))?;
        // The socket listens already: who is in its queue before QEMU starts misses nothing.
        let console = self.connect_console(machine).await?;
        let leash = Leash::start(prepared.launch)?;
        self.await_monitor(&leash, &machine.runtime_dir, &prepared.stderr).await?;
        let process = leash.release().ok_or(VmmError::Gone)?;
        let console = keep_log(&machine.id, console, log, prepared.stderr);
        let make_async = |channel: std::os::unix::net::UnixStream| {
            channel.set_nonblocking(true)?;
            UnixStream::from_std(channel)
        };
        let channel = make_async(prepared.channel).map_err(failed("use the channel in", &machine.runtime_dir))?;
        Ok(Box::new(QemuInstance::new(process, &machine.runtime_dir, Some(console), Some(channel))))
    }

    async fn adopt(&self, machine: &Machine, process: Process) -> Result<Box<dyn Instance>, VmmError> {
        let console = async {
            let log = Log::append(&machine.console_log).await.map_err(failed("write", &machine.console_log))?;
            let console = self.connect_console(machine).await?;
            Ok::<_, VmmError>(keep_log(&machine.id, console, log, Stderr::open(&machine.runtime_dir)?))
        };
        let console = match console.await {
            Ok(console) => Some(console),
            // Only its process says whether it lives, not a missing file.
            Err(_) if process.has_ended() => return Err(VmmError::Gone),
            Err(error) => {
                let error = crate::api::error::chain(&error);
                tracing::warn!(vm = machine.id, error, "a VM that was taken over has no console");
                None
            }
        };
        Ok(Box::new(QemuInstance::new(process, &machine.runtime_dir, console, None)))
    }

    fn machine_of(&self, command: &[Vec<u8>]) -> Option<String> {
        args::machine_of(command)
    }

    /// A daemon that is not root cannot start a program as another user.
    fn user_of(&self, uid: u32) -> u32 {
        let own = rustix::process::geteuid();
        if own.is_root() { uid } else { own.as_raw() }
    }

    /// It has its disks open from its start.
    fn works_on(&self, process: &Process, _command: &[Vec<u8>], disks: &[&Path]) -> Option<bool> {
        disks.iter().any(|disk| disk.exists()).then(|| process.has_open(disks).ok()).flatten()
    }

    fn runtime_files(&self) -> &'static [&'static str] {
        &[PID_FILE, QMP_SOCKET, EVENTS_SOCKET, CONSOLE_SOCKET]
    }
}

impl Qemu {
    async fn connect_console(&self, machine: &Machine) -> Result<UnixStream, VmmError> {
        let path = machine.runtime_dir.join(CONSOLE_SOCKET);
        match socket::connect(&path, self.patience).await {
            Ok(stream) => Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(VmmError::Gone),
            Err(error) => Err(failed("connect to", &path)(error)),
        }
    }

    /// Waits until QEMU's monitor says that the processors run; the guest boots meanwhile.
    async fn await_monitor(&self, leash: &Leash, dir: &Path, stderr: &Stderr) -> Result<(), VmmError> {
        let Some(process) = leash.process() else { return Err(VmmError::Gone) };
        let answered = async {
            match Qmp::connect(&dir.join(QMP_SOCKET), self.patience).await?.running().await? {
                true => Ok(()),
                false => Err(QmpError::Malformed("the processors do not run".into())),
            }
        };
        let died = async |status: Result<Option<std::process::ExitStatus>, ProcessError>| {
            Err(VmmError::Died {
                program: self.program.path().display().to_string(),
                status: status?.map_or_else(|| "status unknown".to_owned(), |status| status.to_string()),
                said: stderr.last_line().unwrap_or_else(|| "it said nothing".to_owned()),
            })
        };
        tokio::select! {
            biased;
            answer = tokio::time::timeout(self.patience, answered) => match answer {
                Ok(Ok(())) => Ok(()),
                Ok(Err(QmpError::Io(source))) => {
                    // The connection breaks because QEMU ends, and it ends in a moment; if it does not, it is no QEMU.
                    match tokio::time::timeout(self.patience, process.ended()).await {
                        Ok(status) => died(status).await,
                        Err(_) => Err(VmmError::Io { attempted: "hear from the monitor".to_owned(), source }),
                    }
                }
                Ok(Err(error)) => {
                    Err(VmmError::Refused { command: "the first command".to_owned(), reason: error.to_string() })
                }
                Err(_) => {
                    Err(VmmError::Silent { attempted: "hear from the monitor", seconds: self.patience.as_secs() })
                }
            },
            status = process.ended() => died(status).await,
        }
    }
}

/// Keeps the console's log until QEMU ends, then tells the daemon's log what QEMU had to say. The task is nobody's: it ends
/// by itself, and a VM whose handle is dropped is to have its last words logged.
fn keep_log(id: &str, stream: UnixStream, log: Log, stderr: Stderr) -> Console {
    let id = id.to_owned();
    let (console, ends) = Console::new();
    drop(tokio::spawn(async move {
        if let Err(error) = console::follow(&id, stream, log, ends).await {
            tracing::warn!(vm = id, %error, "the console's log ends early");
        }
        if let Some(said) = stderr.last_line() {
            tracing::info!(vm = id, said, "QEMU's last words");
        }
    }));
    console
}
