//! The processes of one session (setsid(2)): a command and all that it started and that did not leave.

use std::io;

use crate::process::Process;

/// Every living process of the session that `leader` made. Zombies do not count.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn members(leader: u32) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended in between is none.
        let Ok(stat) = std::fs::read(format!("/proc/{pid}/stat")) else { continue };
        let Some(stat) = Stat::parse(&stat) else { continue };
        if stat.session == leader
            && !matches!(stat.state, b'Z' | b'X')
            && let Ok(process) = Process::open(pid, Some(stat.start_time))
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Three fields of proc_pid_stat(5).
struct Stat {
    state: u8,
    session: u32,
    start_time: u64,
}

impl Stat {
    fn parse(stat: &[u8]) -> Option<Stat> {
        // The second field, a name in parentheses, may itself hold blanks and parentheses.
        let after_name = stat.iter().rposition(|&byte| byte == b')')? + 2;
        let mut fields = std::str::from_utf8(stat.get(after_name..)?).ok()?.split(' ');
        let state = *fields.next()?.as_bytes().first()?;
        let session = fields.nth(2)?.parse().ok()?;
        let start_time = fields.nth(15)?.parse().ok()?;
        Some(Stat { state, session, start_time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Launch, Program};
    use rustix::process::Signal;

    #[test]
    fn the_fields_are_counted_behind_the_name() {
        let stat = Stat::parse(b"7 (a) b) S 1 7 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9").unwrap();
        assert_eq!((stat.state, stat.session, stat.start_time), (b'S', 5, 4711));
    }

    #[tokio::test]
    async fn a_child_left_behind_is_found() {
        let mut launch = Launch::new(Program::Command("/bin/sh".into()), ["-c", "sleep 60 & exec sleep 61"]);
        launch.session = true;
        let leader = Process::start(launch).unwrap();
        let mut found = members(leader.pid()).unwrap();
        while found.len() < 2 {
            tokio::task::yield_now().await;
            found = members(leader.pid()).unwrap();
        }
        for process in &found {
            process.signal(Signal::KILL).unwrap();
            process.ended().await.unwrap();
        }
        assert!(members(leader.pid()).unwrap().is_empty());
    }
}
