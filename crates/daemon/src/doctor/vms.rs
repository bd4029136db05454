//! VMs whose records and processes disagree, and VMs that run without the files that a daemon needs to speak to them.

use std::path::Path;

use banger_api::daemon::Finding;

use super::{fail, pass, warn};
use crate::paths::Paths;
use crate::vm::alive::Living;
use crate::vm::definition::VmRecord;
use crate::vm::state::State;

/// Whether every VM with the record `stopped` is stopped, no unknown process runs as a VM's user, and running VMs have
/// their runtime files. Reports the worst finding.
pub(super) fn vms(records: &[VmRecord], survey: &[Living], paths: &Paths, needed: &[&str]) -> Finding {
    const CHECK: &str = "vms";
    let each = || records.iter().zip(survey).map(|(record, living)| (&record.definition, &record.state, living));
    let ghosts = each().filter_map(|(definition, state, living)| match (state, &living.vmm) {
        (State::Stopped { .. }, Some(process)) => Some((definition.name.as_str(), process.pid())),
        _ => None,
    });
    let ghosts: Vec<(&str, u32)> = ghosts.collect();
    if !ghosts.is_empty() {
        let found = ghosts.iter().map(|(name, pid)| format!("{name} is recorded as stopped and runs as process {pid}"));
        let names: Vec<&str> = ghosts.iter().map(|(name, _)| *name).collect();
        let fix = format!("save what its guest has not written yet, then banger kill {}", names.join(" "));
        return fail(CHECK, found.collect::<Vec<_>>().join("; "), fix);
    }
    let strangers = each().flat_map(|(definition, _, living)| {
        living
            .strangers
            .iter()
            .map(|stranger| (stranger.pid, format!("{stranger} runs as the user of {}", definition.name)))
    });
    let (pids, found): (Vec<u32>, Vec<String>) = strangers.unzip();
    if !pids.is_empty() {
        let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        return warn(
            CHECK,
            found.join("; "),
            format!("look at them with ps -fp {pids}; they may use the disks of these VMs"),
        );
    }
    let lacking = each().filter(|(definition, state, living)| {
        let runtime = paths.vm(definition.id.as_str()).runtime;
        let lacks = || needed.iter().any(|name| !has(&runtime, name));
        matches!(state, State::Running(_)) && living.vmm.is_some() && lacks()
    });
    let lacking: Vec<&str> = lacking.map(|(definition, ..)| definition.name.as_str()).collect();
    if !lacking.is_empty() {
        let names = lacking.join(" ");
        let found = format!("runtime files are missing below {}: {names}", paths.vms_runtime().display());
        return warn(CHECK, found, format!("these VMs run on; at a time that suits them, banger restart {names}"));
    }
    pass(CHECK, "what is recorded of VMs is what their processes say")
}

fn has(directory: &Path, name: &str) -> bool {
    directory.join(name).symlink_metadata().is_ok()
}
