//! What makes this guest its own machine: clock, randomness, names, host keys.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use banger_protocol::boot::Identity;

use super::BootError;
use super::mounts::make_directory;
use crate::clock;

/// Sets the wall clock, unless it is right already: the time was written down a while ago, when the VMM was started, and a
/// guest whose machine has a clock of its own knows better. The hello corrects it.
pub fn set_clock(identity: &Identity) {
    const NEAR_NANOS: u64 = 60 * 1_000_000_000;
    if identity.unix_nanos.abs_diff(clock::now()) > NEAR_NANOS {
        // A machine whose clock cannot be set still runs.
        drop(clock::set(identity.unix_nanos));
    }
}

/// Stirs random bytes, in hexadecimal, into the kernel's pool. What is no hexadecimal is left out.
pub fn stir_in(hexadecimal: &str) {
    if let Some(bytes) = clock::parse_hex(hexadecimal) {
        drop(banger_linux::entropy::credit(&bytes));
    }
}

/// Tells the kernel and the files below `root` who this machine is.
pub fn write(identity: &Identity, root: &Path) -> Result<(), BootError> {
    write_name(&identity.hostname, root)?;
    if !identity.machine_id.is_empty() {
        put(&root.join("etc/machine-id"), &format!("{}\n", identity.machine_id), 0o444)?;
    }
    if !identity.host_key.is_empty() {
        let ssh = root.join("etc/ssh");
        make_directory(&ssh).map_err(|source| BootError::Write { path: ssh.clone(), source })?;
        put(&ssh.join("ssh_host_ed25519_key"), &with_newline(&identity.host_key), 0o600)?;
        put(&ssh.join("ssh_host_ed25519_key.pub"), &with_newline(&identity.host_key_public), 0o644)?;
    }
    Ok(())
}

/// Tells the kernel and the files below `root` the machine's name.
pub fn write_name(name: &str, root: &Path) -> Result<(), BootError> {
    rustix::system::sethostname(name.as_bytes())
        .map_err(|error| BootError::HostName { name: name.to_owned(), source: error.into() })?;
    let old_name = fs::read_to_string(root.join("etc/hostname")).unwrap_or_default();
    let hosts = fs::read_to_string(root.join("etc/hosts")).unwrap_or_default();
    put(&root.join("etc/hostname"), &format!("{name}\n"), 0o644)?;
    put(&root.join("etc/hosts"), &hosts_with(&hosts, old_name.trim(), name), 0o644)
}

/// Writes a file, unless it has this content: what does not change costs no write at each boot.
pub(super) fn put(path: &Path, content: &str, mode: u32) -> Result<(), BootError> {
    let write = || -> io::Result<()> {
        if fs::read(path).is_ok_and(|old| old == content.as_bytes()) {
            return fs::set_permissions(path, Permissions::from_mode(mode));
        }
        let new = path.with_extension("banger-new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        fs::rename(&new, path)
    };
    write().map_err(|source| BootError::Write { path: path.to_owned(), source })
}

fn with_newline(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

/// The hosts file with a line for `name`. A line that an earlier boot wrote for the name that the machine had then goes.
fn hosts_with(hosts: &str, old_name: &str, name: &str) -> String {
    const ADDRESS: &str = "127.0.1.1";
    let mut lines: Vec<&str> = hosts.lines().collect();
    if hosts.trim().is_empty() {
        lines = vec!["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"];
    }
    let names = |line: &str| -> Vec<String> {
        line.split('#').next().unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    };
    if old_name != name {
        lines.retain(|line| names(line) != [ADDRESS, old_name]);
    }
    let own = format!("{ADDRESS}\t{name}");
    if !lines.iter().any(|line| names(line).iter().skip(1).any(|found| found == name)) {
        lines.push(&own);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_hosts_file_gets_localhost_too() {
        assert_eq!(
            hosts_with("", "", "devbox"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tdevbox\n"
        );
    }

    #[test]
    fn a_known_name_is_not_added_again() {
        let hosts = "127.0.0.1 localhost devbox\n10.0.0.1\tdb # devbox2\n";
        assert_eq!(hosts_with(hosts, "devbox", "devbox"), hosts);
    }

    #[test]
    fn a_renamed_machine_loses_its_old_line_and_no_other() {
        let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\told\n10.0.0.1\told db\n";
        assert_eq!(hosts_with(hosts, "old", "new"), "127.0.0.1\tlocalhost\n10.0.0.1\told db\n127.0.1.1\tnew\n");
    }

    #[test]
    fn a_file_is_replaced_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("machine-id");
        fs::write(&path, "old").unwrap();
        put(&path, "new\n", 0o444).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    }
}
