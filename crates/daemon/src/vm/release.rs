//! The shallow depth of undoing: what a VM holds while it runs, and never its disks.
//!
//! Works from a VM's record alone if the daemon does not hold its VMM, goes on after errors and reports all of them,
//! and can run twice. Releases a VM that holds nothing at once.

use std::time::Duration;

use banger_linux::process::ProcessError;
use rustix::process::Signal;

use super::alive::{Hold, look_for};
use super::definition::VmRecord;
use super::error::VmError;
use crate::context::{Context, blocking};
use crate::operation::{Operation, Step};

/// How long the kernel may take to end a killed process that writes to a slow disk.
const DYING: Duration = Duration::from_secs(30);

/// Ends the VMM, gives its port of the network back and removes the runtime directory.
pub(super) async fn release(
    context: &Context,
    record: &VmRecord,
    hold: &mut Hold,
    operation: &Operation,
) -> Vec<VmError> {
    let mut errors = Vec::new();
    let id = &record.definition.id;
    let end = context.step(Step::EndVmm, end_vmm(context, record, hold));
    errors.extend(operation.stage("vmm.end", end).await.err());
    if errors.is_empty() && context.network.has(id.as_str()) {
        let give_back = async { Ok(context.network.release(id.as_str()).await?) };
        let give_back = context.step(Step::ReleasePort, give_back);
        errors.extend(operation.stage("net.release", give_back).await.err());
    }
    if errors.is_empty() {
        // The process record goes with the directory: only when there is no process any more.
        let runtime = context.paths.vm(id.as_str()).runtime;
        let remove = context.step(Step::RemoveRuntime, remove_dir(runtime));
        errors.extend(operation.stage("runtime.remove", remove).await.err());
    }
    errors
}

/// Ends the held VMM, or the one that it finds. Never ends a process that is not known as the VMM; while such a process
/// lives, nothing else is released.
async fn end_vmm(context: &Context, record: &VmRecord, hold: &mut Hold) -> Result<(), VmError> {
    let name = &record.definition.name;
    if let Hold::Unknown = hold {
        let mut living = look_for(context, record).await?;
        *hold = living.hold();
        if let Hold::Unknown = hold {
            let (attempted, processes) = ("release", living.strangers);
            return Err(VmError::Strangers { attempted, name: name.clone(), processes });
        }
    }
    let Hold::Held(process) = hold else { return Ok(()) };
    let unending = |source| VmError::Unending { name: name.clone(), source };
    process.signal(Signal::KILL).map_err(unending)?;
    match tokio::time::timeout(DYING, process.ended()).await {
        Ok(ended) => ended.map(drop).map_err(unending)?,
        Err(_) => {
            return Err(unending(ProcessError::Watch {
                attempted: "end, within 30 s,",
                pid: process.pid(),
                source: std::io::ErrorKind::TimedOut.into(),
            }));
        }
    }
    *hold = Hold::Gone;
    Ok(())
}

/// Removes a directory with all that is in it; one that is missing is no error.
pub(super) async fn remove_dir(dir: std::path::PathBuf) -> Result<(), VmError> {
    let attempted = format!("remove the directory {}", dir.display());
    blocking(move || banger_linux::file::remove_tree(&dir)).await.map_err(VmError::io(attempted))
}
