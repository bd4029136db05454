//! A tar stream made into files below one place, and nowhere else.
//!
//! Every path is walked by the kernel with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` (openat2(2)) from the place's own
//! directory: an entry that would leave it, by its own path or through a link that an earlier entry made, is refused.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat,
    linkat, mkdirat, mknodat, openat, openat2, symlinkat, unlinkat, utimensat,
};
use tar::{Archive, Entry, EntryType, Header};

use super::FilesError;

/// How much is copied at once.
const COPY: usize = 64 * 1024;

/// A block of this many zeros becomes a hole: the block size of the guest's file systems.
const BLOCK: usize = 4096;

/// Where a tar stream's files go.
#[derive(Debug)]
pub struct Destination {
    /// The directory that holds the first entry.
    directory: OwnedFd,
    /// What the first entry is called in it; `.` where the directory itself stands for it.
    name: OsString,
    /// What the first entry is called in the stream.
    stream_name: PathBuf,
    /// Both, as the user knows them.
    shown: PathBuf,
}

impl Destination {
    /// Finds it: `path` itself, or `path/name` where `path` is a directory. The directory above must exist. A `name` of `.`
    /// means the contents of a directory: they go into `path`, which is made if it is not there.
    ///
    /// # Errors
    /// [`FilesError::Target`], [`FilesError::Escapes`] for a name that is no name.
    pub fn open(path: &Path, name: &str) -> Result<Destination, FilesError> {
        let failed = |source: io::Error| FilesError::Target { path: path.display().to_string(), source };
        let plain = name == "." || matches!(components(Path::new(name))[..], [Component::Normal(_)]);
        if !plain {
            return Err(FilesError::Escapes { entry: name.to_owned(), name: name.to_owned() });
        }
        let slash = path.as_os_str().as_bytes().ends_with(b"/");
        let (directory, own_name, shown) = if path.is_dir() {
            (path, OsString::from(name), path.join(name))
        } else if slash && name != "." {
            return Err(failed(io::ErrorKind::NotFound.into()));
        } else {
            let own = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
            (path.parent().unwrap_or(Path::new("/")), own.to_owned(), path.to_owned())
        };
        let directory = openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(error.into()))?;
        Ok(Destination { directory, name: own_name, stream_name: name.into(), shown })
    }

    /// An entry's path as seen from [`Destination::directory`].
    fn place(&self, entry: &Path) -> Result<PathBuf, FilesError> {
        let escapes =
            || FilesError::Escapes { entry: entry.display().to_string(), name: self.stream_name.display().to_string() };
        let mut place = PathBuf::from(&self.name);
        let mut path = components(entry).into_iter();
        if self.stream_name != Path::new(".") && path.next() != self.stream_name.components().next() {
            return Err(escapes());
        }
        for component in path {
            let Component::Normal(name) = component else { return Err(escapes()) };
            place.push(name);
        }
        Ok(place)
    }

    fn show(&self, place: &Path) -> String {
        self.shown.join(place.strip_prefix(&self.name).unwrap_or(place)).display().to_string()
    }
}

