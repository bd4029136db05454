//! The guest's console: what it writes to its serial port, kept in a bounded log.
//!
//! The console is the ISA serial port. Beside the virtio console it costs no time that can be measured as long as the
//! kernel is `quiet` (medians within 0.05 s of each other over 1.4 s), and it shows what happens before a module is loaded:
//! a kernel that panics over its initramfs says so here, and would be silent on `hvc0`.
//!
//! **Bytes that may be lost.** QEMU hands the console's bytes to whoever is connected to its socket, and drops them while
//! nobody is: from the death of one daemon to the adoption by the next. When the socket's buffer is full because the daemon
//! does not read, QEMU tries each byte a few times, then drops it. A daemon that runs loses nothing, not the last
//! words of a guest either: they are in the socket when QEMU ends. What is logged is bounded, too: see [`Log`].

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{broadcast, mpsc};

use crate::vmm::{Attached, BACKLOG, Ends};

/// How long one part of the log becomes, in bytes.
const MAX_PART: u64 = 1024 * 1024;

/// What the kernel's command line needs, so that the console is this one.
pub fn console_argument() -> &'static str {
    // The kernel has drivers for four such ports and would look for three that are not there.
    "console=ttyS0 8250.nr_uarts=1"
}

/// The whole log, older part first; empty where there is none.
///
/// # Errors
/// Those of reading the files.
pub async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for part in [older(path), path.to_owned()] {
        match tokio::fs::read(part).await {
            Ok(bytes) => text.extend(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// A log of at most 1 MiB and one older part of 1 MiB, readable by its owner only.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    /// Begins a log anew.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn create(path: &Path) -> io::Result<Log> {
        match tokio::fs::remove_file(older(path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Log { path: path.to_owned(), file: options().truncate(true).open(path).await?, length: 0 })
    }

    /// Goes on with a log.
    ///
    /// # Errors
    /// Those of the file system.
    pub async fn append(path: &Path) -> io::Result<Log> {
        let file = options().append(true).open(path).await?;
        let length = file.metadata().await?.len();
        Ok(Log { path: path.to_owned(), file, length })
    }

    /// Writes down all that comes and hands it to those who read along, until the stream ends; passes on what is typed.
    ///
    /// # Errors
    /// Those of the stream or of the file system.
    pub async fn follow(mut self, console: UnixStream, ends: Ends) -> io::Result<()> {
        let (mut console, keyboard) = console.into_split();
        let Ends { mut readers, typed } = ends;
        let typing = tokio::spawn(pass_on(typed, keyboard));
        let (says, _) = broadcast::channel(BACKLOG);
        let mut buffer = vec![0; 16 * 1024];
        let ended = loop {
            tokio::select! {
                read = console.read(&mut buffer) => match read {
                    Ok(0) => break Ok(()),
                    Ok(count) => {
                        if let Err(error) = self.write(&buffer[..count]).await {
                            break Err(error);
                        }
                        // Mostly nobody reads along.
                        if says.receiver_count() > 0 {
                            drop(says.send(Bytes::copy_from_slice(&buffer[..count])));
                        }
                    }
                    // QEMU ended with something unread on its side.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                    Err(error) => break Err(error),
                },
                Some(reader) = readers.recv() => {
                    let before = read(&self.path).await.unwrap_or_default();
                    // Who gave up waiting reads nothing.
                    drop(reader.send(Attached { before, says: says.subscribe() }));
                }
            }
        };
        typing.abort();
        ended
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.length + bytes.len() as u64 > MAX_PART {
            tokio::fs::rename(&self.path, older(&self.path)).await?;
            self.file = options().truncate(true).open(&self.path).await?;
            self.length = 0;
        }
        self.file.write_all(bytes).await?;
        // A panic's last line is read as soon as the process has ended.
        self.file.flush().await?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Types what comes. A guest that takes nothing holds up who types, and nobody else.
async fn pass_on(mut typed: mpsc::Receiver<Bytes>, mut keyboard: OwnedWriteHalf) {
    while let Some(keys) = typed.recv().await {
        if keyboard.write_all(&keys).await.is_err() {
            return;
        }
    }
    // The write half goes, and QEMU would take that for a client that has left.
    std::future::pending::<()>().await;
}

fn older(path: &Path) -> PathBuf {
    let mut older = path.as_os_str().to_owned();
    older.push(".old");
    older.into()
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::Console;
    use std::os::unix::fs::PermissionsExt;

    async fn log(mut log: Log, chunk: &[u8], times: usize) {
        for _ in 0..times {
            log.write(chunk).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_talkative_guest_fills_two_parts_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        log(Log::create(&path).await.unwrap(), &[b'x'; 10_000], 1000).await;
        let size = read(&path).await.unwrap().len() as u64;
        assert!(size > MAX_PART && size <= 2 * MAX_PART, "{size}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_adopted_log_goes_on_and_a_new_boot_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        log(Log::create(&path).await.unwrap(), b"one ", 1).await;
        log(Log::append(&path).await.unwrap(), b"two", 1).await;
        assert_eq!(read(&path).await.unwrap(), b"one two");
        std::fs::write(older(&path), b"zero ").unwrap();
        assert_eq!(read(&path).await.unwrap(), b"zero one two");
        drop(Log::create(&path).await.unwrap());
        assert_eq!(read(&path).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn what_comes_over_the_socket_is_in_the_log_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (near, mut far) = UnixStream::pair().unwrap();
        let (_console, ends) = Console::new();
        let following = tokio::spawn(Log::create(&path).await.unwrap().follow(near, ends));
        far.write_all(b"Kernel panic - not syncing").await.unwrap();
        drop(far);
        following.await.unwrap().unwrap();
        assert_eq!(read(&path).await.unwrap(), b"Kernel panic - not syncing");
    }

    #[tokio::test]
    async fn who_reads_along_gets_the_log_and_all_that_follows_and_can_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (near, mut far) = UnixStream::pair().unwrap();
        let (console, ends) = Console::new();
        let following = tokio::spawn(Log::create(&path).await.unwrap().follow(near, ends));
        far.write_all(b"login: ").await.unwrap();
        let mut seen = Vec::new();
        let mut attached = console.attach().await.unwrap();
        seen.append(&mut attached.before);
        while seen.len() < 7 {
            seen.extend(attached.says.recv().await.unwrap());
        }
        assert!(console.types(Bytes::from_static(b"root\n")).await);
        let mut typed = [0; 5];
        far.read_exact(&mut typed).await.unwrap();
        assert_eq!((&typed, seen.as_slice()), (b"root\n", b"login: ".as_slice()));
        far.write_all(b"# ").await.unwrap();
        assert_eq!(attached.says.recv().await.unwrap(), b"# ".as_slice());
        drop(far);
        assert!(attached.says.recv().await.is_err());
        following.await.unwrap().unwrap();
        assert!(console.attach().await.is_none());
    }
}
