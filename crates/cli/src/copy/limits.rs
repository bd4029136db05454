//! Bounds on a guest's tar stream before the tar library sees it: that library reads long names and extended headers into
//! memory, however long they claim to be.

use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: usize = 512;

/// The most that a long name or an extended header may hold. Paths end at 4096 bytes.
const MAX_EXTENSION: u64 = 64 * 1024;

/// The most blocks with further segments of a sparse file, 21 segments each.
const MAX_SPARSE_BLOCKS: u64 = 16 * 1024;

/// Passes a tar stream on as long as it keeps within the bounds.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    /// The header that is being passed on, and how much of it.
    block: [u8; BLOCK],
    read: usize,
    passed: usize,
    /// Content that follows, padded to whole blocks.
    content: u64,
    /// Whether the next block holds segments of a sparse file, and how many such blocks there were.
    sparse: Option<u64>,
    sparse_content: u64,
    ended: bool,
}

impl<R: Read> Bounded<R> {
    /// Watches this stream.
    pub fn new(inner: R) -> Bounded<R> {
        Bounded {
            inner,
            block: [0; BLOCK],
            read: 0,
            passed: 0,
            content: 0,
            sparse: None,
            sparse_content: 0,
            ended: false,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        self.read = 0;
        self.passed = 0;
        while self.read < BLOCK {
            match self.inner.read(&mut self.block[self.read..])? {
                0 => break,
                count => self.read += count,
            }
        }
        if self.read < BLOCK {
            self.ended = true;
            return Ok(());
        }
        match self.sparse {
            Some(seen) => self.further_segments(seen),
            None => self.header(),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let header = Header::from_byte_slice(&self.block);
        if self.block.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let size = header.entry_size()?;
        let kind = header.entry_type();
        let extension = matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        );
        if extension && size > MAX_EXTENSION {
            return Err(refused("a name or an extended header is too long"));
        }
        // An extended header may overrule the size of what follows, which would put these two readers out of step. No
        // agent of banger's sends any.
        if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader) {
            return Err(refused("it has extended headers"));
        }
        let content =
            size.checked_next_multiple_of(BLOCK as u64).ok_or_else(|| refused("a size is beyond all bounds"))?;
        let further = header.as_gnu().is_some_and(|gnu| kind == EntryType::GNUSparse && gnu.is_extended());
        if further {
            self.sparse = Some(0);
            self.sparse_content = content;
        } else {
            self.content = content;
        }
        Ok(())
    }

    fn further_segments(&mut self, seen: u64) -> io::Result<()> {
        if seen == MAX_SPARSE_BLOCKS {
            return Err(refused("a sparse file has too many segments"));
        }
        // The last word but padding says whether another such block follows (tar(5), old GNU format).
        if self.block[504] != 0 {
            self.sparse = Some(seen + 1);
        } else {
            self.sparse = None;
            self.content = self.sparse_content;
        }
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.passed == self.read && self.content > 0 {
            let most = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.inner.read(&mut buffer[..most])?;
            self.content -= count as u64;
            return Ok(count);
        }
        if self.passed == self.read && !self.ended {
            self.next_block()?;
        }
        let count = buffer.len().min(self.read - self.passed);
        buffer[..count].copy_from_slice(&self.block[self.passed..self.passed + count]);
        self.passed += count;
        Ok(count)
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, size: u64) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn pass(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut passed = Vec::new();
        Bounded::new(bytes).read_to_end(&mut passed).map(|_| passed)
    }

    #[test]
    fn what_keeps_within_the_bounds_is_unchanged() {
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["short".to_owned(), "long/".repeat(60)] {
            let mut header = Header::new_gnu();
            header.set_size(700);
            archive.append_data(&mut header, name, [7; 700].as_slice()).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        assert_eq!(pass(&archive).unwrap(), archive);
    }

    #[test]
    fn a_name_without_end_is_refused_before_it_is_read() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            assert!(pass(&header(kind, 1 << 40)).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_header_in_a_files_content_is_content() {
        let mut bytes = header(EntryType::Regular, 512);
        bytes.extend(header(EntryType::GNULongName, 1 << 40));
        assert_eq!(pass(&bytes).unwrap(), bytes);
    }

    #[test]
    fn endless_segments_are_refused() {
        let mut sparse = Header::new_gnu();
        sparse.set_entry_type(EntryType::GNUSparse);
        sparse.set_size(0);
        sparse.as_gnu_mut().unwrap().set_is_extended(true);
        sparse.set_cksum();
        let block = [1u8; BLOCK];
        let endless = io::Cursor::new(sparse.as_bytes().to_vec()).chain(io::repeat(block[0]));
        let mut passed = Vec::new();
        assert!(Bounded::new(endless).read_to_end(&mut passed).is_err());
        assert!(passed.len() <= BLOCK * (2 + usize::try_from(MAX_SPARSE_BLOCKS).unwrap()));
    }
}
