//! Turns: of many VMs that go the same way at once only so many do so at the same time. The others wait, and all of them are
//! there sooner than if each took from all.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::context::processors;
use crate::operation::Operation;

/// The turns of all VMs.
#[derive(Debug)]
pub struct AllTurns {
    /// To boot. Many: guests that are up go on with what their init starts, and whoever begins after them gets less of the
    /// processors than who begins beside them. Not all: each has the host's memory touched.
    pub starts: Turns,
    /// To go down, which keeps a processor busy under emulation, and is over soon.
    pub stops: Turns,
    /// To have its disks removed: file systems do that one after the other, but for a part of it.
    pub removals: Turns,
}

/// Turns of one kind.
#[derive(Debug)]
pub struct Turns {
    /// The stage of waiting for one.
    stage: &'static str,
    /// How many there are.
    all: usize,
    free: Semaphore,
}

impl Default for AllTurns {
    /// As many as the host's processors suggest.
    fn default() -> AllTurns {
        AllTurns {
            starts: Turns::new("start.queue", 8 * processors()),
            stops: Turns::new("stop.queue", 2 * processors()),
            removals: Turns::new("disk.queue", processors()),
        }
    }
}

impl Turns {
    fn new(stage: &'static str, all: usize) -> Turns {
        Turns { stage, all, free: Semaphore::new(all) }
    }

    /// Waits for a turn, as one more stage where there is none at once. It ends when what is returned is dropped.
    pub(super) async fn take(&self, operation: &Operation) -> Option<SemaphorePermit<'_>> {
        match self.free.try_acquire() {
            Ok(turn) => Some(turn),
            // Nobody closes it.
            Err(_) => operation.stage(self.stage, self.free.acquire()).await.ok(),
        }
    }

    /// Does something when its turn has come. What takes longer than `at_most` waits for something itself, and is in nobody's
    /// way: it goes on without a turn.
    pub(super) async fn during<T>(&self, operation: &Operation, at_most: Duration, work: impl Future<Output = T>) -> T {
        let turn = self.take(operation).await;
        tokio::pin!(work);
        match tokio::time::timeout(at_most, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                drop(turn);
                work.await
            }
        }
    }

    /// How many there are.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.all - self.free.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation() -> Operation {
        Operation::unwatched("stop", "devbox")
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_there_are_go_at_once_and_all_come_to_it() {
        let turns = Turns::new("queue", 2);
        let most = std::cell::Cell::new(0);
        let go = async || {
            turns
                .during(&operation(), Duration::from_secs(5), async {
                    most.set(most.get().max(turns.taken()));
                    tokio::time::sleep(Duration::from_secs(1)).await;
                })
                .await;
        };
        let began = tokio::time::Instant::now();
        futures::future::join_all((0..6).map(|_| go())).await;
        assert_eq!((most.get(), began.elapsed().as_secs(), turns.taken()), (2, 3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_keeps_no_turn() {
        let turns = Turns::new("queue", 1);
        let (operation, began) = (operation(), tokio::time::Instant::now());
        let hangs = turns.during(&operation, Duration::from_secs(5), tokio::time::sleep(Duration::from_secs(60)));
        let next = async {
            drop(turns.take(&operation).await);
            began.elapsed().as_secs()
        };
        let ((), next) = futures::future::join(hangs, next).await;
        assert_eq!((next, began.elapsed().as_secs()), (5, 60));
    }
}
