//! What a process has used so far.

use std::io;

/// What a process has used since it began, but for memory, which is what it has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Processor time of all its threads, in microseconds.
    pub cpu_micros: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// What it made the storage read, in bytes.
    pub read: u64,
    /// What it made the storage write, in bytes.
    pub written: u64,
}

/// Reads proc_pid_stat(5), proc_pid_statm(5) and proc_pid_io(5) of a process. The last may be read by its owner and by root
/// only, and counts nothing where it cannot be.
///
/// # Errors
/// Where there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(Usage {
        cpu_micros: ticks(&stat).saturating_mul(1_000_000) / rustix::param::clock_ticks_per_second(),
        resident: pages * rustix::param::page_size() as u64,
        read: field(&io, "read_bytes:"),
        written: field(&io, "write_bytes:"),
    })
}

/// The sum of the fields utime and stime, the 14th and 15th. The second is the program's name, in which anything may be.
fn ticks(stat: &str) -> u64 {
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_ascii_whitespace().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 4 0 100";
        assert_eq!(ticks(stat), 300);
        assert_eq!(ticks("nonsense"), 0);
        assert_eq!(field("rchar: 7\nread_bytes: 4096\nwrite_bytes: 1\n", "read_bytes:"), 4096);
    }

    #[test]
    fn this_process_has_used_something_and_none_is_none() {
        let used = usage(std::process::id()).unwrap();
        assert!(used.resident > 100_000);
        assert!(usage(u32::MAX).is_err());
    }
}
