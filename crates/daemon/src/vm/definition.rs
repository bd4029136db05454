//! What a VM is. Its id, image and identity never change; the rest does when somebody asks for it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use banger_api::port::Publish;
use banger_api::vm::{Lifetime, Net, RestartPolicy, User};
use banger_linux::process::Identity;

use super::state::State;

/// A VM's id: short, random, never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmId(String);

impl VmId {
    /// An id from random bytes.
    pub fn from_random(bytes: [u8; 10]) -> VmId {
        VmId(word(&bytes))
    }

    /// An id as it stands in a record.
    pub fn from_record(id: String) -> VmId {
        VmId(id)
    }

    /// The id as text: the name of the VM's directories.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Random bytes as letters and digits that are not mistaken for each other; the first is a letter.
pub fn word(random: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let pick = |(place, byte): (usize, &u8)| {
        let among = if place == 0 { 24 } else { LETTERS.len() };
        char::from(LETTERS[usize::from(*byte) % among])
    };
    random.iter().enumerate().map(pick).collect()
}

/// What a VM is made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Never changes.
    pub id: VmId,
    /// Unique.
    pub name: String,
    /// The image's id.
    pub image_id: String,
    /// The image's name.
    pub image: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory: u64,
    /// The work disk, in bytes.
    pub disk: u64,
    /// Variables for every command.
    pub env: BTreeMap<String, String>,
    /// Where commands run by default.
    pub workdir: Option<String>,
    /// Whom its guest has beside root.
    pub user: Option<User>,
    /// Public SSH keys whose owners may log in, a line each.
    pub ssh_keys: Vec<String>,
    /// Whom its guest can reach.
    pub net: Net,
    /// Its address, where it has a network.
    pub address: Option<Ipv4Addr>,
    /// Ports of the host that lead to its own while it runs.
    pub publish: Vec<Publish>,
    /// When it goes by itself.
    pub lifetime: Lifetime,
    /// When it starts again by itself.
    pub restart: RestartPolicy,
    /// The uid and gid of its VMM.
    pub uid: u32,
    /// Its machine-id.
    pub machine_id: String,
    /// Its private SSH host key.
    pub host_key: String,
    /// Its public SSH host key.
    pub host_key_public: String,
    /// Seconds since 1970-01-01 UTC.
    pub created: u64,
}

/// A VM as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRecord {
    /// What it is.
    pub definition: Definition,
    /// What it is doing.
    pub state: State,
    /// Counts the changes of this record.
    pub generation: u64,
    /// The host's boot id when `state` was recorded: a VM that ran in an earlier one does not run now.
    pub host_boot: String,
    /// Whether a main command was asked for since its last start.
    pub main: bool,
    /// Whether it shall run as far as its users are concerned: somebody started it, and nobody has stopped it since.
    pub wanted: bool,
    /// Its VMM's process and TAP, recorded with `state`; `None` if no VMM runs, or before its agent has answered.
    pub traces: Option<Traces>,
}

impl VmRecord {
    /// The record of a VM that is being created in this boot of the host.
    pub fn new(definition: Definition, host_boot: String) -> VmRecord {
        let state = State::Creating;
        VmRecord { definition, state, generation: 1, host_boot, main: false, wanted: false, traces: None }
    }
}

/// What identifies a running VM when its runtime files are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Its VMM's process, in the boot of the host that the record names.
    pub process: Identity,
    /// The name of its TAP, if it has a network.
    pub tap: Option<String>,
}

#[cfg(any(test, fuzzing))]
impl VmRecord {
    /// A VM that is being created, with nothing special, for tests and fuzzing.
    pub fn sample(name: &str, uid: u32) -> VmRecord {
        let definition = Definition {
            id: VmId::from_record(name.into()),
            name: name.into(),
            image_id: "i".into(),
            image: "debian".into(),
            cpus: 1,
            memory: 1 << 30,
            disk: 1 << 30,
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            ssh_keys: Vec::new(),
            net: Net::None,
            address: None,
            publish: Vec::new(),
            restart: RestartPolicy::No,
            lifetime: Lifetime::Kept,
            uid,
            machine_id: String::new(),
            host_key: String::new(),
            host_key_public: String::new(),
            created: 0,
        };
        VmRecord {
            definition,
            state: State::Creating,
            generation: 1,
            host_boot: String::new(),
            main: false,
            wanted: false,
            traces: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_with_a_letter() {
        for byte in 0..=255 {
            assert!(VmId::from_random([byte; 10]).as_str().starts_with(|c: char| c.is_ascii_lowercase()));
        }
    }
}
