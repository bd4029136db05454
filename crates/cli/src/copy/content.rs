//! A file's content out of a tar stream, with its holes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// A piece of a file with holes: one that is all zeros becomes a hole.
const PIECE: usize = 64 * 1024;

/// Which side of a copy failed.
pub(super) enum Side {
    /// What is read.
    Stream(io::Error),
    /// What is written.
    File(io::Error),
}

/// Copies to the end; how much that was.
pub(super) fn copy(from: &mut impl Read, to: &mut File) -> Result<u64, Side> {
    let mut buffer = vec![0; 4 * PIECE];
    let mut copied = 0;
    loop {
        let count = from.read(&mut buffer).map_err(Side::Stream)?;
        if count == 0 {
            return Ok(copied);
        }
        to.write_all(&buffer[..count]).map_err(Side::File)?;
        copied += count as u64;
    }
}

/// The library fills the holes of what it reads with zeros; here they become holes again.
pub(super) fn copy_with_holes(from: &mut impl Read, to: &mut File, size: u64) -> Result<u64, Side> {
    let mut piece = vec![0; PIECE];
    let mut copied = 0;
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match from.read(&mut piece[filled..]).map_err(Side::Stream)? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            // A hole at the end has been skipped, not written.
            to.set_len(size).map_err(Side::File)?;
            return Ok(copied);
        }
        for page in piece[..filled].chunks(4096) {
            if page.iter().all(|&byte| byte == 0) {
                to.seek(SeekFrom::Current(i64::try_from(page.len()).unwrap_or(0))).map_err(Side::File)?;
            } else {
                to.write_all(page).map_err(Side::File)?;
            }
        }
        copied += filled as u64;
    }
}
