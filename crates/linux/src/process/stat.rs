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
        Stat::parse(&std::fs::read(format!("/proc/{pid}/stat"))?)
    }

    /// Reads them from the line. Allocates nothing.
    ///
    /// # Errors
    /// `ESRCH` where the process was reaped while the line was read; `InvalidData`.
    pub fn parse(line: &[u8]) -> io::Result<Stat> {
        match Stat::fields(line) {
            // In do_task_stat of the kernel's fs/proc/array.c, what is known of a process only until it is reaped is -1 after that.
            Some((_, -1)) => Err(rustix::io::Errno::SRCH.into()),
            Some((stat, _)) => Ok(stat),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// The fields, and its session as the kernel wrote it.
    fn fields(line: &[u8]) -> Option<(Stat, i64)> {
        // The second field, a name in parentheses, may itself hold blanks and parentheses.
        let after_name = line.iter().rposition(|&byte| byte == b')')? + 2;
        let mut fields = std::str::from_utf8(line.get(after_name..)?).ok()?.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        let written: i64 = fields.nth(2)?.parse().ok()?;
        let session = u32::try_from(written.max(0)).ok()?;
        let flags: u32 = fields.nth(2)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        Some((Stat { state, session, is_exiting: flags & EXITING != 0, start_time }, written))
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
        assert_eq!(Stat::parse(b"7 (a) S 1 7").unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_process_that_is_reaped_while_it_is_read_is_gone() {
        let reaped = Stat::parse(b"7 (a) X 0 -1 -1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9").unwrap_err();
        assert_eq!(reaped.raw_os_error(), Some(rustix::io::Errno::SRCH.raw_os_error()));
    }
}
