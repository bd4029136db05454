//! Every path that the daemon makes. Nothing else joins one.

use std::path::{Path, PathBuf};

/// The longest path of a unix socket, in bytes: `sun_path` is 108 with its closing zero (unix(7)).
pub const MAX_SOCKET_PATH: usize = 107;

/// The paths of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Records and disks; survives a reboot of the host. `/var/lib/banger`.
    pub state: PathBuf,
    /// Sockets and process records; need not survive one. `/run/banger`.
    pub runtime: PathBuf,
    /// The configuration file. `/etc/banger/config.toml`.
    pub config: PathBuf,
    /// The claims of all daemons on this host. `/run/banger-ground`.
    pub claims: PathBuf,
}

/// Where they are if nobody says otherwise.
impl Default for Paths {
    fn default() -> Paths {
        Paths {
            state: "/var/lib/banger".into(),
            runtime: "/run/banger".into(),
            config: "/etc/banger/config.toml".into(),
            claims: "/run/banger-ground".into(),
        }
    }
}

/// The files of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmPaths {
    /// All that outlives a stop: the disks and the console's log.
    pub state: PathBuf,
    /// The root disk.
    pub root: PathBuf,
    /// The work disk.
    pub work: PathBuf,
    /// The console's log.
    pub console: PathBuf,
    /// All that does not outlive a stop: sockets, the initramfs, the process record.
    pub runtime: PathBuf,
    /// The initramfs of this boot.
    pub initramfs: PathBuf,
    /// The VMM's process record.
    pub pid_file: PathBuf,
    /// The name of its TAP, while it has one.
    pub tap: PathBuf,
}

/// The longest name below a VM's runtime directory that is a socket.
const LONGEST_VM_SOCKET: &str = "console.sock";

/// The length of a VM's id.
const VM_ID: usize = 10;

impl Paths {
    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("bangerd.sock")
    }

    /// The API's socket until it has its owner and listens. Shorter than the sockets of VMs.
    pub fn new_socket(&self) -> PathBuf {
        self.runtime.join("bangerd.sock.new")
    }

    /// The file that the daemon of the runtime directory holds by flock(2).
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("lock")
    }

    /// The successor of [`Paths::lock`] until it is locked.
    pub fn new_lock(&self) -> PathBuf {
        self.runtime.join("lock.new")
    }

    /// The file that the daemon of the state directory holds by flock(2). It has the daemon's process id and runtime
    /// directory.
    pub fn state_lock(&self) -> PathBuf {
        self.state.join("lock")
    }

    /// The note that names the ground of this runtime directory.
    pub fn owner(&self) -> PathBuf {
        self.runtime.join("ground")
    }

    /// The links that forward packets only because of VMs, as a daemon wrote them before daemons shared records.
    pub fn forwarding(&self) -> PathBuf {
        self.runtime.join("forwarding")
    }

    /// The records.
    pub fn database(&self) -> PathBuf {
        self.state.join("banger.db")
    }

    /// The daemon's own log.
    pub fn log(&self) -> PathBuf {
        self.state.join("bangerd.log")
    }

    /// Raw logs of image builds that failed or run.
    pub fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// The raw log of one image's build.
    pub fn build_log(&self, image_name: &str) -> PathBuf {
        self.logs().join(format!("image-build-{image_name}.log"))
    }

    /// What is being made; emptied when a daemon starts.
    pub fn scratch(&self) -> PathBuf {
        self.state.join("tmp")
    }

    /// All images.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// One image's directory.
    pub fn image(&self, id: &str) -> PathBuf {
        self.images().join(id)
    }

    /// All VMs' disks.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// All VMs' runtime directories.
    pub fn vms_runtime(&self) -> PathBuf {
        self.runtime.join("vms")
    }

    /// One VM's files.
    pub fn vm(&self, id: &str) -> VmPaths {
        let (state, runtime) = (self.vms().join(id), self.vms_runtime().join(id));
        VmPaths {
            root: state.join("root.ext4"),
            work: state.join("work.ext4"),
            console: state.join("console.log"),
            state,
            initramfs: runtime.join("initramfs"),
            pid_file: runtime.join("vmm.pid"),
            tap: runtime.join("tap"),
            runtime,
        }
    }

    /// The names of all that is in the state directory. A log's older parts and the records' journals have more behind the name.
    pub fn of_state(&self) -> Vec<String> {
        names([self.state_lock(), self.database(), self.log(), self.logs(), self.scratch(), self.images(), self.vms()])
    }

    /// The names of all that is in the runtime directory.
    pub fn of_runtime(&self) -> Vec<String> {
        let sockets_and_locks = [self.socket(), self.new_socket(), self.lock(), self.new_lock()];
        let mut known = names(sockets_and_locks);
        known.extend(names([self.owner(), self.forwarding(), self.vms_runtime()]));
        known
    }

    /// By how many bytes the longest socket's path is over the kernel's limit; zero where it fits.
    pub fn socket_excess(&self) -> usize {
        let longest = self.vms_runtime().join("x".repeat(VM_ID)).join(LONGEST_VM_SOCKET);
        longest.as_os_str().len().saturating_sub(MAX_SOCKET_PATH)
    }
}

fn names<const N: usize>(paths: [PathBuf; N]) -> Vec<String> {
    paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

/// Where the agent's file may be, for a daemon whose own file is `daemon`: beside it, or where an installation puts it.
pub fn agent_candidates(daemon: &Path) -> Vec<PathBuf> {
    let bin = daemon.parent().unwrap_or(Path::new("/"));
    ["", "../lib/banger", "../libexec/banger"].iter().map(|place| bin.join(place).join("banger-agent")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_places_leave_room_for_sockets_and_deep_ones_do_not() {
        let mut paths = Paths::default();
        assert_eq!(paths.socket_excess(), 0);
        paths.runtime = PathBuf::from("/").join("d".repeat(100));
        assert!(paths.socket_excess() > 0);
        let socket = paths.vm(&"x".repeat(VM_ID)).runtime.join(LONGEST_VM_SOCKET);
        assert_eq!(socket.as_os_str().len(), MAX_SOCKET_PATH + paths.socket_excess());
    }
}
