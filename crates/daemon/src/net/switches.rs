//! The kernel's switches of the bridge (Documentation/networking/ip-sysctl.rst). They go with it.
//!
//! The rules hold without them: some count only together with the host's own for all links. Each takes a way away before a packet
//! comes to a rule.

use std::io;
use std::path::PathBuf;

/// Why a switch is not as it should be.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value} to {}", path.display())]
pub struct SwitchError {
    path: PathBuf,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// Each switch, and what it has to be.
const SWITCHES: [(&str, &str); 4] = [
    // No guest is told the address of another as a shorter way.
    ("send_redirects", "0"),
    // No guest changes the host's routes.
    ("accept_redirects", "0"),
    // No packet says by itself where it goes next.
    ("accept_source_route", "0"),
    // Who asks on the bridge for another address of the host's gets no answer, and does not learn that the host has it.
    ("arp_ignore", "1"),
];

/// Sets those of a bridge that are otherwise. Whether one was.
///
/// # Errors
/// [`SwitchError`]: /proc/sys may not be writable, as in many containers. Those before it are set.
pub fn ensure(bridge: &str) -> Result<bool, SwitchError> {
    let mut changed = false;
    for (switch, value) in SWITCHES {
        let path = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{bridge}/{switch}"));
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
            continue;
        }
        std::fs::write(&path, value).map_err(|source| SwitchError { path, value, source })?;
        changed = true;
    }
    Ok(changed)
}
