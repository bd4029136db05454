//! What the guest says about itself.

use std::fs;

use banger_protocol::call::Facts;

use crate::guest::Guest;

/// Gathers it. What cannot be found out is left empty.
pub fn gather(guest: &Guest) -> Facts {
    let os_release = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
    Facts {
        boot_id: guest.boot_id.clone(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        system: pretty_name(&os_release.unwrap_or_default()),
        agent_resident: resident(),
    }
}

/// The value of `PRETTY_NAME` (os-release(5)).
fn pretty_name(os_release: &str) -> String {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or_default();
    value.trim().trim_matches(|quote| quote == '"' || quote == '\'').to_owned()
}

/// The second field of proc_pid_statm(5), in pages.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * u64::try_from(rustix::param::page_size()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_name_has_no_quotes() {
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(pretty_name("PRETTY_NAME=Alpine\n"), "Alpine");
        assert_eq!(pretty_name(""), "");
    }

    #[test]
    fn this_program_takes_memory() {
        assert!(resident() > 100_000);
    }
}
