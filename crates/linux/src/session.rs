//! The processes of one session (setsid(2)): a command and all that it started and that did not leave.

use std::io;

use crate::process::{Process, Stat};

/// Every living process of the session that `leader` made. Zombies do not count.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn members(leader: u32) -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended in between is none.
        let Ok(stat) = Stat::read(pid) else { continue };
        if stat.session == leader
            && !matches!(stat.state, b'Z' | b'X')
            && let Ok(process) = Process::open(pid, Some(stat.start_time))
        {
            found.push(process);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Launch, Program};
    use rustix::process::Signal;

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
