//! Values of arguments: names, sizes, variables, levels. What makes no sense stops here, before any connection.

use std::collections::BTreeMap;

use banger_api::name::{MAX_LENGTH, VmName};

use super::suggest::Rejected;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::size::Size;

/// A new name, by the whole rule.
pub fn new_name(text: &str) -> Result<String, Rejected> {
    text.parse::<VmName>().map(String::from).map_err(|error| Rejected::new(error.flaw(), error.help()))
}

/// Something that exists: a name, or an id, which may begin with a digit.
pub fn known_name(text: &str) -> Result<String, Rejected> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    new_name(text)
}

/// A size, as [`crate::size::parse`] reads it.
pub fn size(text: &str) -> Result<Size, Rejected> {
    crate::size::parse(text).map_err(|error| Rejected::new(&error, error.help()))
}

/// How far a guest has to come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitLevel {
    /// Commands can be run
    Agent,
    /// Its services are up
    System,
    /// SSH answers
    Ssh,
}

impl WaitLevel {
    /// The API's word for it.
    pub fn word(self) -> &'static str {
        match self {
            WaitLevel::Agent => "agent",
            WaitLevel::System => "system",
            WaitLevel::Ssh => "ssh",
        }
    }
}

/// An `--env` argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    name: String,
    value: Option<String>,
}

/// `NAME=VALUE`, or `NAME` for the value that it has here.
pub fn variable(text: &str) -> Result<Variable, Rejected> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() || name.contains('\0') || name.contains(char::is_whitespace) {
        let help = "write NAME=VALUE, or NAME for the value that it has here";
        return Err(Rejected::new("it does not begin with a variable's name", help));
    }
    Ok(Variable { name: name.to_owned(), value })
}

/// The variables with their values. As with docker, one that is taken from here and is not set here is left out.
///
/// # Errors
/// A value that is not UTF-8, which the API cannot carry.
pub fn variables(given: &[Variable], environment: &Environment) -> Result<BTreeMap<String, String>, Failure> {
    let mut variables = BTreeMap::new();
    for Variable { name, value } in given {
        let value = match value {
            Some(value) => value.clone(),
            None => match environment.var(name) {
                None => continue,
                Some(value) => value.to_str().map(str::to_owned).ok_or_else(|| {
                    Failure::usage(format!("the value of {name} is not UTF-8"), format!("leave --env {name} out"))
                })?,
            },
        };
        variables.insert(name.clone(), value);
    }
    Ok(variables)
}

/// A key with the control key held: `^]`.
pub fn control_key(text: &str) -> Result<u8, Rejected> {
    match text.to_ascii_uppercase().as_bytes() {
        [b'^', key @ b'@'..=b'_'] => Ok(key & 0x1f),
        _ => Err(Rejected::new("it is no control key", "write ^ and a letter or one of []\\^_, as ^]")),
    }
}

/// A directory in a guest, or nothing.
pub fn guest_directory_or_none(text: &str) -> Result<String, Rejected> {
    if text.is_empty() { Ok(String::new()) } else { guest_directory(text) }
}

/// A directory in a guest.
pub fn guest_directory(text: &str) -> Result<String, Rejected> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(text.to_owned())
    } else {
        Err(Rejected::new("it is no absolute path", "write a path in the guest, as /root/project"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_exists_may_be_an_id() {
        assert_eq!(known_name("4f2a9c"), Ok("4f2a9c".to_owned()));
        assert!(new_name("4f2a9c").is_err());
        assert_eq!(known_name("Web_1").unwrap_err(), Rejected::new("it contains 'W'", "try 'web-1'"));
    }

    #[test]
    fn control_keys_are_written_with_a_caret() {
        assert_eq!(control_key("^]"), Ok(0x1d));
        assert_eq!(control_key("^a"), Ok(1));
        for bad in ["", "^", "a", "^1", "^]]"] {
            assert!(control_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_given_or_taken_from_here() {
        let vars = [("HERE".into(), "1".into()), ("EMPTY".into(), "".into())];
        let environment = Environment::new(vars.into_iter(), "/bin/banger".into());
        let given: Vec<Variable> =
            ["A=b=c", "HERE", "ABSENT", "E="].iter().map(|text| variable(text).unwrap()).collect();
        let variables = variables(&given, &environment).unwrap();
        let expected = [("A", "b=c"), ("E", ""), ("HERE", "1")];
        assert_eq!(variables, expected.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
        assert!(variable("=x").is_err());
        assert!(variable("a b=x").is_err());
    }
}
