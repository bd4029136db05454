//! Public SSH keys: those that open a guest to who has their private halves.
//!
//! A line is taken into files that sshd(8) reads, so it is checked by each side that hands it on: one line, a kind that is
//! known, and a body that begins as its kind says (RFC 4253, 6.6). Options before the key, as authorized_keys allows, are
//! none of a key's business and are refused.

/// The longest line, in bytes: an RSA key of 16384 bits has under 3000.
pub const MAX_LINE: usize = 8192;

/// The most keys of one guest.
pub const MAX_KEYS: usize = 64;

/// The most bytes of all its keys together: they are told in one frame.
pub const MAX_BYTES: usize = 64 * 1024;

/// The kinds of keys that OpenSSH takes (ssh-keygen(1)), and how the body of each begins in base64: with its kind's name.
const KINDS: [(&str, &str); 7] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5"),
    ("ssh-rsa", "AAAAB3NzaC1y"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAy"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAz"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1"),
    ("sk-ssh-ed25519@openssh.com", "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t"),
    ("sk-ecdsa-sha2-nistp256@openssh.com", "AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5j"),
];

/// One key's line as a regular expression, but for the length.
pub const PATTERN: &str = concat!(
    "^(",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
    "|ssh-rsa AAAAB3NzaC1y",
    "|ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAy",
    "|ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAz",
    "|ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1",
    "|sk-ssh-ed25519@openssh\\.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
    "|sk-ecdsa-sha2-nistp256@openssh\\.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5j",
    ")([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?( [^\\x00-\\x1f\\x7f-\\x9f]*)?$"
);

/// What makes a line unfit to be a public key.
pub fn flaw(line: &str) -> Option<&'static str> {
    if line.len() > MAX_LINE {
        return Some("it is longer than 8192 bytes");
    }
    if line.chars().any(char::is_control) {
        return Some("it is more than one line of plain text");
    }
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let Some((_, begin)) = KINDS.iter().find(|(name, _)| *name == kind) else {
        return Some("it does not begin with a kind of key that is known, such as ssh-ed25519");
    };
    let body = rest.split(' ').next().unwrap_or_default();
    match body.strip_prefix(begin) {
        Some(key) if is_base64(key) => None,
        _ => Some("what follows its kind is no key of that kind"),
    }
}

/// What makes several lines unfit to be the keys of one guest, and which line where it is one.
pub fn flaw_of_all(lines: &[String]) -> Option<(Option<&str>, &'static str)> {
    if lines.len() > MAX_KEYS || lines.iter().map(|line| line.len() + 1).sum::<usize>() > MAX_BYTES {
        return Some((None, "a guest can have 64 keys, of 64 KiB together"));
    }
    lines.iter().find_map(|line| Some((Some(line.as_str()), flaw(line)?)))
}

/// The key itself, without what is said about it: what makes two lines the same key.
pub fn key_of(line: &str) -> &str {
    let end = line.match_indices(' ').nth(1).map_or(line.len(), |(at, _)| at);
    &line[..end]
}

/// Whether it is base64 with its padding (RFC 4648, 4), and not empty.
fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    digits.len() >= 4 && text.len().is_multiple_of(4) && text.len() - digits.len() <= 2 && digits.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by ssh-keygen(1), which made them for this test.
    const REAL: [&str; 3] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFsKvBu8XxhN0qdGcylsntlkgv7VTfYJZ8n2pRIR7vAC dev@host with words",
        "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC/fg3AYINzaILnhFinhf4KXC3K3oH0yyqQ/fwLCTbfhClYa5vhGmoy4wek76CkNPG7Tc3Zhwo/ZS3uvXF0LNEK9+0OWUdA3Ww6KG+DsaFlw47Tcenw5wRNkWCtTUrTvzPXYnIXK/fqThHk7q8zB/BJRpJLR+LRIi64euDWDE2fV4sEarGJUjcyRDhJQF5GWNYf/GmNSpXsl2wtmjN+NCffOkbeVB0k8PV31T1J5lWZ1SNXQP8bKN3La2/+blT9t8oO7XqWhDxS5YY+n6vq1rl7hkUc/IsmdFmR+3kStwrG4P8Y3oi1ZEdNnIaEmhBEvMidS8+pBMD0HG/HAcDxGxZ9 dev@host with words",
        "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAAA3ZMS0qMMGNmAmywxL44srnCej7H3tN9SxmazrRW4p3bJ+o4ApsY9wYFo4gJfWYO+guh3w+4OCcoQg2dLUTlR9ACe5fakAgd+DMUwiL2oFuocAvK19sa3LMdqB/svIBW1tXNAPTcWU+AxeJ8CEdLGiFjQHUJ8sEkNJCLUmEmjeOeAmw== dev@host with words",
    ];

    #[test]
    fn keys_of_ssh_keygen_are_taken() {
        for line in REAL {
            assert_eq!(flaw(line), None, "{line}");
            assert!(line.starts_with(key_of(line)) && key_of(line).split(' ').count() == 2);
            assert_eq!(flaw(key_of(line)), None);
        }
    }

    #[test]
    fn what_is_no_key_or_more_than_one_is_refused() {
        let good = key_of(REAL[0]);
        for line in [
            String::new(),
            "ssh-ed25519".to_owned(),
            "ssh-ed25519 ".to_owned(),
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5".to_owned(),
            format!("command=\"reboot\" {good}"),
            format!("# {good}"),
            format!(" {good}"),
            good.replace("ssh-ed25519", "ssh-rsa"),
            good.replace("ssh-ed25519", "ssh-dss"),
            good.replacen(' ', "  ", 1),
            format!("{good} a\n{good} b"),
            format!("{good} a\rb"),
            format!("{good} \u{9b}2J"),
            format!("{good}="),
            format!("{good}*"),
            format!("{good} {}", "x".repeat(MAX_LINE)),
        ] {
            assert!(flaw(&line).is_some(), "{line:?}");
        }
    }

    #[test]
    fn all_keys_together_have_a_bound() {
        let line = |comment: usize| format!("{} {comment}", key_of(REAL[0]));
        let keys: Vec<String> = (0..=MAX_KEYS).map(line).collect();
        assert_eq!(flaw_of_all(&keys[1..]), None);
        assert!(matches!(flaw_of_all(&keys), Some((None, _))));
        let long = vec![format!("{} {}", key_of(REAL[0]), "x".repeat(8000)); 9];
        assert!(matches!(flaw_of_all(&long), Some((None, _))));
        let bad = [line(1), "x".to_owned()];
        assert!(matches!(flaw_of_all(&bad), Some((Some("x"), _))));
    }
}