/// Unpacks a stream, and reads no further than its end mark.
///
/// # Errors
/// [`FilesError`]: what was unpacked before stays.
pub fn unpack(stream: &mut impl Read, destination: &Destination) -> Result<(), FilesError> {
    let mut unpacker = Unpacker {
        destination,
        parent: None,
        directories: Vec::new(),
        buffer: vec![0; COPY],
        is_root: rustix::process::geteuid().is_root(),
    };
    let mut archive = Archive::new(stream);
    for entry in archive.entries().map_err(FilesError::Stream)? {
        let mut entry = entry.map_err(FilesError::Stream)?;
        unpacker.entry(&mut entry)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    destination: &'a Destination,
    /// The directory of the entry before: the next one is mostly in the same.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Directories get mode and times last: they must be writable until then, and writing changes the time.
    directories: Vec<(PathBuf, Header)>,
    buffer: Vec<u8>,
    is_root: bool,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), FilesError> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        let place = self.destination.place(&path)?;
        let shown = self.destination.show(&place);
        let write = |source: io::Error| FilesError::Write { path: shown.clone(), source };
        match kind {
            EntryType::Directory => {
                self.make_directory(&place).map_err(write)?;
                self.directories.push((place, entry.header().clone()));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(entry, &place, write)?,
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = self.destination.place(Path::new(&OsString::from_vec(target)))?;
                let (old, old_name) = self.parent_of(&target).map_err(write)?;
                let old = old.try_clone().map_err(write)?;
                let (directory, name) = self.clear(&place).map_err(write)?;
                linkat(&old, old_name, directory, name, AtFlags::empty()).map_err(|error| write(error.into()))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let (directory, name) = self.clear(&place).map_err(write)?;
                symlinkat(OsString::from_vec(target), directory, &name).map_err(|error| write(error.into()))?;
                self.attributes(&place, entry.header()).map_err(write)?;
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                self.node(&place, entry.header()).map_err(write)?;
                self.attributes(&place, entry.header()).map_err(write)?;
            }
            other => {
                let message = format!("the kind {:?} of its entry is unknown", char::from(other.as_byte()));
                return Err(write(io::Error::new(io::ErrorKind::Unsupported, message)));
            }
        }
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        place: &Path,
        write: impl Fn(io::Error) -> FilesError,
    ) -> Result<(), FilesError> {
        let (directory, name) = self.clear(place).map_err(&write)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::from_raw_mode(0o600)).map_err(|error| write(error.into()))?;
        let mut file = File::from(file);
        let mut length = 0;
        loop {
            let filled = fill(entry, &mut self.buffer).map_err(FilesError::Stream)?;
            if filled == 0 {
                break;
            }
            write_with_holes(&mut file, &self.buffer[..filled]).map_err(&write)?;
            length += filled as u64;
        }
        // A hole at the end is no part of the file until its length says so.
        file.set_len(length).map_err(&write)?;
        self.attributes(place, entry.header()).map_err(&write)
    }

    fn node(&mut self, place: &Path, header: &Header) -> io::Result<()> {
        let device = || -> io::Result<u64> {
            let number = |part: Option<u32>| part.ok_or(io::Error::from(io::ErrorKind::InvalidData));
            Ok(rustix::fs::makedev(number(header.device_major()?)?, number(header.device_minor()?)?))
        };
        let (kind, device) = match header.entry_type() {
            EntryType::Char => (FileType::CharacterDevice, device()?),
            EntryType::Block => (FileType::BlockDevice, device()?),
            // The stream may leave the numbers empty.
            _ => (FileType::Fifo, 0),
        };
        let (directory, name) = self.clear(place)?;
        Ok(mknodat(directory, name, kind, Mode::from_raw_mode(0o600), device)?)
    }

    /// Makes a directory, or takes the one that is there.
    fn make_directory(&mut self, place: &Path) -> io::Result<()> {
        if place == Path::new(".") {
            return Ok(());
        }
        let (directory, name) = self.parent_of(place)?;
        match mkdirat(directory, &name, Mode::from_raw_mode(0o700)) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                openat(directory, &name, flags, Mode::empty())?;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away the file that is in a place, if there is one, and says where a new one is to be made.
    fn clear(&mut self, place: &Path) -> io::Result<(&OwnedFd, OsString)> {
        let (directory, name) = self.parent_of(place)?;
        match unlinkat(directory, &name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok((directory, name)),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory that holds a place, made where the stream has not made it, and the name in it.
    fn parent_of(&mut self, place: &Path) -> io::Result<(&OwnedFd, OsString)> {
        let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = place.parent().unwrap_or(Path::new(""));
        if self.parent.as_ref().is_none_or(|(path, _)| path != parent) {
            let opened = self.open_directory(parent)?;
            self.parent = Some((parent.to_owned(), opened));
        }
        let (_, directory) = self.parent.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok((directory, name))
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            openat2(&self.destination.directory, path, flags, Mode::empty(), within)
        };
        match open(path) {
            Err(rustix::io::Errno::NOENT) => {
                let parent = self.open_directory(path.parent().ok_or(io::ErrorKind::NotFound)?)?;
                let name = path.file_name().ok_or(io::ErrorKind::NotFound)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                Ok(open(path)?)
            }
            result => Ok(result?),
        }
    }

    /// Sets owner, mode and modification time, in this order: a change of owner takes set-user-id bits away.
    fn attributes(&mut self, place: &Path, header: &Header) -> io::Result<()> {
        let is_root = self.is_root;
        let (directory, name) = if place == Path::new(".") {
            (&self.destination.directory, OsString::from("."))
        } else {
            self.parent_of(place)?
        };
        if is_root {
            let id = |number: u64| u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData);
            let (uid, gid) = (Uid::from_raw(id(header.uid()?)?), Gid::from_raw(id(header.gid()?)?));
            chownat(directory, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !header.entry_type().is_symlink() {
            chmodat(directory, &name, Mode::from_raw_mode(header.mode()? & 0o7777), AtFlags::empty())?;
        }
        let mtime = Timespec { tv_sec: i64::try_from(header.mtime()?).unwrap_or(i64::MAX), tv_nsec: 0 };
        let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: mtime };
        Ok(utimensat(directory.as_fd(), &name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn finish(mut self) -> Result<(), FilesError> {
        for (place, header) in std::mem::take(&mut self.directories).into_iter().rev() {
            let shown = self.destination.show(&place);
            self.attributes(&place, &header).map_err(|source| FilesError::Write { path: shown, source })?;
        }
        Ok(())
    }
}

fn components(path: &Path) -> Vec<Component<'_>> {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// Reads until `buffer` is full or the entry ends.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes data at a block's border, and steps over blocks of zeros.
fn write_with_holes(file: &mut File, data: &[u8]) -> io::Result<()> {
    let is_hole = |block: &[u8]| block.len() == BLOCK && block.iter().all(|&byte| byte == 0);
    for run in data.chunks(BLOCK).collect::<Vec<_>>().chunk_by(|one, next| is_hole(one) == is_hole(next)) {
        let length: usize = run.iter().map(|block| block.len()).sum();
        let at = run[0].as_ptr().addr() - data.as_ptr().addr();
        if is_hole(run[0]) {
            file.seek(SeekFrom::Current(i64::try_from(length).map_err(io::Error::other)?))?;
        } else {
            file.write_all(&data[at..at + length])?;
        }
    }
    Ok(())
}
