//! What the calls know of the guest that they run in.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use banger_linux::process::Process;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::boot::Unsettled;
use crate::detached::Detached;
use crate::users::User;

/// The guest.
#[derive(Debug)]
pub struct Guest {
    /// The protocol that this agent speaks.
    pub protocol: u32,
    /// Changes with every boot and with nothing else.
    pub boot_id: String,
    /// What plays the guest, if this is none.
    pub kind: Kind,
    /// The detached commands.
    pub detached: Detached,
    /// The shell on the console, if one was asked for.
    pub console_shell: RefCell<Option<Process>>,
    /// Cancelled when this process is to end: its guest is off.
    pub end: CancellationToken,
    /// Whether commands may run: file systems have their full size, and the machine knows who it is.
    settled: watch::Receiver<bool>,
}

/// A guest, or what stands in for one.
#[derive(Debug)]
pub enum Kind {
    /// A real one.
    Real {
        /// Whether its image has an init.
        has_init: bool,
    },
    /// A directory of a host plays the guest's `/root`.
    Fake {
        /// The directory.
        home: PathBuf,
    },
}

/// Where a guest keeps its detached commands.
const COMMANDS: &str = "/var/lib/banger-agent/commands";

impl Guest {
    /// The guest that this process runs in. What is unsettled is settled beside whatever comes next.
    pub fn real(protocol: u32, has_init: bool, unsettled: Unsettled) -> Guest {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let kind = Kind::Real { has_init };
        let detached = Detached::new(COMMANDS.into());
        let (say, settled) = watch::channel(false);
        std::thread::spawn(move || {
            unsettled.settle(|| {
                say.send_replace(true);
            });
        });
        let boot_id = boot_id.trim().to_owned();
        let (console_shell, end) = (RefCell::default(), CancellationToken::new());
        Guest { protocol, boot_id, kind, detached, console_shell, end, settled }
    }

    /// A directory that plays one. Each start of it is a boot.
    pub fn fake(protocol: u32, boot_id: String, home: PathBuf) -> Guest {
        let detached = Detached::new(home.join(".banger/commands"));
        Guest {
            protocol,
            boot_id,
            kind: Kind::Fake { home },
            detached,
            console_shell: RefCell::default(),
            end: CancellationToken::new(),
            settled: watch::channel(true).1,
        }
    }

    /// Waits until commands may run: none sees a file system that is too small, or a name that is not its own.
    pub async fn settled(&self) {
        // An error means that the thread has ended: there is nothing more to wait for.
        drop(self.settled.clone().wait_for(|&settled| settled).await);
    }

    /// Whether this is none.
    pub fn is_fake(&self) -> bool {
        matches!(self.kind, Kind::Fake { .. })
    }

    /// Where a user's commands run unless they say otherwise, and their `HOME`.
    pub fn home(&self, user: &User) -> PathBuf {
        match &self.kind {
            Kind::Fake { home } if user.uid == rustix::process::getuid().as_raw() => home.clone(),
            Kind::Fake { .. } | Kind::Real { .. } => user.home.clone(),
        }
    }

    /// Below which the files of the system are: for a host, a place where it does not look for them.
    pub fn system_root(&self) -> PathBuf {
        match &self.kind {
            Kind::Fake { home } => home.join(".banger"),
            Kind::Real { .. } => "/".into(),
        }
    }

    /// What a path in a call means: relative ones begin at root's home.
    pub fn path(&self, path: &str) -> PathBuf {
        match &self.kind {
            Kind::Fake { home } => home.join(path),
            Kind::Real { .. } => Path::new("/root").join(path),
        }
    }
}
