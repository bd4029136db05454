//! Files made into a tar stream.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

use super::FilesError;
use super::expand::expand;

/// Tar's contents are padded to whole blocks.
const BLOCK: u64 = 512;

/// Where a packed stream goes.
pub trait Sink: Write {
    /// Takes exactly `length` bytes of a file that may grow meanwhile; one that ends before is an error.
    ///
    /// # Errors
    /// Those of reading, and [`io::ErrorKind::UnexpectedEof`].
    fn take_file(&mut self, file: &File, length: u64) -> io::Result<()>;
}

impl Sink for io::PipeWriter {
    fn take_file(&mut self, file: &File, length: u64) -> io::Result<()> {
        let copied = io::copy(&mut file.take(length), self)?;
        if copied == length { Ok(()) } else { Err(changed()) }
    }
}

/// What is packed.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// What it is called in the stream.
    name: PathBuf,
    metadata: Metadata,
}

impl Source {
    /// Finds it. A link named here means what it points to; those found below stay links. What has no name of its own, as
    /// `/`, is called `.`.
    ///
    /// # Errors
    /// [`FilesError::Read`] where there is nothing.
    pub fn find(path: &Path) -> Result<Source, FilesError> {
        let failed = |source| FilesError::Read { path: path.display().to_string(), source };
        let metadata = fs::metadata(path).map_err(failed)?;
        let name = path.file_name().map_or(PathBuf::from("."), PathBuf::from);
        Ok(Source { path: path.to_owned(), name, metadata })
    }

    /// What a pattern names, by the same rule. A link that leads nowhere stays one: who names many files does not mean it.
    ///
    /// # Errors
    /// Those of [`expand`], and [`FilesError::Read`] where a file went meanwhile.
    pub fn matching(pattern: &Path) -> Result<Vec<Source>, FilesError> {
        let found = |path: PathBuf| {
            Source::find(&path).or_else(|error| match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_symlink() => {
                    let name = path.file_name().map_or(PathBuf::from("."), PathBuf::from);
                    Ok(Source { path, name, metadata })
                }
                _ => Err(error),
            })
        };
        expand(pattern)?.into_iter().map(found).collect()
    }

    /// A directory of which only the contents count.
    ///
    /// # Errors
    /// [`FilesError::Read`] where there is nothing.
    pub fn contents(path: &Path) -> Result<Source, FilesError> {
        Source::find(path).map(|source| Source { name: ".".into(), ..source })
    }
}

/// Packs files, and directories with all that they hold.
///
/// # Errors
/// [`FilesError`]; the stream is then cut off.
pub fn pack(sources: &[Source], to: &mut impl Sink) -> Result<(), FilesError> {
    let mut packer = Packer { builder: Builder::new(to), links: HashMap::new() };
    for source in sources {
        packer.add(&source.path, &source.name, &source.metadata)?;
    }
    packer.builder.finish().map_err(FilesError::Stream)
}

struct Packer<'a, S: Sink> {
    builder: Builder<&'a mut S>,
    /// Where a file with more than one name is in the stream, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
}

impl<S: Sink> Packer<'_, S> {
    fn add(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), FilesError> {
        let read = |source| FilesError::Read { path: path.display().to_string(), source };
        let kind = metadata.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            let key = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&key) {
                let mut header = header(metadata, EntryType::Link);
                return self.builder.append_link(&mut header, name, first).map_err(FilesError::Stream);
            }
            self.links.insert(key, name.to_owned());
        }
        if kind.is_dir() {
            self.directory(path, name, metadata)
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(read)?;
            self.builder
                .append_link(&mut header(metadata, EntryType::Symlink), name, target)
                .map_err(FilesError::Stream)
        } else if kind.is_file() {
            self.file(path, name, metadata)
        } else {
            self.node(name, metadata)
        }
    }

    fn directory(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), FilesError> {
        let read = |source| FilesError::Read { path: path.display().to_string(), source };
        let mut header = header(metadata, EntryType::Directory);
        // Tar says that a directory is one by a slash, too.
        self.builder.append_data(&mut header, name.join(""), io::empty()).map_err(FilesError::Stream)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(read)? {
            names.push(entry.map_err(read)?.file_name());
        }
        names.sort();
        for child in names {
            let path = path.join(&child);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => self.add(&path, &name.join(&child), &metadata)?,
                // It was removed while we were looking.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(FilesError::Read { path: path.display().to_string(), source }),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> Result<(), FilesError> {
        let read = |source| FilesError::Read { path: path.display().to_string(), source };
        let mut file = File::open(path).map_err(read)?;
        let length = metadata.len();
        if metadata.blocks() * 512 < length {
            self.builder.append_file(name, &mut file).map_err(read)?;
            let now = file.metadata().map_err(read)?.len();
            return if now >= length { Ok(()) } else { Err(read(changed())) };
        }
        let mut header = header(metadata, EntryType::Regular);
        header.set_size(length);
        self.builder.append_data(&mut header, name, io::empty()).map_err(read)?;
        // Past the library, which would carry the contents through a small buffer of its own.
        let sink = self.builder.get_mut();
        sink.take_file(&file, length).map_err(read)?;
        let padding = length.next_multiple_of(BLOCK) - length;
        io::copy(&mut io::repeat(0).take(padding), sink).map(drop).map_err(read)
    }

    fn node(&mut self, name: &Path, metadata: &Metadata) -> Result<(), FilesError> {
        let kind = metadata.file_type();
        let entry = if kind.is_char_device() {
            EntryType::Char
        } else if kind.is_block_device() {
            EntryType::Block
        } else {
            EntryType::Fifo
        };
        let mut header = header(metadata, entry);
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let set = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        set.and_then(|()| self.builder.append_data(&mut header, name, io::empty())).map_err(FilesError::Stream)
    }
}

fn header(metadata: &Metadata, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(0);
    header
}

/// What a file that ends before its header said comes to.
pub(super) fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read")
}
