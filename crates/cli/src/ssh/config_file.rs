//! A file of banger's own beside `~/.ssh/config`, and one line in that which includes it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use banger_linux::file;

use crate::environment::Environment;

/// The line above ours, by which it is found again.
const MARK: &[u8] = b"# The next line is of `banger ssh-config --install`, and goes with `--uninstall`.\n";

/// The same, where the whole file is ours.
const MARK_OF_OURS: &[u8] =
    b"# This file was made by `banger ssh-config --install`, and goes with `--uninstall` if it is still as it was.\n";

/// Both files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// banger's own.
    pub own: PathBuf,
    /// The user's.
    pub users: PathBuf,
}

/// Why they could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// Nobody knows where they are.
    #[error("cannot find ~/.ssh: HOME is not set")]
    Homeless,
    /// One could not be read or written.
    #[error("cannot {attempted} {}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ConfigFileError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            ConfigFileError::Homeless => Some("set HOME".to_owned()),
            // As where a program makes the file from elsewhere and it is read-only.
            ConfigFileError::File { .. } => {
                Some("`banger ssh-config --print` prints what to add to it by other means".to_owned())
            }
        }
    }
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something was written or removed.
    Changed,
    /// All was so already.
    Unchanged,
}

impl Files {
    /// Those of the caller.
    ///
    /// # Errors
    /// [`ConfigFileError::Homeless`].
    pub fn of(environment: &Environment) -> Result<Files, ConfigFileError> {
        let (Some(home), Some(config)) = (environment.home(), environment.config_dir()) else {
            return Err(ConfigFileError::Homeless);
        };
        Ok(Files { own: config.join("banger/ssh_config"), users: home.join(".ssh/config") })
    }

    /// The present content of banger's own file; `None` if there is no file.
    ///
    /// # Errors
    /// [`ConfigFileError`].
    pub fn own_text(&self) -> Result<Vec<u8>, ConfigFileError> {
        Ok(read(&self.own)?.unwrap_or_default())
    }

    /// Writes banger's own file, and sees to it that the user's includes it, before all else that is in it.
    ///
    /// # Errors
    /// [`ConfigFileError`].
    pub fn install(&self, block: &[u8]) -> Result<Outcome, ConfigFileError> {
        let own = put(&self.own, read(&self.own)?.as_deref(), block)?;
        let before = read(&self.users)?;
        let included = with_include(before.as_deref(), &self.own);
        let users = put(&self.users, before.as_deref(), &included)?;
        Ok(if own == Outcome::Changed { own } else { users })
    }

    /// Takes both back.
    ///
    /// # Errors
    /// [`ConfigFileError`].
    pub fn uninstall(&self) -> Result<Outcome, ConfigFileError> {
        let mut outcome = Outcome::Unchanged;
        if let Some(before) = read(&self.users)? {
            let after = without_include(&before, &self.own);
            let is_ours = before.starts_with(MARK_OF_OURS) && after.is_empty();
            let is_link = fs::symlink_metadata(&self.users).is_ok_and(|found| found.is_symlink());
            if is_ours && !is_link {
                remove(&self.users)?;
                outcome = Outcome::Changed;
            } else if put(&self.users, Some(&before), &after)? == Outcome::Changed {
                outcome = Outcome::Changed;
            }
        }
        if read(&self.own)?.is_some() {
            remove(&self.own)?;
            outcome = Outcome::Changed;
        }
        if let Some(directory) = self.own.parent() {
            // Unless there is something else in it, which stays.
            drop(fs::remove_dir(directory));
        }
        Ok(outcome)
    }
}

/// The user's file with our line at its top, once.
fn with_include(text: Option<&[u8]>, own: &Path) -> Vec<u8> {
    let rest = without_include(text.unwrap_or_default(), own);
    let was_ours = text.is_none_or(|text| text.starts_with(MARK_OF_OURS));
    let mut all = if was_ours { MARK_OF_OURS.to_vec() } else { MARK.to_vec() };
    all.extend(include(own));
    all.extend(rest);
    all
}

/// The user's file without our line and its mark; every other byte as it was.
fn without_include(text: &[u8], own: &Path) -> Vec<u8> {
    let mut rest = Vec::with_capacity(text.len());
    let mut lines = text.split_inclusive(|&byte| byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if line == MARK || line == MARK_OF_OURS {
            // Of an earlier place of our file, too.
            lines.next_if(|next| {
                next.starts_with(b"Include ") && next.trim_ascii_end().ends_with(b"banger/ssh_config\"")
            });
        } else if line.trim_ascii() != include(own).trim_ascii() {
            rest.extend(line);
        }
    }
    rest
}

fn include(own: &Path) -> Vec<u8> {
    let mut line = b"Include \"".to_vec();
    line.extend(own.as_os_str().as_bytes());
    line.extend(b"\"\n");
    line
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ConfigFileError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigFileError::File { attempted: "read", path: path.to_owned(), source }),
    }
}

