//! The files of an image while it is being made: a directory that will be somebody's `/`. Every path is resolved inside of
//! it, links included (openat2(2), `RESOLVE_IN_ROOT`), so that a link to `/etc` in the image never leads to the host's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use banger_linux::file;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Such a directory. Its user is root, and all that is made in it belongs to root.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

/// Why a file in the tree could not be handled.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted} {path} in the image's files")]
pub struct TreeError {
    /// What was attempted.
    pub attempted: &'static str,
    /// The path, as the image will see it.
    pub path: String,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Tree {
    /// Opens a directory as a tree.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn open(path: &Path) -> Result<Tree, TreeError> {
        // Who filled the tree may have put a link in its place.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|source| TreeError {
            attempted: "open",
            path: "/".into(),
            source: source.into(),
        })?;
        Ok(Tree { root })
    }

    /// A file's content.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let mut content = Vec::new();
        // A pipe in a file's place has no end to wait for.
        self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK)
            .and_then(|fd| File::from(fd).read_to_end(&mut content))
            .map_err(failed("read", path))?;
        Ok(content)
    }

    /// A file's content as text.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn read_text(&self, path: &str) -> Result<String, TreeError> {
        let invalid = |error| failed("read", path)(io::Error::new(io::ErrorKind::InvalidData, error));
        String::from_utf8(self.read(path)?).map_err(invalid)
    }

    /// The names in a directory, sorted; none where there is no such directory.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn names(&self, path: &str) -> Result<Vec<String>, TreeError> {
        let directory = match self.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.map_err(failed("list", path))?,
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(directory).map_err(|error| failed("list", path)(error.into()))? {
            let entry = entry.map_err(|error| failed("list", path)(error.into()))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Writes a file in place of what is there; directories on the way are made. `mode` is not subject to the umask.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> Result<(), TreeError> {
        let written = self.replace(path, |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?);
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
            (&file).write_all(content)
        });
        written.map_err(failed("write", path))
    }

    /// Makes a symbolic link in place of what is there.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn link(&self, path: &str, target: &str) -> Result<(), TreeError> {
        self.replace(path, |parent, name| Ok(rustix::fs::symlinkat(target, parent, name)?))
            .map_err(failed("link", path))
    }

    /// Makes a character device that everybody may use in place of what is there.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn device(&self, path: &str, (major, minor): (u32, u32)) -> Result<(), TreeError> {
        let made = self.replace(path, |parent, name| {
            let (kind, number) = (FileType::CharacterDevice, rustix::fs::makedev(major, minor));
            rustix::fs::mknodat(parent, name, kind, Mode::empty(), number)?;
            std::fs::set_permissions(in_directory(parent, name), std::fs::Permissions::from_mode(0o666))
        });
        made.map_err(failed("make the device", path))
    }

    /// Makes an empty directory in place of what is there.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn directory(&self, path: &str) -> Result<(), TreeError> {
        self.remove(path)?;
        self.make_directories(path).map(drop).map_err(failed("make", path))
    }

    /// Removes a file, a link, or a directory with all that is in it. What is not there is no error.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn remove(&self, path: &str) -> Result<(), TreeError> {
        let (parent, name) = split(path);
        let removed = match self.open_in(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(parent) => file::remove_tree(&in_directory(&parent, name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(failed("remove", path))
    }

    fn replace(&self, path: &str, make: impl FnOnce(&OwnedFd, &str) -> io::Result<()>) -> io::Result<()> {
        let (parent, name) = split(path);
        let parent = self.make_directories(parent)?;
        file::remove_tree(&in_directory(&parent, name))?;
        make(&parent, name)
    }

    fn make_directories(&self, path: &str) -> io::Result<OwnedFd> {
        match self.open_in(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        let (above, name) = split(path);
        let parent = self.make_directories(above)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            // Made by somebody else, or a link that leads nowhere: opening it tells which.
            Ok(()) | Err(Errno::EXIST) => self.open_in(path, OFlags::PATH | OFlags::DIRECTORY),
            Err(error) => Err(error.into()),
        }
    }

    fn open_in(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { "." } else { path };
        Ok(rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)?)
    }
}

/// A name in an open directory, as a path that no link on the way to that directory can change.
fn in_directory(directory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

fn split(path: &str) -> (&str, &str) {
    let path = path.trim_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
}

fn failed(attempted: &'static str, path: &str) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree beside a directory that nobody may touch.
    fn tree() -> (tempfile::TempDir, Tree, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir(&root).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "untouched").unwrap();
        let tree = Tree::open(&root).unwrap();
        (dir, tree, outside)
    }

    #[test]
    fn files_are_made_with_their_directories() {
        let (dir, tree, _) = tree();
        let root = dir.path().join("root");
        tree.write("/etc/a/b.conf", b"one", 0o640).unwrap();
        tree.write("etc/a/b.conf", b"two", 0o600).unwrap();
        assert_eq!(tree.read_text("/etc/a/b.conf").unwrap(), "two");
        let mode = std::fs::metadata(root.join("etc/a/b.conf")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        tree.link("/etc/a/link", "/etc/a/b.conf").unwrap();
        assert_eq!(tree.read("/etc/a/link").unwrap(), b"two");
        assert_eq!(tree.names("/etc/a").unwrap(), ["b.conf", "link"]);
        tree.remove("/etc/a").unwrap();
        tree.remove("/etc/a").unwrap();
        assert!(!root.join("etc/a").exists() && tree.names("/etc/a").unwrap().is_empty());
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let (dir, tree, outside) = tree();
        let root = dir.path().join("root");
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../outside", root.join("relative")).unwrap();
        symlink(outside.join("file"), root.join("direct")).unwrap();
        assert!(tree.read("/absolute/file").is_err());
        assert!(tree.read("/relative/file").is_err());
        assert!(tree.read("/direct").is_err());
        symlink(&outside, dir.path().join("link")).unwrap();
        assert!(Tree::open(&dir.path().join("link")).is_err());
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert_eq!(tree.read("/pipe").unwrap(), b"");
        assert!(tree.write("/absolute/file", b"spoilt", 0o644).is_err());
        assert!(tree.write("/relative/file", b"spoilt", 0o644).is_err());
        tree.write("/direct", b"a file of the tree's own", 0o644).unwrap();
        tree.remove("/absolute").unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"untouched");
        assert_eq!(tree.read("/direct").unwrap(), b"a file of the tree's own");
    }
}
