//! What a process's one line of fields says (proc_pid_stat(5)).

use std::io;

/// Some of the fields.
///
/// The kernel numbers processes as the reader's pid namespace does; one that is not in there has the number 0.
#[derive(Debug)]
pub struct Stat {
    /// A letter: `Z` and `X` are dead.
    pub state: u8,
    /// The number of its session, which is that of the process that made it.
    pub session: u32,
    /// Whether it has begun to exit: its memory is gone, and it can end at any moment.
    pub is_exiting: bool,
    /// Its start time, in ticks since the host's boot.
    pub start_time: u64,
}

/// `PF_EXITING` of the kernel's include/linux/sched.h.
const EXITING: u32 = 0x4;

impl Stat {
    /// Reads those of a process.
    ///
    /// # Errors
    /// Where there is no such process.
    pub fn read(pid: u32) -> io::Result<Stat> {
        let line = std::fs::read(format!("/proc/{pid}/stat"))?;
        Stat::parse(&line).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads them from the line. Allocates nothing.
    pub fn parse(line: &[u8]) -> Option<Stat> {
        // The second field, a name in parentheses, may itself hold blanks and parentheses.
        let after_name = line.iter().rposition(|&byte| byte == b')')? + 2;
        let mut fields = std::str::from_utf8(line.get(after_name..)?).ok()?.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        let session = fields.nth(2)?.parse().ok()?;
        let flags: u32 = fields.nth(2)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        Some(Stat { state, session, is_exiting: flags & EXITING != 0, start_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_counted_behind_the_name() {
        let stat = Stat::parse(b"7 (a) b) S 1 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9").unwrap();
        assert_eq!((stat.state, stat.session, stat.is_exiting, stat.start_time), (b'S', 5, false, 4711));
        let stat = Stat::parse(b"7 (a) R 1 7 5 0 -1 4194564 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9").unwrap();
        assert!(stat.is_exiting);
        assert!(Stat::parse(b"7 (a) S 1 7").is_none());
    }
}
