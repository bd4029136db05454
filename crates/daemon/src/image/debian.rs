//! What is in an image and how it is set up: the packages, and what an administrator would put into `/etc` of a machine that
//! has neither a disk of its own to check nor a screen. Nothing of banger's is in here: the image is a plain Debian.

use std::path::Path;

use super::apt::Mirrors;
use super::tree::{Tree, TreeError};

/// The packages, besides those that every Debian has (`Essential: yes`, and apt).
pub const PACKAGES: [&str; 33] = [
    // The system.
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "udev",
    "linux-image-cloud-amd64",
    "openssh-server",
    "sudo",
    "ca-certificates",
    "netbase",
    "tzdata",
    "e2fsprogs",
    // What a developer expects to find.
    "bash-completion",
    "bzip2",
    "curl",
    "file",
    "git",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "lsof",
    "make",
    "nano",
    "ncurses-term",
    "patch",
    "procps",
    "psmisc",
    "rsync",
    "unzip",
    "vim-tiny",
    "xz-utils",
    "zstd",
];

/// Documentation and translations, which a clone would carry along for nothing, and the kernel's own file, as the machine's
/// kernel comes from outside. Copyright notices stay.
const EXCLUDED: &str = "# Manual pages, documentation and translations are left out.\n\
    path-exclude=/usr/share/man/*\n\
    path-exclude=/usr/share/info/*\n\
    path-exclude=/usr/share/locale/*\n\
    path-include=/usr/share/locale/locale.alias\n\
    path-exclude=/usr/share/doc/*\n\
    path-include=/usr/share/doc/*/copyright\n\
    # The kernel that this machine runs is not started from its disk.\n\
    path-exclude=/boot/vmlinuz-*\n";

/// Files in `/etc`, each whole.
const FILES: [(&str, &str); 8] = [
    ("/etc/dpkg/dpkg.cfg.d/excludes", EXCLUDED),
    ("/etc/apt/apt.conf.d/99translations", "# Descriptions in English only.\nAcquire::Languages \"none\";\n"),
    ("/etc/default/locale", "LANG=C.UTF-8\n"),
    ("/etc/fstab", "# The root disk is mounted before init starts.\n"),
    (
        "/etc/hosts",
        "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\tip6-allrouters\n",
    ),
    // An initramfs made in the machine would never be used, and takes a minute to make.
    ("/etc/initramfs-tools/update-initramfs.conf", "update_initramfs=no\nbackup_initramfs=no\n"),
    // The journal outlives a restart and stays small.
    ("/etc/systemd/journald.conf.d/size.conf", "[Journal]\nStorage=persistent\nSystemMaxUse=64M\nRuntimeMaxUse=16M\n"),
    // A machine that a person works in stops when told to, not ninety seconds later.
    ("/etc/systemd/system.conf.d/timeouts.conf", "[Manager]\nDefaultTimeoutStopSec=15s\n"),
];

/// Units that nothing starts at boot. A person may enable them again.
const DISABLED: [&str; 7] = [
    // A development machine fetches and installs what it is told to, when it is told to.
    "timers.target.wants/apt-daily.timer",
    "timers.target.wants/apt-daily-upgrade.timer",
    "timers.target.wants/dpkg-db-backup.timer",
    // They look for snapshots of LVM, of which there is none.
    "timers.target.wants/e2scrub_all.timer",
    "multi-user.target.wants/e2scrub_reap.service",
    // There is no screen, and no firmware that keeps a crashed kernel's last words.
    "getty.target.wants/getty@tty1.service",
    "sysinit.target.wants/systemd-pstore.service",
];

/// Units that other units pull in, and that would only cost time: each starts a program, which is slow while a machine boots.
const MASKED: [&str; 11] = [
    // Modules for what is not there; what is there loads its own.
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@loop.service",
    // Mounts that a program which needs one makes itself.
    "dev-hugepages.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    // The processor and the host give randomness; a seed on a disk would be copied with it.
    "systemd-random-seed.service",
    // Nothing asks for System V's run level, or reads the kernel's audit messages out of the journal.
    "systemd-update-utmp-runlevel.service",
    "systemd-journald-audit.socket",
    // The machine's identity is there before the system starts.
    "systemd-machine-id-commit.service",
];

