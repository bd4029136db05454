//! Guests that their VMM has paused because the host's disk is full, and how they go on.
//!
//! Nothing tells when there is space again, so it is looked for. A guest that goes on with too little of it pauses again at
//! once; so it counts as paused until it has run for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::actor::Actor;
use super::error::VmError;
use super::watch::{Wake, Watchers};
use crate::context::blocking;
use crate::operation::Operation;
use crate::storage::ENOUGH;
use crate::vmm::{Instance, Shortage};
use banger_linux::file::free_space;

/// How often space is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The longest pause between two tries that were in vain.
const LONGEST: Duration = Duration::from_secs(32);

/// How long a guest has to run before it counts as running.
const STEADY: Duration = Duration::from_secs(1);

impl Watchers {
    /// Watches whether the guest is paused for want of space at `disks`, and lets it go on when there is some.
    pub(super) fn storage(&mut self, instance: Arc<dyn Instance>, disks: PathBuf) {
        let (run, wakes) = (self.run, self.wakes.clone());
        self.tasks.spawn(async move {
            let mut shortage = instance.shortage();
            while shortage.wait_for(|shortage| shortage.paused).await.is_ok() {
                // An owner that is gone wants nothing more, here and below.
                drop(wakes.send(Wake::Paused(run)));
                goes_on(&*instance, &disks).await;
                drop(wakes.send(Wake::GoesOn(run)));
            }
        });
    }
}

