//! Times as people read them.

use std::time::Duration;

/// `3.2 ms`, `214 ms`, `12.4 s`, `2 min 05 s`.
pub fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..9_950 => format!("{}.{} ms", (micros + 50) / 1000, (micros + 50) / 100 % 10),
        9_950..999_500 => format!("{} ms", (micros + 500) / 1000),
        999_500..59_950_000 => format!("{}.{} s", (micros + 50_000) / 1_000_000, (micros + 50_000) / 100_000 % 10),
        _ => {
            let seconds = (micros + 500_000) / 1_000_000;
            format!("{} min {:02} s", seconds / 60, seconds % 60)
        }
    }
}

/// How long ago, both in seconds since 1970: `just now`, `5 minutes ago`, `3 days ago`.
pub fn ago(then: u64, now: u64) -> String {
    let seconds = now.saturating_sub(then);
    let (count, unit) = match seconds {
        0..10 => return "just now".to_owned(),
        10..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..1_209_600 => (seconds / 86_400, "day"),
        1_209_600..5_184_000 => (seconds / 604_800, "week"),
        5_184_000..63_072_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// `2026-11-25T02:59:01.123Z`, from microseconds since 1970 (the calendar's arithmetic: E. G. Richards, 2013).
pub fn utc(micros: u64) -> String {
    let (seconds, millis) = (micros / 1_000_000, micros / 1000 % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let julian = days + 2_440_588;
    let f = julian + 1401 + (4 * julian + 274_277) / 146_097 * 3 / 4 - 38;
    let e = 4 * f + 3;
    let h = 5 * (e % 1461 / 4) + 2;
    let (day, month) = (h % 153 / 5 + 1, (h / 153 + 2) % 12 + 1);
    let year = e / 1461 + (14 - month) / 12 - 4716;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Seconds since 1970; zero on a machine whose clock is before that.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_about_three_digits() {
        let micros = |micros| duration(Duration::from_micros(micros));
        assert_eq!(micros(0), "0.0 ms");
        assert_eq!(micros(3_249), "3.2 ms");
        assert_eq!(micros(9_949), "9.9 ms");
        assert_eq!(micros(9_960), "10 ms");
        assert_eq!(micros(214_400), "214 ms");
        assert_eq!(micros(999_600), "1.0 s");
        assert_eq!(micros(12_449_999), "12.4 s");
        assert_eq!(micros(59_960_000), "1 min 00 s");
        assert_eq!(micros(125_000_000), "2 min 05 s");
    }

    #[test]
    fn instants_are_dates() {
        let at = |seconds: u64| utc(seconds * 1_000_000 + 7_999);
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(951_868_799), "2000-02-29T23:59:59.007Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.007Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00.007Z");
    }

    #[test]
    fn ages_are_rounded_down() {
        assert_eq!(ago(100, 105), "just now");
        assert_eq!(ago(100, 90), "just now");
        assert_eq!(ago(0, 60), "1 minute ago");
        assert_eq!(ago(0, 7_199), "1 hour ago");
        assert_eq!(ago(0, 13 * 86_400), "13 days ago");
        assert_eq!(ago(0, 14 * 86_400), "2 weeks ago");
        assert_eq!(ago(0, 61 * 86_400), "2 months ago");
        assert_eq!(ago(0, 800 * 86_400), "2 years ago");
    }
}
