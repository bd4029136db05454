//! What docs/streams.md says of frames, held against the code that writes and reads them.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use banger_api::exec::{Answer, CallError, Exit};
use banger_api::frame::{Frame, FrameError, Kind, MAX_PAYLOAD, decode, encode};
use bytes::BytesMut;

const DOCUMENT: &str = include_str!("../../../../docs/streams.md");

#[test]
fn the_examples_are_what_the_code_writes_and_reads() {
    let blocks = DOCUMENT.split("```hex\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let lines: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert!(lines.len() > 8);
    for line in lines {
        let (bytes, comment) = line.split_once('#').unwrap();
        let bytes = unhex(bytes.trim_start_matches(['<', '>']));
        let mut buffer = BytesMut::from(&bytes[..]);
        let frame = decode(&mut buffer).unwrap().unwrap_or_else(|| panic!("this is not whole: {line}"));
        assert!(buffer.is_empty(), "more than one frame: {line}");
        assert!(comment.trim_start().starts_with(&name(frame.kind)), "{:?}: {line}", frame.kind);
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        let written = match frame.kind {
            Kind::Message => Frame::json(frame.kind, &frame.parse::<Answer>().unwrap()).unwrap(),
            Kind::Exit => Frame::json(frame.kind, &frame.parse::<Exit>().unwrap()).unwrap(),
            Kind::Failed => Frame::json(frame.kind, &frame.parse::<CallError>().unwrap()).unwrap(),
            Kind::Resize => {
                let (rows, columns) = frame.as_resize().unwrap();
                assert!(comment.contains(&format!("{rows} {columns}")), "{line}");
                Frame::resize(rows, columns)
            }
            Kind::Signal => {
                assert!(comment.contains(&frame.payload[0].to_string()), "{line}");
                frame.clone()
            }
            Kind::Stdin | Kind::Stdout | Kind::Stderr | Kind::Data => {
                let said = if text.is_empty() { "its end".to_owned() } else { format!("{text:?}") };
                assert!(comment.contains(&said), "{line}");
                frame.clone()
            }
        };
        if matches!(frame.kind, Kind::Message | Kind::Exit | Kind::Failed) {
            assert!(comment.contains(&text), "{line}");
        }
        let mut buffer = BytesMut::new();
        encode(&mut buffer, &written).unwrap();
        assert_eq!(&buffer[..], &bytes[..], "{line}");
    }
}

#[test]
fn the_kinds_and_the_limit_are_those_of_the_code() {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        Some((cells.next()?.parse::<u8>().ok()?, cells.next()?.to_owned()))
    });
    // The two rows of the head's table are numbers, too, but name no kind.
    let rows: Vec<(u8, String)> = rows.filter(|(_, name)| !name.contains(' ')).collect();
    for byte in 0..=u8::MAX {
        let named = rows.iter().find(|row| row.0 == byte).map(|row| row.1.clone());
        match decode(&mut BytesMut::from(&[byte, 0, 0, 0, 0][..])) {
            Ok(frame) => assert_eq!(named, Some(name(frame.unwrap().kind))),
            Err(FrameError::UnknownKind(_)) => assert_eq!(named, None),
            Err(error) => panic!("{error}"),
        }
    }
    assert!(DOCUMENT.contains(&format!("at most {MAX_PAYLOAD} bytes")));
    let long = u32::try_from(MAX_PAYLOAD + 1).unwrap().to_be_bytes();
    let head = [&[1], &long[..]].concat();
    assert!(matches!(decode(&mut BytesMut::from(&head[..])), Err(FrameError::TooLong(_))));
}

fn name(kind: Kind) -> String {
    format!("{kind:?}").to_lowercase()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> =
        text.chars().filter(|char| !char.is_whitespace()).map(|char| char.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
}
