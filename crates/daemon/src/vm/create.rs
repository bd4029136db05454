//! Making a VM's disks. Contains no undoing: a failed create is undone by `remove`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use tokio::task::JoinHandle;

use super::definition::Definition;
use super::error::VmError;
use crate::context::{Context, blocking};
use crate::image::names;
use crate::operation::{Operation, Step};
use crate::storage::{self, StorageError};

/// The sync of new disks, under way while the guest boots; the VM is not called running before it is done.
pub(super) type Syncing = JoinHandle<Result<(), StorageError>>;

/// Clones the image's root disk and its work seed.
pub(super) async fn make_disks(
    context: &Context,
    definition: &Definition,
    operation: &Operation,
) -> Result<(), VmError> {
    let paths = context.paths.vm(definition.id.as_str());
    let image = context.paths.image(&definition.image_id);
    let (uid, disk) = (definition.uid, definition.disk);

    let clone_root = async {
        let (dir, from, to) = (paths.state.clone(), image.join(names::ROOT), paths.root.clone());
        blocking(move || {
            make_private_dir(&dir)?;
            Ok(storage::clone_disk(&from, &to, storage::size(&from)?, uid)?)
        })
        .await
    };
    operation.stage("disk.clone", context.step(Step::CloneRoot, clone_root)).await?;

    let clone_work = async {
        let (seed, to) = (image.join(names::WORK_SEED), paths.work.clone());
        if seed.exists() {
            blocking(move || storage::clone_disk(&seed, &to, disk, uid)).await?;
        } else {
            storage::empty_disk(&to, disk, uid).await?;
        }
        Ok(())
    };
    operation.stage("work.clone", context.step(Step::CloneWork, clone_work)).await?;

    Ok(())
}

/// Begins to sync new disks. Not before the records that come first are written: on ext4 their own sync would wait for all
/// of this.
pub(super) fn sync_disks(context: &Context, definition: &Definition) -> Syncing {
    let paths = context.paths.vm(definition.id.as_str());
    tokio::task::spawn_blocking(move || {
        storage::sync(&paths.root)?;
        storage::sync(&paths.work)?;
        storage::sync(&paths.state)
    })
}

/// Waits until new disks are synced.
pub(super) async fn synced(syncing: Syncing) -> Result<(), VmError> {
    match syncing.await {
        Ok(synced) => Ok(synced?),
        Err(_) => Err(VmError::Closing),
    }
}

fn make_private_dir(dir: &std::path::Path) -> Result<(), VmError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(VmError::io(format!("make the directory {}", dir.display())))
}
