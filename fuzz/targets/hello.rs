//! The greeting, of either side, behind any rubbish.

#![no_main]

use banger_protocol::hello::{self, Hello, HelloError, MAGIC, Welcome};
use banger_protocol::words::is_boot_id;
use banger_protocol::{OLDEST, VERSION};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NONCE: &str = "0123456789abcdef0123456789abcdef";

fuzz_target!(|bytes: &[u8]| {
    block_on(daemon(bytes));
    block_on(agent(bytes));
    if let Ok(welcome) = serde_json::from_slice::<Welcome>(bytes) {
        block_on(sent(&welcome));
    }
});

/// A guest says anything, and hangs up.
async fn daemon(bytes: &[u8]) {
    let (mut daemon, mut guest) = tokio::io::duplex(bytes.len() + 4096);
    guest.write_all(bytes).await.expect("there is room");
    guest.shutdown().await.expect("it can be closed");
    match hello::greet(&mut daemon, NONCE).await {
        Ok(welcome) => assert!(welcome.nonce == NONCE && welcome.protocol >= OLDEST),
        Err(HelloError::TooOld(protocol)) => assert!(protocol < OLDEST),
        Err(HelloError::Io(_) | HelloError::Malformed | HelloError::Wrong(_)) => {}
    }
}

/// The same for an agent, which repeats what it was told.
async fn agent(bytes: &[u8]) {
    let (mut agent, mut daemon) = tokio::io::duplex(2 * bytes.len() + 4096);
    daemon.write_all(bytes).await.expect("there is room");
    daemon.shutdown().await.expect("it can be closed");
    if let Ok(Hello { nonce, .. }) = hello::answer(&mut agent, VERSION, "0.1.0", "boot").await {
        drop(agent);
        let mut welcome = Vec::new();
        daemon.read_to_end(&mut welcome).await.expect("it is in memory");
        let welcome: Welcome = serde_json::from_slice(&welcome[MAGIC.len() + 4..]).expect("a welcome");
        assert_eq!((welcome.nonce, welcome.protocol), (nonce, VERSION));
    }
}

/// A welcome with the right nonce is found behind rubbish, and what follows it is left in the stream.
async fn sent(welcome: &Welcome) {
    let welcome = Welcome { nonce: NONCE.to_owned(), protocol: welcome.protocol.max(OLDEST), ..welcome.clone() };
    let json = json(&welcome);
    if json.len() > 4096 {
        return;
    }
    let mut bytes = MAGIC[..3].to_vec();
    bytes.extend(MAGIC);
    bytes.extend(u32::try_from(json.len()).expect("it is short").to_be_bytes());
    bytes.extend(json);
    bytes.extend(b"rest");
    let (mut daemon, mut guest) = tokio::io::duplex(16 * 1024);
    guest.write_all(&bytes).await.expect("there is room");
    guest.shutdown().await.expect("it can be closed");
    match hello::greet(&mut daemon, NONCE).await {
        Ok(found) => assert!(found == welcome && is_boot_id(&found.boot_id)),
        Err(error) => assert!(matches!(error, HelloError::Wrong(_)), "{error}"),
    }
    let mut rest = Vec::new();
    daemon.read_to_end(&mut rest).await.expect("it is in memory");
    assert_eq!(rest, b"rest");
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it is JSON")
}
