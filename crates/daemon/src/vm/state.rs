//! What a VM is doing, and what may come next. Pure.
//!
//! ```text
//!   creating ──made──▶ stopped ──start──▶ starting ──ready──▶ running
//!      │                 │ ▲                │  │                │ │
//!      │                 │ └────ended───────┘  └─────stop──┐    │ └─ended──▶ stopped
//!      │                 │ ▲                               ▼    │
//!      │                 │ └────────ended────────────── stopping ◀──stop──┘
//!      └─remove─▶ removing ◀──remove── every other state
//! ```

/// What a VM is doing. Each variant holds what is known only then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its disks are being made.
    Creating,
    /// It does not run.
    Stopped {
        /// Why, where nobody asked for it.
        reason: Option<String>,
    },
    /// Its VMM is starting, or its agent has not answered yet.
    Starting,
    /// Its agent has answered.
    Running(Run),
    /// It is going down.
    Stopping,
    /// It is being removed.
    Removing,
}

/// A guest that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The guest's boot id.
    pub boot_id: String,
    /// `kvm`, `emulation` or `fake`.
    pub accelerator: String,
    /// When it was started, in seconds since 1970-01-01 UTC.
    pub since: u64,
}

/// What happens to a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Its disks are made.
    Made,
    /// It shall start.
    Start,
    /// Its agent answered.
    Ready(Run),
    /// It shall stop.
    Stop,
    /// Its VMM has ended, or was ended, and what it held is released.
    Ended {
        /// Why, where nobody asked for it.
        reason: Option<String>,
    },
    /// It shall go.
    Remove,
}

/// Why an event does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It has no disks yet.
    #[error("it is still being created")]
    Creating,
    /// It does not run.
    #[error("it is not running")]
    NotRunning,
    /// Its VMM has no console to type at.
    #[error("it has no console")]
    NoConsole,
    /// It runs already, or is about to.
    #[error("it is running already")]
    AlreadyRunning,
    /// It is going down.
    #[error("it is stopping")]
    Stopping,
    /// It is being removed.
    #[error("it is being removed")]
    Removing,
}

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`Denied`], where the event does not fit.
    pub fn next(&self, event: Event) -> Result<State, Denied> {
        match self {
            State::Creating => match event {
                Event::Made => Ok(State::Stopped { reason: None }),
                Event::Remove => Ok(State::Removing),
                Event::Start | Event::Ready(_) | Event::Stop | Event::Ended { .. } => Err(Denied::Creating),
            },
            State::Stopped { .. } => match event {
                Event::Start => Ok(State::Starting),
                Event::Remove => Ok(State::Removing),
                Event::Made | Event::Ready(_) | Event::Stop | Event::Ended { .. } => Err(Denied::NotRunning),
            },
            State::Starting => match event {
                Event::Ready(run) => Ok(State::Running(run)),
                Event::Stop => Ok(State::Stopping),
                Event::Ended { reason } => Ok(State::Stopped { reason }),
                Event::Remove => Ok(State::Removing),
                Event::Made | Event::Start => Err(Denied::AlreadyRunning),
            },
            State::Running(_) => match event {
                Event::Stop => Ok(State::Stopping),
                Event::Ended { reason } => Ok(State::Stopped { reason }),
                Event::Remove => Ok(State::Removing),
                Event::Made | Event::Start | Event::Ready(_) => Err(Denied::AlreadyRunning),
            },
            State::Stopping => match event {
                Event::Ended { reason } => Ok(State::Stopped { reason }),
                Event::Remove => Ok(State::Removing),
                Event::Made | Event::Start | Event::Ready(_) | Event::Stop => Err(Denied::Stopping),
            },
            State::Removing => match event {
                Event::Made | Event::Start | Event::Ready(_) | Event::Stop | Event::Ended { .. } | Event::Remove => {
                    Err(Denied::Removing)
                }
            },
        }
    }

    /// Whether a VMM may be alive in this state.
    pub fn may_run(&self) -> bool {
        match self {
            State::Starting | State::Running(_) | State::Stopping | State::Removing => true,
            State::Creating | State::Stopped { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run() -> Run {
        Run { boot_id: "b".into(), accelerator: "fake".into(), since: 1 }
    }

    fn name(state: &State) -> &'static str {
        match state {
            State::Creating => "creating",
            State::Stopped { .. } => "stopped",
            State::Starting => "starting",
            State::Running(_) => "running",
            State::Stopping => "stopping",
            State::Removing => "removing",
        }
    }

    fn states() -> Vec<State> {
        let stopped = State::Stopped { reason: None };
        vec![State::Creating, stopped, State::Starting, State::Running(run()), State::Stopping, State::Removing]
    }

    fn events() -> Vec<Event> {
        let ended = Event::Ended { reason: None };
        vec![Event::Made, Event::Start, Event::Ready(run()), Event::Stop, ended, Event::Remove]
    }

    /// The arrows of the diagram above, said once more, are exactly those of `next`.
    #[test]
    fn the_diagram_is_true() {
        let diagram = [
            ("creating", "stopped"),
            ("stopped", "starting"),
            ("starting", "running"),
            ("starting", "stopped"),
            ("starting", "stopping"),
            ("running", "stopped"),
            ("running", "stopping"),
            ("stopping", "stopped"),
            ("creating", "removing"),
            ("stopped", "removing"),
            ("starting", "removing"),
            ("running", "removing"),
            ("stopping", "removing"),
        ];
        let mut found = std::collections::BTreeSet::new();
        for state in states() {
            for event in events() {
                if let Ok(next) = state.next(event) {
                    found.insert((name(&state), name(&next)));
                }
            }
        }
        assert_eq!(found, diagram.into_iter().collect());
    }

    proptest! {
        /// Whatever happens, a VM that has gone through `Removing` never comes back, and one runs only after `Start`.
        #[test]
        fn any_sequence_keeps_the_rules(picks in proptest::collection::vec(0usize..6, 0..60)) {
            let (mut state, mut started) = (State::Creating, false);
            for pick in picks {
                let event = events().swap_remove(pick);
                started |= event == Event::Start && state.next(event.clone()).is_ok();
                if let Ok(next) = state.next(event) {
                    prop_assert!(state != State::Removing);
                    state = next;
                }
                prop_assert!(started || !matches!(state, State::Running(_)));
            }
        }
    }
}
