//! The user whom the guest has beside root: the person who created the machine, so that files and habits fit.
//!
//! Written before the init starts, by an own hand, as a guest need not have useradd(8). The line in `/etc/passwd` comes last:
//! who finds it there finds everything else. What the guest has of its own is left alone.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use banger_protocol::boot::User;

use super::BootError;
use crate::clock;
use crate::users;

/// The group that may read hashed passwords, where the guest has it.
const SHADOW_GROUP: &str = "shadow";

const NANOS_PER_DAY: u64 = 86_400 * 1_000_000_000;

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest has the user, by this boot or by an earlier one.
    There,
    /// It does not get the user, for this reason.
    Left(String),
}

/// Sees to it that the guest below `root` has the user.
///
/// # Errors
/// [`BootError::Write`], with what was written before left as it is: the next boot goes on with it.
pub fn ensure(user: &User, root: &Path) -> Result<Outcome, BootError> {
    if let Some(flaw) = user.flaw() {
        return Ok(Outcome::Left(format!("the user {:?} was not made: {flaw}", user.name)));
    }
    let passwd = read(root, "etc/passwd")?;
    if let Some(outcome) = existing(user, &passwd) {
        return Ok(outcome);
    }
    let group = read(root, "etc/group")?;
    if is_free(&group, &user.name, user.gid) {
        append(root, "etc/group", &group, &format!("{}:x:{}:\n", user.name, user.gid), 0o644)?;
        if root.join("etc/gshadow").exists() {
            append_secret(root, "etc/gshadow", user, "!::", &group)?;
        }
    }
    let today = clock::now() / NANOS_PER_DAY;
    append_secret(root, "etc/shadow", user, &format!("!:{today}:0:99999:7:::"), &group)?;
    make_home(user, root)?;
    allow_sudo(user, root)?;
    let shell = if root.join("bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
    let User { name, uid, gid } = user;
    append(root, "etc/passwd", &passwd, &format!("{name}:x:{uid}:{gid}::/home/{name}:{shell}\n"), 0o644)?;
    Ok(Outcome::There)
}

/// What a guest that has a user of this name or number makes of the wish.
fn existing(user: &User, passwd: &str) -> Option<Outcome> {
    let named = passwd.lines().find(|line| field(line, 0) == Some(&user.name)).map(|line| field(line, 2));
    let same = Some(user.uid.to_string());
    match (named, users::find(passwd, &user.uid.to_string())) {
        (Some(uid), _) if uid == same.as_deref() => Some(Outcome::There),
        (Some(uid), _) => {
            let uid = uid.unwrap_or_default();
            Some(Outcome::Left(format!("{} is the guest's own user {uid} and stays so, not {}", user.name, user.uid)))
        }
        (None, Some(other)) if passwd.lines().any(|line| field(line, 0) == Some(&other.name)) => {
            Some(Outcome::Left(format!("{} was not made: {} is the guest's own {}", user.name, user.uid, other.name)))
        }
        (None, _) => None,
    }
}

fn is_free(group: &str, name: &str, gid: u32) -> bool {
    let gid = gid.to_string();
    !group.lines().any(|line| field(line, 0) == Some(name) || field(line, 2) == Some(&gid))
}

fn field(line: &str, number: usize) -> Option<&str> {
    line.split(':').nth(number)
}

/// A home with the guest's own skeleton in it, made aside and then given its name. One that is there stays as it is.
fn make_home(user: &User, root: &Path) -> Result<(), BootError> {
    let home = root.join("home").join(&user.name);
    if fs::symlink_metadata(&home).is_ok() {
        return Ok(());
    }
    let aside = root.join("home").join(format!(".{}.banger-new", user.name));
    let make = || -> io::Result<()> {
        fs::create_dir_all(root.join("home"))?;
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().mode(0o700).create(&aside)?;
        copy_skeleton(&root.join("etc/skel"), &aside, user)?;
        chown(&aside, Some(user.uid), Some(user.gid))?;
        fs::rename(&aside, &home)
    };
    make().map_err(|source| BootError::Write { path: home.clone(), source })
}

/// Copies files, directories and links; there is nothing else in a skeleton.
fn copy_skeleton(from: &Path, to: &Path, user: &User) -> io::Result<()> {
    let entries = match fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (kind, path) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            fs::create_dir(&path)?;
            copy_skeleton(&entry.path(), &path, user)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &path)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &path)?;
        } else {
            continue;
        }
        lchown(&path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Without a password there is none to ask for: where sudo is installed, it does not.
fn allow_sudo(user: &User, root: &Path) -> Result<(), BootError> {
    let rules = root.join("etc/sudoers.d");
    if !root.join("usr/bin/sudo").exists() || !rules.is_dir() {
        return Ok(());
    }
    let rule = format!("# Made by banger at the first boot.\n{} ALL=(ALL:ALL) NOPASSWD: ALL\n", user.name);
    let path = rules.join(format!("banger-{}", user.name));
    // sudo passes over names with a dot in them, as the temporary one has.
    replace(&path, &rule, 0o440, None).map_err(|source| BootError::Write { path, source })
}

/// A line for the user in a file that only few may read, unless an earlier, broken boot has written it.
fn append_secret(root: &Path, name: &str, user: &User, rest: &str, group: &str) -> Result<(), BootError> {
    let text = read(root, name)?;
    if text.lines().any(|line| field(line, 0) == Some(&user.name)) {
        return Ok(());
    }
    let path = root.join(name);
    let shadow =
        group.lines().find(|line| field(line, 0) == Some(SHADOW_GROUP)).and_then(|line| field(line, 2)?.parse().ok());
    let line = format!("{}:{rest}\n", user.name);
    replace(&path, &with_line(&text, &line), 0o640, shadow).map_err(|source| BootError::Write { path, source })
}

fn append(root: &Path, name: &str, text: &str, line: &str, mode: u32) -> Result<(), BootError> {
    let path = root.join(name);
    replace(&path, &with_line(text, line), mode, None).map_err(|source| BootError::Write { path, source })
}

fn with_line(text: &str, line: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{line}")
}

fn read(root: &Path, name: &str) -> Result<String, BootError> {
    let path = root.join(name);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        // It is not understood, and so not written either.
        result => result.map_err(|source| BootError::Write { path, source }),
    }
}

