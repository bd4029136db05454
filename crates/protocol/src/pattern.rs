//! Names by pattern, as a shell has them: `*`, `?` and `[...]` in one component of a path. Both sides match: the guest finds
//! the files, and the host takes none whose name it did not ask for.

/// Whether a component of a path, or a whole path, is more than a name.
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[".contains(byte))
}

/// Whether a name fits the pattern of one component. As in sh(1), a hidden one fits only where the dot is written. What is
/// not UTF-8 is matched byte by byte, the rest by characters.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.starts_with(b".") && !pattern.starts_with(b".") {
        return false;
    }
    let (pattern, name) = (units(pattern), units(name));
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` was, and how much of the name it has taken: a later one makes every earlier one right.
    let mut star = None;
    while seen < name.len() {
        let step = match pattern.get(at) {
            Some(&STAR) => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some(_) => one(&pattern[at..], name[seen]),
            None => None,
        };
        match (step, star) {
            (Some(length), _) => {
                at += length;
                seen += 1;
            }
            (None, Some((from, taken))) => {
                star = Some((from, taken + 1));
                at = from + 1;
                seen = taken + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[at..].iter().all(|&unit| unit == STAR)
}

const STAR: u32 = '*' as u32;

/// Characters as their numbers; a byte that belongs to none as a number that no character has.
fn units(text: &[u8]) -> Vec<u32> {
    const BEYOND: u32 = 0x11_0000;
    let mut units = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        units.extend(chunk.valid().chars().map(u32::from));
        units.extend(chunk.invalid().iter().map(|&byte| BEYOND + u32::from(byte)));
    }
    units
}

/// How long the part of the pattern is that stands for one character, if this one fits.
fn one(pattern: &[u32], unit: u32) -> Option<usize> {
    let is = |at: usize, letter: char| pattern.get(at) == Some(&u32::from(letter));
    if is(0, '?') {
        return Some(1);
    }
    if !is(0, '[') {
        return (pattern[0] == unit).then_some(1);
    }
    let negated = is(1, '!') || is(1, '^');
    let first = 1 + usize::from(negated);
    // A bracket that comes first is one of the characters; one that is never closed stands for itself.
    let Some(length) = pattern.iter().skip(first + 1).position(|&other| other == u32::from(']')) else {
        return (pattern[0] == unit).then_some(1);
    };
    let set = &pattern[first..first + 1 + length];
    let (mut found, mut at) = (false, 0);
    while at < set.len() {
        if at + 2 < set.len() && set[at + 1] == u32::from('-') {
            found |= (set[at]..=set[at + 2]).contains(&unit);
            at += 3;
        } else {
            found |= set[at] == unit;
            at += 1;
        }
    }
    (found != negated).then_some(first + length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(pattern: &str, name: &str) -> bool {
        matches(pattern.as_bytes(), name.as_bytes())
    }

    #[test]
    fn names_fit_as_in_a_shell() {
        for (pattern, name) in [
            ("*", "a"),
            ("*.log", "a.log"),
            ("a*b*c", "aXbYbc"),
            ("?", "ä"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[!]]", "x"),
            ("[a-]", "-"),
            (".*", ".hidden"),
            ("[", "["),
            ("a[b", "a[b"),
            ("**", "xy"),
            ("[ä-ü]", "ö"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("*.log", "a.logs"),
            ("*", ".hidden"),
            ("?hidden", ".hidden"),
            ("[.]hidden", ".hidden"),
            ("?", ""),
            ("?", "ab"),
            ("[a-c]", "d"),
            ("[!a-c]", "a"),
            ("a*b", "abX"),
            ("", "a"),
            ("[]", "x"),
        ] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
        assert!(matches(b"?.x", b"\xff.x") && matches(b"*\xff", b"a\xff") && !matches(b"\xfe", b"\xff"));
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!fits(&("*a".repeat(100) + "b"), &"a".repeat(4000)));
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in proptest::collection::vec(any::<u8>(), 0..20), name in "[a-c.\\[\\]*-]{0,20}") {
            matches(&pattern, name.as_bytes());
            prop_assert!(name.starts_with('.') || matches(b"*", name.as_bytes()));
        }
    }
}
