//! The kernel's switches of the bridge (Documentation/networking/ip-sysctl.rst). They disappear with the bridge.
//!
//! The rules hold without them, because some take effect only together with the host's switch for all links. Each
//! switch closes a way before a packet reaches a rule.

use std::io;
use std::path::PathBuf;

/// Why a switch does not have its value.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value} to {}", path.display())]
pub struct SwitchError {
    path: PathBuf,
    value: &'static str,
    #[source]
    source: io::Error,
}

/// Each switch and its value.
const SWITCHES: [(&str, &str); 4] = [
    // The host tells no guest the direct way to another.
    ("send_redirects", "0"),
    // No guest changes the host's routes.
    ("accept_redirects", "0"),
    // No packet chooses its own route.
    ("accept_source_route", "0"),
    // A guest that asks on the bridge for another address of the host gets no answer, and does not learn that the host
    // has it.
    ("arp_ignore", "1"),
];

/// Sets the switches of a bridge that have another value. Returns whether there was one.
///
/// # Errors
/// [`SwitchError`]: /proc/sys may not be writable, as in many containers. The switches before that one are set.
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
