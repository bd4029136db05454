//! What VMs that nobody knows any more have left.

use std::collections::HashSet;
use std::fs::DirEntry;
use std::io;
use std::path::Path;

use banger_api::daemon::Finding;
use banger_linux::process::Process;

use super::{pass, warn};
use crate::vmm::{PID_FILE, Vmm};

/// The names of all VMs that have a runtime directory. Listed before the records are read: a VM's record is there before
/// its directory and goes after it, so a VM that comes or goes meanwhile is not taken for a leftover.
pub(super) fn names(vms_runtime: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    std::fs::read_dir(vms_runtime)?.map(name).collect()
}

/// Whether there are VMM processes or runtime directories of VMs that no record knows.
pub(super) fn leftovers(
    vms_runtime: &Path,
    names: io::Result<Vec<String>>,
    known: &HashSet<String>,
    vmm: &dyn Vmm,
) -> Finding {
    const CHECK: &str = "leftovers";
    let names = match names {
        Ok(names) => names,
        Err(error) => {
            return warn(CHECK, format!("{} cannot be read: {error}", vms_runtime.display()), "start the daemon anew");
        }
    };
    let unknown = names.into_iter().filter(|name| !known.contains(name) && vms_runtime.join(name).exists());
    let mut unknown: Vec<String> = unknown.collect();
    unknown.sort_unstable();
    // If another process has the number by now, it is no VMM: nobody may be advised to end it.
    let is_vmm = |name: &str, process: &Process| {
        process.command_line().is_ok_and(|command| vmm.machine_of(&command).as_deref() == Some(name))
    };
    let alive = |name: &String| match Process::recorded(&vms_runtime.join(name).join(PID_FILE)) {
        Ok(process) if is_vmm(name, &process) => Some(process.pid().to_string()),
        _ => None,
    };
    let pids: Vec<String> = unknown.iter().filter_map(alive).collect();
    let directories = unknown.iter().map(|name| vms_runtime.join(name).display().to_string());
    let directories = directories.collect::<Vec<_>>().join(" ");
    if !pids.is_empty() {
        let pids = pids.join(" ");
        return warn(
            CHECK,
            format!("VMs that no record knows run as process {pids}"),
            format!("kill {pids}; rm -r {directories}"),
        );
    }
    if !unknown.is_empty() {
        return warn(CHECK, format!("no record knows {directories}"), format!("rm -r {directories}"));
    }
    pass(CHECK, "no processes or files of VMs that no record knows")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::qemu::Qemu;
    use banger_api::daemon::Verdict;
    use banger_linux::process::{Launch, Leash, Program};

    #[test]
    fn processes_and_directories_of_unknown_vms_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let known = HashSet::from(["known".to_owned()]);
        let qemu = Qemu::new(Program::Qemu);
        let check = |dir: &Path| leftovers(dir, names(dir), &known, &qemu);
        let run = |name: &str| {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            let guest = format!("guest={name},debug-threads=on");
            let mut launch =
                Launch::new(Program::Command("/usr/bin/perl".into()), ["-e", "sleep 60", "--", "-name", &guest]);
            launch.pid_file = Some(std::fs::File::create(dir.path().join(name).join(PID_FILE)).unwrap());
            Leash::start(launch).unwrap()
        };
        let _of_a_known_vm = run("known");
        assert_eq!(check(dir.path()).verdict, Verdict::Pass);

        let unknown = run("unknown");
        let pid = unknown.process().unwrap().pid();
        let found = check(dir.path());
        assert_eq!(found.verdict, Verdict::Warn);
        assert!(found.found.ends_with(&format!("process {pid}")), "{}", found.found);
        assert_eq!(found.fix.unwrap(), format!("kill {pid}; rm -r {}", dir.path().join("unknown").display()));

        // The number belongs to a process that is no VMM.
        let innocent = Leash::start(Launch::new(Program::Command("/bin/sleep".into()), ["60"])).unwrap();
        let identity = innocent.process().unwrap().identity().unwrap();
        let pid_file = dir.path().join("unknown").join(PID_FILE);
        std::fs::write(&pid_file, format!("{} {}", identity.pid, identity.start)).unwrap();
        assert!(!check(dir.path()).fix.unwrap().contains("kill"));

        drop(unknown);
        let found = check(dir.path());
        assert!(found.verdict == Verdict::Warn && !found.fix.unwrap().contains("kill"));
        assert_eq!(check(&dir.path().join("none")).verdict, Verdict::Warn);
    }
}
