//! The greeting that starts a session.
//!
//! A virtio serial port keeps no message boundaries: what a dead daemon half sent may still be in the pipe. Both sides
//! therefore skip everything up to [`MAGIC`], and the daemon accepts only a welcome that repeats its own nonce.
//! Layout of each side's greeting: [`MAGIC`], four bytes of length in network order, JSON.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::words::{self, Flaw};
use crate::{OLDEST, VERSION};

/// What every greeting begins with.
pub const MAGIC: [u8; 8] = *b"\xbabanger\n";

/// The longest greeting, in bytes of JSON.
const MAX_GREETING: usize = 4096;

/// How many bytes of rubbish in front of a greeting are skipped before the peer counts as broken.
const MAX_RUBBISH: usize = 16 * 1024 * 1024;

/// The daemon's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol that the daemon speaks.
    pub protocol: u32,
    /// Sixteen random bytes in hexadecimal, new for every session.
    pub nonce: String,
    /// The wall clock when this was sent, in nanoseconds since 1970-01-01 UTC. It may be read much later, when the guest has
    /// booted: the agent sets a clock that is behind it, never one that is ahead. Since protocol 2.
    #[serde(default)]
    pub unix_nanos: u64,
}

/// The agent's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The daemon's nonce, repeated.
    pub nonce: String,
    /// The agent's own version.
    pub agent: String,
    /// The guest's boot id: changes with every boot and with nothing else.
    pub boot_id: String,
}

impl Welcome {
    /// What in it no agent says.
    fn flaw(&self) -> Option<Flaw> {
        words::check("agent", words::is_version(&self.agent), "is no version")
            .or_else(|| words::check("boot_id", words::is_boot_id(&self.boot_id), words::NO_BOOT_ID))
    }
}

/// Why two sides did not find together.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The stream failed or ended.
    #[error("the channel closed before the greeting was complete")]
    Io(#[source] std::io::Error),
    /// Too much rubbish, or a greeting that is too long or no JSON.
    #[error("the peer sent no valid greeting")]
    Malformed,
    /// The agent is older than anything that this daemon serves.
    #[error("the agent speaks protocol {0}, and the oldest that is served is {OLDEST}")]
    TooOld(u32),
    /// The agent says something of itself that cannot be.
    #[error("the agent's greeting has a wrong {0}")]
    Wrong(Flaw),
}

/// The daemon's side: greets, tells the time, and waits for the welcome that repeats `nonce`.
///
/// # Errors
/// [`HelloError`]; there is no deadline here, the caller sets one.
pub async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), nonce: &str) -> Result<Welcome, HelloError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    send(stream, &Hello { protocol: VERSION, nonce: nonce.to_owned(), unix_nanos }).await?;
    loop {
        let welcome: Welcome = receive(stream).await?;
        if welcome.nonce != nonce {
            continue;
        }
        if welcome.protocol < OLDEST {
            return Err(HelloError::TooOld(welcome.protocol));
        }
        return match welcome.flaw() {
            Some(flaw) => Err(HelloError::Wrong(flaw)),
            None => Ok(welcome),
        };
    }
}

/// The agent's side: waits for a hello and answers it.
///
/// # Errors
/// [`HelloError`]; there is no deadline here, the agent waits for a daemon as long as it lives.
pub async fn answer(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    protocol: u32,
    agent: &str,
    boot_id: &str,
) -> Result<Hello, HelloError> {
    let hello: Hello = receive(stream).await?;
    let welcome =
        Welcome { protocol, nonce: hello.nonce.clone(), agent: agent.to_owned(), boot_id: boot_id.to_owned() };
    send(stream, &welcome).await?;
    Ok(hello)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), greeting: &impl Serialize) -> Result<(), HelloError> {
    let json = serde_json::to_vec(greeting).map_err(|_| HelloError::Malformed)?;
    let length = u32::try_from(json.len()).map_err(|_| HelloError::Malformed)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    stream.write_all(&bytes).await.map_err(HelloError::Io)?;
    stream.flush().await.map_err(HelloError::Io)
}

/// Skips to the next greeting that can be read. Byte by byte up to its length: what follows a greeting belongs to the
/// multiplexer, and a byte read too many would be lost to it.
async fn receive<T: serde::de::DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> Result<T, HelloError> {
    let mut skipped = 0;
    loop {
        skipped += skip_to_magic(stream, MAX_RUBBISH.saturating_sub(skipped)).await?;
        let length = stream.read_u32().await.map_err(HelloError::Io)? as usize;
        if length > MAX_GREETING {
            continue;
        }
        let mut json = vec![0; length];
        stream.read_exact(&mut json).await.map_err(HelloError::Io)?;
        if let Ok(greeting) = serde_json::from_slice(&json) {
            return Ok(greeting);
        }
    }
}

async fn skip_to_magic(stream: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<usize, HelloError> {
    let mut window = [0; MAGIC.len()];
    let mut read = 0;
    while window != MAGIC || read < MAGIC.len() {
        if read > limit {
            return Err(HelloError::Malformed);
        }
        window.rotate_left(1);
        window[MAGIC.len() - 1] = stream.read_u8().await.map_err(HelloError::Io)?;
        read += 1;
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b11";

    async fn meet(rubbish: &[u8], old_welcome: &[u8]) -> Welcome {
        let (mut daemon, mut agent) = tokio::io::duplex(64 * 1024);
        daemon.write_all(rubbish).await.unwrap();
        agent.write_all(old_welcome).await.unwrap();
        let guest = async { answer(&mut agent, VERSION, "0.1.0", BOOT).await.unwrap() };
        let (welcome, hello) = tokio::join!(async { greet(&mut daemon, "n1").await.unwrap() }, guest);
        assert_eq!(hello.protocol, VERSION);
        welcome
    }

    #[tokio::test]
    async fn the_two_sides_find_together() {
        assert_eq!(meet(b"", b"").await.boot_id, BOOT);
    }

    #[tokio::test]
    async fn an_agent_whose_words_are_none_of_an_agents_is_refused() {
        for (agent, boot_id, field) in [
            ("0.1.0", "", "boot_id"),
            ("0.1.0", "boot", "boot_id"),
            ("0.1.0", "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b1\u{9b}", "boot_id"),
            ("0.1.0\u{1b}[2J", BOOT, "agent"),
            ("", BOOT, "agent"),
        ] {
            let (mut daemon, mut guest) = tokio::io::duplex(64 * 1024);
            let guest = answer(&mut guest, VERSION, agent, boot_id);
            let (greeted, _) = tokio::join!(greet(&mut daemon, "n1"), guest);
            let Err(error @ HelloError::Wrong(_)) = greeted else { panic!("{agent:?} {boot_id:?}: {greeted:?}") };
            let told = error.to_string();
            assert!(told.contains(field) && !told.contains(char::is_control), "{told}");
        }
    }

    #[tokio::test]
    async fn a_half_frame_of_a_dead_session_is_skipped() {
        assert_eq!(meet(b"\x08\x00\x00\x40\x00half a frame\xba\xba", b"\x00\x01\xbabang").await.nonce, "n1");
    }

    #[tokio::test]
    async fn a_welcome_for_an_earlier_nonce_is_skipped() {
        let mut old = Vec::new();
        let stale = Welcome { protocol: VERSION, nonce: "n0".into(), agent: "0".into(), boot_id: "old".into() };
        send(&mut old, &stale).await.unwrap();
        assert_eq!(meet(b"", &old).await.boot_id, BOOT);
    }
}
