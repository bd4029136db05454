//! Processes that run as VMMs' users, and VMMs that run as any user.

use std::collections::HashSet;

use banger_api::verify::{Kind, Oddity, Problem};
use banger_linux::process::{self, ProcessError};

use super::{Known, Vms, oddity, with_fix};
use crate::ground::{Claim, Uids};
use crate::vmm::Vmm;

/// A process that runs as one of those users, or is a VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    uid: u32,
    /// The name that the kernel has for it.
    name: String,
    /// The id of the machine that it is the VMM of, according to its command line.
    machine: Option<String>,
}

/// All of them, without those that end meanwhile. `kept` are the users of VMs, which may be from a slot that the daemon
/// had earlier.
pub(super) fn of_vms(vmm: &dyn Vmm, uids: Uids, kept: &HashSet<u32>) -> Vec<Process> {
    let is_of_vms = |uid: u32| uids.is_vmm(uid) || kept.contains(&uid);
    let shared = vmm.user_of(uids.first());
    let all = process::all().unwrap_or_default();
    let candidates = all.into_iter().filter(|seen| is_of_vms(seen.uid) || seen.uid == shared);
    let describe = |seen: process::Seen| -> Result<Process, ProcessError> {
        let process = process::Process::open(seen.pid, None)?;
        let machine = vmm.machine_of(&process.command_line()?);
        Ok(Process { pid: seen.pid, uid: seen.uid, name: process.name()?, machine })
    };
    let described = candidates.filter_map(|seen| describe(seen).ok());
    let mut found: Vec<Process> =
        described.filter(|process| is_of_vms(process.uid) || process.machine.is_some()).collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// Those that belong to no VM, and VMMs of stopped VMs. `others` are the claims of other daemons; `user_of` returns the
/// user of a VM's VMM.
pub(super) fn compare(
    processes: &[Process],
    vms: &Vms,
    uids: Uids,
    others: &[Claim],
    user_of: impl Fn(u32) -> u32,
) -> Vec<Oddity> {
    let is_of_vms = |uid: u32| uids.is_vmm(uid) || vms.values().any(|vm| vm.uid == uid);
    let judge = |process: &Process| {
        let Process { pid, uid, name, machine } = process;
        let is_of = |vm: &&Known| user_of(vm.uid) == *uid;
        let fix = format!("kill {pid}");
        if let Some(vm) = machine.as_deref().and_then(|id| vms.get(id)).filter(is_of) {
            let (problem, found, fix) = match vm.pid {
                _ if vm.rests => {
                    let found = format!("{name}, the VMM of {}, which is recorded as stopped", vm.name);
                    (Problem::Leak, found, format!("banger kill {}", vm.name))
                }
                Some(vmm) if vmm != *pid && user_of(vm.uid) == vm.uid => {
                    let found = format!("{name}, which runs on the disks of {} beside its VMM, process {vmm}", vm.name);
                    (Problem::Foreign, found, fix)
                }
                _ => return None,
            };
            return Some(with_fix(oddity(Kind::Process, problem, pid.to_string(), found), fix));
        }
        if !is_of_vms(*uid) {
            return None;
        }
        // This daemon's user must not end another daemon's VM, even if a VM of this daemon has the same user.
        if machine.as_deref().is_some_and(|id| !vms.contains_key(id)) {
            let owner = others.iter().find(|claim| claim.uids.is_vmm(*uid));
            let theirs = |claim: &Claim| format!("the daemon of {}", claim.state.display());
            let whose = owner.map_or_else(|| "another daemon".to_owned(), theirs);
            let found = format!("{name}, the VMM of a VM of {whose}, which runs as user {uid}, one of this daemon's");
            let oddity = oddity(Kind::Process, Problem::Foreign, pid.to_string(), found);
            return Some(with_fix(oddity, "stop that VM through its own daemon"));
        }
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
        Some(with_fix(oddity(Kind::Process, problem, pid.to_string(), found), fix))
    };
    processes.iter().filter_map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::fake::Fake;
    use crate::vmm::qemu::Qemu;

    fn uids(first: u32) -> Uids {
        Uids::of(crate::ground::Slot::FIRST, first).unwrap()
    }

    fn known(name: &str, uid: u32, pid: Option<u32>, rests: bool) -> (String, Known) {
        (name.to_owned(), Known { name: name.to_owned(), uid, pid, rests, busy: false })
    }

    fn process(pid: u32, uid: u32, machine: Option<&str>) -> Process {
        Process { pid, uid, name: "sleep".into(), machine: machine.map(str::to_owned) }
    }

    #[test]
    fn a_process_is_a_vms_or_it_is_named() {
        let vms = Vms::from([
            known("runs", 100, Some(10), false),
            known("stopped", 101, None, true),
            known("starts", 102, None, false),
        ]);
        let processes =
            [(10, 100), (11, 100), (12, 101), (13, 102), (14, 103)].map(|(pid, uid)| process(pid, uid, None));
        let found = compare(&processes, &vms, uids(100), &[], |uid| uid);
        let told: Vec<_> = found.iter().map(|oddity| (oddity.which.as_str(), oddity.problem)).collect();
        assert_eq!(told, [("11", Problem::Foreign), ("12", Problem::Leak), ("14", Problem::Foreign)]);
        assert!(found[1].found.contains("stopped") && found[2].fix.as_deref() == Some("kill 14"));
    }

    #[test]
    fn another_daemons_vmm_is_never_to_be_ended() {
        let vms = Vms::from([known("runs", 100, Some(10), false), known("stopped", 101, None, true)]);
        // Those of VMs that run and that are stopped have the same user as a VM of this daemon.
        let processes = [(11, 100), (12, 101), (13, 102)].map(|(pid, uid)| process(pid, uid, Some("elsewhere")));
        let id = crate::ground::GroundId::from_random([2; 8]);
        let claim = Claim { id, uids: uids(100), state: "/theirs".into(), socket: "/run/theirs".into() };
        for (others, whose) in [(vec![], "another daemon"), (vec![claim], "the daemon of /theirs")] {
            let found = compare(&processes, &vms, uids(100), &others, |uid| uid);
            assert_eq!(found.iter().map(|oddity| oddity.which.as_str()).collect::<Vec<_>>(), ["11", "12", "13"]);
            for oddity in found {
                assert!(oddity.found.contains(&format!("the VMM of a VM of {whose}")), "{}", oddity.found);
                assert_eq!(oddity.fix.as_deref(), Some("stop that VM through its own daemon"));
            }
        }
    }

    #[test]
    fn the_users_of_vms_count_whatever_slot_they_are_from() {
        let vms = Vms::from([known("stopped", 7, None, true), known("runs", 8, Some(10), false)]);
        let processes = [process(10, 8, Some("runs")), process(11, 7, None), process(12, 9, None)];
        let found = compare(&processes, &vms, uids(100), &[], |uid| uid);
        assert_eq!(found.iter().map(|oddity| oddity.which.as_str()).collect::<Vec<_>>(), ["11"]);
    }

    #[test]
    fn a_vmm_is_named_where_its_vm_is_recorded_as_stopped_and_a_second_one_always() {
        let vms = Vms::from([known("runs", 100, Some(10), false), known("stopped", 101, Some(12), true)]);
        let processes = [
            process(10, 100, Some("runs")),
            process(11, 100, Some("runs")),
            process(12, 101, Some("stopped")),
            // It runs as another user, so the name in its command line proves nothing.
            process(13, 50, Some("stopped")),
        ];
        let found = compare(&processes, &vms, uids(100), &[], |uid| uid);
        let told: Vec<_> = found.iter().map(|oddity| (oddity.which.as_str(), oddity.problem)).collect();
        assert_eq!(told, [("11", Problem::Foreign), ("12", Problem::Leak)]);
        assert_eq!(found[1].fix.as_deref(), Some("banger kill stopped"));
        // A driver with one user for all VMMs: for a moment a forked child looks like its parent.
        let shared = [process(10, 0, Some("runs")), process(11, 0, Some("runs")), process(12, 0, Some("stopped"))];
        let found = compare(&shared, &vms, uids(100), &[], |_| 0);
        assert_eq!(found.iter().map(|oddity| oddity.which.as_str()).collect::<Vec<_>>(), ["12"]);
    }

    #[test]
    fn processes_are_found_by_their_user() {
        let me = rustix::process::getuid().as_raw();
        let pid = std::process::id();
        let qemu = Qemu::new(banger_linux::process::Program::Qemu);
        let nobody = HashSet::new();
        assert!(of_vms(&qemu, uids(me), &nobody).iter().any(|process| process.pid == pid));
        assert!(!of_vms(&qemu, uids(me + 1), &nobody).iter().any(|process| process.pid == pid));
        assert!(of_vms(&qemu, uids(me + 1), &HashSet::from([me])).iter().any(|process| process.pid == pid));
        // It is no VMM.
        assert!(!of_vms(&Fake::new("/agent".into()), uids(me + 1), &nobody).iter().any(|process| process.pid == pid));
    }
}
