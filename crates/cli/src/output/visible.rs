//! A guest's output as a terminal may have it: lines and colours as they are, every other control character visible.
//!
//! It takes bytes in pieces of any length, and keeps back what may be the beginning of a character or of a colour. What
//! comes out does not depend on where the pieces end.

use super::escape::steers;

/// The longest colour sequence that is passed on, in bytes; the longest in use, two colours of 24 bits, has 38.
const LONGEST: usize = 64;

/// What ends every colour.
const RESET: &[u8] = b"\x1b[0m";

/// One stream of output.
#[derive(Debug, Default)]
pub struct Visible {
    /// The beginning of something whose end has not come.
    begun: Vec<u8>,
    coloured: bool,
}

/// What stands at the beginning of some bytes, and how many of them it takes.
enum Part {
    /// It may go to a terminal.
    Plain(usize),
    /// A colour (SGR: `ESC [`, numbers with semicolons, `m`).
    Colour(usize),
    /// A character that steers.
    Steering(char, usize),
    /// Bytes that are no UTF-8. As single bytes, 0x80 to 0x9f steer a terminal of 8 bits.
    Bytes(usize),
    /// More bytes decide.
    Open,
}

impl Visible {
    /// What can be shown once these bytes have come.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let begun = std::mem::take(&mut self.begun);
        let mut shown = Vec::with_capacity(begun.len());
        let mut rest = begun.as_slice();
        while !rest.is_empty() {
            let Some(length) = self.show(part(rest), rest, &mut shown) else { break };
            rest = &rest[length..];
        }
        self.begun = rest.to_vec();
        shown
    }

    /// What was kept back, and the end of a colour that the output has not ended itself.
    pub fn finish(&mut self) -> Vec<u8> {
        let begun = std::mem::take(&mut self.begun);
        let mut shown = Vec::new();
        let mut rest = begun.as_slice();
        while let Some(first) = rest.first() {
            // Nothing more comes, so that what was open is not what it might have been.
            let part = match part(rest) {
                Part::Open if first.is_ascii() => Part::Steering(char::from(*first), 1),
                Part::Open => Part::Bytes(rest.len()),
                part => part,
            };
            let Some(length) = self.show(part, rest, &mut shown) else { break };
            rest = &rest[length..];
        }
        if std::mem::take(&mut self.coloured) {
            shown.extend_from_slice(RESET);
        }
        shown
    }

    /// Appends the part at the beginning of `rest`; how long it is there, unless it is open.
    fn show(&mut self, part: Part, rest: &[u8], shown: &mut Vec<u8>) -> Option<usize> {
        Some(match part {
            Part::Plain(length) => {
                shown.extend_from_slice(&rest[..length]);
                length
            }
            Part::Colour(length) => {
                self.coloured = !matches!(&rest[..length], b"\x1b[m" | RESET);
                shown.extend_from_slice(&rest[..length]);
                length
            }
            Part::Steering(char, length) => {
                shown.extend(char.escape_default().map(|char| char as u8));
                length
            }
            Part::Bytes(length) => {
                shown.extend(rest[..length].iter().flat_map(|&byte| std::ascii::escape_default(byte)));
                length
            }
            Part::Open => return None,
        })
    }
}

fn part(bytes: &[u8]) -> Part {
    match bytes {
        [] | [b'\r'] => Part::Open,
        [b'\r', b'\n', ..] => Part::Plain(2),
        [b'\n' | b'\t' | b' '..=b'~', ..] => Part::Plain(1),
        [0x1b, rest @ ..] => sequence(rest),
        [first @ ..0x80, ..] => Part::Steering(char::from(*first), 1),
        _ => character(bytes),
    }
}

/// What an ESC begins, by the bytes behind it.
fn sequence(rest: &[u8]) -> Part {
    let no_colour = Part::Steering('\x1b', 1);
    let numbers = match rest {
        [] => return Part::Open,
        [b'[', numbers @ ..] => numbers,
        _ => return no_colour,
    };
    let end = numbers.iter().take(LONGEST - 2).position(|byte| !byte.is_ascii_digit() && *byte != b';');
    match end {
        Some(end) if numbers[end] == b'm' => Part::Colour(end + 3),
        Some(_) => no_colour,
        None if numbers.len() < LONGEST - 2 => Part::Open,
        None => no_colour,
    }
}