/// What is removed from the installed tree.
const REMOVED: [&str; 5] =
    ["/etc/hostname", "/etc/resolv.conf", "/vmlinuz", "/vmlinuz.old", "/var/cache/debconf/templates.dat-old"];

/// What is in `/dev` of a disk, for whoever looks at it without mounting anything there: the kernel's own numbers
/// (admin-guide/devices.txt). An installer in a user namespace can make none of them.
const DEVICES: [(&str, (u32, u32)); 8] = [
    ("console", (5, 1)),
    ("full", (1, 7)),
    ("null", (1, 3)),
    ("ptmx", (5, 2)),
    ("random", (1, 8)),
    ("tty", (5, 0)),
    ("urandom", (1, 9)),
    ("zero", (1, 5)),
];

/// Links in `/dev`.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

/// Whether a word can be a release's name; `sid` and `stable` are.
pub fn is_suite(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&word.len())
        && word.bytes().all(allowed)
        && word.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Whether a word can be a package's name (Debian policy 5.6.7).
pub fn is_package(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    (2..=128).contains(&word.len())
        && word.bytes().all(allowed)
        && word.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
}

/// mmdebstrap's arguments for installing a suite, with packages beside our own choice, into `tree`.
pub fn install_arguments(
    (suite, added): (&str, &[String]),
    tree: &Path,
    mirrors: &Mirrors,
    acquire: &[String],
) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        "--architectures=amd64",
        // apt's and dpkg's own output, which progress is told from.
        "--verbose",
        // Half an installation is thrown away as a whole, so dpkg need not sync each file.
        "--dpkgopt=force-unsafe-io",
        // The machine's kernel comes from outside; a new one in the machine would never be started.
        "--customize-hook=chroot \"$1\" apt-mark hold linux-image-cloud-amd64",
    ]
    .map(str::to_owned)
    .into();
    let excluded = EXCLUDED.lines().filter(|line| line.starts_with("path-") && !line.contains("vmlinuz"));
    arguments.extend(excluded.map(|line| format!("--dpkgopt={line}")));
    arguments.extend(acquire.iter().map(|option| format!("--aptopt={option}")));
    let packages: Vec<&str> = PACKAGES.into_iter().chain(added.iter().map(String::as_str)).collect();
    arguments.push(format!("--include={}", packages.join(",")));
    arguments.extend([suite.to_owned(), tree.display().to_string()]);
    arguments.extend(mirrors.lines(suite));
    arguments
}

/// Sets an installed tree up.
///
/// # Errors
/// [`TreeError`].
pub fn prepare(tree: &Tree, mirrors: &Mirrors, suite: &str) -> Result<(), TreeError> {
    for path in REMOVED {
        tree.remove(path)?;
    }
    remove_named(tree, "/etc/ssh", |name| name.starts_with("ssh_host_"))?;
    remove_named(tree, "/boot", |name| name.starts_with("vmlinuz-") || name.starts_with("initrd.img-"))?;
    // What the installer's first half unpacks by itself knows no exclusions.
    for directory in ["/usr/share/man", "/usr/share/info"] {
        remove_named(tree, directory, |_| true)?;
    }
    remove_named(tree, "/usr/share/locale", |name| name != "locale.alias")?;
    for package in tree.names("/usr/share/doc")? {
        remove_named(tree, &format!("/usr/share/doc/{package}"), |name| name != "copyright")?;
    }
    remove_named(tree, "/var/lib/apt/lists", |name| name != "partial" && name != "auxfiles")?;
    remove_named(tree, "/var/cache/apt", |name| name.ends_with(".bin"))?;
    remove_named(tree, "/var/log", |name| name.ends_with(".log") || name == "apt")?;
    for (path, content) in FILES {
        tree.write(path, content.as_bytes(), 0o644)?;
    }
    tree.link("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")?;
    for link in DISABLED {
        tree.remove(&format!("/etc/systemd/system/{link}"))?;
    }
    for unit in MASKED {
        tree.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
    }
    // systemd makes one for each machine where it finds the file empty (machine-id(5)).
    tree.write("/etc/machine-id", b"", 0o444)?;
    tree.remove("/var/lib/dbus/machine-id")?;
    tree.remove("/etc/apt/sources.list")?;
    // Newer than `/usr`: the system's users, caches and catalogues need not be brought up to date at its first boot
    // (systemd-update-done.service(8)).
    for directory in ["/etc", "/var"] {
        tree.write(&format!("{directory}/.updated"), b"# This file marks what is up to date.\n", 0o644)?;
    }
    for keyring in mirrors.keyrings() {
        copy_keyring(tree, keyring)?;
    }
    tree.write("/etc/apt/sources.list.d/debian.sources", mirrors.deb822(suite).as_bytes(), 0o644)
}

