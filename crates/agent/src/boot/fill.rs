//! A work disk filled from the image's own `/root`, for images from before work seeds existed.

use std::path::Path;

use super::BootError;
use super::disks::Disk;

/// Mounts the work disk on `on`, with what was there before copied into it.
pub fn mount_filled(work: &Disk, on: &Path) -> Result<(), BootError> {
    // Mounted aside first: once it is on its place it hides what is to be copied.
    work.mount(on)
}
