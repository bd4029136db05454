//! The blocks in banger's own file for ssh: one for each daemon whose VMs the user reaches by name. Pure.

use std::path::{Path, PathBuf};

/// The beginning of every block's first line.
pub const HEADER: &str = "# By `banger ssh-config`";

/// What precedes a daemon's socket in a block; the usual daemon's block has none.
const SOCKET: &str = "--host ";

/// A domain that leads to another daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ssh *.{domain} leads to the daemon on {} already", socket.display())]
pub struct OtherDaemon {
    /// The domain.
    pub domain: String,
    /// The socket of that daemon.
    pub socket: PathBuf,
}

/// The file with this block, in place of an earlier block of the same daemon. Keeps the blocks of other daemons;
/// `usual` is the socket of blocks that name none.
///
/// # Errors
/// [`OtherDaemon`].
pub fn with(text: &[u8], block: &[u8], usual: &Path) -> Result<Vec<u8>, OtherDaemon> {
    let (domain, socket) = (domain(block), socket(block, usual));
    let mut all = Vec::new();
    for other in blocks(text) {
        let theirs = self::socket(other, usual);
        if theirs == socket {
            continue;
        }
        if self::domain(other) == domain {
            return Err(OtherDaemon { domain: domain.unwrap_or_default(), socket: theirs });
        }
        all.extend(other);
    }
    all.extend(block);
    Ok(all)
}

/// The file's blocks, each from its first line on. Text before the first one is from a banger that wrote no blocks.
fn blocks(text: &[u8]) -> Vec<&[u8]> {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(HEADER.as_bytes()) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(start, end)| &text[*start..end]).collect()
}

fn domain(block: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(block);
    let line = text.lines().find_map(|line| line.strip_prefix("Host *."))?;
    line.split(' ').next().map(str::to_owned)
}

fn socket(block: &[u8], usual: &Path) -> PathBuf {
    let text = String::from_utf8_lossy(block);
    let named = text.lines().find_map(|line| line.trim_start().strip_prefix("ProxyCommand ")?.split_once(SOCKET));
    let Some((_, rest)) = named else { return usual.to_owned() };
    let quoted = rest.strip_prefix('\'').and_then(|rest| rest.split_once("' ")).map(|(path, _)| path);
    quoted.unwrap_or_default().replace("'\\''", "'").replace("%%", "%").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::options::{Caller, block};

    fn of(socket: Option<&Path>, domain: &str) -> Vec<u8> {
        block(Caller { program: Path::new("/usr/bin/banger"), socket, key: None }, domain)
    }

    #[test]
    fn each_daemon_has_a_block_and_none_takes_anothers_domain() {
        let (usual, second) = (PathBuf::from("/run/banger/bangerd.sock"), PathBuf::from("/run/it's 100% second"));
        let first = of(None, "vm");
        assert_eq!(with(b"", &first, &usual).unwrap(), first);
        assert_eq!(with(&first, &first, &usual).unwrap(), first, "twice is once");
        let taken = with(&first, &of(Some(&second), "vm"), &usual).unwrap_err();
        assert_eq!(taken, OtherDaemon { domain: "vm".to_owned(), socket: usual.clone() });
        let both = with(&first, &of(Some(&second), "vm1"), &usual).unwrap();
        assert_eq!(both, [&first[..], &of(Some(&second), "vm1")].concat());
        // A daemon's new domain replaces its old one.
        let moved = with(&both, &of(Some(&second), "vm2"), &usual).unwrap();
        assert_eq!(moved, [&first[..], &of(Some(&second), "vm2")].concat());
        assert!(with(&both, &of(None, "vm1"), &usual).is_err());
    }
}
