//! A bounded queue of lines, and the thread that writes them. Whoever logs never waits for a file system or a terminal.

use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use super::lossy::{Lossy, Wording};

/// How many bytes may wait. The thread has as many again in its hands.
const MAX_BYTES: usize = 1024 * 1024;

/// How many lines may wait.
const MAX_LINES: u64 = 8192;

/// A handle on a queue. Cheap to clone. What is written to it is one or more whole lines.
#[derive(Debug, Clone)]
pub struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There are lines.
    some: Condvar,
    /// There are none, and none is being written.
    none: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    text: Vec<u8>,
    lines: u64,
    /// How many lines found no room. They came after those in `text`.
    lost: u64,
    is_writing: bool,
}

impl Lines {
    /// Starts a thread that writes to `inner`. It calls `failed` with the first error of each episode of errors, and ends with
    /// the process.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(
        name: &str,
        inner: impl io::Write + Send + 'static,
        notice: fn(u64) -> String,
        failed: impl FnMut(&io::Error) + Send + 'static,
    ) -> io::Result<Lines> {
        let shared = Arc::new(Shared::default());
        let lines = Lines(Arc::clone(&shared));
        let out = Lossy::new(inner, Wording { count, notice });
        thread::Builder::new().name(name.to_owned()).spawn(move || shared.write_all_to(out, failed))?;
        Ok(lines)
    }

    /// Waits until everything is written or dropped, but not longer than until then.
    pub fn flush(&self, deadline: Instant) {
        let mut queue = self.0.lock();
        while !queue.is_empty() || queue.is_writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.0.none.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl io::Write for Lines {
    /// Never waits and never fails: lines that find no room are counted.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.lock();
        let more = count(text);
        if queue.text.len() + text.len() > MAX_BYTES || queue.lines + more > MAX_LINES {
            queue.lost += more;
        } else {
            queue.text.extend(text);
            queue.lines += more;
        }
        self.0.some.notify_one();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.lost == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for lines. Exchanges them for the empty `text`, and returns how many were lost after them.
    fn take(&self, text: &mut Vec<u8>) -> u64 {
        let mut queue = self.lock();
        queue.is_writing = false;
        while queue.is_empty() {
            self.none.notify_all();
            queue = self.some.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_writing = true;
        queue.lines = 0;
        mem::swap(&mut queue.text, text);
        mem::take(&mut queue.lost)
    }

    fn write_all_to(&self, mut out: Lossy<impl io::Write>, mut failed: impl FnMut(&io::Error)) {
        let mut text = Vec::new();
        let mut is_failing = false;
        loop {
            let lost = self.take(&mut text);
            let mut result = out.write(&text);
            out.lose(lost);
            if result.is_ok() {
                result = out.tell();
            }
            if let Err(error) = &result
                && !is_failing
            {
                failed(error);
            }
            is_failing = result.is_err();
            text.clear();
        }
    }
}

fn count(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File, OpenOptions};
    use std::io::{BufRead, BufReader, Read, Write};
    use std::sync::mpsc;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn notice(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    fn line(number: usize) -> String {
        format!("{number:099}\n")
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_up_nobody_and_learns_how_many_lines_it_missed() {
        let (reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::start("test", writer, notice, |error| panic!("{error}")).unwrap();
        let sent = 50_000;
        let began = Instant::now();
        for number in 0..sent {
            lines.write_all(line(number).as_bytes()).unwrap();
        }
        lines.flush(Instant::now() + Duration::from_millis(100));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        {
            let queue = lines.0.lock();
            assert!(queue.text.len() <= MAX_BYTES && queue.lines <= MAX_LINES, "{} {}", queue.text.len(), queue.lines);
            assert!(queue.lost > 0);
        }
        let mut reader = BufReader::new(reader);
        let (mut read, mut lost, mut last) = (0, 0, None);
        while read + lost < sent {
            let mut text = String::new();
            reader.read_line(&mut text).unwrap();
            match text.trim_end().strip_suffix(" lost") {
                Some(count) => lost += count.parse::<usize>().unwrap(),
                None => {
                    let number: usize = text.trim_end().parse().unwrap();
                    assert!(last < Some(number), "{last:?} {number}");
                    (read, last) = (read + 1, Some(number));
                }
            }
        }
        assert_eq!(read + lost, sent);
        // Those in the pipe, in the thread's hands and in the queue are there.
        assert!((MAX_LINES as usize..3 * MAX_LINES as usize).contains(&read), "{read}");
        lines.write_all(b"next\n").unwrap();
        let mut text = String::new();
        reader.read_line(&mut text).unwrap();
        assert_eq!(text, "next\n");
    }

    #[test]
    fn a_file_that_cannot_even_be_opened_in_time_holds_up_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let file = super::super::rotated::Rotated::new(path.clone(), dir.path().join("log.1"), 1 << 20);
        let mut lines = Lines::start("test", file, notice, |error| panic!("{error}")).unwrap();
        let began = Instant::now();
        lines.write_all(b"one\n").unwrap();
        lines.flush(Instant::now() + Duration::from_millis(50));
        lines.write_all(b"two\n").unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let mut text = [0; 8];
        File::open(&path).unwrap().read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }

    #[test]
    fn a_full_disk_is_told_once_and_the_thread_goes_on() {
        let (tell, told) = mpsc::channel();
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let failed = move |error: &io::Error| tell.send(error.kind()).unwrap();
        let mut lines = Lines::start("test", full, notice, failed).unwrap();
        for number in 0..100 {
            lines.write_all(line(number).as_bytes()).unwrap();
            lines.flush(Instant::now() + PATIENCE);
        }
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), io::ErrorKind::StorageFull);
        assert!(told.try_recv().is_err());
        assert!(lines.0.lock().is_empty());
    }

    #[test]
    fn once_it_can_be_written_again_the_count_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // In the file's place.
        fs::create_dir(&path).unwrap();
        let file = super::super::rotated::Rotated::new(path.clone(), dir.path().join("log.1"), 1 << 20);
        let (tell, told) = mpsc::channel();
        let mut lines = Lines::start("test", file, notice, move |_| tell.send(()).unwrap()).unwrap();
        for round in ["one\ntwo\n", "three\n"] {
            lines.write_all(round.as_bytes()).unwrap();
            lines.flush(Instant::now() + PATIENCE);
        }
        fs::remove_dir(&path).unwrap();
        lines.write_all(b"four\n").unwrap();
        lines.flush(Instant::now() + PATIENCE);
        assert_eq!(fs::read_to_string(&path).unwrap(), "3 lost\nfour\n");
        assert_eq!(told.try_iter().count(), 1);
    }

    #[test]
    fn what_was_logged_before_the_end_is_written_by_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = super::super::rotated::Rotated::new(path.clone(), dir.path().join("log.1"), 90 * 1024);
        let mut lines = Lines::start("test", file, notice, |error| panic!("{error}")).unwrap();
        for number in 0..1000 {
            lines.write_all(line(number).as_bytes()).unwrap();
        }
        lines.flush(Instant::now() + PATIENCE);
        let older = fs::read_to_string(dir.path().join("log.1")).unwrap_or_default();
        let text = older + &fs::read_to_string(&path).unwrap();
        assert_eq!(text, (0..1000).map(line).collect::<String>());
    }
}
