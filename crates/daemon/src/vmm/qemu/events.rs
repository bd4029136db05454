//! What QEMU says unasked: that the guest has closed its end of a port, that the host's disk is full, and how the guest went
//! down.
//!
//! One listener for each VM, from its start or adoption to its end, on a monitor of its own: QEMU serves one client at a time,
//! and what it says while nobody listens is lost.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;

use super::args::id;
use super::qmp::{Qmp, QmpError};
use crate::vmm::{Farewell, Shortage};

/// What was heard so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Heard {
    /// Whether nothing is missed any more.
    listening: bool,
    /// How often the guest has closed the agent's port.
    closings: u64,
    /// How the guest went down.
    farewell: Option<Farewell>,
    /// Whether nothing more will be heard.
    over: bool,
}

/// A listener; it ends with its VM, or when the last handle on it is dropped.
#[derive(Debug, Clone)]
pub struct Events {
    heard: watch::Receiver<Heard>,
    shortage: watch::Receiver<Shortage>,
}

impl Events {
    /// Listens on a monitor, which may take `patience` to greet.
    pub fn listen(monitor: PathBuf, patience: Duration) -> Events {
        let (says, heard) = watch::channel(Heard::default());
        let (tells, shortage) = watch::channel(Shortage::default());
        tokio::spawn(async move {
            let listening = async {
                let mut qmp = Qmp::connect(&monitor, patience).await?;
                says.send_modify(|heard| heard.listening = true);
                // It may have been paused while nobody listened.
                if qmp.is_out_of_space().await? {
                    tells.send_replace(Shortage { paused: true, times: 1 });
                }
                loop {
                    let (name, data) = qmp.event().await?;
                    says.send_modify(|heard| heard.take(&name, &data));
                    tells.send_if_modified(|shortage| shortage.take(&name, &data));
                }
            };
            tokio::select! {
                ended = listening => {
                    let ended: Result<(), QmpError> = ended;
                    if let Err(error) = ended {
                        // QEMU has ended; or it is of a banger that knew no such monitor.
                        tracing::debug!(%error, "nothing more will be heard of a VMM");
                    }
                }
                () = says.closed() => {}
            }
            says.send_modify(|heard| heard.over = true);
        });
        Events { heard, shortage }
    }

    /// The writes that found no space on the host's disk.
    pub fn shortage(&self) -> watch::Receiver<Shortage> {
        self.shortage.clone()
    }

    /// Waits until the guest has closed its end of the agent's port, as `is_open` confirms; never ends where that is not heard.
    pub async fn port_closed<F>(mut self, is_open: impl Fn() -> F)
    where
        F: Future<Output = Result<bool, QmpError>>,
    {
        let told = self.heard.wait_for(|heard| heard.listening || heard.over).await.map(|heard| *heard);
        let Ok(mut before) = told else { return std::future::pending().await };
        // Asked only now that nothing is missed any more, and again after each closing, which may have been an older port's.
        while matches!(is_open().await, Ok(true)) && !before.over {
            let next = self.heard.wait_for(|heard| heard.over || heard.closings > before.closings).await;
            let Ok(next) = next.map(|heard| *heard) else { break };
            before = next;
        }
        if before.over {
            // The VMM ended, which its process tells.
            std::future::pending().await
        }
    }

    /// How the guest went down, once the VMM has ended; nothing where that was not heard within `patience`.
    pub async fn farewell(mut self, patience: Duration) -> Option<Farewell> {
        let over = self.heard.wait_for(|heard| heard.over || heard.farewell.is_some());
        tokio::time::timeout(patience, over).await.ok()?.ok()?.farewell
    }
}

impl Heard {
    fn take(&mut self, name: &str, data: &serde_json::Value) {
        match name {
            "VSERPORT_CHANGE" if data["id"] == id::PORT && data["open"] == false => self.closings += 1,
            // QEMU runs with -no-reboot: a reset ends it (ShutdownCause in qapi/run-state.json).
            "SHUTDOWN" => {
                self.farewell = match data["reason"].as_str() {
                    Some("guest-reset") => Some(Farewell::Rebooted),
                    Some("guest-shutdown") => Some(Farewell::PoweredOff),
                    _ => None,
                }
            }
            _ => {}
        }
    }
}

impl Shortage {
    /// Whether the event changes it. Both of them are in qapi/block-core.json and qapi/run-state.json. A mere STOP may have
    /// another reason.
    fn take(&mut self, name: &str, data: &serde_json::Value) -> bool {
        match name {
            "BLOCK_IO_ERROR" if data["nospace"] == true && data["action"] == "stop" => {
                *self = Shortage { paused: true, times: self.times + 1 };
                true
            }
            "RESUME" => std::mem::take(&mut self.paused),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_write_without_space_that_stops_the_guest_is_a_shortage() {
        let event = |action: &str, nospace: bool| json!({ "device": "", "operation": "write", "action": action, "nospace": nospace });
        let mut shortage = Shortage::default();
        assert!(!shortage.take("BLOCK_IO_ERROR", &event("report", true)));
        assert!(!shortage.take("BLOCK_IO_ERROR", &event("stop", false)));
        assert!(!shortage.take("BLOCK_IO_ERROR", &json!({ "action": "stop" })), "an older QEMU does not say");
        assert!(!shortage.take("STOP", &json!({})));
        assert!(!shortage.take("RESUME", &json!({})));
        assert_eq!(shortage, Shortage::default());

        assert!(shortage.take("BLOCK_IO_ERROR", &event("stop", true)));
        assert!(!shortage.take("STOP", &json!({})));
        assert_eq!(shortage, Shortage { paused: true, times: 1 });
        assert!(shortage.take("RESUME", &json!({})));
        assert!(shortage.take("BLOCK_IO_ERROR", &event("stop", true)));
        assert_eq!(shortage, Shortage { paused: true, times: 2 });
    }

    #[test]
    fn a_reset_and_a_power_off_are_told_apart_and_a_killed_vmm_is_neither() {
        let heard = |reason: &str| {
            let mut heard = Heard::default();
            heard.take("SHUTDOWN", &json!({ "guest": true, "reason": reason }));
            heard.farewell
        };
        assert_eq!(heard("guest-reset"), Some(Farewell::Rebooted));
        assert_eq!(heard("guest-shutdown"), Some(Farewell::PoweredOff));
        assert_eq!(heard("host-signal"), None);
    }

    #[test]
    fn only_the_agents_port_counts() {
        let mut heard = Heard::default();
        heard.take("VSERPORT_CHANGE", &json!({ "id": "other", "open": false }));
        heard.take("VSERPORT_CHANGE", &json!({ "id": id::PORT, "open": true }));
        assert_eq!(heard.closings, 0);
        heard.take("VSERPORT_CHANGE", &json!({ "id": id::PORT, "open": false }));
        assert_eq!(heard.closings, 1);
    }
}
