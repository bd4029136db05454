//! Frames of the channel and of upgraded connections, and the messages in them.
//!
//! Bytes in any pieces are decoded or refused, the buffer stays within one frame, and what was decoded is written again as
//! it came. A message that is understood is understood again, and equal, after it was written.

#![no_main]

use std::fmt::Debug;

use banger_protocol::call::{Answer, Call, CallError, Command, Exit, Facts};
use banger_protocol::frame::{self, Frame, HEAD, Kind, MAX_PAYLOAD};
use bytes::{Buf, BytesMut};
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: (u16, &[u8])| {
    let (piece, bytes) = input;
    let decoded = in_pieces(bytes, usize::from(piece) + 1);
    assert_eq!(decoded, whole(bytes), "the pieces matter");
    for frame in &decoded {
        message(frame);
    }
    // The payloads alone, so that messages are found without a frame around them.
    message(&Frame::new(Kind::Message, bytes.to_vec()));
});

fn in_pieces(bytes: &[u8], piece: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_PAYLOAD);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => return frames,
            }
        }
        assert!(buffer.capacity() <= bytes.len() + 2 * (MAX_PAYLOAD + HEAD), "a head alone reserves too much");
    }
    frames
}

fn whole(bytes: &[u8]) -> Vec<Frame> {
    let mut stream = bytes;
    let mut written = BytesMut::new();
    let mut frames = Vec::new();
    while let Ok(frame) = block_on(frame::read(&mut stream)) {
        frame::encode(&mut written, &frame).expect("it was short enough to be read");
        frames.push(frame);
    }
    assert!(bytes.starts_with(&written), "a frame is not written as it was read");
    frames
}

fn message(frame: &Frame) {
    if let Some((rows, columns)) = frame.as_resize() {
        assert_eq!(*frame, Frame::resize(rows, columns));
        assert_eq!(frame.payload.clone().get_u16(), rows);
    }
    again::<Call>(frame);
    again::<Answer>(frame);
    again::<CallError>(frame);
    again::<Command>(frame);
    again::<Facts>(frame);
    if let Some(exit) = again::<Exit>(frame) {
        let _code: u8 = exit.shell_code();
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(frame: &Frame) -> Option<T> {
    let message: T = frame.parse().ok()?;
    let written = Frame::json(Kind::Message, &message).expect("what was read can be written");
    assert_eq!(written.parse::<T>().expect("what was written can be read"), message);
    Some(message)
}
