//! A whole session of the daemon with a hostile guest: greeting, multiplexer, calls and their answers, over a pipe in memory.
//!
//! The guest gets past the greeting, as any guest does, and then says what the input tells: bytes as they are, or messages of
//! the multiplexer and frames that are well-formed but for what the input has changed. The clock stands still while anything
//! can happen, so that every deadline passes at once.

#![no_main]

use std::cell::RefCell;
use std::sync::Mutex;

use async_trait::async_trait;
use banger_linux::process::Process;
use banger_protocol::call::{Call, Level};
use banger_protocol::frame;
use banger_protocol::hello::{Hello, MAGIC, Welcome};
use bangerd::guest::{self, Guest};
use bangerd::vmm::{Channel, Console, Farewell, Instance, VmmError};
use futures::future::BoxFuture;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;

const BOOT: &str = "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b11";

thread_local! {
    static RUNTIME: RefCell<Runtime> = RefCell::new(
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime"),
    );
}

fuzz_target!(|input: &[u8]| {
    RUNTIME.with_borrow(|runtime| runtime.block_on(meet(input)));
});

async fn meet(input: &[u8]) {
    let (near, far) = tokio::io::duplex(256 * 1024);
    let guest = tokio::spawn(play(far, input.to_vec()));
    let instance = InMemory(Mutex::new(Some(near)));
    if let Ok((guest, mut over)) = guest::connect(&instance, "devbox").await {
        calls(&guest).await;
        drop(guest);
        over.wait_for(|over| *over).await.expect("a session ends with its last handle");
    }
    guest.abort();
    drop(guest.await);
}

async fn calls(guest: &Guest) {
    let raw = async {
        if let Ok((_, mut stream)) = guest.call_raw(&Call::Get { path: "/".into(), pattern: false }).await {
            while let Ok(frame) = frame::read(&mut stream).await {
                assert!(frame.payload.len() <= frame::MAX_PAYLOAD);
            }
        }
    };
    let hour = std::time::Duration::from_secs(3600);
    let patient = async {
        futures::join!(
            guest.call(&Call::Facts),
            guest.call(&Call::Load),
            guest.reached(Level::System),
            guest.ended("main"),
            guest.power_off(),
            raw
        )
    };
    drop(tokio::time::timeout(hour, patient).await);
}

/// The guest: reads the hello, repeats its nonce, then says what it was told.
async fn play(mut channel: DuplexStream, input: Vec<u8>) {
    let Ok(hello) = greeting(&mut channel).await else { return };
    let (protocol, input) = input.split_first().map_or((2, &input[..]), |(first, rest)| (u32::from(*first), rest));
    let welcome = Welcome { protocol, nonce: hello.nonce, agent: "0.1.0".into(), boot_id: BOOT.into() };
    let json = serde_json::to_vec(&welcome).expect("it is JSON");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(json.len()).expect("it is short").to_be_bytes());
    bytes.extend(json);
    let (mut read, mut write) = tokio::io::split(channel);
    let hear = async {
        let mut heard = vec![0; 64 * 1024];
        while read.read(&mut heard).await.is_ok_and(|count| count > 0) {}
    };
    let tell = async {
        write.write_all(&bytes).await?;
        let mut rest = input;
        while let Some(said) = next(&mut rest) {
            write.write_all(&said).await?;
            tokio::task::yield_now().await;
        }
        write.shutdown().await
    };
    drop(futures::join!(hear, tell));
}

async fn greeting(channel: &mut DuplexStream) -> std::io::Result<Hello> {
    channel.read_exact(&mut [0; MAGIC.len()]).await?;
    let mut json = vec![0; channel.read_u32().await? as usize];
    channel.read_exact(&mut json).await?;
    Ok(serde_json::from_slice(&json)?)
}

/// What one step of the input makes the guest say: a byte of what, a byte of which stream, a byte of how much, and that.
fn next(input: &mut &[u8]) -> Option<Vec<u8>> {
    let [what, stream, length, rest @ ..] = *input else { return None };
    let (data, rest) = rest.split_at(usize::from(*length).min(rest.len()));
    *input = rest;
    // The daemon's streams have odd numbers.
    let stream = u32::from(*stream % 16);
    let told = u32::try_from(data.len()).expect("it is short");
    let number = data.iter().take(4).fold(0, |number: u32, byte| (number << 8) | u32::from(*byte));
    let flags = u16::from(*what >> 4);
    Some(match what % 8 {
        0 => data.to_vec(),
        1 | 2 => [head(0, flags, stream, told), data.to_vec()].concat(),
        3 => head(1, flags, stream, number),
        4 => head(2, flags, 0, number),
        5 => head(3, 0, 0, number % 4),
        6 => head(0, flags, stream, number),
        _ => {
            // A frame in a message: its kind, and what it carries.
            let kind = data.first().copied().unwrap_or(1) % 12;
            let payload = data.get(1..).unwrap_or_default();
            let told = u32::try_from(payload.len()).expect("it is short");
            let framed = [&[kind][..], &told.to_be_bytes()[..], payload].concat();
            [head(0, flags, stream, u32::try_from(framed.len()).expect("it is short")), framed].concat()
        }
    })
}

/// A head of the multiplexer: version, type, flags, stream, length (hashicorp/yamux, spec.md).
fn head(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    [&[0, kind][..], &flags.to_be_bytes()[..], &stream.to_be_bytes()[..], &length.to_be_bytes()[..]].concat()
}

struct InMemory(Mutex<Option<DuplexStream>>);

#[async_trait]
impl Instance for InMemory {
    fn process(&self) -> &Process {
        unreachable!("a session asks for no process")
    }

    async fn connect(&self) -> Result<Box<dyn Channel>, VmmError> {
        let channel = self.0.lock().ok().and_then(|mut channel| channel.take()).ok_or(VmmError::Gone)?;
        Ok(Box::new(channel))
    }

    fn abandoned(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn farewell(&self) -> BoxFuture<'static, Option<Farewell>> {
        Box::pin(std::future::ready(None))
    }

    fn console(&self) -> Option<Console> {
        None
    }

    async fn grow_disk(&self, _: usize, _: u64) -> Result<(), VmmError> {
        Err(VmmError::Gone)
    }

    async fn press_power_button(&self) -> Result<(), VmmError> {
        Err(VmmError::Gone)
    }
}
