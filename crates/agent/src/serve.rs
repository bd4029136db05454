//! The agent's sessions: each begins with a hello, and each stream of it is a call.
//!
//! Whatever comes over the connection, the agent ends up waiting for the next hello.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use banger_linux::edge::EdgeStream;
use banger_linux::uevent::Uevents;
use banger_protocol::boot::PORT;
use banger_protocol::hello::{self, HelloError};
use banger_protocol::session;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::task::LocalSet;

use crate::connection::{Observed, Traffic};
use crate::guest::{Guest, Kind};
use crate::{call, clock};

/// `O_NONBLOCK`: to open the port must not wait for its other end.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// What an unplugged port says.
const NODEV: i32 = rustix::io::Errno::NODEV.raw_os_error();

/// How much is read ahead of what is asked for: what the port gives at once, a page. More would only be moved once more.
const READ_AHEAD: usize = 4096;

/// Leaves the first process's session and console.
pub fn detach_from_console() {
    // None of these can fail in a process just forked; if one does, the agent has a console that it does not use.
    rustix::process::setsid().ok();
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        rustix::stdio::dup2_stdin(&null).ok();
        rustix::stdio::dup2_stdout(&null).ok();
        rustix::stdio::dup2_stderr(&null).ok();
    }
    rustix::thread::set_name(c"banger-agent").ok();
}

/// Serves the daemon's sessions on the virtio serial port until the guest is to be powered off by the first process.
///
/// # Errors
/// Where the event loop or the kernel's announcements fail.
pub fn serve_port(guest: Guest) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let guest = Rc::new(guest);
        let sessions = async {
            loop {
                let port = find_port().await?;
                serve_until_unplugged(&guest, port).await?;
            }
        };
        tokio::select! {
            failed = sessions => failed,
            () = guest.end.cancelled() => Ok(()),
        }
    })
}

/// Finds the port by its name and opens it, waiting for one that is not there yet.
async fn find_port() -> io::Result<OwnedFd> {
    let devices = Uevents::open()?;
    loop {
        if let Some(path) = look() {
            match OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(path) {
                Ok(port) => return Ok(port.into()),
                // It went, or an earlier one of the name goes just now: the next announcement says more.
                Err(_gone) => {}
            }
        }
        devices.announced("virtio-ports").await?;
    }
}

fn look() -> Option<PathBuf> {
    std::fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// Serves one session after the other on an open port, until the port is gone.
async fn serve_until_unplugged(guest: &Rc<Guest>, port: OwnedFd) -> io::Result<()> {
    // Kept over broken sessions: a hello may stand in it behind the rubbish of the session before.
    let mut stream = BufReader::with_capacity(READ_AHEAD, EdgeStream::new(port)?);
    loop {
        match serve_session(guest, &mut stream).await {
            Ok(()) | Err(HelloError::Malformed | HelloError::TooOld(_) | HelloError::Wrong(_)) => {}
            Err(HelloError::Io(error)) if error.raw_os_error() == Some(NODEV) => return Ok(()),
            // Nobody is at the other end.
            Err(HelloError::Io(_)) => stream.get_ref().changed().await?,
        }
    }
}

/// Waits for a hello, answers it, and serves calls until the session ends, for whatever reason.
///
/// # Errors
/// Where no session begins.
pub async fn serve_session<C>(guest: &Rc<Guest>, connection: &mut C) -> Result<(), HelloError>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let hello = hello::answer(connection, guest.protocol, env!("CARGO_PKG_VERSION"), &guest.boot_id).await?;
    // A hello may have waited in the port while the guest booted: its time is a lower bound. It wakes a guest that slept;
    // the daemon sets the clock to the instant once the session stands.
    if guest.protocol >= 2 && hello.unix_nanos > clock::now() && matches!(guest.kind, Kind::Real { .. }) {
        // A clock that cannot be set is no reason to leave the daemon without an agent.
        drop(clock::set(hello.unix_nanos));
    }
    let traffic = Rc::new(Traffic::default());
    let connection = Observed::new(connection, traffic.clone());
    session::accept(connection, |stream| {
        tokio::task::spawn_local(call::serve(guest.clone(), stream, traffic.clone()));
    })
    .await;
    Ok(())
}
