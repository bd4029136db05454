//! The identity of a ground. Pure.

use std::fmt;
use std::str::FromStr;

use banger_linux::netlink::Mac;

use crate::net::addresses;

/// A ground's id: random, made with the state directory's first record, written as sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroundId([u8; 8]);

/// The text is no id of a ground.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is no id of a ground: it has sixteen hexadecimal digits", .0.escape_debug())]
pub struct IdError(String);

impl GroundId {
    /// An id from random bytes.
    pub fn from_random(bytes: [u8; 8]) -> GroundId {
        GroundId(bytes)
    }

    /// The hardware address of the ground's bridge. It identifies a bridge that lost its note.
    pub fn mac(self) -> Mac {
        let [a, b, c, d, ..] = self.0;
        addresses::bridge_mac([a, b, c, d])
    }
}

impl fmt::Display for GroundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for GroundId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<GroundId, IdError> {
        let is_id = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_id);
        number.map(|number| GroundId(number.to_be_bytes())).ok_or_else(|| IdError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = GroundId::from_random([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(id.to_string(), "00010203fcfdfeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in
            ["", "00010203fcfdfef", "00010203fcfdfeff0", "00010203FCFDFEFF", "+0010203fcfdfeff", "00010203fcfdfefg"]
        {
            assert!(text.parse::<GroundId>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_guest_has_the_hardware_address_of_a_bridge() {
        for byte in 0..=255 {
            let mac = GroundId::from_random([byte; 8]).mac();
            assert!(addresses::is_ours(mac) && mac.0[2] % 2 == 1, "{mac}");
        }
        for guest in [[10, 77, 0, 2], [172, 16, 0, 2], [192, 168, 0, 2]] {
            assert_eq!(addresses::mac(guest.into()).0[2] % 2, 0);
        }
    }
}
