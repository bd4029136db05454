//! A guest's file transfer as the command line reads it: data frames in any pieces, up to their end.

#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use banger_cli::fuzzing::{FrameSource, Meter};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (early, piece, sent) = input;
    if sent.len() > 64 * 1024 {
        return;
    }
    let early = usize::from(early).min(sent.len());
    let (near, mut far) = UnixStream::pair().expect("a pair of sockets");
    far.write_all(&sent[early..]).expect("there is room");
    far.shutdown(Shutdown::Write).expect("it can be closed");
    let meter = Meter::default();
    let mut source = FrameSource::new(near, BytesMut::from(&sent[..early]), meter.clone());
    let mut buffer = vec![0; usize::from(piece) + 1];
    let mut read = 0;
    while let Ok(count) = source.read(&mut buffer) {
        if count == 0 {
            break;
        }
        read += count;
    }
    assert_eq!(meter.bytes(), read as u64);
    assert!(read <= sent.len());
    drop(source.finish());
});
