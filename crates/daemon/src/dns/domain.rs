//! The domain that names of VMs are in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest first label, in bytes: it leaves room for the number of a slot, which has up to two digits.
const LONGEST_FIRST: usize = 61;

/// The longest one, in bytes: a VM's name, which may have 63, and some names below it still fit into the 253 that a name may have.
const LONGEST: usize = 100;

/// A domain: labels of `a-z`, `0-9` and `-`, of at most 63 bytes each, with dots between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(String);

impl Domain {
    /// Its text, without dots at its ends.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain with a number after its first label: `vm` becomes `vm1`.
    #[must_use]
    pub fn numbered(&self, number: u8) -> Domain {
        match self.0.split_once('.') {
            Some((first, rest)) => Domain(format!("{first}{number}.{rest}")),
            None => Domain(format!("{}{number}", self.0)),
        }
    }
}

impl Default for Domain {
    fn default() -> Domain {
        Domain("vm".to_owned())
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no domain for VMs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// It is none at all.
    #[error("'{}' is no domain: it is one or more labels of a-z, 0-9 and '-' with dots between them, as in \"vm\"", .0.escape_debug())]
    Malformed(String),
    /// Multicast DNS answers for it, and nobody else may (RFC 6762, 3).
    #[error("'{}' cannot be the domain of VMs: \"local\" belongs to multicast DNS", .0.escape_debug())]
    Local(String),
    /// The host's own (RFC 6761, 6.3).
    #[error("'{}' cannot be the domain of VMs: it stands for this host", .0.escape_debug())]
    Localhost(String),
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Domain, DomainError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(allowed)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        // What ends in a number is taken for an address (RFC 3696, 2).
        let is_domain =
            text.len() <= LONGEST && text.split('.').all(is_label) && !last.bytes().all(|b| b.is_ascii_digit());
        let is_domain = is_domain && text.split('.').next().is_some_and(|first| first.len() <= LONGEST_FIRST);
        match (is_domain, last) {
            (false, _) => Err(DomainError::Malformed(text.to_owned())),
            (true, "local") => Err(DomainError::Local(text.to_owned())),
            (true, "localhost") => Err(DomainError::Localhost(text.to_owned())),
            (true, _) => Ok(Domain(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;

    fn try_from(text: String) -> Result<Domain, DomainError> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> String {
        domain.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_what_dns_takes_and_nobody_else_has() {
        for good in ["vm", "vm.test", "my-lab.home.arpa", "vm2"] {
            assert_eq!(good.parse::<Domain>().unwrap().as_str(), good);
        }
        let long = vec!["x".repeat(30); 4].join(".");
        for bad in ["", ".", "vm.", ".vm", "a..b", "VM", "v m", "-vm", "vm-", "1.2", "7", "ü", &"x".repeat(62), &long]
        {
            assert!(matches!(bad.parse::<Domain>(), Err(DomainError::Malformed(_))), "{bad}");
        }
        assert!(matches!("vm.local".parse::<Domain>(), Err(DomainError::Local(_))));
        assert!(matches!("localhost".parse::<Domain>(), Err(DomainError::Localhost(_))));
    }
}
