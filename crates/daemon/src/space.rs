//! Warns before the disk with the VMs is full: while there is still time to make room.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use banger_api::events::Change;
use banger_linux::file::free_space;

use crate::context::{Context, blocking};

/// Below this much free space it is warned, in bytes: VMs run into a full disk before long.
pub const LOW: u64 = 1 << 30;

/// So much must be free for the warning to end, in bytes. Otherwise what comes and goes would be told each time.
const ENOUGH: u64 = LOW + (LOW >> 2);

/// How often it is looked at. Nothing tells when it changes.
const LOOK: Duration = Duration::from_secs(5);

/// What no file system has.
const NOT_LOW: u64 = u64::MAX;

/// How much space there is below the state directory, where that is little.
#[derive(Debug)]
pub struct Space(AtomicU64);

impl Default for Space {
    fn default() -> Space {
        Space(AtomicU64::new(NOT_LOW))
    }
}

impl Space {
    /// The free space, in bytes, if it is so little that it is warned.
    pub fn low(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|free| *free != NOT_LOW)
    }

    /// Takes notice of how much is free; what there is to tell of it.
    fn take(&self, free: u64, below: &Path) -> Option<Change> {
        let was_low = self.low().is_some();
        let is_low = free < if was_low { ENOUGH } else { LOW };
        self.0.store(if is_low { free } else { NOT_LOW }, Ordering::Relaxed);
        let directory = below.display().to_string();
        match (was_low, is_low) {
            (false, true) => Some(Change::SpaceLow { directory, free }),
            (true, false) => Some(Change::SpaceEnough { directory, free }),
            (true, true) | (false, false) => None,
        }
    }
}

/// Looks at the free space for ever, and tells when it becomes low and when it is enough again.
pub async fn watch(context: Arc<Context>) {
    loop {
        let state = context.paths.state.clone();
        // Where it cannot be told, the doctor says why.
        if let Ok(free) = blocking(move || free_space(&state)).await
            && let Some(change) = context.space.take(free, &context.paths.state)
        {
            let directory = context.paths.state.display();
            if let Change::SpaceLow { .. } = change {
                tracing::warn!(%directory, free, "the disk with the VMs is nearly full");
            } else {
                tracing::info!(%directory, free, "the disk with the VMs has space again");
            }
            context.changes.tell(change);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_when_it_becomes_low_and_once_when_there_is_clearly_enough() {
        let space = Space::default();
        let take = |free| match space.take(free, Path::new("/state")) {
            Some(Change::SpaceLow { free, .. }) => Some(("low", free)),
            Some(Change::SpaceEnough { free, .. }) => Some(("enough", free)),
            _ => None,
        };
        assert_eq!((take(LOW), space.low()), (None, None));
        assert_eq!((take(LOW - 1), space.low()), (Some(("low", LOW - 1)), Some(LOW - 1)));
        assert_eq!((take(0), space.low()), (None, Some(0)));
        assert_eq!((take(ENOUGH - 1), space.low()), (None, Some(ENOUGH - 1)));
        assert_eq!((take(ENOUGH), space.low()), (Some(("enough", ENOUGH)), None));
        assert_eq!((take(LOW), space.low()), (None, None));
    }
}
