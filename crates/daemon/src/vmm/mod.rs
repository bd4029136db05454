//! VMMs behind one trait. A driver is our code for one VMM program.
//!
//! **To add a driver**: a folder here with a type that implements [`Vmm`] and one that implements [`Instance`], a case in
//! `select`, a program in `banger-linux/src/process.rs`'s allow-list. A driver says what it can do in its
//! [`Capabilities`]; nobody asks for its name.

mod console;
pub mod fake;
pub mod qemu;
pub mod select;
#[cfg(test)]
mod stand_in;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use banger_linux::netlink::Mac;
use banger_linux::process::{Process, ProcessError};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use console::{Attached, BACKLOG, Console, Ends};

/// The record of a VMM's process in its machine's runtime directory, whichever driver started it; see
/// [`banger_linux::process::Launch::pid_file`].
pub const PID_FILE: &str = "vmm.pid";

/// All that a VMM needs to know to run one VM. Made by `vm/start.rs` from a record, the same way every time.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The VM's id; names the process, the cgroup, nothing that a user sees.
    pub id: String,
    /// A directory of this VM's own for sockets and pid records; it goes when the VM stops.
    pub runtime_dir: PathBuf,
    /// The uncompressed kernel, an ELF file with a PVH entry. Readable by every user: the VMM has an own one.
    pub kernel: PathBuf,
    /// The initramfs for this VM and this boot. The driver may append zeros to it and give it to the VM's user.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
    /// Disks, in the order in which the guest finds them.
    pub disks: Vec<Disk>,
    /// Its network card, if it has one.
    pub card: Option<Card>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The uid and gid that the VMM runs as; its files belong to it.
    pub uid: u32,
    /// The console's log; bounded, rewritten at each boot.
    pub console_log: PathBuf,
    /// Whether the kernel's KVM is to be used.
    pub kvm: bool,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The raw file.
    pub path: PathBuf,
    /// The serial number by which the guest finds it: `root`, `work`.
    pub serial: String,
}

/// A network card of a machine.
#[derive(Debug, Clone)]
pub struct Card {
    /// Its hardware address.
    pub mac: Mac,
    /// The other end: a TAP's descriptor, with a virtio header in front of each packet.
    pub tap: Arc<OwnedFd>,
}

/// What a driver can do on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The driver's name, as `show` prints it.
    pub name: &'static str,
    /// Whether the VMM has a button that a guest can be asked with; read by `stop`.
    pub power_button: bool,
}

/// A byte stream to the agent, with nothing of an earlier session in front.
pub trait Channel: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Channel for T {}

/// A program that runs VMs.
#[async_trait]
pub trait Vmm: Send + Sync {
    /// What it can do here.
    fn capabilities(&self) -> Capabilities;

    /// Whether its program can be used at all.
    ///
    /// # Errors
    /// [`VmmError::Unfit`].
    async fn ready(&self) -> Result<(), VmmError>;

    /// Starts a VM. Returns when the VMM has accepted its configuration and the guest's processors run. What it made is
    /// undone by ending the process and removing `machine.runtime_dir`.
    ///
    /// # Errors
    /// [`VmmError`]; the process is gone then.
    async fn start(&self, machine: &Machine) -> Result<Box<dyn Instance>, VmmError>;

    /// Takes over a VM that an earlier daemon started: its process, and the files that `start` left in
    /// `machine.runtime_dir`. A missing file takes away only what it was for.
    ///
    /// # Errors
    /// [`VmmError::Gone`] if the process has ended.
    async fn adopt(&self, machine: &Machine, process: Process) -> Result<Box<dyn Instance>, VmmError>;

    /// The id of the machine that a process with this command line runs; `None` if it is no VMM of this driver.
    fn machine_of(&self, command: &[Vec<u8>]) -> Option<String>;

    /// The user that the VMM of a machine with this uid runs as.
    fn user_of(&self, uid: u32) -> u32;

    /// Whether a VMM with this command line uses one of these disks of a machine; `None` if it cannot tell. The VM of a
    /// copied state directory has the same id as the original's, but other disks.
    fn works_on(&self, process: &Process, command: &[Vec<u8>], disks: &[&Path]) -> Option<bool>;

    /// The files in a machine's runtime directory that a daemon needs to find its VMM and to speak to it.
    fn runtime_files(&self) -> &'static [&'static str];
}

/// A VM that runs. Dropping it leaves the VM alone.
#[async_trait]
pub trait Instance: Send + Sync {
    /// The VMM's process.
    fn process(&self) -> &Process;

