//! Words by which something is known: ids, versions. What an agent says is checked where it is read, so that nobody
//! carries on, stores or prints what no agent says.

/// What is wrong in what was read: the field, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: it {why}")]
pub struct Flaw {
    /// The field's name in JSON.
    pub field: &'static str,
    /// What its value is or is not.
    pub why: &'static str,
}

/// The longest id of a detached command.
const MAX_COMMAND: usize = 64;

/// The longest version, in bytes.
const MAX_VERSION: usize = 64;

pub(crate) const NO_BOOT_ID: &str = "is no UUID, as /proc/sys/kernel/random/boot_id has one";
pub(crate) const NO_COMMAND_ID: &str = "is not 1 to 64 of letters, digits, '-' and '_'";

/// Nothing where the field is right.
pub(crate) fn check(field: &'static str, right: bool, why: &'static str) -> Option<Flaw> {
    (!right).then_some(Flaw { field, why })
}

/// Whether it is a boot id: a UUID as the kernel prints it, in lower case (lib/vsprintf.c, `%pU`).
pub fn is_boot_id(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = |(at, byte): (usize, u8)| if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { digit(byte) };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// Whether it is the id of a detached command. The agent keeps its records in a directory of this name.
pub fn is_command_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_COMMAND).contains(&text.len()) && text.bytes().all(plain)
}

/// Whether it can be a program's version (semver.org), which has more to say than this.
pub(crate) fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_what_the_kernel_prints() {
        let kernels = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(is_boot_id(kernels.trim_end()), "{kernels}");
        assert!(!is_boot_id(&kernels), "with its line break");
        let good = "7d0bd2f1-1f7c-4e7e-9f43-8a3a7a0a2b11";
        assert!(is_boot_id(good));
        for bad in [
            "",
            "boot",
            &good.to_uppercase(),
            &good.replace('-', "0"),
            &good[1..],
            &format!("{good}0"),
            &good.replace('7', "\x1b"),
        ] {
            assert!(!is_boot_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_commands_id_is_a_plain_word() {
        for good in ["main", "7c1d", "a-B_9", &"x".repeat(64)] {
            assert!(is_command_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a\n", "\u{9b}", "ä", &"x".repeat(65)] {
            assert!(!is_command_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_version_is_a_plain_word() {
        assert!(is_version(env!("CARGO_PKG_VERSION")) && is_version("1.0.0-rc.1+git-3f2a"));
        assert!(
            !is_version("") && !is_version("1.0\x1b[m") && !is_version("1.0 \u{202e}") && !is_version(&"1".repeat(65))
        );
    }
}
