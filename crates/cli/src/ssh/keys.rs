//! The caller's SSH keys: those in `~/.ssh`, and one of banger's own, which is let in to every VM that its user comes to.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use banger_api::ssh;
use banger_linux::file;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use crate::environment::Environment;
use crate::output::complain;

/// Why there is no key of banger's own.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nobody knows where to keep it.
    #[error("there is no place for banger's SSH key: HOME is not set")]
    Homeless,
    /// It could not be made or read.
    #[error("cannot {attempted} banger's SSH key {}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is no private SSH key", path.display())]
    Broken {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ssh_key::Error,
    },
}

impl KeyError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            KeyError::Homeless => Some("set HOME, or XDG_DATA_HOME".to_owned()),
            KeyError::File { .. } => None,
            KeyError::Broken { path, .. } => Some(format!("`rm {}`: the next command makes another", path.display())),
        }
    }
}

/// A key of banger's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedKey {
    /// The private key's file.
    pub path: PathBuf,
    /// The public key's line.
    pub public: String,
}

/// The key of banger's own, made where there is none yet.
///
/// # Errors
/// [`KeyError`].
pub fn managed(environment: &Environment) -> Result<ManagedKey, KeyError> {
    let directory = environment.data_dir().ok_or(KeyError::Homeless)?.join("banger");
    let path = directory.join("id_ed25519");
    let failed = |attempted| {
        let path = path.clone();
        move |source| KeyError::File { attempted, path, source }
    };
    let broken = |source| KeyError::Broken { path: path.clone(), source };
    if let Err(error) = fs::symlink_metadata(&path)
        && error.kind() == io::ErrorKind::NotFound
    {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed("make a directory for"))?;
        let key = new_key().map_err(failed("find random bytes for"))?;
        let text = key.to_openssh(LineEnding::LF).map_err(broken)?;
        // Where two do this at the same time, both go on with the first one's.
        file::create_once(&path, text.as_bytes(), 0o600).map_err(failed("write"))?;
    }
    let text = fs::read_to_string(&path).map_err(failed("read"))?;
    let key = PrivateKey::from_openssh(&text).map_err(broken)?;
    Ok(ManagedKey { public: key.public_key().to_openssh().map_err(broken)?, path })
}

fn new_key() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled += rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    key.set_comment("banger");
    Ok(key)
}

/// All keys that a new VM is to let in: banger's own first, then those in `~/.ssh`. A VM is worth having without any, so what
/// cannot be had is only said.
pub fn for_new_vm(environment: &Environment) -> Vec<String> {
    let mut keys = Vec::new();
    match managed(environment) {
        Ok(key) => keys.push(key.public),
        // A service without a home does not use SSH, and is not to hear of it with every VM.
        Err(KeyError::Homeless) => {}
        Err(error) => complain(&format!("warning: {}", crate::failure::chain(&error))),
    }
    if let Some(home) = environment.home() {
        keys.extend(public_keys(&home.join(".ssh")));
    }
    while ssh::flaw_of_all(&keys).is_some() {
        keys.pop();
    }
    keys
}

/// The public keys in a directory, by the order of their files' names. What is no key is nobody's business here.
fn public_keys(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pub") && path.is_file());
    paths.sort();
    let first_line = |path: PathBuf| -> Option<String> {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().next()?.trim();
        ssh::flaw(line).is_none().then(|| line.to_owned())
    };
    paths.into_iter().filter_map(first_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn at(home: &Path) -> Environment {
        Environment::new([("HOME".into(), home.into())].into_iter(), "/bin/banger".into())
    }

    #[test]
    fn the_key_is_made_once_and_is_its_users_alone() {
        let home = tempfile::tempdir().unwrap();
        let keys: Vec<ManagedKey> = std::thread::scope(|scope| {
            let make = || managed(&at(home.path())).unwrap();
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(keys[0].path, home.path().join(".local/share/banger/id_ed25519"));
        assert_eq!((mode(&keys[0].path), mode(keys[0].path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(ssh::flaw(&keys[0].public), None);
    }

    #[test]
    fn a_file_that_is_no_key_is_named_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = managed(&at(home.path())).unwrap().path;
        fs::write(&path, "precious").unwrap();
        assert!(matches!(managed(&at(home.path())), Err(KeyError::Broken { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_new_vm_lets_in_the_public_keys_and_nothing_that_is_none() {
        const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1dCBub3QgYSByZWFsIG9uZSBhdCBhbGwhISEh dev@here";
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        fs::write(ssh.join("id_ed25519.pub"), format!("{KEY}\n")).unwrap();
        fs::write(ssh.join("id_ed25519"), "private").unwrap();
        fs::write(ssh.join("odd.pub"), "command=\"x\" ssh-ed25519 AAAA").unwrap();
        fs::write(ssh.join("binary.pub"), [0xff, 0xfe]).unwrap();
        let keys = for_new_vm(&at(home.path()));
        assert_eq!(keys.len(), 2);
        assert_eq!(keys[1], KEY);
        // As many as a VM may have, and no refusal for more.
        for number in 0..100 {
            fs::write(ssh.join(format!("{number}.pub")), KEY.replace("GJ1", &format!("{number:03}"))).unwrap();
        }
        assert_eq!(for_new_vm(&at(home.path())).len(), ssh::MAX_KEYS);
    }

    #[test]
    fn without_a_home_there_is_none() {
        let environment = Environment::new(std::iter::empty(), "/bin/banger".into());
        assert!(matches!(managed(&environment), Err(KeyError::Homeless)));
        assert_eq!(for_new_vm(&environment), [""; 0]);
    }
}
