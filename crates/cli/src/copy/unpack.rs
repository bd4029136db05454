//! A guest's tar stream as files of this side. The guest may be hostile: nothing is written outside of the destination.
//!
//! Every directory on the way to a file is opened by itself, without following links, and stays open while the stream is in
//! it; so neither `..`, nor an absolute name, nor a link that the stream made leads out, and nobody can put a link in the
//! way meanwhile. What is there already is replaced, never written through. Set-user-id, set-group-id and sticky bits are
//! dropped; devices, pipes and sockets are left out. Links are made as they are, wherever they lead.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use banger_api::pattern;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Entry, EntryType};

use super::content::{Side, copy, copy_with_holes};
use super::limits::Bounded;
use super::{CopyError, Owners};

/// The most directories within each other: each is an open descriptor.
const MAX_DEPTH: usize = 200;

/// Where the files go.
#[derive(Debug)]
pub struct Destination {
    /// An existing directory.
    pub directory: PathBuf,
    /// What becomes of the first component of the stream's names.
    pub root: Root,
    /// Whether only a directory will do.
    pub only_directory: bool,
}

/// What becomes of the first component of a stream's names.
#[derive(Debug)]
pub enum Root {
    /// It is the destination itself.
    Destination,
    /// It gets this name.
    Named(OsString),
    /// There may be several, which keep their names. Each is or fits this pattern: a guest could otherwise send a `.profile`
    /// to somebody who asked for `*.log`.
    Matching(Vec<u8>),
}

/// Unpacks a stream; the names of what was left out.
///
/// # Errors
/// [`CopyError`].
pub fn unpack(stream: &mut impl Read, to: &Destination, owners: Owners) -> Result<Vec<PathBuf>, CopyError> {
    unpack_wanted(stream, to, owners, &mut |_| Ok(true))
}

/// What is known of an entry before it is taken.
#[derive(Debug)]
pub struct Found<'a> {
    /// Where it goes, below the destination's directory.
    pub path: &'a [OsString],
    /// Whether it is a directory.
    pub is_directory: bool,
    /// How long it is, holes included.
    pub size: u64,
}

/// As [`unpack`], but only those for which `wants` says so; it is asked in the order of the stream.
///
/// # Errors
/// [`CopyError`], those of `wants` included.
pub fn unpack_wanted(
    stream: &mut impl Read,
    to: &Destination,
    owners: Owners,
    wants: Wants<'_>,
) -> Result<Vec<PathBuf>, CopyError> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::openat(CWD, &to.directory, flags, Mode::empty());
    let base = base.map_err(|errno| CopyError::Write { path: to.directory.clone(), source: errno.into() })?;
    let mut tree = Tree { to, base, open: Vec::new(), owners, root: None, wants, skipped: Vec::new() };
    let mut archive = tar::Archive::new(Bounded::new(stream));
    for entry in archive.entries().map_err(CopyError::Archive)? {
        tree.entry(&mut entry.map_err(CopyError::Archive)?)?;
    }
    tree.leave(0)?;
    match tree.root {
        Some(_) => Ok(tree.skipped),
        None => Err(CopyError::Nothing),
    }
}

/// The files that are being written.
struct Tree<'a> {
    to: &'a Destination,
    base: OwnedFd,
    /// The directories from the base to where the stream is.
    open: Vec<Directory>,
    owners: Owners,
    /// The first component of every name in the stream.
    root: Option<OsString>,
    wants: Wants<'a>,
    skipped: Vec<PathBuf>,
}

type Wants<'a> = &'a mut dyn FnMut(&Found<'_>) -> Result<bool, CopyError>;

struct Directory {
    name: OsString,
    fd: OwnedFd,
    /// What to make of it when all in it is written: it must stay writable until then.
    finally: Option<Attributes>,
}

#[derive(Debug, Clone, Copy)]
struct Attributes {
    mode: Mode,
    time: Timespec,
    owner: Option<(Uid, Gid)>,
}

impl Attributes {
    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.time, last_modification: self.time }
    }
}