fn remove(path: &Path) -> Result<(), ConfigFileError> {
    fs::remove_file(path).map_err(|source| ConfigFileError::File { attempted: "remove", path: path.to_owned(), source })
}

/// Gives a file its text, where it has another: one that is there keeps its mode, its owner and the link that leads to it.
fn put(path: &Path, before: Option<&[u8]>, text: &[u8]) -> Result<Outcome, ConfigFileError> {
    let failed = |source| ConfigFileError::File { attempted: "write", path: path.to_owned(), source };
    match before {
        Some(before) if before == text => return Ok(Outcome::Unchanged),
        Some(_) => file::rewrite_atomic(path, text).map_err(failed)?,
        None => {
            // A link that leads to no file yet leads to the one that is made.
            let target = path.parent().map(|parent| parent.join(fs::read_link(path).unwrap_or_default()));
            let target = target.filter(|_| path.is_symlink()).unwrap_or_else(|| path.to_owned());
            let directory = target.parent().unwrap_or(Path::new("/"));
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
            file::write_atomic(&target, text, 0o600).map_err(failed)?;
        }
    }
    Ok(Outcome::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const BLOCK: &[u8] = b"Host *.vm\n";

    fn files(home: &Path) -> Files {
        Files { own: home.join(".config/banger/ssh_config"), users: home.join(".ssh/config") }
    }

    /// A user's file with these bytes.
    fn with(text: &[u8]) -> (tempfile::TempDir, Files) {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path());
        fs::create_dir(home.path().join(".ssh")).unwrap();
        fs::write(&files.users, text).unwrap();
        (home, files)
    }

    #[test]
    fn what_was_there_is_there_again_byte_for_byte() {
        for text in [
            &b""[..],
            b"Host a\n  User b\n",
            b"no end of line",
            b"\n\n\r\n\t#\xff\xfe\n",
            b"Include other\n",
            b"Include \"/elsewhere/banger/ssh_config\"\n",
        ] {
            let (_home, files) = with(text);
            assert_eq!(files.install(BLOCK).unwrap(), Outcome::Changed);
            let installed = fs::read(&files.users).unwrap();
            assert!(installed.starts_with(MARK) && installed.ends_with(text));
            assert_eq!(fs::read(&files.own).unwrap(), BLOCK);
            let written = fs::metadata(&files.users).unwrap();
            assert_eq!(files.install(BLOCK).unwrap(), Outcome::Unchanged);
            assert_eq!(fs::metadata(&files.users).unwrap().ino(), written.ino());
            assert_eq!(files.uninstall().unwrap(), Outcome::Changed);
            assert_eq!(fs::read(&files.users).unwrap(), text);
            assert!(!files.own.parent().unwrap().exists());
            assert_eq!(files.uninstall().unwrap(), Outcome::Unchanged);
        }
    }

    #[test]
    fn what_was_not_there_is_gone_again_and_private_meanwhile() {
        let home = tempfile::tempdir().unwrap();
        let files = files(home.path());
        files.install(BLOCK).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&files.users), mode(&files.own)), (0o600, 0o600));
        assert_eq!(mode(files.users.parent().unwrap()), 0o700);
        files.install(b"Host *.lab\n").unwrap();
        assert_eq!(fs::read(&files.own).unwrap(), b"Host *.lab\n");
        files.uninstall().unwrap();
        assert!(!files.users.exists() && !files.own.exists());
        // What its user has added since stays.
        files.install(BLOCK).unwrap();
        let mut text = fs::read(&files.users).unwrap();
        text.extend(b"Host mine\n");
        fs::write(&files.users, text).unwrap();
        assert_eq!(files.install(BLOCK).unwrap(), Outcome::Unchanged);
        files.uninstall().unwrap();
        assert_eq!(fs::read(&files.users).unwrap(), b"Host mine\n");
    }

    #[test]
    fn links_modes_and_a_move_are_kept_track_of() {
        let (home, files) = with(b"");
        let real = home.path().join("dotfiles");
        fs::rename(&files.users, &real).unwrap();
        fs::write(&real, "Host a\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        symlink("../dotfiles", &files.users).unwrap();
        files.install(BLOCK).unwrap();
        assert!(files.users.is_symlink());
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o7777, 0o644);
        // Another place of our file: its line replaces the one before.
        let moved = Files { own: home.path().join("xdg/banger/ssh_config"), ..files.clone() };
        moved.install(BLOCK).unwrap();
        let text = fs::read_to_string(&real).unwrap();
        assert_eq!(text.matches("Include").count(), 1, "{text}");
        moved.uninstall().unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"Host a\n");
        // A link that leads nowhere yet.
        fs::remove_file(&real).unwrap();
        files.install(BLOCK).unwrap();
        assert!(files.users.is_symlink() && real.is_file());
        files.uninstall().unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"");
    }
}