    /// A fresh byte stream to the agent; the one before is dead from now on. Blocks until the VMM has it, not until the
    /// guest listens.
    ///
    /// # Errors
    /// [`VmmError`]; where the VMM is gone, [`VmmError::Gone`].
    async fn connect(&self) -> Result<Box<dyn Channel>, VmmError>;

    /// Ends when the guest has closed its end of the stream to its agent, as when the agent is killed: nothing will come from
    /// there any more. Never ends where a driver cannot tell.
    fn abandoned(&self) -> BoxFuture<'static, ()>;

    /// How the guest went down, after the process has ended; nothing where a driver did not hear it, as when the process was
    /// killed.
    fn farewell(&self) -> BoxFuture<'static, Option<Farewell>>;

    /// What its writes to the host's disk meet, now and from now on.
    fn shortage(&self) -> watch::Receiver<Shortage>;

    /// Lets a guest go on that is paused because the host's disk is full, and tries its write again. That it was accepted does
    /// not mean that the write finds space: [`Instance::shortage`] tells.
    ///
    /// # Errors
    /// [`VmmError`].
    async fn resume(&self) -> Result<(), VmmError>;

    /// The console, where there is one to read along and to type at.
    fn console(&self) -> Option<Console>;

    /// Makes the disk at this place among the machine's larger, to so many bytes, and tells the guest.
    ///
    /// # Errors
    /// [`VmmError`].
    async fn grow_disk(&self, place: usize, bytes: u64) -> Result<(), VmmError>;

    /// Presses the power button.
    ///
    /// # Errors
    /// [`VmmError`].
    async fn press_power_button(&self) -> Result<(), VmmError>;
}

/// The writes of a guest that found no space on the host's disk. The guest is not told: its VMM pauses it, with the write
/// undone. Any other error of the host's disk reaches the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortage {
    /// Whether the guest is paused over one.
    pub paused: bool,
    /// How many there were.
    pub times: u64,
}

/// How a guest went down of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It powered itself off.
    PoweredOff,
    /// It reset itself, as a reboot or a panic does. A VMM ends with that; who wants the guest back starts another.
    Rebooted,
}

/// Why a VMM did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The program is missing or older than what is supported.
    #[error("{program} cannot be used: {problem}")]
    Unfit {
        /// Which program.
        program: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The VM runs already.
    #[error("the VM runs already, as process {pid}")]
    Runs {
        /// Its VMM.
        pid: u32,
    },
    /// The process ended before the guest ran; what it said.
    #[error("{program} ended at once ({status}): {said}")]
    Died {
        /// Which program.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of its standard error, one line.
        said: String,
    },
    /// No such process any more.
    #[error("the VMM process is gone")]
    Gone,
    /// The VMM refused a command.
    #[error("the VMM refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// Its reason.
        reason: String,
    },
    /// It did not answer in time.
    #[error("cannot {attempted}: the VMM did not answer within {seconds} s")]
    Silent {
        /// What was attempted.
        attempted: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// It could not be spoken to.
    #[error("cannot {attempted} for the VMM")]
    Io {
        /// What was attempted, on what.
        attempted: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The process could not be started or watched.
    #[error(transparent)]
    Process(#[from] banger_linux::process::ProcessError),
}

/// Whether a process is the VMM of the machine with this id and uid, judged by its command line and its user.
///
/// # Errors
/// [`VmmError::Process`], if it cannot tell.
pub fn is_vmm_of(vmm: &dyn Vmm, id: &str, uid: u32, process: &Process) -> Result<bool, VmmError> {
    match (process.command_line(), process.user()) {
        (Ok(command), Ok(user)) => Ok(user == vmm.user_of(uid) && vmm.machine_of(&command).as_deref() == Some(id)),
        (Err(ProcessError::Gone { .. }), _) | (_, Err(ProcessError::Gone { .. })) => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

/// Refuses a machine that runs according to its [`PID_FILE`]: a second start would overwrite the record that identifies
/// its process. `vm/alive.rs` looks further.
fn not_running(vmm: &dyn Vmm, machine: &Machine) -> Result<(), VmmError> {
    match Process::recorded(&machine.runtime_dir.join(PID_FILE)) {
        Ok(process) if is_vmm_of(vmm, &machine.id, machine.uid, &process)? => {
            Err(VmmError::Runs { pid: process.pid() })
        }
        // Another process has the number by now, or the file says nothing.
        Ok(_) | Err(ProcessError::Gone { .. } | ProcessError::Record { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Names what was attempted, and on what.
fn failed(act: &str, path: &Path) -> impl FnOnce(io::Error) -> VmmError {
    let attempted = format!("{act} {}", path.display());
    move |source| VmmError::Io { attempted, source }
}
