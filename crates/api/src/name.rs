//! The rule for names, the same for the command line, which asks before it connects, and for the daemon, which asks
//! everybody.

use std::fmt;
use std::str::FromStr;

/// The longest name: a DNS label.
pub const MAX_LENGTH: usize = 63;

/// How guests call the host, and so no VM.
pub const HOST: &str = "host";

/// The rule as a regular expression, but for [`HOST`].
pub const PATTERN: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";

/// The rule for images as a regular expression: theirs may also have dots.
pub const IMAGE_PATTERN: &str = "^[a-z][a-z0-9.-]{0,62}$";

/// A VM's name: 1 to 63 of `a-z`, `0-9` and `-`; it begins with a letter and does not end with `-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VmName(String);

impl VmName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> String {
        name.0
    }
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<VmName, NameError> {
        match flaw(text) {
            None => Ok(VmName(text.to_owned())),
            Some(flaw) => Err(NameError { text: text.to_owned(), flaw }),
        }
    }
}

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not a name: {flaw}", text.escape_debug())]
pub struct NameError {
    text: String,
    flaw: Flaw,
}

impl NameError {
    /// What is wrong.
    pub fn flaw(&self) -> Flaw {
        self.flaw
    }

    /// One line: what to do about it.
    pub fn help(&self) -> String {
        match self.suggestion() {
            Some(name) => format!("try '{name}'"),
            None => "names are 1 to 63 of a-z, 0-9 and '-', begin with a letter and do not end with '-'".to_owned(),
        }
    }

    /// The nearest name, where there is one.
    pub fn suggestion(&self) -> Option<String> {
        // Who writes a name with its domain means the name.
        let text = match self.text.split_once('.') {
            Some((name, _)) if flaw(name).is_none() => name,
            _ => &self.text,
        };
        let mut name = String::new();
        for char in text.chars() {
            let char = char.to_ascii_lowercase();
            if char.is_ascii_lowercase() || (char.is_ascii_digit() && !name.is_empty()) {
                name.push(char);
            } else if !name.is_empty() && !name.ends_with('-') {
                name.push('-');
            }
        }
        name.truncate(MAX_LENGTH);
        match name.trim_end_matches('-') {
            "" => None,
            HOST => Some(format!("{HOST}-1")),
            name => Some(name.to_owned()),
        }
    }
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No characters.
    #[error("it is empty")]
    Empty,
    /// Over [`MAX_LENGTH`].
    #[error("it is longer than {MAX_LENGTH} characters")]
    TooLong,
    /// It does not begin with a letter.
    #[error("it does not begin with a letter from a to z")]
    Begin,
    /// It ends with `-`.
    #[error("it ends with '-'")]
    End,
    /// [`HOST`].
    #[error("it is the host's own name among its VMs")]
    Host,
    /// A character that is not allowed.
    #[error("it contains '{}'", .0.escape_debug())]
    Character(char),
}

fn flaw(text: &str) -> Option<Flaw> {
    let allowed = |char: &char| char.is_ascii_lowercase() || char.is_ascii_digit() || *char == '-';
    let first = text.chars().next();
    match first {
        None => Some(Flaw::Empty),
        _ if text.chars().any(|char| !allowed(&char)) => text.chars().find(|char| !allowed(char)).map(Flaw::Character),
        Some(first) if !first.is_ascii_lowercase() => Some(Flaw::Begin),
        _ if text.ends_with('-') => Some(Flaw::End),
        _ if text == HOST => Some(Flaw::Host),
        _ if text.len() > MAX_LENGTH => Some(Flaw::TooLong),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["a", "devbox", "web-1", &"x".repeat(63)] {
            assert_eq!(good.parse::<VmName>().unwrap().as_str(), good);
        }
        let flaw = |text: &str| text.parse::<VmName>().unwrap_err().flaw();
        assert_eq!(flaw(""), Flaw::Empty);
        assert_eq!(flaw(&"x".repeat(64)), Flaw::TooLong);
        assert_eq!(flaw("1box"), Flaw::Begin);
        assert_eq!(flaw("-box"), Flaw::Begin);
        assert_eq!(flaw("box-"), Flaw::End);
        assert_eq!(flaw("Box"), Flaw::Character('B'));
        assert_eq!(flaw("host"), Flaw::Host);
        assert_eq!(flaw("devbox.vm"), Flaw::Character('.'));
        assert_eq!(flaw("ü"), Flaw::Character('ü'));
    }

    #[test]
    fn a_suggestion_is_itself_a_name() {
        let suggestion = |text: &str| text.parse::<VmName>().unwrap_err().suggestion();
        assert_eq!(suggestion("My Dev_Box!").as_deref(), Some("my-dev-box"));
        assert_eq!(suggestion("42-answers").as_deref(), Some("answers"));
        assert_eq!(suggestion("1.2.3"), None);
        assert_eq!(suggestion("devbox.vm").as_deref(), Some("devbox"));
        for host in ["host", "Host", "host-", "4host!"] {
            assert_eq!(suggestion(host).as_deref(), Some("host-1"), "{host}");
        }
        let long = format!("{}-x", "y".repeat(62));
        assert_eq!(suggestion(&long).unwrap().parse::<VmName>().unwrap().as_str(), "y".repeat(62));
    }
}
