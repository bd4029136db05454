//! The guest's first process: from a bare kernel to the distribution's init, with the agent beside it.
//!
//! The order is what makes it quick and safe: modules, disks, one fork; then the agent greets the daemon while the first
//! process writes down who the machine is and becomes its init. What fails here is said in one line on the console, and the
//! machine is powered off.

mod disks;
mod fill;
mod identity;
mod modules;
mod mounts;
mod network;
mod ssh;
mod units;
mod user;

use std::io::{self, PipeReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use banger_linux::fork::Side;
use banger_linux::process::{Launch, ProcessError, Program, Stream};
use banger_linux::uevent::Uevents;
use banger_protocol::boot::{Boot, PATH, User, serial};

pub use ssh::authorize;
pub use units::{STATE, SYSTEM_UP};

use disks::Growth;
use modules::Module;
use user::Outcome;

use crate::files::FilesError;
use crate::guest::Guest;
use crate::{init, serve};

/// How long the disks may take to appear. Far over what was ever seen: it ends a boot that would hang for ever.
const DISKS_APPEAR_WITHIN: Duration = Duration::from_secs(10);

/// Where the root disk is mounted before it becomes `/`.
const NEW_ROOT: &str = "/newroot";

/// Where a distribution keeps its init, by likelihood.
const INITS: [&str; 3] = ["/sbin/init", "/usr/lib/systemd/systemd", "/etc/init"];

/// Why the guest cannot come up.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A file system of the kernel's own could not be mounted.
    #[error("mount {kind} on {on}")]
    MountKernel {
        /// Its type.
        kind: &'static str,
        /// Where.
        on: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The boot file is missing or broken.
    #[error("read {PATH}")]
    ReadBoot(#[source] io::Error),
    /// A module does not load.
    #[error("load module {module}")]
    LoadModule {
        /// Its path in the initramfs.
        module: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's announcements cannot be heard.
    #[error("listen for devices")]
    Listen(#[source] io::Error),
    /// A disk did not appear.
    #[error("find a disk with the serial number {serial}: none appeared within {} s", DISKS_APPEAR_WITHIN.as_secs())]
    NoDisk {
        /// Its serial number.
        serial: &'static str,
    },
    /// A disk could not be mounted.
    #[error("mount the {serial} disk {device} as ext4 on {on}")]
    MountDisk {
        /// Its serial number.
        serial: &'static str,
        /// Its device file.
        device: String,
        /// Where.
        on: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image's `/root` could not be copied to the work disk.
    #[error("fill the work disk from the image's /root")]
    Fill(#[source] Box<FilesError>),
    /// A file could not be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is no key was to be let in.
    #[error("let an SSH key in: {flaw}")]
    SshKey {
        /// What is wrong.
        flaw: &'static str,
    },
    /// The kernel did not take the host name.
    #[error("set the host name {name}")]
    HostName {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The root disk could not become `/`.
    #[error("make the root disk the root")]
    SwitchRoot(#[source] io::Error),
    /// The agent's own process could not be made.
    #[error("fork the agent")]
    Fork(#[source] io::Error),
    /// The agent cannot serve.
    #[error("serve the channel")]
    Serve(#[source] io::Error),
    /// The distribution's init does not start.
    #[error("execute {init}")]
    Init {
        /// Its path.
        init: &'static str,
        /// Why.
        #[source]
        source: ProcessError,
    },
}

/// Brings the guest up and goes on as its init, or as the agent in the process forked from this one. Returns where that
/// fails; the machine can then only be powered off.
///
/// # Errors
/// Every [`BootError`].
pub fn first_process(protocol: u32) -> Result<(), BootError> {
    mounts::mount_first()?;
    let boot = read_boot()?;
    identity::set_clock(&boot.identity);
    identity::stir_in(&boot.identity.entropy);
    // Before the modules: what they find is announced.
    let devices = Uevents::open().map_err(BootError::Listen)?;
    let serials = [serial::ROOT, serial::WORK];
    let modules = modules::load(&boot.modules, || serials.iter().all(|serial| disks::is_there(serial)))?;
    let (network, modules) = match &boot.network {
        Some(wanted) => {
            let (driver, others) = modules::up_to(modules, network::DRIVER);
            let Some(begun) = network::begin(wanted, &driver).map_err(BootError::Fork)? else { return Ok(()) };
            (Some(begun), others)
        }
        None => (None, modules),
    };

    let deadline = Instant::now() + DISKS_APPEAR_WITHIN;
    let root = disks::find(&devices, serial::ROOT, deadline)?;
    let work = disks::find(&devices, serial::WORK, deadline)?;
    root.mount(Path::new(NEW_ROOT))?;
    let work_point = Path::new(NEW_ROOT).join("root");
    if boot.fill_work_disk {
        fill::mount_filled(&work, &work_point)?;
    } else {
        work.mount(&work_point)?;
    }
    mounts::switch_root(Path::new(NEW_ROOT)).map_err(BootError::SwitchRoot)?;
    let growing = [root.growth(Path::new("/")), work.growth(Path::new("/root"))].into_iter().flatten().collect();
    let has_init = INITS.iter().any(|path| Path::new(path).exists());
    // Before the agent serves: who asks it for a level at once watches this directory.
    let state = Path::new(STATE);
    mounts::make_directory(state).map_err(|source| BootError::Write { path: state.to_owned(), source })?;

    // The agent greets the daemon while this process goes on; the pipe tells it when commands may run. It is closed when
    // this process becomes the init.
    let (settled, settling) = io::pipe().map_err(BootError::Fork)?;
    match banger_linux::fork::fork().map_err(BootError::Fork)? {
        Side::Child => {
            drop(settling);
            serve::detach_from_console();
            let guest = Guest::real(protocol, has_init, Unsettled { settled, growing, modules });
            serve::serve_port(guest).map_err(BootError::Serve)
        }
        Side::Parent(agent) => {
            mounts::mount_later()?;
            identity::write(&boot.identity, Path::new("/"))?;
            let network = match network {
                Some(network) => network.finish(Path::new("/")).err(),
                None => network::set_up_loopback().err().map(|error| in_one_line(&error)),
            };
            let network = network.map(|error| format!("banger-agent: the network was not set up: {error}"));
            let steps = [network, ensure_user(boot.user.as_ref()), let_in(&boot)];
            let lines: Vec<String> = steps.into_iter().flatten().collect();
            if !lines.is_empty()
                && let Ok(Side::Child) = banger_linux::fork::fork()
            {
                // A console comes up late, and no init is to wait for it.
                drop(settling);
                lines.iter().for_each(|line| mounts::say_on_console(line));
                return Ok(());
            }
            units::write(agent, Path::new("/"))?;
            let Some(init) = INITS.into_iter().find(|path| Path::new(path).exists()) else {
                drop(settling);
                init::supervise(agent);
                return Ok(());
            };
            Err(BootError::Init { init, source: become_init(init) })
        }
    }
}

/// What is still under way when the agent begins to serve.
#[derive(Debug)]
pub struct Unsettled {
    /// Ends when the first process has written down who this machine is.
    settled: PipeReader,
    /// File systems that are smaller than their disks.
    growing: Vec<Growth>,
    /// Modules that are not needed to come up.
    modules: Vec<Module>,
}

impl Unsettled {
    /// Waits until commands may run, and says so; then does what no command waits for.
    pub fn settle(mut self, say: impl FnOnce()) {
        // Side by side: each waits for its disk most of the time.
        std::thread::scope(|scope| {
            for growth in &self.growing {
                scope.spawn(|| growth.apply_or_log());
            }
            // An error is an end, too.
            drop(self.settled.read(&mut [0]));
        });
        say();
        for module in &self.modules {
            module.load_or_log();
        }
    }
}

/// Gives the running machine another name.
///
/// # Errors
/// [`BootError::HostName`], [`BootError::Write`].
pub fn set_name(name: &str) -> Result<(), BootError> {
    identity::write_name(name, Path::new("/"))
}

/// Grows the work disk's file system, once the disk has so many bytes.
///
/// # Errors
/// Those of the kernel; [`io::ErrorKind::TimedOut`] where the disk does not become so large before `deadline`.
pub fn grow_work_disk(bytes: u64, deadline: Instant) -> io::Result<()> {
    disks::grow(serial::WORK, bytes, Path::new("/root"), deadline)
}

/// Says on the console why the guest cannot come up, in the one line that the daemon looks for.
pub fn report(error: &BootError) {
    mounts::say_on_console(&format!("banger-agent: cannot boot: {}", in_one_line(error)));
}

/// An error and all its causes.
pub fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        line.push_str(": ");
        line.push_str(&source.to_string());
        cause = source.source();
    }
    line.replace('\n', " ")
}

/// Powers the machine off at once. Returns only where this process may not.
pub fn power_off() {
    rustix::fs::sync();
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).ok();
}

/// Gives the guest its user. One without it still runs: the line that says what stood against it.
fn ensure_user(user: Option<&User>) -> Option<String> {
    let user = user?;
    match user::ensure(user, Path::new("/")) {
        Ok(Outcome::There) => None,
        Ok(Outcome::Left(why)) => Some(format!("banger-agent: {why}")),
        Err(error) => Some(format!("banger-agent: the user {} was not made: {}", user.name, in_one_line(&error))),
    }
}

/// Lets in those who have the keys. A guest without them still runs: the line that says what stood against it.
fn let_in(boot: &Boot) -> Option<String> {
    let user = boot.user.as_ref().map(|user| user.name.as_str());
    let failed = ssh::authorize(&boot.ssh_keys, user, Path::new("/")).err()?;
    Some(format!("banger-agent: nobody is let in by SSH keys of banger's: {}", in_one_line(&failed)))
}

fn read_boot() -> Result<Boot, BootError> {
    let text = std::fs::read(PATH).map_err(BootError::ReadBoot)?;
    serde_json::from_slice(&text).map_err(|error| BootError::ReadBoot(error.into()))
}

fn become_init(path: &'static str) -> ProcessError {
    let mut launch = Launch::new(Program::Command(path.into()), std::iter::empty::<&str>());
    // What the kernel itself gives an init.
    launch.env = vec![("HOME".into(), "/".into()), ("TERM".into(), "linux".into())];
    (launch.stdin, launch.stdout, launch.stderr) = (Stream::Inherit, Stream::Inherit, Stream::Inherit);
    banger_linux::process::Process::replace(launch)
}
