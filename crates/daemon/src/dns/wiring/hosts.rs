//! The names of VMs in `/etc/hosts`: a block between two marks. All that is not in it stays as it is, byte for byte.
//!
//! The file knows no wildcards: `devbox.vm` is found by it, `www.devbox.vm` is not.

use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use banger_linux::file;

const BEGIN: &[u8] = b"# banger: begin";
const END: &[u8] = b"# banger: end";

/// Why the block is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One mark without the other, or several.
    #[error("{} has not exactly one `# banger: begin` with one `# banger: end` after it", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
    },
}

impl HostsError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            HostsError::Read { .. } => "see that the file is there and can be read",
            HostsError::Write { .. } => {
                "see that the file can be written; where the system makes it, as NixOS does, names belong into its configuration"
            }
            HostsError::Torn { .. } => "remove both marks from the file, with what is banger's between them",
        }
    }
}

/// Sees to it that the block has these names, or that there is none. Nothing is written where that is so.
pub(super) fn write(path: &Path, names: Option<&[(Ipv4Addr, String)]>) -> Result<(), HostsError> {
    let before = match std::fs::read(path) {
        Ok(text) => text,
        // Without the file there is no block in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && names.is_none() => return Ok(()),
        Err(source) => return Err(HostsError::Read { path: path.to_owned(), source }),
    };
    let after = with(&before, names).ok_or_else(|| HostsError::Torn { path: path.to_owned() })?;
    if after == before {
        return Ok(());
    }
    file::replace(path, &after).map_err(|source| HostsError::Write { path: path.to_owned(), source })
}

/// The text with the block of these names, or without one; nothing where its marks make no sense.
fn with(text: &[u8], names: Option<&[(Ipv4Addr, String)]>) -> Option<Vec<u8>> {
    let block = names.map(block).unwrap_or_default();
    let place = match find(text)? {
        Some(place) => place,
        None if block.is_empty() => return Some(text.to_vec()),
        // A last line without an end would become one with the block: that stands in front of all then.
        None if text.last().is_none_or(|last| *last == b'\n') => text.len()..text.len(),
        None => 0..0,
    };
    Some([&text[..place.start], &block, &text[place.end..]].concat())
}

fn block(names: &[(Ipv4Addr, String)]) -> Vec<u8> {
    let lines: String = names.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
    [BEGIN, b"\n", lines.as_bytes(), END, b"\n"].concat()
}

/// Where the block is, with its marks: somewhere, nowhere, or (outer nothing) in no way that makes sense.
fn find(text: &[u8]) -> Option<Option<Range<usize>>> {
    let (mut begins, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        match line.trim_ascii_end() {
            BEGIN => begins.push(at),
            END => ends.push(at + line.len()),
            _ => {}
        }
        at += line.len();
    }
    match (&begins[..], &ends[..]) {
        ([], []) => Some(None),
        ([begin], [end]) if begin < end => Some(Some(*begin..*end)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<(Ipv4Addr, String)> {
        vec![([10, 9, 0, 1].into(), "host.vm".into()), ([10, 9, 0, 2].into(), "a.vm".into())]
    }

    const BLOCK: &str = "# banger: begin\n10.9.0.1 host.vm\n10.9.0.2 a.vm\n# banger: end\n";

    #[test]
    fn the_rest_stays_byte_for_byte() {
        let others: [&[u8]; 5] =
            [b"", b"127.0.0.1 localhost\n", b"no end", b"\xff\xfe\r\n\n\n", b"# banger: beginning\n"];
        for other in others {
            let with_block = with(other, Some(&names())).unwrap();
            assert_eq!(with_block.len(), other.len() + BLOCK.len());
            assert!(with_block.starts_with(other) || with_block.ends_with(other));
            assert!(String::from_utf8_lossy(&with_block).contains(BLOCK));
            assert_eq!(with(&with_block, Some(&names())).unwrap(), with_block, "twice is once");
            assert_eq!(with(&with_block, None).unwrap(), other);
            assert_eq!(with(other, None).unwrap(), other);
        }
    }

    #[test]
    fn a_block_is_written_anew_where_it_stands() {
        let text = format!("first\n{BLOCK}last");
        let fewer = with(text.as_bytes(), Some(&names()[..1])).unwrap();
        let expected = "first\n# banger: begin\n10.9.0.1 host.vm\n# banger: end\nlast";
        assert_eq!(String::from_utf8(fewer.clone()).unwrap(), expected);
        assert_eq!(with(&fewer, None).unwrap(), b"first\nlast");
    }

    #[test]
    fn marks_that_make_no_sense_are_left_alone() {
        for text in ["# banger: begin\n", "# banger: end\n", "# banger: end\n# banger: begin\n", &BLOCK.repeat(2)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hosts");
            std::fs::write(&path, text).unwrap();
            for names in [Some(&names()[..]), None] {
                assert!(matches!(write(&path, names), Err(HostsError::Torn { .. })), "{text}");
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        assert!(write(&path, None).is_ok());
        assert!(matches!(write(&path, Some(&names())), Err(HostsError::Read { .. })));
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        write(&path, Some(&names())).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&path);
        write(&path, Some(&names())).unwrap();
        assert_eq!(inode(&path), before);
        write(&path, None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
    }
}
