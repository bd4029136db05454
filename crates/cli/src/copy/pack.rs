//! Files of this side as a tar stream. Names may be any bytes; holes stay holes; a file that changes while it is read
//! keeps the length that was announced.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use tar::{EntryType, GnuExtSparseHeader, Header};

use super::CopyError;

const BLOCK: usize = 512;

/// Holes are looked for in files that take less room than they are long.
const COPY: usize = 128 * 1024;

/// Who owns the files in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Its root.
    Root,
    /// The same numbers as here.
    Kept,
    /// This user and group.
    Of(u32, u32),
}

/// What is in an entry.
pub enum Contents<'a> {
    /// Nothing: a directory.
    Directory,
    /// A link to this.
    Symlink(&'a [u8]),
    /// So many bytes of this.
    File(u64, &'a mut dyn Read),
}

/// Writes a tar stream.
#[derive(Debug)]
pub struct Packer<W> {
    out: W,
    owners: Owners,
    skipped: Vec<PathBuf>,
    directories: HashSet<PathBuf>,
}

impl<W: Write> Packer<W> {
    /// Writes to `out`.
    pub fn new(out: W, owners: Owners) -> Packer<W> {
        Packer { out, owners, skipped: Vec::new(), directories: HashSet::new() }
    }

    /// A file, or a directory with all that is in it, under this name.
    ///
    /// # Errors
    /// [`CopyError::Read`], [`CopyError::Name`], [`CopyError::Lost`].
    pub fn tree(&mut self, path: &Path, name: &Path) -> Result<(), CopyError> {
        let mut left = vec![(path.to_owned(), name.to_owned())];
        while let Some((path, name)) = left.pop() {
            if self.file(&path, &name)? != Some(EntryType::Directory) {
                continue;
            }
            let unread = |source| CopyError::Read { path: path.clone(), source };
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(&path).map_err(unread)? {
                inside.push(entry.map_err(unread)?.file_name());
            }
            // The last one is taken first.
            inside.sort_unstable_by(|one, other| other.cmp(one));
            left.extend(inside.into_iter().map(|inside| (path.join(&inside), name.join(&inside))));
        }
        Ok(())
    }

    /// Those of the named files that exist, with the directories that they are in, everything below `name`.
    ///
    /// # Errors
    /// As [`Packer::tree`].
    pub fn files(&mut self, directory: &Path, name: &Path, files: &[PathBuf]) -> Result<(), CopyError> {
        self.file(directory, name)?;
        for file in files {
            if !self.parents(directory, name, file)? {
                continue;
            }
            match self.file(&directory.join(file), &name.join(file)) {
                Err(CopyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// The directories that a file is in, those that have not been sent. False where one is none any more: git listed the
    /// file, and it has been deleted or replaced by a link since.
    fn parents(&mut self, directory: &Path, name: &Path, file: &Path) -> Result<bool, CopyError> {
        let parents: Vec<&Path> = file.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if self.directories.contains(parent) {
                continue;
            }
            let path = directory.join(parent);
            if !path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Ok(false);
            }
            self.file(&path, &name.join(parent))?;
            self.directories.insert(parent.to_owned());
        }
        Ok(true)
    }

    /// One entry of another tar stream.
    ///
    /// # Errors
    /// [`CopyError::Input`] where its content breaks off, [`CopyError::Lost`].
    pub fn entry(&mut self, name: &[u8], like: &Header, contents: Contents<'_>) -> Result<(), CopyError> {
        let mut header = blank();
        let number = |number: io::Result<u64>| number.unwrap_or(0);
        header.set_mode(like.mode().unwrap_or(0o644) & 0o7777);
        header.set_mtime(number(like.mtime()));
        self.own(&mut header, number(like.uid()), number(like.gid()));
        match contents {
            Contents::Directory => self.header(header, EntryType::Directory, name, b"", 0),
            Contents::Symlink(target) => self.header(header, EntryType::Symlink, name, target, 0),
            Contents::File(size, content) => {
                self.header(header, EntryType::Regular, name, b"", size)?;
                let copied =
                    io::copy(&mut content.take(size), &mut Sent(&mut self.out)).map_err(|error| {
                        match error.get_ref() {
                            Some(_) if error.kind() == io::ErrorKind::Other => CopyError::Lost(error),
                            _ => CopyError::Input(error),
                        }
                    })?;
                if copied < size {
                    return Err(CopyError::Input(io::ErrorKind::UnexpectedEof.into()));
                }
                self.pad(size)
            }
        }
    }

    /// Notes something that cannot be sent.
    pub fn skip(&mut self, path: PathBuf) {
        self.skipped.push(path);
    }

    /// Ends the stream. What was written to, and the sockets, pipes and devices that were left out.
    ///
    /// # Errors
    /// [`CopyError::Lost`].
    pub fn end(mut self) -> Result<(W, Vec<PathBuf>), CopyError> {
        self.out.write_all(&[0; 2 * BLOCK]).map_err(CopyError::Lost)?;
        Ok((self.out, self.skipped))
    }

    /// One file of this side, whatever it is; not what is in a directory.
    fn file(&mut self, path: &Path, name: &Path) -> Result<Option<EntryType>, CopyError> {
        let unread = |source| CopyError::Read { path: path.to_owned(), source };
        let found = path.symlink_metadata().map_err(unread)?;
        let kind = found.file_type();
        let name = name.as_os_str().as_bytes();
        if kind.is_dir() {
            self.header(self.describe(&found), EntryType::Directory, &[name, b"/"].concat(), b"", 0)?;
            return Ok(Some(EntryType::Directory));
        }
        if kind.is_symlink() {
            let target = path.read_link().map_err(unread)?;
            self.header(self.describe(&found), EntryType::Symlink, name, target.as_os_str().as_bytes(), 0)?;
            return Ok(Some(EntryType::Symlink));
        }
        if !kind.is_file() {
            self.skipped.push(path.to_owned());
            return Ok(None);
        }
        let mut file = open(path).map_err(unread)?;
        let found = file.metadata().map_err(unread)?;
        match segments(&file, &found).map_err(unread)? {
            Some(segments) => self.sparse(path, &mut file, &found, name, &segments)?,
            None => {
                self.header(self.describe(&found), EntryType::Regular, name, b"", found.len())?;
                self.content(path, &mut file, found.len())?;
                self.pad(found.len())?;
            }
        }
        Ok(Some(EntryType::Regular))
    }

    fn describe(&self, found: &Metadata) -> Header {
        let mut header = blank();
        header.set_mode(found.mode() & 0o7777);
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        self.own(&mut header, found.uid().into(), found.gid().into());
        header
    }

    fn own(&self, header: &mut Header, uid: u64, gid: u64) {
        match self.owners {
            Owners::Root => {}
            Owners::Kept => {
                header.set_uid(uid);
                header.set_gid(gid);
            }
            Owners::Of(uid, gid) => {
                header.set_uid(uid.into());
                header.set_gid(gid.into());
            }
        }
    }

    /// Writes a header, and the long names that do not fit into it before.
    fn header(
        &mut self,
        mut header: Header,
        kind: EntryType,
        name: &[u8],
        link: &[u8],
        size: u64,
    ) -> Result<(), CopyError> {
        self.names(&mut header, name, link)?;
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes()).map_err(CopyError::Lost)
    }

    fn names(&mut self, header: &mut Header, name: &[u8], link: &[u8]) -> Result<(), CopyError> {
        if name.contains(&0) || link.contains(&0) {
            return Err(CopyError::Name { path: PathBuf::from(OsStr::from_bytes(name)) });
        }
        let fields = header.as_old_mut();
        let (name_field, link_field) = (fields.name.len(), fields.linkname.len());
        fields.name[..name.len().min(name_field)].copy_from_slice(&name[..name.len().min(name_field)]);
        fields.linkname[..link.len().min(link_field)].copy_from_slice(&link[..link.len().min(link_field)]);
        for (text, field, kind) in
            [(name, name_field, EntryType::GNULongName), (link, link_field, EntryType::GNULongLink)]
        {
            if text.len() > field {
                self.long(text, kind)?;
            }
        }
        Ok(())
    }

    fn long(&mut self, text: &[u8], kind: EntryType) -> Result<(), CopyError> {
        let size = text.len() as u64 + 1;
        let mut header = blank();
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let parts = [header.as_bytes().as_slice(), text, b"\0"];
        parts.iter().try_for_each(|part| self.out.write_all(part)).map_err(CopyError::Lost)?;
        self.pad(size)
    }

    /// A file with holes, in the old GNU format.
    fn sparse(
        &mut self,
        path: &Path,
        file: &mut File,
        found: &Metadata,
        name: &[u8],
        segments: &[(u64, u64)],
    ) -> Result<(), CopyError> {
        let mut header = self.describe(found);
        let stored: u64 = segments.iter().map(|(_, length)| length).sum();
        let mut described = segments.iter();
        if let Some(gnu) = header.as_gnu_mut() {
            gnu.set_real_size(found.len());
            let fields = gnu.sparse.len();
            for (field, (offset, length)) in gnu.sparse.iter_mut().zip(described.by_ref().take(fields)) {
                field.set_offset(*offset);
                field.set_length(*length);
            }
            gnu.set_is_extended(segments.len() > fields);
        }
        self.header(header, EntryType::GNUSparse, name, b"", stored)?;
        while described.len() > 0 {
            let mut further = GnuExtSparseHeader::new();
            let fields = further.sparse.len();
            for (field, (offset, length)) in further.sparse.iter_mut().zip(described.by_ref().take(fields)) {
                field.set_offset(*offset);
                field.set_length(*length);
            }
            further.set_is_extended(described.len() > 0);
            self.out.write_all(further.as_bytes()).map_err(CopyError::Lost)?;
        }
        for (offset, length) in segments {
            let unread = |errno: rustix::io::Errno| CopyError::Read { path: path.to_owned(), source: errno.into() };
            rustix::fs::seek(&*file, SeekFrom::Start(*offset)).map_err(unread)?;
            self.content(path, file, *length)?;
        }
        self.pad(stored)
    }

    /// Exactly so many bytes: where the file has become shorter, zeros.
    fn content(&mut self, path: &Path, file: &mut File, mut length: u64) -> Result<(), CopyError> {
        let mut buffer = vec![0; COPY.min(usize::try_from(length).unwrap_or(COPY))];
        let mut ended = false;
        while length > 0 {
            let most = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let mut count = most;
            if !ended {
                count = file
                    .read(&mut buffer[..most])
                    .map_err(|source| CopyError::Read { path: path.to_owned(), source })?;
            }
            if count == 0 {
                ended = true;
                buffer.fill(0);
                continue;
            }
            self.out.write_all(&buffer[..count]).map_err(CopyError::Lost)?;
            length -= count as u64;
        }
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), CopyError> {
        let beyond = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        let padding = if beyond == 0 { 0 } else { BLOCK - beyond };
        self.out.write_all(&[0; BLOCK][..padding]).map_err(CopyError::Lost)
    }
}

/// Marks errors of the side that is written to: `io::copy` does not say which side failed.
struct Sent<'a, W>(&'a mut W);

impl<W: Write> Write for Sent<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(io::Error::other)
    }
}

/// A header whose every number is one: the library leaves the owner's blank, which its own reader refuses.
fn blank() -> Header {
    let mut header = Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Not through a link that has taken the file's place, and not waiting for a pipe's other end.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    File::options().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path)
}

/// Where a file with holes has data: offset and length, all but the last a multiple of 512, and an empty one at the end
/// of the file. Nothing for files without holes.
fn segments(file: &File, found: &Metadata) -> io::Result<Option<Vec<(u64, u64)>>> {
    let size = found.len();
    if found.blocks().saturating_mul(512) >= size {
        return Ok(None);
    }
    let mut segments = Vec::new();
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(position)) {
            Ok(data) => data / BLOCK as u64 * BLOCK as u64,
            Err(rustix::io::Errno::NXIO) => break,
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data.max(position)))?;
        let end = hole.next_multiple_of(BLOCK as u64).min(size);
        if end <= data {
            break;
        }
        segments.push((data, end - data));
        position = end;
    }
    rustix::fs::seek(file, SeekFrom::Start(0))?;
    if segments == [(0, size)] {
        return Ok(None);
    }
    segments.push((size, 0));
    Ok(Some(segments))
}
