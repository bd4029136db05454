//! VMs that start again by themselves: by their policy, after a killed daemon, after a reboot of the host, in order.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

use std::time::Duration;

use crate::support::{House, Verb, runs};
use banger_api::vm::{RestartPolicy, VmCreate};
use bangerd::operation::Operation;
use bangerd::vm::request::View;
use bangerd::vm::state::State;

fn create(house: &House, name: &str, restart: RestartPolicy) {
    house.run(async |daemon| {
        let (operation, _) = Operation::begin("create", name);
        let request = VmCreate { name: Some(name.to_owned()), restart, ..VmCreate::default() };
        daemon.registry.create(&request, &operation).await.unwrap().done().await.unwrap();
    });
}

/// Kills the process of the guest, as an accident would.
fn end_guest(view: &View) {
    let process = banger_linux::process::Process::open(view.pid.unwrap(), None).unwrap();
    process.signal(rustix::process::Signal::KILL).unwrap();
}

fn wait_for(house: &House, name: &str, fits: impl Fn(&View) -> bool) -> View {
    house.run(async |daemon| {
        let mut views = daemon.registry.find(name).unwrap().follow();
        views.wait_for(|view| fits(view)).await.unwrap().clone()
    })
}

/// Lets a guest power itself off.
fn power_off(house: &House, name: &str) {
    house.run(async |daemon| {
        // Its end may come before its answer.
        drop(daemon.registry.find(name).unwrap().view().guest.unwrap().power_off().await);
    });
}

#[test]
fn a_failure_and_a_power_off_are_answered_by_policy() {
    let house = House::new();
    for (name, restart, after_failure, after_power_off) in [
        ("never", RestartPolicy::No, false, false),
        ("failed", RestartPolicy::OnFailure, true, false),
        ("always", RestartPolicy::Always, true, true),
    ] {
        create(&house, name, restart);
        for (fails, comes_back) in [(true, after_failure), (false, after_power_off)] {
            let before = house.vm(name).unwrap();
            match fails {
                true => end_guest(&before),
                false => power_off(&house, name),
            }
            let down = wait_for(&house, name, |view| matches!(view.state, State::Stopped { .. }));
            assert_eq!(down.missed, comes_back, "{name} {fails}");
            if comes_back {
                let up = wait_for(&house, name, |view| runs(&view.state));
                assert!(up.pid != before.pid && up.starts_again.is_none(), "{name} {fails}");
            } else {
                assert_eq!(down.starts_again, None, "{name} {fails}");
                house.run(async |daemon| {
                    let handle = daemon.registry.find(name).unwrap();
                    handle.start(Operation::unwatched("start", name)).await.unwrap();
                });
            }
        }
    }
}

#[test]
fn who_was_stopped_by_a_user_stays_so_also_in_the_pause_before_a_start() {
    let mut house = House::new();
    create(&house, "one", RestartPolicy::Always);
    end_guest(&house.vm("one").unwrap());
    wait_for(&house, "one", |view| view.missed && view.starts_again.is_some());
    let stopped = house.run_or_die(Verb::Stop).unwrap().unwrap();
    assert!(matches!(stopped.state, State::Stopped { .. }) && !stopped.missed, "{stopped:?}");
    assert_eq!(stopped.starts_again, None);
    house.kill();
    house.start();
    let view = house.vm("one").unwrap();
    assert!(matches!(view.state, State::Stopped { .. }) && !view.missed, "{view:?}");
    assert!(house.processes().is_empty());
}

#[test]
fn after_a_killed_daemon_and_killed_guests_those_come_back_that_shall_in_order() {
    let mut house = House::new();
    let names = ["one", "two", "three", "four"];
    for name in names {
        create(&house, name, if name == "three" { RestartPolicy::No } else { RestartPolicy::OnFailure });
    }
    house.run(async |daemon| {
        let four = daemon.registry.find("four").unwrap();
        four.stop(true, Duration::ZERO, Operation::unwatched("kill", "four")).await.unwrap();
    });
    for host_rebooted in [false, true] {
        house.kill();
        house.end_processes();
        if host_rebooted {
            house.pretend_a_reboot();
        }
        house.start();
        for name in ["one", "two"] {
            wait_for(&house, name, |view| runs(&view.state) && view.guest.is_some());
        }
        for name in ["three", "four"] {
            let view = house.vm(name).unwrap();
            assert!(matches!(view.state, State::Stopped { .. }) && !view.missed, "{name}: {view:?}");
        }
        assert_eq!(house.processes().len(), 2);
    }
}

#[test]
fn a_start_by_itself_that_fails_is_tried_again_and_one_by_its_user_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    let mut house = House::with(&format!(r#"[ -e {} ] && exit 1; exec "$AGENT" "$@""#, broken.display()));
    create(&house, "one", RestartPolicy::Always);
    std::fs::write(&broken, "").unwrap();
    end_guest(&house.vm("one").unwrap());
    let failed = wait_for(&house, "one", |view| match &view.state {
        State::Stopped { reason: Some(reason) } => reason.contains("its start failed") && view.starts_again.is_some(),
        _ => false,
    });
    assert!(failed.missed);
    std::fs::remove_file(&broken).unwrap();
    wait_for(&house, "one", |view| runs(&view.state));

    house.run_or_die(Verb::Stop).unwrap().unwrap();
    std::fs::write(&broken, "").unwrap();
    house.run_or_die(Verb::Start).unwrap().unwrap_err();
    let view = house.vm("one").unwrap();
    assert!(!view.missed && view.starts_again.is_none(), "{view:?}");
}
