//! The machine and its users.

use std::path::Path;

use banger_api::daemon::Finding;
use banger_linux::kvm::Probe;

use super::{fail, pass, warn};
use crate::ground::Uids;
use crate::vmm::select::{Access, Decision, decide};

/// How much memory is to be left when a VM of the usual size runs, in MiB.
const RESERVE: u64 = 256;

/// Whether VMs run on the processor itself.
pub(super) fn kvm(probe: &Probe, access: Option<&Access>) -> Finding {
    const CHECK: &str = "kvm";
    let Decision { kvm, reason } = decide(probe, access);
    if kvm {
        return pass(CHECK, format!("VMs run by {reason}"));
    }
    let fix = match probe {
        Probe::Real { .. } => {
            "give /dev/kvm the group kvm and the mode 0660, as udev does; VMs are several times slower without it"
        }
        Probe::Slow { .. } => "nothing on this host; on one with real KVM, VMs are several times faster",
        Probe::Absent { .. } => {
            "enable virtualisation in the firmware, or on the host of this machine, and load kvm_intel or kvm_amd; VMs are \
             several times slower without it"
        }
        Probe::Denied { .. } => {
            "run the daemon as root, or as a member of the group kvm; VMs are several times slower without it"
        }
    };
    warn(CHECK, format!("VMs run by {reason}"), fix)
}

/// Whether there is memory for one more VM of the usual size.
pub(super) fn memory(meminfo: &Path, vm_mib: u64) -> Finding {
    const CHECK: &str = "memory";
    let text = match std::fs::read_to_string(meminfo) {
        Ok(text) => text,
        Err(error) => return warn(CHECK, format!("{} cannot be read: {error}", meminfo.display()), "mount /proc"),
    };
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let Some(Ok(kib)) = available.map(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>()) else {
        return warn(CHECK, format!("{} does not say what is available", meminfo.display()), "use Linux 3.14 or newer");
    };
    let mib = kib / 1024;
    let found = format!("{mib} MiB are available, and a VM takes up to {vm_mib} MiB");
    if mib < vm_mib + RESERVE {
        return warn(CHECK, found, "stop VMs or other programs, or create VMs with less --memory");
    }
    pass(CHECK, found)
}

/// Whether the user ids that VMMs and builds of images run as are nobody else's.
pub(super) fn uids(passwd: &Path, subuid: &Path, uids: Uids) -> Finding {
    const CHECK: &str = "uids";
    let (first, last) = (uids.first(), uids.last());
    let fix = "set `first_uid` below `[vmm]` in the configuration to the first of 131072 free ids";
    if first < 1000 {
        return fail(CHECK, format!("VMMs would run as system users, from id {first} on"), fix);
    }
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let users = read(passwd);
    let users = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let id: u32 = fields.nth(1)?.parse().ok()?;
        Some((name.to_owned(), id, id))
    });
    let ranges = read(subuid);
    let ranges = ranges.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (start, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((format!("{name}'s containers"), start, start.saturating_add(count.saturating_sub(1))))
    });
    match users.chain(ranges).find(|(_, from, to)| *from <= last && *to >= first) {
        Some((owner, ..)) => {
            warn(CHECK, format!("ids of VMMs and builds, {first} to {last}, are also those of {owner}"), fix)
        }
        None => pass(CHECK, format!("VMMs and builds run as ids from {first} on, which nobody else has")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_api::daemon::Verdict;

    #[test]
    fn slow_kvm_is_a_warning_in_words() {
        let access = Access { mode: 0o660, gid: 106, as_other_user: true };
        let real = Probe::Real { instructions_per_second: 2_000_000_000 };
        assert_eq!(kvm(&real, Some(&access)).verdict, Verdict::Pass);
        let slow = kvm(&Probe::Slow { instructions_per_second: 800_000 }, Some(&access));
        assert_eq!(slow.verdict, Verdict::Warn);
        assert!(slow.found.contains("emulation") && slow.fix.unwrap().contains("several times faster"));
        for probe in [Probe::Absent { why: "no file".into() }, Probe::Denied { why: "no right".into() }] {
            let found = kvm(&probe, None);
            assert!(found.verdict == Verdict::Warn && found.fix.unwrap().contains("slower"));
        }
        let closed = kvm(&real, Some(&Access { mode: 0o600, gid: 106, as_other_user: true }));
        assert!(closed.verdict == Verdict::Warn && closed.fix.unwrap().contains("0660"));
    }

    #[test]
    fn little_memory_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let meminfo = dir.path().join("meminfo");
        let verdict = |text: &str| {
            std::fs::write(&meminfo, text).unwrap();
            memory(&meminfo, 1024).verdict
        };
        assert_eq!(verdict("MemTotal:       9000000 kB\nMemAvailable:    2097152 kB\n"), Verdict::Pass);
        assert_eq!(verdict("MemTotal:       9000000 kB\nMemAvailable:    1048576 kB\n"), Verdict::Warn);
        assert_eq!(verdict("MemTotal: 1 kB\n"), Verdict::Warn);
        assert_eq!(memory(&dir.path().join("none"), 1024).verdict, Verdict::Warn);
    }

    #[test]
    fn ids_that_somebody_has_are_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let (passwd, subuid) = (dir.path().join("passwd"), dir.path().join("subuid"));
        let uids = |passwd: &Path, subuid: &Path, first| {
            uids(passwd, subuid, Uids::of(crate::ground::Slot::FIRST, first).unwrap())
        };
        std::fs::write(&passwd, "root:x:0:0::/root:/bin/sh\nrubbish\nann:x:1000:1000::/home/ann:/bin/sh\n").unwrap();
        std::fs::write(&subuid, "ann:100000:65536\nrubbish:1\n").unwrap();
        assert_eq!(uids(&passwd, &subuid, 1_879_048_192).verdict, Verdict::Pass);
        assert!(uids(&passwd, &subuid, 165_535).found.ends_with("are also those of ann's containers"));
        assert_eq!(uids(&passwd, &subuid, 165_536).verdict, Verdict::Pass);
        assert!(uids(&passwd, &subuid, 1000).found.ends_with("are also those of ann"));
        assert_eq!(uids(&passwd, &subuid, 0).verdict, Verdict::Fail);
    }
}
