//! The wall clock, and the small words in which times and random bytes come over the channel.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec};

/// The wall clock, in nanoseconds since 1970-01-01 UTC.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Sets it.
///
/// # Errors
/// Those of `clock_settime(2)`.
pub fn set(unix_nanos: u64) -> std::io::Result<()> {
    const BILLION: u64 = 1_000_000_000;
    let time = Timespec {
        tv_sec: i64::try_from(unix_nanos / BILLION).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(unix_nanos % BILLION).unwrap_or(0),
    };
    Ok(rustix::time::clock_settime(ClockId::Realtime, time)?)
}

/// Bytes written in hexadecimal; nothing where it is something else.
pub fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_or_refused() {
        assert_eq!(parse_hex("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(parse_hex(""), Some(vec![]));
        assert_eq!(parse_hex("0"), None);
        assert_eq!(parse_hex("0g"), None);
    }
}