/// A character beyond ASCII, or what is none.
fn character(bytes: &[u8]) -> Part {
    let begin = &bytes[..bytes.len().min(4)];
    let (valid, flaw) = match std::str::from_utf8(begin) {
        Ok(valid) => (valid, None),
        Err(error) => {
            let (valid, _) = begin.split_at(error.valid_up_to());
            (std::str::from_utf8(valid).unwrap_or_default(), error.error_len())
        }
    };
    match (valid.chars().next(), flaw) {
        (Some(char), _) if steers(char) => Part::Steering(char, char.len_utf8()),
        (Some(char), _) => Part::Plain(char.len_utf8()),
        (None, Some(length)) => Part::Bytes(length),
        (None, None) => Part::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(pieces: &[&[u8]]) -> String {
        let mut visible = Visible::default();
        let mut all: Vec<u8> = pieces.iter().flat_map(|piece| visible.take(piece)).collect();
        all.extend(visible.finish());
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn lines_and_colours_stay() {
        for same in
            ["one\r\ntwo\n\tthree", "\x1b[1;31mred\x1b[0m \x1b[mü €\u{1f600}", "\x1b[38;2;255;255;255mx\x1b[0m", ""]
        {
            assert_eq!(shown(&[same.as_bytes()]), same);
        }
    }

    #[test]
    fn all_else_that_steers_is_shown() {
        assert_eq!(
            shown(&[b"\x1b]0;title\x07\x1b[2J\x1b[?25l\x1bc"]),
            "\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{1b}[?25l\\u{1b}c"
        );
        assert_eq!(shown(&[b"10 %\r20 %\x08\x00\x7f"]), "10 %\\r20 %\\u{8}\\u{0}\\u{7f}");
        assert_eq!(shown(&["\u{9b}31m\u{202e}\u{2028}".as_bytes()]), "\\u{9b}31m\\u{202e}\\u{2028}");
        assert_eq!(shown(&[b"\x9b31m\xff\xc3(\xe2\x82x"]), "\\x9b31m\\xff\\xc3(\\xe2\\x82x");
        assert_eq!(shown(&[b"\x1b[1:2m\x1b[>4m\x1b[ m"]), "\\u{1b}[1:2m\\u{1b}[>4m\\u{1b}[ m");
    }

    #[test]
    fn what_never_ends_is_shown_at_the_end() {
        for (begun, end) in
            [(&b"\r"[..], "\\r"), (b"\x1b", "\\u{1b}"), (b"\x1b[1;3", "\\u{1b}[1;3"), (b"\xe2\x82", "\\xe2\\x82")]
        {
            assert_eq!(Visible::default().take(begun), b"");
            assert_eq!(shown(&[begun]), end);
        }
        let endless = [b"\x1b[".to_vec(), vec![b'1'; 1000]].concat();
        let mut visible = Visible::default();
        assert_eq!(visible.take(&endless).len(), endless.len() + "\\u{1b}".len() - 1, "it is not kept for ever");
    }

    #[test]
    fn a_colour_does_not_outlast_the_output() {
        assert_eq!(shown(&[b"\x1b[31mred"]), "\x1b[31mred\x1b[0m");
        assert_eq!(shown(&[b"\x1b[31mred", b"\x1b[", b"0m"]), "\x1b[31mred\x1b[0m");
    }

    /// Without what a terminal may have.
    fn without_allowed(text: &str) -> String {
        let mut rest = text.replace("\r\n", "").replace(['\n', '\t'], "");
        while let Some(start) = rest.find("\x1b[") {
            let length = rest[start + 2..].find(|char: char| !char.is_ascii_digit() && char != ';');
            let Some(length) = length.filter(|length| rest[start + 2 + length..].starts_with('m')) else { break };
            rest.replace_range(start..start + 2 + length + 1, "");
        }
        rest
    }

    /// Bytes among which sequences, halves of them and characters are frequent.
    fn output() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..4),
            any::<char>().prop_map(|char| char.to_string().into_bytes()),
            proptest::sample::select(vec![
                "\x1b", "[", "1;3", "m", "\r", "\n", "\x1b[0m", "\x1b[31m", "\u{9b}", "\u{202e}"
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn only_lines_and_colours_reach_a_terminal(bytes in output()) {
            let text = shown(&[&bytes]);
            prop_assert!(!without_allowed(&text).contains(steers), "{:?}", text);
        }

        #[test]
        fn pieces_make_no_difference(bytes in output(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let ends = cuts.iter().copied().chain([bytes.len()]);
            let pieces: Vec<&[u8]> = ends.scan(0, |begin, end| Some(&bytes[std::mem::replace(begin, end)..end])).collect();
            prop_assert_eq!(shown(&pieces), shown(&[&bytes]));
        }

        #[test]
        fn text_that_steers_nothing_stays(text in any::<String>().prop_filter("it steers", |text| !text.contains(steers))) {
            prop_assert_eq!(shown(&[text.as_bytes()]), text);
        }
    }
}
