//! The API's socket. Its file exists only while it accepts connections: it is bound and listens under another name
//! first.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;

use crate::paths::Paths;

/// How many connections may wait for accept(2); the kernel's own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// A socket that listens but does not have its name yet.
#[derive(Debug)]
pub struct NewSocket {
    listener: UnixListener,
    temporary: PathBuf,
    path: PathBuf,
}

/// The file of a socket that has its name.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempted} {}", path.display())]
pub struct SocketError {
    attempted: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl SocketError {
    /// What to do.
    pub fn help(&self) -> String {
        let path = self.path.display();
        match self.source.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::DirectoryNotEmpty => {
                format!("move away what is at {path}, which is no socket: `ls -ld {path}`")
            }
            io::ErrorKind::PermissionDenied => {
                "run it as root, or set BANGER_RUNTIME_DIR to a directory of your own".to_owned()
            }
            _ => {
                let dir = self.path.parent().unwrap_or(Path::new("/")).display();
                format!("see that {dir} takes writes and has space: `df {dir}`; or set BANGER_RUNTIME_DIR to another")
            }
        }
    }
}

impl NewSocket {
    /// Listens, open to root and to the group `banger` if it exists. The caller holds the locks, so a file with the
    /// temporary name is left from a daemon that was killed here.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn listen(paths: &Paths) -> Result<NewSocket, SocketError> {
        let (path, temporary) = (paths.socket(), paths.new_socket());
        banger_linux::file::remove_tree(&temporary).map_err(failed("remove the socket", &temporary))?;
        match listen(&temporary) {
            Ok(listener) => Ok(NewSocket { listener, temporary, path }),
            Err(source) => Err(SocketError { attempted: "listen on", path: temporary, source }),
        }
    }

    /// Gives it its name, in place of a killed daemon's socket.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn announce(self) -> Result<(UnixListener, SocketFile), SocketError> {
        let id = id(&self.temporary).map_err(failed("look at the socket", &self.temporary))?;
        std::fs::rename(&self.temporary, &self.path).map_err(failed("put the socket at", &self.path))?;
        Ok((self.listener, SocketFile { path: self.path, id }))
    }
}

impl SocketFile {
    /// Removes it, unless another socket has its name by now.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn remove(self) -> Result<(), SocketError> {
        let removed = match id(&self.path) {
            Ok(found) if found == self.id => std::fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove the socket", &self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Gives the file its owner and mode before anybody can connect.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    match banger_linux::host::group_id("banger") {
        Some(gid) => {
            chown(path, None, Some(gid))?;
            std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
        }
        None => std::fs::set_permissions(path, Permissions::from_mode(0o600))?,
    }
    rustix::net::listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

fn failed(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_that_is_there_can_be_connected_to_and_another_daemons_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let paths = Paths { state: at("s"), runtime: dir.path().to_owned(), config: at("c"), claims: at("g") };
        // The remains of killed daemons: one was killed while it listened, one before.
        drop(std::os::unix::net::UnixListener::bind(paths.socket()).unwrap());
        drop(std::os::unix::net::UnixListener::bind(paths.new_socket()).unwrap());
        let first = NewSocket::listen(&paths).unwrap();
        let refused = std::os::unix::net::UnixStream::connect(paths.socket()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let (first, first_file) = first.announce().unwrap();
        std::os::unix::net::UnixStream::connect(paths.socket()).unwrap();
        assert!(!paths.new_socket().exists());
        let (_second, second_file) = NewSocket::listen(&paths).unwrap().announce().unwrap();
        first_file.remove().unwrap();
        drop(first);
        std::os::unix::net::UnixStream::connect(paths.socket()).unwrap();
        second_file.remove().unwrap();
        assert!(!paths.socket().exists());
        std::fs::create_dir(paths.socket()).unwrap();
        let error = NewSocket::listen(&paths).unwrap().announce().unwrap_err();
        assert_eq!(error.to_string(), format!("cannot put the socket at {}", paths.socket().display()));
        assert!(error.help().contains(&format!("`ls -ld {}`", paths.socket().display())), "{}", error.help());
    }
}
