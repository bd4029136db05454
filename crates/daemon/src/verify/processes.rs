//! Processes that run as the users that belong to VMMs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use banger_api::verify::{Kind, Oddity, Problem};

use super::{Vms, oddity, with_fix};
use crate::config::VMM_UIDS;

/// A process that runs as one of those users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    uid: u32,
    /// The name that the kernel has for it.
    name: String,
}

/// All of them in a `/proc`. One that ends meanwhile is none.
pub(super) fn of_vms(proc: &Path, first_uid: u32) -> Vec<Process> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let mut found: Vec<Process> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A directory of /proc is its process's effective user's (proc(5)).
            let uid = entry.metadata().ok()?.uid();
            let is_of_vms = uid >= first_uid && uid - first_uid < VMM_UIDS;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok().filter(|_| is_of_vms)?;
            Some(Process { pid, uid, name: name.trim_end().to_owned() })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// Those that are no VM's.
pub(super) fn compare(processes: &[Process], vms: &Vms) -> Vec<Oddity> {
    let judge = |process: &Process| {
        let Process { pid, uid, name } = process;
        let (problem, found) = match vms.values().find(|vm| vm.uid == *uid) {
            None => {
                (Problem::Foreign, format!("{name}, which runs as user {uid}, one of those for VMs that no VM has"))
            }
            Some(vm) if vm.rests => {
                (Problem::Leak, format!("{name}, which runs as the user of {}, a VM that is stopped", vm.name))
            }
            Some(vm) if vm.pid.is_some_and(|vmm| vmm != *pid) => {
                (Problem::Foreign, format!("{name}, which runs as the user of {} and is not its VMM", vm.name))
            }
            Some(_) => return None,
        };
        Some(with_fix(oddity(Kind::Process, problem, pid.to_string(), found), format!("kill {pid}")))
    };
    processes.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Known;

    #[test]
    fn a_process_is_a_vms_or_it_is_named() {
        let process = |pid, uid| Process { pid, uid, name: "sleep".into() };
        let known = |name: &str, uid, pid, rests| (name.to_owned(), Known { name: name.to_owned(), uid, pid, rests });
        let vms = Vms::from([
            known("runs", 100, Some(10), false),
            known("stopped", 101, None, true),
            known("starts", 102, None, false),
        ]);
        let found =
            compare(&[process(10, 100), process(11, 100), process(12, 101), process(13, 102), process(14, 103)], &vms);
        let told: Vec<_> = found.iter().map(|oddity| (oddity.which.as_str(), oddity.problem)).collect();
        assert_eq!(told, [("11", Problem::Foreign), ("12", Problem::Leak), ("14", Problem::Foreign)]);
        assert!(found[1].found.contains("stopped") && found[2].fix.as_deref() == Some("kill 14"));
    }

    #[test]
    fn processes_are_found_by_their_user() {
        let me = rustix::process::getuid().as_raw();
        let pid = std::process::id();
        assert!(of_vms(Path::new("/proc"), me).iter().any(|process| process.pid == pid));
        assert!(!of_vms(Path::new("/proc"), me + 1).iter().any(|process| process.pid == pid));
    }
}
