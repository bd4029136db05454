//! A file that is put aside under another name once it has reached its size. At most two files exist: the current one and the
//! older one. The daemon's log and the VMs' consoles are such files.
//!
//! It is opened at the first write, and again after an error. So a file that cannot be opened yet costs only what is written
//! meanwhile; `lossy.rs` counts that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// A file of bounded size, readable by its owner only.
#[derive(Debug)]
pub struct Rotated {
    path: PathBuf,
    aside: PathBuf,
    limit: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    length: u64,
}

impl Rotated {
    /// A file at `path`, appended to. Before it would have more than `limit` bytes it is renamed to `aside`.
    pub fn new(path: PathBuf, aside: PathBuf, limit: u64) -> Rotated {
        Rotated { path, aside, limit, open: None }
    }

    /// Opens it, if it is not open.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(&mut self) -> io::Result<()> {
        if self.open.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
            let length = file.metadata()?.len();
            self.open = Some(Open { file, length });
        }
        Ok(())
    }

    /// Makes it empty, and removes the older one.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear(&mut self) -> io::Result<()> {
        match fs::remove_file(&self.aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.open()?;
        if let Some(open) = &mut self.open {
            open.file.set_len(0)?;
            open.length = 0;
        }
        Ok(())
    }

    fn put_aside(&mut self, open: &Open) -> io::Result<()> {
        let own = open.file.metadata()?;
        match fs::metadata(&self.path) {
            // A second daemon on its way to its error can have put it aside already: that one's file stays.
            Ok(found) if (found.dev(), found.ino()) != (own.dev(), own.ino()) => Ok(()),
            Ok(_) => fs::rename(&self.path, &self.aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Write for Rotated {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?;
        if let Some(open) = self.open.take_if(|open| open.length > 0 && open.length + bytes.len() as u64 > self.limit) {
            if let Err(error) = self.put_aside(&open) {
                self.open = Some(open);
                return Err(error);
            }
            self.open()?;
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        let count = open.file.write(bytes)?;
        open.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn rotated(dir: &Path) -> Rotated {
        Rotated::new(dir.join("log"), dir.join("log.1"), 10)
    }

    fn read(dir: &Path) -> [String; 2] {
        ["log.1", "log"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default())
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_one_before_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotated(dir.path());
        for text in ["first\n", "1234", "second\n", "third\n"] {
            log.write_all(text.as_bytes()).unwrap();
        }
        assert_eq!(read(dir.path()), ["second\n", "third\n"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(fs::metadata(dir.path().join("log")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn another_process_appends_and_more_than_the_limit_at_once_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        rotated(dir.path()).write_all(b"one\n").unwrap();
        rotated(dir.path()).write_all(b"two\n").unwrap();
        assert_eq!(read(dir.path()), ["", "one\ntwo\n"]);
        rotated(dir.path()).write_all(b"longer than ten\n").unwrap();
        assert_eq!(read(dir.path()), ["one\ntwo\n", "longer than ten\n"]);
        rotated(dir.path()).clear().unwrap();
        assert_eq!(read(dir.path()), ["", ""]);
    }

    #[test]
    fn a_file_that_another_process_has_put_aside_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (mut ours, mut theirs) = (rotated(dir.path()), rotated(dir.path()));
        ours.write_all(b"ours 1\n").unwrap();
        theirs.write_all(b"theirs\n").unwrap();
        ours.write_all(b"ours 2\n").unwrap();
        assert_eq!(read(dir.path()), ["ours 1\n", "theirs\nours 2\n"]);
    }

    #[test]
    fn a_rotation_that_fails_loses_nothing_of_what_is_written_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = rotated(dir.path());
        log.write_all(b"12345678\n").unwrap();
        // A directory is in the way of the older file.
        fs::create_dir(dir.path().join("log.1")).unwrap();
        for _ in 0..3 {
            log.write_all(b"abcdefgh\n").unwrap_err();
        }
        assert_eq!(fs::read_to_string(dir.path().join("log")).unwrap(), "12345678\n");
        fs::remove_dir(dir.path().join("log.1")).unwrap();
        log.write_all(b"abcdefgh\n").unwrap();
        assert_eq!(read(dir.path()), ["12345678\n", "abcdefgh\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_opened_later() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        let mut log = rotated(dir.path());
        log.write_all(b"lost\n").unwrap_err();
        fs::remove_dir(dir.path().join("log")).unwrap();
        log.write_all(b"kept\n").unwrap();
        assert_eq!(read(dir.path()), ["", "kept\n"]);
    }
}