/// Lets a guest go on as soon as there is space; ends when it runs steadily.
async fn goes_on(instance: &dyn Instance, disks: &Path) {
    let mut pause = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        if !has_space(disks).await {
            pause = LOOK;
        } else if try_to_go_on(instance).await {
            return;
        } else {
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// As [`goes_on`], each time that it is paused; never ends.
pub(super) async fn keep_going(instance: &dyn Instance, disks: &Path) {
    let mut shortage = instance.shortage();
    while shortage.wait_for(|shortage| shortage.paused).await.is_ok() {
        goes_on(instance, disks).await;
    }
    std::future::pending().await
}

/// Whether there is enough space for a guest to go on.
async fn has_space(disks: &Path) -> bool {
    let disks = disks.to_owned();
    // Where it cannot be told, a try does.
    blocking(move || free_space(&disks)).await.is_ok_and(|free| free >= ENOUGH)
}

/// Lets a guest go on, and says whether it ran for a while after that.
async fn try_to_go_on(instance: &dyn Instance) -> bool {
    let mut shortage = instance.shortage();
    let before = *shortage.borrow_and_update();
    if before.paused
        && let Err(error) = instance.resume().await
    {
        tracing::debug!(error = crate::api::error::chain(&error), "a paused guest does not go on");
        return false;
    }
    let again = |shortage: &Shortage| shortage.times > before.times;
    let fails = tokio::time::timeout(STEADY, shortage.wait_for(again)).await.is_ok();
    !fails && !shortage.borrow().paused
}

impl Actor {
    /// Lets its guest go on if it is paused.
    ///
    /// # Errors
    /// [`VmError::Paused`], where there is no space yet.
    pub(super) async fn go_on(&mut self, attempted: &'static str) -> Result<(), VmError> {
        let Some(running) = self.running.as_ref().filter(|running| running.paused) else { return Ok(()) };
        if !has_space(&self.disks()).await || !try_to_go_on(&*running.instance).await {
            return Err(VmError::Paused { attempted, name: self.definition.name.clone() });
        }
        self.runs_again();
        Ok(())
    }

    /// Whether its guest is paused and stays so: it cannot shut down. Says so.
    pub(super) async fn cannot_go_down(&mut self, operation: &Operation) -> bool {
        let stays = self.go_on("stop").await.is_err();
        if stays {
            operation.line("its guest is paused, because the host's disk is full, and cannot shut down: it is killed");
        }
        stays
    }

    /// Takes notice that its guest is paused.
    pub(super) fn pauses(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| !running.paused) {
            running.paused = true;
            tracing::warn!(vm = self.definition.name, "paused: the host's disk is full");
        }
    }

    /// Takes notice that its guest, which was paused, runs.
    pub(super) fn runs_again(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| running.paused) {
            running.paused = false;
            tracing::info!(vm = self.definition.name, "goes on: there is space on the host's disk");
            if let Some(guest) = running.guest.clone() {
                // Its clock stood still.
                running.watchers.tell_the_time(guest);
            }
        }
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::{Channel, Console, Farewell, VmmError};
    use async_trait::async_trait;
    use banger_linux::process::{Launch, Process, Program};
    use futures::future::BoxFuture;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::watch;

    /// A guest that pauses again at once the first times.
    struct Stubborn {
        process: Process,
        shortage: watch::Sender<Shortage>,
        refusals: AtomicU32,
        tries: AtomicU32,
    }

    impl Stubborn {
        fn new(refusals: u32) -> Stubborn {
            let process = Process::start(Launch::new(Program::Agent("/bin/true".into()), [] as [&str; 0])).unwrap();
            let shortage = watch::channel(Shortage { paused: true, times: 1 }).0;
            Stubborn { process, shortage, refusals: refusals.into(), tries: 0.into() }
        }
    }

    #[async_trait]
    impl Instance for Stubborn {
        fn process(&self) -> &Process {
            &self.process
        }
        async fn connect(&self) -> Result<Box<dyn Channel>, VmmError> {
            Err(VmmError::Gone)
        }
        fn abandoned(&self) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
        fn farewell(&self) -> BoxFuture<'static, Option<Farewell>> {
            Box::pin(std::future::ready(None))
        }
        fn shortage(&self) -> watch::Receiver<Shortage> {
            self.shortage.subscribe()
        }
        async fn resume(&self) -> Result<(), VmmError> {
            self.tries.fetch_add(1, Ordering::Relaxed);
            self.shortage.send_modify(|shortage| shortage.paused = false);
            let left = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_ok() {
                self.shortage.send_modify(|shortage| *shortage = Shortage { paused: true, times: shortage.times + 1 });
            }
            Ok(())
        }
        fn console(&self) -> Option<Console> {
            None
        }
        async fn grow_disk(&self, _: usize, _: u64) -> Result<(), VmmError> {
            Ok(())
        }
        async fn press_power_button(&self) -> Result<(), VmmError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_pauses_again_at_once_is_paused_all_the_time_and_tried_less_and_less_often() {
        let guest = Arc::new(Stubborn::new(4));
        let (wakes, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let ended: super::super::start::VmmEnd = futures::FutureExt::shared(Box::pin(std::future::pending()));
        let mut watchers = Watchers::new("vm".into(), 7, wakes, ended);
        let began = tokio::time::Instant::now();
        watchers.storage(Arc::clone(&guest) as Arc<dyn Instance>, std::env::temp_dir());
        assert!(matches!(heard.recv().await, Some(Wake::Paused(7))));
        assert!(matches!(heard.recv().await, Some(Wake::GoesOn(7))));
        assert_eq!(guest.tries.load(Ordering::Relaxed), 5);
        // Pauses of 1, 2, 4, 8 and 16 s.
        assert!((31..40).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert!(heard.try_recv().is_err());

        guest.shortage.send_modify(|shortage| *shortage = Shortage { paused: true, times: shortage.times + 1 });
        assert!(matches!(heard.recv().await, Some(Wake::Paused(7))));
    }

    #[tokio::test(start_paused = true)]
    async fn without_space_no_guest_is_let_go_on() {
        let guest = Stubborn::new(0);
        // A file system without any space.
        let nowhere = Path::new("/proc");
        assert!(tokio::time::timeout(Duration::from_secs(60), goes_on(&guest, nowhere)).await.is_err());
        assert_eq!(guest.tries.load(Ordering::Relaxed), 0);
    }
}
