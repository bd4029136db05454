//! What is written down of a detached command beside its output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use banger_protocol::call::Exit;
use serde::{Deserialize, Serialize};

use crate::clock;

const COMMAND: &str = "command.json";
const EXIT: &str = "exit.json";

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id, which is its directory's name too.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// When it began, by the guest's clock, in nanoseconds since 1970-01-01 UTC.
    pub started_nanos: u64,
}

/// Makes the directory of a command that is about to start.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where there is one.
pub fn create(directory: &Path, id: &str, argv: &[String]) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::create_dir(directory)?;
    let record = Record { id: id.to_owned(), argv: argv.to_vec(), started_nanos: clock::now() };
    fs::write(directory.join(COMMAND), serde_json::to_vec(&record)?)
}

/// Reads one; nothing where there is none, or a crash has left it unwritten.
pub fn read(directory: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(directory.join(COMMAND)).ok()?).ok()
}

/// Reads all, in no order.
pub fn read_all(commands: &Path) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(commands) else { return Vec::new() };
    entries.flatten().filter_map(|entry| read(&entry.path())).collect()
}

/// Writes down how a command ended, after its output is safe.
///
/// # Errors
/// Where the disk takes it not.
pub fn write_exit(directory: &Path, exit: Exit) -> io::Result<()> {
    let (new, path) = (directory.join("exit.new"), directory.join(EXIT));
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(&exit)?)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(directory)?.sync_all()
}

/// Reads it.
pub fn read_exit(directory: &Path) -> Option<Exit> {
    serde_json::from_slice(&fs::read(directory.join(EXIT)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("commands/one");
        create(&one, "one", &["true".to_owned()]).unwrap();
        assert_eq!(create(&one, "one", &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&one).unwrap().argv, ["true"]);
        assert_eq!(read_exit(&one), None);
        write_exit(&one, Exit::Signal(9)).unwrap();
        assert_eq!(read_exit(&one), Some(Exit::Signal(9)));
        assert_eq!(read_all(&dir.path().join("commands")).len(), 1);
    }

    #[test]
    fn a_half_written_record_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(COMMAND), "{\"id\":\"x").unwrap();
        assert_eq!(read(dir.path()), None);
    }
}
