//! The fault loop: every point of every verb fails once, and is where the daemon is killed once. Whatever happens, the VM is
//! as it is recorded or nothing of it is left, and nothing but `rm` and a failed create takes a disk.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod support;

use bangerd::operation::fault::{Mode, Phase, Step};
use support::{House, Verb, runs};

/// The points that a verb passes.
fn points(verb: Verb) -> &'static [Step] {
    use Step::*;
    match verb {
        Verb::Create => &[Reserve, CloneRoot, CloneWork, RecordStart, Prepare, StartVmm, AwaitAgent, RecordRunning],
        Verb::Start => &[RecordStart, Prepare, StartVmm, AwaitAgent, RecordRunning],
        Verb::Stop => &[RecordStop, PowerOff, EndVmm, RemoveRuntime, RecordStopped],
        Verb::Kill => &[RecordStop, EndVmm, RemoveRuntime, RecordStopped],
        Verb::Remove => &[RecordRemove, EndVmm, RemoveRuntime, RemoveDisks, Forget],
    }
}

/// A house in which the verb can be run.
fn prepared(verb: Verb) -> House {
    let mut house = House::new();
    let before: &[Verb] = match verb {
        Verb::Create => &[],
        Verb::Start => &[Verb::Create, Verb::Stop],
        Verb::Stop | Verb::Kill | Verb::Remove => &[Verb::Create],
    };
    for verb in before {
        house.run_or_die(*verb).unwrap().unwrap();
    }
    house
}

fn strike_everywhere(verb: Verb) {
    for &step in points(verb) {
        for phase in [Phase::Before, Phase::After] {
            for mode in [Mode::Fail, Mode::Kill] {
                strike(verb, step, phase, mode);
            }
        }
    }
}

fn strike(verb: Verb, step: Step, phase: Phase, mode: Mode) {
    let point = format!("{verb:?} {step:?} {phase:?} {mode:?}");
    let mut house = prepared(verb);
    let disk = house.vm("one").map(|view| house.work_disk(&view));

    house.faults.plan(step, phase, mode);
    let ended = house.run_or_die(verb);
    assert!(!house.faults.unplan(), "{point}: the point was not passed");
    match (mode, ended) {
        (Mode::Kill, None) => house.start(),
        (Mode::Fail, Some(Err(_))) => {}
        (_, ended) => panic!("{point}: {ended:?}"),
    }

    as_recorded(&house, &point);
    match (verb, house.vm("one")) {
        (Verb::Create, None) => assert_eq!(house.left(), Vec::<String>::new(), "{point}"),
        (Verb::Create, Some(_)) => assert_eq!(mode, Mode::Kill, "{point}: a failed create left a VM"),
        (Verb::Remove, None) => assert_eq!(house.left(), Vec::<String>::new(), "{point}"),
        (Verb::Remove, Some(_)) => {}
        (_, None) => panic!("{point}: the VM is gone"),
        (_, Some(view)) => assert_eq!(Some(house.work_disk(&view)), disk, "{point}: the work disk changed"),
    }

    // A second try does it, whatever the first one left.
    if house.vm("one").is_none() != (verb == Verb::Create) {
        let again = house.run_or_die(verb).unwrap();
        assert!(again.is_ok() || verb == Verb::Create, "{point}: again: {again:?}");
        as_recorded(&house, &point);
    }
    if house.vm("one").is_some() {
        house.run_or_die(Verb::Remove).unwrap().unwrap();
    }
    assert_eq!(house.left(), Vec::<String>::new(), "{point}: after rm");
}

/// A VM that is said to run has one process, one that is said to be stopped has none.
fn as_recorded(house: &House, point: &str) {
    let Some(view) = house.vm("one") else { return };
    let processes = house.processes();
    match &view.state {
        state if runs(state) => assert_eq!(processes.len(), 1, "{point}: {processes:?}"),
        bangerd::vm::state::State::Stopped { .. } => assert!(processes.is_empty(), "{point}: {processes:?}"),
        // A removal or stop that failed half-way says so, and is tried again.
        _ => {}
    }
}

#[test]
fn create() {
    strike_everywhere(Verb::Create);
}

#[test]
fn start() {
    strike_everywhere(Verb::Start);
}

#[test]
fn stop() {
    strike_everywhere(Verb::Stop);
}

#[test]
fn kill() {
    strike_everywhere(Verb::Kill);
}

#[test]
fn remove() {
    strike_everywhere(Verb::Remove);
}

#[test]
fn no_point_is_left_out() {
    let verbs = [Verb::Create, Verb::Start, Verb::Stop, Verb::Kill, Verb::Remove];
    for step in Step::ALL {
        assert!(verbs.iter().any(|verb| points(*verb).contains(&step)), "{step:?} is never struck");
    }
}
