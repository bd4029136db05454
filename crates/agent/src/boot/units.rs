//! What systemd is told, in `/run` alone: that disks of images stay as they were made.
//!
//! One unit adopts the agent that runs already, one says that the system is up, `/tmp` is kept as it is, and the console
//! gets no login prompt: nobody types there, and its start takes time from the first commands.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Pid;

use super::BootError;

/// The directory of what the agent and its units say to each other.
pub const STATE: &str = "/run/banger";

/// The file whose appearance says that the system is up.
pub const SYSTEM_UP: &str = "system-up";

/// Puts everything below `root`.
pub fn write(agent: Pid, root: &Path) -> Result<(), BootError> {
    let pid = agent.as_raw_nonzero();
    let files = [
        ("run/banger/agent.pid", format!("{pid}\n")),
        ("run/systemd/system/banger-agent.service", agent_unit(pid.get())),
        ("run/systemd/system/banger-system-up.service", system_up_unit()),
    ];
    let links = [
        ("run/systemd/system/sysinit.target.wants/banger-agent.service", "../banger-agent.service"),
        ("run/systemd/system/multi-user.target.wants/banger-system-up.service", "../banger-system-up.service"),
        ("run/systemd/system-generators/systemd-getty-generator", "/dev/null"),
        ("run/systemd/system/getty@tty1.service", "/dev/null"),
        // Newer Debians mount a file system over `/tmp`, which would hide what a first command wrote there. An administrator's
        // own unit, in /etc, wins over this.
        ("run/systemd/system/tmp.mount", "/dev/null"),
    ];
    for (path, text) in &files {
        let path = root.join(path);
        in_directory(&path, |path| fs::write(path, text))?;
    }
    for (path, target) in links {
        in_directory(&root.join(path), |path| symlink(target, path))?;
    }
    // A file of this name in /etc is the administrator's own word on /tmp; it also wins over one in /run.
    if let Ok(text) = fs::read_to_string(root.join("usr/lib/tmpfiles.d/tmp.conf")) {
        in_directory(&root.join("run/tmpfiles.d/tmp.conf"), |path| fs::write(path, keeping_tmp(&text)))?;
    }
    Ok(())
}

fn in_directory(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> Result<(), BootError> {
    let both = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        make(path)
    };
    both().map_err(|source| BootError::Write { path: path.to_owned(), source })
}

/// Starts nothing: its command moves the running agent into the unit's cgroup. No default dependencies, so that it comes
/// first and is not stopped at shutdown: the agent answers until the end.
fn agent_unit(agent: i32) -> String {
    format!(
        "[Unit]\n\
         Description=banger's agent, which runs since before the init\n\
         DefaultDependencies=no\n\
         IgnoreOnIsolate=yes\n\
         RefuseManualStop=yes\n\
         [Service]\n\
         Type=forking\n\
         PIDFile={STATE}/agent.pid\n\
         ExecStart=/bin/sh -c 'while IFS=: read -r id _ path; do [ \"$id\" = 0 ] && \
         echo {agent} > \"/sys/fs/cgroup$path/cgroup.procs\"; done < /proc/self/cgroup'\n\
         Delegate=yes\n\
         KillMode=process\n\
         OOMPolicy=continue\n\
         TasksMax=infinity\n"
    )
}

/// Runs after everything that a multi-user system wants, be it well or failed. Without default dependencies: the target
/// would otherwise wait for it, and it for the target.
fn system_up_unit() -> String {
    format!(
        "[Unit]\n\
         Description=Tell banger that the system is up\n\
         DefaultDependencies=no\n\
         After=multi-user.target\n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart=/bin/sh -c ': > {STATE}/{SYSTEM_UP}'\n"
    )
}

/// The distribution's rules for temporary files, but for one: `/tmp` is not emptied at boot, since a first command may have
/// written there before.
fn keeping_tmp(rules: &str) -> String {
    let keep = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some("/tmp")) if kind.starts_with('D') => line.replacen('D', "d", 1),
            _ => line.to_owned(),
        }
    };
    rules.lines().map(|line| keep(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rule_that_empties_tmp_is_changed() {
        let rules = "# D /tmp\nD /tmp 1777 root root -\nq /var/tmp 1777 root root 30d\nD /tmp/x 1777 - - -\n";
        let kept = "# D /tmp\nd /tmp 1777 root root -\nq /var/tmp 1777 root root 30d\nD /tmp/x 1777 - - -\n";
        assert_eq!(keeping_tmp(rules), kept);
    }

    #[test]
    fn the_units_are_where_systemd_looks() {
        let root = tempfile::tempdir().unwrap();
        write(Pid::from_raw(77).unwrap(), root.path()).unwrap();
        let wanted = root.path().join("run/systemd/system/sysinit.target.wants/banger-agent.service");
        let unit = fs::read_to_string(wanted).unwrap();
        assert!(unit.contains("echo 77 > ") && unit.contains("KillMode=process\n"));
        assert!(!root.path().join("etc").exists());
    }
}