impl Tree<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), CopyError> {
        let path = self.place(&entry.path_bytes())?;
        let attributes = self.attributes(entry);
        let is_root = path.len() == usize::from(!matches!(self.to.root, Root::Destination));
        if is_root && self.to.only_directory && entry.header().entry_type() != EntryType::Directory {
            return Err(CopyError::NoDirectory { path: self.path(path.first().map(OsString::as_os_str)) });
        }
        let Some((name, parents)) = path.split_last() else {
            // The destination itself, which exists and stays as it is.
            return self.enter(&[]);
        };
        let is_directory = entry.header().entry_type() == EntryType::Directory;
        if !(self.wants)(&Found { path: &path, is_directory, size: entry.size() })? {
            return Ok(());
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                self.enter(parents)?;
                self.directory(name, Some(attributes))
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.enter(parents)?;
                self.file(name, entry, attributes)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
                self.enter(parents)?;
                self.symlink(name, &target, attributes)
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().map(|target| target.into_owned()).unwrap_or_default();
                let target = self.place(&target)?;
                if !(self.wants)(&Found { path: &target, is_directory: false, size: 0 })? {
                    // The content came under the name that was not wanted, and does not come again.
                    self.skipped.push(path.iter().collect());
                    return Ok(());
                }
                self.hard_link(&target, parents, name)
            }
            _ => {
                self.skipped.push(path.iter().collect());
                Ok(())
            }
        }
    }

    /// The components of a name below the base. The first component of the stream's names becomes what the user asked for.
    fn place(&mut self, bytes: &[u8]) -> Result<Vec<OsString>, CopyError> {
        let hostile = |reason| CopyError::Hostile { entry: String::from_utf8_lossy(bytes).into_owned(), reason };
        if bytes.starts_with(b"/") {
            return Err(hostile("its name is absolute"));
        }
        let mut components = Vec::new();
        for component in bytes.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(hostile("its name leads out of the destination")),
                component if component.contains(&0) => return Err(hostile("its name holds a zero byte")),
                component => components.push(OsString::from_vec(component.to_vec())),
            }
        }
        if components.len() > MAX_DEPTH {
            return Err(hostile("its directories are too deep"));
        }
        if bytes.is_empty() {
            return Err(hostile("it has no name"));
        }
        // What has no name of its own, as the guest's `/`, is called `.` in the stream; then all is below that.
        let first = components.first().map_or(OsStr::new("."), OsString::as_os_str);
        let root = self.root.get_or_insert_with(|| first.to_owned());
        if let Root::Matching(pattern) = &self.to.root {
            let name = first.as_bytes();
            if name == b"." || (name != pattern && !pattern::matches(pattern, name)) {
                return Err(hostile("it is beside what was asked for"));
            }
            return Ok(components);
        }
        if root != "." {
            if root != first {
                return Err(hostile("it is beside what was asked for"));
            }
            components.remove(0);
        }
        if let Root::Named(name) = &self.to.root {
            components.insert(0, name.clone());
        }
        Ok(components)
    }

    fn attributes(&self, entry: &Entry<'_, impl Read>) -> Attributes {
        let header = entry.header();
        let seconds = header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let id = |id: io::Result<u64>| id.ok().and_then(|id| u32::try_from(id).ok()).filter(|&id| id != u32::MAX);
        let owner = match (self.owners, id(header.uid()), id(header.gid())) {
            (Owners::Kept, Some(uid), Some(gid)) => Some((Uid::from_raw(uid), Gid::from_raw(gid))),
            _ => None,
        };
        Attributes { mode: Mode::from_raw_mode(header.mode().unwrap_or(0o600) & 0o777), time, owner }
    }

    /// Makes `parents` the open directories: leaves those that are no longer needed, enters or makes the others.
    fn enter(&mut self, parents: &[OsString]) -> Result<(), CopyError> {
        let shared = self.open.iter().zip(parents).take_while(|(open, wanted)| open.name == **wanted).count();
        self.leave(shared)?;
        for name in &parents[shared..] {
            self.directory(name, None)?;
        }
        Ok(())
    }

    /// Closes all directories beyond the first `keep`, innermost first, and gives them their attributes.
    fn leave(&mut self, keep: usize) -> Result<(), CopyError> {
        while self.open.len() > keep {
            let path = self.path(None);
            if let Some(Directory { fd, finally: Some(attributes), .. }) = self.open.pop() {
                apply(fd.as_fd(), attributes).map_err(|source| CopyError::Write { path, source })?;
            }
        }
        Ok(())
    }

    /// Enters a directory of the innermost one; makes it if it is not there. One that was there keeps its attributes.
    fn directory(&mut self, name: &OsStr, attributes: Option<Attributes>) -> Result<(), CopyError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.failed(Some(name), Errno::NAMETOOLONG));
        }
        // Without attributes of its own it is as any new directory of the user's.
        let mode = if attributes.is_some() { Mode::RWXU } else { Mode::from_raw_mode(0o777) };
        let made = match rustix::fs::mkdirat(self.innermost(), name, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(self.failed(Some(name), errno)),
        };
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.innermost(), name, flags, Mode::empty()) {
            Ok(fd) => {
                let finally = attributes.filter(|_| made);
                self.open.push(Directory { name: name.to_owned(), fd, finally });
                Ok(())
            }
            Err(Errno::LOOP) => Err(CopyError::InTheWay { path: self.path(Some(name)), is: "a symbolic link" }),
            Err(Errno::NOTDIR) => {
                let link = self.kind(name) == Some(FileType::Symlink);
                let is = if link { "a symbolic link" } else { "not a directory" };
                Err(CopyError::InTheWay { path: self.path(Some(name)), is })
            }
            Err(errno) => Err(self.failed(Some(name), errno)),
        }
    }

    fn file(
        &mut self,
        name: &OsStr,
        entry: &mut Entry<'_, impl Read>,
        attributes: Attributes,
    ) -> Result<(), CopyError> {
        self.clear(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.innermost(), name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(opened.map_err(|errno| self.failed(Some(name), errno))?);
        let size = entry.size();
        let unwritten = |source| CopyError::Write { path: self.path(Some(name)), source };
        let copied = match entry.header().entry_type() {
            EntryType::GNUSparse => copy_with_holes(entry, &mut file, size),
            _ => copy(entry, &mut file),
        };
        let result = match copied {
            Ok(copied) if copied == size => apply(file.as_fd(), attributes).map_err(unwritten),
            Ok(_) => Err(CopyError::Archive(io::ErrorKind::UnexpectedEof.into())),
            Err(Side::Stream(source)) => Err(CopyError::Archive(source)),
            Err(Side::File(source)) => Err(unwritten(source)),
        };
        if result.is_err() {
            // Half a file is worse than none; the failure that is told is the one that led here.
            rustix::fs::unlinkat(self.innermost(), name, AtFlags::empty()).unwrap_or_default();
        }
        result
    }

    fn symlink(&mut self, name: &OsStr, target: &[u8], attributes: Attributes) -> Result<(), CopyError> {
        self.clear(name)?;
        let directory = self.innermost();
        let made = rustix::fs::symlinkat(OsStr::from_bytes(target), directory, name);
        made.map_err(|errno| self.failed(Some(name), errno))?;
        let timed = rustix::fs::utimensat(directory, name, &attributes.times(), AtFlags::SYMLINK_NOFOLLOW);
        timed.map_err(|errno| self.failed(Some(name), errno))?;
        if let Some((uid, gid)) = attributes.owner {
            let owned = rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            permitted(owned).map_err(|errno| self.failed(Some(name), errno))?;
        }
        Ok(())
    }

    /// A second name of a file that this stream has brought.
    fn hard_link(&mut self, target: &[OsString], parents: &[OsString], name: &OsStr) -> Result<(), CopyError> {
        let Some((target_name, target_parents)) = target.split_last() else { return Err(CopyError::Nothing) };
        self.enter(target_parents)?;
        let from = self.innermost().try_clone_to_owned();
        let from = from.map_err(|source| CopyError::Write { path: self.path(None), source })?;
        self.enter(parents)?;
        self.clear(name)?;
        let linked = rustix::fs::linkat(&from, target_name.as_os_str(), self.innermost(), name, AtFlags::empty());
        linked.map_err(|errno| self.failed(Some(name), errno))
    }

    /// Removes a file or link that has the name. Nothing else is removed: `/dev/null` is a destination that people type.
    fn clear(&self, name: &OsStr) -> Result<(), CopyError> {
        let is = match self.kind(name) {
            None => return Ok(()),
            Some(FileType::RegularFile | FileType::Symlink) => {
                return match rustix::fs::unlinkat(self.innermost(), name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(self.failed(Some(name), errno)),
                };
            }
            Some(FileType::Directory) => "a directory",
            Some(_) => "a device, pipe or socket",
        };
        Err(CopyError::InTheWay { path: self.path(Some(name)), is })
    }

    fn kind(&self, name: &OsStr) -> Option<FileType> {
        let found = rustix::fs::statat(self.innermost(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(FileType::from_raw_mode(found.st_mode))
    }

    fn innermost(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.base.as_fd(), |directory| directory.fd.as_fd())
    }

    /// As the user would write it.
    fn path(&self, name: Option<&OsStr>) -> PathBuf {
        let inside: PathBuf = self.open.iter().map(|directory| directory.name.as_os_str()).chain(name).collect();
        self.to.directory.join(inside)
    }

    fn failed(&self, name: Option<&OsStr>, errno: Errno) -> CopyError {
        CopyError::Write { path: self.path(name), source: errno.into() }
    }
}

/// Only root can give files away; for others, as with tar(1) and `cp -a`, they stay their own.
fn permitted(result: Result<(), Errno>) -> Result<(), Errno> {
    if result == Err(Errno::PERM) { Ok(()) } else { result }
}

/// Owner first: changing it may clear bits of the mode.
fn apply(fd: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    if let Some((uid, gid)) = attributes.owner {
        permitted(rustix::fs::fchown(fd, Some(uid), Some(gid)))?;
    }
    rustix::fs::fchmod(fd, attributes.mode)?;
    Ok(rustix::fs::futimens(fd, &attributes.times())?)
}
