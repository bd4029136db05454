//! The guest's console: what it writes to its serial port, kept in a bounded log.
//!
//! The console is the ISA serial port. Beside the virtio console it costs no time that can be measured as long as the
//! kernel is `quiet` (medians within 0.05 s of each other over 1.4 s), and it shows what happens before a module is loaded:
//! a kernel that panics over its initramfs says so here, and would be silent on `hvc0`.
//!
//! **Bytes that may be lost.** QEMU hands the console's bytes to whoever is connected to its socket, and drops them while
//! nobody is: from the death of one daemon to the adoption by the next. While the socket's buffer is full because the daemon
//! does not read, QEMU lets the guest's port wait and drops nothing. A daemon that runs loses nothing, not the last
//! words of a guest either: they are in the socket when QEMU ends. What is logged is bounded, too: see `log.rs`. What the
//! file system does not take is counted there, and still reaches who reads along.
//!
//! **Gathering.** QEMU writes each byte by itself. While bytes come fast, they are read a thousand times a second at most, and
//! written to the file a hundred times a second. A first byte, as the echo of a key, is read at once.

mod keeper;
mod log;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};

use self::keeper::Keeper;
use crate::vmm::{Attached, BACKLOG, Ends};

pub use self::log::Log;

/// How long bytes may come together before the next read. The socket takes fewer than 300 single bytes, and a guest in
/// emulation writes up to 83 of them in a millisecond: a longer pause would slow it down.
const PAUSE: Duration = Duration::from_millis(1);

/// Reads that follow each other faster than this are worth the pause.
const FAST: Duration = Duration::from_millis(10);

/// Reads of so many bytes cost little for each byte.
const LONG: usize = 1024;

/// How long a reader waits at most for the output before it to be in the file.
const SETTLING: Duration = Duration::from_secs(1);

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

/// Writes the output of a VM's console to its log and hands it to those who read along, until the stream ends; passes on
/// what is typed. The log is complete when `ends` is dropped.
///
/// # Errors
/// Those of the stream.
pub async fn follow(vm: &str, console: UnixStream, log: Log, ends: Ends) -> io::Result<()> {
    let path = log.path().to_owned();
    let mut keeper = Keeper::new(vm, log);
    let (mut console, keyboard) = console.into_split();
    let Ends { mut readers, typed } = ends;
    let typing = tokio::spawn(pass_on(typed, keyboard));
    let (says, _) = broadcast::channel(BACKLOG);
    let mut buffer = vec![0; 16 * 1024];
    let (mut last, mut pause) = (None, None);
    let ended = loop {
        tokio::select! {
            read = console.read(&mut buffer), if pause.is_none() => match read {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    let output = &buffer[..count];
                    keeper.take(output);
                    // Mostly nobody reads along.
                    if says.receiver_count() > 0 {
                        drop(says.send(Bytes::copy_from_slice(output)));
                    }
                    let now = Instant::now();
                    let is_fast = last.is_some_and(|last| now < last + FAST);
                    pause = (is_fast && count < LONG).then_some(now + PAUSE);
                    last = Some(now);
                }
                // QEMU ended with something unread on its side.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Ok(()),
                Err(error) => break Err(error),
            },
            () = until(pause) => pause = None,
            () = keeper.work() => {}
            Some(reader) = readers.recv() => {
                let settled = async {
                    keeper.settle().await;
                    read(&path).await.unwrap_or_default()
                };
                let mut before = tokio::time::timeout(SETTLING, settled).await.unwrap_or_default();
                before.extend(keeper.gathered());
                // Who gave up waiting reads nothing.
                drop(reader.send(Attached { before, says: says.subscribe() }));
            }
        }
    };
    typing.abort();
    drop(says);
    keeper.finish().await;
    ended
}

