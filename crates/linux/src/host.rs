//! What the host says about itself.

/// The calling process' resident memory, in bytes (proc_pid_statm(5)); zero where /proc is not there.
pub fn resident_memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// The id of a group of this host, where /etc/group has it (group(5)).
pub fn group_id(name: &str) -> Option<u32> {
    parse_group(&std::fs::read_to_string("/etc/group").ok()?, name)
}

fn parse_group(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let text = "root:x:0:\nbangers:x:7:\nbanger:x:42:me,you\nbroken\n";
        assert_eq!(parse_group(text, "banger"), Some(42));
        assert_eq!(parse_group(text, "bang"), None);
    }

    #[test]
    fn a_process_has_memory() {
        assert!(resident_memory() > 100_000);
    }
}
