//! Following what others do to the host's network while it is VMs', and mending it. Nothing happens here while nobody does anything.
//!
//! Others do it in bursts: what begins a burst is waited after for a moment. If it does not end, because another program undoes
//! what is mended here, the moments get longer, up to a second, and the log says so once.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use banger_linux::netlink::Events;
use tokio::sync::Notify;

use super::network::Network;
use super::upkeep::Doubt;

/// How long more is waited for after the first that is heard.
const GATHERING: Duration = Duration::from_millis(100);

/// How often something may have to be mended within [`MEMORY`] before it is believed that somebody fights.
const OFTEN: usize = 8;

/// How long a mend counts.
const MEMORY: Duration = Duration::from_secs(60);

/// The longest wait while somebody fights: guests are cut off for no longer, and a mend a second is some hundredths of a processor.
const LONGEST: Duration = Duration::from_secs(1);

/// Looks after a network until it is gone. Each nudge has everything looked at, at once.
pub(super) async fn follow(network: Weak<Network>, events: Events, nudge: Arc<Notify>) {
    let mut pace = Pace::default();
    let mut again = false;
    loop {
        let mut heard = Vec::new();
        let mut doubt = Doubt::default();
        if again {
            doubt = Doubt::ALL;
        } else {
            tokio::select! {
                () = nudge.notified() => doubt = Doubt::ALL,
                next = events.next() => match next {
                    Ok(next) => heard = next,
                    Err(error) => return tracing::error!(%error, "the host's network can no longer be followed"),
                },
            }
        }
        let nudged = !again && doubt == Doubt::ALL;
        if !nudged && tokio::time::timeout(pace.wait(Instant::now()), nudge.notified()).await.is_ok() {
            doubt = Doubt::ALL;
        }
        heard.extend(events.take().unwrap_or_default());
        let Some(network) = network.upgrade() else { return };
        let heard = network.doubt(&heard);
        doubt = Doubt { links: doubt.links || heard.links, rules: doubt.rules || heard.rules };
        if doubt.is_none() {
            continue;
        }
        again = false;
        match network.mend(doubt).await {
            Ok(false) => {}
            Ok(true) if nudged => {}
            Ok(true) => {
                tracing::warn!("somebody has changed the network of VMs; it is mended");
                pace.mended(Instant::now());
            }
            Err(error) => {
                let error = crate::api::error::chain(&error);
                tracing::warn!(error, "the network of VMs cannot be mended");
                again = pace.mended(Instant::now());
            }
        }
    }
}

/// How quick mending is.
#[derive(Debug, Default)]
struct Pace {
    mends: Vec<Instant>,
    is_told: bool,
}

impl Pace {
    /// How long to wait for more after something was heard.
    fn wait(&mut self, now: Instant) -> Duration {
        self.mends.retain(|at| now.duration_since(*at) < MEMORY);
        let over = self.mends.len().saturating_sub(OFTEN);
        self.is_told &= over > 0;
        GATHERING.saturating_mul(1 << over.min(16)).min(LONGEST)
    }

    /// Something had to be mended. Whether that is not yet too often.
    fn mended(&mut self, now: Instant) -> bool {
        self.mends.push(now);
        self.wait(now);
        let fights = self.mends.len() > OFTEN;
        if fights && !self.is_told {
            self.is_told = true;
            tracing::warn!("another program keeps changing the network of VMs; it is mended once a second");
        }
        !fights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fights_is_answered_less_often_and_forgotten_in_the_end() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let (mut now, mut waits) = (began, Vec::new());
        while now < began + Duration::from_secs(600) {
            let wait = pace.wait(now);
            now += wait;
            waits.push(wait);
            pace.mended(now);
        }
        assert_eq!(waits[..=OFTEN], [GATHERING; OFTEN + 1]);
        assert_eq!((waits[OFTEN + 1], waits[OFTEN + 2]), (GATHERING * 2, GATHERING * 4));
        // Without the pace there would be six thousand.
        assert!(waits.len() < 620 && waits.iter().all(|wait| *wait <= LONGEST), "{waits:?}");
        assert_eq!(pace.wait(now + MEMORY), GATHERING);
        assert!(!pace.is_told);
    }
}
