//! A user namespace for a program that is not trusted, with one directory of the host's to write in.
//!
//! What is root in there is nobody outside: its ids are mapped to some of the host's that no user has. It sees the host's
//! files as such a nobody, and may write only into the one directory, which is mounted with the mapping turned around
//! (mount_setattr(2), `MOUNT_ATTR_IDMAP`): a file that in there belongs to root does so on the disk, too.

use std::ffi::{CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::child::{assume, block_signals, set_signals};
use super::{Credentials, Leash, Process};

/// How many ids a container has: those that Debian gives to anything (policy 9.2.2), and nobody's.
pub const IDS: u32 = 65_536;

/// What the process that makes a namespace has for a stack. It makes three system calls.
const STACK: usize = 16 * 1024;

/// A user namespace and its directory, for one program to be started in ([`super::Launch::container`]).
///
/// The program begins as root of the namespace, in a mount namespace of its own; nobody outside sees the mount.
#[derive(Debug)]
pub struct Container {
    namespace: OwnedFd,
    tree: OwnedFd,
    at: CString,
}

/// Why there is no container.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The kernel makes no user namespace.
    #[error("cannot make a user namespace")]
    Namespace(#[source] io::Error),
    /// The file system cannot be mounted with other ids, or the kernel is older than 5.12.
    #[error("cannot mount {} with other ids", tree.display())]
    Mount {
        /// The directory.
        tree: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Container {
    /// A container whose ids from 0 on are [`IDS`] of the host's from `first` on. It sees `tree` at `at`, a directory that
    /// exists. Needs root.
    ///
    /// # Errors
    /// [`ContainerError`].
    pub fn new(first: u32, tree: &Path, at: &Path) -> Result<Container, ContainerError> {
        let namespace = user_namespace(first).map_err(ContainerError::Namespace)?;
        let unmounted = |source| ContainerError::Mount { tree: tree.to_owned(), source };
        let at = CString::new(at.as_os_str().as_bytes()).map_err(|error| unmounted(error.into()))?;
        let tree = mount(tree, &namespace).map_err(unmounted)?;
        Ok(Container { namespace, tree, at })
    }

    /// Takes the calling process, which has one thread, into it. Allocates nothing.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: no descriptor table is unshared, which is all that could surprise other threads.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)? };
        let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change(c"/", propagation)?;
        rustix::mount::move_mount(&self.tree, c"", CWD, &*self.at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        rustix::thread::move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::User))?;
        assume(&Credentials { uid: 0, gid: 0, groups: Vec::new() })
    }
}

/// A detached mount of a directory, with the ids of a namespace.
fn mount(tree: &Path, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, tree, flags)?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(namespace.as_raw_fd()).map_err(io::Error::other)?,
    };
    // SAFETY: reads a live structure of the size that it is told.
    let changed = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if changed < 0 { Err(io::Error::last_os_error()) } else { Ok(tree) }
}

/// A namespace begins with a process. Its ids can only be given by somebody outside; then the descriptor alone holds it.
fn user_namespace(first: u32) -> io::Result<OwnedFd> {
    let holder = holder()?;
    let Some(pid) = holder.process().map(Process::pid) else { return Err(io::ErrorKind::NotFound.into()) };
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {first} {IDS}\n"))?;
    }
    Ok(File::open(format!("/proc/{pid}/ns/user"))?.into())
}

