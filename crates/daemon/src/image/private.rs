//! What apt needs of the host's and not everybody may read: keys, and certificates of private mirrors. A build that is not root
//! on the host gets copies, with their owners, for as long as it takes.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::ImageError;
use super::apt::{Mirror, Mirrors};
use super::containment::{self, AT, Obstacle};

/// The directory of the copies, below the scratch directory.
const DIRECTORY: &str = "apt";

/// Mirrors and options of apt with the files that they name, where a build can read them. Others' paths stay.
///
/// # Errors
/// [`ImageError::Private`].
pub fn copies(mirrors: &Mirrors, acquire: &[String], scratch: &Path) -> Result<(Mirrors, Vec<String>), ImageError> {
    let mut copies = Copies { scratch, count: 0 };
    let mut mirrors = mirrors.clone();
    for mirror in [Some(&mut mirrors.archive), mirrors.security.as_mut()].into_iter().flatten() {
        for (_, value) in mirror.options.iter_mut().filter(|(name, _)| name == "signed-by") {
            if value.starts_with('/') {
                let paths = value.split([',', '\n']).map(|path| copies.readable(path.trim()));
                *value = paths.collect::<Result<Vec<_>, _>>()?.join(",");
            }
        }
    }
    let acquire: Result<Vec<String>, ImageError> = acquire.iter().map(|option| copies.option(option)).collect();
    Ok((mirrors, acquire?))
}

/// Shuts a directory to all but root.
///
/// # Errors
/// [`ImageError::File`].
pub fn close(path: &Path) -> Result<(), ImageError> {
    std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|source| ImageError::File {
        attempted: "close",
        path: path.to_owned(),
        source,
    })
}

/// Whether the packages themselves can be read, where they are on this host.
///
/// # Errors
/// [`Obstacle::Packages`].
pub fn packages(mirrors: &Mirrors) -> Result<(), Obstacle> {
    for Mirror { uri, .. } in [Some(&mirrors.archive), mirrors.security.as_ref()].into_iter().flatten() {
        let Some(path) = uri.strip_prefix("file:").or_else(|| uri.strip_prefix("copy:")) else { continue };
        let path = PathBuf::from(format!("/{}", path.trim_start_matches('/')));
        if !is_public(&path) {
            return Err(Obstacle::Packages { path });
        }
    }
    Ok(())
}

struct Copies<'a> {
    scratch: &'a Path,
    count: u32,
}

impl Copies<'_> {
    /// An option of apt, `name "value"`, whose value may be a file.
    fn option(&mut self, option: &str) -> Result<String, ImageError> {
        match option.split_once('"') {
            Some((name, value)) => Ok(format!("{name}\"{}\"", self.readable(value.trim_end_matches('"'))?)),
            None => Ok(option.to_owned()),
        }
    }

    /// Where the build reads a file. What is none, or not there, is for apt to judge.
    fn readable(&mut self, path: &str) -> Result<String, ImageError> {
        let original = Path::new(path);
        let Some(name) = original.file_name().filter(|_| original.is_absolute() && original.is_file()) else {
            return Ok(path.to_owned());
        };
        if is_public(original) {
            return Ok(path.to_owned());
        }
        self.count += 1;
        // apt tells a keyring's format by the end of its name.
        let copy = self.scratch.join(DIRECTORY).join(format!("{}-{}", self.count, name.to_string_lossy()));
        copy_private(original, &copy).map_err(|source| ImageError::Private { path: original.to_owned(), source })?;
        Ok(containment::inside(&copy, self.scratch).display().to_string())
    }
}

/// Whether a user without rights can read it in a build's namespace, which covers a directory of the host's.
fn is_public(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let allows = |path: &Path, mode: u32| std::fs::metadata(path).is_ok_and(|found| found.mode() & mode == mode);
    allows(&path, 0o004) && !path.starts_with(AT) && path.ancestors().skip(1).all(|above| allows(above, 0o001))
}

/// The copy is never open to more users than the original: it is written before it changes hands.
fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(directory) = to.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
    }
    let mut original = std::fs::File::open(from)?;
    let mut copy = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(to)?;
    io::copy(&mut original, &mut copy)?;
    let found = original.metadata()?;
    fchown(&copy, Some(found.uid()), Some(found.gid()))?;
    copy.set_permissions(Permissions::from_mode(found.mode() & 0o440))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::apt;

    fn write(path: &Path, mode: u32) {
        std::fs::write(path, "key").unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn only_what_is_private_is_copied_and_stays_so() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let (scratch, public, private) =
            (dir.path().join("scratch"), dir.path().join("public.gpg"), dir.path().join("private.asc"));
        std::fs::create_dir(&scratch).unwrap();
        write(&public, 0o644);
        write(&private, 0o640);
        let list = format!(
            "deb [signed-by={}] http://mirror.example.org/debian bookworm main\n\
             deb [signed-by={}] http://mirror.example.org/debian bookworm-security main\n",
            public.display(),
            private.display()
        );
        let mirrors = apt::mirrors(&apt::parse_list(&list)).unwrap();
        let acquire = [
            format!("Acquire::https::SslKey \"{}\"", private.display()),
            "Acquire::http::Proxy \"http://proxy.example.org:3128\"".to_owned(),
            "Acquire::Retries 3".to_owned(),
        ];
        let (copied, options) = copies(&mirrors, &acquire, &scratch).unwrap();
        assert_eq!(copied.archive, mirrors.archive);
        assert_eq!(copied.keyrings().last(), Some("/tmp/apt/1-private.asc"));
        assert_eq!(options[0], "Acquire::https::SslKey \"/tmp/apt/2-private.asc\"");
        assert_eq!(options[1..], acquire[1..]);
        let copy = scratch.join("apt/1-private.asc");
        assert_eq!(std::fs::read(&copy).unwrap(), b"key");
        assert_eq!(std::fs::metadata(&copy).unwrap().mode() & 0o7777, 0o440);
    }

    #[test]
    fn what_is_public_can_be_reached() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = dir.path().join("file");
        write(&file, 0o644);
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(!is_public(&file), "its directory is private");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o711)).unwrap();
        assert!(is_public(&file));
        write(&file, 0o640);
        assert!(!is_public(&file));
        let covered = tempfile::NamedTempFile::new_in(AT).unwrap();
        write(covered.path(), 0o644);
        assert!(!is_public(covered.path()), "the build sees its own files there");
    }

    #[test]
    fn packages_of_this_host_must_be_public() {
        let mirrors = |uri: &str| apt::mirrors(&apt::parse_list(&format!("deb {uri} bookworm main"))).unwrap();
        assert!(packages(&mirrors("http://mirror.example.org/debian")).is_ok());
        assert!(packages(&mirrors("file:///usr/debian")).is_err(), "it is not there");
    }
}
