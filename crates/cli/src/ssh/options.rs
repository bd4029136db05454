//! What ssh(1) has to be told to reach VMs, on its command line or in a file (ssh_config(5)). Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::blocks::HEADER;

/// The oldest OpenSSH that knows all of it: `KnownHostsCommand` came with 8.5.
pub const OLDEST: (u32, u32) = (8, 5);

/// How this program is called by ssh.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The program.
    pub program: &'a Path,
    /// The daemon's socket, where it is not the usual one.
    pub socket: Option<&'a Path>,
    /// The key that is let in everywhere.
    pub key: Option<&'a Path>,
}

/// Every option with its value, for a connection to `host`, which may be a token of ssh's such as `%h`.
pub fn options(caller: Caller<'_>, host: &str) -> Vec<(&'static str, OsString)> {
    let mut options = vec![
        ("ProxyCommand", caller.command("proxy", &format!("{host} %p"))),
        // Asked at each connection: a VM that is made anew under the same name has another key, and nobody has to forget
        // the old one.
        ("KnownHostsCommand", caller.command("known-hosts", "%H")),
        ("UserKnownHostsFile", "/dev/null".into()),
        ("GlobalKnownHostsFile", "/dev/null".into()),
        ("StrictHostKeyChecking", "yes".into()),
        ("HostKeyAlgorithms", "ssh-ed25519".into()),
        ("CheckHostIP", "no".into()),
        ("UpdateHostKeys", "no".into()),
    ];
    if let Some(key) = caller.key {
        options.push(("IdentityFile", quoted_value(key.as_os_str())));
        // An agent with many keys would use up the tries that a server gives (MaxAuthTries) before this one's turn.
        options.push(("IdentitiesOnly", "yes".into()));
    }
    options
}

impl Caller<'_> {
    /// The words are plain or ssh's own tokens, and not quoted.
    fn command(&self, verb: &str, words: &str) -> OsString {
        let mut command = quoted_word(self.program.as_os_str());
        if let Some(socket) = self.socket {
            command.push(" --host ");
            command.push(quoted_word(socket.as_os_str()));
        }
        command.push(format!(" vm {verb} {words}"));
        command
    }
}

/// As a shell and ssh itself read one word; `%` is doubled, as ssh takes it for the begin of a token.
fn quoted_word(text: &OsStr) -> OsString {
    let mut quoted = b"'".to_vec();
    for &byte in text.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            b'%' => quoted.extend(b"%%"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

/// As ssh reads a value that may have spaces.
fn quoted_value(text: &OsStr) -> OsString {
    let mut quoted = b"\"".to_vec();
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend([b'\\', byte]),
            b'%' => quoted.extend(b"%%"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// The block for all names of VMs.
pub fn block(caller: Caller<'_>, domain: &str) -> Vec<u8> {
    let mut text = format!(
        "{HEADER}, which writes this block anew: after a move of the program, or another domain.\n\
         Host *.{domain} !host.{domain}\n"
    )
    .into_bytes();
    for (name, value) in options(caller, "%h") {
        text.extend(format!("    {name} ").into_bytes());
        text.extend(value.as_bytes());
        text.push(b'\n');
    }
    text
}

/// The version in what `ssh -V` says: `OpenSSH_9.2p1 Debian-2, ...`.
pub fn version(said: &str) -> Option<(u32, u32)> {
    let (_, rest) = said.split_once("OpenSSH_")?;
    let mut numbers = rest.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_through_whatever_is_in_them() {
        let caller = Caller {
            program: Path::new("/opt/my 'own'/100%/banger"),
            socket: Some(Path::new("/run/a b")),
            key: Some(Path::new("/home/\"dev\" 1%/key")),
        };
        let block = String::from_utf8(block(caller, "vm")).unwrap();
        let command = r"'/opt/my '\''own'\''/100%%/banger' --host '/run/a b' vm";
        assert!(block.contains(&format!("\n    ProxyCommand {command} proxy %h %p\n")), "{block}");
        assert!(block.contains(&format!("\n    KnownHostsCommand {command} known-hosts %H\n")), "{block}");
        assert!(block.contains("\n    IdentityFile \"/home/\\\"dev\\\" 1%%/key\"\n"), "{block}");
        assert!(block.contains("\nHost *.vm !host.vm\n"), "{block}");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("OpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15"), Some((9, 2)));
        assert_eq!(version("OpenSSH_8.4p1, LibreSSL"), Some((8, 4)));
        assert_eq!(version("OpenSSH_10.0p2"), Some((10, 0)));
        assert_eq!(version("Sun_SSH_1.1"), None);
    }
}
