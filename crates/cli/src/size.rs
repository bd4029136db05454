//! Sizes as people write them.

use std::fmt;

/// A number of bytes, as `512M`, `4G`, `4GiB`, `1.5G` or plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

const UNITS: [(char, u32); 5] = [('K', 10), ('M', 20), ('G', 30), ('T', 40), ('P', 50)];

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is not a number and a unit.
    #[error("it is no size")]
    Form,
    /// A unit of which nobody knows whether it is a power of ten or of two.
    #[error("its unit is ambiguous")]
    Ambiguous {
        /// The number before the unit.
        number: String,
        /// The unit's first letter.
        unit: char,
    },
    /// Nothing.
    #[error("it is nothing")]
    Zero,
    /// More than 64 bits hold.
    #[error("it is more than any machine has")]
    TooLarge,
}

impl SizeError {
    /// What to write instead.
    pub fn help(&self) -> String {
        match self {
            SizeError::Ambiguous { number, unit } => format!("write {number}{unit} or {number}{unit}iB"),
            _ => "write a size like 512M, 4G or 4GiB".to_owned(),
        }
    }
}

/// Reads a size.
///
/// # Errors
/// [`SizeError`].
pub fn parse(text: &str) -> Result<Size, SizeError> {
    let split = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = shift(unit).ok_or_else(|| match unit.to_ascii_uppercase().as_bytes() {
        [letter @ (b'K' | b'M' | b'G' | b'T' | b'P'), b'B'] => {
            SizeError::Ambiguous { number: number.to_owned(), unit: char::from(*letter) }
        }
        _ => SizeError::Form,
    })?;
    match u64::try_from(scale(number, shift).ok_or(SizeError::Form)?) {
        Ok(0) => Err(SizeError::Zero),
        Ok(bytes) => Ok(Size(bytes)),
        Err(_) => Err(SizeError::TooLarge),
    }
}

fn shift(unit: &str) -> Option<u32> {
    let upper = unit.to_ascii_uppercase();
    let letter = upper.strip_suffix("IB").unwrap_or(&upper);
    match letter {
        "" | "B" if upper != "IB" => Some(0),
        _ => UNITS.iter().find(|(name, _)| letter.len() == 1 && letter.starts_with(*name)).map(|&(_, shift)| shift),
    }
}

/// Whole bytes of a decimal number of units; parts of a byte are dropped.
fn scale(number: &str, shift: u32) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || part.len() > 9 || whole.len() > 20 || (shift == 0 && number.contains('.'))
    {
        return None;
    }
    let unit = 1u128 << shift;
    let whole: u128 = whole.parse().ok()?;
    let part: u128 = part.parse::<u128>().ok()? * unit / 10u128.pow(u32::try_from(part.len()).ok()?);
    Some(whole * unit + part)
}

impl fmt::Display for Size {
    /// At most one decimal, in the largest unit that keeps the number above 1: `4 GiB`, `1.5 GiB`, `600 B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, shift)) = UNITS.iter().rev().find(|(_, shift)| self.0 >> shift > 0) else {
            return write!(f, "{} B", self.0);
        };
        let tenths = (u128::from(self.0) * 10 + (1 << (shift - 1))) >> shift;
        match (tenths / 10, tenths % 10) {
            (whole, 0) => write!(f, "{whole} {unit}iB"),
            (whole, tenth) => write!(f, "{whole}.{tenth} {unit}iB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("1", 1),
            ("4096B", 4096),
            ("512M", 512 << 20),
            ("512m", 512 << 20),
            ("4G", 4 << 30),
            ("4GiB", 4 << 30),
            ("4gib", 4 << 30),
            ("1.5G", 3 << 29),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_advice() {
        for text in
            ["", "G", "-1G", "4X", "4 G", "1.G", ".5G", "4GG", "4iB", "0.5", "1e9", "99999999999999999999T", "4P4"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("4GB").unwrap_err().help(), "write 4G or 4GiB");
        assert_eq!(parse("0M"), Err(SizeError::Zero));
        assert_eq!(parse("99999999P"), Err(SizeError::TooLarge));
    }

    #[test]
    fn sizes_are_shown_short() {
        for (bytes, text) in [(600, "600 B"), (4 << 30, "4 GiB"), (3 << 29, "1.5 GiB"), (1 << 20, "1 MiB")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