/// Writes a file under another name and gives it its own. Mode and owner are those of the file before it; for a new one, the
/// ones that are given, with root as its owner.
fn replace(path: &Path, text: &str, mode: u32, group: Option<u32>) -> io::Result<()> {
    let before = fs::metadata(path).ok();
    let mode = before.as_ref().map_or(mode, |before| before.mode() & 0o7777);
    let mut aside = path.as_os_str().to_owned();
    aside.push(".banger-new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(text.as_bytes())?;
    if let Some(before) = &before {
        std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
    } else if let Some(group) = group {
        std::os::unix::fs::fchown(&file, None, Some(group))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    // A guest whose power goes must not find an empty file here: it would have no users at all.
    file.sync_all()?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nweb:x:33:33::/:/bin/sh";

    /// A guest with the files that a Debian has.
    fn guest() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text, mode) in [
            ("etc/passwd", PASSWD, 0o644),
            ("etc/group", "root:x:0:\nweb:x:33:\nusers:x:100:\n", 0o644),
            ("etc/shadow", "root:*:1:0:99999:7:::\n", 0o640),
            ("etc/gshadow", "root:*::\n", 0o640),
            ("etc/skel/.profile", "umask 022\n", 0o644),
            ("etc/skel/.config/deep", "x", 0o600),
            ("etc/sudoers.d/README", "", 0o440),
            ("usr/bin/sudo", "", 0o755),
            ("bin/bash", "", 0o755),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        symlink(".profile", dir.path().join("etc/skel/link")).unwrap();
        dir
    }

    /// As whoever runs the tests: only root gives files away.
    fn me(name: &str) -> User {
        let id = rustix::process::getuid().as_raw();
        let uid = if id == 0 { 1000 } else { id };
        User { name: name.to_owned(), uid, gid: if id == 0 { 1000 } else { rustix::process::getgid().as_raw() } }
    }

    fn text(dir: &Path, name: &str) -> String {
        fs::read_to_string(dir.join(name)).unwrap()
    }

    #[test]
    fn a_new_user_has_everything_and_the_second_boot_changes_nothing() {
        let dir = guest();
        let user = me("dev");
        assert_eq!(ensure(&user, dir.path()).unwrap(), Outcome::There);
        let User { uid, gid, .. } = &user;
        assert_eq!(text(dir.path(), "etc/passwd"), format!("{PASSWD}\ndev:x:{uid}:{gid}::/home/dev:/bin/bash\n"));
        assert!(text(dir.path(), "etc/group").ends_with(&format!("\ndev:x:{gid}:\n")));
        assert!(text(dir.path(), "etc/gshadow").ends_with("\ndev:!::\n"));
        let shadow = text(dir.path(), "etc/shadow");
        let line = shadow.lines().last().unwrap();
        assert!(line.starts_with("dev:!:") && line.ends_with(":0:99999:7:::"), "{line}");
        assert!(text(dir.path(), "etc/sudoers.d/banger-dev").ends_with("\ndev ALL=(ALL:ALL) NOPASSWD: ALL\n"));
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().mode() & 0o7777;
        let files = ["etc/passwd", "etc/shadow", "etc/sudoers.d/banger-dev", "home/dev", "home/dev/.config/deep"];
        assert_eq!(files.map(mode), [0o644, 0o640, 0o440, 0o700, 0o600]);
        for name in ["home/dev", "home/dev/.config", "home/dev/.profile", "home/dev/link"] {
            let found = fs::symlink_metadata(dir.path().join(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (*uid, *gid), "{name}");
        }

        let inode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().ino();
        let before = inode("etc/passwd");
        fs::remove_file(dir.path().join("etc/sudoers.d/banger-dev")).unwrap();
        assert_eq!(ensure(&user, dir.path()).unwrap(), Outcome::There);
        assert_eq!(inode("etc/passwd"), before);
        assert!(!dir.path().join("etc/sudoers.d/banger-dev").exists(), "what an administrator took away stays away");
    }

    #[test]
    fn the_guests_own_users_are_left_alone() {
        let dir = guest();
        let left = |user: &User| match ensure(user, dir.path()).unwrap() {
            Outcome::Left(why) => why,
            Outcome::There => panic!("{user:?}"),
        };
        assert!(left(&me("web")).contains("web is the guest's own user 33"));
        assert!(left(&User { uid: 33, ..me("dev") }).contains("33 is the guest's own web"));
        assert!(left(&me("root")).contains("root is the guest's own user 0"));
        assert!(left(&me("a:b")).contains("was not made"));
        assert!(left(&User { uid: 0, ..me("dev") }).contains("was not made"));
        assert_eq!(text(dir.path(), "etc/passwd"), PASSWD);
        assert!(!dir.path().join("home").exists());
    }

    #[test]
    fn a_group_that_is_there_is_used_as_it_is() {
        let dir = guest();
        let user = User { gid: 100, ..me("dev") };
        if rustix::process::getuid().as_raw() != 0 {
            banger_skip::skipped!("only root gives files to another group");
            return;
        }
        ensure(&user, dir.path()).unwrap();
        assert_eq!(text(dir.path(), "etc/group"), "root:x:0:\nweb:x:33:\nusers:x:100:\n");
    }

    #[test]
    fn what_a_broken_boot_began_is_gone_on_with() {
        let dir = guest();
        let user = me("dev");
        ensure(&user, dir.path()).unwrap();
        let whole: Vec<String> = ["etc/group", "etc/shadow", "etc/gshadow"].map(|name| text(dir.path(), name)).into();
        fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
        fs::create_dir(dir.path().join("home/.dev.banger-new")).unwrap();
        fs::remove_dir_all(dir.path().join("home/dev")).unwrap();
        ensure(&user, dir.path()).unwrap();
        let again: Vec<String> = ["etc/group", "etc/shadow", "etc/gshadow"].map(|name| text(dir.path(), name)).into();
        assert_eq!(again, whole);
        assert!(dir.path().join("home/dev/.profile").exists());
        assert_eq!(fs::read_dir(dir.path().join("home")).unwrap().count(), 1);
    }

    #[test]
    fn a_guest_without_most_of_it_still_gets_a_user() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        ensure(&me("dev"), dir.path()).unwrap();
        assert!(text(dir.path(), "etc/passwd").ends_with(":/home/dev:/bin/sh\n"));
        assert_eq!(fs::metadata(dir.path().join("etc/shadow")).unwrap().mode() & 0o777, 0o640);
        assert!(!dir.path().join("etc/sudoers.d").exists());
    }
}
