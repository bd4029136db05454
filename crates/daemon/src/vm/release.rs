//! The shallow depth of undoing: what a VM holds while it runs, and never its disks.
//!
//! Works from a VM's id alone, goes on after errors and reports all of them, and can run twice. A VM that holds nothing is
//! released at once.

use std::time::Duration;

use banger_linux::process::{Process, ProcessError};
use rustix::process::Signal;

use super::definition::VmId;
use super::error::VmError;
use crate::context::{Context, blocking};
use crate::operation::{Operation, Step};

/// How long the kernel may take to end a killed process that writes to a slow disk.
const DYING: Duration = Duration::from_secs(30);

/// Ends the VMM, gives its port of the network back and removes the runtime directory.
pub(super) async fn release(context: &Context, id: &VmId, name: &str, operation: &Operation) -> Vec<VmError> {
    let mut errors = Vec::new();
    let end = context.step(Step::EndVmm, end_vmm(context, id, name));
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

async fn end_vmm(context: &Context, id: &VmId, name: &str) -> Result<(), VmError> {
    let pid_file = context.paths.vm(id.as_str()).pid_file;
    let unending = |source| VmError::Unending { name: name.to_owned(), source };
    let process = match Process::recorded(&pid_file) {
        Ok(process) => process,
        Err(ProcessError::Gone { .. }) => return Ok(()),
        Err(error) => return Err(unending(error)),
    };
    process.signal(Signal::KILL).map_err(unending)?;
    match tokio::time::timeout(DYING, process.ended()).await {
        Ok(ended) => ended.map(drop).map_err(unending),
        Err(_) => Err(unending(ProcessError::Watch {
            attempted: "end, within 30 s,",
            pid: process.pid(),
            source: std::io::ErrorKind::TimedOut.into(),
        })),
    }
}

/// Removes a directory with all that is in it; one that is missing is no error.
pub(super) async fn remove_dir(dir: std::path::PathBuf) -> Result<(), VmError> {
    let attempted = format!("remove the directory {}", dir.display());
    blocking(move || banger_linux::file::remove_tree(&dir)).await.map_err(VmError::io(attempted))
}
