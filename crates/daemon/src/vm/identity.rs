//! What makes a VM its own machine. Pure: random bytes and the time come in.

use banger_protocol::boot::Identity;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey};

use super::definition::Definition;

/// The lasting part of an identity, made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// 32 hexadecimal digits.
    pub machine_id: String,
    /// The private SSH host key, in OpenSSH's format.
    pub host_key: String,
    /// Its public half, one line.
    pub host_key_public: String,
}

/// Why a host key could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write an SSH host key for {name}")]
pub struct IdentityError {
    name: String,
    #[source]
    source: ssh_key::Error,
}

/// The lasting identity that these random bytes give.
///
/// # Errors
/// [`IdentityError`], where the key cannot be encoded.
pub fn lasting(name: &str, random: &[u8; 48]) -> Result<Lasting, IdentityError> {
    let failed = |source| IdentityError { name: name.to_owned(), source };
    let (seed, machine) = random.split_at(32);
    let mut seed_bytes = [0; 32];
    seed_bytes.copy_from_slice(seed);
    let mut machine_bytes = [0; 16];
    machine_bytes.copy_from_slice(machine);
    // The bits that make it a version 4 UUID, as machine-id(5) recommends.
    machine_bytes[6] = machine_bytes[6] & 0x0f | 0x40;
    machine_bytes[8] = machine_bytes[8] & 0x3f | 0x80;
    let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed_bytes));
    key.set_comment(format!("root@{name}"));
    Ok(Lasting {
        machine_id: hex(&machine_bytes),
        host_key: key.to_openssh(LineEnding::LF).map_err(failed)?.to_string(),
        host_key_public: key.public_key().to_openssh().map_err(failed)?,
    })
}

/// What a guest is told of itself at one boot.
pub fn at_boot(definition: &Definition, entropy: &[u8; 64], unix_nanos: u64) -> Identity {
    Identity {
        hostname: definition.name.clone(),
        machine_id: definition.machine_id.clone(),
        host_key: definition.host_key.clone(),
        host_key_public: definition.host_key_public.clone(),
        entropy: hex(entropy),
        unix_nanos,
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_give_another_machine() {
        let (one, two) = (lasting("a", &[1; 48]).unwrap(), lasting("a", &[2; 48]).unwrap());
        assert_ne!(one.machine_id, two.machine_id);
        assert_ne!(one.host_key_public, two.host_key_public);
        assert_eq!(one, lasting("a", &[1; 48]).unwrap());
    }

    #[test]
    fn the_key_is_one_that_openssh_reads() {
        let lasting = lasting("devbox", &[7; 48]).unwrap();
        let key = PrivateKey::from_openssh(&lasting.host_key).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), lasting.host_key_public);
        assert!(
            lasting.host_key_public.starts_with("ssh-ed25519 ") && lasting.host_key_public.ends_with(" root@devbox")
        );
        assert_eq!(lasting.machine_id.len(), 32);
    }
}
