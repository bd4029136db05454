//! What QEMU is started with: everything is opened here, because the process itself has no right to any path.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, fchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use banger_linux::process::{Credentials, Launch, Program, Stream};
use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::args::{Accelerator, Descriptors, arguments};
use crate::vmm::select::Access;
use crate::vmm::{Machine, PID_FILE, VmmError, failed};

/// The monitor's socket, in the machine's runtime directory.
pub const QMP_SOCKET: &str = "qmp.sock";

/// The socket of a second monitor, which tells of the guest's end of the channel for as long as somebody listens.
pub const EVENTS_SOCKET: &str = "events.sock";

/// The console's socket, in the machine's runtime directory.
pub const CONSOLE_SOCKET: &str = "console.sock";

/// Where QEMU's standard error goes, in the machine's runtime directory.
const STDERR: &str = "vmm.stderr";

/// What QEMU's `-initrd` must be a multiple of; see [`open_initramfs`].
const PAGE: u64 = 4096;

/// A launch and this side's ends of what it hands over.
#[derive(Debug)]
pub struct Prepared {
    /// The process to start.
    pub launch: Launch,
    /// The channel, connected.
    pub channel: UnixStream,
    /// What QEMU will have said.
    pub stderr: Stderr,
}

impl Prepared {
    /// Makes the runtime files, opens all that the machine needs, and writes QEMU's arguments.
    ///
    /// # Errors
    /// [`VmmError::Io`]; what was made is in the runtime directory.
    pub fn new(program: &Program, machine: &Machine, accelerator: Accelerator) -> Result<Prepared, VmmError> {
        let dir = &machine.runtime_dir;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
        let disks = machine
            .disks
            .iter()
            .map(|disk| OpenOptions::new().read(true).write(true).open(&disk.path).map_err(failed("open", &disk.path)));
        let disks = disks.collect::<Result<Vec<File>, VmmError>>()?;
        let kernel = open_kernel(&machine.kernel)?;
        let initramfs = open_initramfs(&machine.initramfs, machine.uid)?;
        let qmp = listen(&dir.join(QMP_SOCKET))?;
        let events = listen(&dir.join(EVENTS_SOCKET))?;
        let console = listen(&dir.join(CONSOLE_SOCKET))?;
        let (channel, their_channel) = UnixStream::pair().map_err(failed("make the channel in", dir))?;
        let tap = machine.card.as_ref().map(|card| card.tap.try_clone()).transpose();
        let tap = tap.map_err(failed("pass the network card on in", dir))?;
        let stderr = Stderr::open(dir)?;
        let pid_file = dir.join(PID_FILE);

        let fds = Descriptors {
            kernel: kernel.as_raw_fd(),
            initramfs: initramfs.as_raw_fd(),
            disks: disks.iter().map(AsRawFd::as_raw_fd).collect(),
            channel: their_channel.as_raw_fd(),
            qmp: qmp.as_raw_fd(),
            events: events.as_raw_fd(),
            console: console.as_raw_fd(),
            tap: tap.as_ref().map(AsRawFd::as_raw_fd),
        };
        let mut launch = Launch::new(program.clone(), arguments(machine, accelerator, &fds));
        launch.stderr = Stream::Fd(stderr.fd.try_clone().map_err(failed("open", &stderr.path))?.into());
        launch.inherit = disks.into_iter().chain([kernel, initramfs]).map(OwnedFd::from).collect();
        launch.inherit.extend([OwnedFd::from(their_channel), qmp.into(), events.into(), console.into()]);
        launch.inherit.extend(tap);
        launch.credentials = credentials(machine.uid, accelerator)?;
        launch.no_new_privileges = true;
        launch.session = true;
        launch.pid_file = Some(File::create(&pid_file).map_err(failed("write", &pid_file))?);
        Ok(Prepared { launch, channel, stderr })
    }
}

/// QEMU's standard error: a named pipe that QEMU itself holds open. It takes what fits into a pipe's buffer (64 KiB) and
/// refuses the rest, so a guest that makes QEMU complain fills no disk; and it outlives the daemon.
#[derive(Debug)]
pub struct Stderr {
    path: PathBuf,
    fd: File,
}

impl Stderr {
    /// Opens the one in this directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`VmmError::Io`].
    pub fn open(dir: &Path) -> Result<Stderr, VmmError> {
        let path = dir.join(STDERR);
        match rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed("make", &path)(error.into())),
        }
        // Opened for both, it needs no other side; without blocking, a full one does not stop QEMU.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|error| failed("open", &path)(error.into()))?;
        Ok(Stderr { path, fd: fd.into() })
    }

    /// The last line that QEMU said, short enough for a message; `None` if it said nothing.
    pub fn last_line(&self) -> Option<String> {
        let mut text = vec![0; 64 * 1024];
        let length = (&self.fd).read(&mut text).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..length]);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect())
    }
}

/// The kernel is the image's, shared by its VMs and nobody's secret. QEMU opens it by its descriptor's name, which asks for
/// the file's permissions once more, though not for those of the directories above it.
fn open_kernel(path: &Path) -> Result<File, VmmError> {
    let file = File::open(path).map_err(failed("open", path))?;
    let mode = file.metadata().map_err(failed("open", path))?.permissions().mode();
    if mode & 0o004 == 0 && rustix::process::geteuid().is_root() {
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "its mode lets only its owner read it");
        return Err(failed("pass on", path)(source));
    }
    Ok(file)
}

/// The initramfs is this VM's own and holds its host key: only this VM's user may read it.
///
/// QEMU's microvm loads the initramfs to the top of the guest's memory, rounded down to a page, where the firmware has put
/// its ACPI tables a moment before. An archive whose last page is more than half full overwrites them, and the guest finds
/// no devices. One of whole pages ends where the last page of memory begins, and leaves that one to the tables. The kernel
/// skips zeros behind an archive.
fn open_initramfs(path: &Path, uid: u32) -> Result<File, VmmError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open", path))?;
    let length = file.metadata().map_err(failed("open", path))?.len();
    file.set_len(length.next_multiple_of(PAGE)).map_err(failed("pad", path))?;
    if rustix::process::geteuid().is_root() {
        fchown(&file, Some(uid), Some(uid)).map_err(failed("pass on", path))?;
    }
    File::open(path).map_err(failed("open", path))
}

fn listen(path: &Path) -> Result<UnixListener, VmmError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on", path))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed("protect", path))?;
    Ok(listener)
}

/// The VM's own user, with nothing but the group that may use KVM. A daemon that is not root can give away nothing.
fn credentials(uid: u32, accelerator: Accelerator) -> Result<Option<Credentials>, VmmError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let groups = match accelerator {
        Accelerator::Kvm => {
            let device = Path::new("/dev/kvm");
            Access::of(device).map_err(failed("open", device))?.group().into_iter().collect()
        }
        Accelerator::Emulation { .. } => Vec::new(),
    };
    Ok(Some(Credentials { uid, gid: uid, groups }))
}
