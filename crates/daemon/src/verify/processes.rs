//! Processes that run as the users that belong to VMMs.

use banger_api::verify::{Kind, Oddity, Problem};
use banger_linux::processes::Listed;

use super::{Vms, oddity, with_fix};
use crate::ground::Uids;

/// Those of these processes that run as one of those users.
pub(super) fn of_vms(mut processes: Vec<Listed>, uids: Uids) -> Vec<Listed> {
    processes.retain(|process| uids.is_vmm(process.uid));
    processes
}

/// Those that are no VM's.
pub(super) fn compare(processes: &[Listed], vms: &Vms) -> Vec<Oddity> {
    let judge = |process: &Listed| {
        let Listed { pid, uid, name } = process;
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
        let process = |pid, uid| Listed { pid, uid, name: "sleep".into() };
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
        let uids = Uids::of(crate::ground::Slot::FIRST, 1000).unwrap();
        let listed = |uid| Listed { pid: 1, uid, name: "sleep".into() };
        let of = |uid| of_vms(vec![listed(uid)], uids).len();
        assert_eq!([999, 1000, 66_535, 66_536].map(of), [0, 1, 1, 0]);
    }
}
