//! Who may log in by SSH beside those whom the users' own files name.
//!
//! sshd(8) is told once, by a file of ours in its directory of configurations, to look into a directory of ours as well. It
//! looks there at each login, so that keys come and go without its being told. No file of a user's is ever touched.

use std::fs;
use std::io;
use std::path::Path;

use banger_protocol::boot::is_login_name;
use banger_protocol::ssh;

use super::BootError;
use super::identity::put;

/// The directory with a file of keys for each login name.
const KEYS: &str = "etc/ssh/banger-keys.d";

/// Read by sshd where its own configuration includes the directory, as those of distributions do.
const DROP_IN: &str = "etc/ssh/sshd_config.d/50-banger.conf";

const ROOT: &str = "root";

/// Writes the keys, and what makes sshd read them, below `root`. Those that an earlier boot was given go.
///
/// # Errors
/// [`BootError::SshKey`] where a key or the name is none; nothing is written then. [`BootError::Write`].
pub fn authorize(keys: &[String], user: Option<&str>, root: &Path) -> Result<(), BootError> {
    if let Some((_, flaw)) = ssh::flaw_of_all(keys) {
        return Err(BootError::SshKey { flaw });
    }
    if user.is_some_and(|name| !is_login_name(name)) {
        return Err(BootError::SshKey { flaw: "the user that it is for has no login name" });
    }
    let directory = root.join(KEYS);
    for made in [&directory, &root.join("etc/ssh/sshd_config.d")] {
        fs::create_dir_all(made).map_err(|source| BootError::Write { path: made.clone(), source })?;
    }
    let mut text = String::from("# By banger, at each boot.\n");
    keys.iter().for_each(|key| text.extend([key, "\n"]));
    // Read by sshd as the user who wants to log in: everybody may.
    for name in [Some(ROOT), user].into_iter().flatten() {
        put(&directory.join(name), &text, 0o644)?;
    }
    forget_others(&directory, user).map_err(|source| BootError::Write { path: directory, source })?;
    let drop_in = format!(
        "# By banger, at each boot. Keys of banger's own, beside those that users have in their homes.\n\
         AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /{KEYS}/%u\n"
    );
    put(&root.join(DROP_IN), &drop_in, 0o644)
}

fn forget_others(directory: &Path, user: Option<&str>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != ROOT && user.is_none_or(|user| name != user) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1dCBub3QgYSByZWFsIG9uZSBhdCBhbGwhISEh one";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vciBpcyB0aGlzIG9uZSwgbm90IGF0IGFsbCEh two";

    fn guest() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        dir
    }

    fn lines(root: &Path, name: &str) -> Vec<String> {
        let text = fs::read_to_string(root.join(KEYS).join(name)).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn root_and_the_user_have_the_keys_and_sshd_is_told() {
        let dir = guest();
        authorize(&[ONE.to_owned(), TWO.to_owned()], Some("dev"), dir.path()).unwrap();
        assert_eq!(lines(dir.path(), "root"), [ONE, TWO]);
        assert_eq!(lines(dir.path(), "dev"), [ONE, TWO]);
        let told = fs::read_to_string(dir.path().join(DROP_IN)).unwrap();
        assert!(told.ends_with(" .ssh/authorized_keys2 /etc/ssh/banger-keys.d/%u\n"), "{told}");
    }

    #[test]
    fn what_is_taken_away_is_gone_and_other_files_stay() {
        let dir = guest();
        let users = dir.path().join("etc/ssh/sshd_config.d/10-own.conf");
        authorize(&[ONE.to_owned()], Some("dev"), dir.path()).unwrap();
        fs::write(&users, "own").unwrap();
        authorize(&[TWO.to_owned()], None, dir.path()).unwrap();
        assert_eq!(lines(dir.path(), "root"), [TWO]);
        assert_eq!(fs::read_dir(dir.path().join(KEYS)).unwrap().count(), 1);
        authorize(&[], None, dir.path()).unwrap();
        assert_eq!(lines(dir.path(), "root"), [""; 0]);
        assert_eq!(fs::read_to_string(users).unwrap(), "own");
    }

    #[test]
    fn what_is_no_key_or_no_name_is_not_written() {
        let dir = guest();
        for (key, user) in [(format!("{ONE}\n{TWO}"), None), (ONE.to_owned(), Some("../sshd_config"))] {
            assert!(matches!(authorize(&[key], user, dir.path()), Err(BootError::SshKey { .. })));
        }
        assert!(!dir.path().join("etc/ssh").exists());
    }
}
