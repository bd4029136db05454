//! A writer that goes on after errors: it drops what it cannot write, counts it, and writes the count once it can write again.

use std::io::{self, Write};

/// Writes what can be written, and counts the rest.
#[derive(Debug)]
pub struct Lossy<W> {
    inner: W,
    wording: Wording,
    /// What was dropped since the last notice.
    lost: u64,
    /// The rest of a notice that was written in part. It comes before everything else.
    owed: Vec<u8>,
    is_line_begun: bool,
}

/// What is counted, and how it is told.
#[derive(Debug, Clone, Copy)]
pub struct Wording {
    /// How many units some bytes count as.
    pub count: fn(&[u8]) -> u64,
    /// The line that tells a count, with its end.
    pub notice: fn(u64) -> String,
}

impl<W: Write> Lossy<W> {
    /// A writer to `inner` that has lost nothing yet.
    pub fn new(inner: W, wording: Wording) -> Lossy<W> {
        Lossy { inner, wording, lost: 0, owed: Vec::new(), is_line_begun: false }
    }

    /// Writes the count of what was lost before, if there is any, then all of `bytes`.
    ///
    /// # Errors
    /// Why something of it was dropped. It is counted, and not to be written again.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.tell() {
            self.lose((self.wording.count)(bytes));
            return Err(error);
        }
        let (written, result) = self.put(bytes);
        self.lose((self.wording.count)(&bytes[written..]));
        result
    }

    /// Counts what the caller dropped.
    pub fn lose(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
    }

    /// Writes the count of what was lost, if there is any.
    ///
    /// # Errors
    /// Those of the writer. The count is told later.
    pub fn tell(&mut self) -> io::Result<()> {
        self.pay()?;
        if self.lost == 0 {
            return Ok(());
        }
        let notice = (self.wording.notice)(self.lost).into_bytes();
        self.owed = if self.is_line_begun { [b"\n", notice.as_slice()].concat() } else { notice };
        let whole = self.owed.len();
        let paid = self.pay();
        if self.owed.len() == whole {
            // More may be lost until it can be told.
            self.owed.clear();
        } else {
            self.lost = 0;
        }
        paid
    }

    fn pay(&mut self) -> io::Result<()> {
        let owed = std::mem::take(&mut self.owed);
        let (written, result) = self.put(&owed);
        self.owed = owed;
        self.owed.drain(..written);
        result
    }

    /// Writes: how many bytes were written, and why not all.
    fn put(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let mut result = Ok(());
        while written < bytes.len() && result.is_ok() {
            match self.inner.write(&bytes[written..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        if let Some(last) = bytes[..written].last() {
            self.is_line_begun = *last != b'\n';
        }
        (written, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room.
    struct Small {
        text: Vec<u8>,
        room: usize,
    }

    impl Write for Small {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.text.extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn bytes(room: usize) -> Lossy<Small> {
        let count = |bytes: &[u8]| bytes.len() as u64;
        let wording = Wording { count, notice: |count| format!("[{count} lost]\n") };
        Lossy::new(Small { text: Vec::new(), room }, wording)
    }

    fn lines(room: usize) -> Lossy<Small> {
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let wording = Wording { count, notice: |count| format!("{count} lines lost\n") };
        Lossy::new(Small { text: Vec::new(), room }, wording)
    }

    fn text(lossy: &Lossy<Small>) -> &str {
        std::str::from_utf8(&lossy.inner.text).unwrap()
    }

    #[test]
    fn what_does_not_fit_is_counted_to_the_byte_and_told_before_what_follows() {
        let mut log = bytes(7);
        log.write(b"abcde").unwrap();
        assert_eq!(log.write(b"fghij").unwrap_err().kind(), io::ErrorKind::StorageFull);
        log.write(b"klm").unwrap_err();
        assert_eq!(text(&log), "abcdefg");
        log.inner.room = 1000;
        log.write(b"nop").unwrap();
        log.write(b"q").unwrap();
        assert_eq!(text(&log), "abcdefg\n[6 lost]\nnopq");
    }

    #[test]
    fn a_line_that_was_cut_counts_as_lost_and_the_next_begins_anew() {
        let mut log = lines(10);
        log.write(b"one\n").unwrap();
        log.write(b"two\nthree\nfour\n").unwrap_err();
        log.inner.room = 1000;
        log.write(b"five\n").unwrap();
        assert_eq!(text(&log), "one\ntwo\nth\n2 lines lost\nfive\n");
    }

    #[test]
    fn a_count_that_is_cut_is_finished_first_and_what_was_lost_meanwhile_is_told_after_it() {
        let mut log = lines(0);
        log.write(b"one\ntwo\n").unwrap_err();
        log.inner.room = 5;
        log.write(b"three\n").unwrap_err();
        log.write(b"four\n").unwrap_err();
        assert_eq!(text(&log), "2 lin");
        log.inner.room = 1000;
        log.write(b"five\n").unwrap();
        assert_eq!(text(&log), "2 lines lost\n2 lines lost\nfive\n");
    }

    #[test]
    fn a_count_waits_for_room_and_is_told_without_a_line_that_follows() {
        let mut log = bytes(0);
        for _ in 0..3 {
            log.write(b"1234").unwrap_err();
        }
        log.lose(100);
        log.tell().unwrap_err();
        log.inner.room = 1000;
        log.tell().unwrap();
        log.tell().unwrap();
        assert_eq!(text(&log), "[112 lost]\n");
    }
}