/// Waits until then; without end where there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::Console;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;
    use tokio::task::JoinHandle;

    const PATIENCE: Duration = Duration::from_secs(20);
    const PART: usize = 1024 * 1024;

    /// A console whose log is at `path`, and the VMM's end of it.
    async fn followed(path: &Path) -> (UnixStream, Console, JoinHandle<io::Result<()>>) {
        let (near, far) = UnixStream::pair().unwrap();
        let (console, ends) = Console::new();
        let log = Log::append(path).await.unwrap();
        (far, console, tokio::spawn(async move { follow("vm", near, log, ends).await }))
    }

    async fn says(attached: &mut Attached, count: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.extend(tokio::time::timeout(PATIENCE, attached.says.recv()).await.unwrap().unwrap());
        }
        seen
    }

    #[tokio::test]
    async fn a_talkative_guest_fills_two_parts_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = Log::create(&path).await.unwrap();
        for _ in 0..1000 {
            log.write(&[b'x'; 10_000]).unwrap();
        }
        let size = read(&path).await.unwrap().len();
        assert!(size > PART && size <= 2 * PART, "{size}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn an_adopted_log_goes_on_and_a_new_boot_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        Log::create(&path).await.unwrap().write(b"one ").unwrap();
        Log::append(&path).await.unwrap().write(b"two").unwrap();
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
        let (mut far, console, following) = followed(&path).await;
        far.write_all(b"Kernel panic").await.unwrap();
        far.write_all(b" - not syncing").await.unwrap();
        drop(far);
        console.ended().await;
        assert_eq!(read(&path).await.unwrap(), b"Kernel panic - not syncing");
        following.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_reads_along_gets_the_log_and_all_that_follows_and_can_type() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (mut far, console, following) = followed(&path).await;
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

    #[tokio::test]
    async fn who_reads_along_gets_all_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        std::fs::write(&path, vec![b'x'; PART]).unwrap();
        // It is in the way when the log is put aside.
        std::fs::create_dir(older(&path)).unwrap();
        let (mut far, console, following) = followed(&path).await;
        let mut attached = console.attach().await.unwrap();
        for _ in 0..10 {
            far.write_all(&[b'y'; 1000]).await.unwrap();
            assert_eq!(says(&mut attached, 1000).await, [b'y'; 1000]);
        }
        drop(far);
        following.await.unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; PART]);
    }

    #[tokio::test]
    async fn output_that_cannot_be_written_is_counted_and_told_once_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (mut far, console, following) = followed(&path).await;
        // It is in the way when the log is put aside.
        std::fs::create_dir(older(&path)).unwrap();
        let mut attached = console.attach().await.unwrap();
        let mut send = async |text: &[u8]| {
            far.write_all(text).await.unwrap();
            assert_eq!(says(&mut attached, text.len()).await, text);
            // All that came before it is written or dropped.
            attached = console.attach().await.unwrap();
        };
        for _ in 0..128 {
            send(&[b'x'; PART / 128]).await;
        }
        send(b"lost").await;
        send(b" twice").await;
        assert_eq!(std::fs::read(&path).unwrap().len(), PART);
        std::fs::remove_dir(older(&path)).unwrap();
        send(b"kept").await;
        let notice = "\n[banger: 10 bytes of console output could not be written]\nkept";
        assert_eq!(String::from_utf8(std::fs::read(&path).unwrap()).unwrap(), notice);
        assert_eq!(std::fs::read(older(&path)).unwrap().len(), PART);
        drop(far);
        following.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_file_system_that_takes_nothing_stops_no_guest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let open = std::thread::spawn({
            let path = path.clone();
            move || std::fs::File::open(path).unwrap()
        });
        let (mut far, _console, following) = followed(&path).await;
        let mut reader = open.join().unwrap();
        let sent = 2 * PART;
        tokio::time::timeout(PATIENCE, far.write_all(&vec![b'x'; sent])).await.unwrap().unwrap();
        drop(far);
        let mut text = String::new();
        let mut read_all = tokio::task::spawn_blocking(move || reader.read_to_string(&mut text).map(|_| text));
        let text = tokio::time::timeout(PATIENCE, &mut read_all).await.unwrap().unwrap().unwrap();
        following.await.unwrap().unwrap();
        // What was still in the socket comes after the notice.
        let kept = text.matches('x').count();
        let counts = text.lines().filter_map(|line| line.strip_prefix("[banger: "));
        let lost = counts.map(|count| count.split_once(" bytes").unwrap().0.parse::<usize>().unwrap()).sum::<usize>();
        assert!(lost > PART, "{lost}");
        assert_eq!(kept + lost, sent);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_single_bytes_costs_a_read_each_millisecond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (far, console, following) = followed(&path).await;
        let mut attached = console.attach().await.unwrap();
        let far = far.into_std().unwrap();
        far.set_nonblocking(false).unwrap();
        let (began, sent) = (Instant::now(), 20_000);
        // As fast as a guest in emulation.
        let flood = tokio::task::spawn_blocking(move || {
            for number in 0..sent {
                while began.elapsed() < Duration::from_micros(12) * number {
                    std::hint::spin_loop();
                }
                io::Write::write_all(&mut &far, b"x").unwrap();
            }
        });
        let (mut reads, mut bytes) = (0, 0);
        while bytes < sent as usize {
            bytes += says(&mut attached, 1).await.len();
            reads += 1;
        }
        let took = began.elapsed();
        flood.await.unwrap();
        following.await.unwrap().unwrap();
        assert!(reads <= took.as_millis() + 10, "{reads} reads in {took:?}");
        assert_eq!(read(&path).await.unwrap().len(), sent as usize);
    }

    #[tokio::test]
    async fn the_echo_of_a_key_comes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let (mut far, console, _following) = followed(&path).await;
        let mut attached = console.attach().await.unwrap();
        let began = Instant::now();
        for _ in 0..100 {
            assert!(console.types(Bytes::from_static(b"k")).await);
            let mut key = [0];
            far.read_exact(&mut key).await.unwrap();
            far.write_all(&key).await.unwrap();
            assert_eq!(says(&mut attached, 1).await, b"k");
        }
        // Typed faster than anybody can; gathered for 10 ms each, it would be a second.
        assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    }
}
