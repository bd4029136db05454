//! File systems of the kernel's own, and the step from the initramfs to the root disk.

use std::ffi::CStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use banger_linux::uevent::Uevents;
use rustix::mount::{MountFlags, mount, mount_move};

use super::BootError;

/// One of the kernel's file systems: its type, where it goes, and the options that systemd would use, which then leaves it
/// alone.
type Kernel = (&'static str, &'static str, MountFlags, &'static CStr);

/// What is needed to come up.
const FIRST: [Kernel; 4] = [
    ("proc", "/proc", NO_PROGRAMS, c""),
    ("sysfs", "/sys", NO_PROGRAMS, c""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755"),
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=755,size=20%,nr_inodes=800k"),
];

/// What commands need.
const LATER: [Kernel; 2] = [
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), c"mode=620,gid=5,ptmxmode=000"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
];

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts what is needed to come up.
pub fn mount_first() -> Result<(), BootError> {
    FIRST.into_iter().try_for_each(mount_kernel)
}

/// Mounts what commands need.
pub fn mount_later() -> Result<(), BootError> {
    LATER.into_iter().try_for_each(mount_kernel)
}

fn mount_kernel((kind, on, flags, options): Kernel) -> Result<(), BootError> {
    let failed = |source| BootError::MountKernel { kind, on, source };
    make_directory(Path::new(on)).map_err(failed)?;
    mount(kind, on, kind, flags, options).map_err(|error| failed(error.into()))
}

/// Makes a directory unless it is there.
pub fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Moves the kernel's file systems below `new_root`, frees the initramfs and makes `new_root` the root.
pub fn switch_root(new_root: &Path) -> io::Result<()> {
    for on in ["/proc", "/sys", "/dev", "/run"] {
        let target = new_root.join(&on[1..]);
        make_directory(&target)?;
        mount_move(on, &target)?;
    }
    rustix::process::chdir(new_root)?;
    let initramfs = fs::metadata("/")?.dev();
    free(Path::new("/"), initramfs);
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Removes what is on the initramfs, and nothing that is mounted over it. What cannot be removed costs only memory.
fn free(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() {
            free(&path, device);
            drop(fs::remove_dir(&path));
        } else {
            drop(fs::remove_file(&path));
        }
    }
}

/// Says one line on the console, twice: through the kernel's log, of which all is out when the call returns, and as a
/// program writes to it. A console on a virtio serial port that is just coming up throws away what it is given in its first
/// moment, and what was logged before; so it is waited for.
pub fn say_on_console(line: &str) {
    const COMES_WITHIN: Duration = Duration::from_secs(2);
    // The kernel cuts longer lines off.
    let line: String = line.chars().take(900).collect();
    let console = wait_for_console(Instant::now() + COMES_WITHIN);
    drop(fs::write("/dev/kmsg", format!("<2>{line}\n")));
    if let Some(mut console) = console {
        // The machine is about to be powered off: there is nothing to do about a console that fails.
        drop(console.write_all(format!("{line}\r\n").as_bytes()));
        rustix::termios::tcdrain(&console).ok();
    }
}

fn wait_for_console(deadline: Instant) -> Option<fs::File> {
    let devices = Uevents::open().ok()?;
    loop {
        if let Ok(console) = fs::OpenOptions::new().write(true).open("/dev/console") {
            return Some(console);
        }
        if !devices.wait("virtio-ports", deadline).ok()? {
            return None;
        }
    }
}