/// A process in a new user namespace that does nothing until it is killed, with the leash or with the calling thread.
fn holder() -> io::Result<Leash> {
    extern "C" fn hold(parent: *mut c_void) -> c_int {
        // SAFETY: `holder` passes a pid, of which this process has a copy in its own memory.
        let parent = unsafe { *parent.cast::<Pid>() };
        let leashed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
        while leashed && rustix::process::getppid() == Some(parent) {
            // SAFETY: waits for a signal. All are blocked, so that none of the parent's handlers runs in here.
            unsafe { libc::pause() };
        }
        // SAFETY: ends this process alone, without the exit handlers that it has copies of.
        unsafe { libc::_exit(1) }
    }

    let mut stack = vec![MaybeUninit::<u128>::uninit(); STACK / size_of::<u128>()];
    let mut parent = rustix::process::getpid();
    let mut pidfd: RawFd = -1;
    let signals = block_signals()?;
    // SAFETY: the child has a copy of this memory, in which it runs on a stack of its own, of which this is the end. It takes
    // no lock and allocates nothing, so that it does not matter what other threads were doing.
    let pid = unsafe {
        libc::clone(
            hold,
            stack.as_mut_ptr_range().end.cast(),
            libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut parent).cast(),
            &raw mut pidfd,
        )
    };
    let made = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    set_signals(&signals)?;
    made?;
    // SAFETY: clone(2) has just made this descriptor for us.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(Leash::of(Process { pid, pidfd }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::{Launch, Program};
    use super::*;

    /// Ids that no user has, and no VMM.
    const FIRST: u32 = 1_900_000_000;

    /// Whether a script in a container succeeds; `None` where there can be no container.
    async fn succeeds(dir: &Path, script: &str) -> Option<bool> {
        if !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("not root, so there can be no container");
            return None;
        }
        let container = match Container::new(FIRST, dir, Path::new("/tmp")) {
            Ok(container) => container,
            Err(error) => {
                banger_skip::skipped!("{error}: {:?}", std::error::Error::source(&error));
                return None;
            }
        };
        let mut launch = Launch::new(Program::Command("/bin/sh".into()), ["-c", script]);
        launch.env = vec![("PATH".into(), "/usr/sbin:/usr/bin:/sbin:/bin".into())];
        launch.container = Some(container);
        launch.die_with_parent = true;
        Some(Leash::start(launch).unwrap().ended().await.unwrap().success())
    }

    #[tokio::test]
    async fn owners_are_on_the_disk_what_they_are_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = "test $(id -u) = 0 && echo x > /tmp/mine && echo x > /tmp/theirs && chown 5:7 /tmp/theirs && \
                      chmod 4755 /tmp/theirs";
        let Some(done) = succeeds(dir.path(), script).await else { return };
        assert!(done);
        let owner = |name| std::fs::metadata(dir.path().join(name)).map(|found| (found.uid(), found.gid())).unwrap();
        assert_eq!((owner("mine"), owner("theirs")), ((0, 0), (5, 7)));
        let mode = std::fs::metadata(dir.path().join("theirs")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o4755);
        // Its mount was seen by nobody else.
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.path().to_str().unwrap()));
    }

    #[tokio::test]
    async fn nothing_of_the_hosts_can_be_harmed() {
        let (dir, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
        std::fs::set_permissions(secrets.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let secret = secrets.path().join("secret");
        std::fs::write(&secret, "for root alone").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let victim = Leash::start(Launch::new(Program::Command("/bin/sleep".into()), ["60"])).unwrap();
        let pid = victim.process().unwrap().pid();
        let disk = std::fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().path()).find(|path| {
            use std::os::unix::fs::FileTypeExt;
            std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
        });
        let disk = disk.unwrap_or("/dev/none".into());
        let attacks = [
            format!("cat {}", secret.display()),
            format!("echo x >> {}", secret.display()),
            format!("rm -f {}", secret.display()),
            format!("chmod 666 {}", secret.display()),
            format!("touch {}/new", secrets.path().display()),
            format!("kill -9 {pid}"),
            format!("kill -0 {pid}"),
            format!("cat /proc/{pid}/environ"),
            format!("mkdir /tmp/m; mount {} /tmp/m", disk.display()),
            format!("head -c 1 {}", disk.display()),
            "mknod /tmp/disk b 8 0".to_owned(),
            "echo x > /proc/sys/kernel/hostname || hostname other".to_owned(),
            "umount /tmp".to_owned(),
            "mount -o remount,rw,bind / && touch /mnt/x".to_owned(),
        ];
        for attack in attacks {
            let Some(done) = succeeds(dir.path(), &attack).await else { return };
            assert!(!done, "{attack}");
        }
        assert_eq!(succeeds(dir.path(), "exit 0").await, Some(true), "the attacks failed for another reason");
        assert!(!victim.process().unwrap().has_ended());
        assert_eq!(std::fs::read(&secret).unwrap(), b"for root alone");
    }

    #[test]
    fn a_namespace_leaves_no_process() {
        if !rustix::process::geteuid().is_root() || user_namespace(FIRST).is_err() {
            banger_skip::skipped!("there can be no user namespace");
            return;
        }
        assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap(), "");
        // The last id is no id: what cannot be mapped is refused, and leaves no process either.
        assert!(user_namespace(u32::MAX - 5).is_err());
        assert_eq!(std::fs::read_to_string("/proc/thread-self/children").unwrap(), "");
    }

    #[test]
    fn a_file_system_without_mapped_mounts_is_told() {
        if !rustix::process::geteuid().is_root() || user_namespace(FIRST).is_err() {
            banger_skip::skipped!("there can be no user namespace");
            return;
        }
        let refused = Container::new(FIRST, Path::new("/proc"), Path::new("/tmp"));
        assert!(matches!(refused, Err(ContainerError::Mount { .. })));
    }
}
