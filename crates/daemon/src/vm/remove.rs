//! The deep depth of undoing: release, then the disks, the record last. Only `rm`, a failed create and `--rm` come here.

use super::alive::Hold;
use super::definition::VmRecord;
use super::error::VmError;
use super::guard::disks_are_unused;
use super::release::{release, remove_dir};
use crate::context::Context;
use crate::operation::{Operation, Step};

/// Removes all that a VM is. Its record stays until nothing else is left, so that a second try finds the rest.
pub(super) async fn remove(
    context: &Context,
    record: &VmRecord,
    hold: &mut Hold,
    operation: &Operation,
) -> Vec<VmError> {
    let id = &record.definition.id;
    let mut errors = release(context, record, hold, operation).await;
    // A living process still writes to the disks: keep them.
    if errors.is_empty() {
        errors.extend(disks_are_unused(context, record).await.err());
    }
    if errors.is_empty() {
        let _turn = context.turns.removals.take(operation).await;
        let disks = context.paths.vm(id.as_str()).state;
        let remove = context.step(Step::RemoveDisks, remove_dir(disks));
        errors.extend(operation.stage("disk.remove", remove).await.err());
    }
    if errors.is_empty() {
        let forget = async { Ok(context.store.delete_vm(id.clone()).await?) };
        errors.extend(operation.stage("record.forget", context.step(Step::Forget, forget)).await.err());
    }
    errors
}
