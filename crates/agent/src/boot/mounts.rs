//! File systems of the kernel's own, and the step from the initramfs to the root disk.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::mount::{MountFlags, mount, mount_move};

use super::BootError;

/// What is mounted before anything else, with the options that systemd would use: it then leaves them alone.
const KERNEL: [(&str, &str, MountFlags, &str); 6] = [
    ("proc", "/proc", NO_PROGRAMS, ""),
    ("sysfs", "/sys", NO_PROGRAMS, ""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, "mode=755"),
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), "mode=620,gid=5,ptmxmode=000"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), "mode=1777"),
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), "mode=755,size=20%,nr_inodes=800k"),
];

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// Mounts them.
pub fn mount_kernel_file_systems() -> Result<(), BootError> {
    for (kind, on, flags, options) in KERNEL {
        let failed = |source| BootError::MountKernel { kind, on: on.to_owned(), source };
        make_directory(Path::new(on)).map_err(failed)?;
        let options = std::ffi::CString::new(options).map_err(|error| failed(error.into()))?;
        mount(kind, on, kind, flags, options.as_c_str()).map_err(|error| failed(error.into()))?;
    }
    Ok(())
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

/// Writes one line to the console and waits until it is out; where there is no console yet, to the kernel's log, which a
/// console shows when it comes.
pub fn say_on_console(line: &str) {
    let console = || -> io::Result<()> {
        let mut console = fs::OpenOptions::new().write(true).open("/dev/console")?;
        console.write_all(format!("\r\n{line}\r\n").as_bytes())?;
        rustix::termios::tcdrain(&console)?;
        Ok(())
    };
    if console().is_err() {
        drop(fs::write("/dev/kmsg", format!("<2>{line}\n")));
    }
}