/// Fills `/dev`. Needs root.
///
/// # Errors
/// [`TreeError`].
pub fn make_devices(tree: &Tree) -> Result<(), TreeError> {
    for (name, number) in DEVICES {
        tree.device(&format!("/dev/{name}"), number)?;
    }
    for (name, target) in DEVICE_LINKS {
        tree.link(&format!("/dev/{name}"), target)?;
    }
    ["/dev/pts", "/dev/shm"].iter().try_for_each(|path| tree.directory(path))
}

/// A mirror may be signed by a key that only this host knows; the image's apt finds it in the same place.
fn copy_keyring(tree: &Tree, path: &str) -> Result<(), TreeError> {
    if tree.read(path).is_ok() {
        return Ok(());
    }
    let unread = |source| TreeError { attempted: "copy the host's keyring to", path: path.to_owned(), source };
    tree.write(path, &std::fs::read(path).map_err(unread)?, 0o644)
}

fn remove_named(tree: &Tree, directory: &str, unwanted: impl Fn(&str) -> bool) -> Result<(), TreeError> {
    for name in tree.names(directory)?.iter().filter(|name| unwanted(name)) {
        tree.remove(&format!("{directory}/{name}"))?;
    }
    Ok(())
}

/// What a line of apt's or dpkg's output says of how far the installation is, in a person's words.
pub fn progress(line: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    let first = words.next()?;
    if let Some(message) = line.strip_prefix("I: ") {
        return Some(message.trim_end_matches("...").to_owned());
    }
    // `Get:12 http://... bookworm/main amd64 less amd64 590-2.1 [132 kB]`
    if first.starts_with("Get:") {
        let mut words = words.skip(3);
        return Some(format!("downloading {} {}", words.next()?, words.nth(1)?));
    }
    let doing = match (first, words.next()?) {
        ("Unpacking", package) => format!("unpacking {package}"),
        ("Setting", "up") => format!("setting up {}", words.next()?),
        _ => return None,
    };
    let version = words.next().unwrap_or_default().trim_matches(['(', ')']);
    Some(format!("{doing} {version}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::image::apt;

    #[test]
    fn progress_in_words() {
        let get = "Get:12 http://mirror.example.org/debian bookworm/main amd64 less amd64 590-2.1~deb12u2 [132 kB]";
        assert_eq!(progress(get).unwrap(), "downloading less 590-2.1~deb12u2");
        assert_eq!(progress("Unpacking git (1:2.39.5-0) ...").unwrap(), "unpacking git 1:2.39.5-0");
        assert_eq!(
            progress("Setting up libpcre3:amd64 (2:8.39-15) ...").unwrap(),
            "setting up libpcre3:amd64 2:8.39-15"
        );
        assert_eq!(progress("I: running apt-get update...").unwrap(), "running apt-get update");
        assert_eq!(progress("Selecting previously unselected package dbus."), None);
        assert_eq!(progress("Get:1"), None);
        assert_eq!(progress(""), None);
    }

    #[test]
    fn suites_and_packages_are_words_that_no_tool_takes_for_anything_else() {
        for good in ["bookworm", "trixie", "sid"] {
            assert!(is_suite(good), "{good}");
        }
        for bad in ["", "-x", "a/b", "A", "a b", "1", &"a".repeat(33)] {
            assert!(!is_suite(bad), "{bad}");
        }
        for good in ["g++", "python3.11", "0ad", "libc6-dev"] {
            assert!(is_package(good), "{good}");
        }
        for bad in ["", "a", "-x", "a,b", "a=1", "./a", "Git", "?essential", "a b"] {
            assert!(!is_package(bad), "{bad}");
        }
    }

    #[test]
    fn packages_that_are_asked_for_come_after_our_own() {
        let mirrors = apt::mirrors(&apt::parse_list("deb http://mirror.example.org/debian bookworm main")).unwrap();
        let added = ["golang".to_owned()];
        let arguments = install_arguments(("trixie", &added), Path::new("/tree"), &mirrors, &[]);
        assert!(arguments.iter().any(|word| word.starts_with("--include=systemd,") && word.ends_with(",zstd,golang")));
        assert!(arguments.contains(&"deb http://mirror.example.org/debian trixie main".to_owned()));
    }

    #[test]
    fn devices_are_those_of_every_linux() {
        if !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("not root, so no device can be made");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        tree.write("/dev/null", b"what somebody wrote before there was a device", 0o600).unwrap();
        make_devices(&tree).unwrap();
        let found = |name: &str| std::fs::metadata(dir.path().join("dev").join(name)).unwrap();
        for name in ["null", "zero", "tty"] {
            let host = std::fs::metadata(Path::new("/dev").join(name)).unwrap();
            assert_eq!((found(name).rdev(), found(name).mode() & 0o7777), (host.rdev(), 0o666), "{name}");
        }
        assert!(found("shm").is_dir() && found("pts").mode() & 0o7777 == 0o755);
        assert_eq!(std::fs::read_link(dir.path().join("dev/fd")).unwrap(), Path::new("/proc/self/fd"));
    }

    #[test]
    fn the_tree_is_set_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let tree = Tree::open(&root).unwrap();
        for (path, content) in [
            ("/etc/ssh/ssh_host_ed25519_key", "secret"),
            ("/etc/ssh/sshd_config", "kept"),
            ("/etc/machine-id", "0123"),
            ("/etc/hostname", "builder"),
            ("/etc/resolv.conf", "nameserver 192.0.2.1"),
            ("/etc/apt/sources.list", "old"),
            ("/boot/vmlinuz-6.1.0-1-cloud-amd64", "kernel"),
            ("/usr/share/doc/less/copyright", "kept"),
            ("/usr/share/doc/less/README", "gone"),
            ("/usr/share/man/man1/less.1.gz", "gone"),
        ] {
            tree.write(path, content.as_bytes(), 0o644).unwrap();
        }
        let keyring = dir.path().join("key.gpg");
        std::fs::write(&keyring, "key").unwrap();
        let entry = format!("deb [signed-by={}] http://mirror.example.org/debian bookworm main", keyring.display());
        let mirrors = apt::mirrors(&apt::parse_list(&entry)).unwrap();
        prepare(&tree, &mirrors, "bookworm").unwrap();
        for path in [
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/hostname",
            "/etc/resolv.conf",
            "/etc/apt/sources.list",
            "/boot/vmlinuz-6.1.0-1-cloud-amd64",
            "/usr/share/doc/less/README",
            "/usr/share/man/man1",
        ] {
            assert!(!root.join(path.trim_start_matches('/')).exists(), "{path}");
        }
        for path in ["/etc/ssh/sshd_config", "/usr/share/doc/less/copyright"] {
            assert_eq!(tree.read(path).unwrap(), b"kept");
        }
        assert_eq!(tree.read("/etc/machine-id").unwrap(), b"");
        let sources = tree.read_text("/etc/apt/sources.list.d/debian.sources").unwrap();
        assert!(sources.contains("URIs: http://mirror.example.org/debian\nSuites: bookworm\n"));
        assert_eq!(tree.read(keyring.to_str().unwrap()).unwrap(), b"key");
        // Nothing of banger's is in an image.
        let everything: String = FILES.iter().map(|(path, content)| format!("{path}{content}")).collect();
        assert!(!everything.contains("banger"));
    }
}
