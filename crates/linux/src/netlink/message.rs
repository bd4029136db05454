//! Netlink messages: a header of sixteen bytes, a structure that goes with the kind, and attributes (netlink(7)). All numbers
//! are the host's, all parts begin at multiples of four.

/// A message to the kernel, being written.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
    flags: u16,
}

const HEADER: usize = 16;

impl Request {
    /// Of this kind, as `RTM_NEWLINK`, with flags as `NLM_F_CREATE`, and the structure that goes with the kind.
    pub(super) fn new(kind: u16, flags: i32, body: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(body);
        let mut request = Request { bytes, flags: word(flags) | word(libc::NLM_F_REQUEST) };
        request.pad();
        request
    }

    /// With an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Request {
        self.attribute(kind, value);
        self
    }

    /// With a text, which the kernel wants ended by a zero byte.
    pub(super) fn with_text(self, kind: u16, text: &str) -> Request {
        self.with(kind, &[text.as_bytes(), b"\0"].concat())
    }

    /// With an attribute that consists of others.
    pub(super) fn with_nested(mut self, kind: u16, within: impl FnOnce(Request) -> Request) -> Request {
        let began = self.bytes.len();
        self.attribute(kind | word(libc::NLA_F_NESTED), &[]);
        let mut whole = within(self);
        let length = length_of(whole.bytes.len() - began);
        whole.bytes[began..began + 2].copy_from_slice(&length.to_ne_bytes());
        whole
    }

    /// To be answered when it is done.
    pub(super) fn wanting_an_answer(mut self) -> Request {
        self.flags |= word(libc::NLM_F_ACK);
        self
    }

    /// About all that there is.
    pub(super) fn for_all(mut self) -> Request {
        self.flags |= word(libc::NLM_F_DUMP);
        self
    }

    /// Its bytes, under a number by which the answers are known.
    pub(super) fn bytes(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&self.flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&length_of(4 + value.len()).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// What the kernel says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// One thing of a list.
    Part(&'a [u8]),
    /// The list is complete, or what was wanted is done.
    Done,
    /// It is not done.
    Refused {
        /// An errno(3).
        code: i32,
        /// The reason in words, where the kernel has some.
        said: Option<String>,
    },
    /// No message.
    Nonsense,
}

/// The answers in what was received; those to other requests are passed over.
pub(super) fn answers(bytes: &[u8], sequence: u32) -> impl Iterator<Item = Answer<'_>> {
    messages(bytes).filter_map(move |message| match message {
        Some(message) => (number(message, 8) == Some(sequence)).then(|| answer(message)),
        None => Some(Answer::Nonsense),
    })
}

/// The announcements in what was received: the kind of each, and what follows its header. Where one makes no sense, what is
/// behind it is not there.
pub(super) fn announcements(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    messages(bytes).map_while(|message| {
        let message = message?;
        Some((u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?), message.get(HEADER..)?))
    })
}

/// The messages in what was received, each with its header; nothing for one that is longer than what there is.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = number(bytes, 0).and_then(|length| usize::try_from(length).ok());
        let message = length.filter(|length| *length >= HEADER).and_then(|length| bytes.get(..length));
        bytes = message.and_then(|message| bytes.get(aligned(message.len())..)).unwrap_or_default();
        Some(message)
    })
}

fn answer(message: &[u8]) -> Answer<'_> {
    let kind = message.get(4..6).and_then(|kind| Some(i32::from(u16::from_ne_bytes(kind.try_into().ok()?))));
    let body = &message[HEADER..];
    match kind {
        Some(libc::NLMSG_DONE) => Answer::Done,
        Some(libc::NLMSG_ERROR) => match number(body, 0).map(u32::cast_signed) {
            Some(0) => Answer::Done,
            Some(code) if code < 0 => Answer::Refused { code: -code, said: said(message) },
            _ => Answer::Nonsense,
        },
        Some(_) => Answer::Part(body),
        None => Answer::Nonsense,
    }
}

/// The reason in words, behind the request's header, which is given back (`NETLINK_EXT_ACK`, `NETLINK_CAP_ACK`).
fn said(message: &[u8]) -> Option<String> {
    const WITH_WORDS: u16 = 0x200;
    const WORDS: u16 = 1;
    let flags = u16::from_ne_bytes(message.get(6..8)?.try_into().ok()?);
    if flags & WITH_WORDS == 0 {
        return None;
    }
    let words = attributes(message.get(HEADER + 4 + HEADER..)?).find(|(kind, _)| *kind == WORDS)?.1;
    Some(text(words).to_owned()).filter(|text| !text.is_empty())
}

/// The attributes in some bytes: kinds without their flags, and values.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

/// The number at a place.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A text up to its zero byte.
pub(super) fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A constant of the kernel's, which all fit.
fn word(constant: i32) -> u16 {
    u16::try_from(constant).unwrap_or_default()
}

/// The length of an attribute: none here is longer than a name or an address.
fn length_of(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_length_and_padded_attributes() {
        let request = Request::new(16, libc::NLM_F_CREATE, &[7; 16])
            .with_text(3, "br0")
            .with_nested(18, |within| within.with(1, b"bridge"))
            .bytes(5);
        assert_eq!(number(&request, 0).map(|length| length as usize), Some(request.len()));
        assert_eq!(number(&request, 8), Some(5));
        let found: Vec<_> = attributes(&request[32..]).collect();
        assert_eq!(found[0], (3, &b"br0\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(found[1].1).next(), Some((1, &b"bridge"[..])));
        assert_eq!(found.len(), 2);
    }

    fn message(kind: i32, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Request::new(word(kind), 0, body).bytes(sequence);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    #[test]
    fn answers_are_told_apart_and_those_of_others_passed_over() {
        let mut bytes = message(16, 0, 2, b"partpart");
        bytes.extend(message(16, 0, 1, b"othe"));
        bytes.extend(message(libc::NLMSG_DONE, 0, 2, &[0; 4]));
        assert_eq!(answers(&bytes, 2).collect::<Vec<_>>(), [Answer::Part(b"partpart"), Answer::Done]);
        let refused = [&(-17i32).to_ne_bytes()[..], &[0; 16], &Request::new(0, 0, b"").with_text(1, "why").bytes[16..]];
        let refused = message(libc::NLMSG_ERROR, 0x200, 3, &refused.concat());
        let expected = Answer::Refused { code: 17, said: Some("why".to_owned()) };
        assert_eq!(answers(&refused, 3).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn what_is_cut_off_is_nonsense() {
        let whole = message(libc::NLMSG_ERROR, 0, 1, &[0; 20]);
        for length in 1..whole.len() {
            assert_eq!(answers(&whole[..length], 1).collect::<Vec<_>>(), [Answer::Nonsense], "{length}");
        }
        assert_eq!(answers(&[0; 16], 1).collect::<Vec<_>>(), [Answer::Nonsense]);
        assert_eq!(attributes(&[3, 0, 0, 0]).count(), 0);
    }
}
