//! The agent on a host, for the fake VMM: the same sessions and calls, over a unix socket, with a directory as `/root`.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use banger_linux::accept::Acceptor;
use banger_protocol::boot::Boot;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, LocalSet};

use crate::boot::{self, BootError};
use crate::guest::Guest;
use crate::serve::serve_session;

/// What the fake guest is made of.
#[derive(Debug)]
pub struct Options {
    /// The socket that sessions come over; `-` is one that listens already, as standard input.
    pub listen: PathBuf,
    /// The directory that plays `/root`.
    pub root: PathBuf,
    /// The file that a real guest finds in its initramfs.
    pub boot: PathBuf,
    /// The protocol to speak.
    pub protocol: u32,
}

/// Why there is no fake guest.
#[derive(Debug, thiserror::Error)]
pub enum FakeError {
    /// The boot file is missing or broken.
    #[error("read {}", path.display())]
    ReadBoot {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be made.
    #[error("make {}", path.display())]
    MakeRoot {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be listened on.
    #[error("listen on {}", path.display())]
    Listen {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its keys cannot be written.
    #[error(transparent)]
    Ssh(BootError),
    /// The event loop does not start.
    #[error("start the event loop")]
    Runtime(#[source] io::Error),
}

/// Plays a guest until it is powered off.
///
/// # Errors
/// Every [`FakeError`].
pub fn run(options: &Options) -> Result<(), FakeError> {
    let boot = read_boot(&options.boot)?;
    fs::create_dir_all(&options.root).map_err(|source| FakeError::MakeRoot { path: options.root.clone(), source })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FakeError::Runtime)?;
    LocalSet::new().block_on(&runtime, serve(options, &boot))
}

async fn serve(options: &Options, boot: &Boot) -> Result<(), FakeError> {
    let failed = |source| FakeError::Listen { path: options.listen.clone(), source };
    let listener = listen(&options.listen).map_err(failed)?;
    let root = fs::canonicalize(&options.root).map_err(failed)?;
    let guest = Rc::new(Guest::fake(options.protocol, boot_id(), root));
    let user = boot.user.as_ref().map(|user| user.name.as_str());
    boot::authorize(&boot.ssh_keys, user, &guest.system_root()).map_err(FakeError::Ssh)?;
    let mut session: Option<JoinHandle<()>> = None;
    let mut daemons = Acceptor::new(listener);
    let short = |error: &io::Error| eprintln!("banger-agent: no daemon can be accepted for now: {error}");
    loop {
        let connection = tokio::select! {
            connection = daemons.next(short) => connection,
            () = guest.end.cancelled() => return Ok(()),
        };
        // A new connection is a fresh port: what was on the old one is over.
        if let Some(old) = session.take() {
            old.abort();
        }
        session = Some(tokio::task::spawn_local(serve_connection(guest.clone(), connection)));
    }
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if path == Path::new("-") {
        let listener = std::os::unix::net::UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener);
    }
    // A guest that was killed has left its socket.
    drop(fs::remove_file(path));
    UnixListener::bind(path)
}

async fn serve_connection(guest: Rc<Guest>, connection: UnixStream) {
    let mut connection = BufReader::new(connection);
    while serve_session(&guest, &mut connection).await.is_ok() {}
}

fn read_boot(path: &Path) -> Result<Boot, FakeError> {
    let read = || -> io::Result<Boot> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().map_err(|source| FakeError::ReadBoot { path: path.to_owned(), source })
}

/// The kernel makes one anew at every look.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default().trim().to_owned()
}
