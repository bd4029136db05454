//! What a guest is told before it has a channel: one JSON file in its initramfs, written anew for every boot.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Where the file is in the initramfs.
pub const PATH: &str = "/banger/boot.json";

/// The name of the virtio serial port that the channel runs over.
pub const PORT: &str = "banger.agent";

/// The serial numbers by which the guest finds its disks.
pub mod serial {
    /// The root disk.
    pub const ROOT: &str = "root";
    /// The work disk, mounted at `/root`.
    pub const WORK: &str = "work";
}

/// What the agent, as first process, makes of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Boot {
    /// Kernel modules to load, as paths in the initramfs, each after those it needs.
    pub modules: Vec<String>,
    /// Who this machine is.
    pub identity: Identity,
    /// Whether the work disk is an empty file system that wants the image's own `/root` copied into it.
    #[serde(default)]
    pub fill_work_disk: bool,
    /// A user whom the guest is to have beside root. Since protocol 3.
    #[serde(default)]
    pub user: Option<User>,
    /// Public SSH keys whose owners may log in as root and as `user`, a line each ([`crate::ssh`]). Since protocol 4.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// The network that the guest is in, if it is in one.
    #[serde(default)]
    pub network: Option<Network>,
}

/// A guest's place in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The hardware address of its card, six bytes in hexadecimal with colons, in lower case.
    pub mac: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
    /// Who knows the way to everywhere else, and answers questions for names.
    pub gateway: Ipv4Addr,
    /// The domain in which names without a dot are looked for.
    pub domain: String,
}

/// A user of the host's who is to be one of the guest's. Each side checks with [`User::flaw`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct User {
    /// Login name.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[a-z_][a-z0-9_-]{0,31}$")))]
    pub name: String,
    /// User id.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 60_000)))]
    pub uid: u32,
    /// Id of the primary group.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 60_000)))]
    pub gid: u32,
}

impl User {
    /// What makes it unfit to be written into a guest's files: a name that is not of the plain kind (useradd(8)), or a number
    /// that is root's or beyond those of people (adduser.conf(5)).
    pub fn flaw(&self) -> Option<&'static str> {
        if !is_login_name(&self.name) {
            return Some("a name has up to 32 of a-z, 0-9, '_' and '-', the first one a letter or '_'");
        }
        let numbers = 1..=60_000;
        if !numbers.contains(&self.uid) || !numbers.contains(&self.gid) {
            return Some("its numbers are from 1 to 60000");
        }
        None
    }
}

/// Whether it is a login name of the plain kind (useradd(8)), which can be a file's name, too.
pub fn is_login_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_');
    name.len() <= 32 && begins && name.bytes().all(plain)
}

/// What makes a VM its own machine. The same at every boot, but for `entropy` and `unix_nanos`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The host name.
    pub hostname: String,
    /// 32 hexadecimal digits (machine-id(5)).
    pub machine_id: String,
    /// The private SSH host key in OpenSSH's format (Ed25519).
    pub host_key: String,
    /// Its public half: one line, as in `ssh_host_ed25519_key.pub`.
    pub host_key_public: String,
    /// 64 fresh random bytes in hexadecimal, stirred into the kernel's pool and credited.
    pub entropy: String,
    /// The wall clock at the start, in nanoseconds since 1970-01-01 UTC; the hello corrects it.
    pub unix_nanos: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flawed(name: &str, uid: u32, gid: u32) -> bool {
        User { name: name.to_owned(), uid, gid }.flaw().is_some()
    }

    #[test]
    fn only_plain_names_and_peoples_numbers_will_do() {
        for name in ["dev", "_a", "a-1_b", &"a".repeat(32)] {
            assert!(!flawed(name, 1000, 100), "{name}");
        }
        for name in ["", "-a", "1a", "Dev", "a.b", "a:b", "a\nb", "a b", "../a", "a$", "ä", &"a".repeat(33)] {
            assert!(flawed(name, 1000, 1000), "{name:?}");
        }
        for (uid, gid) in [(0, 1000), (1000, 0), (60_001, 1000), (1000, u32::MAX)] {
            assert!(flawed("dev", uid, gid));
        }
    }
}
